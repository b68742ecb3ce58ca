"""Which attention kernel a micro-batch runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from instil.training.batches import MicroBatch, Reading

MOST_BYTES = 512 << 20
"""Of probabilities that are kept for the backward pass."""


@contextmanager
def quickest_attention(model: Any, batch: MicroBatch, reading: Reading) -> Iterator[None]:
    """Our kernel for short rows instead of the fused one where it is faster: bf16 on a CPU, up to thousands of tokens.

    On CPUs the backward pass of the fused kernel took 40 % of a training step on short questions. The probabilities
    are kept for the backward pass, hence the limit on memory.
    """
    if not _applies(model, batch, reading):
        yield
        return
    from instil.training.short_rows import NAME

    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def _applies(model: Any, batch: MicroBatch, reading: Reading) -> bool:
    rows, width = batch.ids_BT.shape
    config = model.config.get_text_config()
    scores = rows * int(config.num_attention_heads) * int(config.num_hidden_layers) * width**2
    return (
        batch.ids_BT.device.type == "cpu"
        and reading.autocast is torch.bfloat16
        and 2 * scores <= MOST_BYTES
        and model.config._attn_implementation == "sdpa"
        and not _recomputes(model)
    )


def _recomputes(model: Any) -> bool:
    """Whether activations are recomputed in the backward pass, which would then find another kernel than was used."""
    if hasattr(type(model), "is_activation_checkpointing"):  # its newer name
        return bool(model.is_activation_checkpointing)
    return bool(getattr(model, "is_gradient_checkpointing", False))
