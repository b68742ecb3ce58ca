"""The application: every command in one place, and the way in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from instil.cli import commands
from instil.cli.commanding import ARGUMENTS, DONE, FAILED, WRONG_INPUT, flag, usage_line
from instil.cli.terminal import Terminal
from instil.version import __version__

app = typer.Typer(
    name="instil",
    help="Teach a language model new facts and prove, fact by fact, what it learned, kept, forgot and made up.",
    epilog="[bold]Start with:[/bold]  [cyan]instil demo[/cyan]",
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit(DONE)


@app.callback()
def instil(
    version: Annotated[
        bool, flag("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    return None


commands.register(app)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; a wrong option is told in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    ARGUMENTS.set(arguments)
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        code = app(arguments, prog_name="instil", standalone_mode=False)
    except usage_error as error:
        Terminal(as_json="--json" in arguments).fail(usage_line(error), details={"kind": "usage"})
        return WRONG_INPUT
    except (KeyboardInterrupt, typer.Abort):
        return FAILED
    if code:
        return FAILED if code == 130 else int(code)
    if "torch.distributed" in sys.modules:
        from instil.training.group import leave_group

        leave_group()
    return DONE
