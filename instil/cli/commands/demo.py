"""`instil demo`: the whole loop on the model that the package carries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from instil.cli.commanding import command, command_line, flag
from instil.cli.options import check_out, refuse_filled
from instil.cli.showing import show_taught
from instil.cli.terminal import Terminal
from instil.errors import InputError


def register(app: typer.Typer) -> None:
    command(app, "demo", example="instil demo", resumable=True)(demo)


def demo(
    terminal: Terminal,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder to write; runs/demo when left out, or the next free runs/demo-N."
        ),
    ] = None,
    resume: Annotated[bool, flag("--resume", help="Continue the demo that was interrupted.")] = False,
) -> None:
    """Run the whole loop on the embedded model in a few minutes: probe, teach gradually, examine, report.

    Writes what `instil teach` writes, and the facts.jsonl that it taught and asked.
    """
    from instil.loop import TeachResult, teach
    from instil.worlds import DEMO_SETTINGS, demo_facts, embedded_world

    folder = check_out(out) if out is not None else unfinished_folder() if resume else free_folder()
    facts = demo_facts()
    file = folder / "facts.jsonl"
    if not (folder / "config.yaml").exists():
        if not is_free(folder):
            refuse_filled(folder)
        facts.write(file)
    terminal.note(f"Teaching the embedded model {len(facts):,} facts in {folder}")
    with terminal.progress() as progress:
        taught = teach(
            "embedded",
            file,
            out=folder,
            config=DEMO_SETTINGS,
            general=embedded_world().general_texts(terminal.seed),
            resume=resume,
            seed=terminal.seed,
            progress=progress,
            command=command_line(),
        )
    assert isinstance(taught, TeachResult)  # no dry run was asked for
    terminal.result(taught.summary)
    show_taught(terminal, taught)


def free_folder(base: Path = Path("runs/demo")) -> Path:
    """The first of runs/demo, runs/demo-2, … that holds nothing yet, so that a demo can be repeated."""
    return next(filter(is_free, _numbered(base)))


def is_free(folder: Path) -> bool:
    """Whether a demo can begin here: nothing is in the folder but the facts of one that never began to teach."""
    return not folder.exists() or {entry.name for entry in folder.iterdir()} <= {"facts.jsonl"}


def unfinished_folder(base: Path = Path("runs/demo")) -> Path:
    """The last demo that was started and not finished.

    Raises:
        InputError: there is none.
    """
    started = []
    for folder in _numbered(base):
        if not folder.exists():
            break
        started.append(folder)
    for folder in reversed(started):
        if (folder / "config.yaml").exists() and not (folder / "summary.json").exists():
            return folder
    raise InputError("there is no interrupted demo to continue", file=base, field="--resume")


def _numbered(base: Path) -> Iterator[Path]:
    yield base
    yield from (base.with_name(f"{base.name}-{number}") for number in itertools.count(2))
