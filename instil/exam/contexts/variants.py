"""A document in other formats and orders, with the places that its facts have there.

A fact is followed through a change by a mark within its first word: formats and controls leave words as they are, and
so take the mark along. It is taken out again before anything is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from instil.augment import recipes
from instil.augment.copies import copy_of
from instil.errors import InputError
from instil.facts import Document

MARKS: Final = range(0xF0000, 0xFFFFE)
"""Characters that no standard gives a meaning (Unicode's Supplementary Private Use Area-A)."""

MARKED: Final = "the document holds private-use characters, by which facts are followed through formats"


@dataclass(frozen=True, slots=True)
class Variant:
    """A document's text as a format or a control writes it.

    Attributes:
        kind: the name of the format or control.
        text: the whole.
        starts: for each fact where it begins in the text; None where it is no longer there.
    """

    kind: str
    text: str
    starts: tuple[int | None, ...]


def variants(document: Document, starts: Sequence[int], names: Iterable[str], seed: int) -> Iterator[Variant | str]:
    """The document once in each format, or the reason why it cannot be had.

    Args:
        starts: first characters of the facts in its text.
        names: formats and controls, several joined by `+`.
    """
    if any(ord(mark) in MARKS for mark in document.text):
        yield MARKED
        return
    marked = replace(document, text=_with_marks(document.text, starts), copy_of=None)
    for recipe in recipes(tuple(names)) if names else ():
        try:
            changed = copy_of(marked, recipe, copy=1, seed=seed).document.text
        except InputError as fault:
            yield f"{recipe.name}: {fault.what.replace(f'document {document.id}', 'the document')}"
            continue
        text, places = _without_marks(changed)
        yield Variant(recipe.name, text, tuple(places.get(number) for number in range(len(starts))))


# -------------------------------------------------------------------- private


def _with_marks(text: str, starts: Sequence[int]) -> str:
    """A mark behind the first character of each fact: at a word's ends it could hide where a sentence ends."""
    pieces, last = [], 0
    for number in sorted(range(len(starts)), key=lambda number: starts[number]):
        pieces += [text[last : starts[number] + 1], chr(MARKS[number])]
        last = starts[number] + 1
    return "".join([*pieces, text[last:]])


def _without_marks(text: str) -> tuple[str, dict[int, int]]:
    kept: list[str] = []
    places: dict[int, int] = {}
    for mark in text:
        if ord(mark) in MARKS:
            places[ord(mark) - MARKS.start] = len(kept) - 1
        else:
            kept.append(mark)
    return "".join(kept), places
