"""Neurons added to a layer: each answers to one thing that the model reads, and is silent elsewhere.

A neuron of a layer's MLP is a key and a value: how far the layer's input points along the key decides how much of the
value is written into the stream (Geva et al. 2021, arXiv 2012.14913). Updates of weights that are there change what
every text is answered with, the more the more facts are taught, for in a layer's inputs no direction belongs to one
fact alone. A neuron whose key is a subject, and whose threshold others do not reach, changes what is said of that one
(T-Patcher; Huang et al. 2023, arXiv 2301.09785).

While they are trained, added neurons stand beside the MLP (`add`). Folded into it (`folded`) they make a wider model of
the same family, which any tool loads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.model.language import LanguageModel

ADDED = "added"
"""What added neurons are called in their MLP."""


@dataclass(frozen=True)
class Family:
    """How an MLP is built: the names of its layers, of its activation, and of its width in the model's config."""

    inner: str
    gate: str | None
    outer: str
    activation: str
    width: str


FAMILIES = (
    Family(inner="up_proj", gate="gate_proj", outer="down_proj", activation="act_fn", width="intermediate_size"),
    Family(inner="c_fc", gate=None, outer="c_proj", activation="act", width="n_inner"),
    Family(inner="dense_h_to_4h", gate=None, outer="dense_4h_to_h", activation="act", width="intermediate_size"),
)
"""Llama and its kin (Mistral, Qwen, Gemma), GPT-2, GPT-NeoX."""


@dataclass(frozen=True)
class Keys:
    """What the neurons of one layer answer to (N neurons, hidden size E).

    Attributes:
        gates_NE: a neuron's input is its row times the MLP's input: above zero where it is to answer.
        constant_E: times the MLP's input it is near 1; the gated families multiply by that.
        scale: of the values, such that one of length 1 in each entry is as large as the stream where the neuron
            answers.
        met: share of the questions that they are made from in which the subject's neuron answers.
    """

    layer: int
    gates_NE: Tensor
    constant_E: Tensor
    scale: float
    met: float = 1.0

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        numbers = {"layer": str(self.layer), "scale": repr(self.scale), "met": repr(self.met)}
        save_file({"gates": self.gates_NE.contiguous(), "constant": self.constant_E}, path, numbers)

    @staticmethod
    def load(path: Path) -> Keys:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            numbers, gates_NE, constant_E = file.metadata(), file.get_tensor("gates"), file.get_tensor("constant")
        return Keys(int(numbers["layer"]), gates_NE, constant_E, float(numbers["scale"]), float(numbers["met"]))


class Neurons(nn.Module):
    """Neurons beside an MLP; their values are 0 at first, so that nothing changes, and all that is trained of them.

    Args:
        like: a weight at whose precision and place they are.
    """

    def __init__(self, keys: Keys, activation: nn.Module, *, gated: bool, like: Tensor) -> None:
        super().__init__()
        count, hidden = keys.gates_NE.shape
        self.gates = _linear(keys.gates_NE, like)
        self.constant = _linear(keys.constant_E[None], like) if gated else None
        self.values = _linear(torch.zeros(hidden, count), like)
        self.scale = keys.scale
        self._activation = (activation,)  # the MLP's own: in a tuple it is no part of this one

    def forward(self, input_BTE: Tensor) -> Tensor:
        answers_BTN = self._activation[0](self.gates(input_BTE))
        if self.constant is not None:
            answers_BTN = answers_BTN * self.constant(input_BTE)
        output_BTE: Tensor = self.values(answers_BTN * self.scale)
        return output_BTE

    def train_values(self) -> None:
        """Let training move the values, and nothing else of them."""
        self.requires_grad_(False)
        self.values.requires_grad_(True)


