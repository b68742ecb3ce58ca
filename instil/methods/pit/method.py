"""Pre-instruction tuning (Jiang et al. 2024, arXiv 2402.12847): first how to be asked, then what to know."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from pydantic import Field, model_validator

from instil.errors import InputError
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.methods.practising import PAPER_RATE, Practising
from instil.training import Arrangement, Stage

SUMMARY = "pre-instruction tuning: practice questions, then with their documents, then the documents to be taught"
NEEDS = ("documents", "practice")


class Order(StrEnum):
    """What is trained on before the target documents; the number is the paper's, in its figure 4."""

    QUESTIONS_ONLY = "questions-only"  # 5: questions
    SEQUENTIAL = "sequential"  # 6: questions, documents
    PIT = "pit"  # 7: questions with documents
    PIT_MINUS = "pit--"  # table 2: questions with documents, questions
    PIT_PLUS = "pit++"  # 8: questions, questions with documents


class Config(Practising):
    """Settings of `pit`."""

    order: Order = Field(
        default=Order.PIT_PLUS,
        description="what comes before the target documents: pit++ (questions, then questions with documents), pit "
        "(questions with documents), pit-- (pit, then questions), sequential (questions, then documents), "
        "questions-only",
    )
    arrangement: Arrangement = Field(
        default=Arrangement.SHUFFLED,
        description="how questions with documents are shown: shuffled, or each question before (after) the document "
        "that it is about, in every epoch (interleaved) or over the whole stage (grouped)",
    )
    practice_epochs: int = Field(default=3, ge=1, description="passes of each stage over practice documents")
    question_epochs: int = Field(default=3, ge=1, description="passes of a stage over practice questions alone")
    question_rate: float = Field(
        default=PAPER_RATE,
        gt=0,
        description="learning rate of stages of questions alone, as a share of train.learning_rate",
    )
    kept_questions: int = Field(
        default=0,
        ge=0,
        description="practice questions mixed into the target documents, which keep the form of an answer",
    )

    @model_validator(mode="after")
    def _has_what_is_arranged(self) -> Config:
        mixes = self.order in (Order.PIT, Order.PIT_MINUS, Order.PIT_PLUS)
        if self.arrangement is not Arrangement.SHUFFLED and not mixes:
            raise ValueError(f"order {self.order} has no stage of questions with documents that could be arranged")
        return self


def plan(roles: Roles, config: Config) -> list[Stage]:
    if not len(roles.practice_documents) and config.order is not Order.QUESTIONS_ONLY:
        raise InputError(
            f"order {config.order} needs the documents that practice questions are about",
            field="order",
            found="no practice document",
            expected="documents tied to the practice facts, or order questions-only",
        )
    questions = Stage(
        "practice questions", config.questions_alone(config.question_epochs, config.question_rate), roles.practice
    )
    documents = Stage(
        "practice documents", config.for_epochs(config.practice_epochs), documents=roles.practice_documents
    )
    together = replace(documents, name="practice questions with documents", questions=roles.practice)
    together = replace(together, arrangement=config.arrangement)
    before = {
        Order.QUESTIONS_ONLY: [questions],
        Order.SEQUENTIAL: [questions, documents],
        Order.PIT: [together],
        Order.PIT_MINUS: [together, questions],
        Order.PIT_PLUS: [questions, together],
    }[config.order]
    kept = roles.practice.sample(config.kept_questions, config.train.seed)
    target = Stage("target documents", config.train, kept, roles.documents)
    return [
        replace(stage, balance=config.balance, question_weight=config.question_weight) for stage in (*before, target)
    ]


def teach(lesson: Lesson, config: Config) -> None:
    lesson.follow(plan(lesson.roles, config))
