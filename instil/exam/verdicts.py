"""One verdict a fact, with the evidence in words.

A fact is *known* when at least half of its exemplar sets give a right greedy answer. What it *says* is the greedy
answer that most exemplar sets give. From the exam before and the exam after, in this order, a fact is

- **kept**: known before and after, as worded.
- **corrupted**: known before and not after, and what it now says is the right answer to another fact of its relation.
- **forgotten**: known before and not after, otherwise.
- **still unknown**: known neither before nor after.
- **updated**: not known before, known after, and an old answer was replaced: before, at least half of the exemplar
  sets gave one and the same wrong answer, no abstention, which the model gives with a probability of at least a half.
- **learned**: not known before, known after, and known after in more than half of its other wordings.
- **learned as worded**: not known before, known after; in at most half of its other wordings, or none was asked, so
  that nothing shows more.

A fact that a taught document tells, and whose question was never trained on, has no wording that was taught: its first
wording counts among the others. "Learned" is then known in more than half of all, "learned as worded" in the first and
no more than half.

Held-back facts were not taught: one that is known only afterwards is "learned" (or "learned as worded") by itself, and
never "updated", since nothing replaced its old answer. The same holds for facts that earlier lessons taught. What the
model makes up is no verdict but a figure (`instil.exam.figures`), as it is about answers to what it does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from instil.answers import is_correct, normalise
from instil.errors import InputError
from instil.exam.abstention import is_abstention
from instil.exam.paper import AS_WORDED, EARLIER, FIRST_WORDINGS, HELD_BACK, HELD_BACK_REWORDED, PARTS, REWORDED, Exam
from instil.exam.sitting import Answer, ExamResult
from instil.facts import Role

CONFIDENT: Final = 0.5
"""Probability of its own answer from which on the model is said to be confident of it."""


class Ruling(StrEnum):
    """The seven verdicts."""

    LEARNED = "learned"
    LEARNED_AS_WORDED = "learned as worded"
    KEPT = "kept"
    FORGOTTEN = "forgotten"
    CORRUPTED = "corrupted"
    UPDATED = "updated"
    STILL_UNKNOWN = "still unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one fact; the columns of the ledger's table `verdicts`, see `instil.ledger.TABLES`."""

    fact_id: str
    subject: str | None
    relation: str | None
    question: str
    answer: str
    role: str
    verdict: Ruling
    category_before: str
    category_after: str
    p_greedy_before: float
    p_greedy_after: float
    p_sampled_before: float
    p_sampled_after: float
    answer_before: str
    answer_after: str
    reworded_known_before: float | None
    reworded_known_after: float | None
    evidence: str

    def to_row(self) -> dict[str, Any]:
        """Plain values; `run_id` is for the caller to add."""
        return {**asdict(self), "verdict": str(self.verdict)}


def verdicts(exam: Exam, before: ExamResult, after: ExamResult, from_documents: Collection[str] = ()) -> list[Verdict]:
    """A verdict for every target fact, every held-back one and every one of an earlier lesson, in the exam's order.

    Args:
        from_documents: ids of the target facts that taught documents tell and whose questions were not trained on.

    Raises:
        InputError: a result is not of this exam.
    """
    check_same_exam(exam, before, after)
    owners = _Owners(exam)
    return [
        _judge(exam, first, before, after, owners, from_documents)
        for part in (AS_WORDED, HELD_BACK, EARLIER)
        for first in before.first(part).values()
    ]


def check_same_exam(exam: Exam, *results: ExamResult) -> None:
    """Invariant 5: before and after are the same exam. Raises `InputError` when they are not."""
    for result in results:
        if result.exam_fingerprint != exam.fingerprint:
            raise InputError(
                "the result is that of another exam", found=result.exam_fingerprint, expected=exam.fingerprint
            )


def old_belief(answer: Answer, exam: Exam) -> str | None:
    """The wrong answer that the model held with confidence: at least half of the exemplar sets gave it, it is no
    abstention, and one sample is it with probability at least one half. None when there is no such answer."""
    said = answer.said
    if answer.said_right or is_abstention(said, exam.config.abstentions):
        return None
    same = sum(normalise(other) == normalise(said) for other in answer.asked.greedy_answer_by_set)
    if 2 * same < len(answer.asked.greedy_answer_by_set) or answer.p_own is None or answer.p_own < CONFIDENT:
        return None
    return said


# -------------------------------------------------------------------- private


class _Owners:
    """Which facts of a relation an answer is right for, taught facts first."""

    def __init__(self, exam: Exam) -> None:
        self._facts: dict[tuple[str | None, str], list[tuple[str, bool]]] = {}
        for part in FIRST_WORDINGS:
            for item in exam.by_part[part]:
                question = item.question
                for answer in dict.fromkeys(normalise(answer) for answer in question.answers):
                    owners = self._facts.setdefault((question.relation, answer), [])
                    owners.append((question.fact_id, PARTS[part] is Role.TARGET))

    def of(self, answer: Answer) -> list[tuple[str, bool]]:
        """The other facts of the same relation that this answer is right for, and whether each was to be taught."""
        question, said = answer.item.question, normalise(answer.said)
        owners = self._facts.get((question.relation, said), []) if said else []
        return [owner for owner in owners if owner[0] != question.fact_id]


