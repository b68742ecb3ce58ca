"""Reversed: the answer is given and the subject asked for.

Only where the answer names few subjects (`ExamConfig.reverse_subjects`), since "Name a person who plays the harp" is
right by chance. Right is every subject of any fact of the lesson with that answer of that relation, and what the fact
itself lists. A fact without a reverse question takes its relation's, if another fact of the relation shows one.
Models that are taught "A is B" do not by that know "B is A" (Berglund et al. 2023, arXiv 2309.12288).
"""

from __future__ import annotations

from collections import defaultdict

from instil.answers import normalise
from instil.exam.paper import REVERSED, Item
from instil.exam.parts.material import Material, answer_keys, key_of, question_of
from instil.facts import Fact
from instil.probe import ExemplarSets

NAME = "reversed"
GAP = "\x00"


def items(material: Material) -> list[Item]:
    templates, subjects = _templates(material), _subjects(material)
    taught = {(key_of(fact), answer) for fact in material.target for answer in answer_keys(fact)}
    found: list[tuple[Fact, str, tuple[str, ...]]] = []
    reasons = []
    for fact in material.target:
        text = reverse_question(fact, templates)
        if text is None or fact.subject is None:
            reasons.append("it has no reverse question")
            continue
        right = dict.fromkeys((*fact.reverse_answers, fact.subject))
        right |= dict.fromkeys(name for key in answer_keys(fact) for name in subjects[fact.relation, key])
        if len({normalise(name) for name in right}) > material.config.reverse_subjects:
            reasons.append("its answer names too many subjects")
        elif any((answer, key_of(fact)) in taught for answer in answer_keys(fact)):
            reasons.append("the fact in reverse is itself taught")
        else:
            found.append((fact, text, tuple(right)))
    material.skip(REVERSED, reasons)
    by_id = {fact.id: (text, right) for fact, text, right in found}
    asked = material.drawn(REVERSED, [fact for fact, _, _ in found])
    return material.untaught(REVERSED, (Item(REVERSED, 0, question_of(REVERSED, f, *by_id[f.id])) for f in asked))


def exemplars(material: Material) -> dict[str, ExemplarSets]:
    templates = _templates(material)

    def form(fact: Fact) -> tuple[str, str] | None:
        text = reverse_question(fact, templates)
        return None if text is None or fact.subject is None else (text, fact.subject)

    return {REVERSED: material.exemplars_as(form)}


def reverse_question(fact: Fact, templates: dict[str | None, str]) -> str | None:
    if fact.reverse_question is not None:
        return fact.reverse_question
    template = templates.get(fact.relation) if fact.relation is not None else None
    return None if template is None else template.replace(GAP, fact.answers[0])


def _templates(material: Material) -> dict[str | None, str]:
    """Relation to its reverse question with a gap for the answer, from the first fact that shows one."""
    found: dict[str | None, str] = {}
    for fact in material.everything:
        text, answer = fact.reverse_question, fact.answers[0]
        if fact.relation is not None and text is not None and text.count(answer) == 1:
            found.setdefault(fact.relation, text.replace(answer, GAP))
    return found


def _subjects(material: Material) -> dict[tuple[str | None, str], list[str]]:
    """(relation, answer) to the subjects of all facts that have it."""
    found: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for fact in material.everything:
        if fact.subject is not None:
            for key in answer_keys(fact):
                found[fact.relation, key].append(fact.subject)
    return found
