"""One module a command (or a group of them); each has `register(app)`."""

from __future__ import annotations

import typer

from instil.cli.commands import augment, compare, demo, exam, facts, ledger, methods, probe, report, teach, undo, world


def register(app: typer.Typer) -> None:
    """Add every command, in the order in which `instil --help` lists them."""
    for module in (demo, facts, augment, probe, teach, compare, exam, report, methods, ledger, undo, world):
        module.register(app)
