"""The negative log-probability of each target, in pieces that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PIECE = {"cpu": 1 << 18}
MOST = 1 << 26
"""Logits that are looked at together: as many as fit a processor's cache; on accelerators 256 MiB in fp32."""


def token_losses(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Negative log-probability of each target, fp32, whatever precision the logits have.

    The same as `cross_entropy` of the logits in fp32, forward and backward, without their copy in fp32, the table of
    log-probabilities and its gradient: each is as large as the logits, and on a CPU reading and writing them took
    longer than computing them.
    """
    return _TokenLosses.apply(logits_NV, targets_N)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        ctx.save_for_backward(logits_NV, targets_N)
        losses_N = torch.empty(len(targets_N), dtype=torch.float32, device=logits_NV.device)
        for piece in _pieces(logits_NV):
            losses_N[piece] = nn.functional.cross_entropy(logits_NV[piece].float(), targets_N[piece], reduction="none")
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        """(p - 1[target]) times the gradient of the loss, rounded once, to the precision of the logits."""
        (gradient_N,) = gradients
        logits_NV, targets_N = ctx.saved_tensors
        found_NV = torch.empty_like(logits_NV)
        for piece in _pieces(logits_NV):
            p_NV = logits_NV[piece].float().softmax(-1)
            targets_N1 = targets_N[piece, None]
            p_NV.scatter_(1, targets_N1, p_NV.gather(1, targets_N1) - 1)
            found_NV[piece] = p_NV.mul_(gradient_N[piece, None])
        return found_NV, None


def _pieces(logits_NV: Tensor) -> Iterator[slice]:
    rows, vocabulary = logits_NV.shape
    size = max(1, PIECE.get(logits_NV.device.type, MOST) // vocabulary)
    return (slice(start, start + size) for start in range(0, rows, size))
