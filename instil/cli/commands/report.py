"""`instil report`: the page of a run, from its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.commanding import command
from instil.cli.terminal import Terminal


def register(app: typer.Typer) -> None:
    command(app, "report", example="instil report runs/demo")(report)


def report(
    terminal: Terminal,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.", show_default=False)],
) -> None:
    """Rebuild `report.html`, `report.json` and the model's card from the ledger; the model is not needed."""
    from instil.report import report as build

    page = build(folder)
    terminal.result({"report": str(page)})
    terminal.show(f"The report: {page}")
