"""`train` with a function that decides after each epoch: early stop, the best weights, and what deciding costs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from instil.training import Decision, Meter, Progress, no_longer_improving
from tests.training_data import (
    Killed,
    assert_same_weights,
    improving_until,
    killed_at,
    learner,
    made_up,
    nll,
    settings,
    trained,
    without_time,
)


def test_stops_when_it_no_longer_improves_and_keeps_the_best_weights(tmp_path: Path) -> None:
    best = trained(tmp_path / "two", settings(epochs=2))
    result = trained(tmp_path / "a", settings(epochs=9), stop=improving_until(2))
    assert (result.epochs, result.ended_by, result.best_epoch) == (4, "stop", 2)
    assert [decision.score for decision in result.decisions] == [-1, 0, -1, -2]
    assert_same_weights(result.model, best.model)
    last = trained(tmp_path / "b", settings(epochs=9, restore_best=False), stop=improving_until(2))
    four = trained(tmp_path / "four", settings(epochs=4))
    assert_same_weights(last.model, four.model)
    assert last.best_epoch is None
    assert not [*(tmp_path / "a").glob("best-*"), *(tmp_path / "a").glob("checkpoint-*")]


@pytest.mark.parametrize("at", [4, 8, 10, 12])
def test_a_resumed_run_makes_the_same_decisions(tmp_path: Path, at: int) -> None:
    def by_loss(progress: Progress) -> Decision:
        """Decides from the history and the progress alone."""
        patience = no_longer_improving(lambda _: -abs(progress.epoch - 2))
        return patience(progress)  # type: ignore[return-value]

    config = settings(epochs=9, save_every="epoch")
    whole = trained(tmp_path / "whole", config, stop=by_loss)
    assert (whole.epochs, whole.best_epoch) == (4, 2)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, stop=by_loss, step=killed_at(at))
    resumed = trained(tmp_path / "cut", config, stop=by_loss)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)


def test_what_stop_sees(tmp_path: Path) -> None:
    seen: list[Progress] = []
    lm = learner()

    def look(progress: Progress) -> bool:
        seen.append(progress)
        assert progress.model is lm and not lm.model.training and lm.model.config.use_cache
        random.random()
        torch.rand(1)
        return progress.epoch == 2

    result = trained(tmp_path / "a", settings(), lm=lm, stop=look)
    assert [(p.epoch, p.step, len(p.history)) for p in seen] == [(1, 3, 0), (2, 6, 1)]
    assert seen[0].loss > seen[1].loss > 0 and 0 < seen[0].flops < seen[1].flops
    assert result.ended_by == "stop" and result.best_epoch is None
    plain = trained(tmp_path / "b", settings(epochs=2))
    assert_same_weights(lm, plain.model)  # looking changed nothing


def test_probing_for_the_decision_is_charged_to_deciding_or_free(tmp_path: Path) -> None:
    meter, examples = Meter(), made_up(3)

    def charged(progress: Progress) -> bool:
        nll(progress.model, examples)  # uncounted: free
        with meter.counting(progress.model.model, "deciding"):
            nll(progress.model, examples)
        return False

    trained(tmp_path / "a", settings(epochs=1), stop=charged, meter=meter)
    plain = trained(tmp_path / "b", settings(epochs=1))
    assert meter.flops["training"] == plain.cost["training"]["flops"]
    assert meter.flops["deciding"] > 0


def test_patience_counts_from_the_best_epoch() -> None:
    scores = iter([1.0, 3.0, 2.0, 3.0, 4.0, 4.0, 4.0])
    stop = no_longer_improving(lambda _: next(scores), patience=2, smallest_gain=0.5)
    history: tuple[Decision, ...] = ()
    for _ in range(7):
        decision = stop(Progress(1, 1, 0.0, 0, 0.0, 0.0, None, history))
        history = (*history, decision)  # type: ignore[arg-type]
    assert [d.best for d in history] == [True, True, False, False, True, False, False]
    assert [d.stop for d in history] == [False, False, False, True, False, False, True]
    lower = no_longer_improving(lambda _: 1.0, patience=1, higher_is_better=False)
    assert lower(Progress(2, 1, 0.0, 0, 0.0, 0.0, None, (Decision(score=2.0),))) == Decision(best=True, score=1.0)
