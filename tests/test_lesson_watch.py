"""`Lesson(..., watch=...)`: every epoch of every stage is shown, and nothing is any different for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.facts import FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson, Watch
from instil.methods import get
from instil.probe import ProbeConfig, ask, draw_exemplars, questions_of
from instil.training import Budget, Decision, Meter, Progress
from tests.half_taught import facts, half_taught
from tests.training_data import Killed, assert_same_weights, killed_at, settings, trained, without_time

PROBE = ProbeConfig(exemplar_sets=2, shots=2, prior=False)
GRADUAL = {"train": {"epochs": 3, "learning_rate": 2e-3, "save_seconds": 0}, "patience": 1}


def lesson(folder: Path, watch: Watch | None = None, meter: Meter | None = None, **more: Any) -> Lesson:
    given = facts()
    roles = Roles(*(given.with_role(role) for role in (Role.TARGET, Role.PRACTICE, Role.KNOWN, Role.DEVELOPMENT)))
    return Lesson(
        half_taught(),
        roles,
        draw_exemplars(given.with_role(Role.EXEMPLAR), given.by_relation, PROBE),
        folder=folder,
        run_id="watched",
        probe_config=PROBE,
        budget=Budget(),
        meter=meter or Meter(),
        seed=0,
        record=lambda table, rows, key: None,
        watch=watch,
        **more,
    )


def teach(lesson: Lesson) -> Any:
    method = get("gradual")
    method.teach(lesson, method.settings(GRADUAL))
    return lesson.taught()


class Look:
    """Asks the model, which is the study's affair, and draws random numbers, which would be the run's."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.asked = questions_of(FactSet(facts()[:6]))
        self.sets = draw_exemplars(facts().with_role(Role.EXEMPLAR), ["born"], PROBE)

    def __call__(self, stage: str, progress: Progress) -> None:
        self.seen.append((stage, progress.epoch))
        assert len(progress.history) == progress.epoch - 1, "the stop is asked afterwards"
        list(ask(progress.model, self.asked, self.sets, PROBE))
        torch.rand(3)
        random.random()


def test_a_watched_lesson_ends_with_the_weights_and_the_cost_of_one_that_nobody_watches(tmp_path: Path) -> None:
    look, meters = Look(), (Meter(), Meter())
    watched = teach(lesson(tmp_path / "a", look, meters[0]))
    alone = teach(lesson(tmp_path / "b", None, meters[1]))
    assert_same_weights(watched, alone)
    assert meters[0].flops == meters[1].flops and meters[0].flops["deciding"] > 0
    assert meters[0].tokens == meters[1].tokens
    stages = [stage for stage, _ in look.seen]
    assert list(dict.fromkeys(stages)) == ["stage 1", "stage 2"]
    for stage in set(stages):
        assert [epoch for name, epoch in look.seen if name == stage] == list(range(1, stages.count(stage) + 1))


def test_a_resumed_lesson_does_not_show_finished_stages_again(tmp_path: Path) -> None:
    look, again = Look(), Look()
    whole = teach(lesson(tmp_path / "whole", look))

    def cut_off(what: str, done: int, total: int | None) -> None:
        if what.startswith("stage 2"):
            raise Killed

    with pytest.raises(Killed):
        teach(lesson(tmp_path / "cut", Look(), tell=cut_off))
    resumed = teach(lesson(tmp_path / "cut", again))
    assert_same_weights(resumed, whole)
    assert again.seen == [(stage, epoch) for stage, epoch in look.seen if stage == "stage 2"]


def test_what_is_shown_comes_before_the_stop_and_ends_nothing(tmp_path: Path) -> None:
    told: list[str] = []

    def stop(progress: Progress) -> Decision:
        told.append(f"stop {progress.epoch}")
        return Decision(stop=progress.epoch == 2)

    def watch(progress: Progress) -> Any:
        told.append(f"watch {progress.epoch}")
        assert not progress.model.model.training
        torch.rand(1)
        return Decision(stop=True)  # nobody listens

    watched = trained(tmp_path / "a", settings(), stop=stop, watch=watch)
    assert told == ["watch 1", "stop 1", "watch 2", "stop 2"]
    plain = trained(tmp_path / "b", settings(), stop=lambda progress: Decision(stop=progress.epoch == 2))
    assert without_time(watched) == without_time(plain)
    assert_same_weights(watched.model, plain.model)


def test_epochs_before_the_last_checkpoint_are_not_shown_again(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(progress: Progress) -> None:
        seen.append(progress.epoch)

    with pytest.raises(Killed):
        trained(tmp_path, settings(), watch=watch, step=killed_at(8))  # three steps an epoch, saved at each end
    trained(tmp_path, settings(), watch=watch)
    trained(tmp_path, settings(), watch=watch)  # finished: answers from disk
    assert seen == [1, 2, 3]
