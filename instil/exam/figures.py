"""The headline figures of a run, its transition matrix, and accuracy by category."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from instil.errors import InputError
from instil.exam import statistics as st
from instil.exam.beyond import BEYOND, beyond
from instil.exam.calibration import calibration, reliability_tables
from instil.exam.claims import confidence_is_known, made_up
from instil.exam.knowedit import KNOWEDIT, knowedit
from instil.exam.pairing import Pair, clusters_of, pairs_of, share_of
from instil.exam.paper import AS_WORDED, EARLIER, HELD_BACK, REWORDED, Exam
from instil.exam.sitting import ExamResult
from instil.exam.verdicts import Ruling, Verdict, check_same_exam
from instil.probe import Category

KNOWN_NOW: Final = (Ruling.LEARNED, Ruling.LEARNED_AS_WORDED, Ruling.KEPT, Ruling.UPDATED)

FIGURES: Final = {
    "acquired": "target facts not known before: share that is known now, as worded",
    "acquired_reworded": "target facts not known before that have other wordings: share that is known now in more than "
    "half of those",
    "retained": "held-back facts known before: share that is still known",
    "forgotten": "held-back facts known before: share that is no longer known",
    "made_up": "held-back facts not known before: share that is now answered wrongly, with no abstention and with "
    "a probability of at least one half, sampled as the probe samples",
    "accuracy_target_before": "target facts as worded: mean share of right greedy answers, before",
    "accuracy_target_after": "the same, after",
    "accuracy_target_change": "the same, after less before, fact by fact",
    "accuracy_reworded_before": "target facts in other wordings: mean share of right greedy answers, before",
    "accuracy_reworded_after": "the same, after",
    "accuracy_held_back_before": "held-back facts: mean share of right greedy answers, before",
    "accuracy_held_back_after": "the same, after",
    "accuracy_held_back_change": "the same, after less before, fact by fact",
    "perplexity_before": "of general text, a token, before",
    "perplexity_after": "the same, after",
    "perplexity_ratio": "after by before, text by text",
}
"""What each figure of `headline` measures that every exam has."""

FURTHER_FIGURES: Final = {
    **BEYOND,
    **{
        f"calibration_error_{group}_{when}": f"{about}: expected calibration error of the probability of the model's "
        f"own answer, {when}"
        for group, about in (("target", "facts to be taught"), ("untaught", "facts never taught"))
        for when in ("before", "after")
    },
    **KNOWEDIT,
}
"""What the figures of the further parts measure; an exam has those of the parts that it asks."""

DOCUMENT_FIGURES: Final = {
    "acquired_from_documents": "target facts that a taught document tells, whose questions are never trained on, not "
    "known before: share that is known now",
    "accuracy_documents_before": "target facts that a taught document tells: mean share of right greedy answers, "
    "before",
    "accuracy_documents_after": "the same, after",
    "accuracy_documents_change": "the same, after less before, fact by fact",
}
"""What `headline` has besides when documents are taught, about questions that are for the exam only."""

EARLIER_FIGURES: Final = {
    "earlier_retained": "facts that earlier lessons of the same ledger taught and that were known before this one: "
    "share that is still known",
    "accuracy_earlier_before": "facts that earlier lessons taught: mean share of right greedy answers, before",
    "accuracy_earlier_after": "the same, after",
    "accuracy_earlier_change": "the same, after less before, fact by fact",
}
"""What `headline` has besides when the exam asks for facts of earlier lessons."""


def headline(
    exam: Exam,
    before: ExamResult,
    after: ExamResult,
    verdicts: Sequence[Verdict] = (),
    from_documents: Collection[str] = (),
) -> dict[str, st.Figure]:
    """Every figure of `FIGURES`, those of `FURTHER_FIGURES` that the exam asks for, of `EARLIER_FIGURES` where it has
    that part, and of `DOCUMENT_FIGURES` where documents were taught, with intervals; subjects are resampled, for
    perplexity texts.

    A figure that has nothing to rest on has the value None, and a reason.

    Args:
        exam: the frozen exam.
        before: its result before teaching.
        after: its result after teaching.
        verdicts: the verdicts from the same results, to be checked against them.
        from_documents: ids of the target facts that taught documents tell and whose questions were not trained on.

    Raises:
        InputError: a result is not of this exam, or a verdict disagrees with the results.
    """
    check_same_exam(exam, before, after)
    _check_verdicts(after, verdicts)
    how = exam.config.bootstrap
    target, held_back = pairs_of(before, after, AS_WORDED), pairs_of(before, after, HELD_BACK)
    new = [pair for pair in target if not pair[0].known]
    old = [pair for pair in held_back if pair[0].known]
    never = [pair for pair in held_back if not pair[0].known]
    retained = share_of(old, lambda pair: pair[1].known, how, "no held-back fact was known before")
    return {
        "acquired": share_of(new, lambda pair: pair[1].known, how, "every target fact was known before"),
        "acquired_reworded": _acquired_reworded(new, after, how),
        "retained": retained,
        "forgotten": retained.complement(),
        "made_up": _made_up(exam, never, how),
        **_accuracy("target", target, how),
        **_accuracy("reworded", pairs_of(before, after, REWORDED), how, change=False),
        **_accuracy("held_back", held_back, how),
        **_perplexities(before, after, how),
        **(_of_documents(target, from_documents, how) if from_documents else {}),
        **(_of_earlier_lessons(before, after, how) if exam.by_part[EARLIER] else {}),
        **beyond(exam, before, after),
        **calibration(exam, before, after),
        **knowedit(exam, before, after),
    }


def of_one_state(exam: Exam, result: ExamResult) -> dict[str, st.Figure]:
    """The further figures that one state of a model has by itself, for an exam that is sat once: accuracy of the parts,
    what is made up and abstained, calibration, KnowEdit's figures but locality. Named without "before" and "after"."""
    check_same_exam(exam, result)
    told = {**beyond(exam, result, result), **calibration(exam, result, result), **knowedit(exam, result, result)}
    return {
        name.removesuffix("_after"): replace(figure, before=None, after=None)
        for name, figure in told.items()
        if not name.endswith(("_before", "_change", "_retained", "_unchanged")) and "_locality" not in name
    }


