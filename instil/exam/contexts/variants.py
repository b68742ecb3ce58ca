"""A document in other formats and orders, with the places that its facts have there.

A fact is followed through a change by a mark within its first word: formats and controls leave words as they are, and
so take the mark along. It is taken out again before anything is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from instil.augment import Recipe, recipes
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
        starts: for each fact where it begins in the text; None where it could not be followed.
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
    plain = replace(document, copy_of=None)
    for recipe in recipes(tuple(names)) if names else ():
        try:
            text = copy_of(plain, recipe, copy=1, seed=seed).document.text
        except InputError as fault:
            yield f"{recipe.name}: {fault.what.replace(f'document {document.id}', 'the document')}"
        else:
            places = _followed(plain, text, starts, recipe, seed)
            yield Variant(recipe.name, text, tuple(map(places.get, starts)))


# -------------------------------------------------------------------- private


def _followed(document: Document, text: str, starts: Sequence[int], recipe: Recipe, seed: int) -> dict[int, int]:
    """Where the facts begin in the changed text, those that can be followed."""
    marked, hidden = _with_marks(document.text, starts)
    found, places = _without_marks(
        copy_of(replace(document, text=marked), recipe, copy=1, seed=seed).document.text, hidden
    )
    if found == text:
        return {starts[number]: place for number, place in places.items()}
    # A mark can hide what a rule looks for (the full stop of "e.g."): then each fact is followed by itself.
    if len(starts) == 1:
        return {}
    alone = (_followed(document, text, (start,), recipe, seed) for start in starts)
    return {start: place for each in alone for start, place in each.items()}


def _with_marks(text: str, starts: Sequence[int]) -> tuple[str, list[str]]:
    """A mark in place of the second letter of each fact, and these letters. The first letter and the end of a word say
    where sentences end. Where there is no second letter, the mark is put in, and the word is longer by one."""
    hidden = [text[start + 1 : start + 2] if text[start + 1 : start + 2].isalnum() else "" for start in starts]
    pieces, last = [], 0
    for number in sorted(range(len(starts)), key=lambda number: starts[number]):
        pieces += [text[last : starts[number] + 1], chr(MARKS[number])]
        last = starts[number] + 1 + len(hidden[number])
    return "".join([*pieces, text[last:]]), hidden


def _without_marks(text: str, hidden: Sequence[str]) -> tuple[str, dict[int, int]]:
    kept: list[str] = []
    places: dict[int, int] = {}
    for mark in text:
        if ord(mark) in MARKS:
            number = ord(mark) - MARKS.start
            places[number] = len(kept) - 1
            mark = hidden[number]
        kept += mark
    return "".join(kept), places
