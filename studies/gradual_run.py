"""One arm of the study of gradual learning: a method through a real lesson, watched at every epoch, then examined."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

import instil
from instil.errors import InputError
from instil.lesson import Lesson
from instil.model import LanguageModel, save
from instil.model.neurons import folded
from instil.training import Budget, Meter, Progress
from studies.gradual_bases import ONCE, Material
from studies.gradual_measure import Look, acquired, full, general, lost, quick
from studies.gradual_methods import method_of


class Arm(BaseModel):
    """One way to teach, all but what is tuned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="how tables call it")
    method: str = Field(description="a method of Instil, or of the study's own")
    settings: dict[str, Any] = Field(default_factory=dict, description="of the method, beside those that arms share")
    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="settings tried on development facts, by their path (train.adapter.r)"
    )
    like: str = Field(default="", description="the arm whose tuned settings it takes; by default its own")
    rate_factor: float = Field(default=1.0, description="on the learning rates that are tried")
    epoch_factor: int | float = Field(
        default=1, gt=0, description="on the plan's epochs: more for arms that teach few facts, fewer for long epochs"
    )
    own_batch: bool = Field(default=False, description="the batch is the method's own instead of the plan's")
    once: bool = Field(default=False, description="looked at with a few seeds only")

    @property
    def tuned_as(self) -> str:
        return self.like or self.name


class Tuned(BaseModel):
    """What is chosen on development facts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float
    settings: dict[str, Any] = Field(default_factory=dict, description="by their path")


LOOKED_AT = frozenset({1, 2, 3, 4, 6, 8, 12, 16, 24})
"""Epochs of a stage at whose end is looked: most happens early, and a look costs as much as an epoch."""


class Watched:
    """Looks at the model as it would be saved, at the end of epochs and of stages. What it computes costs the arm
    nothing.

    The curve is that of models which the arm hands on: where a stage goes back to an earlier epoch, what came behind
    that epoch is no part of it, though its operations are; where a stage starts from the base again, nor is what came
    before.

    Args:
        every: look at every epoch, for arms that go back to their best one.
    """

    def __init__(self, base: LanguageModel, material: Material, meter: Meter, start: Look, every: bool = False) -> None:
        self.base, self.material, self.meter, self.every = base, material, meter, every
        self.curve: list[dict[str, Any]] = [dict(start)]
        self.seconds: list[float] = []
        self._seen: list[str] = [base.fingerprint]

    def __call__(self, stage: str, progress: Progress) -> None:
        if self.every or progress.epoch in LOOKED_AT:
            self._look(stage, as_saved(progress.model, self.base), progress)

    def ended(self, stage: str, _: int, model: LanguageModel) -> None:
        """The model that a stage ends with."""
        if model.fingerprint in self._seen:
            place = self._seen.index(model.fingerprint) + 1
            del self.curve[place:], self._seen[place:]
        else:
            self._look(stage, model)
        self.curve[-1]["flops"] = self.meter.total

    def last(self, model: LanguageModel) -> Look | None:
        """What was seen at the curve's last point, if that is of this model."""
        if self._seen[-1] != model.fingerprint:
            return None
        return {name: self.curve[-1][name] for name in self.curve[0] if name in self.curve[-1]}

    def restarted(self) -> None:
        """The last stage's points follow upon the base."""
        stage = self.curve[-1].get("stage")
        own = [place for place in range(1, len(self.curve)) if self.curve[place]["stage"] == stage]
        self.curve[1:] = [self.curve[place] for place in own]
        self._seen[1:] = [self._seen[place] for place in own]

    def _look(self, stage: str, model: LanguageModel, progress: Progress | None = None) -> None:
        started = time.monotonic()
        point = {"stage": stage, "flops": self.meter.total, **quick(model, self.material)}
        if progress is not None:
            seconds = round(progress.seconds, 2)
            point |= {"epoch": progress.epoch, "training_seconds": seconds, "loss": progress.loss}
        self.curve.append(point)
        self._seen.append(model.fingerprint)
        self.seconds.append(round(time.monotonic() - started, 2))