def tables(exam: Exam, before: ExamResult, after: ExamResult) -> dict[str, Any]:
    """What the summary holds beside figures: reliability tables, and each part's questions and exemplar sets."""
    check_same_exam(exam, before, after)
    return {
        "reliability": reliability_tables(exam, before, after),
        "exam_parts": {
            part: {"questions": len(exam.by_part[part]), "exemplar_sets": exam.probe_of(part).exemplar_sets}
            for part in exam.parts
        },
    }


def transition_matrix(exam: Exam, before: ExamResult, after: ExamResult) -> list[list[int]]:
    """Target facts as worded: rows are the category before, columns the category after, best known first."""
    check_same_exam(exam, before, after)
    order = list(Category)
    matrix = [[0] * len(order) for _ in order]
    for first, last in pairs_of(before, after, AS_WORDED):
        matrix[order.index(first.asked.category)][order.index(last.asked.category)] += 1
    return matrix


def by_category(exam: Exam, before: ExamResult, after: ExamResult) -> list[dict[str, Any]]:
    """Target facts by their category before: how many, mean share of right greedy answers before and after, and the
    interval of the latter. Facts chosen for a low score tend to score higher when asked again; the change within one
    category is no measure of learning by itself."""
    check_same_exam(exam, before, after)
    how = exam.config.bootstrap
    rows = []
    for category in Category:
        pairs = [pair for pair in pairs_of(before, after, AS_WORDED) if pair[0].asked.category is category]
        figures = [st.share([pair[when].asked.p_greedy for pair in pairs], clusters_of(pairs), how) for when in (0, 1)]
        rows.append(
            {
                "category": str(category),
                "n": len(pairs),
                "before_accuracy": figures[0].value,
                "after_accuracy": figures[1].value,
                "low": figures[1].low,
                "high": figures[1].high,
            }
        )
    return rows


