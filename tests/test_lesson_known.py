"""What a lesson holds on to: questions, texts, and both beside each other."""

from __future__ import annotations

import pytest
import torch

from instil.facts import Corpus, Document
from instil.lesson_known import examples_of
from instil.training import KLToStart
from instil.training.layout import choose
from instil.training.meter import Meter
from tests.half_taught import facts, half_taught

TEXTS = Corpus([Document("long", "Where was person 1 born? " * 6), Document("short", "In Delf.")])


def test_questions_or_texts_alone_count_by_their_tokens() -> None:
    for known, count in ((facts()[:3], 3), (TEXTS, 2)):
        found = examples_of(half_taught(), known)
        assert len(found) == count and {one.weight for one in found} == {1.0}


def test_beside_each_other_a_question_counts_as_much_as_a_text() -> None:
    found = examples_of(half_taught(), (facts()[:3], TEXTS))
    assert [one.weight * one.targets for one in found] == pytest.approx([1.0] * 5)
    assert len({one.targets for one in found}) > 2


def test_the_term_is_the_mean_of_theirs() -> None:
    start, now = half_taught(), half_taught().at(torch.float32)
    with torch.no_grad():
        for parameter in now.model.parameters():
            parameter.mul_(1.05)

    def term(known: object) -> float:
        objective = KLToStart(examples_of(start, known), per_step=9)  # type: ignore[arg-type]
        objective.prepare(start.model, choose(start.model, 512, None), Meter(), 0)
        batches = objective.micro_batches(0, row_length=64, micro_tokens=256)
        with torch.no_grad():
            return float(sum(objective.loss(now.model, batch) for batch in batches))

    each = [term((part,)) for part in (facts()[:1], TEXTS[:1], TEXTS[1:])]
    assert term((facts()[:1], TEXTS)) == pytest.approx(sum(each) / 3, rel=1e-3)
    assert term(TEXTS) != pytest.approx(sum(each[1:]) / 2, rel=1e-2), "by their tokens, a long text counts more"
