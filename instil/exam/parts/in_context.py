"""In context: the fact as a premise, then the question. Shows whether the model can use a fact that it is told.

The premise is the fact's first statement with its answer ("Ada Lovelace was born in London."); without a statement, the
question's paraphrase or the question itself with the answer behind it. What is not right here cannot be expected from
teaching. The exemplars have premises too.
"""

from __future__ import annotations

from instil.exam.paper import IN_CONTEXT, Item
from instil.exam.parts.material import Material, question_of
from instil.facts import Fact
from instil.probe import ExemplarSets

NAME = "in_context"


def items(material: Material) -> list[Item]:
    asked = material.drawn(IN_CONTEXT, material.target)
    found = [Item(IN_CONTEXT, 0, question_of(IN_CONTEXT, fact, with_premise(fact), fact.answers)) for fact in asked]
    return material.untaught(IN_CONTEXT, found)


def exemplars(material: Material) -> dict[str, ExemplarSets]:
    return {IN_CONTEXT: material.exemplars_as(lambda fact: (with_premise(fact), fact.answers[0]))}


def with_premise(fact: Fact) -> str:
    said = fact.completions[0] if fact.completions else (*fact.paraphrases, fact.question)[0]
    stop = "" if fact.answers[0].endswith((".", "!", "?", "。")) else "."
    return f"{said} {fact.answers[0]}{stop} {fact.question}"
