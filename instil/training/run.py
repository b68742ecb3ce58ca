"""`train`: one call from examples to trained weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.errors import InputError
from instil.files import fingerprint, is_draft, read_sealed, refuse_broken, seal, write_text
from instil.training import checkpoints
from instil.training.config import Budget, TrainConfig
from instil.training.corrections import Correction
from instil.training.course import Course, Memory, undisturbed
from instil.training.examples import Example
from instil.training.meter import Meter
from instil.training.objectives import Objective
from instil.training.step import Step, plain_step
from instil.training.stopping import Decision, Stop, Watch
from instil.training.trainable import Trainee, merge, some, trainee
from instil.training.weighing import Weigh, refuse_unfit

FINAL, RESULT = "final.safetensors", "result.json"


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes:
        model: the model that was given, now with the trained weights (fp32; adapters merged), in evaluation mode.
        epochs: finished passes, each over as many examples as there are; one that the budget cut short does not count.
        steps: optimiser steps.
        loss: mean over the last epoch's steps; None where there was no step.
        tokens: tokens read, without padding; `target_tokens` of them had a loss, `computed_tokens` includes padding.
        ended_by: "epochs", "stop", "budget" or "weights": `weigh` gave no example a weight, nothing is left to learn.
        best_epoch: the epoch whose weights the model has, when `stop` named one and it was restored.
        points: the learning curve, as given to `log`.
        decisions: what `stop` answered at each epoch's end.
        cost: operations, tokens and seconds by purpose, of this run alone.
        packed: whether rows held several examples.
        autocast: dtype of the forward pass, such as "bfloat16", or None.
        micro_tokens: most tokens of a forward pass at the end; less than configured when memory ran out.
        trained_parameters: number of weights that the optimiser had.
        notes: everything that was not as asked for, in words.
        adapter: folder of the adapter by itself, when it was to be kept.
    """

    model: Any
    epochs: int
    steps: int
    loss: float | None
    tokens: int
    target_tokens: int
    computed_tokens: int
    ended_by: str
    best_epoch: int | None
    points: tuple[dict[str, float], ...]
    decisions: tuple[Decision, ...]
    cost: dict[str, dict[str, float]]
    packed: bool
    autocast: str | None
    micro_tokens: int
    trained_parameters: int
    notes: tuple[str, ...]
    adapter: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """All but the model, as plain values."""
        plain = {name: value for name, value in vars(self).items() if name != "model"}
        plain["decisions"] = [decision.to_dict() for decision in self.decisions]
        plain["adapter"] = None if self.adapter is None else str(self.adapter)
        return plain | {"points": list(self.points), "notes": list(self.notes)}

    @staticmethod
    def from_dict(plain: dict[str, Any], model: Any) -> TrainResult:
        decisions = tuple(Decision(**decision) for decision in plain["decisions"])
        adapter = None if plain["adapter"] is None else Path(plain["adapter"])
        settled = {"decisions": decisions, "points": tuple(plain["points"]), "notes": tuple(plain["notes"])}
        return TrainResult(**(plain | settled | {"adapter": adapter}), model=model)


def train(
    lm: Any,
    examples: Sequence[Example],
    config: TrainConfig | None = None,
    *,
    out: str | Path,
    stop: Stop | None = None,
    watch: Watch | None = None,
    weigh: Weigh | None = None,
    objective: Objective | None = None,
    corrections: Sequence[Correction] = (),
    step: Step = plain_step,
    budget: Budget | None = None,
    meter: Meter | None = None,
    resume: bool = True,
    log: Callable[[dict[str, float]], None] | None = None,
) -> TrainResult:
    """Train `lm` on `examples`, in place.

    The loss of an optimiser step is the mean negative log-probability per target token (weighted by the examples'
    weights) over its whole window. With the same input it gives the same weights, bit for bit, whether or not it was
    interrupted in between.

    Args:
        lm: a `LanguageModel`: its `.model` is trained, `.tokenizer` gives the padding token, `.context_window` the
            longest row. After the run the weights are fp32.
        out: folder for checkpoints and, at the end, the result; a run that is finished there is not run again. Remove
            it when it is no longer needed.
        stop: called at each epoch's end; see `instil.training.stopping`.
        watch: is shown the same as `stop`, before it, at the end of every whole epoch; can end nothing, and what it
            computes is not charged. Not called again for epochs that a resumed run does not train again; those behind
            the last checkpoint are trained again, to the same weights, and shown again.
        weigh: says, before the first epoch and after each that another follows (behind `watch` and `stop`), with which
            weight each example's key occurs in the next one. An epoch has as many examples as before: one with the
            mean weight occurs once, one with twice that twice, one with weight 0 not at all; what is between is drawn
            (see `instil.training.weighing`). With equal weights everything is as without it, bit for bit. All weights
            zero end the run. What it computes is charged by whoever gives it. A run that is resumed from a checkpoint
            goes on with the weights that were in force there, without asking again.
        objective: a term that is added to the loss.
        corrections: what is done to every update behind the optimiser, in this order.
        step: how a window becomes gradients.
        budget: ends the run at the optimiser step that reaches it.
        meter: is charged with all that is computed, under "training" and "teacher".
        resume: go on from the last checkpoint in `out`, if there is one. False starts anew and deletes what is there.
        log: is given a point of the learning curve every `config.log_every` steps and at each epoch's end: epoch, step,
            tokens, flops, seconds (of this run), loss (mean since the point before), learning_rate; with
            `config.sharpness` also move_norm, move_intended and move_cosine of the last measured move of the weights.

    Raises:
        InputError: no examples, one without a target or longer than the context window, a parameter or layer that does
            not exist or was not reached by the loss, `peft` missing, `step` and `config.sharpness` both given, `weigh`
            with `config.batch_tokens` or with examples of several phases, a weight that is negative, not finite or for
            a key that no example has, or `out` holds another run.
        RunFailed: the loss is no number any more, memory does not suffice for one example, a file cannot be written,
            or a frozen weight changed. The last checkpoint stays.
    """
    config = config or TrainConfig()
    _check(lm, examples)
    if weigh is not None:
        refuse_unfit(config, examples)
    folder = Path(out)
    meter = meter if meter is not None else Meter()
    if config.sharpness is not None and step is not plain_step:
        raise InputError("give train.sharpness or a step function, not both", field="step", found=repr(step))
    identity = _identity(lm, examples, config, objective, budget, step, corrections, weighed=weigh is not None)
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    _claim(folder, identity)
    with undisturbed(lm.model), trainee(lm.model, config) as ready:
        if (folder / RESULT).is_file():
            return _finished(lm, ready, config, folder, meter)
        course = Course(lm, ready, folder, config, meter, stop=stop, watch=watch, weigh=weigh, budget=budget, log=log)
        course.run(examples, objective, step, corrections)
        return _finish(course)


