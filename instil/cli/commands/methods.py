"""`instil methods`: the ways to teach."""

from __future__ import annotations

from typing import Annotated

import typer

from instil.cli.commanding import command
from instil.cli.terminal import Terminal, table


def register(app: typer.Typer) -> None:
    command(app, "methods", example="instil methods gradual")(methods)


def methods(
    terminal: Terminal,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this method's card.")] = None,
) -> None:
    """List the methods, or show one method's card: idea, paper, when to use it, settings, what was measured."""
    from instil.methods import NAMES, get

    if name is None:
        every = [get(each) for each in NAMES]
        terminal.result([{"name": method.name, "summary": method.summary} for method in every])
        terminal.show(table(None, ("method", "what it does"), [(method.name, method.summary) for method in every]))
        return
    method = get(name)
    schema = method.config.model_json_schema()
    terminal.result({"name": method.name, "summary": method.summary, "card": method.card, "settings": schema})
    if terminal.out.isatty():
        from rich.markdown import Markdown

        terminal.show(Markdown(method.card))
    else:
        terminal.show(method.card.rstrip("\n"))
