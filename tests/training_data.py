"""Models and examples that the training tests share."""

from __future__ import annotations

import gc
import json
import random
from pathlib import Path
from typing import Any

import torch

from instil.model.language import LanguageModel
from instil.training import Example, Meter, TrainConfig, no_longer_improving, plain_step, train
from instil.training.batches import Reading, collate, share_of_loss
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


class Killed(BaseException):
    """As a kill or Ctrl-C: nothing catches it."""


def killed_at(step: int) -> Any:
    """A step function that dies when it is called for the `step`-th time, counted from 1."""
    calls = 0

    def dying(model: Any, micro_batches: Any, loss: Any, **rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Killed
        return plain_step(model, micro_batches, loss, **rest)

    dying.__name__ = plain_step.__name__  # the same run, with an accident
    return dying


def assert_same_weights(found: Any, expected: Any) -> None:
    for name, weight in weights(expected).items():
        assert torch.equal(weights(found)[name], weight), name


def without_time(result: Any) -> dict[str, Any]:
    """All that a result says but its wall-clock times and folder."""
    plain = json.loads(json.dumps(result.to_dict()))
    for timed in (*plain["points"], *plain["cost"].values()):
        del timed["seconds"]
    return plain


def nll(lm: Any, examples: list[Example]) -> float:
    batch = collate([(n,) for n in range(len(examples))], examples, total_weight=1.0, pad_id=2)
    total = sum(example.targets for example in examples)
    with torch.no_grad():
        return float(share_of_loss(lm.model, batch, Reading())) / total


def improving_until(epoch: int) -> Any:
    return no_longer_improving(Scores(epoch), patience=2)


class Scores:
    """Rises until an epoch, then falls; knows the epoch only by how often it was asked in this run."""

    def __init__(self, best: int) -> None:
        self.best, self.asked = best, 0

    def __call__(self, model: Any) -> float:
        self.asked += 1
        torch.rand(3)  # a measurement may draw random numbers
        return -abs(self.asked - self.best)
