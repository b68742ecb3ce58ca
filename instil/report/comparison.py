"""The page of a comparison: one self-contained file without scripts, from its `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.errors import InputError
from instil.files import read_sealed, write_text
from instil.report import page, words
from instil.report.comparison_picture import spending, style, trade_off
from instil.report.comparison_tables import table

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
)


def is_comparison(folder: str | Path) -> bool:
    """Whether a folder holds a comparison, finished or with failed runs."""
    try:
        summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("kind") == "comparison"


def build_comparison_report(folder: str | Path, summary: Mapping[str, Any] | None = None) -> Path:
    """Write `report.html` of a comparison, atomically.

    Args:
        folder: of the comparison.
        summary: the content of its `summary.json`, which is read otherwise.

    Raises:
        InputError: the folder holds no comparison, or its summary is not as it was written.
    """
    folder = Path(folder)
    if summary is None:
        if not is_comparison(folder):
            raise InputError("the folder holds no finished comparison", file=folder)
        summary = read_sealed(folder / "summary.json")
    path = folder / "report.html"
    write_text(path, render(summary or {}))
    return path


def render(summary: Mapping[str, Any]) -> str:
    """The page of a comparison's summary, as HTML."""
    return (
        page._environment()
        .get_template("comparison.html.j2")
        .render(
            data=summary,
            words=words,
            policy=POLICY,
            style=page._style() + style(),
            trade_off=trade_off(summary, alone=False),
            spending=spending(summary, alone=False),
            markdown=table(summary, "markdown"),
            figures=_figures(summary),
            settings=_settings(summary),
            as_points=_as_points,
            p_value=_p_value,
        )
        .lstrip()
    )


def _figures(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every headline figure of the runs, a row each with a cell an arm."""
    arms = [arm for arm in summary["arms"] if arm["runs"]]
    names = dict.fromkeys(name for arm in arms for name in arm["headline"])
    return [
        {
            "name": name.replace("_", " "),
            "share": _is_share(name, [arm["headline"].get(name) for arm in arms]),
            "cells": [arm["headline"].get(name) for arm in arms],
        }
        for name in names
    ]


def _is_share(name: str, cells: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether a figure is told in percent: it is no ratio, and lies between -1 and 1 in every run."""
    values = [value for cell in cells if cell for value in cell["by_seed"] if value is not None]
    return "perplexity" not in name and all(abs(value) <= 1 for value in values)


def _settings(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings in which the arms differ, dotted, a row each with a value an arm; "" where it has none."""
    flat = [_flat(arm["settings"]) for arm in summary["arms"]]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = [{"name": name, "values": [one.get(name, "") for one in flat]} for name in names]
    return [row | {"differs": len(set(row["values"])) > 1} for row in rows if row["name"] != "train.seed"]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False)
    return found


def _as_points(pair: Mapping[str, Any], low: str, high: str) -> str:
    """An interval of a difference of shares, in points."""
    if pair[low] is None or pair[high] is None:
        return "none"
    return f"{100 * pair[low]:+.1f} to {100 * pair[high]:+.1f}"


def _p_value(p: float | None) -> str:
    if p is None:
        return "none"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
