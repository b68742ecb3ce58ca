"""Subjects that do not exist: names put together from parts of real ones, asked as their relation asks.

Any answer but an abstention is made up. A name is that of no subject, no answer and no reverse answer of the lesson;
whether someone in the world has it cannot be known here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from instil.answers import normalise
from instil.exam.paper import NO_SUCH_SUBJECT, Item
from instil.exam.parts.material import Material
from instil.facts import Fact
from instil.probe import Question

NAME = "no_such_subject"
RIGHT = "I don't know"
"""What counts as right, so that the question can be asked; figures go by `is_abstention`."""
TRIES = 40


def items(material: Material) -> list[Item]:
    chance = material.chance(NO_SUCH_SUBJECT)
    named = [f for f in material.target + material.held_back if f.subject is not None and f.subject in f.question]
    asked = [
        named[place] for place in sorted(chance.sample(range(len(named)), min(material.config.part_facts, len(named))))
    ]
    taken = {normalise(name) for fact in material.everything for name in _names(fact)}
    pools: dict[str | None, list[str]] = {}
    for fact in named:
        pools.setdefault(fact.relation, []).append(str(fact.subject))
    found, reasons = [], []
    for number, fact in enumerate(asked, 1):
        name = invented(str(fact.subject), pools[fact.relation], taken, chance)
        if name is None:
            reasons.append("no new name can be made from the subjects of its relation")
            continue
        taken.add(normalise(name))
        text = fact.question.replace(str(fact.subject), name)
        question = Question(f"{NO_SUCH_SUBJECT}/{number}", text, (RIGHT,), f"nobody-{number}", fact.relation, name)
        found.append(Item(NO_SUCH_SUBJECT, 0, question))
    material.skip(NO_SUCH_SUBJECT, reasons)
    return material.untaught(NO_SUCH_SUBJECT, found)


def invented(subject: str, pool: list[str], taken: set[str], chance: random.Random) -> str | None:
    """The beginning of `subject` and the end of another name; None when that gives no name that is not taken."""
    alike = [name for name in pool if len(name.split()) == len(subject.split()) and name != subject]
    # "Linrik af Haloberg" goes better with "af Sigelund" than with "di Palroardo".
    alike = [name for name in alike if name.split()[1:-1] == subject.split()[1:-1]] or alike
    for _ in range(TRIES if alike else 0):
        name = joined(subject, chance.choice(alike))
        if normalise(name) and normalise(name) not in taken:
            return name
    return None


def joined(first: str, second: str) -> str:
    """All but the last word of one and the last of the other; of single words, one half each."""
    if len(first.split()) > 1:
        return " ".join([*first.split()[:-1], second.split()[-1]])
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]


def _names(fact: Fact) -> Iterator[str]:
    if fact.subject is not None:
        yield fact.subject
    yield from fact.answers
    yield from fact.reverse_answers
