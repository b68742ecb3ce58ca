"""A mastery map to look at: a figure, and the table that a notebook shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from instil.errors import InputError
from instil.probe.categories import Category
from instil.probe.tally import Tally, tallies

if TYPE_CHECKING:
    import plotly.graph_objects

    from instil.probe.mastery import MasteryMap

COLORS = ("#1b7837", "#7fbf7b", "#e0a458", "#b0b0b0")
"""Of the categories, best known first."""

SHOWN = 20
"""Relations in a notebook's table; the others are counted."""

_HEADS = ("relation", "facts", *Category, "known", "known, guesses not counted")


def figure(mastery: MasteryMap, relations: int) -> plotly.graph_objects.Figure:
    """One bar of category shares for all facts, and one for each of the largest relations.

    Raises:
        InputError: plotly is not installed, or there are no facts.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as fault:
        raise InputError("a plot needs the package plotly", expected="pip install 'instil[plot]'") from fault
    if not len(mastery):
        raise InputError("there is nothing to plot", found="a mastery map without facts")
    total, parts = tallies(mastery)
    shown = [total, *parts[:relations]] if len(parts) > 1 else parts
    names = [escape(_name(one)) for one in shown]
    bars = [
        go.Bar(
            name=str(category),
            y=list(range(len(shown))),
            x=[one.counts[category] / one.facts for one in shown],
            customdata=[[name, one.counts[category], one.facts] for name, one in zip(names, shown, strict=True)],
            hovertemplate="%{customdata[0]}: %{x:.1%} (%{customdata[1]:,} of %{customdata[2]:,}) "
            + category
            + "<extra></extra>",
            orientation="h",
            marker_color=color,
        )
        for category, color in zip(Category, COLORS, strict=True)
    ]
    some = f", the {relations} largest of {len(parts):,} relations" if len(parts) > relations else ""
    layout = go.Layout(
        barmode="stack",
        title=f"{total.facts:,} facts{some}",
        xaxis={"tickformat": ".0%", "range": [0, 1]},
        # By place and not by name: two relations may be shown alike.
        yaxis={"tickvals": list(range(len(shown))), "ticktext": names, "autorange": "reversed", "automargin": True},
        height=160 + 26 * len(shown),
    )
    return go.Figure(bars, layout)


def html(mastery: MasteryMap) -> str:
    """The map by relation as a table; what facts say is escaped."""
    total, parts = tallies(mastery)
    lines = [*parts[:SHOWN], total] if len(parts) > 1 else parts or [total]
    head = "".join(f"<th>{escape(head)}</th>" for head in _HEADS)
    body = "".join(f"<tr>{_cells(one)}</tr>" for one in lines)
    rest = f" · {len(parts) - SHOWN:,} more relations in <code>.by_relation()</code>" if len(parts) > SHOWN else ""
    warned = f" · {len(mastery.warnings):,} warnings in <code>.warnings</code>" if mastery.warnings else ""
    caption = f"<caption>Mastery of {total.facts:,} facts{rest}{warned}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(one: Tally) -> str:
    row = one.to_dict()
    shares = [_percent(row["known"]), _percent(row["known_without_guesses"])]
    numbers: Sequence[str] = [f"{one.facts:,}", *(f"{count:,}" for count in one.counts.values()), *shares]
    return f"<th>{escape(_name(one))}</th>" + "".join(f"<td>{number}</td>" for number in numbers)


def _name(one: Tally) -> str:
    return one.relation or "no relation"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
