"""Checkpoints of a running training: complete or absent, never half written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.errors import InputError, RunFailed
from instil.files import atomic, read_sealed, refuse_broken, seal

WEIGHTS, STATE, SEAL = "trained.safetensors", "instil.json", "seal.json"


def save_weights(parameters: Mapping[str, Tensor], path: Path) -> None:
    """Write the trained parameters, atomically."""
    from safetensors.torch import save_file

    with atomic(path) as draft:
        save_file({name: p.detach().contiguous().cpu() for name, p in parameters.items()}, draft)


def load_weights(parameters: Mapping[str, nn.Parameter], path: Path) -> None:
    """Copy saved weights into the parameters, by name.

    Raises:
        InputError: the file holds other parameters.
        RunFailed: it cannot be read.
    """
    saved = read_weights(path)
    if saved.keys() != parameters.keys():
        raise InputError("the checkpoint holds other parameters than are trained", file=path)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Raises:
        RunFailed: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunFailed(f"the weights in {path} cannot be read: {error}") from error


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = [path for path in folder.glob("checkpoint-*") if (path / STATE).is_file()]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def refuse_damaged(checkpoint: Path) -> None:
    """Raises `RunFailed` when a file of a complete checkpoint is not as it was written.

    Safetensors and pickles of the optimiser have no checksum of their own: a flipped bit would be another weight.
    """
    refuse_broken(checkpoint / SEAL, checkpoint)


def read_state(checkpoint: Path) -> dict[str, Any]:
    return read_sealed(checkpoint / STATE)


def draft_folder(folder: Path) -> Path:
    """Where a checkpoint is put together before it gets its name."""
    return folder / "draft"


def publish(folder: Path, name: str) -> None:
    """Give a finished draft its name, durably, and remove the checkpoints before it."""
    draft = draft_folder(folder) / name
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    for file in files:
        _sync(file)
    seal(draft / SEAL, files)
    _sync(draft)
    target = folder / name
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _sync(folder)
    for older in folder.glob("checkpoint-*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)
    discard_draft(folder)


def clear(folder: Path) -> None:
    """Remove checkpoints and best weights, once the result is safe."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    prune_best(folder, keep=None)


def prune_best(folder: Path, keep: Path | None) -> None:
    for older in folder.glob("best-*.safetensors"):
        if older != keep:
            older.unlink(missing_ok=True)


def discard_draft(folder: Path) -> None:
    shutil.rmtree(draft_folder(folder), ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Turn a failed write (a full disk, for example) into `RunFailed`, leaving the checkpoints before it alone.

    The libraries that write report a full disk as OSError, RuntimeError (torch) or SafetensorError.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        discard_draft(folder)
        last = latest(folder)
        resume = f"resume from {last.name}" if last is not None else "there is no checkpoint before it"
        raise RunFailed(f"could not save {what} in {folder}: {error}; {resume}") from error
