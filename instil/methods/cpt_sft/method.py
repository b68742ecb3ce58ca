"""Standard instruction tuning: continued pre-training on all documents, then fine-tuning on the practice questions."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.methods.practising import PAPER_RATE, Practising
from instil.training import Stage

SUMMARY = "standard instruction tuning: all documents first, then the practice questions"
NEEDS = ("documents", "practice")


class Config(Practising):
    """Settings of `cpt_sft`."""

    question_epochs: int = Field(default=1, ge=1, description="passes over the practice questions")
    question_rate: float = Field(
        default=PAPER_RATE, gt=0, description="learning rate of the questions' stage, as a share of train.learning_rate"
    )
    practice_documents: bool = Field(
        default=True, description="train on the documents of the practice questions as well; false: on the targets only"
    )
    go_on_reading: bool = Field(
        default=False, description="mix the target documents into the questions' stage, so that they are not forgotten"
    )


def plan(roles: Roles, config: Config) -> list[Stage]:
    documents = roles.practice_documents + roles.documents if config.practice_documents else roles.documents
    tuning = Stage(
        "instruction tuning",
        config.questions_alone(config.question_epochs, config.question_rate),
        roles.practice,
        balance=config.balance,
        question_weight=config.question_weight,
    )
    if config.go_on_reading:
        tuning = replace(tuning, documents=roles.documents)
    return [Stage("continued pre-training", config.train, documents=documents, balance=config.balance), tuning]


def teach(lesson: Lesson, config: Config) -> None:
    lesson.follow(plan(lesson.roles, config))
