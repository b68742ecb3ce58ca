"""Learning curves: the stages table on one axis of optimiser steps, thinned where a screen could not show more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

MOST_POINTS = 400  # a stage; more would be closer together than the pixels of a chart


def learning_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Loss and development accuracy by stage.

    Returns:
        {"stages": [{"name", "facts", "start", "end", "epochs", "points": [[step, loss, epoch, learning rate]],
        "development": [[step, accuracy]], "mean_of": k}]}, where steps go on from stage to stage and each point is the
        mean of k consecutive rows (1: nothing was thinned).
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
    trained = [row for row in rows if row.get("loss") is not None]
    thinned, mean_of = _thinned(trained)
    facts = [row["facts"] for row in rows if row.get("facts") is not None]
    return {
        "name": name,
        "facts": facts[-1] if facts else None,
        "start": start,
        "end": offset + int(rows[-1]["step"]),
        "epochs": _rounded(rows[-1].get("epoch")),
        "mean_of": mean_of,
        "points": [[offset + point[0], *point[1:]] for point in thinned],
        "development": [
            [offset + int(row["step"]), _rounded(row["development_accuracy"])]
            for row in rows
            if row.get("development_accuracy") is not None
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
            group[-1].get("learning_rate"),
        ]
        for group in groups
    ]
    return points, mean_of


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
