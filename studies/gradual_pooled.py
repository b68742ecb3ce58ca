"""Means with intervals over the facts of many runs of the study of gradual learning.

Intervals are of 95 %; seeds and subjects are both resampled, and a subject that several seeds drew is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from instil.exam import Figure, crossed
from instil.exam.statistics import DEFAULT, Bootstrap
from studies.gradual_measure import Look, mean

Run = Mapping[str, Any]
Seeds = Mapping[int, Run]
"""The runs of one arm, by seed."""

Value = Callable[[Run, Run], Sequence[float | None]]
"""From what was measured before, and a run, to a value for each fact of a part; None: not one of those meant."""

HOW = Bootstrap(resamples=2_000)
"""Of tables: there are some thousand figures. What arms are judged by is resampled five times as often."""


@dataclass(frozen=True)
class Measured:
    """One base.

    Attributes:
        before: what was measured before teaching, by seed.
        arms: the runs, by arm and seed.
        best: the final acquisition of the arm that acquires most.
    """

    before: Seeds
    arms: Mapping[str, Seeds]
    best: float


def over(base: Measured, runs: Seeds, part: str, value: Value, how: Bootstrap = HOW) -> Figure:
    """The mean of a value over the facts of a part, in all seeds of one arm."""
    return pooled(((seed, value(base.before[seed], run)) for seed, run in runs.items()), base, part, how)


def share_of(base: Measured, runs: Seeds, part: str, value: Value) -> Figure:
    """`over` for values from 0 to 1: of few facts the interval would leave that range."""
    found = over(base, runs, part, value)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def paired(base: Measured, first: Seeds, second: Seeds, part: str, value: Value) -> Figure:
    """The mean of the value of `first` less that of `second`, fact by fact, in the seeds that both have."""
    gaps = []
    for seed in sorted(first.keys() & second.keys()):
        sides = zip(*(value(base.before[seed], arm[seed]) for arm in (first, second)), strict=True)
        gaps.append((seed, [None if one is None or other is None else one - other for one, other in sides]))
    return pooled(gaps, base, part, DEFAULT)


def pooled(by_seed: Iterable[tuple[int, Sequence[float | None]]], base: Measured, part: str, how: Bootstrap) -> Figure:
    rows = [
        (one, group, seed)
        for seed, values in by_seed
        for one, group in zip(values, base.before[seed]["groups"][part], strict=True)
        if one is not None
    ]
    if not rows:
        return Figure(None, None, None, 0, 0, "nothing to measure")
    values, groups, seeds = zip(*rows, strict=True)
    return crossed(values, groups, seeds, how)


def change(base: Measured, runs: Seeds, part: str, right: Callable[[Look], list[float]], chosen: Value) -> Figure:
    """How much more of the chosen facts of a part is right at the end than before, with what was right at both."""

    def at_end(before: Run, run: Run) -> list[float | None]:
        return where(right(run["end"]), chosen(before, run))

    def at_start(before: Run, run: Run) -> list[float | None]:
        return where(right(before), chosen(before, run))

    def gained(before: Run, run: Run) -> list[float | None]:
        sides = zip(at_end(before, run), at_start(before, run), strict=True)
        return [None if now is None or was is None else now - was for now, was in sides]

    found = over(base, runs, part, gained)
    return replace(found, before=plain(base, runs, at_start), after=plain(base, runs, at_end))


def plain(base: Measured, runs: Seeds, value: Value) -> float | None:
    found = [one for seed, run in runs.items() for one in value(base.before[seed], run) if one is not None]
    return mean(found) if found else None


def where(values: Sequence[float], chosen: Sequence[float | None]) -> list[float | None]:
    """The values of those that are chosen, which is by anything but 0 and None."""
    return [one if wanted else None for one, wanted in zip(values, chosen, strict=True)]


def relative(base: Measured, first: Seeds, second: Seeds, value: Value) -> dict[str, Any] | None:
    """The first mean by the second, less one. The interval is that of the ratio's linear part, so that it allows for
    the doubt about both means; None where the second is 0."""
    above, below = plain(base, first, value), plain(base, second, value)
    if above is None or not below:
        return None
    ratio = above / below
    parts = []
    for seed in first:
        sides = zip(*(value(base.before[seed], arm[seed]) for arm in (first, second)), strict=True)
        parts.append((seed, [None if a is None or b is None else (a - ratio * b) / below for a, b in sides]))
    around = pooled(parts, base, "target", DEFAULT)
    ends = {
        name: None if end is None else ratio - 1 + end for name, end in (("low", around.low), ("high", around.high))
    }
    return {"value": ratio - 1, **ends}


def rounded(found: Any, digits: int = 5) -> Any:
    """Plain values for JSON: figures as their dictionaries, small numbers with so many decimals."""
    if isinstance(found, Figure):
        return rounded(found.to_dict(), digits)
    if isinstance(found, Mapping):
        return {str(name): rounded(one, digits) for name, one in found.items()}
    if isinstance(found, list | tuple):
        return [rounded(one, digits) for one in found]
    return round(found, digits) if isinstance(found, float) else found
