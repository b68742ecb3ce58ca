"""`instil methods`: the ways to teach."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from instil.cli.commanding import command, flag
from instil.cli.terminal import Terminal, table
from instil.errors import InputError


def register(app: typer.Typer) -> None:
    command(app, "methods", example="instil methods gradual")(methods)


def methods(
    terminal: Terminal,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this method's card.")] = None,
    schema: Annotated[
        bool, flag("--schema", help="Print the JSON schema of its settings, for an editor, instead of the card.")
    ] = False,
) -> None:
    """List the methods, or show one method's card: idea, paper, when to use it, settings, what was measured."""
    from instil.methods import NAMES, get

    if schema:
        if name is None:
            raise InputError("a schema is of one method", field="--schema", expected="instil methods NAME --schema")
        from instil.loop.settings import settings_schema

        held = settings_schema(get(name))
        terminal.result(held)
        terminal.show(json.dumps(held, indent=1, ensure_ascii=False))
        return
    if name is None:
        every = [get(each) for each in NAMES]
        terminal.result([{"name": method.name, "summary": method.summary} for method in every])
        terminal.show(table(None, ("method", "what it does"), [(method.name, method.summary) for method in every]))
        return
    method = get(name)
    settings = method.config.model_json_schema()
    terminal.result({"name": method.name, "summary": method.summary, "card": method.card, "settings": settings})
    if terminal.out.isatty():
        from rich.markdown import Markdown

        terminal.show(Markdown(method.card))
    else:
        terminal.show(method.card.rstrip("\n"))
