"""How results are shown to people: the headline of a run, a plan, a mastery map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instil.cli.terminal import Terminal, percent, table

if TYPE_CHECKING:
    from instil.loop import TeachResult
    from instil.loop.estimate import Estimate
    from instil.probe import MasteryMap
    from instil.probe.tally import Tally

FIGURES: Final[Mapping[str, str]] = {
    "acquired": "acquired: taught facts not known before, known now",
    "acquired_reworded": "acquired, in wordings never trained on",
    "acquired_from_documents": "acquired from documents: questions never trained on",
    "retained": "retained: held-back facts known before, still known",
    "earlier_retained": "kept of earlier lessons: what they taught, still known",
    "made_up": "made up: unknown facts answered with false certainty",
    "accuracy_target": "accuracy on taught facts, as worded",
    "accuracy_documents": "accuracy on questions about taught documents",
    "accuracy_reworded": "accuracy on taught facts, in other wordings",
    "accuracy_held_back": "accuracy on held-back facts",
    "accuracy_earlier": "accuracy on facts of earlier lessons",
    "perplexity": "perplexity on general text",
}
"""The headline table. Figures that come as `…_before` and `…_after` share a row; summary.json has every one."""


RELATIONS: Final = 20
"""Relations that the mastery table shows."""

WIDEST: Final = 28
"""Characters of a relation's name there."""

LEGEND: Final = (
    "Highly known: right with every set of worked examples. Maybe known: with some.",
    "Weakly known: with none, but likely right once when sampled. Unknown: neither.",
    "known: right with at least half of the sets.",
)
LEGEND_OF_GUESSES: Final = "no guess: the same, not counting what could be guessed without the subject."


def show_taught(terminal: Terminal, taught: TeachResult) -> None:
    """The headline table, the verdicts, what was left out, and where the report is."""
    summary = taught.summary
    terminal.show(headline_table(summary), verdict_line(summary))
    if earlier := earlier_line(summary):
        terminal.show(earlier)
    if left_out := summary.get("left_out"):
        terminal.show(f"Left out: {len(left_out):,} (listed in the report and in summary.json)")
    terminal.show(f"The report: {taught.report}")


def headline_table(summary: Mapping[str, Any]) -> Any:
    """One row a figure: before, after, the interval of the latter, and how many facts it rests on."""
    from instil.report.words import CLOZE_ITEM, told_of

    noun = CLOZE_ITEM if (summary.get("data") or {}).get("cloze") else "fact"
    rows = [
        (told_of(noun, words), *_values(name, summary["headline"]))
        for name, words in FIGURES.items()
        if name in summary["headline"] or f"{name}_after" in summary["headline"]
    ]
    title = f"{summary['method']} on {summary['model']['name']}"
    return table(title, ("figure", "before", "after", "95 % interval", "n"), rows)


def verdict_line(summary: Mapping[str, Any]) -> str:
    from instil.report.words import VERDICTS

    counts = {name: summary["verdicts"][name] for name in VERDICTS if summary["verdicts"].get(name)}
    return "Verdicts: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())


def earlier_line(summary: Mapping[str, Any]) -> str | None:
    """What became of what earlier lessons of the same ledger taught; None where there were none."""
    from instil.report.words import plural

    earlier = summary.get("earlier")
    if not earlier:
        return None
    if earlier["state"] is None:
        return "Not linked: the starting model is no state of this ledger, so no earlier lesson is asked again."
    if not earlier["runs"]:
        return f"Goes on from {earlier['state']}, which no lesson of this ledger had taught before."
    kept = summary["headline"].get("earlier_retained")
    lessons = plural(len(earlier["runs"]), "earlier lesson")
    if kept is None:
        return f"Goes on from {earlier['state']} ({lessons}); none of their facts is left to ask again."
    if kept["value"] is None:
        return f"Of the {plural(earlier['facts'], 'fact')} of {lessons} none was known before this one."
    between = "" if kept["low"] is None else f" (95 % interval {percent(kept['low'])} to {percent(kept['high'])})"
    share = f"{percent(kept['value'])} are still known{between}"
    return f"Of {plural(kept['n'], 'fact')} that {lessons} taught and the model knew, {share}."


