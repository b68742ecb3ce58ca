"""The sharpness-aware step, as a function over (model, micro-batches, loss).

    sharp:  ascend   gradient of the window (or of a part of it) at w           one pass, none for momentum and random
            move     w <- w + e, e from `directions`
            descend  gradient of the window at w + e                            the same random numbers as above
            restore  w <- the copy made before
    reuse:  gradient of the window at w, plus what looksam kept
    plain:  gradient of the window at w

Afterwards `.grad` holds the gradient that the optimiser is to use, exchanged between ranks, not clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from instil.training.batches import MicroBatch
from instil.training.sharpness.directions import (
    Momentum,
    Push,
    against_momentum,
    along_gradient,
    at_random,
    moved_names,
)
from instil.training.sharpness.moving import Copies, Realised, moved, read_at, realised
from instil.training.sharpness.settings import SharpnessConfig
from instil.training.sharpness.tensors import is_sharded, norm, owned, product, trainable
from instil.training.sharpness.window import LogitGradients, RandomStates, part_of, without_gradients
from instil.training.step import Loss, Quiet, plain_step


@dataclass(frozen=True)
class Moment:
    """Where in a run a step stands.

    Attributes:
        step: its number, from 0.
        begun: the first sharpness-aware step; None as long as there was none.
        seed: of random moves.
        momentum: the optimiser's running mean of a parameter's gradients.
        autocast: what the forward pass rounds the weights of linear layers to.
    """

    step: int = 0
    begun: int | None = 0
    seed: int = 0
    momentum: Momentum | None = None
    autocast: torch.dtype | None = None


@dataclass
class Kept:
    """What stays from step to step.

    Attributes:
        direction: looksam's v, of length 1, this rank's part by parameter; with it a resumed run goes on as it would
            have.
        realised: the last move that was compared with what was intended.
        copies: memory that is used again.
    """

    direction: dict[str, Tensor] = field(default_factory=dict)
    realised: Realised | None = None
    copies: Copies = field(default_factory=Copies)


def sharpness_aware_step(
    model: nn.Module,
    micro_batches: Sequence[MicroBatch],
    loss: Loss,
    *,
    quiet: Quiet = nullcontext,
    config: SharpnessConfig,
    moment: Moment = Moment(),
    kept: Kept | None = None,
) -> Tensor:
    """Fill `.grad` of the trained parameters with the sharpness-aware gradient of a window.

    Args:
        kept: what stays from step to step; the same object in every step of a run.

    Returns:
        The window's loss, detached: at the weights themselves where a pass has read the whole window there, else at
        the moved weights.

    Raises:
        InputError: no trained weight is among those to be moved.
        ValueError: `momentum` is needed and missing.
    """
    kept = kept if kept is not None else Kept()
    phase = config.phase(moment.step, moment.begun)
    if phase == "sharp":
        return _Sharp(model, loss, quiet, config, moment, kept).window(micro_batches)
    value = plain_step(model, micro_batches, loss, quiet=quiet)
    if phase == "reuse":
        _add_kept(model, config, kept)
    return value


@dataclass
class _Sharp:
    """One sharpness-aware step."""

    model: nn.Module
    loss: Loss
    quiet: Quiet
    config: SharpnessConfig
    moment: Moment
    kept: Kept

    def window(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        if self.config.scope == "window":
            return self._one(micro_batches, last=True)
        values = []
        for number, batch in enumerate(micro_batches, start=1):
            values.append(self._one([batch], last=number == len(micro_batches)))
        return torch.stack(values).sum() if values else torch.zeros(())

    def _one(self, micro_batches: Sequence[MicroBatch], *, last: bool) -> Tensor:
        """Ascend, move, descend, restore. What `.grad` held before is added to, and exchanged with the last."""
        if self.config.kind == "looksam":
            self.kept.direction = {}
        earlier = {name: p.grad for name, p in self.trained.items()}
        self._set_gradients({})
        before = RandomStates.of(self.model)
        logits = LogitGradients() if self.config.kind == "functional" else None
        push, value = self._ascend(micro_batches, before, logits)
        first = {name: p.grad for name, p in self.trained.items()} if self.config.kind == "looksam" else {}
        self._set_gradients(earlier)
        before.restore()
        with (
            moved(push, self.kept.copies) as weights,
            logits.replayed(self.model) if logits is not None else nullcontext(),
        ):
            if push is not None and last and self._to_be_compared:
                self.kept.realised = realised(push, weights, read_at(self.model, self.moment.autocast))
            del push  # and with it the ascent's gradients
            # Sharded gradients that were not exchanged would come with those of the next ascent.
            with nullcontext() if last or any(map(is_sharded, self._moving)) else self.quiet():
                descended = plain_step(self.model, micro_batches, self.loss, quiet=self.quiet)
        if self.config.kind == "looksam":
            self._keep_direction(first)
        return value if value is not None else descended

    # ---- ascent ----

    def _ascend(
        self, micro_batches: Sequence[MicroBatch], before: RandomStates, logits: LogitGradients | None
    ) -> tuple[Push | None, Tensor | None]:
        """Where to move to; and the window's loss, if all of it was read."""
        config, moment = self.config, self.moment
        if config.kind == "momentum":
            if moment.momentum is None:
                raise ValueError("kind momentum needs the optimiser's momentum")
            return against_momentum(config, self._moving, moment.momentum), None
        if config.kind == "random":
            return at_random(config, self._moving, moment.seed, moment.step), None
        part = part_of(micro_batches, config.share, config.share_of)
        with logits.keeping(self.model) if logits is not None and config.share == 1 else nullcontext():
            value = self._gradients(part)
        push = along_gradient(config, list(self.moving), self._moving)
        if config.share == 1:
            return push, value
        if logits is None:
            return push, None
        before.restore()
        with logits.keeping_only(self.model), self.quiet():
            shares = [self._backward(batch) for batch in micro_batches]
        return push, torch.stack(shares).sum()

    def _backward(self, batch: MicroBatch) -> Tensor:
        share = self.loss(self.model, batch)
        share.backward()
        return share.detach()

    def _gradients(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Gradients of the weights that are to be moved, exchanged between ranks; of the others where they are free."""
        resting = [p for name, p in self.trained.items() if name not in self.moving]
        # Sharded weights have to be exchanged as their groups were made; looksam needs the whole gradient.
        if not resting or self.config.kind == "looksam" or any(map(is_sharded, resting)):
            return plain_step(self.model, micro_batches, self.loss, quiet=self.quiet)
        if not isinstance(self.model, DistributedDataParallel):
            with without_gradients(resting):
                return plain_step(self.model, micro_batches, self.loss, quiet=self.quiet)
        with without_gradients(resting), self.quiet():
            value = plain_step(self.model, micro_batches, self.loss)
        _average(self._moving, self.model.process_group)
        return value

    # ---- descent ----

    def _set_gradients(self, gradients: dict[str, Tensor | None]) -> None:
        for name, parameter in self.trained.items():
            parameter.grad = gradients.get(name)

    @torch.no_grad()
    def _keep_direction(self, first: dict[str, Tensor | None]) -> None:
        """v = g_s - (g_s . g / |g|^2) g, brought to length 1: of the gradient at the moved weights (g_s) what is at a
        right angle to the gradient (g) at the weights themselves (Liu et al. 2022, 2203.02714, algorithm 1)."""
        plain = {name: gradient for name, gradient in first.items() if gradient is not None}
        plain = {name: gradient for name, gradient in plain.items() if self.trained[name].grad is not None}
        owners = [self.trained[name] for name in plain]
        g, sharp = owned(list(plain.values())), owned([_gradient(p) for p in owners])
        self.kept.direction = {}
        square = product(g, g, owners)
        if not 0 < square < float("inf"):
            return
        torch._foreach_mul_(g, -product(sharp, g, owners) / square)
        torch._foreach_add_(g, sharp)
        length = norm(g, owners)
        # Rounding has an angle too: nothing is kept where nothing was changed.
        if length > 100 * torch.finfo(g[0].dtype).eps * norm(sharp, owners):
            torch._foreach_mul_(g, 1 / length)
            self.kept.direction = dict(zip(plain, g, strict=True))

    # ---- weights ----

    @cached_property
    def trained(self) -> dict[str, nn.Parameter]:
        return trainable(self.model)

    @cached_property
    def moving(self) -> dict[str, nn.Parameter]:
        names = moved_names(self.model, self.config)
        return {name: p for name, p in self.trained.items() if name in names}

    @property
    def _moving(self) -> list[nn.Parameter]:
        return list(self.moving.values())

    @property
    def _to_be_compared(self) -> bool:
        return self.kept.realised is None or self.moment.step % self.config.check_every == 0


@torch.no_grad()
def _add_kept(model: nn.Module, config: SharpnessConfig, kept: Kept) -> None:
    """g + alpha |g| v, with v what the last sharpness-aware step kept."""
    parameters = {name: p for name, p in trainable(model).items() if p.grad is not None}
    gradients = owned([_gradient(p) for p in parameters.values()])
    length = norm(gradients, list(parameters.values()))
    both = [
        (gradient, kept.direction[name])
        for name, gradient in zip(parameters, gradients, strict=True)
        if name in kept.direction
    ]
    if both and length < float("inf"):
        torch._foreach_add_([gradient for gradient, _ in both], [v for _, v in both], alpha=config.alpha * length)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _average(parameters: Sequence[nn.Parameter], group: torch.distributed.ProcessGroup) -> None:
    """Average gradients over ranks, as wrapped models do for those that they know to be coming."""
    ranks = torch.distributed.get_world_size(group)
    for parameter in parameters:
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad, group=group)
            parameter.grad /= ranks
