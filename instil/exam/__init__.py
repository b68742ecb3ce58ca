"""What is asked before and after teaching: the frozen exam, its verdicts and its figures. Methods never see it.

>>> exam = build_exam(target, held_back, exemplars=exemplars)  # doctest: +SKIP
>>> before, after = sit(exam, ModelAnswerer(model)), sit(exam, ModelAnswerer(taught))  # doctest: +SKIP
>>> verdicts(exam, before, after)  # doctest: +SKIP
"""

from __future__ import annotations

from instil.exam.abstention import is_abstention
from instil.exam.answering import Answerer, ModelAnswerer
from instil.exam.building import assert_not_taught, build_exam, exam_from_facts
from instil.exam.config import ExamConfig
from instil.exam.figures import EARLIER_FIGURES, FIGURES, by_category, headline, made_up, transition_matrix
from instil.exam.paper import EARLIER, PARTS, Exam, Item
from instil.exam.sitting import Answer, ExamResult, TextScore, sit
from instil.exam.statistics import Bootstrap, Figure, crossed, in_words, paired_difference, perplexity, share
from instil.exam.verdicts import Ruling, Verdict, counts, verdicts

__all__ = [
    "EARLIER",
    "EARLIER_FIGURES",
    "FIGURES",
    "PARTS",
    "Answer",
    "Answerer",
    "Bootstrap",
    "Exam",
    "ExamConfig",
    "ExamResult",
    "Figure",
    "Item",
    "ModelAnswerer",
    "Ruling",
    "TextScore",
    "Verdict",
    "assert_not_taught",
    "build_exam",
    "by_category",
    "counts",
    "crossed",
    "exam_from_facts",
    "headline",
    "in_words",
    "is_abstention",
    "made_up",
    "paired_difference",
    "perplexity",
    "share",
    "sit",
    "transition_matrix",
    "verdicts",
]