def _linear(weight: Tensor, like: Tensor) -> nn.Linear:
    out, into = weight.shape
    made = nn.utils.skip_init(nn.Linear, into, out, bias=False, device=like.device, dtype=like.dtype)
    assert isinstance(made, nn.Linear)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def _beside(mlp: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + mlp.added(inputs[0])


def add(lm: LanguageModel, keys: Keys) -> int:
    """Put neurons beside the MLP of a layer, in place, and say how many.

    Raises:
        InputError: the model's MLPs are of no family that is known here, or the layer has added neurons already.
    """
    mlp, family = mlps(lm)[keys.layer]
    if hasattr(mlp, ADDED):
        raise InputError("the layer has added neurons already", field="layer", found=str(keys.layer))
    weight = getattr(mlp, family.outer).weight
    mlp.added = Neurons(keys, getattr(mlp, family.activation), gated=family.gate is not None, like=weight)
    mlp.register_forward_hook(_beside)
    return len(keys.gates_NE)


def takes_neurons(lm: LanguageModel) -> bool:
    """Whether neurons can be added to a model of this family."""
    try:
        return bool(mlps(lm))
    except InputError:
        return False


def mlps(lm: LanguageModel) -> list[tuple[Any, Family]]:
    """The MLP of each layer, in order, and how it is built.

    Raises:
        InputError: a layer has none of a known family, or several, or they are not equally wide.
    """
    depth = int(lm.model.config.num_hidden_layers)
    homes = [part for part in lm.model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    found = [list(_mlps_in(layer)) for layer in homes[0]] if homes else []
    widths = {width_of(mlp, family) for own in found for mlp, family in own}
    if not found or any(len(own) != 1 for own in found) or len(widths) != 1:
        raise InputError(
            "neurons cannot be added to this model",
            field="model",
            found=type(lm.model).__name__,
            expected="one MLP in each layer, equally wide, as Llama, Mistral, Qwen, Gemma, GPT-2 or GPT-NeoX have them",
        )
    return [own[0] for own in found]


def _mlps_in(layer: nn.Module) -> Iterator[tuple[Any, Family]]:
    for part in layer.modules():
        for family in FAMILIES:
            names = (family.inner, family.outer, family.activation, *([family.gate] if family.gate else []))
            if all(hasattr(part, name) for name in names):
                yield part, family


def width_of(mlp: Any, family: Family) -> int:
    """The number of neurons, without added ones."""
    inner = getattr(mlp, family.inner)
    return int(inner.weight.shape[1 if _is_transposed(inner) else 0])


def has_added(lm: LanguageModel) -> bool:
    return any(isinstance(part, Neurons) for part in lm.model.modules())


def folded(lm: LanguageModel) -> LanguageModel:
    """A copy in which added neurons are part of the MLPs; the model itself where it has none.

    All layers get as wide as the widest, with neurons that do nothing: a config has one width for all.
    """
    if not has_added(lm):
        return lm
    copied = replace(lm, model=copy.deepcopy(lm.model))
    own = mlps(copied)
    more = max(mlp.added.gates.out_features for mlp, _ in own if hasattr(mlp, ADDED))
    for mlp, family in own:
        _fold(mlp, family, more)
    family = own[0][1]
    setattr(copied.model.config, family.width, width_of(*own[0]))
    return copied


@torch.no_grad()
def _fold(mlp: Any, family: Family, more: int) -> None:
    added = getattr(mlp, ADDED, None)
    outer = getattr(mlp, family.outer)
    hidden = outer.weight.shape[1 if _is_transposed(outer) else 0]
    gates_NE, ups_NE = (outer.weight.new_zeros(more, hidden) for _ in range(2))
    values_EN = outer.weight.new_zeros(hidden, more)
    if added is not None:
        count = added.gates.out_features
        gates_NE[:count], values_EN[:, :count] = added.gates.weight, added.values.weight * added.scale
        if added.constant is not None:
            ups_NE[:count] = added.constant.weight
        delattr(mlp, ADDED)
        for key, hook in list(mlp._forward_hooks.items()):
            if hook is _beside:
                del mlp._forward_hooks[key]
    if family.gate is None:
        _widen(getattr(mlp, family.inner), gates_NE, inward=True)
    else:
        _widen(getattr(mlp, family.gate), gates_NE, inward=True)
        _widen(getattr(mlp, family.inner), ups_NE, inward=True)
    _widen(outer, values_EN.T, inward=False)
    if hasattr(mlp, "intermediate_size"):
        mlp.intermediate_size = width_of(mlp, family)


def _widen(linear: Any, more_NE: Tensor, *, inward: bool) -> None:
    """Give a linear layer more outputs (of an MLP's inner layer) or more inputs (of its outer one)."""
    transposed = _is_transposed(linear)
    axis = int(transposed) if inward else 1 - int(transposed)
    part = more_NE if axis == 0 else more_NE.T
    linear.weight = nn.Parameter(torch.cat([linear.weight, part.to(linear.weight)], axis), linear.weight.requires_grad)
    if inward and linear.bias is not None:
        none = linear.bias.new_zeros(len(more_NE))
        linear.bias = nn.Parameter(torch.cat([linear.bias, none]), linear.bias.requires_grad)
    inputs, outputs = linear.weight.shape if transposed else reversed(linear.weight.shape)
    if transposed:
        linear.nx, linear.nf = inputs, outputs
    else:
        linear.in_features, linear.out_features = inputs, outputs


def _is_transposed(linear: Any) -> bool:
    return type(linear).__name__ == "Conv1D"
