"""What a dry run says, against what a run then takes: memory and disk within a factor of two."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from instil.loop import teach
from instil.loop.footprint import in_use, training_of
from instil.loop.inputs import read_inputs
from instil.model import LanguageModel
from tests.half_taught import SECTIONS, facts, half_taught
from tests.models import tiny_model

FACTOR = 2


@contextmanager
def most(of: Callable[[], int]) -> Iterator[list[int]]:
    """The largest value seen while the block runs, as the only entry of a list."""
    seen, done = [of()], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen[0] = max(seen[0], of())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a draft that got its name
            continue
    return total


def fullest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most that the folder ever held, as the only entry: it is looked at before whatever syncs, renames or removes,
    so nothing depends on how busy the machine is."""
    most_held = [0]

    def watched(function: Any) -> Any:
        def first_look(*arguments: Any, **options: Any) -> Any:
            most_held[0] = max(most_held[0], size_of(folder))
            return function(*arguments, **options)

        return first_look

    for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    return most_held


def test_disk_and_compute_come_out_as_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = {"epochs": 2, "learning_rate": 2e-3, "save_seconds": 0, "precision": "fp32"}
    call: dict[str, Any] = {"method": "sft", "out": tmp_path / "run", "config": {"train": train, **SECTIONS}}
    plan = teach(half_taught(), facts(), **call, dry_run=True)
    disk = fullest(tmp_path, monkeypatch)
    run = teach(half_taught(), facts(), **call)
    print(f"{plan.disk_bytes:,} bytes estimated, {disk[0]:,} at the fullest")
    assert disk[0] / FACTOR < plan.disk_bytes < disk[0] * FACTOR
    kept = size_of(tmp_path)
    assert kept / FACTOR < plan.kept_bytes < kept * FACTOR
    assert plan.disk_bytes == sum(plan.disk.values()) and plan.memory_bytes == sum(plan.memory.values())
    spent = {purpose: cost["flops"] for purpose, cost in run.summary["cost"].items()}
    assert spent["training"] / FACTOR < plan.training_flops < spent["training"] * FACTOR
    assert plan.training_tokens == pytest.approx(run.curves.tokens.max(), rel=0.1)


@pytest.mark.slow
def test_memory_comes_out_as_estimated(tmp_path: Path) -> None:
    lm = LanguageModel.of(*tiny_model("llama", hidden=768, layers=6, intermediate_size=2048))
    small = {"probe": {"exemplar_sets": 1, "shots": 1, "prior": False}, "exam": {"wordings": 0, "confidence_sets": 0}}
    train = {"epochs": 1, "save_every": "never", "precision": "fp32"}
    call: dict[str, Any] = {"method": "sft", "out": tmp_path / "run", "config": {"train": train, **small}}
    plan = teach(lm, facts(), **call, dry_run=True)
    with most(lambda: in_use(lm)) as memory:
        teach(lm, facts(), **call)
    assert memory[0] / FACTOR < plan.memory_bytes < memory[0] * FACTOR
    print(f"{plan.memory_bytes / 1e6:.0f} MB estimated, {memory[0] / 1e6:.0f} MB taken")


def test_less_is_estimated_where_less_is_needed() -> None:
    lm = half_taught()

    def planned(**train: Any) -> Any:
        config = {"train": {"precision": "fp32", **train}, **SECTIONS}
        nothing = dict.fromkeys(("documents", "budget", "roles", "general", "adapter"))
        given = {"method": "sft", "seed": 0, "dtype": "auto", "device": "auto"}
        return training_of(read_inputs(lm, facts(), config=config, **nothing, **given))

    whole, adapter = planned(), planned(adapter={"r": 2})
    part, again = planned(parameters=["*norm*"]), planned(gradient_checkpointing=True)
    assert part.trained < adapter.trained < whole.trained == whole.weights
    assert adapter.trained < planned(late_mlp=0.5).trained < planned(late_mlp=1.0).trained < whole.trained
    assert again.activation_bytes < whole.activation_bytes
    assert planned(micro_tokens=64).activation_bytes < whole.activation_bytes
    assert again.recomputes and not whole.recomputes
    sharp, kept = planned(sharpness={"kind": "sam"}), planned(sharpness={"kind": "looksam", "every": 4})
    assert (whole.passes, sharp.passes, kept.passes) == (1.0, 2.0, 1.25)
    assert planned(sharpness={"kind": "functional"}).sharpness_bytes > sharp.sharpness_bytes
    assert whole.sharpness_bytes == 0 and kept.sharpness_bytes == 2 * sharp.sharpness_bytes == 8 * whole.weights
