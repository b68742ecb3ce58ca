"""`python -m instil.cli.docs` writes from the code docs/commands.md, docs/schema, the tables of docs/ledger.md and the
examples of docs/augment.md; `--check` compares."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
SCHEMAS: Final = PAGE.parent / "schema"
LEDGER: Final = PAGE.with_name("ledger.md")
AUGMENT: Final = PAGE.with_name("augment.md")
HEAD: Final = """# Commands

Written by `make docs` from what `--help` says. Every command ends with 0 when it did what was asked, 1 when the run
failed (what can be resumed says how), and 2 when the input or the options were wrong. Results go to standard output,
progress and remarks to standard error.
"""


def page() -> str:
    """The page in Markdown: one section a command, its arguments and options as tables."""
    from instil.cli.app import app

    every = list(commands_of(app))
    common = _common([command for _, command in every])
    parts = [HEAD]
    for path, command in every:
        parts.append(_section(path, command, common))
    shown = [option for option in every[0][1].params if option.name in common]
    parts.append("## Options of every command\n\n" + _table("option", shown))
    return "\n".join(parts)


def generated() -> dict[Path, str]:
    """Every file under docs/ that is made from the code, with its content."""
    pages = {PAGE: page(), LEDGER: ledger_page(), AUGMENT: augment_page()}
    return {**pages, **{SCHEMAS / name: text for name, text in schemas().items()}}


def schemas() -> dict[str, str]:
    """JSON schemas: of the settings of each method, for editors, and of report.json."""
    import json

    from instil.loop.settings import settings_schema
    from instil.methods import NAMES, get
    from instil.report.machine import ReportFile

    held = {f"{name}.schema.json": settings_schema(get(name)) for name in NAMES}
    held["report.schema.json"] = ReportFile.model_json_schema()
    return {name: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for name, schema in held.items()}


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        stale = [
            path.relative_to(PAGE.parents[1])
            for path, wanted in generated().items()
            if not path.exists() or path.read_text(encoding="utf-8") != wanted
        ]
        for path in stale:
            print(f"{path} is not what the code says; run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    from instil.files import write_text

    for path, wanted in generated().items():
        write_text(path, wanted)
    return 0


def ledger_page() -> str:
    """docs/ledger.md with its tables as they are now."""
    from instil.ledger import TABLES

    begin, end = "<!-- tables: written by `make docs` -->\n", "<!-- end of tables -->"
    head, _, rest = LEDGER.read_text(encoding="utf-8").partition(begin)
    parts = []
    for name, columns in TABLES.items():
        rows = [
            f"| `{column}` | {about.kind}{', may be empty' if about.nullable else ''} | {_cell(about.about)} |"
            for column, about in columns.items()
        ]
        parts.append("\n".join([f"### `{name}`", "", "| column | type | holds |", "|---|---|---|", *rows]) + "\n")
    return f"{head}{begin}\n" + "\n".join(parts) + "\n" + end + rest.partition(end)[2]


def augment_page() -> str:
    """docs/augment.md with an example of each format as it is now."""
    from instil.augment import FORMATS
    from instil.cli.commands.augment import examples

    begin, end = "<!-- examples: written by `make docs` -->\n", "<!-- end of examples -->"
    head, _, rest = AUGMENT.read_text(encoding="utf-8").partition(begin)
    shown = examples()
    parts = []
    for name, one in FORMATS.items():
        text = "\n".join(f"    {line}".rstrip() if line.strip() else "" for line in shown[name].split("\n"))
        parts.append(f"**`{name}`**: {one.about}\n\n{text.strip(chr(10))}\n")
    return f"{head}{begin}\n" + "\n".join(parts) + "\n" + end + rest.partition(end)[2]


def commands_of(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it, in the order of `instil --help`."""
    yield from _commands(typer.main.get_command(app), "instil")


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        if getattr(inner, "commands", None):
            yield from _commands(inner, f"{path} {name}")
        else:
            yield f"{path} {name}", inner


def _common(commands: list[Any]) -> set[str]:
    return set.intersection(*({parameter.name for parameter in command.params} for command in commands))


def _section(path: str, command: Any, common: set[str]) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name not in common and parameter.name != "help"
    ]
    words = [_argument(parameter) for parameter in arguments]
    words += [f"{option.opts[0]} {option.metavar}" for option in options if option.required]
    words += ["[OPTIONS]"]
    parts = [f"## `{path}`", inspect.cleandoc(command.help or ""), f"    {' '.join([path, *words])}"]
    if arguments:
        parts.append(_table("argument", arguments))
    if options:
        parts.append(_table("option", options))
    parts.append(f"Example: `{example_of(command)}`")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def example_of(command: Any) -> str:
    """The example that the command's help ends with, without its colours."""
    return str(command.epilog).partition("[cyan]")[2].removesuffix("[/cyan]")


def _argument(parameter: Any) -> str:
    return str(parameter.metavar) if parameter.required else f"[{parameter.metavar}]"


def _table(kind: str, parameters: list[Any]) -> str:
    rows = [f"| {kind} | meaning | default |", "|---|---|---|"]
    rows += [
        f"| {_names(parameter)} | {_cell(parameter.help or '')} | {_default(parameter)} |" for parameter in parameters
    ]
    return "\n".join(rows) + "\n"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    return f"{names} `{parameter.metavar}`" if parameter.metavar else names


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, False, (), []):
        return ""
    return f"`{parameter.default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
