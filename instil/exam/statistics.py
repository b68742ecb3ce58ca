"""Figures with intervals: bootstrap over subjects, and over seeds and subjects crossed. Needs numpy only.

Facts about one subject rise and fall together, so subjects are resampled, not facts (the cluster bootstrap). Where a
figure pools several seeds, seeds and subjects are resampled independently (the "pigeonhole" bootstrap of Owen 2007,
Annals of Applied Statistics 1:386, which errs on the wide side). Single-seed intervals are bias-corrected and
accelerated (BCa; Efron 1987, JASA 82:171); crossed ones are percentile intervals, widened for a small number of seeds
(`_few_seeds`): resampling three seeds shows less spread than three seeds have. Differences between runs, their
p-values and the correction over many of them are in `instil.exam.comparing`.

An interval is only given where resampling can show one. Otherwise the figure says why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

CHUNK_CELLS = 2_000_000
"""Resamples are drawn in chunks of about this many numbers, so that memory stays small."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval.

    Attributes:
        value: the figure; None when there is nothing to compute it from.
        low: lower end of the interval; None when there is none.
        high: upper end.
        n: facts (or texts) that it rests on.
        clusters: subjects (or texts) among them, which were resampled.
        reason: why the value or the interval is missing, or how the interval was made where not by resampling.
        before: the same figure before teaching, where it has one.
        after: the same figure after teaching, where `value` is something else.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    reason: str | None = None
    before: float | None = None
    after: float | None = None

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `reason`, `before` and `after` only where there is one."""
        row = {name: getattr(self, name) for name in ("value", "low", "high", "n", "clusters")}
        extra = {name: getattr(self, name) for name in ("reason", "before", "after")}
        return row | {name: value for name, value in extra.items() if value is not None}

    def complement(self) -> Figure:
        """1 - the figure, interval and all."""
        low = None if self.high is None else 1 - self.high
        high = None if self.low is None else 1 - self.low
        return replace(self, value=None if self.value is None else 1 - self.value, low=low, high=high)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how often to resample.
        level: of the interval.
        method: "bca" or "percentile".
        seed: of the resampling; the same data and seed give the same interval.
    """

    resamples: int = 10_000
    level: float = 0.95
    method: Literal["bca", "percentile"] = "bca"
    seed: int = 0


DEFAULT = Bootstrap()


def share(values: Iterable[bool | float], clusters: Iterable[Hashable], how: Bootstrap = DEFAULT) -> Figure:
    """The mean of values between 0 and 1, such as the share of facts that are known.

    When all of them are 0, or all 1, resampling would give an interval of no width, which claims too much. Then the
    exact binomial bound over the clusters is given (Clopper and Pearson), and `reason` says so.
    """
    found = list(map(float, values))
    figure = ratio(found, [1.0] * len(found), clusters, how)
    if figure.has_interval or figure.clusters < 2 or figure.value not in (0.0, 1.0):
        return figure
    bound = 1 - ((1 - how.level) / 2) ** (1 / figure.clusters)
    low, high = (0.0, bound) if figure.value == 0 else (1 - bound, 1.0)
    return replace(figure, low=low, high=high, reason="all facts agree: exact binomial bound over subjects")


def mean(values: Iterable[float], clusters: Iterable[Hashable], how: Bootstrap = DEFAULT) -> Figure:
    """The mean of any values."""
    found = list(map(float, values))
    return ratio(found, [1.0] * len(found), clusters, how)


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Iterable[Hashable], how: Bootstrap = DEFAULT
) -> Figure:
    """The mean of `first - second`, fact by fact: two runs, or after and before, over the same facts in one order.

    Raises:
        ValueError: the two are not of one length.
    """
    return mean([float(a) - float(b) for a, b in zip(first, second, strict=True)], clusters, how)


def perplexity(
    nll: Iterable[float], tokens: Iterable[int], texts: Iterable[Hashable], how: Bootstrap = DEFAULT
) -> Figure:
    """exp of the summed negative log-likelihood (nats) by the number of tokens, texts resampled."""
    figure = ratio(list(nll), [float(count) for count in tokens], texts, how)
    value, low, high = (None if part is None else math.exp(part) for part in (figure.value, figure.low, figure.high))
    return replace(figure, value=value, low=low, high=high)


def ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Iterable[Hashable], how: Bootstrap = DEFAULT
) -> Figure:
    """Sum of numerators by sum of denominators, clusters resampled with replacement.

    Args:
        numerators: one an item.
        denominators: one an item, not negative; ones give a mean.
        clusters: which items are resampled together, one label an item.
        how: resamples, level, method, seed.

    Raises:
        ValueError: the three are not of one length, or a number is not finite.
    """
    import numpy as np

    labels = list(clusters)
    totals, counts = _by_cluster(numerators, denominators, labels)
    number, groups = len(labels), len(totals)
    if not counts.sum() > 0:
        return Figure(None, None, None, number, groups, "nothing to measure")
    value = float(totals.sum() / counts.sum())
    if reason := _no_spread(totals, counts):
        return Figure(value, None, None, number, groups, reason)
    draws = cluster_draws(totals, counts, how.resamples, np.random.default_rng(how.seed))
    with np.errstate(invalid="ignore", divide="ignore"):
        leave_one_out = (totals.sum() - totals) / (counts.sum() - counts)
    low, high = _interval(draws, value, leave_one_out, how)
    return Figure(value, low, high, number, groups)


def crossed(
    values: Iterable[float],
    clusters: Iterable[Hashable],
    seeds: Iterable[Hashable],
    how: Bootstrap = DEFAULT,
) -> Figure:
    """The mean over several seeds, with seeds and subjects both resampled. For paired arms, give the differences.

    Args:
        values: one an item and seed.
        clusters: its subject.
        seeds: its seed. Seeds need not have the same items.
        how: resamples, level and seed; the interval is always a percentile interval, and takes into account that few
            seeds say little about their spread.

    With one seed the interval is over subjects only, and `reason` says so.
    """
    import numpy as np

    found, labels, runs = list(map(float, values)), list(clusters), list(seeds)
    if len(set(runs)) < 2:
        figure = mean(found, labels, how)
        return replace(figure, reason=figure.reason or "one seed: the interval is over subjects only")
    totals_SC, counts_SC = by_seed_and_cluster(found, labels, runs)
    groups = totals_SC.shape[1]
    value = float(totals_SC.sum() / counts_SC.sum())
    if reason := _no_spread(totals_SC.sum(0), counts_SC.sum(0)):
        return Figure(value, None, None, len(found), groups, reason)
    draws = crossed_draws(totals_SC, counts_SC, how.resamples, np.random.default_rng(how.seed))
    low, high = _percentiles(draws, (1 - how.level) / 2, (1 + how.level) / 2)
    return Figure(value, low, high, len(found), groups)


def in_words(name: str, first: Figure, second: Figure, difference: Figure, names: tuple[str, str] = ("A", "B")) -> str:
    """Two figures and their paired difference (`first - second`) as one sentence.

    >>> a, b = Figure(0.9, 0.85, 0.94, 200, 150), Figure(0.8, 0.75, 0.84, 200, 150)
    >>> in_words("retained", a, b, Figure(0.1, 0.05, 0.15, 200, 150))
    'Retained: 90.0 % for A, 80.0 % for B; A is higher by 5.0 to 15.0 points (n = 200).'
    >>> in_words("retained", a, b, Figure(0.1, -0.01, 0.2, 200, 150))
    'Retained: 90.0 % for A, 80.0 % for B; within noise: no difference (-1.0 to 20.0 points, n = 200).'
    """
    subject = name.replace("_", " ").capitalize()
    if first.value is None or second.value is None or difference.value is None:
        reason = first.reason or second.reason or difference.reason or "a figure is missing"
        return f"{subject}: cannot be compared ({reason})."
    share_like = not name.startswith("perplexity")
    one, other = (f"{100 * v:.1f} %" if share_like else f"{v:.2f}" for v in (first.value, second.value))
    both = f"{subject}: {one} for {names[0]}, {other} for {names[1]}"
    scale, unit, digits = (100, " points", 1) if share_like else (1, "", 2)
    if difference.low is None or difference.high is None:
        gap = f"{scale * difference.value:.{digits}f}{unit}"
        return f"{both}; the difference of {gap} has no interval ({difference.reason})."
    low, high = scale * difference.low, scale * difference.high
    if low <= 0 <= high:
        return f"{both}; within noise: no difference ({low:.{digits}f} to {high:.{digits}f}{unit}, n = {difference.n})."
    near, far = sorted((abs(low), abs(high)))
    way = "higher" if low > 0 else "lower"
    return f"{both}; {names[0]} is {way} by {near:.{digits}f} to {far:.{digits}f}{unit} (n = {difference.n})."


