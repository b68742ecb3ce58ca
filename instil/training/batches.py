"""Rows of token ids as tensors, and the model's logits at the labelled positions only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from instil.training.examples import NO_LOSS, Example
from instil.training.losses import token_losses
from instil.training.packing import Row


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass reads.

    Attributes:
        ids_BT: token ids; the end of a shorter row is padding, which no target token can see (attention is causal).
        positions_BT: place of each token in its own example. Padding goes on counting from the last example.
        read_N: where in the flattened ids each target token is predicted from: the position before it.
        targets_N: the target tokens.
        weights_N: the weight of each target token, already divided by the window's total, so that the window's loss
            is the plain sum over all its micro-batches.
        packed: whether any row holds more than one example.
        useful: tokens that are not padding.
        term: which part of the loss it belongs to, "examples" or "objective".
        extra: tensors that an objective ties to its own micro-batches; with one entry a target token they can be cut
            to some of the rows.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    read_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    packed: bool
    useful: int
    term: str = "examples"
    extra: dict[str, Tensor] = field(default_factory=dict)

    @property
    def computed(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.ids_BT.numel()

    def to(self, device: torch.device | str) -> MicroBatch:
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def collate(rows: Sequence[Row], examples: Sequence[Example], *, total_weight: float, pad_id: int) -> MicroBatch:
    """Lay out rows of examples as tensors.

    Args:
        rows: indices into `examples`; without rows the result is one padding token without a target, which keeps the
            ranks of a distributed run in step.
        total_weight: the summed weight of all target tokens of the window.
    """
    width = max((sum(len(examples[index]) for index in row) for row in rows), default=1)
    ids, positions, read, targets, weights = [], [], [], [], []
    for number, row in enumerate(rows or [()]):
        line_ids: list[int] = []
        line_positions: list[int] = []
        for index in row:
            example = examples[index]
            start = number * width + len(line_ids)
            for place, label in enumerate(example.labels):
                if label != NO_LOSS:
                    read.append(start + place - 1)
                    targets.append(label)
                    weights.append(example.weight / total_weight)
            line_ids += example.input_ids
            line_positions += range(len(example))
        last = line_positions[-1] if line_positions else -1
        missing = width - len(line_ids)
        ids.append(line_ids + [pad_id] * missing)
        positions.append(line_positions + list(range(last + 1, last + 1 + missing)))
    return MicroBatch(
        ids_BT=torch.tensor(ids),
        positions_BT=torch.tensor(positions),
        read_N=torch.tensor(read, dtype=torch.long),
        targets_N=torch.tensor(targets, dtype=torch.long),
        weights_N=torch.tensor(weights, dtype=torch.float32),
        packed=any(len(row) > 1 for row in rows),
        useful=sum(len(examples[index]) for row in rows for index in row),
    )


@dataclass(frozen=True)
class Reading:
    """How a model is read; found out once for each model by `instil.training.layout.choose`.

    Attributes:
        head_only: the output layer is computed at the labelled positions only.
        positions: the model takes position ids, so that rows may hold several examples.
        autocast: dtype of the forward pass under autocast, or None.
    """

    head_only: bool = True
    positions: bool = True
    autocast: torch.dtype | None = None


def labelled_logits(model: nn.Module, batch: MicroBatch, reading: Reading) -> Tensor:
    """Logits at the positions that predict a target: `logits_NV`, fp32."""
    return _labelled_logits(model, batch, reading).float()


def _labelled_logits(model: nn.Module, batch: MicroBatch, reading: Reading) -> Tensor:
    """The same, as precise as the model gives them.

    The model's own forward runs, soft caps and scalings included; only what its output layer is given is narrowed to
    the labelled positions, since on short answers most of the vocabulary product would be thrown away. There is no
    attention mask and no cache: with either, transformers stops keeping packed examples apart.
    """
    inputs: dict[str, Any] = {"input_ids": batch.ids_BT, "use_cache": False, "return_dict": True}
    if reading.positions:
        inputs["position_ids"] = batch.positions_BT
    narrowed = _narrowed(output_layer(model), batch.read_N) if reading.head_only else nullcontext()
    autocast = torch.autocast(batch.ids_BT.device.type, dtype=reading.autocast, enabled=reading.autocast is not None)
    with autocast, narrowed:
        # Not `logits[0]`: the gradient of that is a table of zeros into which it is copied.
        logits_XV: Tensor = model(**inputs).logits.flatten(0, 1)
    return logits_XV if reading.head_only else logits_XV[batch.read_N]


def output_layer(model: nn.Module) -> nn.Module | None:
    bare = model.module if hasattr(model, "module") and isinstance(model.module, nn.Module) else model
    get = getattr(bare, "get_output_embeddings", None)
    return get() if callable(get) else None


@contextmanager
def _narrowed(head: nn.Module | None, read_N: Tensor) -> Iterator[None]:
    if head is None:
        raise TypeError("the model has no output layer to narrow")

    def narrow(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTD, *rest = arguments
        return (hidden_BTD.flatten(0, 1)[read_N].unsqueeze(0), *rest)

    hook = head.register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        hook.remove()


def share_of_loss(model: nn.Module, batch: MicroBatch, reading: Reading) -> Tensor:
    """This micro-batch's share of the window's loss: the weighted negative log-probability of its targets, summed."""
    logits_NV = _labelled_logits(model, batch, reading)
    if not len(batch.targets_N):
        # Zero, but it reaches the weights: a rank without targets still exchanges gradients.
        return logits_NV.float().sum()
    return (token_losses(logits_NV, batch.targets_N) * batch.weights_N).sum()
