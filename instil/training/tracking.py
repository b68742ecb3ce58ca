"""Trackers of the Trainer: which there are, whether they can be used, and where what they write is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from instil.errors import InputError

TRACKERS: Final[Mapping[str, tuple[str, str]]] = {
    "tensorboard": ("tensorboard", "pip install 'instil[track]'"),
    "wandb": ("wandb", "pip install wandb"),
    "trackio": ("trackio", "pip install trackio"),
}
"""The names that `--report-to` takes: the package each needs, and how to get it."""

FOLDERS: Final = {"TENSORBOARD_LOGGING_DIR": "tensorboard", "WANDB_DIR": "wandb", "TRACKIO_DIR": "trackio"}
"""Environment variables by which a tracker is told its folder; one that is set already is left as it is."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse, before anything runs, a tracker that is unknown or not installed.

    Raises:
        InputError: so it is; says how to install it.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(
                "there is no such tracker", field="train.report_to", found=repr(name), expected=" | ".join(TRACKERS)
            )
        package, install = TRACKERS[name]
        if find_spec(package) is None:
            raise InputError(
                f"the tracker {name} needs the package {package}",
                field="train.report_to",
                found="not installed",
                expected=install,
            )


@contextmanager
def tracked(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Let the trackers keep their files in `folder`, which outlives the training's own working files."""
    set_here = {variable: str(folder / own) for variable, own in FOLDERS.items() if variable not in os.environ}
    set_here = {variable: path for variable, path in set_here.items() if Path(path).name in names}
    for path in set_here.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    os.environ.update(set_here)
    try:
        yield
    finally:
        for variable in set_here:
            os.environ.pop(variable, None)