def show_plan(terminal: Terminal, plan: Estimate) -> None:
    """What a run would take."""
    from instil.report.words import duration, scaled

    rows = [
        ("training", f"{plan.training_tokens:,} tokens, {scaled(plan.training_flops, 'FLOP')}"),
        ("probes and exams", scaled(plan.exam_flops, "FLOP")),
        ("time", f"about {duration(plan.seconds)} at {scaled(plan.rate, 'FLOP/s')}"),
        ("memory", f"about {scaled(plan.memory_bytes, 'B')}: {_parts(plan.memory)}"),
        (
            "disk",
            f"about {scaled(plan.disk_bytes, 'B')}; {scaled(plan.kept_bytes, 'B')} stay, the states kept among them",
        ),
    ]
    terminal.show(table("The run would take", ("what", "how much"), rows), "Nothing was written.")


def _parts(bytes_by_part: Mapping[str, int]) -> str:
    from instil.report.words import scaled

    return ", ".join(f"{name} {scaled(size, 'B')}" for name, size in bytes_by_part.items() if size)


def show_mastery(terminal: Terminal, mastery: MasteryMap, summary: Mapping[str, Any], out: Path) -> None:
    """The mastery map by relation, how much of it a guess explains, and where the whole of it is."""
    from instil.probe.tally import tallies, tallies_in

    # A finished probe that is shown again may be of an earlier version, whose summary has counts alone.
    total, parts = tallies_in(summary) or tallies(mastery, samples=summary["config"]["samples"])
    terminal.show(relation_table(total, parts))
    if len(parts) > RELATIONS:
        terminal.show(f"and {len(parts) - RELATIONS:,} more relations, in {out / 'summary.json'}")
    guesses = guess_line(total)
    terminal.show(*LEGEND, *([LEGEND_OF_GUESSES] if guesses else []), "", known_line(total, summary))
    if guesses:
        terminal.show(guesses)


def relation_table(total: Tally, parts: Sequence[Tally]) -> Any:
    """How many facts of each relation are of each category: the largest relations, then all together."""
    lines = [*parts[:RELATIONS], total] if len(parts) > 1 else parts
    columns = ["relation", "facts", "highly", "maybe", "weakly", "unknown", "known"]
    shares = ["known"]
    if total.with_prior:
        columns.append("no guess")
        shares.append("known_without_guesses")
    rows = [
        (_relation(one.relation), one.facts, *one.counts.values(), *(percent(one.to_dict()[name]) for name in shares))
        for one in lines
    ]
    return table(None, columns, rows, last_apart=len(lines) > 1)


def _relation(name: str) -> str:
    from instil.report.words import visible

    seen = visible(name) or "(no relation)"
    return seen if len(seen) <= WIDEST else f"{seen[: WIDEST - 1]}…"


def known_line(total: Tally, summary: Mapping[str, Any]) -> str:
    """The share known with its interval."""
    known = summary["headline"]["known"]
    between = f"95 % interval {percent(known['low'])} to {percent(known['high'])}"
    return f"Known: {total.known:,} of {total.facts:,} facts, {percent(known['value'])} ({between})."


def guess_line(total: Tally) -> str | None:
    """How many of the best known facts a guess explains; None when no subject was withheld."""
    from instil.probe.categories import Category
    from instil.report.words import plural

    if not total.with_prior:
        return None
    highly, guessed = total.counts[Category.HIGHLY_KNOWN], total.guesses[Category.HIGHLY_KNOWN]
    unjudged = total.facts - total.with_prior
    whose = "its question names" if unjudged == 1 else "their questions name"
    rest = f" ({plural(unjudged, 'fact')} cannot be judged: {whose} no subject)" if unjudged else ""
    return f"Of {highly:,} HighlyKnown, {guessed:,} could be guessed without the subject{rest}."


def shown_warnings(lines: Sequence[str], where: str, most: int = 5) -> list[str]:
    """The first warnings, and how many more there are and where."""
    more = len(lines) - most
    return [*lines[:most], *([f"and {more:,} more, in {where}"] if more > 0 else [])]


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
