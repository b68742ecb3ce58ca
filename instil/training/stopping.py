"""When training ends: what a `stop` function (and a `weigh`) sees, what it may answer, and the usual rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Decision:
    """The answer of a `stop` function at an epoch's end.

    Attributes:
        stop: end the training here.
        best: these are the best weights so far; the run ends with the last weights that were.
        score: what was measured, kept in the history that later calls see.
    """

    stop: bool = False
    best: bool = False
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Where training stands at an epoch's end, or before the first one.

    Attributes:
        epoch: epochs finished.
        step: optimiser steps taken.
        loss: mean over the epoch's steps; not a number (nan) before the first.
        tokens: tokens read so far, without padding.
        flops: operations the meter has counted under "training" in this run.
        seconds: seconds of training in this run.
        model: the model that was given to `train`, with its present weights, in evaluation mode.
        history: the decisions of the epochs before, oldest first. They survive a resume, so a `stop` function that
            decides from the history and the model alone decides the same in a resumed run.
        keys: of the examples that are trained on, each once: of a question its fact's id, of a document its original's.
    """

    epoch: int
    step: int
    loss: float
    tokens: int
    flops: float
    seconds: float
    model: Any
    history: tuple[Decision, ...] = ()
    keys: tuple[str, ...] = ()


Stop = Callable[[Progress], "Decision | bool"]

Watch = Callable[[Progress], None]
"""Looks at the model at an epoch's end, before `Stop` is asked, and changes nothing."""


def no_longer_improving(
    measure: Callable[[Any], float], *, patience: int = 2, smallest_gain: float = 0.0, higher_is_better: bool = True
) -> Stop:
    """Stop after `patience` epochs in which `measure(model)` did not beat the best one by more than `smallest_gain`.

    The best epoch is marked, so that its weights are the ones kept.
    """
    sign = 1.0 if higher_is_better else -1.0

    def stop(progress: Progress) -> Decision:
        score = float(measure(progress.model))
        best, waited = None, 0
        for earlier in (*(decision.score for decision in progress.history), score):
            if earlier is None:
                continue
            better = best is None or sign * earlier > sign * best + smallest_gain
            best, waited = (earlier, 0) if better else (best, waited + 1)
        return Decision(stop=waited >= patience, best=waited == 0, score=score)

    return stop