# -------------------------------------------------------------------- private


def _by_cluster(
    numerators: Sequence[float], denominators: Sequence[float], labels: Sequence[Hashable]
) -> tuple[Floats, Floats]:
    """Sums of both for each cluster, in order of first appearance: shapes (C,), (C,)."""
    import numpy as np

    if not len(numerators) == len(denominators) == len(labels):
        raise ValueError(f"{len(numerators)} numerators, {len(denominators)} denominators, {len(labels)} clusters")
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(label, len(places)) for label in labels], dtype=np.int64)
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise ValueError("a number is not finite")
    size = len(places)
    return np.bincount(index, above, size).astype(np.float64), np.bincount(index, below, size).astype(np.float64)


def by_seed_and_cluster(
    values: Sequence[float], labels: Sequence[Hashable], runs: Sequence[Hashable]
) -> tuple[Floats, Floats]:
    """Sums and counts for each seed and cluster: shapes (S, C), (S, C)."""
    import numpy as np

    run_index = {run: place for place, run in enumerate(dict.fromkeys(runs))}
    group_index = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    shape = (len(run_index), len(group_index))
    cells = [run_index[run] * shape[1] + group_index[label] for run, label in zip(runs, labels, strict=True)]
    totals, counts = _by_cluster(values, [1.0] * len(values), cells)
    totals_SC, counts_SC = np.zeros(shape), np.zeros(shape)
    order = list(dict.fromkeys(cells))
    totals_SC.flat[order], counts_SC.flat[order] = totals, counts
    return totals_SC, counts_SC


def _no_spread(totals: Floats, counts: Floats) -> str | None:
    import numpy as np

    if len(totals) == 1:
        return "one subject only: no interval"
    means = totals[counts > 0] / counts[counts > 0]
    return (
        "all values are equal: resampling shows no spread" if np.ptp(means) < 1e-12 * max(1.0, abs(means[0])) else None
    )


