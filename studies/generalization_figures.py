"""From the runs of the study of generalization to its figures: shares with intervals, paired differences, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from instil.exam.statistics import DEFAULT, Figure, crossed

Run = Mapping[str, Any]
Runs = Mapping[tuple[str, int], Run]
"""By cell and world."""

KNOWN = 0.5


def right(row: Mapping[str, Any]) -> float:
    """Share of right greedy answers to a fact's three questions (one of them asked with twice the exemplar sets)."""
    return float(row["first"] + 2 * row["others"]) / 3


def worlds_of(runs: Runs, cell: str) -> list[int]:
    return [world for name, world in runs if name == cell]


def figure(runs: Runs, before: Mapping[str, Any], cell: str) -> dict[str, Any]:
    """What is told of one cell."""
    worlds = worlds_of(runs, cell)
    found = [runs[cell, world] for world in worlds]
    return {
        "worlds": worlds,
        "accuracy": over_facts([(world, right) for world in worlds], runs, cell).to_dict(),
        "first_wording": over_facts([(world, lambda row: row["first"]) for world in worlds], runs, cell).to_dict(),
        "kept": kept(runs, before, cell).to_dict(),
        "perplexity": perplexity(runs, before, cell).to_dict(),
        "flops": mean([run["flops"] for run in found]),
        "tokens": mean([run["tokens"] for run in found]),
        "seconds": mean([run["seconds"] for run in found]),
        "loss": mean([run["loss"] for run in found]),
        "move_cosine": mean([run["move_cosine"] for run in found]) if found[0]["move_cosine"] is not None else None,
        "curve": curve(found),
        "by_world": [mean([right(row) for row in run["questions"]]) for run in found],
    }


def over_facts(ways: Sequence[tuple[int, Any]], runs: Runs, cell: str) -> Figure:
    rows = [(world, row, value(row)) for world, value in ways for row in runs[cell, world]["questions"]]
    return crossed(
        [value for _, _, value in rows],
        [f"{world} {row['subject']}" for world, row, _ in rows],
        [world for world, _, _ in rows],
    )


def kept(runs: Runs, before: Mapping[str, Any], cell: str) -> Figure:
    """Of the facts about other people that the base knew, the share known afterwards."""
    values, subjects, seeds = [], [], []
    for world in worlds_of(runs, cell):
        for then, now in zip(before[str(world)]["known"], runs[cell, world]["known"], strict=True):
            assert then["fact"] == now["fact"], "the same facts in the same order"
            if then["p_greedy"] >= KNOWN:
                values.append(float(now["p_greedy"] >= KNOWN))
                subjects.append(then["subject"])
                seeds.append(world)
    return crossed(values, subjects, seeds)


def perplexity(runs: Runs, before: Mapping[str, Any], cell: str) -> Figure:
    """Of general text, as a multiple of the base's; worlds are resampled."""
    worlds = worlds_of(runs, cell)
    logs = [
        (runs[cell, world]["nll"] - before[str(world)]["nll"]) / before[str(world)]["nll_tokens"] for world in worlds
    ]
    found = crossed(logs, [0] * len(logs), worlds) if len(logs) > 1 else Figure(logs[0], None, None, 1, 1, "one world")
    return Figure(*(None if part is None else math.exp(part) for part in (found.value, found.low, found.high)),
                  n=found.n, clusters=found.clusters, reason=found.reason)  # fmt: skip


def difference(runs: Runs, first: str, second: str) -> dict[str, Any]:
    """Accuracy of `first` less that of `second`, fact by fact, in the worlds that both have.

    `at_least` is the lower end of the one-sided interval of 95 %.
    """
    worlds = [world for world in worlds_of(runs, first) if (second, world) in runs]
    values, subjects, seeds, base = [], [], [], []
    for world in worlds:
        for one, other in zip(runs[first, world]["questions"], runs[second, world]["questions"], strict=True):
            assert one["fact"] == other["fact"], "the same facts in the same order"
            values.append(right(one) - right(other))
            base.append(right(other))
            subjects.append(f"{world} {one['subject']}")
            seeds.append(world)
    found, share = crossed(values, subjects, seeds), mean(base)
    one_sided = crossed(values, subjects, seeds, replace(DEFAULT, level=0.9)).low
    ends = {"value": found.value, "low": found.low, "high": found.high}
    return {
        "first": first,
        "second": second,
        "worlds": worlds,
        "points": found.to_dict(),
        "at_least": one_sided,
        "relative": {name: None if end is None else end / share for name, end in ends.items()} if share else None,
        "verdict": verdict(found),
    }


