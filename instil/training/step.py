"""What happens between two optimiser updates, as a plain function over (model, micro-batches, loss).

The engine calls a step once for each window, with all its micro-batches; afterwards every trainable parameter's `.grad`
must hold the gradient that the optimiser is to use (clipping comes later, on that gradient only). A sharpness-aware
step is another function with this signature: it may run the micro-batches as often as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from instil.training.batches import MicroBatch

Loss = Callable[[nn.Module, MicroBatch], Tensor]
"""A micro-batch's share of the window's loss; the shares of all micro-batches sum to it."""

Quiet = Callable[[], AbstractContextManager[object]]
"""A context in which a backward pass does not exchange gradients between ranks."""


class Step(Protocol):
    """Fills `.grad` of the trainable parameters for one window and returns the window's loss (detached, a scalar)."""

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[MicroBatch], loss: Loss, *, quiet: Quiet = nullcontext
    ) -> Tensor: ...


def plain_step(
    model: nn.Module, micro_batches: Sequence[MicroBatch], loss: Loss, *, quiet: Quiet = nullcontext
) -> Tensor:
    """Forward and backward over every micro-batch; gradients are exchanged with the last one."""
    total: Tensor | None = None
    for number, batch in enumerate(micro_batches, start=1):
        with nullcontext() if number == len(micro_batches) else quiet():
            share = loss(model, batch)
            share.backward()
        total = share.detach() if total is None else total + share.detach()
    return torch.zeros(()) if total is None else total
