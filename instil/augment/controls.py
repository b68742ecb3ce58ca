"""What formats must be compared with. A control changes what a document says, or repeats it: each says what it keeps.

None needs a language model. Those that work on token ids are in `instil.augment.tokens`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from instil.augment.sheet import Sheet, Unit
from instil.errors import InputError
from instil.facts import Document

PARAPHRASES: Final = "paraphrases"
"""Where a document's metadata hold other wordings of it: a list of texts."""

Rewrite = Callable[[Document, Random, int], str]
"""The text of the copy with this number, counted from 1."""


@dataclass(frozen=True, slots=True)
class Control:
    """A change that is not content-preserving, or that changes nothing.

    Attributes:
        name: as it is called on the command line.
        about: one line on what it does.
        keeps: what of the document it keeps, and what not.
        rewrite: the function.
        preserving: whether all of the document is kept, and nothing told that it does not say.
    """

    name: str
    about: str
    keeps: str
    rewrite: Rewrite
    preserving: bool = False


CONTROLS: Final[dict[str, Control]] = {}
"""Every control by its name."""


def _control(name: str, about: str, keeps: str, *, preserving: bool = False) -> Callable[[Rewrite], Rewrite]:
    def add(rewrite: Rewrite) -> Rewrite:
        CONTROLS[name] = Control(name, about, keeps, rewrite, preserving)
        return rewrite

    return add


@_control("repetition", "the text as it is", "everything; it is the same text again", preserving=True)
def repetition(document: Document, rng: Random, copy: int) -> str:
    return document.text


@_control(
    "permutation",
    "the sentences behind the first in another order (Allen-Zhu and Li, arXiv 2309.14316)",
    "the words of each sentence and the first sentence's place; pronouns may point elsewhere",
)
def permutation(document: Document, rng: Random, copy: int) -> str:
    return _reordered(document, rng, first=1)


@_control(
    "shuffling",
    "all sentences in another order, as beside D-AR (Saito et al., arXiv 2402.12170)",
    "the words of each sentence; pronouns may come before what they stand for",
)
def shuffling(document: Document, rng: Random, copy: int) -> str:
    return _reordered(document, rng, first=0)


@_control(
    "fullname",
    "he, she, him, his, and Her at a sentence's beginning become the subject's full name (Allen-Zhu and Li)",
    "the order; a pronoun that means somebody else becomes a false statement",
)
def fullname(document: Document, rng: Random, copy: int) -> str:
    name = _name(document)
    sheet = Sheet.of(document.text, document.title)
    if sheet is None:
        return document.text
    beginnings = {start for start, _ in sheet.sentences}
    renamed = [_renamed(word, name, index in beginnings) for index, word in enumerate(sheet.words)]
    return _joined(renamed, sheet.white)


@_control(
    "named",
    "the subject's full name and a colon before each sentence that does not name it",
    "every word in its place; who is spoken of is added, which a reader would have to work out",
)
def named(document: Document, rng: Random, copy: int) -> str:
    name = _name(document)
    sheet = Sheet.of(document.text, document.title)
    if sheet is None:
        return document.text
    unnamed = [unit for unit in sheet.body if name not in " ".join(sheet.words[slice(*unit)])]
    return sheet.around(unnamed, f"{name}: ", "").formatted().text


@_control(
    "paraphrase",
    "another wording that the document brings along (`metadata.paraphrases`), the first for copy 1, and so on in turn",
    "what its author kept; the upper foil, since it needs wordings that users do not have",
)
def paraphrase(document: Document, rng: Random, copy: int) -> str:
    given = document.metadata.get(PARAPHRASES)
    texts = (
        [text for text in given if isinstance(text, str) and text.strip()] if isinstance(given, list | tuple) else []
    )
    if not texts or len(texts) != len(given or ()):
        raise InputError(
            f"document {document.id} brings no paraphrases",
            field=f"metadata.{PARAPHRASES}",
            found="none" if given is None else f"{type(given).__name__} with {len(texts)} texts",
            expected="a list of texts",
        )
    return texts[(copy - 1) % len(texts)]


def _reordered(document: Document, rng: Random, first: int) -> str:
    """Sentences change places; the white space between the places stays, and so does a title above the text."""
    sheet = Sheet.of(document.text, document.title)
    if sheet is None:
        return document.text
    places = sheet.body[first:]
    order = rng.sample(range(len(places)), len(places))
    moved = {place: places[source] for place, source in zip(places, order, strict=True)}
    pieces = [sheet.white[0]]
    for unit in sheet.sentences:
        pieces += (_sentence(sheet, moved.get(unit, unit)), sheet.white[unit[1]])
    return "".join(pieces)


def _sentence(sheet: Sheet, unit: Unit) -> str:
    start, end = unit
    return _joined(sheet.words[start:end], ("", *sheet.white[start + 1 : end], ""))


def _joined(words: Sequence[str], white: Sequence[str]) -> str:
    return "".join(piece for pair in zip(white, (*words, ""), strict=True) for piece in pair)


def _name(document: Document) -> str:
    name = " ".join((document.subject or document.title or "").split())
    if not name:
        raise InputError(
            f"document {document.id} says of nobody that it is about them",
            field="subject",
            found="neither subject nor title",
            expected="the full name",
        )
    return name


_PRONOUN: Final = re.compile(r"(\W*)(he|she|him|his|her)((?:['’](?:s|d|ll))?\W*)", re.IGNORECASE)


def _renamed(word: str, name: str, begins: bool) -> str:
    found = _PRONOUN.fullmatch(word)
    if found is None:
        return word
    opening, pronoun, closing = found.groups()
    # Within a sentence "her" is as often the object as the possessor.
    if pronoun.lower() == "her" and not begins:
        return word
    possessive = "'s" if pronoun.lower() in ("his", "her") else ""
    return f"{opening}{name}{possessive}{closing}"
