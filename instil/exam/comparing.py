"""Differences between runs over the same facts: interval, p-value, correction over many, and a sentence.

One question is asked of two runs at the same facts (was it learned? was it lost?), so the difference is taken fact by
fact and seed by seed, and resampled as `instil.exam.statistics` does: subjects for one seed, seeds and subjects crossed
for several.

The p-value is that of the interval: p is the smallest level of significance at which the interval leaves out zero. So
the two never contradict each other, at any level.

Of many comparisons on one page some look real by chance. Holm's correction (1979, Scandinavian Journal of Statistics
6:65) keeps the probability that any sentence of a *family* claims a difference that is not there at 1 - level,
however the comparisons depend on each other. Each comparison's interval is given at the level at which it was tested,
so a claimed difference has an interval without zero, and one that is not claimed has zero in it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeVar

from instil.exam import statistics as st

if TYPE_CHECKING:
    from instil.exam.statistics import Floats

Key = TypeVar("Key", bound=Hashable)

FARTHEST = 4.5
"""Standard errors up to which BCa must be computable, or the plain percentiles are used throughout."""

DRAWS_IN_TAIL = 20
MOST_RESAMPLES = 200_000


@dataclass(frozen=True, eq=False)
class Difference:
    """The mean of `first - second` over facts (and seeds), with everything that its intervals and p-value come from.

    Attributes:
        value: the mean difference, between -1 and 1; None when there is nothing to compare.
        n: facts that are compared.
        clusters: subjects among them.
        seeds: seeds that both runs have.
        reason: why there is no value, no interval, or one of another kind.
        draws: the resampled means in rising order; None where resampling shows no spread.
        bias: of BCa; zero for crossed draws.
        skew: the acceleration of BCa; zero for crossed draws.
    """

    value: float | None
    n: int
    clusters: int
    seeds: int
    reason: str | None = None
    draws: Floats | None = None
    bias: float = 0.0
    skew: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Both ends at this level; None when there is no interval."""
        if self.value is None or (self.draws is None and (self.value == 0 or self.clusters < 2)):
            return None
        tail = (1 - level) / 2
        if self.draws is None:  # every subject shows the same difference: the exact bound of the sign test
            inner = abs(self.value) * (2 * tail ** (1 / self.clusters) - 1)
            return (inner, self.value) if self.value > 0 else (self.value, -inner)
        import numpy as np

        ends = np.quantile(self.draws, [self._read_at(tail), self._read_at(1 - tail)])
        return max(-1.0, float(ends[0])), min(1.0, float(ends[1]))

    @cached_property
    def p(self) -> float | None:
        """Two-sided p-value of no difference: the interval at level 1 - p just touches zero."""
        if self.value is None or (self.draws is None and self.clusters < 2 and self.value != 0):
            return None
        if self.draws is None:
            return 1.0 if self.value == 0 else min(1.0, 2 * 0.5**self.clusters)
        below, above = _around_zero(self.draws)
        return min(1.0, max(2 * min(self._tail_of(below), 1 - self._tail_of(above)), 2 / (len(self.draws) + 1)))

    def figure(self, level: float = 0.95) -> st.Figure:
        """The same as a plain figure, at one level."""
        low, high = self.interval(level) or (None, None)
        return st.Figure(self.value, low, high, self.n, self.clusters, self.reason)

    def _read_at(self, tail: float) -> float:
        """Where BCa reads the draws for a plain tail."""
        if tail <= 0 or tail >= 1:
            return min(max(tail, 0.0), 1.0)
        normal = NormalDist()
        z = self.bias + normal.inv_cdf(tail)
        return normal.cdf(self.bias + z / (1 - self.skew * z))

    def _tail_of(self, place: float) -> float:
        """The inverse of `_read_at`."""
        if place <= 0 or place >= 1:
            return min(max(place, 0.0), 1.0)
        normal = NormalDist()
        w = normal.inv_cdf(place) - self.bias
        if 1 + self.skew * w <= 0:
            return 0.0 if w < 0 else 1.0
        return normal.cdf(w / (1 + self.skew * w) - self.bias)


