"""Gradual Learning (Li et al. 2024, arXiv 2410.05802): what is half known first, then what rose with it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.facts import FactSet
from instil.lesson import Lesson
from instil.probe import Category, MasteryMap
from instil.training import TrainConfig

SUMMARY = "stage 1 on MaybeKnown facts, probe again, stage 2 on what rose as well, with replay of mastered facts"
NEEDS = ("target",)


class Config(BaseModel):
    """Settings of `gradual`."""

    model_config = ConfigDict(extra="forbid")

    train: TrainConfig = Field(default_factory=TrainConfig, description="how each stage is trained")
    start_categories: tuple[Category, ...] = Field(
        default=(Category.MAYBE_KNOWN,), min_length=1, description="the categories that stage 1 trains on"
    )
    risen_to: Category = Field(
        default=Category.MAYBE_KNOWN, description="a fact has risen when it is of this category or a higher one"
    )
    replay_ratio: float = Field(
        default=0.2, ge=0, description="mastered facts replayed in stage 2, for each fact that stage 1 trained on"
    )
    early_stop: bool = Field(default=True, description="stop each stage on the development facts, keep its best epoch")
    patience: int = Field(default=2, ge=1, description="epochs without a better one before the early stop")


def teach(lesson: Lesson, config: Config) -> None:
    def train(facts: FactSet, stage: str) -> None:
        stop = lesson.no_longer_improving(config.patience) if config.early_stop else None
        lesson.train(facts, stage=stage, config=config.train, stop=stop)

    mastery = lesson.probe(lesson.target)
    half_known = lesson.target.only(mastery.where(*config.start_categories))
    refuse_empty(half_known, mastery, config)
    train(half_known, "stage 1")

    risen = lesson.target.only(lesson.probe(lesson.target).rose_to(config.risen_to, since=mastery))
    replay = lesson.drawn(lesson.mastered(mastery), round(config.replay_ratio * len(half_known)))
    train(half_known + risen + replay, "stage 2")


def refuse_empty(half_known: FactSet, mastery: MasteryMap, config: Config) -> None:
    if len(half_known):
        return
    counts = ", ".join(f"{count} {category}" for category, count in mastery.counts().items())
    raise InputError(
        "no target fact is of a category that stage 1 starts from; method sft teaches facts of every category",
        field="start_categories",
        found=counts,
        expected=" or ".join(config.start_categories),
    )
