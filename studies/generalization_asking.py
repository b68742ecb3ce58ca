"""What is asked of a model about people: the taught ones, those that it knew, and general text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from instil.facts import FactSet
from instil.model import LanguageModel
from instil.probe import ProbeConfig, draw_exemplars, probe
from instil.probe.perplexity import next_token_nll

SETS = 4
"""Exemplar sets of the first wording and of known facts; other wordings and looks in between have half as many."""


def asked(lm: LanguageModel, facts: FactSet, exemplars: FactSet, sets: int) -> list[Any]:
    """A row a fact, in their order."""
    config = ProbeConfig(exemplar_sets=sets, prior=False, decode=False)
    drawn = draw_exemplars(exemplars, {fact.relation for fact in facts})
    found = probe(lm, facts, drawn.first(sets), config)
    return [found.by_id[fact.id] for fact in facts]


def accuracy(lm: LanguageModel, facts: FactSet, exemplars: FactSet) -> float:
    rows = asked(lm, facts, exemplars, SETS // 2)
    return sum(float(row.p_greedy) for row in rows) / len(rows)


def reworded(facts: FactSet, number: int) -> FactSet:
    """The same facts, asked in their paraphrase of this number."""
    return FactSet(replace(fact, question=fact.paraphrases[number]) for fact in facts)


def of_people(lm: LanguageModel, questions: FactSet, exemplars: FactSet) -> list[dict[str, Any]]:
    """Each question in its first wording and two others, none of them ever trained on."""
    first = asked(lm, questions, exemplars, SETS)
    others = [asked(lm, reworded(questions, number), exemplars, SETS // 2) for number in (0, 1)]
    return [
        {
            "fact": fact.id,
            "subject": fact.subject,
            "relation": fact.relation,
            "first": float(row.p_greedy),
            "others": sum(float(other[number].p_greedy) for other in others) / len(others),
            "p": float(row.p_sampled),
        }
        for number, (fact, row) in enumerate(zip(questions, first, strict=True))
    ]


def of_known(lm: LanguageModel, known: FactSet, exemplars: FactSet) -> list[dict[str, Any]]:
    rows = asked(lm, known, exemplars, SETS)
    return [
        {"fact": fact.id, "subject": fact.subject, "p_greedy": float(row.p_greedy)}
        for fact, row in zip(known, rows, strict=True)
    ]


def of_text(lm: LanguageModel, texts: tuple[str, ...]) -> dict[str, float]:
    sums = next_token_nll(lm, texts)
    return {"nll": sum(nll for nll, _ in sums), "nll_tokens": sum(count for _, count in sums)}
