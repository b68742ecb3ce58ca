"""Where else the words of an item stand, and whether they go on there in the same way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from instil.exam.cloze.making import Cloze
from instil.exam.leaks import words

SAME_WORDS: Final = 8
"""The last words before an answer; where all of them stand again, it is the same context."""


@dataclass
class Elsewhere:
    """Attributes:
    same: ids of the documents where the context goes on with the answer, its own among them.
    otherwise: ids of those where it goes on otherwise.
    """

    same: set[str] = field(default_factory=set)
    otherwise: set[str] = field(default_factory=set)


def elsewhere(clozes: Sequence[Cloze], texts: Iterable[tuple[str, str]]) -> list[Elsewhere]:
    """For each item, in which documents its context stands; in time that grows with the text, not with the items.

    Args:
        texts: (id, text) of every document.
    """
    found = [Elsewhere() for _ in clozes]
    answers = [words(cloze.answer) for cloze in clozes]
    by_ending: dict[tuple[str, ...], list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    for number, cloze in enumerate(clozes):
        run = words(cloze.before)[-SAME_WORDS:]
        by_ending[run[-2:]].append((run, number))
    for name, text in texts:
        said = words(text)
        for place in range(2, len(said) + 1):
            for run, number in by_ending.get(said[place - 2 : place], ()):
                if place >= len(run) and said[place - len(run) : place] == run:
                    follows = said[place : place + len(answers[number])] == answers[number]
                    (found[number].same if follows else found[number].otherwise).add(name)
    return found