def together(runs: Runs, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The mean, fact by fact, of several differences in accuracy, over the worlds that all their cells have.

    `at_least` is the lower end of the one-sided interval of 95 %, `surely_at_least` that at a third of the error.
    """
    worlds = sorted(set.intersection(*(set(worlds_of(runs, cell)) for pair in pairs for cell in pair)))
    values, subjects, seeds = [], [], []
    for world in worlds:
        asked = [[runs[cell, world]["questions"] for cell in pair] for pair in pairs]
        for number, row in enumerate(asked[0][0]):
            rows = [(one[number], other[number]) for one, other in asked]
            assert all(each["fact"] == row["fact"] for pair in rows for each in pair), (
                "the same facts in the same order"
            )
            values.append(mean([right(one) - right(other) for one, other in rows]))
            subjects.append(f"{world} {row['subject']}")
            seeds.append(world)
    found = crossed(values, subjects, seeds)
    return {
        "pairs": [list(pair) for pair in pairs],
        "worlds": worlds,
        "points": found.to_dict(),
        "at_least": crossed(values, subjects, seeds, replace(DEFAULT, level=0.9)).low,
        "surely_at_least": crossed(values, subjects, seeds, replace(DEFAULT, level=1 - 2 * 0.05 / 3)).low,
        "verdict": verdict(found),
    }


def verdict(found: Figure) -> str:
    """What a difference with its interval says."""
    if found.low is None or found.high is None:
        return "no difference" if found.value == 0 else "no interval"
    return "higher" if found.low > 0 else "lower" if found.high < 0 else "no difference"


def curve(found: Sequence[Run]) -> list[dict[str, float]]:
    """The mean over worlds of what was seen at each part of the budget that all of them reached."""
    length = min(len(run["curve"]) for run in found)
    return [{key: mean([run["curve"][n][key] for run in found]) for key in found[0]["curve"][n]} for n in range(length)]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def compact(run: Run) -> dict[str, Any]:
    """A run with a digit a fact, the right answers of four, in the order of the world's facts (see `data`)."""
    return {
        **{name: value for name, value in run.items() if name not in ("job", "questions", "known")},
        "first": quarters([row["first"] for row in run["questions"]]),
        "others": quarters([row["others"] for row in run["questions"]]),
        "known": quarters([row["p_greedy"] for row in run["known"]]),
    }


def quarters(shares: Sequence[float]) -> str:
    """Shares of four answers as digits.

    >>> quarters([0.0, 0.25, 1.0])
    '014'

    Raises:
        ValueError: a share is not one of four.
    """
    if any(4 * one != round(4 * one) for one in shares):
        raise ValueError("a share that is not of four answers")
    return "".join(f"{round(4 * one)}" for one in shares)


def unquarters(digits: str) -> list[float]:
    """The inverse of `quarters`.

    >>> unquarters("014")
    [0.0, 0.25, 1.0]
    """
    return [int(digit) / 4 for digit in digits]


def asked_pairs(augmented: Sequence[str], optimisers: Sequence[str]) -> list[tuple[str, str]]:
    """Which cells are set against each other: every augmentation against plain documents under the same optimiser, and
    under every augmentation the second and third optimiser against the first, and the third against the second."""
    half, whole, sam = optimisers
    pairs = [(f"{name}, {how}", f"plain, {how}") for how, name in product(optimisers, augmented) if name != "plain"]
    for name in augmented:
        pairs += [(f"{name}, {sam}", f"{name}, {whole}"), (f"{name}, {whole}", f"{name}, {half}")]
    return pairs
