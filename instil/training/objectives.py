"""Terms that are added to the loss of every window."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training.batches import MicroBatch, collate, labelled_logits
from instil.training.examples import Example
from instil.training.layout import Layout
from instil.training.meter import Meter
from instil.training.packing import Row, alone, deal, pack

TEACHER_BYTES = 4 << 30


class Objective(Protocol):
    """Something to be learned beside the examples' own loss.

    `prepare` runs once, on the model as training finds it. `micro_batches` gives the term's share of a window for one
    rank, as a pure function of the step, so that a resumed run draws the same; `loss` is a micro-batch's share of the
    term, its weight included.
    """

    def prepare(self, model: nn.Module, layout: Layout, meter: Meter, pad_id: int) -> None: ...

    def micro_batches(
        self, step: int, *, row_length: int, micro_tokens: int, rank: int = 0, ranks: int = 1
    ) -> Sequence[MicroBatch]: ...

    def loss(self, model: nn.Module, batch: MicroBatch) -> Tensor: ...

    def describe(self) -> dict[str, Any]:
        """What makes a run with this objective differ from one without, for the run's fingerprint."""


class KLToStart:
    """Keeps the answers to known questions where they were: KL(start ‖ now), averaged over answer tokens.

    Self-distillation from the model before training (2604.15574). The term of a window is
    `weight · T² · mean over tokens of KL(softmax(z_start / T) ‖ softmax(z_now / T))`, over `per_step` known examples,
    tokens by their example's weight.

    Args:
        examples: known facts as `question_example`s; their target tokens are where the two are compared.
        weight: factor on the term.
        temperature: T above, of both distributions.
        per_step: examples drawn for each optimiser step.
        reference: the starting model, run anew at every step. By default the distributions of the model that training
            finds are computed once and kept (fp32, tokens × vocabulary × 4 bytes), which is cheaper when examples are
            drawn more than once. Where that is more than 4 GiB, a copy of the model is kept in their place.
        seed: of the draw.

    Raises:
        InputError: no examples, or no answer tokens.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        weight: float = 1.0,
        temperature: float = 1.0,
        per_step: int = 8,
        reference: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        if not sum(example.targets for example in examples):
            raise InputError("the KL term has no known facts to hold on to", field="known", found="0 answer tokens")
        self.examples = tuple(examples)
        self.weight, self.temperature, self.per_step, self.seed = weight, temperature, per_step, seed
        self.reference = reference
        self._kept: list[Tensor] | None = None
        self._lengths = [len(example) for example in self.examples]
        self._keys = [example.key for example in self.examples]

    def describe(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("weight", "temperature", "per_step", "seed")}
        settings["examples"] = [example.input_ids for example in self.examples]
        if any(example.weight != 1 for example in self.examples):
            settings["weights"] = [example.weight for example in self.examples]
        return {"kind": "kl_to_start", **settings}

    def prepare(self, model: nn.Module, layout: Layout, meter: Meter, pad_id: int) -> None:
        self._layout, self._meter, self._pad_id = layout, meter, pad_id
        if self.reference is not None:
            return
        vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
        needed = 4 * vocabulary * sum(example.targets for example in self.examples)
        if needed > TEACHER_BYTES:
            self.reference = copy.deepcopy(model).requires_grad_(False)
            return
        everything = range(len(self.examples))
        kept: dict[int, Tensor] = {}
        for rows in deal(self._rows(everything, 256), self._lengths, 4096).micro_batches:
            logits_NV = self._teacher(model, self._collate(rows, 1.0).to(next(model.parameters()).device)).cpu()
            parts = logits_NV.split([self.examples[index].targets for row in rows for index in row])
            kept.update(zip((index for row in rows for index in row), parts, strict=True))
        self._kept = [kept[index] for index in everything]

    def micro_batches(
        self, step: int, *, row_length: int, micro_tokens: int, rank: int = 0, ranks: int = 1
    ) -> list[MicroBatch]:
        count = min(self.per_step, len(self.examples))
        drawn = random.Random(f"{self.seed} step {step}").sample(range(len(self.examples)), count)
        total = sum(self.examples[index].weight * self.examples[index].targets for index in drawn)
        hand = deal(self._rows(drawn, row_length), self._lengths, micro_tokens, rank, ranks)
        return [self._with_teacher(rows, total) for rows in hand.micro_batches]

    def loss(self, model: nn.Module, batch: MicroBatch) -> Tensor:
        logits_NV = labelled_logits(model, batch, self._layout.reading)
        if not len(batch.targets_N):
            return logits_NV.sum()
        if self.reference is not None:
            reference_NV = self._teacher(self.reference, batch)
        else:
            reference_NV = batch.extra["start_NV"].to(logits_NV.device)
        now_NV = (logits_NV / self.temperature).log_softmax(-1)
        start_NV = (reference_NV / self.temperature).log_softmax(-1)
        kl_N = nn.functional.kl_div(now_NV, start_NV, reduction="none", log_target=True).sum(-1)
        return self.weight * self.temperature**2 * (kl_N * batch.weights_N).sum()

    def _rows(self, indices: Sequence[int], row_length: int) -> list[Row]:
        if not self._layout.packed:
            return alone(indices, self._lengths)
        longest = max(self._lengths[index] for index in indices)
        return pack(indices, self._lengths, self._keys, max(row_length, longest))

    def _collate(self, rows: Sequence[Row], total: float) -> MicroBatch:
        return collate(rows, self.examples, total_weight=total, pad_id=self._pad_id)

    def _with_teacher(self, rows: Sequence[Row], total: float) -> MicroBatch:
        batch = self._collate(rows, total)
        if self._kept is None or not rows:
            return batch
        return replace(batch, extra={"start_NV": torch.cat([self._kept[index] for row in rows for index in row])})

    def _teacher(self, model: nn.Module, batch: MicroBatch) -> Tensor:
        was_training = model.training
        model.eval()
        with torch.no_grad(), self._meter.counting(model, "teacher"):
            logits_NV = labelled_logits(model, batch, self._layout.reading)
        model.train(was_training)
        return logits_NV
