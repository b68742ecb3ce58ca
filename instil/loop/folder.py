"""The folder of one run: whose it is, and whether it may be gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.errors import InputError, RunFailed
from instil.files import fingerprint_file, is_draft, sweep, write_text
from instil.ledger.shards import Damaged


@dataclass(frozen=True)
class RunFolder:
    """`DIR` of `instil teach … --out DIR`."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def exam(self) -> Path:
        return self.path / "exam.jsonl"

    @property
    def work(self) -> Path:
        """What is needed only until the run is finished: checkpoints, results of finished verbs."""
        return self.path / "work"

    @property
    def tracking(self) -> Path:
        """What trackers of the Trainer write, where some were asked for."""
        return self.path / "tracking"

    @property
    def states(self) -> Path:
        """States of the model besides the taught one, where they are kept."""
        return self.path / "states"

    def mastery(self, when: str) -> Path:
        return self.path / when / "mastery.parquet"


def refuse_foreign(folder: RunFolder, *, resume: bool) -> None:
    """Refuse, before any work, a folder whose content this call would mix with its own.

    Raises:
        InputError: it holds other files, or a run and `resume` was not asked for, or nothing to resume.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise InputError("the out folder is a file", file=folder.path, field="--out")
    entries = folder.path.iterdir() if folder.path.exists() else ()
    holds = sorted(entry.name for entry in entries if not is_draft(entry))
    if folder.config.exists():
        if not resume:
            state = "a finished run" if folder.summary.exists() else "an unfinished run"
            raise InputError(
                f"the out folder holds {state}",
                file=folder.path,
                field="--out",
                expected="another folder, or --resume to go on with it",
            )
    elif holds and holds != ["facts.jsonl"]:
        raise InputError(
            "the out folder holds something else",
            file=folder.path,
            field="--out",
            found=", ".join(holds[:4]),
            expected="an empty or a new folder",
        )


def files_of(folder: RunFolder) -> dict[str, str]:
    """The fingerprints of what a finished run leaves, by place in its folder. The ledger has checksums of its own, and
    what `instil report` writes again has none."""
    single = [folder.config, folder.exam, *(folder.mastery(when) for when in ("before", "after"))]
    model = sorted(path for path in folder.model.rglob("*") if path.name != "README.md")
    return {str(path.relative_to(folder.path)): fingerprint_file(path) for path in (*single, *model) if path.is_file()}


def refuse_changed(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Refuse a finished run whose files are not as it left them. Those that somebody removed are nobody's loss.

    Raises:
        RunFailed: a file has other content than the summary says.
    """
    for name, mark in summary.get("files", {}).items():
        path = folder.path / name
        if path.is_file() and fingerprint_file(path) != mark:
            raise RunFailed(f"{path} is not as the run left it; take a copy of it from elsewhere, or teach again")


@contextmanager
def claimed(folder: RunFolder, plan: Mapping[str, Any]) -> Iterator[None]:
    """Write the plan into the folder, or check that it is the plan of the run that is resumed.

    When the input turns out to be wrong, a folder that this call made is removed again; a run that fails for another
    reason is left as it is, to be resumed. A file of the run that was damaged meanwhile is no wrong input.

    Raises:
        InputError: the folder holds a run with another plan, or a plan that cannot be read.
    """
    import yaml

    sweep(folder.path)
    text = yaml.safe_dump(dict(plan), sort_keys=False, allow_unicode=True)
    if folder.config.exists():
        held = _held_plan(folder.config)
        differing = [key for key in {**held, **plan} if held.get(key) != yaml.safe_load(text).get(key)]
        if differing:
            raise InputError(
                "the run to resume was started otherwise",
                file=folder.config,
                field=", ".join(sorted(differing)),
                expected="the call that started it",
            )
        yield
        return
    had_folder = folder.path.exists()
    write_text(folder.config, text)
    try:
        yield
    except InputError as fault:
        if _is_damage(fault, folder):
            raise
        for entry in (folder.path / name for name in ("config.yaml", "exam.jsonl", "summary.json")):
            entry.unlink(missing_ok=True)
        for name in ("work", "before", "after", "ledger", "model", "states", "tracking"):
            shutil.rmtree(folder.path / name, ignore_errors=True)
        if not had_folder:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _is_damage(fault: InputError, folder: RunFolder) -> bool:
    """Whether a lesson had begun, and what is wrong is a file that it had written itself, or its ledger."""
    if not (folder.work / "lesson").exists():
        return False
    own = fault.file is not None and Path(fault.file).absolute().is_relative_to(folder.path.absolute())
    return own or isinstance(fault, Damaged)


def _held_plan(file: Path) -> dict[str, Any]:
    """Raises `InputError` when the file is no plan."""
    import yaml

    try:
        held = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        found = " ".join(str(fault).split())[:200]
        raise InputError("the plan of the run cannot be read", file=file, found=found) from fault
    if not isinstance(held, dict):
        raise InputError("the plan of the run cannot be read", file=file, found=type(held).__name__)
    return held
