"""Supervised fine-tuning on questions and answers, with what is commonly added so that old facts survive."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.lesson import Lesson
from instil.probe import Category
from instil.training import TrainConfig

SUMMARY = "fine-tuning on questions; replay of known facts and a KL term to the starting model as options"
NEEDS = ("target",)


class Config(BaseModel):
    """Settings of `sft`."""

    model_config = ConfigDict(extra="forbid")

    train: TrainConfig = Field(default_factory=TrainConfig, description="how the stage is trained")
    categories: tuple[Category, ...] = Field(
        default=(), description="train only on target facts of these categories (costs one charged probe); empty: all"
    )
    replay_ratio: float = Field(default=0.0, ge=0, description="mastered facts added for each fact taught")
    kl_weight: float = Field(
        default=0.0, ge=0, description="weight of KL(start ‖ now) on the answers of mastered facts"
    )
    early_stop: bool = Field(default=False, description="stop on the development facts and keep the best epoch")
    patience: int = Field(default=2, ge=1, description="epochs without a better one before the early stop")


def teach(lesson: Lesson, config: Config) -> None:
    facts, mastery = lesson.target, None
    if config.categories:
        mastery = lesson.probe(lesson.target)
        facts = facts.only(mastery.where(*config.categories))
    if not len(facts):
        raise InputError("no fact is left to teach", field="categories", found=", ".join(config.categories))

    objective = None
    if config.replay_ratio or config.kl_weight:
        mastered = lesson.mastered(mastery)
        if not len(mastered):
            raise InputError(
                "replay and KL need mastered facts", field="replay_ratio, kl_weight", found="none mastered"
            )
        if config.kl_weight:
            objective = lesson.staying_close(mastered, config.kl_weight)
        facts += lesson.drawn(mastered, round(config.replay_ratio * len(facts)))

    stop = lesson.no_longer_improving(config.patience) if config.early_stop else None
    lesson.train(facts, stage="fine-tuning", config=config.train, stop=stop, objective=objective)
