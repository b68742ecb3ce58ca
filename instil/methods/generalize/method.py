"""Knowledge learning through generalization (Zhu et al. 2025, arXiv 2503.03705): documents in many formats, and
sharpness-aware minimization, in continued pre-training and in instruction tuning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from instil.augment import FORMATS, copies_of, formatted_copies, recipes
from instil.facts import Corpus, Document, FactSet
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.methods.practising import PAPER_RATE, Practising
from instil.training import Stage

SUMMARY = "documents in many forms, sharpness-aware if wanted; then practice questions, where there are some"
NEEDS = ("documents",)

QUESTION_FORMATS = ("spacing", "quotes", "brackets", "emphasis", "padding")
"""Formats that leave a single question a question."""


TITLE_FIRST = ("heading", "markdown", "html", "table", "fields", "latex")
"""Formats that begin with the title: then the name stands before every fact."""

RECIPES: dict[str, dict[str, Any]] = {
    "measured": {"formats": tuple(f"shuffling+{name}" for name in TITLE_FIRST), "copies": len(TITLE_FIRST)},
    "paper": {"formats": tuple(FORMATS), "copies": 4},
}


class Config(Practising):
    """Settings of `generalize`."""

    recipe: Literal["measured", "paper"] = Field(
        default="measured",
        description="gives formats, copies and train.sharpness where they are not given. measured: the title first, "
        "sentences in another order, plain steps, which was best at equal compute; paper: every format, each word in "
        "its place, and sharpness-aware steps",
    )
    formats: tuple[str, ...] = Field(
        default=RECIPES["measured"]["formats"],
        min_length=1,
        description="formats of the copies, or controls; several joined by + for one copy (`instil augment --list`)",
    )
    copies: int = Field(
        default=RECIPES["measured"]["copies"],
        ge=0,
        description="copies of each document in other formats, besides the original; an epoch is a pass over them all",
    )
    question_formats: tuple[str, ...] = Field(
        default=QUESTION_FORMATS, min_length=1, description="formats of the copies of practice questions"
    )
    question_copies: int = Field(
        default=0, ge=0, description="copies of each practice question in other formats, besides the original"
    )
    question_epochs: int = Field(default=1, ge=1, description="passes over the practice questions and their copies")
    question_rate: float = Field(
        default=PAPER_RATE, gt=0, description="learning rate of the questions' stage, as a share of train.learning_rate"
    )
    practice_documents: bool = Field(
        default=True, description="train on the documents of the practice questions as well; false: on the targets only"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_recipe_says(cls, given: Any) -> Any:
        name = given.get("recipe", "measured") if isinstance(given, dict) else None
        if name not in RECIPES:
            return given
        train = given.get("train", {})
        if name == "paper" and isinstance(train, dict):
            train = {"sharpness": {}, **train}
        return {**RECIPES[name], **given, "train": train}

    @model_validator(mode="after")
    def _knows_its_formats(self) -> Config:
        for names in (self.formats, self.question_formats):
            recipes(names)
        return self


def plan(roles: Roles, config: Config) -> list[Stage]:
    documents = roles.practice_documents + roles.documents if config.practice_documents else roles.documents
    seed = config.train.seed
    in_many_formats = Corpus(formatted_copies(documents, config.formats, config.copies, seed))
    stages = [Stage("continued pre-training", config.train, documents=in_many_formats, balance=config.balance)]
    if len(roles.practice):
        tuning = config.questions_alone(config.question_epochs, config.question_rate)
        asked = questions_in_formats(roles.practice, config.question_formats, config.question_copies, seed)
        stages.append(Stage("instruction tuning", tuning, asked, balance=config.balance))
    return stages


def teach(lesson: Lesson, config: Config) -> None:
    lesson.follow(plan(lesson.roles, config))


def questions_in_formats(facts: FactSet, formats: Iterable[str], copies: int, seed: int) -> FactSet:
    """Each fact, followed by copies of it whose question is in another format; the answer stays as it is."""
    pool = recipes(tuple(formats))
    return FactSet(
        one
        for fact in facts
        for one in (
            fact,
            *(
                replace(fact, id=copy.document.id, question=copy.document.text, paraphrases=())
                for copy in copies_of(Document(fact.id, fact.question), pool, copies=copies, seed=seed)
            ),
        )
    )
