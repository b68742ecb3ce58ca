"""Models and examples that the training tests share."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

from instil.model.language import LanguageModel
from instil.training import Example, Meter, TrainConfig, train
from tests.models import tiny_model

# Each run collects garbage once; what the libraries made at import is not garbage and need not be looked at again.
gc.freeze()


def learner(family: str = "llama", seed: int = 0, **changes: Any) -> LanguageModel:
    return LanguageModel.of(*tiny_model(family, seed, **changes))


def made_up(count: int, *, seed: int = 0, shortest: int = 4, longest: int = 40, vocabulary: int = 512) -> list[Example]:
    """Random token sequences with one to six target tokens at their end."""
    draw = random.Random(seed)
    examples = []
    for number in range(count):
        ids = tuple(draw.randrange(3, vocabulary) for _ in range(draw.randint(shortest, longest)))
        answer = min(draw.randint(1, 6), len(ids) - 1)
        examples.append(Example(ids, (*[-100] * (len(ids) - answer), *ids[-answer:]), f"fact {number}"))
    return examples


def settings(**changes: Any) -> TrainConfig:
    """A short fp32 run that saves at every epoch."""
    base = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 8, "precision": "fp32", "save_seconds": 0.0}
    return TrainConfig(**(base | changes))


def weights(lm: LanguageModel) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def trained(
    out: Path, config: TrainConfig, *, lm: LanguageModel | None = None, examples: Any = None, **rest: Any
) -> Any:
    """`train` with the usual model and examples; gives the result."""
    lm = lm if lm is not None else learner()
    rest.setdefault("meter", Meter())
    return train(lm, examples if examples is not None else made_up(24), config, out=out, **rest)
