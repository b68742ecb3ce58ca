"""`instil teach`: one method, with the same frozen exam before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.commanding import command, command_line
from instil.cli.options import (
    ChatTemplate,
    Config,
    Development,
    Device,
    Documents,
    DryRun,
    Dtype,
    Exemplars,
    General,
    HeldBack,
    Known,
    Layout,
    Model,
    Out,
    Practice,
    PracticeShare,
    RemoteCode,
    Resume,
    Set,
    SkipInvalid,
    Style,
    TaughtFacts,
    Templates,
    check_out,
    settings,
)
from instil.cli.reading import read_general, read_model, read_roles, read_taught
from instil.cli.showing import show_plan, show_taught
from instil.cli.terminal import Terminal

if TYPE_CHECKING:
    from instil.model import LanguageModel


def register(app: typer.Typer) -> None:
    example = "instil teach Qwen/Qwen3-0.6B facts.jsonl --method gradual --out runs/first"
    command(app, "teach", example=example, resumable=True)(teach)


def teach(
    terminal: Terminal,
    model: Model,
    out: Out,
    facts: TaughtFacts = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="See `instil methods`.")] = "gradual",
    documents: Documents = None,
    config: Config = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="Settings for a model's size where none are given: 0.6b, 8b, …, or auto."
        ),
    ] = None,
    overrides: Set = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="COMPUTE", help="Compute that teaching may spend: 3e15, or 3 PFLOP."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="NAME", help="Train an adapter (lora, osf), not every weight.")
    ] = None,
    known: Known = None,
    development: Development = None,
    exemplars: Exemplars = None,
    held_back: HeldBack = None,
    practice: Practice = None,
    practice_share: PracticeShare = None,
    general: General = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", metavar="DIR", help="Go on with this ledger; DIR/ledger when left out.")
    ] = None,
    report_to: Annotated[
        list[str] | None,
        typer.Option("--report-to", metavar="NAME", help="tensorboard, wandb or trackio; may be repeated."),
    ] = None,
    keep_states: Annotated[
        str,
        typer.Option(
            "--keep-states", metavar="NAME", help="States to keep on disk: after, stages or all; see `instil undo`."
        ),
    ] = "after",
    layout: Layout = None,
    templates: Templates = None,
    skip_invalid: SkipInvalid = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    style: Style = "auto",
    chat_template: ChatTemplate = None,
    remote_code: RemoteCode = False,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Teach a model, and prove it: the same frozen exam before and after, verdicts, ledger, report.

    Writes model/ (loads with plain transformers), before/mastery.parquet, after/mastery.parquet, ledger/, report.html,
    report.json, summary.json and config.yaml; model/README.md is its card.
    """
    from instil.loop import TeachResult
    from instil.loop import teach as run

    check_out(out)
    chosen = settings(config, overrides)
    given, corpus = read_taught(facts, documents, layout=layout, templates=templates, skip_invalid=skip_invalid)
    roles = read_roles(known=known, development=development, exemplar=exemplars, held_back=held_back, practice=practice)
    texts = read_general(general) if general is not None else None
    learner: str | LanguageModel = model
    if style != "auto" or chat_template is not None or remote_code:
        learner = read_model(
            terminal, model, chat_template, dtype=dtype, device=device, style=style, remote_code=remote_code
        )
    with terminal.progress() as progress:
        taught = run(
            learner,
            given,
            method=method,
            out=out,
            documents=corpus,
            config=chosen,
            budget=budget,
            ledger=ledger,
            resume=resume,
            seed=terminal.seed,
            roles=roles or None,
            practice_share=practice_share,
            general=texts,
            adapter=adapter,
            dtype=dtype,
            device=device,
            report_to=report_to or (),
            preset=preset,
            progress=progress,
            dry_run=dry_run,
            keep_states=keep_states,
            command=command_line(),
        )
    if isinstance(taught, TeachResult):
        terminal.result(taught.summary)
        show_taught(terminal, taught)
    else:
        terminal.result(taught.to_dict())
        show_plan(terminal, taught)
