"""Documents and practice questions in one stage ("mix all data" of Jiang et al. 2024, arXiv 2402.12847)."""

from __future__ import annotations

from pydantic import Field

from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.methods.practising import Practising
from instil.training import Stage

SUMMARY = "documents and practice questions about other documents, shuffled in one stage"
NEEDS = ("documents", "practice")


class Config(Practising):
    """Settings of `mixed`."""

    practice_documents: bool = Field(
        default=True, description="train on the documents of the practice questions as well; false: on the targets only"
    )
    questions_per_document: float | None = Field(
        default=None, gt=0, description="practice questions drawn for each document that is trained on; by default all"
    )


def plan(roles: Roles, config: Config) -> list[Stage]:
    documents = roles.practice_documents + roles.documents if config.practice_documents else roles.documents
    questions = roles.practice
    if config.questions_per_document is not None:
        count = max(1, round(config.questions_per_document * len(documents)))
        questions = questions.sample(count, config.train.seed)
    return [
        Stage(
            "documents and questions",
            config.train,
            questions,
            documents,
            balance=config.balance,
            question_weight=config.question_weight,
        )
    ]


def teach(lesson: Lesson, config: Config) -> None:
    lesson.follow(plan(lesson.roles, config))
