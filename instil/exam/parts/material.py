"""What the parts of an exam are made from, and what all of them need."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from instil.answers import normalise
from instil.exam.config import ExamConfig
from instil.exam.leaks import Wordings
from instil.exam.paper import Item
from instil.facts import Fact, FactSet
from instil.probe import Exemplar, ExemplarSets, Question
from instil.words import words

NO_FACTS = FactSet(())

Form = Callable[[Fact], tuple[str, str] | None]
"""A fact as a worked question of another form: (question, answer). None where it cannot be put so."""


@dataclass
class Material:
    """The facts of a lesson as the parts see them.

    Attributes:
        target: facts to be taught.
        held_back: facts never taught.
        development: facts that a method may look at.
        same_subject: facts never taught about subjects that are.
        exemplar_facts: the facts behind `exemplars`, for worked questions of another form.
        exemplars: the exemplar sets of the exam.
        config: its settings.
        taught_texts: texts that are taught beside the target's questions.
        items: what is asked so far; later parts may build on earlier ones.
        left_out: what is not asked, as (what, reason).
        fits: whether a question fits into the context window, as far as that is known.
        others: further facts, which are not asked; their subjects exist and their answers are right.
        pools: relation to its answers, made when the first choice is.
    """

    target: FactSet
    held_back: FactSet
    development: FactSet
    same_subject: FactSet
    exemplar_facts: FactSet
    exemplars: ExemplarSets
    config: ExamConfig
    taught_texts: Sequence[str] = ()
    items: list[Item] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    fits: Callable[[Question], bool] = lambda question: True
    others: FactSet = NO_FACTS
    pools: dict[str | None, Any] = field(default_factory=dict)

    @cached_property
    def everything(self) -> FactSet:
        """All facts that are known of, each once."""
        asked = self.target + self.held_back + self.development + self.same_subject
        return asked + self.exemplar_facts + self.others

    def chance(self, part: str) -> random.Random:
        """The draws of one part, which no other part changes."""
        return random.Random(f"{self.config.seed}:{part}")

    def drawn(self, part: str, facts: Sequence[Fact]) -> list[Fact]:
        """At most `ExamConfig.part_facts` of them, in their order; the others are counted in `left_out`."""
        most = self.config.part_facts
        if len(facts) <= most:
            return list(facts)
        self.skip(part, ["more than this part asks"] * (len(facts) - most))
        return [facts[place] for place in sorted(self.chance(part).sample(range(len(facts)), most))]

    def skip(self, part: str, reasons: Iterable[str]) -> None:
        """Count facts that a part cannot ask, a line a reason."""
        for reason, count in Counter(reasons).items():
            self.left_out.append((f"{count} {'fact' if count == 1 else 'facts'}, {part.replace('_', ' ')}", reason))

    def untaught(self, part: str, items: Iterable[Item]) -> list[Item]:
        """The items without those whose words stand in what is taught, or that ask what another one asks."""
        taught = [*(fact.question for fact in self.target), *self.taught_texts]
        found = list(items)
        guard = Wordings(item.question.text for item in found)
        standing = {words(wording) for text in taught for wording in guard.in_text(text)}
        kept: dict[tuple[str, ...], Item] = {}
        reasons = []
        for item in found:
            said = words(item.question.text)
            if said in standing:
                reasons.append("these words are in what is taught")
            elif not self.fits(item.question):
                reasons.append("it is longer than the model's context window")
            elif said in kept:
                reasons.append("another fact is asked in the same words")
            else:
                kept[said] = item
        self.skip(part, reasons)
        return list(kept.values())

    def exemplars_as(self, form: Form) -> ExemplarSets:
        """The exemplar sets with every worked question in another form, which `form` gives.

        An exemplar that has no such form is left out of its set. Where a set would have none, the relation keeps its
        exemplars as they are: a worked question in another form shows more than none.
        """
        facts = {fact.id: fact for fact in self.exemplar_facts}

        def worked(chosen: Sequence[Exemplar]) -> tuple[Exemplar, ...]:
            forms = [(exemplar.fact_id, form(facts[exemplar.fact_id])) for exemplar in chosen]
            return tuple(Exemplar(*told, fact_id) for fact_id, told in forms if told is not None)

        sets = {}
        for relation, own in self.exemplars.sets.items():
            if all(exemplar.fact_id in facts for chosen in own for exemplar in chosen):
                told = tuple(worked(chosen) for chosen in own)
                sets[relation] = told if all(told) else own
            else:
                sets[relation] = own
        return ExemplarSets(sets)


def question_of(part: str, fact: Fact, text: str, answers: tuple[str, ...], number: str = "") -> Question:
    """A question about a fact, with an id of the part's own."""
    return Question(f"{part}/{number}{fact.id}", text, answers, fact.id, fact.relation, fact.subject)


def key_of(fact: Fact) -> str | None:
    """The form in which subjects and answers are compared; None where the fact has no subject."""
    return None if fact.subject is None else normalise(fact.subject)


def answer_keys(fact: Fact) -> frozenset[str]:
    return frozenset(filter(None, map(normalise, fact.answers)))
