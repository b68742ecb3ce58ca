"""`instil facts check`: is this file of facts fit to be asked and taught?"""

from __future__ import annotations

import typer

from instil.cli.commanding import command
from instil.cli.options import Facts, Layout, SkipInvalid
from instil.cli.terminal import Terminal


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", help="Look at facts before they are used.")
    app.add_typer(group, name="facts")
    command(group, "check", example="instil facts check facts.jsonl")(check)


def check(terminal: Terminal, facts: Facts, layout: Layout = None, skip_invalid: SkipInvalid = False) -> None:
    """Validate a file of facts, count what is in it, and show what would be dropped and why."""
    raise NotImplementedError
