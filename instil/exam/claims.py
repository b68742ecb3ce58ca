"""Whether an answer is made up: wrong, no abstention, and given with confidence."""

from __future__ import annotations

from instil.exam.abstention import is_abstention
from instil.exam.paper import Exam
from instil.exam.sitting import Answer
from instil.exam.verdicts import CONFIDENT


def made_up(answer: Answer, exam: Exam) -> bool:
    """Wrong, no abstention, and confident: one sample is this answer with probability at least one half."""
    return _claims_wrongly(answer, exam) and answer.p_own is not None and answer.p_own >= CONFIDENT


def confidence_is_known(answer: Answer, exam: Exam) -> bool:
    """Whether it can be told if the answer is made up: it is right, an abstention, or its probability was computed."""
    return answer.p_own is not None or not _claims_wrongly(answer, exam)


def _claims_wrongly(answer: Answer, exam: Exam) -> bool:
    return not (answer.known or answer.said_right or is_abstention(answer.said, exam.config.abstentions))
