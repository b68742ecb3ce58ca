"""The arithmetic of the agreement study: are hits binomial, and does a share of samples decide a category?"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from instil.exam.statistics import share

if TYPE_CHECKING:
    from torch import Tensor

BEYOND = (1.96, 3.0)
BORDERS = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99)
"""Lower borders of the groups of probabilities in which hits are added up."""
EXPECTED_LEAST = 5.0
"""Variance of the number of hits from which a prompt counts in the chi-square sum."""
BINS = 10


def calibration(
    p: Sequence[float], hits: Sequence[int], samples: Sequence[int], clusters: Sequence[Hashable], seed: int = 0
) -> dict[str, Any]:
    """Whether `hits` of `samples` are what binomial draws with probabilities `p` give, prompt by prompt.

    What is expected is computed from the binomial distribution itself and not from the normal one, which is wrong
    where hardly any hits are expected. One number of samples for all prompts.

    Args:
        p: exact probability of a hit, one a prompt.
        hits: of the samples, one a prompt.
        samples: the same number for every prompt.
        clusters: the subject of each prompt's fact; intervals resample these.
        seed: of the random part of the probability integral transform, which makes discrete figures comparable.

    Returns:
        `beyond`: share of prompts whose hits are more standard errors away, and the share expected;
        `chi_square`: of the prompts where at least `EXPECTED_LEAST` hits or misses vary, as its distance from its
        expectation in standard deviations; `uniform`: counts of the probability integral transform in `BINS` equal
        bins, with the p-value of their chi-square; `groups`: hits expected and found by size of `p`; `excess`: all hits
        less those expected, as a share of samples and in standard errors.

    Raises:
        ValueError: prompts with different numbers of samples.
    """
    import torch

    if len(set(samples)) != 1:
        raise ValueError(f"one number of samples is needed, not {sorted(set(samples))}")
    n = samples[0]
    p_N = torch.tensor(p, dtype=torch.float64).clamp(0, 1)
    hits_N = torch.tensor(hits, dtype=torch.float64)
    mass_NK = binomial(n, p_N)
    variance_N = n * p_N * (1 - p_N)
    gap_N = hits_N - n * p_N
    z_N = standardised(gap_N, variance_N)
    all_z_NK = standardised(torch.arange(n + 1)[None] - n * p_N[:, None], variance_N[:, None])
    beyond = {}
    for far in BEYOND:
        found = share((z_N.abs() > far).tolist(), clusters).to_dict()
        expected = float((mass_NK * (all_z_NK.abs() > far)).sum(1).mean())
        beyond[str(far)] = {**found, "expected": expected}
    return {
        "prompts": len(p),
        "samples": n,
        "beyond": beyond,
        "chi_square": chi_square(z_N, variance_N, p_N),
        "uniform": uniform(mass_NK, hits_N, seed),
        "groups": groups(p_N, hits_N, variance_N, n),
        "excess": {
            "value": float(gap_N.sum()) / (n * len(p)),
            "standard_errors": float(gap_N.sum() / variance_N.sum().clamp_min(1e-12).sqrt()),
        },
    }


def standardised(gap: Tensor, variance: Tensor) -> Tensor:
    """Distances in standard errors; where nothing can vary, 0 for the expected number and infinity for any other."""
    import torch

    exact = torch.where(gap.abs() < 1e-6, 0.0, torch.inf).to(gap.dtype)
    return torch.where(variance > 0, gap / variance.clamp_min(1e-300).sqrt(), exact)


def binomial(n: int, p_N: Tensor) -> Tensor:
    """Probabilities of 0 to n hits, shape (N, n + 1)."""
    import torch

    k = torch.arange(n + 1, dtype=torch.float64)
    ways = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    p = p_N[:, None]
    return (ways + torch.xlogy(k, p) + torch.special.xlog1py(n - k, -p)).exp()


def chi_square(z_N: Tensor, variance_N: Tensor, p_N: Tensor) -> dict[str, float]:
    """The sum of squared distances. Each has, for a binomial, expectation 1 and variance 2 + (1 - 6pq)/(npq)."""
    kept = variance_N >= EXPECTED_LEAST
    count = int(kept.sum())
    if not count:
        return {"prompts": 0, "value": 0.0, "standard_deviations": 0.0}
    total = float((z_N[kept] ** 2).sum())
    spread = float((2 + (1 - 6 * p_N[kept] * (1 - p_N[kept])) / variance_N[kept]).sum())
    return {"prompts": count, "value": total, "standard_deviations": (total - count) / math.sqrt(spread)}


def uniform(mass_NK: Tensor, hits_N: Tensor, seed: int) -> dict[str, Any]:
    """The place of each number of hits in its distribution, drawn evenly within its step: uniform if p is right."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    own_N = mass_NK.gather(1, hits_N.long()[:, None])[:, 0]
    below_N = mass_NK.cumsum(1).gather(1, hits_N.long()[:, None])[:, 0] - own_N
    place_N = (below_N + own_N * torch.rand(len(own_N), generator=chance, dtype=torch.float64)).clamp(0, 1 - 1e-12)
    counts = torch.bincount((place_N * BINS).long(), minlength=BINS).double()
    expected = len(hits_N) / BINS
    value = float(((counts - expected) ** 2).sum() / expected)
    p_value = float(torch.special.gammaincc(torch.tensor((BINS - 1) / 2), torch.tensor(value / 2)))
    return {"counts": [int(count) for count in counts], "chi_square": value, "p_value": p_value}


def groups(p_N: Tensor, hits_N: Tensor, variance_N: Tensor, n: int) -> list[dict[str, float]]:
    """Hits by size of the probability; small gaps of many prompts add up here."""
    found = []
    for low, high in zip(BORDERS, (*BORDERS[1:], math.inf), strict=True):
        inside = (p_N >= low) & (p_N < high)
        if not inside.any():
            continue
        expected, hits = float(n * p_N[inside].sum()), float(hits_N[inside].sum())
        spread = math.sqrt(float(variance_N[inside].sum()))
        away = (hits - expected) / spread if spread > 0 else 0.0
        found.append(
            {"from": low, "prompts": int(inside.sum()), "expected": expected, "hits": hits, "standard_errors": away}
        )
    return found


def miss_interval(hits: Sequence[int], samples: int, errors: float) -> tuple[float, float]:
    """Interval of - sum ln(1 - p_i), the exponent of "no sample is right", from `hits` of `samples` a prompt.

    Near the boundary of the protocol all p_i are small and the sum times `samples` is nearly a Poisson count; this is
    the score interval of its mean, `errors` standard errors wide to either side, with the binomials' own variance.
    """
    shares = [count / samples for count in hits]
    if max(shares) == 1:
        return math.inf, math.inf
    total = -math.fsum(math.log1p(-q) for q in shares)
    spread = math.fsum(q / (1 - q) for q in shares) / total if total else 1.0
    count, square = total * samples, errors * errors * spread
    half = math.sqrt(square * count + square * square / 4)
    return max(0.0, (count + square / 2 - half) / samples), (count + square / 2 + half) / samples


def decided(low: float, high: float, few: int) -> bool:
    """Whether the interval is on one side of where a hit among `few` samples a prompt is as likely as none."""
    boundary = math.log(2) / few
    return high < boundary or low > boundary