def _check(lm: Any, examples: Sequence[Example]) -> None:
    if not examples:
        raise InputError("there is nothing to train on", field="examples", found="0 examples")
    if silent := [example.key for example in examples if not example.targets]:
        raise InputError(
            f"{len(silent)} of {len(examples)} examples have no token to learn", field="examples", found=some(silent)
        )
    longest = max(examples, key=len)
    if len(longest) > lm.context_window:
        raise InputError(
            f"{longest.key} is longer than the model's context window",
            field="examples",
            found=f"{len(longest)} tokens",
            expected=f"at most {lm.context_window}",
        )


def _identity(
    lm: Any,
    examples: Sequence[Example],
    config: TrainConfig,
    objective: Objective | None,
    budget: Budget | None,
    step: Step,
    corrections: Sequence[Correction],
    *,
    weighed: bool,
) -> str:
    """What a resumed run must share with the interrupted one. Settings that cannot change the result are left out."""
    free = {"save_every", "save_seconds", "log_every", "report_to"}
    return fingerprint(
        [
            lm.fingerprint,
            config.model_dump_json(exclude=free),
            budget.model_dump_json() if budget else "",
            repr(objective.describe()) if objective else "",
            getattr(step, "__name__", type(step).__name__),
            *(["weighed"] if weighed else []),
            *(repr(correction.describe()) for correction in corrections),
            *(repr((e.input_ids, e.labels, e.key, e.weight, *([e.phase] if e.phase else []))) for e in examples),
        ]
    )


def _claim(folder: Path, identity: str) -> None:
    """Raises:
    InputError: the folder holds another training run.
    """
    note = folder / "run"
    if note.is_file():
        if note.read_text(encoding="utf-8").strip() != identity:
            raise InputError("the folder holds another training run (other model, examples or settings)", file=folder)
    elif folder.exists() and not all(map(is_draft, folder.iterdir())):
        raise InputError("the folder is not empty and holds no training run", file=folder)
    with checkpoints.writing("the run's name", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not note.is_file():  # A note that was cut off half way would make the folder another run's.
            write_text(note, identity + "\n")
        checkpoints.discard_draft(folder)


def _finish(course: Course) -> TrainResult:
    """Settle on the weights, prove what was and was not trained, write the result, clear the checkpoints away."""
    memory, ready, config, folder = course.memory, course.ready, course.config, course.folder
    last = len(memory.epoch_losses)
    restored = memory.best_epoch if config.restore_best else None
    if restored is not None and restored != last:
        course.load_best(restored)
    else:
        course.ending.settle()
    if memory.steps:
        course.check_reached()
    ready.check_frozen()
    adapter = folder / "adapter" if config.adapter is not None and config.adapter.keep else None
    result = TrainResult(
        model=course.lm,
        epochs=last,
        steps=memory.steps,
        loss=_last_loss(memory),
        tokens=memory.useful_tokens,
        target_tokens=memory.target_tokens,
        computed_tokens=memory.computed_tokens,
        ended_by=memory.ended_by or "epochs",
        best_epoch=restored,
        points=tuple(memory.points),
        decisions=tuple(memory.decisions),
        cost=memory.cost,
        packed=course.layout.packed,
        autocast=None if course.layout.reading.autocast is None else str(course.layout.reading.autocast).split(".")[1],
        micro_tokens=memory.micro_tokens,
        trained_parameters=ready.size,
        notes=tuple(memory.notes),
        adapter=adapter,
    )
    with checkpoints.writing("the result", folder):
        if config.save_every != "never" and course.is_main:
            checkpoints.save_weights(ready.trained, folder / FINAL)
            seal(folder / RESULT, [folder / FINAL], **result.to_dict())
        if course.is_main:
            checkpoints.clear(folder)
    if config.adapter is not None:
        with checkpoints.writing("the adapter", folder):
            merge(ready.model, adapter if course.is_main else None)
    return result


def _last_loss(memory: Memory) -> float | None:
    if memory.epoch_losses:
        return memory.epoch_losses[-1]
    return memory.points[-1]["loss"] if memory.points else None


def _finished(lm: Any, ready: Trainee, config: TrainConfig, folder: Path, meter: Meter) -> TrainResult:
    refuse_broken(folder / RESULT, folder)
    checkpoints.load_weights(ready.trained, folder / FINAL)
    if config.adapter is not None:
        merge(ready.model, None)
    plain = read_sealed(folder / RESULT)
    plain.pop("files")
    result = TrainResult.from_dict(plain, lm)
    meter.add(result.cost)
    return result
