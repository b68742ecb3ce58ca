"""`instil facts`: is this file fit to be asked and taught, and how can others ask it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.commanding import command
from instil.cli.options import (
    ChatTemplate,
    Config,
    Facts,
    Layout,
    Out,
    RemoteCode,
    Set,
    SkipInvalid,
    Style,
    Templates,
    check_out,
    checked,
    settings,
)
from instil.cli.showing import shown_warnings
from instil.cli.terminal import Terminal
from instil.errors import InputError

if TYPE_CHECKING:
    from instil.facts import CheckReport
    from instil.probe.harness import Exported


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", help="Look at facts before they are used, or hand them on.")
    app.add_typer(group, name="facts")
    command(group, "check", example="instil facts check facts.jsonl")(check)
    command(group, "export", example="instil facts export facts.jsonl --model embedded --out runs/task")(export)


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


TARGETS = ("lm-eval",)
"""Programs that a fact set can be exported to."""


def export(
    terminal: Terminal,
    facts: Facts,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Whose prompts and tokens: a hub id, a folder, `embedded`.")
    ],
    out: Out,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="The program that asks them: lm-eval.")] = "lm-eval",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the task; the file's name when left out.")
    ] = None,
    exemplars: Annotated[
        str | None,
        typer.Option("--exemplars", metavar="FACTS", help="Facts for the prompts; drawn from FACTS when left out."),
    ] = None,
    config: Config = None,
    overrides: Set = None,
    layout: Layout = None,
    templates: Templates = None,
    skip_invalid: SkipInvalid = False,
    style: Style = "auto",
    chat_template: ChatTemplate = None,
    remote_code: RemoteCode = False,
) -> None:
    """Write the facts as a task of another harness, so that anyone can check the greedy answers of `instil probe`.

    The prompts are those that `instil probe` asks with the same facts, exemplars, settings and seed.
    """
    from instil.cli.commands.probe import probe_settings
    from instil.facts import FactSet
    from instil.model import outline
    from instil.probe import ProbeConfig
    from instil.probe.harness import export as write

    if to not in TARGETS:
        raise InputError("no such harness", field="--to", found=to, expected=", ".join(TARGETS))
    check_out(out)
    given = settings(config, overrides)
    section = "probe" if "probe" in given else ""
    chosen = checked(ProbeConfig, probe_settings(terminal.seed, None, given), given=given, section=section)
    asked = FactSet.read(facts, layout=layout, templates=templates, skip_invalid=skip_invalid)
    worked = None if exemplars is None else FactSet.read(exemplars)
    template = None if chat_template is None else str(chat_template)
    lm = outline(model, chat_template=template, style=style, remote_code=remote_code)
    terminal.note(f"{lm.name}: asked in {lm.style} style")
    with terminal.progress() as progress:
        done = write(
            lm,
            asked,
            worked,
            chosen,
            out=out,
            name=name or Path(facts).name.split(".")[0],
            progress=lambda ready, total: progress("writing", ready, total),
        )
    for line in shown_warnings(done.warnings, str(out / "export.json")):
        terminal.note(f"note: {line}")
    terminal.result(done.to_dict() | {"out": str(out), "left_out": list(asked.left_out)})
    terminal.show(*exported_lines(done, out))
    if asked.left_out:
        terminal.show(f"Left out: {len(asked.left_out):,} (`instil facts check` lists them)")


def exported_lines(done: Exported, out: Path) -> list[str]:
    """What was written, how much of it is asked otherwise there, and how to run it."""
    lines = [f"{done.facts:,} facts as {done.prompts:,} prompts of the task {done.task}"]
    for reason, count in done.differ.items():
        lines.append(f"Marked: {count:,} prompts have {reason} there than in `instil probe`")
    lines.append(f"lm_eval --model hf --model_args pretrained=MODEL --tasks {done.task} --include_path {out}")
    return [*lines, f"How to read its scores: {out / 'README.md'}"]


def refused(report: CheckReport) -> InputError:
    """The first fault, and how many there are."""
    first = report.errors[0].as_error()
    if report.error_count > 1:
        first.what = f"{first.what}; the first of {report.error_count:,} faults"
    return first
