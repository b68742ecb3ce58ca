"""Calibration: whether answers that the model gives with probability p are right in a share p of cases.

The confidence is the exact probability that one sample is the model's *own* answer (the one that it gives most often
when it decodes greedily), mean over `ExamConfig.confidence_sets` exemplar sets, sampled as the probe samples. Answers
are sorted by it into bins of equally many; the expected calibration error is the mean over bins, weighted by their
answers, of the gap between mean confidence and share of right answers (Naeini et al. 2015, AAAI, with bins of equal
mass as in Nixon et al. 2019, arXiv 1904.01685). Abstentions claim nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from instil.exam.abstention import is_abstention
from instil.exam.paper import AS_WORDED, HELD_BACK, SAME_SUBJECT, Exam
from instil.exam.sitting import Answer, ExamResult
from instil.exam.statistics import Bootstrap, Figure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

CALIBRATED_PARTS = {"target": (AS_WORDED,), "untaught": (HELD_BACK, SAME_SUBJECT)}
"""Groups of facts whose calibration is told: facts to be taught, and facts never taught."""

FEWEST = 20
"""With fewer answers no error is given: it would be the noise of its bins."""


def confidence(answer: Answer, exam: Exam) -> float | None:
    """The probability that one sample is the model's own answer; None for an abstention, or where it was not scored.

    Where that answer is right, it is the probability of all listed right answers: other spellings of one answer.
    """
    if is_abstention(answer.said, exam.config.abstentions):
        return None
    if not answer.said_right:
        return answer.p_own
    told = answer.asked.p_by_set[: exam.config.confidence_sets]
    return sum(told) / len(told) if told else None


def calibration(exam: Exam, before: ExamResult, after: ExamResult) -> dict[str, Figure]:
    """The figures `calibration_error_<group>_before` and `_after`; none where the exam does not ask for confidence."""
    figures: dict[str, Figure] = {}
    for group, when, answers in _groups(exam, before, after):
        told = _told(answers, exam)
        clusters = [answer.cluster for answer, _ in told]
        sure, right = [p for _, p in told], [answer.said_right for answer, _ in told]
        error = expected_error(sure, right, clusters, exam.config.bins, exam.config.bootstrap)
        figures[f"calibration_error_{group}_{when}"] = error
    return figures


def reliability_tables(exam: Exam, before: ExamResult, after: ExamResult) -> dict[str, Any]:
    """Group, then "before" or "after", to its bins and to how many answers have no confidence and are left out.

    A bin says how many answers it has, from which to which confidence, its mean, and the share that is right.
    """
    tables: dict[str, Any] = {}
    for group, when, answers in _groups(exam, before, after):
        told = _told(answers, exam)
        bins = reliability([p for _, p in told], [answer.said_right for answer, _ in told], exam.config.bins)
        tables.setdefault(group, {})[when] = {"left_out": len(answers) - len(told), "bins": bins}
    return tables


def _groups(exam: Exam, before: ExamResult, after: ExamResult) -> Iterator[tuple[str, str, list[Answer]]]:
    for group, parts in CALIBRATED_PARTS.items():
        if exam.config.confidence_sets and any(exam.by_part[part] for part in parts):
            for when, result in (("before", before), ("after", after)):
                yield group, when, [answer for answer in result.answers if answer.item.part in parts]


def _told(answers: Sequence[Answer], exam: Exam) -> list[tuple[Answer, float]]:
    return [(answer, p) for answer in answers if (p := confidence(answer, exam)) is not None]


def reliability(sure: Sequence[float], right: Sequence[bool], bins: int) -> list[dict[str, Any]]:
    """Bins of equally many answers (give or take one), the least sure first; fewer bins than asked where answers are
    few. Answers of equal confidence are kept in the order in which they come."""
    import numpy as np

    order = np.argsort(np.asarray(sure, dtype=np.float64), kind="stable")
    rows = []
    for chosen in np.array_split(order, min(bins, len(order)) or 1):
        if len(chosen):
            inside = [float(sure[place]) for place in chosen]
            hits = [bool(right[place]) for place in chosen]
            rows.append(
                {
                    "n": len(chosen),
                    "low": min(inside),
                    "high": max(inside),
                    "confidence": sum(inside) / len(inside),
                    "accuracy": sum(hits) / len(hits),
                }
            )
    return rows


def expected_error(
    sure: Sequence[float], right: Sequence[bool], clusters: Sequence[str], bins: int, how: Bootstrap
) -> Figure:
    """The expected calibration error, with an interval by resampling subjects and making the bins anew each time.

    The error of a resample is larger than that of the sample, since noise within bins adds to it and never takes away.
    The resamples are therefore moved down by their mean excess before the interval is read off (percentiles, not below
    zero). The error itself has the same bias, of about the noise of one bin, and is not corrected.
    """
    import numpy as np

    names = list(dict.fromkeys(clusters))
    if len(sure) < FEWEST:
        return Figure(None, None, None, len(sure), len(names), f"fewer than {FEWEST} answers with a confidence")
    sure_N, right_N = np.asarray(sure, dtype=np.float64), np.asarray(right, dtype=np.float64)
    value = _error(sure_N, right_N, bins)
    index = {name: place for place, name in enumerate(names)}
    members: list[list[int]] = [[] for _ in names]
    for place, name in enumerate(clusters):
        members[index[name]].append(place)
    if len(names) < 2:
        return Figure(value, None, None, len(sure), len(names), "one subject only: no interval")
    chance = np.random.default_rng(how.seed)
    arrays = [np.asarray(own) for own in members]
    draws = np.empty(min(how.resamples, MOST_RESAMPLES))
    for number in range(len(draws)):
        chosen = np.concatenate([arrays[place] for place in chance.integers(0, len(names), len(names))])
        draws[number] = _error(sure_N[chosen], right_N[chosen], bins)
    draws -= draws.mean() - value
    low, high = np.quantile(draws, [(1 - how.level) / 2, (1 + how.level) / 2])
    return Figure(value, max(0.0, float(low)), min(1.0, float(high)), len(sure), len(names))


MOST_RESAMPLES = 1000
"""Each resample sorts all answers, so fewer are drawn than for shares; 1,000 place a 95 % end within a few percent."""


def _error(sure_N: Floats, right_N: Floats, bins: int) -> float:
    """Sum over bins of |sum of confidence - sum of right| by the number of answers."""
    import numpy as np

    order = np.argsort(sure_N, kind="stable")
    gaps_N = (sure_N - right_N)[order]
    size = min(bins, len(gaps_N))
    # The same bins as `np.array_split`: the first ones hold one more where the division leaves a rest.
    each, rest = divmod(len(gaps_N), size)
    starts = np.cumsum([0, *([each + 1] * rest), *([each] * (size - rest))])[:-1]
    return float(np.abs(np.add.reduceat(gaps_N, starts)).sum() / len(gaps_N))
