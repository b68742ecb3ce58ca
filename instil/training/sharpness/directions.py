"""Where the weights are moved to: a direction and a factor, for each kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training.sharpness.settings import SharpnessConfig
from instil.training.sharpness.tensors import is_sharded, norm, own, owned, plain_name, trainable

Momentum = Callable[[nn.Parameter], Tensor | None]
"""The optimiser's running mean of a parameter's gradients, once it has one."""


@dataclass(frozen=True)
class Push:
    """A move of some weights: each by `scale` times its direction.

    Attributes:
        parameters: the weights that are moved, as the model has them.
        direction: for each of them this rank's part of the direction, not normed.
        scale: what all directions are multiplied by.
    """

    parameters: Sequence[nn.Parameter]
    direction: Sequence[Tensor]
    scale: float


def moved_names(model: nn.Module, config: SharpnessConfig) -> frozenset[str]:
    """Names of the trained parameters that are to be moved.

    Raises:
        InputError: there are none.
    """
    names = list(trainable(model))
    if config.perturb == "all":
        chosen = names
    elif config.perturb == "norms":
        norms = set(_of_norm_layers(model))
        chosen = [name for name in names if name in norms]
    else:
        chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in config.perturb)]
    if not chosen:
        raise InputError(
            "no trained weight is to be moved", field="sharpness.perturb", found=str(config.perturb),
            expected="weights that are trained, such as " + ", ".join(names[:3]),
        )  # fmt: skip
    return frozenset(chosen)


def _of_norm_layers(model: nn.Module) -> Iterable[str]:
    for place, module in model.named_modules():
        if "norm" in type(module).__name__.lower():
            for name, _ in module.named_parameters(recurse=False):
                yield plain_name(f"{place}.{name}" if place else name)


@torch.no_grad()
def along_gradient(config: SharpnessConfig, names: Sequence[str], parameters: Sequence[nn.Parameter]) -> Push | None:
    """Along the gradient that the parameters hold now (which is used up); None where it is zero or no number.

    sam, looksam and functional: ρ g / ‖g‖ (Foret et al. 2021, 2010.01412, equation 2 for p = 2).
    asam: ρ T² g / ‖T g‖ with T = |w| + η for weights and 1 for biases (Kwon et al. 2021, 2102.11600, algorithm 1; where
    T is 1 follows the authors' code).
    """
    held = [(name, p, p.grad) for name, p in zip(names, parameters, strict=True) if p.grad is not None]
    moved = [p for _, p, _ in held]
    direction = owned([gradient for _, _, gradient in held])
    if config.kind == "asam":
        weights = [(own(p), part) for (name, p, _), part in zip(held, direction, strict=True) if "weight" in name]
        sizes = torch._foreach_abs([weight for weight, _ in weights])
        torch._foreach_add_(sizes, config.eta)
        scaled = [part for _, part in weights]
        torch._foreach_mul_(scaled, sizes)
        length = norm(direction, moved)
        torch._foreach_mul_(scaled, sizes)
    else:
        length = norm(direction, moved)
    return _push(moved, direction, config.rho, length)


@torch.no_grad()
def against_momentum(config: SharpnessConfig, parameters: Sequence[nn.Parameter], momentum: Momentum) -> Push | None:
    """-ρ m / ‖m‖ with m the optimiser's first moment (Becker et al. 2024, 2401.12033); None before there is one.

    The sign is the paper's, and its code's for AdamW: weights move on in the direction of their last steps, beyond the
    valley's floor. Adam's correction of m for its start is a factor, and falls out.
    """
    held = [(p, mean) for p in parameters if (mean := momentum(p)) is not None]
    moved, direction = [p for p, _ in held], owned([mean for _, mean in held])
    return _push(moved, direction, -config.rho, norm(direction, moved))


@torch.no_grad()
def at_random(config: SharpnessConfig, parameters: Sequence[nn.Parameter], seed: int, step: int) -> Push | None:
    """ρ z / ‖z‖ with z normal: the control, of the same length as sam's. A function of seed and step on each device."""
    draw = random.Random(f"{seed} moves weights at random in step {step}").getrandbits(63)
    generators: dict[torch.device, torch.Generator] = {}
    direction = []
    for parameter in parameters:
        device = own(parameter).device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(draw)
        shape, dtype = parameter.shape, parameter.dtype
        whole = torch.randn(shape, generator=generators[device], device=device, dtype=dtype)
        direction.append(own(_as_sharded(whole, parameter)))
    return _push(parameters, direction, config.rho, norm(direction, parameters))


def _as_sharded(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a tensor that every rank has whole, so that the number of ranks changes nothing."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def _push(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], reach: float, length: float) -> Push | None:
    if not 0 < length < float("inf"):
        return None
    return Push(parameters, direction, reach / length)
