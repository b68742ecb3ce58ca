"""Continued pre-training: next-token prediction on the documents themselves."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.training import Stage, TrainConfig

SUMMARY = "continued pre-training on documents, loss on every token"
NEEDS = ("documents",)


class Config(BaseModel):
    """Settings of `cpt`."""

    model_config = ConfigDict(extra="forbid")

    train: TrainConfig = Field(default_factory=TrainConfig, description="how the stage is trained")


def plan(roles: Roles, config: Config) -> list[Stage]:
    return [Stage("continued pre-training", config.train, documents=roles.documents)]


def teach(lesson: Lesson, config: Config) -> None:
    lesson.follow(plan(lesson.roles, config))
