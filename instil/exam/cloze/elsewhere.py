"""Where else the words of an item stand, and whether they go on there in the same way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from instil.exam.cloze.making import Cloze
from instil.words import words

TELLING: Final = 8
"""Words before an answer; where so many stand again with the answer behind them, it is told there as well."""


@dataclass
class Elsewhere:
    """Attributes:
    told: ids of the documents where the last words before the answer and the answer stand, its own among them.
    otherwise: ids of those where the whole context stands and goes on otherwise.
    """

    told: set[str] = field(default_factory=set)
    otherwise: set[str] = field(default_factory=set)


def elsewhere(clozes: Sequence[Cloze], texts: Iterable[tuple[str, str]]) -> list[Elsewhere]:
    """For each item, which documents tell it, and which contradict it; in time that grows with the text alone.

    Args:
        texts: (id, text) of every document.
    """
    found = [Elsewhere() for _ in clozes]
    answers = [words(cloze.answer) for cloze in clozes]
    by_ending: dict[tuple[str, ...], list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    for number, cloze in enumerate(clozes):
        run = words(cloze.before)
        by_ending[run[-2:]].append((run, number))
    for name, text in texts:
        said = words(text)
        for place in range(2, len(said) + 1):
            for run, number in by_ending.get(said[place - 2 : place], ()):
                follows = said[place : place + len(answers[number])] == answers[number]
                last = run[-TELLING:] if follows else run
                if place >= len(last) and said[place - len(last) : place] == last:
                    (found[number].told if follows else found[number].otherwise).add(name)
    return found
