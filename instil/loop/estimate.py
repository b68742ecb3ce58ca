"""What a run would take, before it is started."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from instil.facts import Fact, Role
from instil.loop.states import AFTER, states_kept

if TYPE_CHECKING:
    from instil.loop.inputs import Inputs

SHARE_OF_MATMUL_RATE = 0.3
"""Of the measured rate of large matrix products, what training and probing of small models reach here or better."""


@dataclass(frozen=True)
class Estimate:
    """Time, memory and disk of a run. Rough: an upper bound for methods that stop early.

    Attributes:
        training_flops: 6 operations a weight and token, for all target facts and documents and all epochs.
        exam_flops: both exams and the probes that the method decides by.
        seconds: both at `rate` operations a second.
        memory_bytes: weights, gradients, optimizer state and one evaluation copy.
        disk_bytes: what is kept, and the checkpoints that exist while it is trained.
        kept_bytes: the states of the model that stay when the run is done.
    """

    training_tokens: int
    training_flops: float
    exam_flops: float
    rate: float
    seconds: float
    memory_bytes: int
    disk_bytes: int
    kept_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(inputs: Inputs, keep_states: str = AFTER, also_asked: Iterable[Fact] = ()) -> Estimate:
    """Estimate a run from its token counts and the rate of a matrix product measured here and now.

    Args:
        keep_states: see `instil.loop.states.KEEP`.
        also_asked: facts of earlier lessons, which the exam asks besides the lesson's own.
    """
    model = inputs.model.model
    weights = sum(parameter.numel() for parameter in model.parameters())
    saved_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    train = getattr(inputs.settings, "train", None)
    epochs = float(getattr(train, "epochs", 1))
    stages = 2 if inputs.method.name == "gradual" else 1

    taught = question_tokens(inputs, inputs.roles[Role.TARGET])
    if len(inputs.documents):
        taught = sum(len(inputs.model.prompts.text_ids(document.text)) for document in inputs.documents)
    training_tokens = round(taught * epochs * stages)
    asked = question_tokens(inputs, (fact for role, group in inputs.roles.items() for fact in group))
    asked += question_tokens(inputs, also_asked)
    passes = 2 + (2 if inputs.method.name == "gradual" else 0)
    exam_flops = 2.0 * weights * asked * inputs.probe.exemplar_sets * passes
    training_flops = 6.0 * weights * training_tokens
    rate = measured_rate(str(model.device), inputs.model.dtype) * SHARE_OF_MATMUL_RATE
    master, kept = weights * 4, states_kept(inputs, keep_states) * saved_bytes
    return Estimate(
        training_tokens=training_tokens,
        training_flops=training_flops,
        exam_flops=exam_flops,
        rate=rate,
        seconds=(training_flops + exam_flops) / rate,
        memory_bytes=master * 4 + 2 * saved_bytes,
        disk_bytes=kept + master * (3 + stages),
        kept_bytes=kept,
    )


def question_tokens(inputs: Inputs, facts: Iterable[Fact]) -> int:
    prompts = inputs.model.prompts
    return sum(len(prompts.question_ids(fact.question)) + len(prompts.answer_ids(fact.answers[0])) for fact in facts)


def measured_rate(device: str, dtype: Any, size: int = 1024, repeats: int = 5) -> float:
    """Floating-point operations a second of a square matrix product; the best of some repeats."""
    import torch

    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        float((left @ right)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
