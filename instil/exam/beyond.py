"""Figures of the further parts: generalization, locality, and what is made up about subjects that do not exist."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Final

from instil.answers import normalise
from instil.exam import statistics as st
from instil.exam.abstention import is_abstention
from instil.exam.claims import confidence_is_known, made_up
from instil.exam.nearness import neighbours
from instil.exam.pairing import Pair, before_and_after, pairs_of, share_of
from instil.exam.paper import (
    AS_WORDED,
    CHOICE,
    CHOICE_AS_TEXT,
    COMPLETED,
    HELD_BACK,
    IN_CONTEXT,
    NO_SUCH_SUBJECT,
    OWN,
    OWN_OTHER,
    REVERSED,
    SAME_SUBJECT,
    TWO_HOPS,
    Exam,
)
from instil.exam.sitting import Answer, ExamResult

ACCURACIES: Final = {
    COMPLETED: "taught facts as a statement to be completed: mean share of right greedy answers",
    REVERSED: "taught facts in reverse (the answer given, the subject asked): mean share of right greedy answers",
    CHOICE: "taught facts as a choice: share of exemplar sets in which the right option is the most probable",
    CHOICE_AS_TEXT: "taught facts as a choice in the question: mean share of right greedy answers",
    TWO_HOPS: "questions through two taught facts: mean share of right greedy answers",
    IN_CONTEXT: "taught facts told in the prompt: mean share of right greedy answers",
    SAME_SUBJECT: "facts never taught about taught subjects: mean share of right greedy answers",
    OWN: "one's own questions about taught facts: mean share of right greedy answers",
    OWN_OTHER: "one's own other questions: mean share of right greedy answers",
}

BEYOND: Final = {
    **{
        f"accuracy_{part}_{when}": f"{about}{suffix}"
        for part, about in ACCURACIES.items()
        for when, suffix in (("before", ", before"), ("after", ", after"), ("change", ", after less before"))
    },
    "two_hops_of_known": "questions through two facts that are both known after teaching: share known, after",
    "same_subject_retained": "facts never taught about taught subjects, known before: share that is still known",
    "same_subject_unchanged": "the same facts, known before or not: share answered as before",
    "neighbours_retained": "held-back facts known before whose subjects' names are most like taught ones: "
    "share that is still known",
    "neighbours_unchanged": "the same facts, known before or not: share answered as before",
    "answer_explosion_before": "held-back facts of the relations taught: share answered wrongly with an answer that is "
    "taught for another subject, before",
    "answer_explosion_after": "the same, after",
    "answer_explosion_change": "the same, after less before, fact by fact",
    "abstained_before": "held-back facts not known before: share answered by saying that it is not known, before",
    "abstained_after": "the same facts, after",
    "abstained_change": "the same, after less before, fact by fact",
    "made_up_no_such_subject": "subjects that do not exist: share answered with a claim whose probability is at least "
    "one half, after (and before)",
    "abstained_no_such_subject_before": "subjects that do not exist: share answered by saying that this is not known, "
    "before",
    "abstained_no_such_subject_after": "the same, after",
    "abstained_no_such_subject_change": "the same, after less before",
}
"""What each figure measures. A figure of a part that the exam does not ask is not given."""


def beyond(exam: Exam, before: ExamResult, after: ExamResult) -> dict[str, st.Figure]:
    """The figures of `BEYOND` for which the exam has questions."""
    how = exam.config.bootstrap
    found: dict[str, st.Figure] = {}
    for part in ACCURACIES:
        if exam.by_part[part]:
            pairs = pairs_of(before, after, part)
            found |= before_and_after(
                f"accuracy_{part}", pairs, lambda answer: answer.asked.p_greedy, how, "none asked"
            )
    if exam.by_part[TWO_HOPS]:
        found["two_hops_of_known"] = _of_known(exam, before, after, how)
    if exam.by_part[SAME_SUBJECT]:
        found |= _untouched("same_subject", pairs_of(before, after, SAME_SUBJECT), how)
    held_back = pairs_of(before, after, HELD_BACK)
    if held_back:
        found |= _of_held_back(exam, held_back, how)
    if exam.by_part[NO_SUCH_SUBJECT]:
        found |= _of_nobody(exam, pairs_of(before, after, NO_SUCH_SUBJECT), how)
    return found


def exploded(exam: Exam, pairs: list[Pair]) -> tuple[list[Pair], dict[str | None, frozenset[str]]]:
    """The held-back facts of relations that are taught, and by relation the normal forms of all taught answers."""
    taught: dict[str | None, set[str]] = defaultdict(set)
    for item in exam.by_part[AS_WORDED]:
        taught[item.question.relation] |= set(map(normalise, item.question.answers))
    kept = [pair for pair in pairs if taught.get(pair[0].item.question.relation)]
    return kept, {relation: frozenset(forms) for relation, forms in taught.items()}


# -------------------------------------------------------------------- private


def _of_known(exam: Exam, before: ExamResult, after: ExamResult, how: st.Bootstrap) -> st.Figure:
    known = {fact for fact, answer in after.first(AS_WORDED).items() if answer.known}
    pairs = [
        pair
        for pair in pairs_of(before, after, TWO_HOPS)
        if pair[0].item.question.fact_id in known and pair[0].item.through in known
    ]
    return share_of(pairs, lambda pair: pair[1].known, how, "no two facts that make a question are both known")


def _of_held_back(exam: Exam, pairs: list[Pair], how: st.Bootstrap) -> dict[str, st.Figure]:
    near = neighbours(exam.by_part[AS_WORDED], exam.by_part[HELD_BACK])
    beside, taught = exploded(exam, pairs)

    def takes_a_taught_answer(answer: Answer) -> bool:
        return not answer.said_right and normalise(answer.said) in taught[answer.item.question.relation]

    never = [pair for pair in pairs if not pair[0].known]
    return {
        **_untouched("neighbours", [pair for pair in pairs if pair[0].item.question.id in near], how),
        **before_and_after(
            "answer_explosion", beside, takes_a_taught_answer, how, "no held-back fact has a relation that is taught"
        ),
        **before_and_after(
            "abstained", never, lambda answer: _abstains(exam, answer), how, "no held-back fact was unknown before"
        ),
    }


def _untouched(name: str, pairs: list[Pair], how: st.Bootstrap) -> dict[str, st.Figure]:
    known = [pair for pair in pairs if pair[0].known]
    return {
        f"{name}_retained": share_of(known, lambda pair: pair[1].known, how, "none of these facts was known before"),
        f"{name}_unchanged": share_of(
            pairs, lambda pair: normalise(pair[0].said) == normalise(pair[1].said), how, "there is no such fact"
        ),
    }


def _of_nobody(exam: Exam, pairs: list[Pair], how: st.Bootstrap) -> dict[str, st.Figure]:
    scored = [pair for pair in pairs if all(confidence_is_known(answer, exam) for answer in pair)]
    figure = share_of(scored, lambda pair: made_up(pair[1], exam), how, "no answer could be scored")
    if scored:
        figure = replace(figure, before=sum(made_up(pair[0], exam) for pair in scored) / len(scored))
    if not exam.config.confidence_sets:
        figure = st.Figure(None, None, None, len(pairs), 0, "the exam was set not to ask for confidence")
    return {
        "made_up_no_such_subject": figure,
        **before_and_after(
            "abstained_no_such_subject", pairs, lambda answer: _abstains(exam, answer), how, "none asked"
        ),
    }


def _accuracy(answer: Answer) -> float:
    return answer.asked.p_greedy


def _abstains(exam: Exam, answer: Answer) -> bool:
    return is_abstention(answer.said, exam.config.abstentions)
