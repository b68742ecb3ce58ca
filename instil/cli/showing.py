"""How results are shown to people: the headline of a run, a plan, a mastery map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from instil.cli.terminal import Terminal, table

if TYPE_CHECKING:
    from instil.loop import TeachResult
    from instil.loop.estimate import Estimate

FIGURES: Final[Mapping[str, str]] = {
    "acquired": "acquired: taught facts not known before, known now",
    "acquired_reworded": "acquired, in wordings never trained on",
    "retained": "retained: held-back facts known before, still known",
    "made_up": "made up: unknown facts answered with false certainty",
    "accuracy_target": "accuracy on taught facts, as worded",
    "accuracy_reworded": "accuracy on taught facts, in other wordings",
    "accuracy_held_back": "accuracy on held-back facts",
    "perplexity": "perplexity on general text",
}
"""The headline table. Figures that come as `…_before` and `…_after` share a row; summary.json has every one."""


def show_taught(terminal: Terminal, taught: TeachResult) -> None:
    """The headline table, the verdicts, what was left out, and where the report is."""
    summary = taught.summary
    terminal.show(headline_table(summary), verdict_line(summary))
    if left_out := summary.get("left_out"):
        terminal.show(f"Left out: {len(left_out):,} (listed in the report and in summary.json)")
    terminal.show(f"The report: {taught.report}")


def headline_table(summary: Mapping[str, Any]) -> Any:
    """One row a figure: before, after, the interval of the latter, and how many facts it rests on."""
    rows = [
        (words, *_values(name, summary["headline"]))
        for name, words in FIGURES.items()
        if name in summary["headline"] or f"{name}_after" in summary["headline"]
    ]
    title = f"{summary['method']} on {summary['model']['name']}"
    return table(title, ("figure", "before", "after", "95 % interval", "n"), rows)


def verdict_line(summary: Mapping[str, Any]) -> str:
    from instil.report.words import VERDICTS

    counts = {name: summary["verdicts"][name] for name in VERDICTS if summary["verdicts"].get(name)}
    return "Verdicts: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())


def show_plan(terminal: Terminal, plan: Estimate) -> None:
    """What a run would take."""
    from instil.report.words import duration, scaled

    rows = [
        ("training", f"{plan.training_tokens:,} tokens, {scaled(plan.training_flops, 'FLOP')}"),
        ("probes and exams", scaled(plan.exam_flops, "FLOP")),
        ("time", f"about {duration(plan.seconds)} at {scaled(plan.rate, 'FLOP/s')}"),
        ("memory", f"about {scaled(plan.memory_bytes, 'B')}, activations besides"),
        ("disk", f"about {scaled(plan.disk_bytes, 'B')}"),
    ]
    terminal.show(table("The run would take", ("what", "how much"), rows), "Nothing was written.")


def category_table(counts: Mapping[Any, int]) -> Any:
    """How many facts are of each mastery category."""
    from instil.report.words import CATEGORY_MEANING, CATEGORY_WORDS, percent

    total = sum(counts.values())
    rows = [
        (word, counts.get(name, 0), percent(counts.get(name, 0) / total) if total else "–", CATEGORY_MEANING[name])
        for name, word in CATEGORY_WORDS.items()
    ]
    return table(None, ("mastery", "facts", "share", "which means"), rows)


def _values(name: str, figures: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, str, int]:
    def said(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.2f}" if name == "perplexity" else f"{100 * value:.1f} %"

    after = figures.get(name) or figures[f"{name}_after"]
    before = after.get("before", figures.get(f"{name}_before", {}).get("value"))
    low, high = after.get("low"), after.get("high")
    between = "–" if low is None or high is None else f"{said(low)} to {said(high)}"
    return said(before), said(after.get("value")), between, after["n"]
