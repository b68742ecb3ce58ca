"""One cell of the study: documents in some form, trained on in some way, within a budget; then all that is measured."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

import instil
from instil.augment import ordinary_ids, token_noise
from instil.facts import Corpus, FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.methods import get
from instil.model import LanguageModel, save
from instil.training import Budget, Decision, Example, Meter, Stage, train
from instil.training.stopping import Progress


class Cell(BaseModel):
    """One way to teach, all but its learning rate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="how tables call it")
    method: Literal["generalize", "pit"] = Field(default="generalize", description="a method of Instil")
    settings: dict[str, Any] = Field(default_factory=dict, description="of the method")
    noise: float = Field(default=0.0, description="share of the tokens replaced in all copies but the first")
    sharpness: dict[str, Any] | None = Field(default=None, description="of training; ρ comes from tuning")
    compute: float = Field(default=1.0, description="share of the budget")
    like: str = Field(default="", description="the cell whose rate and ρ it takes; by default its own")
    rate_factor: float = Field(default=1.0, description="on that rate")

    @property
    def tuned_as(self) -> str:
        return self.like or self.name


class Tuned(BaseModel):
    """What is chosen on development people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float
    rho: float | None = None


class Material(Protocol):
    """What is taught, and how it is examined."""

    @property
    def base(self) -> str | Path: ...

    @property
    def documents(self) -> Corpus: ...

    @property
    def practice(self) -> FactSet: ...

    @property
    def practice_documents(self) -> Corpus: ...

    def look(self, lm: LanguageModel) -> dict[str, float]:
        """A quick look, for a point of the curve."""

    def examine(self, lm: LanguageModel) -> dict[str, Any]:
        """All that is measured, at the end."""


def run(
    cell: Cell, tuned: Tuned, data: Material, *, budget: float, batch: int, points: int, seed: int, keep: Path | None
) -> dict[str, Any]:
    """Teach one cell and measure it.

    Args:
        budget: operations that a cell of compute 1 may spend.
        batch: examples an optimiser step.
        points: of the curve over the whole budget.
        keep: where the model at each of these points, and at the end, is kept.
    """
    started = time.monotonic()
    base = instil.load(data.base)
    meter, limit = Meter(), cell.compute * budget
    watch = Watch(data, meter, budget / points, keep)
    work, notes, sharp = Path(tempfile.mkdtemp()), [], []
    try:
        stages = plan(cell, tuned, data, batch, seed)
        examples = [noisy(cell, stage.examples(base.prompts, base.context_window), base, seed) for stage in stages]
        reserved = [
            0.0 if is_taught(stage) else cost_of(base, stage, found)
            for stage, found in zip(stages, examples, strict=True)
        ]
        for number, (stage, found) in enumerate(zip(stages, examples, strict=True)):
            left = limit - sum(reserved[number + 1 :])
            result = train(
                base,
                found,
                stage.training,
                out=work / str(number),
                stop=watch,
                meter=meter,
                budget=Budget(flops=left) if is_taught(stage) else None,
            )
            notes += result.notes
            sharp += [point["move_cosine"] for point in result.points if point.get("move_cosine") is not None]
            watch.tokens += result.tokens
        save(base, work / "taught", "bfloat16")
        if keep is not None:
            shutil.copytree(work / "taught", keep / "end", dirs_exist_ok=True)
        taught = instil.load(work / "taught")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        **data.examine(taught),
        "curve": watch.curve,
        "flops": meter.total,
        "tokens": watch.tokens,
        "loss": result.loss,
        "move_cosine": sum(sharp) / len(sharp) if sharp else None,
        "notes": notes,
        "seconds": round(time.monotonic() - started, 1),
    }


def is_taught(stage: Stage) -> bool:
    """Whether it has the documents that are taught. Such a stage gets what is left of the budget; the others, practice,
    run for their planned epochs, which are few."""
    return any(document.role is not Role.PRACTICE for document in stage.documents)


def cost_of(lm: LanguageModel, stage: Stage, examples: Sequence[Example]) -> float:
    """About the operations of a stage: six for each weight and token (forward two, backward four), and what
    sharpness-aware steps multiply. Attention comes on top; the output layer is not computed where there is no loss."""
    sharpness = stage.training.sharpness
    weights = sum(parameter.numel() for parameter in lm.model.parameters())
    tokens = stage.training.epochs * sum(map(len, examples))
    return 6.0 * weights * tokens * (1.0 if sharpness is None else sharpness.cost_multiple)


def plan(cell: Cell, tuned: Tuned, data: Material, batch: int, seed: int) -> Sequence[Stage]:
    """The stages of the cell's method, as `instil teach` would follow them."""
    sharpness = None if cell.sharpness is None else dict(cell.sharpness)
    if sharpness is not None and tuned.rho is not None:
        sharpness.setdefault("rho", tuned.rho)
    train_settings = {
        "epochs": 1000,  # the budget ends it
        "learning_rate": tuned.rate * cell.rate_factor,
        "schedule": "linear",
        "batch_size": batch,
        "sharpness": sharpness,
        "save_every": "never",
        "seed": seed,
    }
    method = get(cell.method)
    assert method.plan is not None, f"{cell.method} has no plan"
    roles = Roles(practice=data.practice, documents=data.documents)
    if cell.method == "pit":
        roles = replace(roles, practice_documents=data.practice_documents)
    chosen = {**cell.settings, "train": train_settings}
    if cell.method == "generalize":
        chosen = {"recipe": "paper", **chosen}
    return method.plan(roles, method.settings(chosen))


def noisy(cell: Cell, examples: Sequence[Example], lm: LanguageModel, seed: int) -> list[Example]:
    """With noise in what is read (never in what is to be predicted) of all examples but the first of each document."""
    if not cell.noise:
        return list(examples)
    special = set(lm.tokenizer.all_special_ids)
    vocabulary = ordinary_ids(int(lm.model.config.vocab_size), special)
    seen: set[str] = set()
    made = []
    for number, example in enumerate(examples):
        first = example.key not in seen
        seen.add(example.key)
        ids = example.input_ids
        if not first:
            ids = token_noise(ids, cell.noise, vocabulary, key=f"{example.key} {number}", seed=seed, keep=special)
        made.append(replace(example, input_ids=ids))
    return made


class Watch:
    """Looks at the model whenever another part of the budget is spent, and never stops it. What it looks at costs the
    cell nothing: it is the study that wants to know."""

    def __init__(self, data: Material, meter: Meter, every: float, keep: Path | None = None) -> None:
        self.data, self.meter, self.every, self.keep = data, meter, every, keep
        self.curve: list[dict[str, float]] = []
        self.tokens = 0

    def __call__(self, progress: Progress) -> Decision:
        if self.meter.total >= self.every * (len(self.curve) + 1):
            self.curve.append(
                {
                    "flops": self.meter.total,
                    "tokens": self.tokens + progress.tokens,
                    "loss": progress.loss,
                    **self.data.look(progress.model),
                }
            )
            if self.keep is not None:
                save(progress.model, self.keep / f"point-{len(self.curve)}", "bfloat16")
        return Decision()
