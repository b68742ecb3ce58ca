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
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a run or a comparison.", show_default=False)
    ],
) -> None:
    """Rebuild `report.html`, `report.json` and the model's card from the ledger, or the page of a comparison."""
    from instil.report import report as build
    from instil.report.comparison import build_comparison_report, is_comparison

    page = build_comparison_report(folder) if is_comparison(folder) else build(folder)
    terminal.result({"report": str(page)})
    terminal.show(f"The report: {page}")
