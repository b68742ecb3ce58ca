"""Continued pre-training: next-token prediction on the documents themselves."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.lesson import Lesson
from instil.training import TrainConfig

SUMMARY = "continued pre-training on documents, loss on every token"
NEEDS = ("documents",)


class Config(BaseModel):
    """Settings of `cpt`."""

    model_config = ConfigDict(extra="forbid")

    train: TrainConfig = Field(default_factory=TrainConfig, description="how the stage is trained")


def teach(lesson: Lesson, config: Config) -> None:
    if not len(lesson.documents):
        raise InputError("continued pre-training needs documents", field="--documents", found="none")
    lesson.train(documents=lesson.documents, stage="continued pre-training", config=config.train)
