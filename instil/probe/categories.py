"""The four categories of mastery (SliCK, section 2.1) from exact probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum


class Category(StrEnum):
    """How well a fact is known, from `HighlyKnown` (rank 3) to `Unknown` (rank 0)."""

    HIGHLY_KNOWN = "HighlyKnown"
    MAYBE_KNOWN = "MaybeKnown"
    WEAKLY_KNOWN = "WeaklyKnown"
    UNKNOWN = "Unknown"

    @property
    def rank(self) -> int:
        return 3 - tuple(Category).index(self)


def categorise(p_greedy: float, p_any: float) -> Category:
    """HighlyKnown: every prompt's greedy answer is right; MaybeKnown: some prompt's; WeaklyKnown: none, but the sampled
    protocol is at least as likely as not to see a right sample; Unknown: it is not.

    Args:
        p_greedy: share of exemplar sets whose greedy answer is right.
        p_any: probability that the sampled protocol sees at least one right answer.

    Raises:
        ValueError: a probability outside 0 to 1, or not a number.
    """
    for value in (p_greedy, p_any):
        if not 0 <= value <= 1:
            raise ValueError(f"not a probability: {value}")
    if p_greedy == 1:
        return Category.HIGHLY_KNOWN
    if p_greedy > 0:
        return Category.MAYBE_KNOWN
    return Category.WEAKLY_KNOWN if p_any >= 0.5 else Category.UNKNOWN


def any_of(probabilities: Iterable[float], samples: int) -> float:
    """1 - prod (1 - p_i)^samples: the probability of at least one hit in `samples` draws from each p_i.

    Computed in logarithms, so that many small probabilities do not vanish. Source: Hayes et al., arXiv 2410.19482.
    """
    missed = 0.0
    for p in probabilities:
        if p >= 1:
            return 1.0 if samples > 0 else 0.0
        missed += samples * math.log1p(-max(p, 0.0))
    return -math.expm1(missed)
