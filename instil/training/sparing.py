"""A correction that moves a weight the less, the more known answers depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training.batches import collate, labelled_logits
from instil.training.examples import Example
from instil.training.layout import Layout
from instil.training.meter import Meter


class SparingKnown:
    """Slows every weight by its Fisher information on known answers.

    Every update Δw becomes Δw / (1 + F / (μ F̄)). F is the diagonal of the Fisher information at the model as training
    finds it: the mean, over known examples, of the squared gradient of the log-probability of an answer that is drawn
    from the model itself; F̄ is its mean over all trained weights. It is the diagonal of elastic weight consolidation
    (Kirkpatrick et al. 2017, 1612.00796, section 2), as a preconditioner and not as a penalty: nothing is drawn back,
    and a weight that no known answer depends on learns at full speed.

    Args:
        examples: known questions or texts; their target tokens are where the model is asked.
        softness: μ above. Large: hardly any correction; small: only what known answers do not need may change.
        seed: of the answers that are drawn.

    Raises:
        InputError: no examples, or a softness that is not above zero.
    """

    def __init__(self, examples: Sequence[Example], *, softness: float = 0.1, seed: int = 0) -> None:
        if not examples:
            raise InputError("there is no known text to spare", field="known", found="0 examples")
        if not softness > 0:
            raise InputError("the correction needs a softness", field="softness", found=f"{softness}", expected="> 0")
        self.examples, self.softness, self.seed = tuple(examples), softness, seed
        self._kept: dict[str, Tensor] = {}
        self._factors: dict[str, Tensor] = {}

    def describe(self) -> dict[str, Any]:
        ids = [example.input_ids for example in self.examples]
        return {"kind": "sparing_known", "softness": self.softness, "seed": self.seed, "examples": ids}

    def prepare(self, model: nn.Module, layout: Layout, meter: Meter, pad_id: int) -> None:
        found = fisher(model, self.examples, layout, meter, pad_id, self.seed)
        mean = sum(float(each.double().sum()) for each in found.values()) / sum(each.numel() for each in found.values())
        if not mean > 0:
            raise InputError("known answers depend on no trained weight", field="parameters", found="a Fisher of zero")
        self._factors = {name: slowed(each, self.softness * mean) for name, each in found.items()}

    def before(self, trained: Mapping[str, nn.Parameter]) -> None:
        self._kept = {name: weight.detach().clone() for name, weight in trained.items()}

    def after(self, trained: Mapping[str, nn.Parameter]) -> None:
        with torch.no_grad():
            for name, was in self._kept.items():
                trained[name].copy_(torch.addcmul(was, trained[name] - was, self._factors[name]))
        self._kept.clear()


def slowed(fisher: Tensor, scale: float) -> Tensor:
    """The share of an update that is left: 1 / (1 + F / scale), of the shape of F."""
    return 1 / (1 + fisher / scale)


def fisher(
    model: nn.Module, examples: Sequence[Example], layout: Layout, meter: Meter, pad_id: int, seed: int
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of each trained weight, by name; fp32, of the weights' shapes.

    For each example one answer is drawn, token by token behind the example's own, and the gradient of its
    log-probability is squared. The expectation over draws is the Fisher information of the teacher-forced answer.

    Raises:
        InputError: weights are sharded over processes.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if any(hasattr(weight, "device_mesh") for weight in weights.values()):
        raise InputError("updates of sharded weights cannot be corrected", field="correction", expected="one process")
    chance = torch.Generator().manual_seed(seed)
    found = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        with meter.counting(model, "teacher"):
            for index in range(len(examples)):
                batch = collate([(index,)], examples, total_weight=1.0, pad_id=pad_id).to(device)
                logits_NV = labelled_logits(model, batch, layout.reading)
                drawn_N1 = torch.multinomial(logits_NV.detach().softmax(-1).cpu(), 1, generator=chance).to(device)
                said = logits_NV.log_softmax(-1).gather(1, drawn_N1).sum()
                gradients = torch.autograd.grad(said, list(weights.values()), allow_unused=True)
                for total, gradient in zip(found.values(), gradients, strict=True):
                    if gradient is not None:
                        total.addcmul_(gradient, gradient, value=1 / len(examples))
    finally:
        model.train(was_training)
    return found
