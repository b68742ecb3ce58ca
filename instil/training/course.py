"""The course of one run: the Trainer set up, what is remembered across a resume, and what happens between steps."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState

from instil.errors import InputError, RunFailed
from instil.files import fingerprint_file
from instil.training import checkpoints
from instil.training.config import Budget, TrainConfig
from instil.training.corrections import Correction
from instil.training.ending import Ending
from instil.training.engine import Batcher, Engine, Windows
from instil.training.examples import Example
from instil.training.layout import Layout, choose
from instil.training.meter import Meter
from instil.training.objectives import Objective
from instil.training.precision import autocast_dtype
from instil.training.recomputing import recomputing
from instil.training.sharpness.sharpener import Sharpener
from instil.training.step import Step
from instil.training.stopping import Decision, Progress, Stop, Watch
from instil.training.trainable import Trainee, some
from instil.training.weighing import Weigh, checked

Answer = TypeVar("Answer")


@dataclass
class Memory:
    """What a run remembers across a resume, beside weights, optimiser and random states."""

    points: list[dict[str, float]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    cost: dict[str, dict[str, float]] = field(default_factory=dict)
    steps: int = 0
    useful_tokens: int = 0
    target_tokens: int = 0
    computed_tokens: int = 0
    micro_tokens: int = 0
    best_epoch: int | None = None
    best_mark: str | None = None
    ended_by: str | None = None
    epoch_losses: list[float] = field(default_factory=list)
    losses_of_epoch: list[float] = field(default_factory=list)
    losses_of_point: list[float] = field(default_factory=list)
    sharpness: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] | None = None

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Memory:
        return Memory(**(plain | {"decisions": [Decision(**decision) for decision in plain["decisions"]]}))


class Course(TrainerCallback):
    """One run of `train`, from the first step (or the last checkpoint) to the last."""

    layout: Layout
    engine: Engine
    ending: Ending
    corrections: tuple[Correction, ...] = ()

    def __init__(
        self,
        lm: Any,
        ready: Trainee,
        folder: Path,
        config: TrainConfig,
        meter: Meter,
        *,
        stop: Stop | None,
        watch: Watch | None,
        weigh: Weigh | None,
        budget: Budget | None,
        log: Callable[[dict[str, float]], None] | None,
    ) -> None:
        self.lm, self.ready, self.folder, self.config, self.meter = lm, ready, folder, config, meter
        self.stop, self.watch, self.weigh = stop, watch, weigh
        self.budget, self.log = budget or Budget(), log
        self.memory = Memory()
        self._before = meter.to_dict()
        self._saved_at = time.monotonic()

    def run(
        self,
        examples: Sequence[Example],
        objective: Objective | None,
        step: Step,
        corrections: Sequence[Correction] = (),
    ) -> None:
        """Set up the Trainer and let it run to the end, from the last checkpoint if there is one."""
        config, model = self.config, self.ready.model
        autocast = autocast_dtype(config.precision, self.lm.device)
        self.layout = choose(
            model, int(self.lm.model.config.get_text_config().vocab_size), autocast, packing=config.packing
        )
        pad_id = _padding(self.lm)
        if self.ready.setup_flops:
            self.meter.charge("training", self.ready.setup_flops)
        if objective is not None:
            objective.prepare(model, self.layout, self.meter, pad_id)
        self.corrections = tuple(corrections)
        for correction in self.corrections:
            correction.prepare(model, self.layout, self.meter, pad_id)
        self.ending = Ending(config, self.ready.trained)
        windows = Windows(examples, config)
        use_cache = getattr(self.lm.model.config, "use_cache", True)
        self.engine = Engine(
            self.ready,
            self.lm.model,
            self._arguments(len(windows)),
            windows=windows,
            batcher=Batcher(examples, config, self.layout, pad_id),
            layout=self.layout,
            step=step,
            sharpener=None
            if config.sharpness is None
            else Sharpener(config.sharpness, model, seed=config.seed, autocast=autocast),
            objective=objective,
            ending=self.ending,
            muon=config.optimizer == "muon",
            value_rate=config.value_rate,
            meter=self.meter,
            callbacks=[self],
            remembered=self.remembered,
            progress=self.progress,
            rate=self.rate,
        )
        if self.engine.is_fsdp_enabled and not (self.ending.is_last and config.optimizer == "adamw"):
            raise InputError(
                "muon, average and mix do not work on sharded weights", field="train", expected="replicas (DDP)"
            )
        self.lm.model.config.use_cache = use_cache  # the Trainer turns it off, but `stop` may generate
        self.memory.notes += self.layout.notes
        checkpoint = checkpoints.latest(self.folder)
        if checkpoint is not None:
            checkpoints.refuse_damaged(checkpoint)
            self._recall(checkpoint)
        elif self.weigh is not None:
            self._weigh(self.weigh)
        with self.meter.timing("training"), recomputing(self.lm.model, config.gradient_checkpointing):
            if not self.memory.ended_by:
                self.engine.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        self._update()
        if self.engine.args.world_size > 1:
            self._set_meter(self.memory.cost)  # every rank's meter says what all have spent
        if self.meter.uncounted:
            self.memory.notes.append(f"operations not counted: {', '.join(sorted(self.meter.uncounted))}")

    def _arguments(self, windows: int) -> TrainingArguments:
        config, cpu = self.config, self.lm.device.type == "cpu"
        arguments = TrainingArguments(
            output_dir=str(self.folder),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            num_train_epochs=config.epochs,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            adam_beta1=config.betas[0],
            adam_beta2=config.betas[1],
            adam_epsilon=config.epsilon,
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch_fused",
            seed=config.seed,
            use_cpu=cpu,
            report_to=list(config.report_to) or "none",
            logging_strategy="steps" if config.report_to else "no",
            logging_steps=config.log_every,
            # A stage may have fewer steps than that, and a tracker would be told no loss at all.
            logging_first_step=bool(config.report_to),
            logging_nan_inf_filter=False,
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            ddp_find_unused_parameters=False,
            ddp_backend="gloo" if cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        )
        arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs are used by several processes, never by DataParallel
        return arguments

    # ---- how far it is ----

    def progress(self) -> float:
        """From 0 to 1: by the planned steps, or by the budget of operations where that will end the run sooner."""
        return max(self._share_of_steps(self.engine.state.global_step), self._share_of_budget())

    def rate(self, step: int) -> float:
        """The learning rate behind `step` steps, as a share of the highest."""
        config, planned = self.config, self.config.epochs * len(self.engine.windows)
        warmup = round(config.warmup_ratio * planned)
        if step < warmup:
            return step / warmup
        if config.schedule == "constant":
            return 1.0
        done, spent = (step - warmup) / max(1, planned - warmup), self._share_of_budget()
        if spent > self._share_of_steps(step):  # the budget will end the run
            done = max(done, spent)
        return max(0.0, 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * min(1.0, done))) / 2)

    def _share_of_steps(self, step: int) -> float:
        return step / (self.config.epochs * len(self.engine.windows))

    def _share_of_budget(self) -> float:
        """What is spent of the operations that this run may spend. A clock is not asked: it would never run alike."""
        if self.budget.flops is None:
            return 0.0
        spent = sum(purpose["flops"] for purpose in self.cost().values())
        allowed = self.budget.flops - Meter.from_dict(self._before).total
        return min(1.0, spent / allowed) if allowed > 0 else 1.0

    @property
    def is_main(self) -> bool:
        return bool(self.engine.args.should_save)

    def best_file(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.safetensors"

    def cost(self) -> dict[str, dict[str, float]]:
        """What this run has cost so far, all purposes: operations and tokens of all ranks, seconds of the slowest.

        To be called by all ranks together.
        """
        return _over_ranks(self.meter.since(self._before))

    def _set_meter(self, cost: dict[str, dict[str, float]]) -> None:
        spent = Meter.from_dict(self._before)
        spent.add(cost)
        self.meter.set_to(spent.to_dict())

    # ---- memory ----

    def _update(self) -> None:
        engine, memory = self.engine, self.memory
        memory.steps, memory.micro_tokens = engine.state.global_step, engine.batcher.micro_tokens
        memory.useful_tokens, memory.target_tokens = engine.useful_tokens, engine.target_tokens
        memory.computed_tokens, memory.touched = engine.computed_tokens, sorted(engine.touched)
        memory.notes += [note for note in engine.notes if note not in memory.notes]
        memory.cost = self.cost()
        if engine.sharpener is not None:
            memory.sharpness = engine.sharpener.remembered()

    def remembered(self) -> dict[str, Any]:
        self._update()
        return asdict(self.memory)

    def _recall(self, checkpoint: Path) -> None:
        engine = self.engine
        self.memory = memory = Memory.from_dict(checkpoints.read_state(checkpoint))
        engine.batcher.micro_tokens, engine.touched = memory.micro_tokens, set(memory.touched)
        engine.useful_tokens, engine.target_tokens = memory.useful_tokens, memory.target_tokens
        engine.computed_tokens = memory.computed_tokens
        if engine.sharpener is not None:
            engine.sharpener.recall(memory.sharpness)
            sharded = bool(engine.is_fsdp_enabled)
            engine.sharpener.load(checkpoint, engine.args.process_index, self.ready.model, sharded=sharded)
        self.ending.load(checkpoint)
        self._set_meter(memory.cost if engine.args.process_index == 0 else {})

    # ---- between steps ----

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        epoch = state.global_step // len(self.engine.windows)
        self.engine.windows.start_epoch(epoch, self.memory.weights)

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for correction in self.corrections:
            correction.before(self.ready.trained)

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for correction in self.corrections:
            correction.after(self.ready.trained)
        self.ending.moved(state.global_step + 1)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        memory, config = self.memory, self.config
        memory.losses_of_epoch.append(self.engine.last_loss)
        memory.losses_of_point.append(self.engine.last_loss)
        if state.global_step % config.log_every == 0:
            self._point(state)
        if self._spent():
            memory.ended_by = "budget"
            control.should_training_stop = True
        within = state.global_step % len(self.engine.windows) != 0  # at an epoch's end, `stop` is heard before saving
        if isinstance(config.save_every, int) and within and not memory.ended_by:
            control.should_save = state.global_step % config.save_every == 0 and self._time_to_save()

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        memory = self.memory
        if memory.losses_of_point:
            self._point(state)
        if state.global_step % len(self.engine.windows) != 0:
            control.should_save = False  # the budget ended the epoch early
            return
        memory.epoch_losses.append(_mean(memory.losses_of_epoch))
        memory.losses_of_epoch.clear()
        if len(memory.epoch_losses) == 1:
            self.check_reached()
        if self.watch is not None or self.stop is not None:
            self._look(control)
        ending = control.should_training_stop or len(memory.epoch_losses) >= self.config.epochs
        if self.weigh is not None and not ending:
            self._weigh(self.weigh)
            ending = control.should_training_stop = memory.ended_by is not None
        control.should_save = not ending and self.config.save_every != "never" and self._time_to_save()

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()
        self._prune_best()

    def _look(self, control: TrainerControl) -> None:
        """Let `watch` see the model, then `stop` decide."""
        progress = self._progress()
        self.lm.model.eval()
        with self.ending.shown():
            if self.watch is not None:
                with undisturbed(self.lm.model), self.meter.timing(None):
                    self.watch(progress)
            if self.stop is not None:
                self._decide(progress, self.stop, control)

    def _progress(self) -> Progress:
        memory = self.memory
        self._update()
        training = memory.cost.get("training", {})
        return Progress(
            epoch=len(memory.epoch_losses),
            step=memory.steps,
            loss=memory.epoch_losses[-1] if memory.epoch_losses else math.nan,
            tokens=self.engine.useful_tokens,
            flops=training.get("flops", 0.0),
            seconds=training.get("seconds", 0.0),
            model=self.lm,
            history=tuple(memory.decisions),
            keys=tuple(dict.fromkeys(self.engine.windows.keys)),
        )

    def _decide(self, progress: Progress, stop: Stop, control: TrainerControl) -> None:
        memory = self.memory
        with undisturbed(self.lm.model), self.meter.timing(None):
            answer = stop(progress)
        decision = _agreed(answer if isinstance(answer, Decision) else Decision(stop=bool(answer)))
        memory.decisions.append(decision)
        if decision.best:
            memory.best_epoch, memory.best_mark = progress.epoch, None
            goes_on = not decision.stop and progress.epoch < self.config.epochs
            if self.config.restore_best and goes_on and self.is_main:
                with checkpoints.writing("the best weights", self.folder):
                    checkpoints.save_weights(self.ready.trained, self.best_file(progress.epoch))
                    memory.best_mark = fingerprint_file(self.best_file(progress.epoch))
                if self.config.save_every == "never":
                    self._prune_best()
        if decision.stop:
            memory.ended_by = "stop"
            control.should_training_stop = True

    def _weigh(self, weigh: Weigh) -> None:
        """Have the examples of the epoch to come weighed; end the run when none has a weight."""
        progress = self._progress()
        self.lm.model.eval()
        with self.ending.shown(), undisturbed(self.lm.model), self.meter.timing(None):
            answer = dict(weigh(progress))
        self.memory.weights = checked(_agreed(answer), progress.keys)
        if not self.memory.weights:
            self.memory.ended_by = "weights"

    def _prune_best(self) -> None:
        best = self.memory.best_epoch
        if self.is_main:
            checkpoints.prune_best(self.folder, keep=None if best is None else self.best_file(best))

    def _point(self, state: TrainerState) -> None:
        memory, cost = self.memory, self.cost()
        point = {
            "epoch": state.global_step / len(self.engine.windows),
            "step": state.global_step,
            "tokens": self.engine.useful_tokens,
            "flops": sum(purpose["flops"] for purpose in cost.values()),
            "seconds": sum(purpose["seconds"] for purpose in cost.values()),
            "loss": _mean(memory.losses_of_point),
            "learning_rate": self.engine.last_learning_rate,
            **(self.engine.sharpener.figures() if self.engine.sharpener is not None else {}),
        }
        memory.losses_of_point.clear()
        memory.points.append(point)
        if self.log is not None and self.is_main:
            self.log(point)

    def _spent(self) -> bool:
        flops, seconds = self.budget.flops, self.budget.seconds
        if flops is None and seconds is None:
            return False
        spent = Meter.from_dict(self._before)
        spent.add(self.cost())
        return (flops is not None and spent.total >= flops) or (seconds is not None and spent.total_seconds >= seconds)

    def _time_to_save(self) -> bool:
        # Several ranks save together, so no rank may go by its own clock.
        return self.engine.args.world_size > 1 or time.monotonic() - self._saved_at >= self.config.save_seconds

    def load_best(self, epoch: int) -> None:
        """Put the best epoch's weights back.

        Raises:
            RunFailed: their file is missing, or not as it was written.
        """
        file, mark = self.best_file(epoch), self.memory.best_mark
        if not file.is_file() or (mark is not None and fingerprint_file(file) != mark):
            raise RunFailed(f"{file} is missing or not as it was written; remove {self.folder} and resume")
        checkpoints.load_weights(self.ready.trained, file)

    def check_reached(self) -> None:
        """Every weight that was asked for by name must have had a gradient; of the others a note is made.

        Raises:
            InputError: one asked for had none.
        """
        silent = sorted(set(self.ready.trained) - self.engine.touched)
        if not silent:
            return
        if (self.config.adapter, self.config.parameters, self.config.late_mlp) != (None, None, None):
            raise InputError("asked to train what the loss does not reach", field="parameters", found=some(silent))
        note = f"the loss never reached {some(silent)}"
        if note not in self.memory.notes:
            self.memory.notes.append(note)


def _padding(lm: Any) -> int:
    tokens = (getattr(lm.tokenizer, "pad_token_id", None), getattr(lm.tokenizer, "eos_token_id", None), 0)
    return next(token for token in tokens if token is not None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _over_ranks(cost: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return cost
    told: list[dict[str, dict[str, float]]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(told, cost)
    whole = Meter()
    for share in told:
        whole.add(share)
    slowest = {name: max(share.get(name, {}).get("seconds", 0.0) for share in told) for name in whole.by_purpose}
    return {name: spent | {"seconds": slowest[name]} for name, spent in whole.by_purpose.items()}


def _agreed(answer: Answer) -> Answer:
    """The first rank's answer, on every rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return answer
    told = [answer]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave random states, the cache setting and the evaluation mode as they were found (random) or should be."""
    python, numpy_state = random.getstate(), np.random.get_state()
    config: Any = model.config
    use_cache = getattr(config, "use_cache", True)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
            config.use_cache = use_cache
            model.eval()
