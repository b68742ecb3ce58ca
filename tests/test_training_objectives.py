"""Staying close to the starting model: the KL term."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError
from instil.training import Example, KLToStart, Meter
from instil.training.layout import choose
from tests.models import FAMILIES
from tests.test_training_run import Killed, assert_same_weights, killed_at, without_time
from tests.training_data import learner, made_up, settings, trained, weights


def prepared(objective: KLToStart, model: Any, meter: Meter | None = None) -> KLToStart:
    objective.prepare(model, choose(model, 512, None), meter or Meter(), pad_id=2)
    return objective


def term(objective: KLToStart, model: Any, step: int = 0, ranks: int = 1) -> torch.Tensor:
    shares = [
        objective.loss(model, batch)
        for rank in range(ranks)
        for batch in objective.micro_batches(step, row_length=64, micro_tokens=128, rank=rank, ranks=ranks)
    ]
    return torch.stack(shares).sum()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("online", [True, False])
def test_the_term_is_zero_at_the_start_with_a_zero_gradient(family: str, online: bool) -> None:
    model = learner(family).model
    reference = copy.deepcopy(model) if online else None
    objective = prepared(KLToStart(made_up(12), per_step=6, reference=reference), model)
    value = term(objective, model)
    value.backward()
    assert abs(value.item()) < 1e-6
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-5


def test_the_term_is_the_mean_kl_of_the_answer_tokens() -> None:
    start, now = learner().model, learner(seed=1).model
    examples = made_up(5)
    objective = prepared(KLToStart(examples, weight=0.7, temperature=2.0, per_step=5), start)
    kls = []
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example.input_ids])
            for place, label in enumerate(example.labels):
                if label != -100:
                    teacher, student = (
                        m(input_ids=ids).logits[0, place - 1].div(2.0).log_softmax(-1) for m in (start, now)
                    )
                    kls.append((teacher.exp() * (teacher - student)).sum())
        expected = 0.7 * 4.0 * torch.stack(kls).mean()
        for ranks in (1, 2, 8):
            torch.testing.assert_close(term(objective, now, ranks=ranks), expected, rtol=1e-4, atol=1e-5)


def test_kept_and_online_teachers_agree() -> None:
    start, now = learner().model, learner(seed=1).model
    kept = prepared(KLToStart(made_up(12)), start)
    online = prepared(KLToStart(made_up(12), reference=start), now)
    with torch.no_grad():
        for step in range(3):
            torch.testing.assert_close(term(kept, now, step), term(online, now, step), rtol=1e-4, atol=1e-5)


def test_it_holds_known_answers_in_place(tmp_path: Path) -> None:
    known = made_up(8, seed=7)
    free = trained(tmp_path / "free", settings(epochs=6))
    held = trained(tmp_path / "held", settings(epochs=6), objective=KLToStart(known, weight=5.0))
    measure = prepared(KLToStart(known), learner().model)
    with torch.no_grad():
        moved, stayed = term(measure, free.model.model), term(measure, held.model.model)
    assert stayed < 0.5 * moved
    assert free.points[-1]["loss"] > 0 and held.cost["teacher"]["flops"] > 0


def test_a_term_without_weight_changes_only_rounding(tmp_path: Path) -> None:
    free = trained(tmp_path / "free", settings())
    idle = trained(tmp_path / "idle", settings(), objective=KLToStart(made_up(8, seed=7), weight=0.0))
    for name, weight in weights(free.model).items():
        torch.testing.assert_close(weights(idle.model)[name], weight, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_charged_once_when_kept_and_each_time_when_online(tmp_path: Path) -> None:
    known = made_up(8, seed=7)
    kept = trained(tmp_path / "kept", settings(), objective=KLToStart(known))
    online = trained(tmp_path / "online", settings(), objective=KLToStart(known, reference=learner().model))
    assert 5 < online.cost["teacher"]["flops"] / kept.cost["teacher"]["flops"] < 20  # nine steps
    assert online.cost["training"]["flops"] == pytest.approx(kept.cost["training"]["flops"])


@pytest.mark.parametrize("at", [2, 5])
def test_invariant_2_resumed_equals_uninterrupted_with_the_term(tmp_path: Path, at: int) -> None:
    def objective() -> KLToStart:
        return KLToStart(made_up(8, seed=7), per_step=3)

    whole = trained(tmp_path / "whole", settings(), objective=objective())
    with pytest.raises(Killed):
        trained(tmp_path / "cut", settings(), objective=objective(), step=killed_at(at))
    with pytest.raises(InputError, match="another training run"):
        trained(tmp_path / "cut", settings())
    resumed = trained(tmp_path / "cut", settings(), objective=objective())
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)


def test_where_keeping_takes_too_much_memory_the_starting_model_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    start, now = learner().model, learner(seed=1).model
    kept = prepared(KLToStart(made_up(12)), start)
    monkeypatch.setattr("instil.training.objectives.TEACHER_BYTES", 1000)
    online = prepared(KLToStart(made_up(12)), start)
    assert online.reference is not start and not any(p.requires_grad for p in online.reference.parameters())
    assert all(p.requires_grad for p in start.parameters())
    with torch.no_grad():
        torch.testing.assert_close(term(kept, now), term(online, now), rtol=1e-4, atol=1e-5)


def test_nothing_to_hold_on_to_is_an_error() -> None:
    with pytest.raises(InputError, match="no known facts"):
        KLToStart([])
    with pytest.raises(InputError, match="no known facts"):
        KLToStart([Example((1, 2), (-100, -100), "silent")])
