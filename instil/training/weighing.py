"""Attention that changes from epoch to epoch: how often each example occurs, in proportion to weights given anew.

An epoch keeps its number of examples, and so of optimiser steps: what one fact gives up, others get. First `slots`
draws how often each example occurs, then `spread` deals the occurrences to the epoch's windows. Both are pure functions
of the weights, the seed and the epoch.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from numbers import Real
from typing import TYPE_CHECKING

from instil.errors import InputError
from instil.training.packing import window_sizes

if TYPE_CHECKING:
    from instil.training.config import TrainConfig
    from instil.training.examples import Example
    from instil.training.stopping import Progress

Weigh = Callable[["Progress"], Mapping[str, float]]
"""Gives each example's key a weight of at least 0 for the epoch to come; a key that is left out has weight 0.

Asked before the first epoch (`progress.epoch` is then 0) and after every whole epoch that another one follows, behind
`Watch` and `Stop`. Examples that share a key each have its weight. Where all weights are zero, nothing is left to learn
and the run ends.
"""


def slots(weights: Sequence[float], count: int, seed: int, epoch: int) -> list[int]:
    """Which examples fill the `count` places of an epoch, in proportion to their weights: systematic resampling.

    The examples lie in random order on a line, each as long as its share of the places; what lies under marks one place
    apart, the first at random, is taken. So each occurs as often as its share says, rounded down or up, and over seeds
    exactly so on average. The arithmetic is that of whole numbers: equal weights give each example once, not nearly.

    Args:
        weights: of each example, finite and at least 0.

    Returns:
        `count` indices into `weights`, in rising order, with repeats.

    Raises:
        ValueError: no weight is above 0.
    """
    parts = _in_whole_parts(weights)
    if not any(parts):
        raise ValueError("no weight is above zero")
    chance = random.Random(f"{seed} slots {epoch}")
    order = list(range(len(parts)))
    chance.shuffle(order)
    times = occurrences([parts[index] for index in order], count, chance.randrange(sum(parts)))
    return sorted(index for index, often in zip(order, times, strict=True) for _ in range(often))


def occurrences(parts: Sequence[int], count: int, offset: int) -> list[int]:
    """How many of `count` marks fall on each part of a line.

    Args:
        parts: lengths, in units of which the marks are sum(parts) / count apart.
        offset: where the first mark is, in such units times `count`; from 0 to sum(parts) - 1.
    """
    total = sum(parts)
    marks_before = [-((offset - count * end) // total) for end in (0, *accumulate(parts))]
    return [after - before for before, after in pairwise(marks_before)]


def _in_whole_parts(weights: Sequence[float]) -> list[int]:
    ratios = [float(weight).as_integer_ratio() for weight in weights]
    # Denominators of floats are powers of two, so the largest is a multiple of all.
    scale = max((denominator for _, denominator in ratios), default=1)
    return [numerator * (scale // denominator) for numerator, denominator in ratios]


def spread(places: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Deal the examples of one epoch to windows of nearly equal size; what occurs several times, to different windows.

    A window has an example twice only where it occurs more often than there are windows; every window then has it as
    often as any other, or once more. Examples that occur once fill what room is left, in the order in which
    `packing.epoch_windows` has them: where every example occurs once, the windows are the same.

    Args:
        places: indices of examples, with repeats.
        batch_size: most examples of a window.
    """
    chance = random.Random(f"{seed} epoch {epoch}")
    times = Counter(places)
    once = sorted(index for index, often in times.items() if often == 1)
    chance.shuffle(once)
    repeated = sorted(index for index, often in times.items() if often > 1)
    chance.shuffle(repeated)
    sizes = window_sizes(len(places), batch_size)
    windows: list[list[int]] = [[] for _ in sizes]
    dealer = _Dealer(sizes, chance)
    for index in repeated:
        for window in dealer.deal(times[index]):
            windows[window].append(index)
    rest = iter(once)
    return [(*window, *islice(rest, size - len(window))) for window, size in zip(windows, sizes, strict=True)]


class _Dealer:
    """Hands out places of windows, always where most room is left, and by chance among equals.

    The windows' sizes differ by one at most, and so does the room that is left in them, however much was dealt: that is
    why the last example to be dealt still finds as many different windows as it needs.
    """

    def __init__(self, sizes: Sequence[int], chance: random.Random) -> None:
        most = max(sizes)
        self._chance, self._count = chance, len(sizes)
        self._roomier = self._shuffled(window for window, size in enumerate(sizes) if size == most)
        self._tighter = [window for window, size in enumerate(sizes) if size < most]

    def deal(self, times: int) -> list[int]:
        """Windows for `times` occurrences of one example, each as often as any other or once more."""
        rounds, rest = divmod(times, self._count)
        return [*(window for _ in range(rounds) for window in range(self._count)), *self._different(rest)]

    def _different(self, times: int) -> list[int]:
        left = len(self._roomier) - times
        if left > 0:
            taken = self._roomier[left:]
            del self._roomier[left:]
            self._tighter += taken
            return taken
        taken, others = self._roomier, self._shuffled(self._tighter)
        more = others[: times - len(taken)]
        self._roomier, self._tighter = self._shuffled([*taken, *others[len(more) :]]), more
        return [*taken, *more]

    def _shuffled(self, windows: Iterable[int]) -> list[int]:
        order = list(windows)
        self._chance.shuffle(order)
        return order


def _is_weight(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < math.inf


def refuse_unfit(config: TrainConfig, examples: Sequence[Example]) -> None:
    """Raises `InputError` where weights would change an epoch's number of steps, or break the order asked for."""
    if config.batch_tokens is not None:
        raise InputError(
            "weights change which examples an epoch has, so the batch must be a number of examples",
            field="train.batch_tokens",
            found=str(config.batch_tokens),
            expected="train.batch_size",
        )
    phases = len({example.phase for example in examples})
    if phases > 1:
        raise InputError(
            "weights cannot be given to examples that come in a fixed order",
            field="phase",
            found=f"examples of {phases} phases",
            expected="one phase (a stage whose arrangement is shuffled)",
        )


def checked(answer: Mapping[str, float], keys: Iterable[str]) -> dict[str, float]:
    """The weights above zero by key, in the order of `keys`.

    Raises:
        InputError: a weight is negative or no finite number, or has a key that no example has.
    """
    known = list(dict.fromkeys(keys))
    if unknown := sorted(set(answer) - set(known)):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise InputError(
            "a weight for what is not trained on",
            field="weigh",
            found=", ".join(unknown[:3]) + more,
            expected="keys of the examples (of a fact its id)",
        )
    for key, weight in answer.items():
        if not _is_weight(weight):
            raise InputError(
                "a weight is wrong", field="weigh", found=f"{key}: {weight!r}", expected="a finite number of at least 0"
            )
    return {key: float(answer[key]) for key in known if answer.get(key, 0.0) > 0}
