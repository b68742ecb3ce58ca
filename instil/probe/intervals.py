"""Intervals of shares over facts that come in subjects."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z = 1.959964
"""Of a 95 % interval."""


@dataclass(frozen=True)
class Share:
    """A mean of values between 0 and 1 with its 95 % interval.

    Attributes:
        value: the mean.
        low: lower end of the interval.
        high: upper end.
        n: values.
        clusters: subjects, which are what was drawn.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def share(values: Sequence[float], clusters: Sequence[Hashable]) -> Share:
    """Wilson's interval at the effective number of independent values.

    That number is p (1 - p) over the variance of the mean between clusters (ratio estimator): facts of one subject that
    are known together count for less than facts of different subjects, and values between 0 and 1 for more.

    Raises:
        ValueError: no values, or not one cluster a value.
    """
    if not values:
        raise ValueError("no values")
    n = len(values)
    mean = math.fsum(values) / n
    sums: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    return _interval(mean, math.fsum(total * total for total in sums.values()), n, len(sums))


def share_of(values: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any]) -> Share:
    """`share` of arrays, for a million facts: values as float64, clusters as whole numbers from 0 on."""
    n = len(values)
    if not n:
        raise ValueError("no values")
    mean = math.fsum(values) / n
    present = np.bincount(clusters) > 0
    sums = np.bincount(clusters, weights=values - mean)[present]
    return _interval(mean, float(sums @ sums), n, len(sums))


def _interval(mean: float, squares: float, n: int, count: int) -> Share:
    """From the mean of `n` values and the summed squares of the `count` clusters' sums around it."""
    effective = float(count)
    if count > 1:
        variance = squares / n**2 * count / (count - 1)
        if variance > 0 and 0 < mean < 1:
            effective = mean * (1 - mean) / variance
    low, high = wilson(mean, effective)
    return Share(mean, low, high, n, count)


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's score interval for a share `p` of `n` values."""
    center = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(0.0, min(p, center - half)), min(1.0, max(p, center + half))
