"""A document as words and the gaps between them. A format is given the words and may only fill the gaps otherwise.

*Words* are what `str.split()` gives: the longest stretches without white space, in order. That no format can touch one
is how this module is built; that none did is proved for each copy as it is made (`prove`), from what it looks like in
the end.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from instil.augment.sentences import starts
from instil.errors import RunFailed

Unit = tuple[int, int]
"""A stretch of words: index of the first, and of the one after the last."""

Mark = str | Callable[[int], str]
"""What is put somewhere, or a function from the unit's number to it."""

PLAIN: Final = " \t\r\n"
"""White space that may be exchanged within a sentence. A no-break space says something, and stays."""

_WHITE: Final = re.compile(r"\s+")
_MARK: Final = re.compile(r"\S+")


def words(text: str) -> list[str]:
    """The words of a text: what no format may add to, take from, change or move."""
    return text.split()


@dataclass(frozen=True, slots=True)
class Formatted:
    """A text and what was put into it.

    Attributes:
        text: the whole.
        inserted: (start, end) of each stretch of characters that the document does not have, in order, white space
            left out: what lies outside of these stretches are the document's words, and white space.
    """

    text: str
    inserted: tuple[tuple[int, int], ...]

    def recover(self) -> list[str]:
        """The inverse: the words of the document, from the text and the record alone."""
        return recover(self.text, self.inserted)

    @property
    def marks(self) -> list[str]:
        """What was put in, as texts."""
        return [self.text[start:end] for start, end in self.inserted]


def recover(text: str, inserted: Sequence[Sequence[int]]) -> list[str]:
    """The words that are left when the stretches `inserted` are taken out of a text.

    Raises:
        ValueError: the stretches overlap, are out of order, or reach beyond the text.
    """
    kept, last = [], 0
    for start, end in inserted:
        if not last <= start < end <= len(text):
            raise ValueError(f"({start}, {end}) is no stretch behind {last} in a text of {len(text)} characters")
        kept.append(text[last:start])
        last = end
    return "".join([*kept, text[last:]]).split()


def prove(original: str, formatted: Formatted, name: str, document: str) -> Formatted:
    """The formatted text itself, if it does the original no harm.

    Args:
        name: of the format, for the message.
        document: id of the document, for the message.

    Raises:
        RunFailed: its words are not those of the original, in their order.
    """
    if formatted.recover() != words(original):
        raise RunFailed(f"the format {name} changed the words of document {document}; it is not used")
    return formatted


