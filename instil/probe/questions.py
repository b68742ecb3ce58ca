"""What is asked, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from instil.facts import Fact
from instil.probe.categories import Category


@dataclass(frozen=True, slots=True)
class Question:
    """One wording to be asked.

    Attributes:
        id: unique among the questions asked together.
        text: the wording.
        answers: every right answer.
        fact_id: the fact it asks for; an exemplar of the same fact is never put in its prompt.
        relation: decides which exemplars are shown.
        subject: what `p_prior` withholds.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    fact_id: str
    relation: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers to one question.

    Attributes:
        question_id: of the question.
        fact_id: of its fact.
        category: mastery, from `p_greedy` and `p_any`.
        p_greedy: share of exemplar sets whose greedy answer is right.
        p_sampled: mean probability, over exemplar sets, that one sample is a listed answer and stops there.
        p_any: probability that the sampled protocol sees at least one right answer (sampled engine: 1 if it did).
        p_prior: as `p_sampled`, with the subject withheld; None when there is no subject in the question.
        gold_in_prompt: whether an exemplar of any set has the same answer.
        greedy_answer: the most common of the greedy answers, the earliest on a tie.
        greedy_right_by_set: whether each set's greedy answer is right.
        p_by_set: probability that one sample is right, for each set (sampled engine: share of samples).
        greedy_answer_by_set: each set's greedy answer.
        gold_in_prompt_by_set: whether an exemplar of each set has the same answer.
    """

    question_id: str
    fact_id: str
    category: Category
    p_greedy: float
    p_sampled: float
    p_any: float
    p_prior: float | None
    gold_in_prompt: bool
    greedy_answer: str
    greedy_right_by_set: tuple[bool, ...]
    p_by_set: tuple[float, ...]
    greedy_answer_by_set: tuple[str, ...]
    gold_in_prompt_by_set: tuple[bool, ...]

    @property
    def known(self) -> bool:
        """At least half of the exemplar sets give a right greedy answer."""
        return self.p_greedy >= 0.5


def questions_of(facts: Iterable[Fact]) -> list[Question]:
    """Each fact in its first wording; the question's id is the fact's."""
    return [Question(fact.id, fact.question, fact.answers, fact.id, fact.relation, fact.subject) for fact in facts]


WITHHELD = "it"
"""What stands for the subject when it is withheld."""


def without_subject(question: Question) -> str | None:
    """The question with the subject replaced; None when it has no subject or does not name it."""
    if not question.subject or question.subject not in question.text:
        return None
    return question.text.replace(question.subject, WITHHELD)
