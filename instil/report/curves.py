"""Learning curves: the stages table on one axis of optimiser steps, thinned where a screen could not show more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

MOST_POINTS = 400  # a stage; more would be closer together than the pixels of a chart


def learning_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Loss and development accuracy by stage.

    Returns:
        {"stages": [{"name", "facts", "start", "end", "epochs", "points": [[step, loss, epoch, learning rate]],
        "development": [[step, accuracy]], "mean_of": k, "not_finite": n}]}, where steps go on from stage to stage, each
        point is the mean of k consecutive rows (1: nothing was thinned), and n losses were not finite, so not drawn.
    """
    stages: list[dict[str, Any]] = []
    start = 0
    for name, content in _by_stage(rows).items():
        stage = _stage(name, content, start)
        stages.append(stage)
        start = stage["end"]
    return {"stages": stages}


def _by_stage(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        stages.setdefault(str(row["stage"]), []).append(row)
    return {name: sorted(content, key=lambda row: row["step"]) for name, content in stages.items()}


def _stage(name: str, rows: Sequence[Mapping[str, Any]], start: int) -> dict[str, Any]:
    # A ledger may count steps on through the stages; a chart that adds the stages up must not count them twice.
    offset = 0 if rows[0]["step"] > start > 0 else start
    trained = [row for row in rows if _is_number(row.get("loss"))]
    thinned, mean_of = _thinned(trained)
    facts = [row["facts"] for row in rows if row.get("facts") is not None]
    return {
        "name": name,
        "facts": facts[-1] if facts else None,
        "start": start,
        "end": offset + int(rows[-1]["step"]),
        "epochs": _rounded(rows[-1].get("epoch")),
        "mean_of": mean_of,
        "not_finite": sum(row.get("loss") is not None for row in rows) - len(trained),
        "points": [[offset + point[0], *point[1:]] for point in thinned],
        "development": [
            [offset + int(row["step"]), _rounded(row["development_accuracy"])]
            for row in rows
            if _is_number(row.get("development_accuracy"))
        ],
    }


def _thinned(rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[Any]], int]:
    mean_of = max(1, -(-len(rows) // MOST_POINTS))
    groups = [rows[place : place + mean_of] for place in range(0, len(rows), mean_of)]
    points = [
        [
            int(group[-1]["step"]),
            _rounded(fmean(row["loss"] for row in group)),
            _rounded(group[-1].get("epoch")),
            group[-1]["learning_rate"] if _is_number(group[-1].get("learning_rate")) else None,
        ]
        for group in groups
    ]
    return points, mean_of


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _rounded(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and math.isfinite(value) else None
