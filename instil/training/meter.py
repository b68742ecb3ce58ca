"""Counts floating-point operations per module as they run, by purpose.

A weight costs 2 operations a token forward, 2 more backward for the gradient of its input where one is needed, and 2
more for its own gradient where it is trainable; attention costs its two products of queries, keys and values by their
shapes, and twice that backward. Embedding look-ups, norms and activations are free. Counted is what is computed:
padding, both passes of a sharpness-aware step, recomputation, attempts that ran out of memory.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Meter:
    """What has been spent so far.

    Attributes:
        flops: floating-point operations by purpose ("training", "teacher", "deciding", "exam", ...).
        tokens: tokens that went through a model, padding included, by purpose.
        seconds: wall-clock time by purpose; the time of an inner purpose is not counted to the outer one.
        uncounted: classes of modules with weight matrices that the meter does not know how to count.
    """

    def __init__(self) -> None:
        self.flops: dict[str, float] = defaultdict(float)
        self.tokens: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.uncounted: set[str] = set()
        self._purposes: list[str | None] = []
        self._watched: dict[int, int] = defaultdict(int)
        self._since = 0.0

    @property
    def total(self) -> float:
        """Floating-point operations for all purposes."""
        return sum(self.flops.values())

    @property
    def by_purpose(self) -> dict[str, dict[str, float]]:
        """`{purpose: {"flops": ..., "tokens": ..., "seconds": ...}}`."""
        purposes = dict.fromkeys((*self.flops, *self.tokens, *self.seconds))
        return {
            purpose: {
                "flops": self.flops.get(purpose, 0.0),
                "tokens": self.tokens.get(purpose, 0),
                "seconds": self.seconds.get(purpose, 0.0),
            }
            for purpose in purposes
        }

    def rows(self) -> list[dict[str, float | str]]:
        """One row a purpose: purpose, flops, tokens, seconds."""
        return [{"purpose": purpose, **cost} for purpose, cost in self.to_dict().items()]

    def to_dict(self) -> dict[str, dict[str, float]]:
        self._switch()
        return self.by_purpose

    @staticmethod
    def from_dict(spent: Mapping[str, Mapping[str, float]]) -> Meter:
        meter = Meter()
        meter.add(spent)
        return meter

    def add(self, spent: Meter | Mapping[str, Mapping[str, float]]) -> None:
        """Add what was spent elsewhere, for example before a resume."""
        for purpose, cost in (spent.by_purpose if isinstance(spent, Meter) else spent).items():
            self.flops[purpose] += cost["flops"]
            self.tokens[purpose] += int(cost["tokens"])
            self.seconds[purpose] += cost["seconds"]

    def since(self, earlier: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        """What was spent after `earlier`, a `to_dict()` of this meter."""
        none = {"flops": 0.0, "tokens": 0.0, "seconds": 0.0}
        return {
            purpose: {unit: amount - earlier.get(purpose, none)[unit] for unit, amount in cost.items()}
            for purpose, cost in self.by_purpose.items()
        }

    @property
    def total_seconds(self) -> float:
        """Seconds for all purposes, up to now."""
        self._switch()
        return sum(self.seconds.values())

    def set_to(self, spent: Mapping[str, Mapping[str, float]]) -> None:
        """Forget what was counted and start from `spent`, a `to_dict()`."""
        for counts in (self.flops, self.tokens, self.seconds):
            counts.clear()
        self._since = time.perf_counter()
        self.add(spent)

    @contextmanager
    def timing(self, purpose: str | None) -> Iterator[Meter]:
        """Charge the time spent inside to `purpose`; to nothing, when it is None."""
        self._switch()
        self._purposes.append(purpose)
        try:
            yield self
        finally:
            self._switch()
            self._purposes.pop()

    @contextmanager
    def counting(self, model: nn.Module, purpose: str) -> Iterator[Meter]:
        """Count what `model` computes inside, under `purpose`. May be nested; the innermost purpose is charged."""
        hooks = self._watch(model) if not self._watched[id(model)] else []
        self._watched[id(model)] += 1
        try:
            with self.timing(purpose):
                yield self
        finally:
            self._watched[id(model)] -= 1
            for hook in hooks:
                hook.remove()

    def charge(self, purpose: str, flops: float) -> None:
        """Add operations that no module computes, such as a decomposition."""
        self.flops[purpose] += flops

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._purpose is not None:
            self.seconds[self._purpose] += now - self._since
        self._since = now

    @property
    def _purpose(self) -> str | None:
        return self._purposes[-1] if self._purposes else None

    def _count(self, flops: float) -> None:
        if self._purpose is not None:
            self.flops[self._purpose] += flops

    def _watch(self, model: nn.Module) -> list[Any]:
        hooks: list[Any] = []
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        factors = {id(part) for module in model.modules() if _is_osf(module) for part in module.children()}
        factors |= {id(part) for module in model.modules() if id(module) in factors for part in module.modules()}
        for module in model.modules():
            module.__dict__.pop("attended_pairs", None)  # said of a pass that nobody counted
            if _is_osf(module):
                hooks.append(module.register_forward_hook(self._osf))
            elif _is_linear(module):
                hooks.append(module.register_forward_hook(self._linear))
            elif _is_attention(module):
                hooks.append(module.register_forward_hook(self._attention, with_kwargs=True))
            elif (
                id(module) not in factors
                and not isinstance(module, nn.Embedding)
                and any(p.ndim > 1 for p in module.parameters(recurse=False))
            ):
                self.uncounted.add(type(module).__name__)
            if module is embedding:
                hooks.append(module.register_forward_hook(self._token))
        return hooks

    def _token(self, _: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        if self._purpose is not None and arguments:
            self.tokens[self._purpose] += arguments[0].numel()

    def _linear(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        inputs: Tensor = arguments[0]
        once = 2.0 * weight.numel() * (inputs.numel() / inputs.shape[-1] if inputs.numel() else 0.0)
        self._count(once)
        self._on_backward(output, once * (int(inputs.requires_grad) + int(weight.requires_grad)))

    def _osf(self, module: Any, arguments: tuple[Any, ...], output: Any) -> None:
        """What an OSF layer adds to its base layer, which is counted by itself: the trained factors and, since it
        computes their difference, the factors as they started; backward also the projection of their gradients."""
        if module.disable_adapters or module.merged or not module.active_adapters:
            return
        name = module.active_adapters[0]
        rank = module.osf_svd_params[name]["S_low"].shape[0]
        width, height = module.in_features, module.out_features
        inputs: Tensor = arguments[0]
        tokens = inputs.numel() / inputs.shape[-1] if inputs.numel() else 0.0
        into, out = (4.0 * tokens * rank * size for size in (width, height))
        self._count(into + out)
        tall, wide = name in module._osf_U_high, name in module._osf_V_high
        kept = module.effective_rank[name]
        projections = 4.0 * rank * (height * (kept if tall else rank) + width * (kept if wide else rank))
        self._on_backward(output, into * (1 + int(inputs.requires_grad)) + 2 * out + projections)

    def _attention(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any], output: Any
    ) -> None:
        hidden_BTD = keywords.get("hidden_states", arguments[0] if arguments else None)
        if not isinstance(hidden_BTD, Tensor):
            return
        rows, queries = hidden_BTD.shape[:2]
        cache = keywords.get("past_key_values", keywords.get("past_key_value"))
        layer = getattr(module, "layer_idx", None)
        seen = cache.get_seq_length(layer) if cache is not None and layer is not None else 0
        # Attention over packed rows says itself how many pairs of query and key it has computed.
        pairs = module.__dict__.pop("attended_pairs", None) or rows * queries * max(queries, int(seen))
        once = 4.0 * pairs * _attention_width(module)
        self._count(once)
        mixed = output[0] if isinstance(output, tuple) else output
        self._on_backward(mixed, 2 * once)

    def _on_backward(self, output: Any, flops: float) -> None:
        if flops and isinstance(output, Tensor) and output.requires_grad and torch.is_grad_enabled():
            output.register_hook(lambda _: self._count(flops))


def _is_linear(module: nn.Module) -> bool:
    """`nn.Linear`, and GPT-2's `Conv1D`, which is a linear layer with its weight transposed."""
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def _is_osf(module: nn.Module) -> bool:
    """A layer of `peft`'s orthogonal subspace fine-tuning."""
    return hasattr(module, "osf_svd_params")


def _is_attention(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Attention") and hasattr(module, "config")


def _attention_width(module: nn.Module) -> int:
    """Heads times head size: the width of each of the two products."""
    config: Any = module.config
    heads = int(config.num_attention_heads)
    size = getattr(module, "head_dim", None) or getattr(module, "head_size", None) or config.hidden_size // heads
    return heads * int(size)
