"""Teaching with the least forgetting that the gradual study found (docs/results/gradual.md): new facts go into the MLPs
of the last layers, while the model is held to texts that it writes itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from instil.facts import Fact, FactSet
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.training import Objective, Stage, TrainConfig

SUMMARY = "fine-tuning of the last layers' MLPs alone, held to texts that the model recites: forgets least"
NEEDS = ("target",)

LATE = 0.5
WHERE = ("adapter", "parameters", "late_mlp")


class Config(BaseModel):
    """Settings of `mentor`."""

    model_config = ConfigDict(extra="forbid")

    train: TrainConfig = Field(
        default_factory=lambda: TrainConfig(late_mlp=LATE),
        description=f"how the stage is trained; late_mlp is {LATE} where no part of the model is named",
    )
    recited: int = Field(
        default=100, ge=0, description="texts that the starting model writes from nothing, to be held to; 0: none"
    )
    kl_weight: float = Field(default=3.0, gt=0, description="weight of KL(start ‖ now) on the words of these texts")
    kl_per_step: int = Field(default=4, ge=1, description="texts drawn for that at each optimiser step")
    wordings: int = Field(
        default=0, ge=0, description="other wordings of each fact that are trained on as well, where it has them"
    )

    @model_validator(mode="before")
    @classmethod
    def _in_the_last_layers(cls, given: Any) -> Any:
        train = given.get("train", {}) if isinstance(given, dict) else None
        if isinstance(train, dict) and not any(name in train for name in WHERE):
            return {**given, "train": {**train, "late_mlp": LATE}}
        return given


def plan(roles: Roles, config: Config) -> list[Stage]:
    return [Stage("teaching", config.train, in_wordings(roles.target, config.wordings))]


def teach(lesson: Lesson, config: Config) -> None:
    (stage,) = plan(lesson.roles, config)
    lesson.train(stage.questions, stage=stage.name, config=config.train, objective=held(lesson, config))


def held(lesson: Lesson, config: Config) -> Objective | None:
    """The term that holds the model to what it recites; a note of the lesson says where it wrote too little."""
    texts = lesson.recited(config.recited) if config.recited else ()
    return lesson.staying_close(texts, config.kl_weight, config.kl_per_step) if texts else None


def in_wordings(facts: FactSet, number: int) -> FactSet:
    """The facts, and each again in so many of its other wordings, where it has them."""
    return FactSet(copy for fact in facts for copy in copies(fact, number))


def copies(fact: Fact, number: int) -> Iterator[Fact]:
    yield fact
    for place, text in enumerate(fact.paraphrases[:number], start=1):
        yield replace(fact, id=f"{fact.id}, wording {place}", question=text)
