"""`instil compare`: methods side by side, under one budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.commanding import command, command_line, flag
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
from instil.cli.terminal import Terminal, percent, table
from instil.errors import RunFailed

if TYPE_CHECKING:
    from instil.loop.compare_plan import Forecast
    from instil.loop.compare_run import Comparison
    from instil.model import LanguageModel


def register(app: typer.Typer) -> None:
    example = "instil compare Qwen/Qwen3-0.6B facts.jsonl --methods sft,sft+replay,gradual --seeds 3 --out runs/three"
    command(app, "compare", example=example, resumable=True)(compare)


def compare(
    terminal: Terminal,
    model: Model,
    out: Out,
    facts: TaughtFacts = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="A,B,C",
            help="Arms: methods, with additions (sft+replay, +kl, +lora, +osf, +sam) or settings (sft:train.epochs=3).",
        ),
    ] = None,
    arms: Annotated[
        Path | None,
        typer.Option("--arms", metavar="FILE", help="More arms, as YAML: a name, then its method and settings."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Seeds of every arm, counted from --seed.")] = 3,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="COMPUTE",
            help="Compute that each run may spend: 3e15, or 3 PFLOP; by default the estimate for the longest arm.",
        ),
    ] = None,
    documents: Documents = None,
    config: Config = None,
    overrides: Set = None,
    known: Known = None,
    development: Development = None,
    exemplars: Exemplars = None,
    held_back: HeldBack = None,
    practice: Practice = None,
    practice_share: PracticeShare = None,
    general: General = None,
    no_models: Annotated[bool, flag("--no-models", help="Remove each taught model after its exam.")] = False,
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
    """Compare methods at equal compute: one frozen exam, several seeds, paired differences, the Pareto front.

    Writes comparison.parquet (a row a fact, arm and seed), summary.json, report.html, table.md, table.tex, table.csv,
    and each run as `instil teach` writes it, in arms/ARM/seed-N/. A run that fails does not stop the others; --resume
    tries it again.
    """
    from instil.loop import compare as run
    from instil.loop.compare_run import Comparison

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
        found = run(
            learner,
            given,
            methods=methods,
            arms=arms,
            seeds=seeds,
            out=out,
            budget=budget,
            documents=corpus,
            config=chosen or None,
            resume=resume,
            seed=terminal.seed,
            roles=roles or None,
            practice_share=practice_share,
            general=texts,
            dtype=dtype,
            device=device,
            keep_models=not no_models,
            progress=progress,
            dry_run=dry_run,
            command=command_line(),
        )
    if isinstance(found, Comparison):
        terminal.result(found.summary)
        show_comparison(terminal, found)
        refuse_failures(found)
    else:
        terminal.result(found.to_dict())
        show_forecast(terminal, found)


def show_comparison(terminal: Terminal, found: Comparison) -> None:
    """The sentences, a row an arm, and where the report is."""
    summary = found.summary
    rows = [
        (
            arm["name"],
            *(_with_interval(arm["figures"].get(measure)) for measure in ("learned", "lost")),
            "–" if arm["spent"] is None else percent(arm["spent"] / summary["budget"]["flops"]),
            f"{len(arm['runs'])} of {len(summary['seeds'])}",
        )
        for arm in summary["arms"]
    ]
    terminal.show(
        table(
            f"on {summary['model']['name']}",
            ("arm", "new facts learned", "known facts lost", "of budget", "runs"),
            rows,
        )
    )
    headline = summary["headline"]
    terminal.show(*(headline["sentences"] or [headline["title"]]), *headline["equal"])
    terminal.show(f"The report: {found.report}")


def refuse_failures(found: Comparison) -> None:
    """End with 1 when a run failed.

    Raises:
        RunFailed: one or more did.
    """
    if not (failed := found.failures):
        return
    first = failed[0]
    more = f" (and {len(failed) - 1} more, in summary.json)" if len(failed) > 1 else ""
    total = len(found.summary["arms"]) * len(found.summary["seeds"])
    raise RunFailed(
        f"{len(failed)} of {total} runs failed: {first['arm']}, seed {first['seed']}: {first['message']}{more}"
    )


def show_forecast(terminal: Terminal, plan: Forecast) -> None:
    """What a comparison would take."""
    from instil.report.words import duration, scaled

    rows = [
        ("runs", f"{plan.runs:,}, each within {scaled(plan.budget, 'FLOP')}"),
        *(
            (name, f"{scaled(arm['training_flops'], 'FLOP')}, about {duration(arm['seconds'])} a run with its exam")
            for name, arm in plan.arms.items()
        ),
        ("probes and exams", scaled(plan.exam_flops, "FLOP")),
        ("time", f"about {duration(plan.seconds)} at {scaled(plan.rate, 'FLOP/s')}"),
        ("memory", f"about {scaled(plan.memory_bytes, 'B')}, activations besides"),
        ("disk", f"about {scaled(plan.disk_bytes, 'B')}"),
    ]
    terminal.show(table("The comparison would take", ("what", "how much"), rows), "Nothing was written.")


def _with_interval(figure: dict[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    if figure["low"] is None or figure["high"] is None:
        return f"{percent(figure['value'])} of {figure['n']:,}"
    low, high = percent(figure["low"]).removesuffix(" %"), percent(figure["high"])
    return f"{percent(figure['value'])} of {figure['n']:,} ({low} to {high})"