def difference(
    first: Sequence[float],
    second: Sequence[float],
    facts: Sequence[Hashable],
    clusters: Sequence[Hashable],
    seeds: Sequence[Hashable],
    how: st.Bootstrap = st.DEFAULT,
) -> Difference:
    """The paired difference of two runs.

    Args:
        first: one run's values, one a fact and seed.
        second: the other's, in the same order.
        facts: the fact of each value.
        clusters: its subject.
        seeds: its seed.
        how: resamples and seed of the resampling.

    Raises:
        ValueError: the five are not of one length, or a number is not finite.
    """
    import numpy as np

    gaps = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    if not len(gaps) == len(facts) == len(clusters) == len(seeds):
        raise ValueError(f"{len(gaps)} values, {len(facts)} facts, {len(clusters)} clusters, {len(seeds)} seeds")
    n, runs = len(set(facts)), len(set(seeds))
    if not gaps:
        return Difference(None, 0, 0, runs, "nothing to compare")
    totals_SC, counts_SC = st.by_seed_and_cluster(gaps, clusters, seeds)
    groups = totals_SC.shape[1]
    value = float(totals_SC.sum() / counts_SC.sum())
    plain = Difference(value, n, groups, runs)
    if groups < 2:
        return replace(plain, reason="one subject only: no interval")
    means = totals_SC[counts_SC > 0] / counts_SC[counts_SC > 0]
    if float(np.ptp(means)) < 1e-12:
        same = "no fact differs" if value == 0 else "every subject differs alike: exact bound of the sign test"
        return replace(plain, value=0.0 if abs(value) < 1e-12 else value, reason=same)
    rng = np.random.default_rng(how.seed)
    if runs > 1:
        return replace(plain, draws=np.sort(st.crossed_draws(totals_SC, counts_SC, how.resamples, rng)))
    totals, counts = totals_SC[0], counts_SC[0]
    draws = st.cluster_draws(totals, counts, how.resamples, rng)
    leave_one_out = (totals.sum() - totals) / (counts.sum() - counts)
    bias, skew = st.bca_terms(draws, value, leave_one_out)
    if any(skew * (bias + z) >= 1 or 1 + skew * z <= 0 for z in (-FARTHEST, FARTHEST)):
        bias, skew = 0.0, 0.0
    one = "one seed: the interval is over subjects only"
    return replace(plain, draws=np.sort(draws), bias=bias, skew=skew, reason=one)


