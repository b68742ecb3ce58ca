"""What is asked before and after teaching: the frozen exam, its verdicts and its figures. Methods never see it.

>>> exam = build_exam(target, held_back, exemplars=exemplars)  # doctest: +SKIP
>>> before, after = sit(exam, ModelAnswerer(model)), sit(exam, ModelAnswerer(taught))  # doctest: +SKIP
>>> verdicts(exam, before, after)  # doctest: +SKIP
"""

from __future__ import annotations

from instil.exam.abstention import is_abstention
from instil.exam.answering import Answerer, ModelAnswerer
from instil.exam.building import assert_not_taught, build_exam, exam_from_documents, exam_from_facts, not_taught
from instil.exam.calibration import calibration
from instil.exam.claims import made_up
from instil.exam.config import ExamConfig
from instil.exam.figures import (
    DOCUMENT_FIGURES,
    EARLIER_FIGURES,
    FIGURES,
    FURTHER_FIGURES,
    by_category,
    headline,
    of_one_state,
    tables,
    transition_matrix,
)
from instil.exam.paper import EARLIER, PARTS, Exam, Item
from instil.exam.parts import KINDS, OwnQuestion, read_questions
from instil.exam.sitting import Answer, ExamResult, TextScore, sit
from instil.exam.statistics import Bootstrap, Figure, crossed, in_words, paired_difference, perplexity, share
from instil.exam.verdicts import Ruling, Verdict, counts, verdicts
from instil.exam.writing import Forced, Writer

__all__ = [
    "DOCUMENT_FIGURES",
    "EARLIER",
    "EARLIER_FIGURES",
    "FIGURES",
    "FURTHER_FIGURES",
    "KINDS",
    "PARTS",
    "Answer",
    "Answerer",
    "Bootstrap",
    "Exam",
    "ExamConfig",
    "ExamResult",
    "Figure",
    "Forced",
    "Item",
    "ModelAnswerer",
    "OwnQuestion",
    "Ruling",
    "TextScore",
    "Verdict",
    "Writer",
    "assert_not_taught",
    "build_exam",
    "by_category",
    "calibration",
    "counts",
    "crossed",
    "exam_from_documents",
    "exam_from_facts",
    "headline",
    "in_words",
    "is_abstention",
    "made_up",
    "not_taught",
    "of_one_state",
    "paired_difference",
    "perplexity",
    "read_questions",
    "share",
    "sit",
    "tables",
    "transition_matrix",
    "verdicts",
]