# -------------------------------------------------------------------- private


def _check_verdicts(after: ExamResult, verdicts: Sequence[Verdict]) -> None:
    last = {**after.first(AS_WORDED), **after.first(HELD_BACK), **after.first(EARLIER)}
    for verdict in verdicts:
        answer = last.get(verdict.fact_id)
        if answer is None or answer.known != (verdict.verdict in KNOWN_NOW):
            raise InputError("a verdict is not from these results", field=verdict.fact_id, found=str(verdict.verdict))


def _acquired_reworded(new: Sequence[Pair], after: ExamResult, how: st.Bootstrap) -> st.Figure:
    known = after.share_known(REWORDED)
    asked = [pair for pair in new if pair[0].item.question.fact_id in known]

    def in_most(pair: Pair) -> bool:
        return known[pair[0].item.question.fact_id] > 0.5

    return share_of(asked, in_most, how, "no target fact that was not known before has another wording")


def _made_up(exam: Exam, never: Sequence[Pair], how: st.Bootstrap) -> st.Figure:
    if not exam.config.confidence_sets:
        return st.Figure(None, None, None, len(never), 0, "the exam was set not to ask for confidence")
    scored = [pair for pair in never if all(confidence_is_known(answer, exam) for answer in pair)]
    figure = share_of(scored, lambda pair: made_up(pair[1], exam), how, "no held-back fact was unknown before")
    if not scored:
        return figure
    if len(scored) < len(never) and figure.reason is None:
        figure = replace(figure, reason=f"{len(never) - len(scored)} facts left out: the answer could not be scored")
    return replace(figure, before=sum(made_up(pair[0], exam) for pair in scored) / len(scored))


def _of_documents(target: Sequence[Pair], told: Collection[str], how: st.Bootstrap) -> dict[str, st.Figure]:
    pairs = [pair for pair in target if pair[0].item.question.fact_id in told]
    new = [pair for pair in pairs if not pair[0].known]
    why = "every fact that a document tells was known before"
    return {
        "acquired_from_documents": share_of(new, lambda pair: pair[1].known, how, why),
        **_accuracy("documents", pairs, how),
    }


def _of_earlier_lessons(before: ExamResult, after: ExamResult, how: st.Bootstrap) -> dict[str, st.Figure]:
    pairs = pairs_of(before, after, EARLIER)
    known = [pair for pair in pairs if pair[0].known]
    why = "no fact of an earlier lesson was known before this one"
    return {
        "earlier_retained": share_of(known, lambda pair: pair[1].known, how, why),
        **_accuracy("earlier", pairs, how),
    }


def _accuracy(name: str, pairs: Sequence[Pair], how: st.Bootstrap, *, change: bool = True) -> dict[str, st.Figure]:
    clusters = clusters_of(pairs)
    first, last = ([pair[when].asked.p_greedy for pair in pairs] for when in (0, 1))
    figures = {
        f"accuracy_{name}_before": st.share(first, clusters, how),
        f"accuracy_{name}_after": st.share(last, clusters, how),
    }
    if change:
        difference = st.paired_difference(last, first, clusters, how)
        before, after = (figure.value for figure in figures.values())
        figures[f"accuracy_{name}_change"] = replace(difference, before=before, after=after)
    return figures


def _perplexities(before: ExamResult, after: ExamResult, how: st.Bootstrap) -> dict[str, st.Figure]:
    pairs = list(zip(before.texts, after.texts, strict=True))
    tokens = [first.tokens for first, _ in pairs]
    texts = range(len(pairs))
    return {
        "perplexity_before": st.perplexity([first.nll for first, _ in pairs], tokens, texts, how),
        "perplexity_after": st.perplexity([last.nll for _, last in pairs], tokens, texts, how),
        "perplexity_ratio": st.perplexity([last.nll - first.nll for first, last in pairs], tokens, texts, how),
    }
