"""TRL's `SFTTrainer` on the examples that we train on: the same token ids, the same targets, its own packing."""

from __future__ import annotations

import copy
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from instil.model import LanguageModel
from instil.training import Example
from instil.training.examples import NO_LOSS

Strategy = Literal["bfd", "wrapped", "padded"]
Windows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Setting:
    """How TRL trains.

    Attributes:
        strategy: bfd packs whole texts, kept apart by their positions. wrapped cuts one long string of texts into rows;
            a text then sees those before it. padded does not pack: texts of like length a batch.
        length: tokens of a packed row.
        rows: of a forward pass, `per_device_train_batch_size`; bfd makes one row of them.
        attention: the implementation of transformers.
    """

    strategy: Strategy
    length: int
    rows: int
    attention: str = "sdpa"

    def __str__(self) -> str:
        shape = f"{self.rows} texts" if self.strategy == "padded" else f"{self.rows} × {self.length}"
        return f"{self.strategy}, {shape}, {self.attention}"


def settings_for(step_tokens: int, longest: int, mean: float) -> list[Setting]:
    """What TRL is tried with: every way of making a step of `step_tokens` tokens that may be its best."""
    lengths = [length for length in (128, 256, 512) if longest <= length <= step_tokens]
    packed = [Setting("bfd", length, 1, attention) for length in lengths for attention in ("sdpa", "eager")]
    packed += [Setting("bfd", 256, 2, "eager")] if 256 in lengths and step_tokens >= 512 else []
    packed += [Setting("bfd", 1024, 1, "sdpa")] if longest <= 1024 <= step_tokens else []
    wrapped = [Setting("wrapped", length, step_tokens // length, "eager") for length in lengths[:2]]
    wrapped += [Setting("wrapped", length, step_tokens // length, "sdpa") for length in lengths[-1:]]
    texts = max(1, round(step_tokens / mean))
    padded = [Setting("padded", longest, -(-texts // parts), "eager") for parts in (1, 4)]
    return [*packed, *wrapped, *padded]


@dataclass(frozen=True)
class Trained:
    """One run: the loss of each step and the trained model.

    Attributes:
        tokens: useful ones behind the first step, in `seconds` (see `behind_first`).
        operations: that the meter counted, of our runs only; `computed` tokens, padding included.
    """

    tokens: float
    seconds: float
    losses: tuple[float, ...]
    model: Any
    operations: float = 0.0
    computed: int = 0


def behind_first(tokens: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Tokens and seconds from the first step's end to the last one's, of figures at the start and at each step's end.

    In the first step the optimiser makes its state, and what the Trainer sets up is before it. All is counted where
    there is one step only.

    Raises:
        ValueError: there are not as many of the one as of the other, or no step.
    """
    if len(tokens) != len(seconds) or len(tokens) < 2:
        raise ValueError(f"{len(tokens)} counts of tokens and {len(seconds)} times")
    first = min(1, len(tokens) - 2)
    return tokens[-1] - tokens[first], seconds[-1] - seconds[first]


@dataclass(frozen=True)
class Peer:
    """`SFTTrainer` with one setting.

    Attributes:
        lm: where training starts; it is copied.
        step_tokens: of an optimiser step, about.
        on_answers: the loss is on a part of each example only: TRL is told so by a completion mask.
    """

    lm: LanguageModel
    examples: Sequence[Example]
    setting: Setting
    step_tokens: int
    on_answers: bool
    learning_rate: float
    precision: Literal["bf16", "fp32"] = "bf16"

    def train(self) -> Trained:
        """TRL itself says how many useful tokens it has read at each step's end."""
        from transformers.trainer_callback import TrainerCallback

        ends = [time.perf_counter()]

        class Clock(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                ends.append(time.perf_counter())

        with self.trainer() as trainer:
            trainer.add_callback(Clock())
            ends[0] = time.perf_counter()
            trainer.train()
            lines = [line for line in trainer.state.log_history if "loss" in line]
            read = [0.0, *(line["num_tokens"] for line in lines)]
            return Trained(*behind_first(read, ends), tuple(line["loss"] for line in lines), trainer.model)

    @contextmanager
    def trainer(self) -> Iterator[Any]:
        """A trainer with a fresh copy of the model; its data are packed, nothing is trained yet."""
        from datasets import disable_progress_bars
        from transformers.trainer_callback import PrinterCallback
        from trl import SFTTrainer

        disable_progress_bars()
        model = copy.deepcopy(self.lm.model).float()
        model.set_attn_implementation(self.setting.attention)
        with tempfile.TemporaryDirectory() as folder:
            trainer = SFTTrainer(
                model,
                args=self.arguments(folder),
                train_dataset=self.dataset(),
                processing_class=copy.deepcopy(self.lm.tokenizer),
            )
            trainer.remove_callback(PrinterCallback)
            yield trainer

    def arguments(self, folder: str) -> Any:
        from trl import SFTConfig

        packed = self.setting.strategy != "padded"
        return SFTConfig(
            output_dir=folder,
            packing=packed,
            packing_strategy=self.setting.strategy if packed else "bfd",
            max_length=self.setting.length,
            completion_only_loss=self.on_answers,
            per_device_train_batch_size=self.setting.rows,
            gradient_accumulation_steps=self.accumulated,
            num_train_epochs=1,
            learning_rate=self.learning_rate,
            lr_scheduler_type="constant",
            # TRL's rows come longest text first: they are shuffled once, and taken in that order.
            shuffle_dataset=True,
            train_sampling_strategy="sequential" if packed else "group_by_length",
            gradient_checkpointing=False,  # TRL's default, a third more to compute
            optim="adamw_torch_fused",
            use_cpu=self.lm.device.type == "cpu",
            bf16=self.precision == "bf16",
            dataloader_pin_memory=self.lm.device.type != "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )

    @property
    def accumulated(self) -> int:
        """Forward passes of an optimiser step."""
        mean = sum(map(len, self.examples)) / len(self.examples)
        length = mean if self.setting.strategy == "padded" else self.setting.length
        return max(1, round(self.step_tokens / (length * self.setting.rows)))

    def dataset(self) -> Any:
        from datasets import Dataset

        def row(example: Example) -> dict[str, list[int]]:
            ids = {"input_ids": list(example.input_ids)}
            if not self.on_answers:
                return ids
            return {**ids, "completion_mask": [int(label != NO_LOSS) for label in example.labels]}

        return Dataset.from_list([row(example) for example in self.examples])

    def windows(self) -> Windows:
        """The examples of each of TRL's optimiser steps.

        Only of bfd: the others cut texts, or order them by chance.
        """
        numbers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, example in enumerate(self.examples):
            numbers[example.input_ids].append(number)
        with self.trainer() as trainer:
            rows = [
                [numbers[ids].pop() for ids in cut(row["input_ids"], row["seq_lengths"])]
                for row in trainer.train_dataset
            ]
        assert not any(numbers.values()), "TRL leaves out examples"
        each = self.setting.rows * self.accumulated
        parts = [rows[start : start + each] for start in range(0, len(rows), each)]
        return tuple(tuple(number for row in part for number in row) for part in parts)


def cut(ids: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    start = 0
    for length in lengths:
        yield tuple(ids[start : start + length])
        start += length
