"""From the sentences of a document to items: what stands before, what is asked, and the same put otherwise."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from instil.answers import normalise
from instil.exam.cloze.targets import MONTH, SMALL, Target, targets
from instil.exam.config import ClozeConfig, ClozeKind
from instil.facts import Document
from instil.facts.sentences import is_heading, paragraphs, sentences
from instil.words import words

BLANK: Final = "___"
PLAIN_WORD: Final = re.compile(r"[^\W\d_]{5,}(?:-[^\W\d_]{3,})*")
ALIKE: Final = 4
"""Letters from which on two words with the same beginning are taken for one ("Carlist", "Carlists")."""

_DAY_FIRST = re.compile(rf"(\d{{1,2}}) ({MONTH})(?: (\d{{4}}))?")
_MONTH_FIRST = re.compile(rf"({MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?(?:, (\d{{4}}))?")

Fits = Callable[[str, Sequence[str]], bool]
"""Whether a question with these answers is short enough."""


@dataclass(frozen=True, slots=True)
class Cloze:
    """One item.

    Attributes:
        document: id of the document.
        place: of the answer, in characters of the document's text.
        kind: what is asked.
        before: what stands before it in the document, with single spaces: as worded.
        left: of that, what belongs to the same sentence.
        answer: what stands there.
        after: the rest of the sentence.
        score: how good a question it makes.
    """

    document: str
    place: int
    kind: ClozeKind
    before: str
    left: str
    answer: str
    after: str
    score: float

    def as_worded(self, title: str | None) -> str:
        """The document's own words up to the answer, behind its title where they do not hold it."""
        named = title is not None and _holds(words(self.before), words(title))
        return self.before if title is None or named else f"{title}: {self.before}"

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.answer, *other_forms(self.answer, self.kind))


def reframed(cloze: Cloze, title: str | None) -> str:
    """The same asked in other words: a question about the whole sentence with a blank in it."""
    whole = f"{cloze.left} {BLANK}{cloze.after}"
    source = f"this sentence from “{title}”" if title else "this sentence"
    return f"Which words are missing in {source}? {whole}"


def other_forms(answer: str, kind: str) -> tuple[str, ...]:
    """Other ways to write a date or a number that count as right."""
    if kind == "number" and "," in answer:
        return (answer.replace(",", ""),)
    if found := _DAY_FIRST.fullmatch(answer):
        day, month, year = found.groups()
        return (f"{month} {day}, {year}" if year else f"{month} {day}",)
    if found := _MONTH_FIRST.fullmatch(answer):
        month, day, year = found.groups()
        return (f"{day} {month} {year}" if year else f"{day} {month}",)
    return ()


def clozes_of(
    document: Document, config: ClozeConfig, rare: Mapping[str, float], most: int, seed: int, fits: Fits
) -> tuple[list[Cloze], Counter[str]]:
    """The best items of a document, one a sentence at most, in the order of the text; and why others were refused.

    Args:
        rare: from `rarity`.
        most: how many.
        fits: whether an item, as worded and reframed, is short enough; one that is not is tried without the sentences
            before.
    """
    chance = random.Random(f"{seed}:{document.id}")
    best: list[tuple[float, Cloze]] = []
    refused: Counter[str] = Counter()
    for before, sentence, start in _sentences(document.text, config.context_words):
        found = [
            (target.score + 0.6 * chance.random(), target)
            for target in targets(sentence, rare)
            if target.kind in config.kinds
        ]
        for score, target in sorted(found, key=lambda one: (-one[0], one[1].start)):
            cloze, reason = _cloze(document, before, sentence, start, target, score, fits)
            if cloze is not None:
                best.append((score, cloze))
                break
            refused[reason] += 1
    best.sort(key=lambda one: (-one[0], one[1].place))
    chosen: list[Cloze] = []
    asked: set[str] = set()
    for _, cloze in best:
        if len(chosen) < most and normalise(cloze.answer) not in asked:
            asked.add(normalise(cloze.answer))
            chosen.append(cloze)
    return sorted(chosen, key=lambda cloze: cloze.place), refused


