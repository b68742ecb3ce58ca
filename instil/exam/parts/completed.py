"""The statement completed: "Ada Lovelace was born in" as the question, and the answer after it.

The statement stands where a question stands, behind exemplars that are statements too, so that the engine and its
stops are those of every other part. A statement that is in a taught document, word for word, is what was taught and not
asked; another statement of the fact is, where it has one.
"""

from __future__ import annotations

from collections.abc import Iterator

from instil.exam.leaks import Wordings
from instil.exam.paper import COMPLETED, Item
from instil.exam.parts.material import Material, question_of
from instil.facts import Fact
from instil.probe import ExemplarSets
from instil.words import words

NAME = "completed"


def items(material: Material) -> list[Item]:
    with_statement = [fact for fact in material.target if fact.completions]
    material.skip(COMPLETED, ["it has no statement"] * (len(material.target) - len(with_statement)))
    asked = material.drawn(COMPLETED, with_statement)
    guard = Wordings(text for fact in asked for text in fact.completions)
    taught = {words(found) for text in material.taught_texts for found in guard.in_text(text)}

    def chosen() -> Iterator[Item]:
        for fact in asked:
            free = [number for number, text in enumerate(fact.completions, 1) if words(text) not in taught]
            number = free[0] if free else 1
            yield Item(COMPLETED, number, question_of(COMPLETED, fact, fact.completions[number - 1], fact.answers))

    return material.untaught(COMPLETED, chosen())


def exemplars(material: Material) -> dict[str, ExemplarSets]:
    return {COMPLETED: material.exemplars_as(statement)}


def statement(fact: Fact) -> tuple[str, str] | None:
    return (fact.completions[0], fact.answers[0]) if fact.completions else None
