"""Where paragraphs, headings and sentences of a text begin and end: by rules, for scripts that mark the end of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from instil.facts.sentence_ends import ends_sentence

Span = tuple[int, int]
"""Begin and end of a stretch of text, without the white space around it."""

HARD_WRAPPED: Final = (45, 120)
"""A line between these lengths, in characters, may be cut by hand: its sentence goes on in the next line. A shorter or
longer line is a paragraph of its own."""

HEADING_WORDS: Final = 12
"""A heading has at most so many words."""

_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？]+["'”’»」』）]*""")
_LAST_WORD = re.compile(r"\S+$")
_NEXT_WORD = re.compile(r"\s*(\S+)")
_GAP = re.compile(r"\n[ \t]*\n\s*")


def paragraphs(text: str) -> Iterator[Span]:
    """What stands between blank lines, and lines that are paragraphs of their own."""
    start = 0
    for gap in (*_GAP.finditer(text), None):
        end = len(text) if gap is None else gap.start()
        yield from _without_short_lines(text, start, end)
        start = len(text) if gap is None else gap.end()


def is_heading(text: str) -> bool:
    """Whether a paragraph looks like a heading: one short line that ends no sentence, or one that Markdown marks."""
    line = text.strip()
    if "\n" in line or " | " in line or not line:
        return False
    if re.match(r"#{1,6}\s", line):
        return True
    return len(line.split()) <= HEADING_WORDS and not re.search(r"""[.!?…:;,。！？|]["'”’)]*$|^[-•*]\s""", line)


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """The sentences of a stretch of text. A mark before a small letter ends none, nor does a full stop behind an
    abbreviation or an initial."""
    end = len(text) if end is None else end
    begin = start
    for found in _END.finditer(text, start, end):
        if found.group()[0] in ".!?…" and _goes_on(text, begin, found.end()):
            continue
        yield from _trimmed(text, begin, found.end())
        begin = found.end()
    yield from _trimmed(text, begin, end)


def _goes_on(text: str, begin: int, after: int) -> bool:
    word, following = _LAST_WORD.search(text, begin, after), _NEXT_WORD.match(text, after)
    return word is not None and following is not None and not ends_sentence(word.group(), following.group(1))


def _without_short_lines(text: str, start: int, end: int) -> Iterator[Span]:
    """The paragraphs of a block: its lines joined where they may have been cut by hand."""
    begin, place = start, start
    for line in text[start:end].splitlines(keepends=True):
        place += len(line)
        length = len(line.strip())
        if not HARD_WRAPPED[0] <= length <= HARD_WRAPPED[1]:
            yield from _trimmed(text, begin, place)
            begin = place
    yield from _trimmed(text, begin, end)


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end
