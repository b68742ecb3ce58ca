"""Teaching that forgets little, as our own search has found it so far (docs/lab-log.md): new facts go into MLPs alone,
while the model is held to texts that it writes and questions that it asks itself, so that no old data is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from instil.facts import Corpus, Fact, FactSet
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.training import Objective, Stage, TrainConfig

SUMMARY = "fine-tuning of the last layers' MLPs alone, held to what the model says by itself: forgets little"
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
    recalled: int = Field(
        default=0, ge=0, description="questions that it asks itself, with its answers, to be held to; 0: none"
    )
    known: bool = Field(
        default=True, description="hold it to mastered facts of role known as well, where there are any"
    )
    kl_weight: float = Field(default=3.0, gt=0, description="weight of KL(start ‖ now) on all of these")
    kl_per_step: int = Field(default=4, ge=1, description="of them, how many are drawn at each optimiser step")
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
    """The term that holds the model to what it knew; a note of the lesson says where it wrote or asked too little."""
    texts = lesson.recited(config.recited) if config.recited else Corpus(())
    questions = lesson.mastered() if config.known and len(lesson.known) else FactSet(())
    if config.recalled:
        questions += lesson.recalled(config.recalled, shown=questions)
    parts = [part for part in (questions, texts) if len(part)]
    if not parts:
        return None
    return lesson.staying_close(tuple(parts) if len(parts) > 1 else parts[0], config.kl_weight, config.kl_per_step)


def in_wordings(facts: FactSet, number: int) -> FactSet:
    """The facts, and each again in so many of its other wordings, where it has them."""
    return FactSet(copy for fact in facts for copy in copies(fact, number))


def copies(fact: Fact, number: int) -> Iterator[Fact]:
    yield fact
    for place, text in enumerate(fact.paraphrases[:number], start=1):
        yield replace(fact, id=f"{fact.id}, wording {place}", question=text)
