"""What a pass reads: a part of the window, the same random numbers, which gradients, the logits' gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training.batches import MicroBatch


@dataclass(frozen=True)
class RandomStates:
    """The states that dropout draws from: the CPU's, and that of the model's accelerator."""

    cpu: Tensor
    device: torch.device | None
    accelerator: Tensor | None

    @staticmethod
    def of(model: nn.Module) -> RandomStates:
        device = next(model.parameters()).device
        if device.type == "cpu":
            return RandomStates(torch.get_rng_state(), None, None)
        module: Any = torch.get_device_module(device)
        state = module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)
        return RandomStates(torch.get_rng_state(), device, state)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.device is not None:
            module: Any = torch.get_device_module(self.device)
            if self.device.type == "mps":
                module.set_rng_state(self.accelerator)
            else:
                module.set_rng_state(self.accelerator, self.device)


def part_of(
    micro_batches: Sequence[MicroBatch], share: float, unit: Literal["rows", "micro_batches"]
) -> Sequence[MicroBatch]:
    """A share of a window, evenly spread: rows come longest first, so the first ones would be the long ones.

    Of "rows": of every micro-batch, one row at least. Of "micro_batches": of every term of the loss, one at least. Both
    take equally many micro-batches on all ranks.
    """
    if share == 1:
        return micro_batches
    if unit == "rows":
        return [some_rows(batch, spread(batch.ids_BT.shape[0], share)) for batch in micro_batches]
    terms = dict.fromkeys(batch.term for batch in micro_batches)
    of_term = {term: [batch for batch in micro_batches if batch.term == term] for term in terms}
    return [batches[place] for batches in of_term.values() for place in spread(len(batches), share)]


def spread(count: int, share: float) -> list[int]:
    """The places of a share of `count` things, one at least, at equal distances."""
    taken = max(1, math.ceil(share * count - 1e-9))
    return [int((number + 0.5) * count / taken) for number in range(taken)]


def some_rows(batch: MicroBatch, rows: Sequence[int]) -> MicroBatch:
    """The micro-batch with only these rows; the loss's weights stay those of the whole window.

    Raises:
        InputError: an objective tied tensors to it that do not have an entry a target token.
    """
    count, width = batch.ids_BT.shape
    if len(rows) == count:
        return batch
    chosen = torch.tensor(list(rows), device=batch.ids_BT.device)
    place = torch.full((count,), -1, device=chosen.device)
    place[chosen] = torch.arange(len(rows), device=chosen.device)
    row_N = place[batch.read_N // width]
    stays_N = row_N >= 0
    extra = {}
    for name, value in batch.extra.items():
        if value.shape[:1] != batch.targets_N.shape:
            raise InputError(
                f"rows cannot be taken out of what the objective keeps as {name}",
                field="sharpness.share_of",
                found="rows",
                expected="micro_batches",
            )
        extra[name] = value[stays_N.to(value.device)]
    return replace(
        batch,
        ids_BT=batch.ids_BT[chosen],
        positions_BT=batch.positions_BT[chosen],
        read_N=(row_N * width + batch.read_N % width)[stays_N],
        targets_N=batch.targets_N[stays_N],
        weights_N=batch.weights_N[stays_N],
        useful=batch.useful * len(rows) // count,
        extra=extra,
    )


@contextmanager
def without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradients are computed for these inside the block."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@dataclass
class LogitGradients:
    """The loss's derivative by the logits, of each forward pass of a window, in their order.

    Taken where a model of transformers returns its logits, so caps and scalings of logits belong to the function, and
    whatever is done with logits belongs to the loss: cross-entropy and objectives alike.
    """

    kept: list[Tensor] = field(default_factory=list)

    @contextmanager
    def keeping(self, model: nn.Module) -> Iterator[None]:
        """Inside, backward passes leave the derivatives here, and pass them on as ever."""

        def after(_: nn.Module, __: Any, output: Any) -> None:
            if output.logits.requires_grad:
                place = len(self.kept)
                self.kept.append(torch.empty(0))
                output.logits.register_hook(lambda gradient: self.kept.__setitem__(place, gradient.detach()))

        with _hooked(model, after):
            yield

    @contextmanager
    def keeping_only(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model itself is run without gradients; backward passes end at the logits, and are kept here."""
        leaves: list[Tensor] = []

        def before(_: nn.Module, __: Any) -> None:
            torch.set_grad_enabled(False)

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            torch.set_grad_enabled(True)
            output["logits"] = output.logits.detach().requires_grad_()
            leaves.append(output["logits"])
            return output

        first = _unwrapped(model).register_forward_pre_hook(before)
        try:
            with _hooked(model, after):
                yield
        finally:
            first.remove()
            torch.set_grad_enabled(True)
        self.kept += [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]

    @contextmanager
    def replayed(self, model: nn.Module) -> Iterator[None]:
        """Inside, backward passes start from the derivatives that are kept here, whatever the loss is now."""
        derivatives = iter(self.kept)

        def after(_: nn.Module, __: Any, output: Any) -> None:
            if output.logits.requires_grad:
                derivative = next(derivatives)
                output.logits.register_hook(lambda _: derivative)

        with _hooked(model, after):
            yield


@contextmanager
def _hooked(model: nn.Module, after: Any) -> Iterator[None]:
    hook = _unwrapped(model).register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if hasattr(model, "module") and isinstance(model.module, nn.Module) else model
