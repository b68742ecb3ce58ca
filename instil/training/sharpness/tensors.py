"""Sums over lists of tensors, sharded or not.

Under FSDP2 a parameter and its gradient are `DTensor`s, of which a rank holds a shard; everything is computed on the
shards, and only sums are exchanged. Every rank must therefore ask for every sum, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


@torch.no_grad()
def own(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor; it shares its memory."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def owned(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [own(tensor) for tensor in tensors]


def summed(values: Sequence[Tensor], owners: Sequence[Tensor]) -> list[float]:
    """Add up figures of each tensor, over the tensors and over the ranks that hold their shards.

    Args:
        values: a row of figures for each tensor, of this rank's shard, all of equal length.
        owners: the tensors themselves, which know how they are sharded.
    """
    if not values:
        return []
    device = values[0].device
    exact = torch.float32 if device.type == "mps" else torch.float64
    by_place: dict[tuple[torch.distributed.ProcessGroup, ...], list[Tensor]] = {}
    for value, owner in zip(values, owners, strict=True):
        by_place.setdefault(_sharing(owner), []).append(value.to(device, exact))
    total = torch.zeros_like(values[0], dtype=exact)
    for groups, rows in by_place.items():
        part = torch.stack(rows).sum(0)
        for group in groups:
            torch.distributed.all_reduce(part, group=group)
        total += part
    return [float(figure) for figure in total.flatten()]


def _sharing(tensor: Tensor) -> tuple[torch.distributed.ProcessGroup, ...]:
    """The groups of ranks among which a tensor is divided."""
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return ()
    mesh = tensor.device_mesh
    return tuple(mesh.get_group(number) for number, place in enumerate(tensor.placements) if place.is_shard())


@torch.no_grad()
def norm(tensors: Sequence[Tensor], owners: Sequence[Tensor] | None = None) -> float:
    """Euclidean norm of a list of tensors as one vector: over all ranks, by all ranks."""
    if not tensors:
        return 0.0
    norms = torch._foreach_norm(owned(tensors), 2)
    exact = torch.float32 if norms[0].device.type == "mps" else torch.float64
    squares = [one.to(exact).square().reshape(1) for one in norms]
    return float(summed(squares, owners if owners is not None else tensors)[0] ** 0.5)


@torch.no_grad()
def product(left: Sequence[Tensor], right: Sequence[Tensor], owners: Sequence[Tensor] | None = None) -> float:
    """Inner product of two lists of tensors as vectors: over all ranks, by all ranks."""
    if not left:
        return 0.0
    products = [
        torch.dot(one.flatten(), other.flatten()).reshape(1)
        for one, other in zip(owned(left), owned(right), strict=True)
    ]
    return summed(products, owners if owners is not None else left)[0]


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers put in front of it."""
    for mark in ("module.", "_orig_mod."):
        name = name.removeprefix(mark)
    return name


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, tied ones once; of the model as it is wrapped now."""
    return {plain_name(name): p for name, p in model.named_parameters() if p.requires_grad}
