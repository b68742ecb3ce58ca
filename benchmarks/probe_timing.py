"""Rates measured in turn, their ratios round by round, and what else the machine was doing."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Rate = Callable[[], float]
"""Does its work once and returns how many units of it a second took."""

RESAMPLES = 2000
BUSY = 0.1
"""Cores that others may keep busy before the figures carry a warning."""


def timed(work: Callable[[], float]) -> Rate:
    """Make a rate of something that returns how many units it has done."""

    def rate() -> float:
        begin = time.perf_counter()
        units = work()
        finished()
        return units / (time.perf_counter() - begin)

    return rate


def finished() -> None:
    """Wait for an accelerator, which works on while Python goes ahead."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleave(contestants: Mapping[str, Rate], rounds: int, tell: Callable[[str], None]) -> dict[str, list[float]]:
    """Every contestant once a round; another one begins each round, so that no one always follows the same one."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(rounds):
        start = turn % len(names)
        for name in (*names[start:], *names[:start]):
            found[name].append(contestants[name]())
        tell(f"  round {turn + 1}: " + ", ".join(f"{name} {shown(rates[-1])}" for name, rates in found.items()))
    return found


def shown(value: float) -> str:
    return f"{value / 1e12:.3g} T" if value >= 1e11 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Median of the paired ratios with a 95 % interval by resampling the rounds."""
    paired = [one / other for one, other in zip(ours, theirs, strict=True)]
    chance = random.Random(seed)
    medians = sorted(statistics.median(chance.choices(paired, k=len(paired))) for _ in range(RESAMPLES))
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    return {"value": statistics.median(paired), "low": low, "high": high, "n": len(paired), "rounds": paired}


def best_of(sizes: Sequence[int], rate_of: Callable[[int], Rate]) -> tuple[int, dict[str, float]]:
    """The size with the highest rate, tried once each; all rates by size."""
    rates = {size: rate_of(size)() for size in sizes}
    return max(rates, key=lambda size: rates[size]), {str(size): rate for size, rate in rates.items()}


@dataclass
class Load:
    """What the rest of the machine did meanwhile.

    Attributes:
        others: cores that other processes kept busy, on average; None where the system does not say.
        seconds: of the time watched.
    """

    others: float | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 1), "cores_busy_with_other_work": self.others}


@contextmanager
def watched_load() -> Iterator[Load]:
    load = Load()
    before, own, begin = busy_seconds(), own_seconds(), time.perf_counter()
    yield load
    after = busy_seconds()
    load.seconds = time.perf_counter() - begin
    if before is not None and after is not None:
        load.others = round(max(0.0, after - before - (own_seconds() - own)) / load.seconds, 3)


def own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def busy_seconds() -> float | None:
    """Processor time of all processes since the machine started."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    # user, nice, system, then idle and iowait, which are not work, then interrupts and what the host took away.
    ticks = [int(field) for field in fields[:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
