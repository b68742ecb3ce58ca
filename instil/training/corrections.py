"""Corrections: what the optimiser has just done to the weights, changed before the next step sees it.

A method that wants old knowledge left alone can forbid directions (`AwayFromKnown`) or draw the weights back
(`PullToStart`). Both act on the finished update, whatever the optimiser made of the gradient: AdamW scales small
gradients up, so a gradient without a direction does not give an update without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training.batches import collate, labelled_logits, output_layer
from instil.training.examples import Example
from instil.training.layout import Layout
from instil.training.meter import Meter
from instil.training.packing import alone, deal


class Correction(Protocol):
    """Something that is done to every update.

    `prepare` runs once, on the model as training finds it. `before` is shown the trained weights by name before the
    optimiser moves them, `after` changes them behind it, in place. A resumed run prepares anew, from the same model.
    """

    def prepare(self, model: nn.Module, layout: Layout, meter: Meter, pad_id: int) -> None: ...

    def before(self, trained: Mapping[str, nn.Parameter]) -> None: ...

    def after(self, trained: Mapping[str, nn.Parameter]) -> None: ...

    def describe(self) -> dict[str, Any]:
        """What makes a run with this correction differ from one without, for the run's fingerprint."""


class AwayFromKnown:
    """Takes out of every update what would change the layers' outputs on known texts.

    A linear layer W (out × in) that reads inputs x on known texts, with second moment C = E[x xᵀ], changes its output
    there by ΔW x, in all tr(ΔW C ΔWᵀ). Every update becomes ΔW (I + C / (μ c̄))⁻¹ with c̄ = tr(C) / in: directions in
    which known texts have much variance are left alone, those in which they have little stay as they are. After the
    null-space form of Adam (Wang et al. 2021, arXiv 2103.07113) and AlphaEdit (arXiv 2410.02355), softly.

    Weights that are no linear layer's (embeddings, norms) and biases are not corrected.

    Args:
        examples: known texts or questions, as examples; all their tokens count alike.
        softness: μ above. Large: hardly any correction; small: only what known texts do not use may change.

    Raises:
        InputError: no examples, or a softness that is not above zero.
    """

    def __init__(self, examples: Sequence[Example], *, softness: float = 0.1) -> None:
        if not examples:
            raise InputError("there is no known text to stay away from", field="known", found="0 examples")
        if not softness > 0:
            raise InputError("the correction needs a softness", field="softness", found=f"{softness}", expected="> 0")
        self.examples, self.softness = tuple(examples), softness
        self._meter: Meter | None = None
        self._kept: dict[str, Tensor] = {}
        self._damping: dict[str, Tensor] = {}
        self._transposed: set[str] = set()

    def describe(self) -> dict[str, Any]:
        ids = [example.input_ids for example in self.examples]
        return {"kind": "away_from_known", "softness": self.softness, "examples": ids}

    def prepare(self, model: nn.Module, layout: Layout, meter: Meter, pad_id: int) -> None:
        self._meter = meter
        moments = second_moments(model, self.examples, layout, meter, pad_id)
        self._damping = {f"{name}.weight": damping(moment_II, self.softness) for name, moment_II in moments.items()}
        modules = dict(model.named_modules())
        self._transposed = {f"{name}.weight" for name in moments if is_transposed(modules[name])}

    def before(self, trained: Mapping[str, nn.Parameter]) -> None:
        self._kept = {name: trained[name].detach().clone() for name in self._damping if name in trained}

    def after(self, trained: Mapping[str, nn.Parameter]) -> None:
        with torch.no_grad():
            for name, was in self._kept.items():
                change, damped_II = trained[name] - was, self._damping[name]
                trained[name].copy_(was + (damped_II @ change if name in self._transposed else change @ damped_II))
                if self._meter is not None:
                    self._meter.charge("training", 2.0 * was.numel() * len(damped_II))
        self._kept.clear()


class PullToStart:
    """Draws the weights back to where training found them: after every update w ← w − strength · (w − w₀).

    The decoupled form of L2-SP (Li et al. 2018, arXiv 1802.01483). Without any gradient the distance halves in
    ln 2 / strength steps.

    Raises:
        InputError: a strength outside 0 to 1.
    """

    def __init__(self, strength: float) -> None:
        if not 0 < strength < 1:
            raise InputError("a pull is a share", field="strength", found=f"{strength}", expected="between 0 and 1")
        self.strength = strength
        self._start: dict[str, Tensor] = {}

    def describe(self) -> dict[str, Any]:
        return {"kind": "pull_to_start", "strength": self.strength}

    def prepare(self, model: nn.Module, layout: Layout, meter: Meter, pad_id: int) -> None:
        self._start = {
            name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad
        }

    def before(self, trained: Mapping[str, nn.Parameter]) -> None:
        """Nothing to remember."""

    def after(self, trained: Mapping[str, nn.Parameter]) -> None:
        with torch.no_grad():
            for name, weight in trained.items():
                weight.lerp_(self._start[name], self.strength)


def damping(moment_II: Tensor, softness: float) -> Tensor:
    """(I + C / (μ c̄))⁻¹ of a second moment C (inputs × inputs), with c̄ its mean eigenvalue; fp32."""
    moment_II = moment_II.double()
    scale = softness * moment_II.diagonal().mean()
    identity_II = torch.eye(len(moment_II), dtype=torch.float64, device=moment_II.device)
    return torch.linalg.inv(identity_II + moment_II / scale).float()


def second_moments(
    model: nn.Module, examples: Sequence[Example], layout: Layout, meter: Meter, pad_id: int, micro_tokens: int = 4096
) -> dict[str, Tensor]:
    """For each linear layer with trained weights, by its name, the mean of x xᵀ over all tokens of the examples (fp64).

    The output layer is left out: where it is tied to the embeddings it is no layer of its own.

    Raises:
        InputError: no linear layer is trained, or weights are sharded over processes.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if is_linear(module) and module is not output_layer(model) and module.weight.requires_grad
    }
    if not layers:
        raise InputError("no linear layer is trained", field="parameters", expected="a correction needs one")
    if any(hasattr(module.weight, "device_mesh") for module in layers.values()):
        raise InputError("updates of sharded weights cannot be corrected", field="correction", expected="one process")
    sums: dict[str, Tensor] = {}
    real_BT = torch.zeros(0, 0, dtype=torch.bool)

    def add(name: str, inputs_BTI: Tensor) -> None:
        inputs_NI = inputs_BTI.reshape(*real_BT.shape, -1)[real_BT].double()
        sums[name] = sums.get(name, 0) + inputs_NI.T @ inputs_NI

    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: add(name, given[0]))
        for name, module in layers.items()
    ]
    was_training, device = model.training, next(model.parameters()).device
    lengths = [len(example) for example in examples]
    model.eval()
    try:
        with torch.no_grad(), meter.counting(model, "teacher"):
            for rows in deal(alone(range(len(examples)), lengths), lengths, micro_tokens).micro_batches:
                batch = collate(rows, examples, total_weight=1.0, pad_id=pad_id).to(device)
                ends_B1 = torch.tensor([[lengths[index] for index in row] for row in rows], device=device)
                real_BT = torch.arange(batch.ids_BT.shape[1], device=device) < ends_B1
                labelled_logits(model, batch, layout.reading)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return {name: total / sum(lengths) for name, total in sums.items()}


def is_linear(module: nn.Module) -> bool:
    """A linear layer, also GPT-2's, whose weight is the transpose."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"
