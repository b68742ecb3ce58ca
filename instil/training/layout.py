"""Finds out, on the model itself, how it may be read: whether packed examples stay apart, whether the output layer may
be narrowed. A family that fails the proof is trained with one example a row, and the run says so."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from instil.training.batches import MicroBatch, Reading, collate, labelled_logits
from instil.training.examples import NO_LOSS, Example


@dataclass(frozen=True)
class Layout:
    """`packed`: rows may hold several examples. `notes`: what had to be given up, in words."""

    reading: Reading
    packed: bool
    notes: tuple[str, ...] = ()


def choose(model: nn.Module, vocabulary: int, autocast: torch.dtype | None, *, packing: bool = True) -> Layout:
    """Prove each shortcut on a few made-up tokens, and drop the ones that do not hold.

    - Narrowed output layer: the logits equal those of the full forward pass.
    - Packing: an example's logits do not move when the example before it in the row is replaced, and are those of the
      example alone. Both within rounding: experts that group tokens sum in another order.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _choose(model, vocabulary, autocast, packing)
    finally:
        model.train(was_training)


def _choose(model: nn.Module, vocabulary: int, autocast: torch.dtype | None, packing: bool) -> Layout:
    notes = []
    takes_positions = "position_ids" in inspect.signature(_bare(model).forward).parameters
    # The proof runs without autocast, so its tolerance follows from the weights.
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 5e-2
    reading = Reading(head_only=True, positions=takes_positions)
    plain = Reading(head_only=False, positions=takes_positions)
    first, other, second = (_example(vocabulary, seed, length) for seed, length in ((1, 9), (2, 9), (3, 7)))
    single = _rows(model, [second], [(0,)])
    expected_NV = labelled_logits(model, single, plain)
    if not _stands(model, single, reading, expected_NV, tolerance):
        reading = plain
        notes.append("the output layer is computed at every position: narrowing it changed the logits")
    packed = packing and takes_positions
    if packed:
        found_NV, replaced_NV = (
            labelled_logits(model, _rows(model, [before, second], [(0, 1)]), reading)[-second.targets :]
            for before in (first, other)
        )
        packed = _close(found_NV, replaced_NV, tolerance) and _close(found_NV, expected_NV, tolerance)
    if packing and not packed:
        notes.append("examples are padded, not packed: this model does not keep packed examples apart")
    return Layout(replace(reading, autocast=autocast), packed, tuple(notes))


def _bare(model: nn.Module) -> nn.Module:
    get_base = getattr(model, "get_base_model", None)
    return get_base() if callable(get_base) else model


def _example(vocabulary: int, seed: int, length: int) -> Example:
    ids = torch.randint(0, vocabulary, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Example(tuple(ids), (NO_LOSS, *ids[1:]), key=str(seed))


def _rows(model: nn.Module, examples: list[Example], rows: list[tuple[int, ...]]) -> MicroBatch:
    device = next(model.parameters()).device
    return collate(rows, examples, total_weight=1.0, pad_id=0).to(device)


def _stands(model: nn.Module, batch: MicroBatch, reading: Reading, expected_NV: Tensor, tolerance: float) -> bool:
    try:
        found_NV = labelled_logits(model, batch, reading)
    except (TypeError, ValueError, IndexError, RuntimeError):
        return False  # this forward does not stand a narrowed output layer, for whatever reason
    return _close(found_NV, expected_NV, tolerance)


def _close(found_NV: Tensor, expected_NV: Tensor, tolerance: float) -> bool:
    """Largest difference in units of the logits' spread. A leak between examples is of the order of one."""
    if found_NV.shape != expected_NV.shape:
        return False
    return float((found_NV - expected_NV).abs().max()) <= tolerance * (float(expected_NV.std()) + 1e-6)
