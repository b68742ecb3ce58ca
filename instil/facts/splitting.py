"""Long documents in pieces, cut before headings, paragraphs, sentences, words, in this order; no character is lost."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from instil.errors import InputError
from instil.facts.sentences import is_heading, paragraphs, sentences
from instil.facts.types import Corpus, Document

Measure = Callable[[str], int]
"""The length of a text: in words (`words_in`), or in tokens of a model."""

FULL_ENOUGH = 0.5
"""Of the limit: a piece that has this much ends at the next heading, even if more would fit."""

_WORD = re.compile(r"\S+\s*")


def words_in(text: str) -> int:
    """Stretches between white space."""
    return len(text.split())


def split_text(text: str, most: int, measure: Measure = words_in) -> list[str]:
    """A text as pieces of at most `most`, which together are the text, character for character.

    A piece ends before a heading where it is at least half full, else where a paragraph ends, else a sentence, else
    a word; a single word that is too long is cut within. One character may be longer than `most` by itself.

    Raises:
        ValueError: `most` is less than 1.
    """
    if most < 1:
        raise ValueError(f"pieces of at most {most}")
    if measure(text) <= most:
        return [text]
    return list(_filled(text, list(_atoms(text, most, measure)), most, measure))


def split_document(document: Document, most: int, measure: Measure = words_in) -> list[Document]:
    """A document as pieces `ID#1`, `ID#2`, …, or as it is where it is not longer than `most`.

    A piece keeps title, subject, role and metadata; `metadata["part_of"]` is the document's id, `["part"]` the place of
    the piece and `["parts"]` how many there are.
    """
    pieces = split_text(document.text, most, measure)
    if len(pieces) == 1:
        return [document]
    return [
        replace(
            document,
            id=f"{document.id}#{place}",
            text=piece,
            metadata={**document.metadata, "part_of": document.id, "part": place, "parts": len(pieces)},
        )
        for place, piece in enumerate(pieces, 1)
    ]


def split_corpus(documents: Iterable[Document], most: int, measure: Measure = words_in) -> Corpus:
    """All documents in pieces of at most `most`, in their order.

    Raises:
        InputError: a piece gets the id of another document.
    """
    pieces = [piece for document in documents for piece in split_document(document, most, measure)]
    seen: set[str] = set()
    for piece in pieces:
        if piece.id in seen:
            raise InputError("a piece of a document has the id of another", field="id", found=repr(piece.id)[:80])
        seen.add(piece.id)
    return Corpus(pieces)


# -------------------------------------------------------------------- private

_Atom = tuple[int, int, bool]
"""Begin, end, and whether a heading begins here."""


def _atoms(text: str, most: int, measure: Measure) -> Iterator[_Atom]:
    """The text in order, in the largest units that fit: paragraphs, else sentences, else words, else parts of words."""
    spans = list(paragraphs(text)) or [(0, len(text))]
    starts = [0, *(start for start, _ in spans[1:])]
    for (start, end), begin, close in zip(spans, starts, [*starts[1:], len(text)], strict=True):
        yield from _smaller(text, begin, close, most, measure, is_heading(text[start:end]))


def _smaller(text: str, begin: int, close: int, most: int, measure: Measure, heading: bool) -> Iterator[_Atom]:
    if measure(text[begin:close]) <= most:
        yield begin, close, heading
        return
    inner = [start for start, _ in sentences(text, begin, close)]
    for start, end in _between(begin, close, inner):
        if measure(text[start:end]) <= most:
            yield start, end, heading and start == begin
        else:
            for first, last in _between(start, end, [found.start() for found in _WORD.finditer(text, start, end)]):
                yield from _cut_word(text, first, last, most, measure)


def _cut_word(text: str, start: int, end: int, most: int, measure: Measure) -> Iterator[_Atom]:
    """A word, halved until its parts fit."""
    if end - start <= 1 or measure(text[start:end]) <= most:
        yield start, end, False
        return
    middle = (start + end) // 2
    yield from _cut_word(text, start, middle, most, measure)
    yield from _cut_word(text, middle, end, most, measure)


def _between(begin: int, close: int, starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The stretches from `begin` to `close` that begin at these places."""
    inner = [place for place in starts if begin < place < close]
    places = [begin, *inner, close]
    yield from pairwise(places)


def _filled(text: str, atoms: Sequence[_Atom], most: int, measure: Measure) -> Iterator[str]:
    """Neighbouring atoms in one piece as long as they fit together."""
    place = 0
    while place < len(atoms):
        begin = atoms[place][0]

        def fits(last: int, begin: int = begin) -> bool:
            return measure(text[begin : atoms[last][1]]) <= most

        last = place + max(0, _last_true(fits, place, len(atoms) - 1))
        headed = [
            number
            for number in range(place + 1, min(last + 2, len(atoms)))
            if atoms[number][2] and measure(text[begin : atoms[number][0]]) >= FULL_ENOUGH * most
        ]
        if headed:
            last = headed[0] - 1
        elif last + 1 < len(atoms) and last > place and atoms[last][2]:
            last -= 1  # A heading goes with what follows it.
        yield text[begin : atoms[last][1]]
        place = last + 1


def _last_true(fits: Callable[[int], bool], first: int, last: int) -> int:
    """How many places behind `first` it is still true, where it does not become true again: found by doubling, so that
    a long text is not measured again and again."""
    step = 1
    while first + step <= last and fits(first + step):
        step *= 2
    low, high = step // 2, min(step, last - first + 1)
    return low + bisect_left(range(low + 1, high), True, key=lambda behind: not fits(first + behind))