def run(
    arm: Arm,
    tuned: Tuned,
    material: Material,
    start: Mapping[str, Any],
    *,
    epochs: int,
    batch: int,
    budget: float | None,
    base: LanguageModel | None = None,
) -> dict[str, Any]:
    """Teach one arm and measure it.

    Args:
        start: what `before` says of the base.
        epochs: at most, in each stage; an arm may have several times as many.
        batch: examples an optimiser step.
        budget: operations that the arm may spend, deciding probes included; None: no limit.
        base: the model to teach, where it is not the material's.

    Returns:
        `curve` (see `Watched`), `end` (the saved and reloaded model: `full`, on test subjects, and `quick` under that
        name), `trained` (1 for each taught fact that a stage trained on as worded), `probed` (what the method saw of
        the taught facts, and when: a letter a fact), `cost` by purpose, `stages` (with what was trained on so far),
        `notes` and seconds.

    Raises:
        InputError: a text is trained on that is only asked.
    """
    started = time.monotonic()
    base = base or instil.load(material.base)
    method, meter = method_of(arm.method), Meter()
    settings = method.settings(settings_of(arm, tuned, epochs=epochs, batch=batch, seed=material.seed))
    stops = bool(getattr(settings, "early_stop", False))
    if stops and settings.model_dump()["train"]["adapter"]:
        raise InputError("merged adapters are no look's model: what a stop takes back is not known", field="early_stop")
    watched = Watched(base, material, meter, start["quick"], every=stops)
    points: list[Mapping[str, Any]] = []
    trained: set[str] = set()
    by_stage: dict[str, str] = {}
    probed: list[dict[str, str]] = []

    def guard(texts: Sequence[str]) -> None:
        questions = [line.removeprefix("Q: ") for text in texts for line in text.splitlines()]
        material.guard(questions)
        trained.update(questions)

    def record(table: str, rows: Sequence[Mapping[str, Any]], key: str) -> None:
        if table == "stages":
            points.extend(rows)
            by_stage[rows[-1]["stage"]] = taught_of(trained, material)
        elif table == "states" and by_stage and rows[0]["parent_id"].endswith(":before"):
            watched.restarted()
        elif table == "answers":
            probed.extend(categories_of(rows, material))

    work = Path(tempfile.mkdtemp())
    try:
        lesson = Lesson(
            base,
            material.roles,
            material.sets,
            folder=work / "lesson",
            run_id=arm.name,
            probe_config=ONCE,
            budget=Budget(flops=budget),
            meter=meter,
            seed=material.seed,
            record=record,
            guard=guard,
            watch=watched,
            keep=watched.ended,
        )
        notes = method.teach(lesson, settings) or ()
        save(lesson.taught(), work / "taught", str(base.dtype).removeprefix("torch."))
        taught = instil.load(work / "taught", dtype=str(base.dtype).removeprefix("torch."), style=base.style)
        examined = time.monotonic()
        whole = full(taught, material) if material.split == "test" else {}  # settings are chosen by curves alone
        of_text = general(taught, material)
        end = {**whole, **of_text, "quick": {**(watched.last(taught) or quick(taught, material)), **of_text}}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    stages = {stage["stage"]: {**stage, "trained": by_stage[stage["stage"]]} for stage in stages_of(points)}
    for point in watched.curve[1:]:
        point.setdefault("epoch", stages[point["stage"]]["epochs"])
        point.setdefault("loss", stages[point["stage"]]["loss"])
    return {
        "curve": watched.curve,
        "end": end,
        "cost": meter.to_dict(),
        "stages": list(stages.values()),
        "trained": taught_of(trained, material),
        "probed": probed,
        "notes": [*lesson.notes, *notes],
        "seconds": round(time.monotonic() - started, 1),
        "seconds_a_look": watched.seconds,
        "seconds_at_the_end": round(time.monotonic() - examined, 1),
    }


def taught_of(trained: Collection[str], material: Material) -> str:
    """1 for each taught fact that was trained on as worded."""
    return "".join(str(int(fact.question in trained)) for fact in material.target)


def categories_of(rows: Sequence[Mapping[str, Any]], material: Material) -> list[dict[str, str]]:
    """A deciding probe of the taught facts: after which stage, and a letter for each fact; of other facts nothing."""
    found = {row["question_id"]: row["category"][0] for row in rows}
    if not all(fact.id in found for fact in material.target):
        return []
    state = str(rows[0]["state_id"]).rpartition(":")[2]
    return [{"after": state, "category": "".join(found[fact.id] for fact in material.target)}]


