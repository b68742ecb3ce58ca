"""The table of a comparison in the forms that a paper takes: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instil.errors import InputError

Summary = Mapping[str, Any]

COLUMNS = (
    ("learned", "Learned, other wordings"),
    ("learned_as_worded", "Learned, as worded"),
    ("lost", "Known facts lost"),
    ("corrupted", "Corrupted"),
    ("made_up", "Made up"),
)


def table(summary: Summary, form: str = "markdown") -> str:
    """One row an arm: shares in percent with their intervals, perplexity by that before, and compute spent.

    Args:
        summary: of a comparison.
        form: "markdown", "latex" or "csv". CSV has plain numbers, one column an end of an interval.

    Raises:
        InputError: there is no such form.
    """
    forms: dict[str, Callable[[Summary], str]] = {"markdown": _markdown, "latex": _latex, "csv": _csv}
    if form not in forms:
        raise InputError("there is no such form of table", field="form", found=repr(form), expected=" | ".join(forms))
    return forms[form](summary)


def note(summary: Summary) -> str:
    """What must stand below the table: what was measured, on what, how often, and how the intervals are made."""
    seeds, model = len(summary["seeds"]), summary["model"]
    level = f"{100 * summary['level']:.0f} %"
    resampled = "seeds and subjects" if seeds > 1 else "subjects (one seed: what seeds change is not in them)"
    return (
        f"{model['name']} ({model['parameters'] / 1e6:,.1f} M parameters), {seeds} {'seeds' if seeds > 1 else 'seed'}; "
        f"{level} intervals, {resampled} resampled. "
        f"Learned: of {_n(summary, 'learned')} target facts not known before; "
        f"lost and corrupted: of {_n(summary, 'lost')} held-back facts known before; "
        f"made up: of {_n(summary, 'made_up')} not known before. "
        f"Budget {summary['budget']['flops']:.3g} FLOP a run."
    )


def _n(summary: Summary, measure: str) -> str:
    found = [arm["figures"][measure]["n"] for arm in summary["arms"] if arm["figures"]]
    return f"{max(found, default=0):,}"


def _cells(summary: Summary, percent: str) -> list[list[str]]:
    rows = []
    for arm in summary["arms"]:
        shares = [_share(arm["figures"].get(name), percent) for name, _ in COLUMNS]
        of = None if arm["spent"] is None else arm["spent"] / summary["budget"]["flops"]
        rows.append(
            [
                arm["name"],
                *shares,
                "–" if (ratio := _ratio(arm)) is None else f"{ratio:.2f}",
                "–" if of is None else f"{100 * of:.0f}{percent}",
                f"{len(arm['runs'])}/{len(summary['seeds'])}",
            ]
        )
    return rows


def _heads() -> list[str]:
    return ["Arm", *(head for _, head in COLUMNS), "Perplexity, after / before", "Of the budget", "Runs"]


def _share(figure: Mapping[str, Any] | None, percent: str) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    value = f"{100 * figure['value']:.1f}"
    if figure["low"] is None or figure["high"] is None:
        return f"{value}{percent}"
    return f"{value} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]{percent}"


def _ratio(arm: Mapping[str, Any]) -> float | None:
    found = arm["headline"].get("perplexity_ratio", {}).get("mean")
    return None if found is None else float(found)


def _markdown(summary: Summary) -> str:
    rows = [[_in_markdown(cell) for cell in row] for row in _cells(summary, " %")]
    lines = [_line(_heads()), _line(["---", *(["--:"] * (len(_heads()) - 1))]), *(_line(row) for row in rows)]
    return "\n".join([*lines, "", _in_markdown(note(summary)), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _in_markdown(text: str) -> str:
    return "".join(f"\\{character}" if character in "\\|*`<>" else character for character in " ".join(text.split()))


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
}


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _latex(summary: Summary) -> str:
    """With `booktabs`; stands in a table environment of its own."""
    lines = [" & ".join(_in_latex(cell) for cell in row) + r" \\" for row in _cells(summary, "")]
    heads = ["Arm", *(f"{head} (%)" for _, head in COLUMNS), "Perplexity ratio", "Budget (%)", "Runs"]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{_in_latex(note(summary))}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(_in_latex(head) for head in heads) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _csv(summary: Summary) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [f"{name}{end}" for name, _ in COLUMNS for end in ("", "_low", "_high", "_n")]
    writer.writerow(
        ["arm", "method", *ends, "perplexity_ratio", "spent_flops", "budget_flops", "runs", "seeds", "compared"]
    )
    for arm in summary["arms"]:
        figures = [
            arm["figures"].get(name, {}).get(end) for name, _ in COLUMNS for end in ("value", "low", "high", "n")
        ]
        tail = [_ratio(arm), arm["spent"], summary["budget"]["flops"], len(arm["runs"]), len(summary["seeds"])]
        row = [arm["name"], arm["method"], *figures, *tail, arm["compared"]]
        writer.writerow(["" if cell is None else _harmless(cell) for cell in row])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    """A name that a spreadsheet would take for a formula gets a mark in front."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
