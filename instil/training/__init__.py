"""Training: packed examples in, trained weights out, every operation counted.

The names are imported when they are first used: most of them need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from instil.training.config import ADAPTERS, Budget, LoraSettings, OsfSettings, TrainConfig
from instil.training.examples import Example, count_split, document_examples, question_example
from instil.training.sharpness import SharpnessConfig
from instil.training.stages import Arrangement, Balance, Stage
from instil.training.stopping import Decision, Progress, Stop, no_longer_improving
from instil.training.weighing import Weigh

if TYPE_CHECKING:
    from instil.training.corrections import AwayFromKnown, Correction, PullToStart
    from instil.training.meter import Meter
    from instil.training.objectives import KLToStart, Objective
    from instil.training.run import TrainResult, train
    from instil.training.sparing import SparingKnown
    from instil.training.step import Step, plain_step

_LATER = {
    "AwayFromKnown": "corrections",
    "Correction": "corrections",
    "KLToStart": "objectives",
    "Meter": "meter",
    "Objective": "objectives",
    "PullToStart": "corrections",
    "SparingKnown": "sparing",
    "Step": "step",
    "TrainResult": "run",
    "plain_step": "step",
    "train": "run",
}

__all__ = [
    "ADAPTERS",
    "Arrangement",
    "AwayFromKnown",
    "Balance",
    "Budget",
    "Correction",
    "Decision",
    "Example",
    "KLToStart",
    "LoraSettings",
    "Meter",
    "Objective",
    "OsfSettings",
    "Progress",
    "PullToStart",
    "SharpnessConfig",
    "SparingKnown",
    "Stage",
    "Step",
    "Stop",
    "TrainConfig",
    "TrainResult",
    "Weigh",
    "count_split",
    "document_examples",
    "no_longer_improving",
    "plain_step",
    "question_example",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
