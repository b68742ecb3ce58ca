"""The Hugging Face Trainer as engine, with three things of our own: the window, the step and the checkpoint's weights.

The Trainer is told that a "batch" is a whole accumulation window (`gradient_accumulation_steps` is 1): the window is
split into micro-batches here, since the number of rows differs from window to window and may be halved when memory
runs out. So `training_step` always has the last micro-batch of the window, and with it all of them. Under several
ranks each takes its share of the window's rows; the loss is divided by the window's target tokens over all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from instil.errors import InputError, RunFailed
from instil.files import write_sealed
from instil.training import checkpoints
from instil.training.attention import quickest_attention
from instil.training.batches import MicroBatch, collate, share_of_loss
from instil.training.config import TrainConfig
from instil.training.ending import Ending
from instil.training.examples import Example
from instil.training.layout import Layout
from instil.training.meter import Meter
from instil.training.objectives import Objective
from instil.training.packing import Row, alone, deal, epoch_windows, pack, width
from instil.training.sharpness.sharpener import Sharpener
from instil.training.step import Loss, Step
from instil.training.trainable import Trainee, some
from instil.training.weighing import slots, spread


@dataclass(frozen=True)
class Window:
    """The examples of one optimiser step, on all ranks together."""

    members: tuple[int, ...]


class Windows(Dataset[Window]):
    """The windows of the current epoch; a pure function of the seed, the epoch and the weights that are in force, so a
    resumed run sees the same."""

    def __init__(self, examples: Sequence[Example], config: TrainConfig) -> None:
        self.lengths = [len(example) for example in examples]
        self.keys = [example.key for example in examples]
        self.seed, self.batch_size = config.seed, config.window.get("batch_size", 0)
        phases = [example.phase for example in examples]
        self._plan = partial(epoch_windows, self.lengths, seed=config.seed, phases=phases, **config.window)
        self.start_epoch(0)

    def start_epoch(self, epoch: int, weights: Mapping[str, float] | None = None) -> None:
        """Draw the windows of an epoch; with weights by key (left out: 0), each example as often as they say."""
        if weights is None:
            self._windows = self._plan(epoch=epoch)
            return
        places = slots([weights.get(key, 0.0) for key in self.keys], len(self.keys), self.seed, epoch)
        self._windows = spread(places, self.batch_size, self.seed, epoch)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Window:
        return Window(self._windows[index])


class Batcher:
    """Turns a window into this rank's micro-batches.

    Attributes:
        micro_tokens: most tokens of a micro-batch; halved each time that memory runs out.
    """

    def __init__(self, examples: Sequence[Example], config: TrainConfig, layout: Layout, pad_id: int) -> None:
        self.examples = examples
        self.lengths = [len(example) for example in examples]
        self.keys = [example.key for example in examples]
        self.packed, self.pad_id = layout.packed, pad_id
        self.row_length, self.micro_tokens = config.row_length, config.micro_tokens

    def rows(self, window: Window) -> list[Row]:
        if not self.packed:
            return alone(window.members, self.lengths)
        longest = max(self.lengths[index] for index in window.members)
        most = min(self.row_length, self.micro_tokens)
        return pack(window.members, self.lengths, self.keys, width(longest, most))

    def micro_batches(self, window: Window, rank: int = 0, ranks: int = 1) -> list[MicroBatch]:
        """Raises:
        InputError: no token of the window has a loss.
        """
        total = sum(self.examples[index].weight * self.examples[index].targets for index in window.members)
        if not total:
            keys = ", ".join(self.keys[index] for index in window.members[:3])
            raise InputError("a batch without a single token to learn", field="examples", found=f"{keys}, ...")
        hand = deal(self.rows(window), self.lengths, self.micro_tokens, rank, ranks)
        return [collate(rows, self.examples, total_weight=total, pad_id=self.pad_id) for rows in hand.micro_batches]

    def halve(self, micro_batches: Sequence[MicroBatch]) -> bool:
        """Allow half the tokens of the largest micro-batch; false when that was a single example already."""
        largest = max((batch.computed for batch in micro_batches), default=0)
        if all(batch.ids_BT.shape[0] == 1 and not batch.packed for batch in micro_batches):
            return False
        self.micro_tokens = max(1, min(self.micro_tokens, largest) // 2)
        return True


class Engine(Trainer):
    """See the module's text. `bare` is the model without wrappers; `remembered` gives what a checkpoint must hold
    beside the Trainer's own state, `progress` how much of the run is over (0 to 1), and `rate` the learning rate behind
    so many steps, as a share of the highest. `step_flops` are operations of the optimiser itself, a step."""

    objective: Objective | None
    touched: set[str]

    def __init__(
        self,
        trainee: Trainee,
        bare: Any,
        arguments: TrainingArguments,
        *,
        windows: Windows,
        batcher: Batcher,
        layout: Layout,
        step: Step,
        sharpener: Sharpener | None,
        objective: Objective | None,
        ending: Ending,
        muon: bool,
        value_rate: float,
        meter: Meter,
        callbacks: list[TrainerCallback],
        remembered: Callable[[], dict[str, Any]],
        progress: Callable[[], float],
        rate: Callable[[int], float],
    ) -> None:
        super().__init__(model=trainee.model, args=arguments, train_dataset=windows, callbacks=callbacks)
        self.remove_callback(PrinterCallback)
        self.bare, self.trainee, self.windows, self.batcher, self.layout = bare, trainee, windows, batcher, layout
        self.step, self.objective, self.meter, self.remembered = step, objective, meter, remembered
        self.sharpener, self.ending, self.progress, self.rate = sharpener, ending, progress, rate
        self.muon, self.value_rate, self.step_flops = muon, value_rate, 0.0
        self.touched: set[str] = set()
        self.useful_tokens = self.target_tokens = self.computed_tokens = 0
        self.last_loss = self.last_learning_rate = 0.0
        self.notes: list[str] = []

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        # Not given to accelerate, which would deal whole windows to the ranks and so change the batch.
        return DataLoader(self.windows, batch_size=1, sampler=SequentialSampler(self.windows), collate_fn=_only)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # the meter counts

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        from instil.training.muon import Muon, muon
        from instil.training.values import with_values_apart

        if self.muon:
            decayed = self.get_decay_parameter_names(self.trainee.model)
            self.optimizer = muon(self.trainee.model, self.trainee.trained, decayed, self.args)
        else:
            super().create_optimizer(model)
        assert self.optimizer is not None
        with_values_apart(self.optimizer, self.trainee.model, self.value_rate)
        self.step_flops = self.optimizer.flops if isinstance(self.optimizer, Muon) else 0.0
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        chosen = optimizer or self.optimizer
        assert chosen is not None, "the Trainer creates its optimiser first"
        self.lr_scheduler = LambdaLR(chosen, self.rate)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- one window ----

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        model.train()
        with self.meter.counting(self.trainee.model, "training"):
            loss = self._window(model, inputs)
        self.meter.charge("training", self.step_flops)
        if not torch.isfinite(loss):
            raise RunFailed(f"the loss became {float(loss)} at step {self.state.global_step + 1}")
        self.touched.update(name for name, p in self.trainee.trained.items() if p.grad is not None)
        self.last_loss, self.last_learning_rate = float(loss), float(self._get_learning_rate())
        if self.sharpener is not None and (warning := self.sharpener.warning(self.state.global_step + 1)):
            self.notes.append(warning)
        return loss

    def _window(self, model: nn.Module, window: Window) -> Tensor:
        ranks, rank = self.args.world_size, self.args.process_index
        while True:
            own = self.batcher.micro_batches(window, rank, ranks)
            batches = [*own, *self._objective_batches(rank, ranks)]
            try:
                moved = [batch.to(self.args.device) for batch in batches]
                step = self._step(model)
                loss = step(model, moved, self._loss(ranks), quiet=partial(self.accelerator.no_sync, model))
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._give_way(error, batches, ranks)
                model.zero_grad(set_to_none=True)
        self.useful_tokens += sum(self.batcher.lengths[index] for index in window.members)
        self.target_tokens += sum(self.batcher.examples[index].targets for index in window.members)
        computed = torch.tensor(float(sum(batch.computed for batch in own)))
        if ranks > 1:
            torch.distributed.all_reduce(loss)
            loss = loss / ranks  # each rank holds its share, times `ranks` (see `_loss`)
            computed = computed.to(self.args.device)
            torch.distributed.all_reduce(computed)
        self.computed_tokens += int(computed)
        return loss

    def _step(self, model: nn.Module) -> Step:
        if self.sharpener is None:
            return self.step
        if not self.touched:
            self.sharpener.check_wrapping(model, deepspeed=bool(self.is_deepspeed_enabled))
        return self.sharpener.at(self.state.global_step, self.progress(), self.optimizer)

    def _objective_batches(self, rank: int, ranks: int) -> Sequence[MicroBatch]:
        if self.objective is None:
            return []
        drawn = self.objective.micro_batches(
            self.state.global_step,
            row_length=self.batcher.row_length,
            micro_tokens=self.batcher.micro_tokens,
            rank=rank,
            ranks=ranks,
        )
        return [replace(batch, term="objective") for batch in drawn]

    def _loss(self, ranks: int) -> Loss:
        """The loss of the examples for their micro-batches, the objective's for the others.

        Gradients are averaged over ranks while the loss is divided by the target tokens of all of them: times `ranks`.
        """

        def loss(model: nn.Module, batch: MicroBatch) -> Tensor:
            with quickest_attention(self.bare, batch, self.layout.reading):
                if batch.term == "objective" and self.objective is not None:
                    share = self.objective.loss(model, batch)
                else:
                    share = share_of_loss(model, batch, self.layout.reading)
            if not share.requires_grad:
                asked = some(list(self.trainee.trained))
                raise InputError("asked to train what the loss does not reach", field="parameters", found=asked)
            return ranks * share

        return loss

    def _give_way(self, error: BaseException, batches: Sequence[MicroBatch], ranks: int) -> None:
        if ranks > 1:
            raise RunFailed(f"out of memory on one of {ranks} ranks; give a smaller micro_tokens: {error}") from error
        before = self.batcher.micro_tokens
        if not self.batcher.halve(batches):
            raise RunFailed(f"out of memory with a single example in the forward pass: {error}") from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.notes.append(
            f"out of memory at step {self.state.global_step + 1}: micro-batches of {self.batcher.micro_tokens} tokens "
            f"instead of {before}, same optimiser step"
        )

    # ---- checkpoints ----

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._draft or super()._get_output_dir(trial))

    _draft: Path | None = None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's checkpoint, put together in a draft folder that gets its name when it is complete."""
        folder, name = Path(str(self.args.output_dir)), f"checkpoint-{self.state.global_step}"
        with checkpoints.writing("a checkpoint", folder), self._drafting(folder):
            super()._save_checkpoint(model, trial)
            draft = checkpoints.draft_folder(folder) / name
            if self.args.should_save:
                self.ending.save(draft)
            if self.sharpener is not None:
                self.sharpener.save(draft, self.args.process_index, sharded=bool(self.is_fsdp_enabled))
            if self.args.world_size > 1:
                torch.distributed.barrier()
            remembered = self.remembered()  # on all ranks: it sums over them
            if self.args.should_save:
                write_sealed(checkpoints.draft_folder(folder) / name / checkpoints.STATE, remembered)
                checkpoints.publish(folder, name)
            if self.args.world_size > 1:
                torch.distributed.barrier()

    @contextmanager
    def _drafting(self, folder: Path) -> Iterator[None]:
        self._draft = checkpoints.draft_folder(folder)
        try:
            yield
        finally:
            self._draft = None

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what is trained; the rest is the starting model's."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            checkpoints.save_weights(self.trainee.trained, Path(str(output_dir)) / checkpoints.WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            checkpoints.load_weights(self.trainee.trained, Path(resume_from_checkpoint) / checkpoints.WEIGHTS)


def _only(batch: list[Any]) -> Any:
    return batch[0]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or in the CPU's allocator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
