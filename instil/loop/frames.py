"""A finished run as data frames, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instil.errors import InputError
from instil.report.palette import CATEGORY_COLOURS, SURFACE

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

SHARES: Final = ("acquired", "acquired_reworded", "retained", "made_up", "accuracy_target", "accuracy_held_back")
"""Figures that the picture shows, where the exam has them: shares, all from 0 to 1."""


def table(ledger: Path, run_id: str, name: str) -> pandas.DataFrame:
    """The rows of one of the ledger's tables for one run, without the column that says so."""
    from instil.ledger import Ledger

    frame: pandas.DataFrame = Ledger(ledger).read(name, run_id=run_id).to_pandas()
    return frame.drop(columns="run_id")


def figures(summary: Mapping[str, Any]) -> pandas.DataFrame:
    """One row a figure: figure, before, value, low, high, n, clusters, meaning, in the exam's order.

    The two sides of a pair are one row: `before`, and `value` after teaching.
    """
    import pandas

    return pandas.DataFrame(_figures(summary), columns=["figure", *_NUMBERS, "meaning"])


_NUMBERS: Final = ("before", "value", "low", "high", "n", "clusters")


def _figures(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    from instil.report.cards import paired_figures
    from instil.report.words import figure_meaning, table_of_figures

    paired = paired_figures(summary["headline"])
    names = [row["name"] for row in table_of_figures(paired)]
    return [
        {"figure": name, **{key: paired[name].get(key) for key in _NUMBERS}, "meaning": figure_meaning(name)}
        for name in names
    ]


def picture(summary: Mapping[str, Any]) -> plotly.graph_objects.Figure:
    """The shares of the headline with their intervals: hollow before teaching, filled after.

    Raises:
        InputError: plotly is not installed.
    """
    go = _plotly()
    rows = [row for row in _figures(summary) if row["figure"] in SHARES and row["value"] is not None][::-1]
    names = [f"{row['figure'].replace('_', ' ')}, n = {row['n'] or 0:,}" for row in rows]
    after = [row["value"] for row in rows]
    reach = {
        "type": "data",
        "symmetric": False,
        "array": [0 if row["high"] is None else row["high"] - row["value"] for row in rows],
        "arrayminus": [0 if row["low"] is None else row["value"] - row["low"] for row in rows],
    }
    ink, edge = CATEGORY_COLOURS["HighlyKnown"][0], SURFACE["edge"][0]
    hollow = {"size": 11, "color": "#ffffff", "line": {"color": edge, "width": 2}}
    filled = {"size": 11, "color": ink}
    dots = [
        go.Scatter(name="before", x=[row["before"] for row in rows], y=names, mode="markers", marker=hollow),
        go.Scatter(name="after", x=after, y=names, mode="markers", marker=filled, error_x=reach),
    ]
    level = ((summary.get("config") or {}).get("exam") or {}).get("level", 0.95)
    layout = go.Layout(
        title=escape(f"{summary['method']} on {summary['model']['name']}, {level:.0%} intervals"),
        xaxis={"tickformat": ".0%", "range": [0, 1]},
        yaxis={"automargin": True},
        height=180 + 34 * len(rows),
    )
    return go.Figure(dots, layout)


def _plotly() -> Any:
    try:
        import plotly.graph_objects
    except ImportError as fault:
        raise InputError("a plot needs the package plotly", expected="pip install 'instil[plot]'") from fault
    return plotly.graph_objects
