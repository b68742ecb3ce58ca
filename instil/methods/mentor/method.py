"""Teaching that forgets little, as our own search has found it so far (docs/lab-log.md): each taught subject gets a
neuron of its own, the rest goes into MLPs alone, by orthogonal updates, while the model is held to texts that it writes
and questions that it asks itself, so that no old data is needed; what it ends with is an average of its weights, part
of the way from where they started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from instil.facts import Corpus, Fact, FactSet
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.training import Objective, Stage, TrainConfig

SUMMARY = (
    "a neuron for each new subject, MLPs by orthogonal updates, held to what the model says itself: forgets little"
)
NEEDS = ("target",)

RECIPES: dict[str, dict[str, Any]] = {
    "questions": {"recited": 0, "recalled": 1500, "known": True, "kl_weight": 4.0, "kl_share": 1.2, "neurons": True},
    "texts": {"recited": 100, "recalled": 0, "known": False, "kl_weight": 3.0, "kl_share": 0.25, "neurons": False},
}
TRAIN: dict[str, dict[str, Any]] = {
    name: {"optimizer": "muon", "late_mlp": layers, "average": 0.87, "mix": 0.9}
    for name, layers in (("questions", 1.0), ("texts", 0.5))
}

INSTEAD = {"late_mlp": ("adapter", "parameters", "late_mlp"), "mix": ("adapter", "mix")}
"""A setting of `train` is not the recipe's where one of these is given."""

STEPS, BATCHES = 16, (8, 128)
"""Optimiser steps that a pass is to have, and the smallest and largest batch for that."""


def settings_of_training(recipe: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`train` as it holds where not all of it is given."""
    own = {name: value for name, value in TRAIN[recipe].items() if not set(INSTEAD.get(name, ())) & set(given)}
    return own | dict(given)


class Config(BaseModel):
    """Settings of `mentor`."""

    model_config = ConfigDict(extra="forbid")

    recipe: Literal["questions", "texts"] = Field(
        default="questions",
        description="gives what is not given of train, recited, recalled, known, kl_weight and kl_share. questions: "
        "all MLPs, held to many questions; texts: the MLPs of the last half of the layers, held to a few texts, which "
        "costs less",
    )
    train: TrainConfig = Field(
        default_factory=lambda: TrainConfig(**settings_of_training("questions", {})),
        description="how it is trained; where not given, by Muon, only MLPs, in batches that make 16 steps a pass "
        "(8 to 128 examples), to an average that is mixed with the start",
    )
    recited: int = Field(
        default=RECIPES["questions"]["recited"],
        ge=0,
        description="texts that the starting model writes from nothing, to be held to; 0: none",
    )
    recalled: int = Field(
        default=RECIPES["questions"]["recalled"],
        ge=0,
        description="questions that it asks itself, with its answers, to be held to; 0: none",
    )
    known: bool = Field(
        default=RECIPES["questions"]["known"],
        description="also hold it to the facts of role known, if there are any, as well as it knows them",
    )
    kl_weight: float = Field(
        default=RECIPES["questions"]["kl_weight"], gt=0, description="weight of KL(start ‖ now) on all of these"
    )
    kl_share: float = Field(
        default=RECIPES["questions"]["kl_share"],
        gt=0,
        description="of them, how many are drawn at each optimiser step, for each example of the batch",
    )
    neurons: bool = Field(
        default=RECIPES["questions"]["neurons"],
        description="a neuron of its own for each taught subject, where the model's family allows it and no adapter "
        "is trained",
    )
    wordings: int = Field(
        default=0, ge=0, description="other wordings of each fact that are trained on as well, where it has them"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_recipe_says(cls, given: Any) -> Any:
        name = given.get("recipe", "questions") if isinstance(given, dict) else None
        if name not in RECIPES:
            return given
        train = given.get("train", {})
        if isinstance(train, dict):
            train = settings_of_training(name, train)
        return {**RECIPES[name], **given, "train": train}


def plan(roles: Roles, config: Config) -> list[Stage]:
    facts = in_wordings(roles.target, config.wordings)
    return [Stage("teaching", in_batches(config.train, len(facts)), facts)]


def in_batches(train: TrainConfig, examples: int) -> TrainConfig:
    """How the stage is trained, with its batch: an orthogonal update costs the same however many examples it is of, and
    a pass of a few steps learns nothing."""
    if train.batch_size is not None or train.batch_tokens is not None:
        return train
    least, most = BATCHES
    return train.model_copy(update={"batch_size": max(least, min(most, examples // STEPS))})


def teach(lesson: Lesson, config: Config) -> None:
    (stage,) = plan(lesson.roles, config)
    size = stage.config.batch_size or in_batches(TrainConfig(), len(stage.questions)).batch_size or 1
    questions, texts = held(lesson, config)
    if config.neurons and config.train.adapter is None:
        lesson.adding_neurons(stage.questions, aside=questions)
    objective = held_to(lesson, config, questions, texts, max(1, round(config.kl_share * size)))
    lesson.train(stage.questions, stage=stage.name, config=stage.config, objective=objective)


def held(lesson: Lesson, config: Config) -> tuple[FactSet, Corpus]:
    """What the model is held to; a note of the lesson says where it wrote or asked too little."""
    texts = lesson.recited(config.recited) if config.recited else Corpus(())
    questions = lesson.known if config.known else FactSet(())
    if config.recalled:
        questions += lesson.recalled(config.recalled, shown=questions)
    return questions, texts


def held_to(lesson: Lesson, config: Config, questions: FactSet, texts: Corpus, per_step: int) -> Objective | None:
    """The term that holds the model to these, if there are any."""
    parts = [part for part in (questions, texts) if len(part)]
    if not parts:
        return None
    return lesson.staying_close(tuple(parts) if len(parts) > 1 else parts[0], config.kl_weight, per_step)


def in_wordings(facts: FactSet, number: int) -> FactSet:
    """The facts, and each again in so many of its other wordings, where it has them."""
    return FactSet(copy for fact in facts for copy in copies(fact, number))


def copies(fact: Fact, number: int) -> Iterator[Fact]:
    yield fact
    for place, text in enumerate(fact.paraphrases[:number], start=1):
        yield replace(fact, id=f"{fact.id}, wording {place}", question=text)