def rarity(documents: Iterable[Document]) -> dict[str, float]:
    """Words in small letters to how rare they are: 1 in a single document, 0 in all; common ones are left out."""
    holders: Counter[str] = Counter()
    total = 0
    for document in documents:
        total += 1
        holders.update({word for word in PLAIN_WORD.findall(document.text) if word.islower() and word not in SMALL})
    if total < 2:
        return dict.fromkeys(holders, 0.5)
    scale = math.log(total)
    found = {word: 1 - math.log(count) / scale for word, count in holders.items()}
    return {word: value for word, value in found.items() if value >= 0.4}


# -------------------------------------------------------------------- private


def _sentences(text: str, context_words: int) -> Iterator[tuple[str, str, int]]:
    """For each sentence of running text: the sentences before it in its paragraph, itself, and where it begins."""
    for start, end in paragraphs(text):
        if is_heading(text[start:end]):
            continue
        before: list[str] = []
        for first, last in sentences(text, start, end):
            sentence = " ".join(text[first:last].split())
            if _is_prose(sentence):
                yield _last_sentences(before, context_words), sentence, first
            before.append(sentence)


def _is_prose(sentence: str) -> bool:
    """Whether it is a sentence as people write them: not a row of a table, a line of code, or a list of names."""
    letters = sum(mark.isalpha() or mark.isspace() for mark in sentence)
    plain = sum(word.islower() for word in sentence.split())
    whole = sentence.rstrip("\"'”’)]»").endswith((".", "!", "?", "…"))
    return whole and "|" not in sentence and letters >= 0.8 * len(sentence) and 3 * plain >= len(sentence.split())


def _last_sentences(before: Sequence[str], most: int) -> str:
    kept: list[str] = []
    for sentence in reversed(before):
        if len(" ".join([sentence, *kept]).split()) > most:
            break
        kept.insert(0, sentence)
    return " ".join(kept)


def _cloze(
    document: Document, before: str, sentence: str, start: int, target: Target, score: float, fits: Fits
) -> tuple[Cloze | None, str]:
    left, answer, after = sentence[: target.start].rstrip(), sentence[target.start : target.end], sentence[target.end :]
    title, place = document.title, _place(document.text, start, sentence, target)
    reason = "it is longer than the model's context window allows behind worked items"
    for context in dict.fromkeys((before, "")):
        cloze = Cloze(document.id, place, target.kind, f"{context} {left}".strip(), left, answer, after, score)
        if _gives_away(answer, f"{title or ''} {cloze.before} {after}"):
            reason = "its answer stands in the words around it"
        elif all(fits(text, cloze.answers) for text in (cloze.as_worded(title), reframed(cloze, title))):
            return cloze, ""
    return None, reason


def _place(text: str, start: int, sentence: str, target: Target) -> int:
    """Where the target stands in the document: white space may be longer there than in the sentence."""
    wanted = len(sentence[: target.start].replace(" ", ""))
    place = start
    while wanted or text[place].isspace():
        wanted -= not text[place].isspace()
        place += 1
    return place


def _gives_away(answer: str, around: str) -> bool:
    """Whether a word of the answer that says something stands near it, in this form or one that begins alike."""
    telling = [word for word in words(answer) if word not in SMALL]
    others = set(words(around)) - SMALL
    beginnings = {word[: max(ALIKE, len(word) - 2)] for word in others if len(word) >= ALIKE and not word.isdigit()}
    return not telling or any(
        word in others
        or (not word.isdigit() and any(word.startswith(begin) or (begin.startswith(word) and len(word) >= ALIKE)
                                       for begin in beginnings))
        for word in telling
    )  # fmt: skip


def _holds(run: Sequence[str], inner: Sequence[str]) -> bool:
    size = len(inner)
    return any(tuple(run[place : place + size]) == tuple(inner) for place in range(len(run) - size + 1))