def cluster_draws(totals: Floats, counts: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """The ratio in each resample, shape (R,). Clusters with the same sums are drawn together as one kind, since what
    a resample sums to depends only on how often each kind is drawn: multinomial, and exact."""
    import numpy as np

    kinds, sizes = np.unique(np.stack([totals, counts], 1), axis=0, return_counts=True)
    number = len(totals)
    found = []
    if len(kinds) <= number // 8:
        for size in _chunks(resamples, len(kinds)):
            weights_RK = rng.multinomial(number, sizes / number, size=size).astype(np.float64)
            found.append((weights_RK @ kinds[:, 0]) / (weights_RK @ kinds[:, 1]))
    else:
        for size in _chunks(resamples, number):
            drawn_RC = rng.integers(0, number, size=(size, number))
            found.append(totals[drawn_RC].sum(1) / counts[drawn_RC].sum(1))
    return np.concatenate(found)


def crossed_draws(totals_SC: Floats, counts_SC: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """The mean in each resample of seeds and clusters, shape (R,); resamples without any item are left out.

    Args:
        totals_SC: sums by seed and cluster.
        counts_SC: items by seed and cluster.
        resamples: how many.
        rng: of the draws.
    """
    value = float(totals_SC.sum() / counts_SC.sum())
    return _few_seeds(_resampled(totals_SC, counts_SC, resamples, rng), value, totals_SC, counts_SC, rng)


def _resampled(totals_SC: Floats, counts_SC: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Seeds and clusters drawn independently; clusters with the same column are drawn as one (see `cluster_draws`)."""
    import numpy as np

    runs, groups = totals_SC.shape
    kinds, sizes = np.unique(np.concatenate([totals_SC, counts_SC]), axis=1, return_counts=True)
    together = len(sizes) <= groups // 2
    found = []
    for size in _chunks(resamples, len(sizes) if together else groups):
        weights_RS = rng.multinomial(runs, [1 / runs] * runs, size=size).astype(np.float64)
        if together:
            weights_RK = rng.multinomial(groups, sizes / groups, size=size).astype(np.float64)
            above, below = (((weights_RS @ part) * weights_RK).sum(1) for part in (kinds[:runs], kinds[runs:]))
        else:
            drawn_RC = rng.integers(0, groups, size=(size, groups))
            above, below = (
                np.take_along_axis(weights_RS @ part, drawn_RC, 1).sum(1) for part in (totals_SC, counts_SC)
            )
        found.append(above[below > 0] / below[below > 0])
    return np.concatenate(found)


def _few_seeds(draws: Floats, value: float, totals_SC: Floats, counts_SC: Floats, rng: np.random.Generator) -> Floats:
    """The draws, stretched about `value` to the spread of Student's t where seeds or clusters are few.

    The variance of the mean is that between seeds by their number plus that between clusters by theirs; its degrees of
    freedom are Satterthwaite's (1946, Biometrics Bulletin 2:110). Resampling S seeds shows only (S - 1) / S of the
    former, and none of the doubt about it. Each draw's distance is multiplied by sqrt(df / chi-squared(df)), so that
    normal draws become those of t; with many seeds and clusters nothing changes.
    """
    import numpy as np

    runs, groups = totals_SC.shape
    seed_means = totals_SC.sum(1) / np.maximum(counts_SC.sum(1), 1)
    residuals = totals_SC.sum(0) - value * counts_SC.sum(0)
    of_seeds = float(seed_means.var(ddof=1)) / runs
    of_clusters = float((residuals**2).sum()) / float(counts_SC.sum()) ** 2 * groups / (groups - 1)
    variance, spread = of_seeds + of_clusters, float(draws.std())
    if variance <= 0 or spread <= 0:
        return draws
    freedom = variance**2 / (of_seeds**2 / (runs - 1) + of_clusters**2 / (groups - 1))
    heavier = np.sqrt(freedom / rng.chisquare(freedom, len(draws)))
    return value + (draws - value) * max(1.0, math.sqrt(variance) / spread) * heavier


def _chunks(resamples: int, width: int) -> list[int]:
    step = max(1, min(resamples, CHUNK_CELLS // max(width, 1)))
    return [min(step, resamples - start) for start in range(0, resamples, step)]


def _interval(draws: Floats, value: float, leave_one_out: Floats, how: Bootstrap) -> tuple[float, float]:
    tails = ((1 - how.level) / 2, (1 + how.level) / 2)
    if how.method == "bca":
        tails = _bca_tails(draws, value, leave_one_out, tails)
    return _percentiles(draws, *tails)


def _bca_tails(draws: Floats, value: float, leave_one_out: Floats, tails: tuple[float, float]) -> tuple[float, float]:
    """Where BCa reads the resamples instead of at the plain tails; the plain ones when it cannot be computed."""
    normal, (bias, skew) = NormalDist(), bca_terms(draws, value, leave_one_out)
    ends = [bias + normal.inv_cdf(tail) for tail in tails]
    if any(skew * z >= 1 for z in ends):
        return tails
    return (normal.cdf(bias + ends[0] / (1 - skew * ends[0])), normal.cdf(bias + ends[1] / (1 - skew * ends[1])))


def bca_terms(draws: Floats, value: float, leave_one_out: Floats) -> tuple[float, float]:
    """Bias and acceleration of BCa; zeros, which leave the plain tails, when they cannot be computed."""
    import numpy as np

    # Figures of counts tie with many of their resamples: half of the ties count as below.
    below = float(np.mean(draws < value) + np.mean(draws == value) / 2)
    gaps = np.nanmean(leave_one_out) - leave_one_out[np.isfinite(leave_one_out)]
    spread = float((gaps**2).sum()) ** 1.5
    if not 0 < below < 1 or spread == 0:
        return 0.0, 0.0
    return NormalDist().inv_cdf(below), float((gaps**3).sum()) / (6 * spread)


def _percentiles(draws: Floats, low: float, high: float) -> tuple[float, float]:
    import numpy as np

    ends = np.quantile(draws, [low, high])
    return float(ends[0]), float(ends[1])
