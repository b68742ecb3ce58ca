"""The exam's further parts, a line a figure in four groups: generalization, locality, made-up answers, KnowEdit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.report import words

Line = tuple[str, str]
"""A figure's name (its stem, where the exam gives it before and after) and what the page calls it."""

GROUPS: Mapping[str, tuple[Line, ...]] = {
    "Generalization: what is taught, asked in another way": (
        ("accuracy_reworded", "in other words"),
        ("accuracy_completed", "as a statement to be completed"),
        ("accuracy_reversed", "in reverse"),
        ("accuracy_choice", "as a choice, by probability"),
        ("accuracy_choice_as_text", "as a choice in the question"),
        ("accuracy_two_hops", "through two facts"),
        ("two_hops_of_known", "through two facts that are both known"),
        ("accuracy_in_context", "told in the prompt"),
        ("accuracy_own", "your own questions"),
    ),
    "Locality: what is not taught": (
        ("same_subject_retained", "about the same subject, still known"),
        ("same_subject_unchanged", "about the same subject, answered as before"),
        ("neighbours_retained", "about subjects of like names, still known"),
        ("neighbours_unchanged", "about subjects of like names, answered as before"),
        ("answer_explosion", "wrongly given an answer that was taught for another"),
        ("accuracy_own_other", "your own other questions"),
    ),
    "Made up, abstained, calibration": (
        ("made_up", "never taught nor known: confident and wrong"),
        ("made_up_no_such_subject", "no such subject: answered with confidence"),
        ("abstained", "never taught nor known: says so"),
        ("abstained_no_such_subject", "no such subject: says so"),
        ("calibration_error_target", "calibration error, taught facts"),
        ("calibration_error_untaught", "calibration error, facts never taught"),
    ),
    "KnowEdit's figures, without worked examples": (
        ("knowedit_edit_success", "edit success, by free generation"),
        ("knowedit_edit_success_forced", "edit success, by teacher forcing"),
        ("knowedit_generalization", "generalization, by free generation"),
        ("knowedit_generalization_forced", "generalization, by teacher forcing"),
        ("knowedit_portability", "portability, by free generation"),
        ("knowedit_portability_forced", "portability, by teacher forcing"),
        ("knowedit_locality", "locality, by free generation"),
        ("knowedit_locality_forced", "locality, by teacher forcing"),
        ("knowedit_fluency", "fluency, in bits"),
    ),
}
NO_SHARES = frozenset({"knowedit_fluency"})


def groups(figures: words.Figures) -> list[dict[str, Any]]:
    """Groups with the lines that the exam has; a group without any is left out.

    Args:
        figures: from `instil.report.cards.paired_figures`.
    """
    found = []
    for label, lines in GROUPS.items():
        rows = [_row(name, meaning, figures[name]) for name, meaning in lines if name in figures]
        if rows:
            found.append({"label": label, "rows": rows})
    return found


HARNESS_SHARES = frozenset({"acc", "acc_norm", "exact_match", "em", "f1", "mc1", "mc2"})
"""Metrics of `lm-eval` that are shares; others are shown as the numbers that they are."""


def harness_group(tasks: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A group with a line a task and metric of `lm-eval`; none where no task was run.

    Args:
        tasks: `lm_eval` of a summary: task, then metric, to its figure.
    """
    rows = []
    for task, metrics in tasks.items():
        for name, figure in metrics.items():
            metric, _, kind = name.partition(",")
            called = f"{task}: {metric}" if kind in ("", "none") else f"{task}: {metric}, {kind}"
            rows.append(_row(f"lm_eval/{task}/{name}", called, figure, share=metric in HARNESS_SHARES))
    return [{"label": "Retention: tasks of lm-eval, by its own standard errors", "rows": rows}] if rows else []


def _row(name: str, meaning: str, figure: Mapping[str, Any], share: bool | None = None) -> dict[str, Any]:
    share = name not in NO_SHARES if share is None else share
    say = words.percent if share else words.number
    value, before, low, high = (figure.get(key) for key in ("value", "before", "low", "high"))
    interval = None if low is None or high is None or value is None else words.interval(low, high, share=share)
    return {
        "name": name,
        "label": meaning,
        "before": None if before is None or value is None else say(before),
        "after": None if value is None else say(value),
        "interval": interval,
        "n": figure.get("n"),
        "change": words.change(figure),
        "reason": figure.get("reason"),
    }
