"""`train` ending with averaged weights, or with a mixture of these and those that it started from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from instil.training import Decision, Progress
from instil.training.config import LoraSettings, TrainConfig
from tests.training_data import Killed, assert_same_weights, killed_at, learner, settings, trained, without_time

BOTH = {"average": 0.7, "mix": 0.6}


class Following:
    """A correction that changes nothing and keeps all weights of the course."""

    def describe(self) -> dict[str, str]:
        return {"kind": "following"}

    def prepare(self, model: torch.nn.Module, *_: object) -> None:
        self.seen = [weights_of(model)]

    def before(self, trained: object) -> None:
        """Nothing."""

    def after(self, trained: dict[str, Tensor]) -> None:
        self.seen.append({name: weight.detach().clone() for name, weight in trained.items()})


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def expected(seen: list[dict[str, Tensor]], average: float | None, mix: float | None) -> dict[str, Tensor]:
    """The naive twin: from the whole course."""
    start, ending = seen[0], seen[-1]
    if average is not None:
        counts = [average**age for age in reversed(range(len(seen) - 1))]
        ending = {
            name: sum(count * weights[name] for count, weights in zip(counts, seen[1:], strict=True)) / sum(counts)
            for name in ending
        }
    return {name: start[name] + (mix or 1.0) * (ending[name] - start[name]) for name in ending}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("average", "mix"), [(0.7, None), (None, 0.6), (0.7, 0.6), (None, None)])
def test_it_ends_where_the_whole_course_says(tmp_path: Path, average: float | None, mix: float | None) -> None:
    following, seen = Following(), []

    def look(progress: Progress) -> None:
        seen.append((progress.step, weights_of(progress.model.model)))

    config = settings(epochs=3, average=average, mix=mix)
    result = trained(tmp_path / "a", config, corrections=[following], watch=look)
    assert [step for step, _ in seen] == [3, 6, 9] and len(following.seen) == 10
    for step, weights in seen:
        assert_close(weights, expected(following.seen[: step + 1], average, mix))
    assert_close(weights_of(result.model.model), expected(following.seen, average, mix))
    plain = trained(tmp_path / "plain", settings(epochs=3), corrections=[Following()])
    if (average, mix) == (None, None):
        assert_same_weights(result.model, plain.model)
    else:
        assert result.model.fingerprint != plain.model.fingerprint


def test_looking_changes_nothing(tmp_path: Path) -> None:
    config = settings(epochs=3, **BOTH)
    looked = trained(tmp_path / "a", config, watch=lambda progress: None, stop=lambda progress: False)
    assert_same_weights(looked.model, trained(tmp_path / "b", config).model)


def test_the_best_epoch_is_kept_as_it_was_seen(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def second_is_best(progress: Progress) -> Decision:
        seen.append(weights_of(progress.model.model))
        return Decision(best=progress.epoch == 2, score=0.0)

    result = trained(tmp_path / "a", settings(epochs=4, **BOTH), stop=second_is_best)
    assert result.best_epoch == 2
    assert_close(weights_of(result.model.model), seen[1])
    last = trained(tmp_path / "b", settings(epochs=2, **BOTH), stop=second_is_best)
    assert last.best_epoch == 2
    assert_same_weights(last.model, result.model)


@pytest.mark.parametrize("at", [2, 4, 8])
def test_invariant_2_resumed_equals_uninterrupted(tmp_path: Path, at: int) -> None:
    config = settings(epochs=3, save_every=1, **BOTH)
    whole = trained(tmp_path / "whole", config)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, step=killed_at(at))
    resumed = trained(tmp_path / "cut", config)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)
    assert_same_weights(trained(tmp_path / "cut", config, lm=learner()).model, whole.model)


def test_only_what_is_trained_moves(tmp_path: Path) -> None:
    start = weights_of(learner().model)
    result = trained(tmp_path / "a", settings(epochs=2, late_mlp=0.5, **BOTH))
    moved = {name for name, weight in weights_of(result.model.model).items() if not torch.equal(weight, start[name])}
    assert moved and all(".mlp." in name for name in moved)


def test_adapters_are_averaged_and_not_mixed(tmp_path: Path) -> None:
    averaged, plain = (
        trained(tmp_path / str(average), settings(epochs=2, average=average, adapter=LoraSettings()))
        for average in (0.7, None)
    )
    assert averaged.model.fingerprint != plain.model.fingerprint
    with pytest.raises(ValidationError, match="mix is of weights"):
        TrainConfig(mix=0.8, adapter=LoraSettings())


@pytest.mark.parametrize("wrong", [{"average": 0.0}, {"average": 1.0}, {"mix": 0.0}, {"mix": 1.0}], ids=str)
def test_what_would_be_no_average_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**wrong)
