"""Which untaught facts lie nearest to what is taught: those whose subject's name is most like a taught one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from instil.answers import normalise
from instil.exam.paper import Item

SHARE: Final = 1 / 3
"""Of the held-back facts with a subject, how many count as neighbours."""


def neighbours(taught: Sequence[Item], held_back: Sequence[Item]) -> frozenset[str]:
    """Question ids of the held-back facts whose subject's name is most like that of a taught subject of the relation.

    A model that mixes up facts mixes up those of names that share most of their letters, since their tokens are
    shared. Likeness is that of the names' letter trigrams (Dice's coefficient); the nearest third counts, and what is
    as near as the last of it.
    """
    names: dict[str | None, list[frozenset[str]]] = defaultdict(list)
    for item in taught:
        if item.question.subject is not None:
            names[item.question.relation].append(trigrams(item.question.subject))
    near = {
        item.question.id: max(likeness(trigrams(item.question.subject), name) for name in names[item.question.relation])
        for item in held_back
        if item.question.subject is not None and names.get(item.question.relation)
    }
    if not near:
        return frozenset()
    border = sorted(near.values(), reverse=True)[max(1, round(SHARE * len(near))) - 1]
    return frozenset(name for name, value in near.items() if value >= border and value > 0)


def trigrams(name: str) -> frozenset[str]:
    text = f"  {normalise(name)} "
    return frozenset(text[place : place + 3] for place in range(len(text) - 2))


def likeness(first: frozenset[str], second: frozenset[str]) -> float:
    """Dice's coefficient: 1 for the same trigrams, 0 for none in common."""
    return 2 * len(first & second) / (len(first) + len(second))