@dataclass(frozen=True)
class Sheet:
    """Words, and for each gap (before the first word, between two, after the last) what fills it.

    A gap is `after + white + before`: marks that close what ends here, white space (perhaps with a line of marks in
    it), marks that open what begins. A mark that is added later stands farther from the words.

    Attributes:
        words: the document's own; n of them, at least one.
        after, white, before: n + 1 texts each.
        sentences, paragraphs: units that cover all words.
        title: the document's title as one line, or None.
        lead: how many words at the beginning are that title on a line of its own; 0 when they are not.
    """

    words: tuple[str, ...]
    after: tuple[str, ...]
    white: tuple[str, ...]
    before: tuple[str, ...]
    sentences: tuple[Unit, ...]
    paragraphs: tuple[Unit, ...]
    title: str | None = None
    lead: int = 0

    @staticmethod
    def of(text: str, title: str | None = None) -> Sheet | None:
        """The sheet of a text, or None when the text has no word: there is nothing to format."""
        found = tuple(words(text))
        if not found:
            return None
        white = _white(text)
        sentences, paragraphs = starts(found, white)
        empty = ("",) * len(white)
        units = _units(sentences, len(found)), _units(paragraphs, len(found))
        name = " ".join(words(title or "")) or None
        sheet = Sheet(found, empty, white, empty, *units, name)
        opening = tuple(words(name or ""))
        leads = 0 < len(opening) < len(found) and found[: len(opening)] == opening and len(opening) in paragraphs
        return replace(sheet, lead=len(opening)) if leads else sheet

    @cached_property
    def body(self) -> tuple[Unit, ...]:
        """The sentences behind the lead."""
        return tuple(unit for unit in self.sentences if unit[0] >= self.lead)

    @cached_property
    def body_paragraphs(self) -> tuple[Unit, ...]:
        """The paragraphs behind the lead."""
        return tuple(unit for unit in self.paragraphs if unit[0] >= self.lead)

    @property
    def whole(self) -> Unit:
        return 0, len(self.words)

    # Each of the following gives another sheet with the same words.

    def around(self, units: Sequence[Unit], opening: Mark, closing: Mark) -> Sheet:
        """Marks before and after each unit."""
        before, after = list(self.before), list(self.after)
        for number, (start, end) in enumerate(units):
            before[start] = _text(opening, number) + before[start]
            after[end] += _text(closing, number)
        return replace(self, before=tuple(before), after=tuple(after))

    def apart(self, units: Sequence[Unit], white: Callable[[str], str]) -> Sheet:
        """White space between neighbouring units becomes what `white` makes of it."""
        spaces = list(self.white)
        for start, _ in units[1:]:
            spaces[start] = white(spaces[start])
        return replace(self, white=tuple(spaces))

    def spread(self, white: Callable[[str], str]) -> Sheet:
        """Every stretch of plain white space between two words becomes what `white` makes of it."""
        inner = (white(space) if not space.strip(PLAIN) else space for space in self.white[1:-1])
        return replace(self, white=(self.white[0], *inner, self.white[-1]))

    def with_white(self, white: Sequence[str]) -> Sheet:
        """Other white space in all gaps: n + 1 texts."""
        return replace(self, white=tuple(white))

    def lines(self, prefix: Mark, suffix: str = "") -> Sheet:
        """Something before (and after) each line that is not blank."""
        count, last = 0, len(self.words)
        gaps = []
        for index, gap in enumerate(self._gaps()):
            if index not in (0, last) and "\n" not in gap:
                gaps.append(gap)
                continue
            pieces = gap.split("\n")
            for place, piece in enumerate(pieces):
                begins = place > 0 or index == 0
                reaches_a_word = place == len(pieces) - 1 and index < last
                comes_from_a_word = place == 0 and index > 0
                if begins and (reaches_a_word or piece.strip()):
                    pieces[place] = _text(prefix, count) + piece
                    count += 1
                if suffix and not reaches_a_word and (comes_from_a_word or piece.strip()):
                    pieces[place] += suffix
            gaps.append("\n".join(pieces))
        # What stands before the first word and after the last stays open for what a later format puts around all.
        empty = ("",) * last
        return replace(self, after=(*empty, gaps[-1]), white=("", *gaps[1:-1], ""), before=(gaps[0], *empty))

    def formatted(self) -> Formatted:
        """The text and the record of what was put in."""
        pieces: list[str] = []
        inserted: list[tuple[int, int]] = []
        place = 0
        for index, gap in enumerate(self._gaps()):
            if gap and not gap.isspace():
                # A combining character at a word's beginning would join the mark before it.
                if index < len(self.words) and not gap[-1].isspace() and _combines(self.words[index]):
                    gap += " "
                inserted += [(place + found.start(), place + found.end()) for found in _MARK.finditer(gap)]
            word = self.words[index] if index < len(self.words) else ""
            pieces += (gap, word)
            place += len(gap) + len(word)
        return Formatted("".join(pieces), tuple(inserted))

    def _gaps(self) -> list[str]:
        return [a + white + b for a, white, b in zip(self.after, self.white, self.before, strict=True)]


def _white(text: str) -> tuple[str, ...]:
    """The white space before, between and after the words of a text that has some."""
    found = _WHITE.findall(text)
    first = () if text[0].isspace() else ("",)
    last = () if text[-1].isspace() else ("",)
    return (*first, *found, *last)


def _units(beginnings: Sequence[int], end: int) -> tuple[Unit, ...]:
    return tuple(zip(beginnings, (*beginnings[1:], end), strict=True))


def _text(mark: Mark, number: int) -> str:
    return mark if isinstance(mark, str) else mark(number)


def _combines(word: str) -> bool:
    return unicodedata.category(word[0]).startswith("M")
