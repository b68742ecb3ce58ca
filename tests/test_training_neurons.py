"""Added neurons in training: their values alone may be trained, at a rate of their own, and a lesson resumes alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError
from instil.facts import FactSet, Role
from instil.lesson_known import doubts_about
from instil.model.neurons import Neurons, add, has_added, mlps, width_of
from tests.half_taught import facts
from tests.test_methods_mentor import taught
from tests.test_model_neurons import some_keys
from tests.training_data import Killed, killed_at, learner, settings, trained, weights


def grown() -> Any:
    lm = learner()
    add(lm, some_keys(lm, layer=0))
    return lm


def values(lm: Any) -> torch.Tensor:
    return next(part.values.weight for part in lm.model.modules() if isinstance(part, Neurons)).detach()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_values_have_a_rate_of_their_own(optimizer: Any, tmp_path: Path) -> None:
    slow, quick = grown(), grown()
    trained(tmp_path / "slow", settings(optimizer=optimizer, value_rate=1e-6), lm=slow)
    trained(tmp_path / "quick", settings(optimizer=optimizer, value_rate=0.1, max_grad_norm=0.0), lm=quick)
    assert 0 < values(slow).abs().max() < 1e-4
    assert values(quick).abs().max() > 0.05
    still = grown()
    assert not torch.equal(weights(still)["model.layers.0.mlp.up_proj.weight"],
                           weights(slow)["model.layers.0.mlp.up_proj.weight"])  # fmt: skip


def test_where_other_weights_are_named_values_are_trained_all_the_same(tmp_path: Path) -> None:
    lm, before = grown(), weights(grown())
    trained(tmp_path / "run", settings(parameters=("model.layers.1.mlp.*",)), lm=lm)
    moved = {name for name, weight in weights(lm).items() if not torch.equal(weight, before[name])}
    assert moved == {
        "model.layers.0.mlp.added.values.weight",
        *(f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_was_interrupted_ends_with_the_same_values(optimizer: Any, tmp_path: Path) -> None:
    config = settings(optimizer=optimizer, average=0.5, mix=0.9, schedule="linear")
    whole, broken = grown(), grown()
    trained(tmp_path / "whole", config, lm=whole)
    with pytest.raises(Killed):
        trained(tmp_path / "broken", config, lm=broken, step=killed_at(5))
    again = grown()
    trained(tmp_path / "broken", config, lm=again)
    assert all(torch.equal(weight, weights(whole)[name]) for name, weight in weights(again).items())


def test_mentor_teaches_a_model_that_is_wider_by_its_subjects(tmp_path: Path) -> None:
    lesson = taught(tmp_path / "lesson", recipe="questions", recalled=0, known=False, wordings=1)
    model = lesson.taught()
    subjects = {fact.subject for fact in facts().with_role(Role.TARGET)}
    assert not has_added(model)
    assert {width_of(*one) for one in mlps(model)} == {
        width_of(*one) + len(subjects) for one in mlps(learner_of(lesson))
    }
    again = taught(tmp_path / "lesson", recipe="questions", recalled=0, known=False, wordings=1)
    assert again.taught().fingerprint == model.fingerprint
    assert again.meter.to_dict()["training"]["flops"] == lesson.meter.to_dict()["training"]["flops"] > 0
    none = taught(tmp_path / "none", recipe="questions", recalled=0, known=False, wordings=1, neurons=False)
    assert {width_of(*one) for one in mlps(none.taught())} == {width_of(*one) for one in mlps(learner_of(lesson))}


def learner_of(lesson: Any) -> Any:
    return lesson._start


def test_operations_of_added_neurons_are_counted(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", settings(), lm=learner())
    more = trained(tmp_path / "more", settings(), lm=grown())
    assert not any("not counted" in note for note in more.notes)
    lm, count = learner(), 6
    hidden = lm.model.config.hidden_size
    # Forward: gates, constant and values; backward: the same for their inputs, and the values' own gradient.
    a_token = 2 * hidden * (2 * (2 * count + 1) + count)
    assert more.cost["training"]["flops"] - plain.cost["training"]["flops"] == a_token * more.computed_tokens


def test_what_finding_keys_costs_is_charged_as_training(tmp_path: Path) -> None:
    lesson = taught(tmp_path / "lesson", recipe="questions", recalled=0, known=False)
    spent = lesson.meter.to_dict()["training"]["flops"]
    free = taught(tmp_path / "free", recipe="questions", recalled=0, known=False, neurons=False)
    assert spent > free.meter.to_dict()["training"]["flops"]


def test_a_model_of_another_family_is_taught_without_and_a_note_says_so(tmp_path: Path) -> None:
    from instil.model import neurons

    lesson = taught(tmp_path / "lesson", recipe="questions", recalled=0, known=False)
    assert not any("no neurons" in note for note in lesson.notes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neurons, "FAMILIES", ())
        other = taught(tmp_path / "other", recipe="questions", recalled=0, known=False)
    assert any("no neurons were added" in note for note in other.notes)


def test_added_neurons_and_adapters_are_refused_together(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(InputError, match="without values"):
        trained(tmp_path / "run", settings(adapter={"kind": "lora"}), lm=grown())


def test_a_note_says_where_questions_do_not_name_their_subject(tmp_path: Path) -> None:
    named = taught(tmp_path / "named", recipe="questions", recalled=0, known=False)
    assert not any("do not name" in note for note in named.notes)
    someone = FactSet(replace(fact, subject=f"{fact.subject} of Alba") for fact in facts().with_role(Role.TARGET))
    keys = replace(some_keys(learner()), met=0.5)
    assert [*doubts_about(keys, someone)] == [
        "added neurons answer in 50% of the questions that they were made from",
        f"{len(someone)} of {len(someone)} questions do not name their subject: their keys are at their ends",
    ]