def enough_resamples(comparisons: int, how: st.Bootstrap = st.DEFAULT) -> st.Bootstrap:
    """`how`, with as many resamples as the smallest tail of a family of so many comparisons needs."""
    tail = (1 - how.level) / (2 * max(comparisons, 1))
    needed = min(MOST_RESAMPLES, math.ceil(DRAWS_IN_TAIL / tail))
    return replace(how, resamples=max(how.resamples, needed))


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison within its family.

    Attributes:
        difference: what was compared.
        p: its own p-value.
        p_holm: corrected for the family.
        level: of the interval, at which this comparison was tested.
        low: lower end at that level; None when there is no interval.
        high: upper end.
        shown: whether a difference is shown: `p_holm` is below 1 - the family's level.
        family: how many comparisons were corrected together.
    """

    difference: Difference
    p: float | None
    p_holm: float | None
    level: float
    low: float | None
    high: float | None
    shown: bool
    family: int

    def to_dict(self, single: float = 0.95) -> dict[str, Any]:
        """Plain values; `single_low` and `single_high` are the interval at level `single`, not corrected."""
        one = self.difference
        alone = one.interval(single) or (None, None)
        row = {"value": one.value, "low": self.low, "high": self.high, "level": self.level}
        row |= {"single_low": alone[0], "single_high": alone[1], "p": self.p, "p_holm": self.p_holm}
        row |= {"shown": self.shown, "family": self.family}
        row |= {"n": one.n, "clusters": one.clusters, "seeds": one.seeds}
        return row | ({"reason": one.reason} if one.reason else {})


def holm(p: Sequence[float]) -> list[float]:
    """Corrected p-values, in the order given: the kth smallest of m is multiplied by m - k + 1, and none is below one
    that was smaller before."""
    adjusted, worst = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        worst = max(worst, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = worst
    return adjusted


def corrected(family: Mapping[Key, Difference], level: float = 0.95) -> dict[Key, Compared]:
    """Every comparison of a family, corrected by Holm. One without a p-value is no part of the family.

    Args:
        family: all comparisons that are told together.
        level: 1 - the probability that any of them claims a difference that is not there.
    """
    alpha = 1 - level
    with_p = {key: one.p for key, one in family.items() if one.p is not None}
    adjusted = dict(zip(with_p, holm(list(with_p.values())), strict=True))
    order = {key: place for place, key in enumerate(sorted(with_p, key=lambda key: with_p[key]))}
    size = len(with_p)
    claimed = sum(p < alpha for p in adjusted.values())

    def one(key: Key) -> Compared:
        found = family[key]
        # Holm stops at the first that is not shown: that one and all after it are tested at one and the same level.
        step = min(order.get(key, claimed), claimed, max(size - 1, 0))
        at = 1 - alpha / max(size - step, 1)
        low, high = found.interval(at) or (None, None)
        holm_p = adjusted.get(key)
        shown = holm_p is not None and holm_p < alpha
        return Compared(found, found.p, holm_p, at, low, high, shown, size)

    return {key: one(key) for key in family}


# ------------------------------------------------------------------ sentences


def learned_words(found: Compared, first: str, second: str) -> str:
    """Of one comparison of what was learned.

    >>> gap = Difference(0.075, 500, 400, 3)
    >>> learned_words(Compared(gap, 0.001, 0.004, 0.98, 0.062, 0.088, True, 4), "A", "B")
    'A learned 31 to 44 more facts of 500 than B'
    """
    one = found.difference
    if one.value is None or found.low is None or found.high is None:
        return f"{_missing(one, found)} of what {first} and {second} learned"
    if not found.shown:
        reach = _reach(found, "fewer", "more")
        return f"no difference can be shown in what {first} and {second} learned ({first}: {reach})"
    count, word = _counted(found, "more", "fewer")
    return f"{first} learned {count} {word} {_facts(one.n)} than {second}"


def lost_words(found: Compared, first: str, second: str) -> str:
    """Of one comparison of what was known before and lost."""
    one = found.difference
    if one.value is None or found.low is None or found.high is None:
        return f"{_missing(one, found)} of what {first} and {second} lost"
    if not found.shown:
        reach = _reach(found, "fewer", "more")
        return f"no difference can be shown in what {first} and {second} lost of what was known ({first}: {reach})"
    count, word = _counted(found, "more", "fewer")
    return f"{first} lost {count} {word} {_facts(one.n, 'known ')} than {second}"


def _missing(one: Difference, found: Compared) -> str:
    if one.value is None:
        return f"nothing can be said ({one.reason})"
    if one.value == 0 and one.draws is None and one.clusters > 1:
        return f"no difference can be shown (none at any of {one.n:,} facts)"
    return f"no interval can be given ({one.reason}, n = {one.n:,})"


def _facts(n: int, kind: str = "") -> str:
    return f"{kind}facts of {n:,}"


def _counted(found: Compared, more: str, fewer: str) -> tuple[str, str]:
    """The interval as a number of facts, its smaller end first, and the word for its direction."""
    assert found.low is not None and found.high is not None
    near, far = sorted((abs(found.low), abs(found.high)))
    low, high = _round(near * found.difference.n), _round(far * found.difference.n)
    return (f"about {high}" if low == high else f"{low} to {high}"), more if found.low > 0 else fewer


def _reach(found: Compared, fewer: str, more: str) -> str:
    assert found.low is not None and found.high is not None
    n = found.difference.n
    low, high = _round(-min(found.low, 0) * n), _round(max(found.high, 0) * n)
    return f"{low} {fewer} to {high} {more} of {n:,} facts"


def _round(count: float) -> str:
    """Whole facts; below one, what is not nothing stays visible."""
    return f"{count:,.0f}" if count >= 0.95 or count < 0.05 else f"{count:.1f}"


def _around_zero(draws: Floats) -> tuple[float, float]:
    """Places between 0 and 1 at which the quantiles of sorted draws leave zero: the last at most zero, the first at
    least zero."""
    import numpy as np

    last = len(draws) - 1
    below, above = int(np.searchsorted(draws, 0.0, "right")) - 1, int(np.searchsorted(draws, 0.0, "left"))
    if below >= 0 and draws[below] < 0 and below < last:
        crossing = below + float(-draws[below] / (draws[below + 1] - draws[below]))
        return crossing / last, crossing / last
    return max(below, 0) / last, min(above, last) / last