def before(material: Material, base: LanguageModel | None = None) -> dict[str, Any]:
    """The base itself, measured as every taught model is, and what figures need to know of the facts (`layout`)."""
    base = base or instil.load(material.base)
    return {**full(base, material), **general(base, material), "quick": quick(base, material), **layout(material)}


def layout(material: Material) -> dict[str, Any]:
    """What figures need to know of the facts, in the order of the material.

    Returns:
        `groups`, by part, a number for each fact: its subject's, by which facts are resampled together, the same in
        every seed. `categories`, by part, a letter for each fact that is asked and not taught: what the base knew.
    """
    asked = {"held_back": material.held_back, "untaught": material.untaught}
    parts = {"target": material.target, **asked}
    return {
        "groups": {name: [material.groups[fact.id] for fact in part] for name, part in parts.items()},
        "categories": {name: "".join(material.mastery[fact.id][0] for fact in part) for name, part in asked.items()},
    }


def settings_of(arm: Arm, tuned: Tuned, *, epochs: int, batch: int, seed: int) -> dict[str, Any]:
    """The method's settings: the arm's, over those that all share, and what was tuned over both."""
    train = {
        "epochs": max(1, round(arm.epoch_factor * epochs)),
        "learning_rate": tuned.rate,
        "batch_size": batch,
        "save_every": "never",
        "seed": seed,
    }
    if arm.own_batch:
        del train["batch_size"]
    given: dict[str, Any] = {**arm.settings, "train": {**train, **arm.settings.get("train", {})}}
    for path, value in tuned.settings.items():
        given = put(given, path.split("."), value)
    return given


def put(given: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The settings with one of them exchanged.

    >>> put({"train": {"epochs": 3}}, ["train", "seed"], 1)
    {'train': {'epochs': 3, 'seed': 1}}
    """
    first, *rest = path
    return {**given, first: put(given.get(first) or {}, rest, value) if rest else value}


def as_saved(learner: LanguageModel, base: LanguageModel) -> LanguageModel:
    """A copy of a model in training as it would be saved: what adapters add is in the weights, at the base's precision.

    Raises:
        InputError: it has weights that the base has not.
    """
    adapted = {name: module for name, module in learner.model.named_modules() if hasattr(module, "get_delta_weight")}
    if not adapted:
        return folded(learner).at(base.dtype)
    merged = base.at(torch.float32)
    state = plain_weights(learner.model.state_dict())
    for name, module in adapted.items():
        added: Any = module
        for adapter in added.active_adapters:
            state[f"{name}.weight"] = state[f"{name}.weight"] + added.get_delta_weight(adapter).detach()
    if set(state) != set(merged.model.state_dict()):
        other = sorted(set(state) ^ set(merged.model.state_dict()))[:3]
        raise InputError("the model in training has other weights than its base", found=", ".join(other))
    merged.model.load_state_dict(state)
    return merged.at(base.dtype)


def plain_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without adapters, by the names that its weights have without them."""
    own = (".lora_", ".osf_", "._osf_")
    return {
        name.replace(".base_layer.", "."): weight.detach()
        for name, weight in state.items()
        if not any(mark in name for mark in own)
    }


def stages_of(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each stage trained on and for how long, with the accuracy on development facts that its stop saw."""
    found: dict[str, dict[str, Any]] = {}
    for point in points:
        stage = found.setdefault(point["stage"], {"stage": point["stage"], "development": []})
        stage |= {"facts": point["facts"], "epochs": point["epoch"], "loss": point["loss"], "flops": point["flops"]}
        if point["development_accuracy"] is not None:
            stage["development"].append(point["development_accuracy"])
    return list(found.values())


def in_words(found: Mapping[str, Any]) -> str:
    """A run in a line."""
    last, end = found["curve"][-1], found["end"]["quick"]
    return (
        f"{len(found['curve']) - 1} epochs, acquired {100 * acquired(end):.1f} %, "
        f"lost {100 * lost(found['curve'][0], end):.1f} points, loss {last['loss']:.3f}, {found['seconds']:.0f} s"
    )