def _judge(
    exam: Exam, first: Answer, before: ExamResult, after: ExamResult, owners: _Owners, from_documents: Collection[str]
) -> Verdict:
    part, question = first.item.part, first.item.question
    rewordings = REWORDED if part == AS_WORDED else HELD_BACK_REWORDED
    last = after.first(part)[question.fact_id]
    shares = [_share(result.part(rewordings).get(question.fact_id, ())) for result in (before, after)]
    told = part == AS_WORDED and question.fact_id in from_documents
    never_trained = _share((last, *after.part(rewordings).get(question.fact_id, ()))) if told else shares[1]
    ruling, reason = _rule(exam, first, last, never_trained, owners, told)
    return Verdict(
        fact_id=question.fact_id,
        subject=question.subject,
        relation=question.relation,
        question=question.text,
        answer=question.answers[0],
        role=EARLIER if part == EARLIER else str(PARTS[part]),
        verdict=ruling,
        category_before=str(first.asked.category),
        category_after=str(last.asked.category),
        p_greedy_before=first.asked.p_greedy,
        p_greedy_after=last.asked.p_greedy,
        p_sampled_before=first.asked.p_sampled,
        p_sampled_after=last.asked.p_sampled,
        answer_before=first.said,
        answer_after=last.said,
        reworded_known_before=shares[0],
        reworded_known_after=shares[1],
        evidence=" ".join([_right_sets(first, last), reason, *_caveats(first, last)]),
    )


def _share(answers: tuple[Answer, ...]) -> float | None:
    return sum(answer.known for answer in answers) / len(answers) if answers else None


def _rule(
    exam: Exam, first: Answer, last: Answer, reworded_after: float | None, owners: _Owners, told: bool = False
) -> tuple[Ruling, str]:
    """The verdict and its reason. `reworded_after`: known after in this share of the wordings never trained on."""
    taught = PARTS[first.item.part] is Role.TARGET
    if first.known and last.known:
        return Ruling.KEPT, "Known before and after."
    if first.known:
        others = [] if is_correct(last.said, last.item.question.answers) else owners.of(last)
        if others:
            return Ruling.CORRUPTED, f"It now says {_quoted(last.said)}, the answer to {_named(others)}."
        return Ruling.FORGOTTEN, f"It now says {_quoted(last.said)}."
    if not last.known:
        return Ruling.STILL_UNKNOWN, f"It said {_quoted(first.said)} and now says {_quoted(last.said)}."
    wordings = _wordings_in_words(reworded_after, told)
    by_itself = "" if taught else " It was not taught."
    if taught and (belief := old_belief(first, exam)) is not None:
        confidence = f"with probability {first.p_own:.2f}"
        return (
            Ruling.UPDATED,
            f"It used to say {_quoted(belief)} {confidence}, and now gives the taught answer.{wordings}",
        )
    if reworded_after is not None and reworded_after > 0.5:
        return Ruling.LEARNED, f"It said {_quoted(first.said)} before.{wordings}{by_itself}"
    return Ruling.LEARNED_AS_WORDED, f"It said {_quoted(first.said)} before.{wordings}{by_itself}"


def _named(owners: list[tuple[str, bool]]) -> str:
    fact, taught = owners[0]
    more = f", and to {len(owners) - 1} more of its relation" if len(owners) > 1 else ""
    return f"fact {fact}, which {'was taught' if taught else 'is in the exam'}{more}"


def _right_sets(first: Answer, last: Answer) -> str:
    before, after = (answer.asked.greedy_right_by_set for answer in (first, last))
    return f"Right with {sum(before)} of {len(before)} exemplar sets before, {sum(after)} of {len(after)} after."


def _wordings_in_words(share: float | None, told: bool) -> str:
    if told:
        return f" A document told it; no question was trained on. Known after in {share:.0%} of all wordings asked."
    if share is None:
        return " No other wording was asked."
    return f" Known after in {share:.0%} of its other wordings."


def _caveats(first: Answer, last: Answer) -> Iterator[str]:
    """What a reader should know before trusting the verdict."""
    if last.known and (last.asked.p_prior or 0) >= CONFIDENT:
        yield f"Without its subject the answer is right with probability {last.asked.p_prior:.2f} already."
    if (first.known or last.known) and last.asked.gold_in_prompt:
        yield "An exemplar in a prompt has the same answer."


def _quoted(text: str, longest: int = 80) -> str:
    if not text.strip():
        return "nothing"
    return f"“{text if len(text) <= longest else text[: longest - 1] + '…'}”"


def counts(found: list[Verdict], role: str | None = None) -> Mapping[str, int]:
    """How many of each verdict, all seven in order, of one role or of all."""
    seen = Counter(verdict.verdict for verdict in found if role in (None, verdict.role))
    return {str(ruling): seen[ruling] for ruling in Ruling}
