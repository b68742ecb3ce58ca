"""`instil undo`: back to an earlier state of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.commanding import command
from instil.cli.options import check_out
from instil.cli.terminal import Terminal


def register(app: typer.Typer) -> None:
    command(app, "undo", example="instil undo runs/first")(undo)


def undo(
    terminal: Terminal,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    to: Annotated[
        str,
        typer.Option("--to", metavar="STATE", help="A state of the run or of its ledger; see `instil ledger show`."),
    ] = "before",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; RUN/undone/STATE when left out.")
    ] = None,
) -> None:
    """Return to an earlier state of the model: its weights as a checkpoint, verified by fingerprint.

    By default the state before teaching. The ledger records the checkpoint as a state of its own; nothing is deleted.
    What can be returned to is what was kept (`instil teach --keep-states`), and the starting model where it still is.
    """
    from instil.loop import undo as back

    if out is not None:
        check_out(out)
    done = back(run, to=to, out=out)
    terminal.result(done.to_dict())
    for line in done.missed:
        terminal.note(f"not taken: {line}")
    terminal.show(f"The state {done.to}, found in {done.source}, fingerprint {done.fingerprint}: {done.out}")
    terminal.show(f"Recorded as {done.state}. Nothing was deleted.")
