"""`instil facts check`: is this file of facts fit to be asked and taught?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.commanding import command
from instil.cli.options import Layout, SkipInvalid, Templates
from instil.cli.terminal import Terminal
from instil.errors import InputError

if TYPE_CHECKING:
    from instil.facts import CheckReport


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", help="Look at facts before they are used.")
    app.add_typer(group, name="facts")
    command(group, "check", example="instil facts check facts.jsonl")(check)


def check(
    terminal: Terminal,
    facts: Annotated[
        list[str],
        typer.Argument(
            metavar="FACTS",
            help="JSONL, CSV or Parquet, plain or gzipped, a public layout, or the name of a Hugging Face dataset; "
            "several are also compared with each other.",
            show_default=False,
        ),
    ],
    layout: Layout = None,
    templates: Templates = None,
    skip_invalid: SkipInvalid = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Faults of a file to list; all are counted.")] = 1000,
) -> None:
    """Validate facts, count them, list every fault and warning, and say what would be dropped and why.

    Ends with 2 when a file would be refused; with --skip-invalid only when nothing valid is in it.
    """
    from instil.facts import check_facts

    report = check_facts(list(facts), layout=layout, templates=templates, limit=limit)
    terminal.result(report.to_dict())
    terminal.show(*report.lines())
    if not report.ok and not (skip_invalid and all(report.facts.values())):
        raise refused(report)


def refused(report: CheckReport) -> InputError:
    """The first fault, and how many there are."""
    first = report.errors[0].as_error()
    if report.error_count > 1:
        first.what = f"{first.what}; the first of {report.error_count:,} faults"
    return first
