"""Weights moved and put back, and what of the move came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from instil.training.sharpness.directions import Push
from instil.training.sharpness.tensors import own, owned, summed

LEAST_COSINE, MOST_OFF = 0.9, 0.1
"""Below this cosine to the intended direction, or this much off in length, a move is called mostly rounding."""


@dataclass(frozen=True)
class Realised:
    """A move as the forward pass sees it, which differs from the intended one by rounding.

    Attributes:
        norm: its Euclidean length.
        intended: the length that was meant.
        cosine: of the angle between the two.
    """

    norm: float
    intended: float
    cosine: float

    @property
    def is_mostly_rounding(self) -> bool:
        return self.cosine < LEAST_COSINE or abs(self.norm - self.intended) > MOST_OFF * self.intended


@dataclass
class Copies:
    """Memory for a copy of the weights, used again in every step."""

    tensors: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def of(self, weights: Sequence[Tensor]) -> list[Tensor]:
        fit = len(self.tensors) == len(weights) and all(
            kept.shape == weight.shape and kept.dtype == weight.dtype and kept.device == weight.device
            for kept, weight in zip(self.tensors, weights, strict=True)
        )
        if not fit:
            self.tensors = [torch.empty_like(weight) for weight in weights]
        if weights:
            torch._foreach_copy_(self.tensors, list(weights))
        return self.tensors


@contextmanager
def moved(push: Push | None, copies: Copies) -> Iterator[Sequence[Tensor]]:
    """Weights are moved inside the block and end, whatever happens in it, as the copy that was made of them.

    Yields:
        The copies, in the order of the push's parameters.
    """
    if push is None:
        yield ()
        return
    weights = owned(push.parameters)
    kept = copies.of(weights)
    try:
        with torch.no_grad():
            torch._foreach_add_(weights, list(push.direction), alpha=push.scale)
        del push  # the caller may free its memory
        yield kept
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, kept)


def read_at(model: nn.Module, autocast: torch.dtype | None) -> dict[int, torch.dtype]:
    """For parameters (by id) that the forward pass reads in another precision than they have: that one.

    Autocast rounds the weights of linear layers and nothing else that is trained.
    """
    if autocast is None:
        return {}
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    return {id(p): autocast for module in linear for p in module.parameters(recurse=False)}


@torch.no_grad()
def realised(push: Push, before: Sequence[Tensor], read: dict[int, torch.dtype]) -> Realised:
    """Compare weights as they are now with `before` and with what was intended; to be asked by all ranks."""
    rows = []
    for parameter, old, direction in zip(push.parameters, before, push.direction, strict=True):
        new, dtype = own(parameter), read.get(id(parameter))
        if dtype is not None:
            new, old = new.to(dtype).to(direction.dtype), old.to(dtype).to(direction.dtype)
        came, meant = (new - old).flatten(), direction.flatten()
        rows.append(torch.stack([torch.dot(came, came), torch.dot(came, meant), torch.dot(meant, meant)]))
    came_came, came_meant, meant_meant = summed(rows, push.parameters)
    length, meant_length = came_came**0.5, meant_meant**0.5
    sign = 1.0 if push.scale >= 0 else -1.0
    cosine = sign * came_meant / (length * meant_length) if length and meant_length else float(not push.scale)
    return Realised(norm=length, intended=abs(push.scale) * meant_length, cosine=min(1.0, cosine))
