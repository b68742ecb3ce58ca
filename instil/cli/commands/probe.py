"""`instil probe`: which facts does a model know?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instil.cli.commanding import WrongUsage, command, flag
from instil.cli.options import (
    ChatTemplate,
    Config,
    Device,
    Dtype,
    Facts,
    Layout,
    Model,
    Out,
    RemoteCode,
    Resume,
    Set,
    SkipInvalid,
    Style,
    Templates,
    check_out,
    checked,
    settings,
)
from instil.cli.reading import read_model
from instil.cli.showing import show_mastery, shown_warnings
from instil.cli.terminal import Terminal

if TYPE_CHECKING:
    from instil.loop.settings import Given


def register(app: typer.Typer) -> None:
    command(app, "probe", example="instil probe embedded facts.jsonl --out runs/probe", resumable=True)(probe)


def probe(
    terminal: Terminal,
    model: Model,
    facts: Facts,
    out: Out,
    exemplars: Annotated[
        str | None,
        typer.Option("--exemplars", metavar="FACTS", help="Facts for the prompts; drawn from FACTS when left out."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="NAME", help="exact (default), or sampled, its slow audit.")
    ] = None,
    config: Config = None,
    overrides: Set = None,
    layout: Layout = None,
    templates: Templates = None,
    skip_invalid: SkipInvalid = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    style: Style = "auto",
    chat_template: ChatTemplate = None,
    remote_code: RemoteCode = False,
    resume: Resume = False,
    contexts: Annotated[
        bool,
        flag(
            "--contexts",
            help="Ask nothing: how likely are facts' own tokens in the text of documents, and in other texts? FACTS "
            "may be documents then, as `teach --documents` reads them.",
        ),
    ] = False,
    documents: Annotated[
        str | None,
        typer.Option("--documents", metavar="DOCS", help="With --contexts: the documents that tell FACTS."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="With --contexts: so many facts at most, drawn by lot."),
    ] = None,
) -> None:
    """Ask every fact and write the mastery map: `mastery.parquet` and `summary.json`.

    Started by `torchrun` or `accelerate launch`, each process computes a share, on a GPU of its own where there is one.
    With --contexts nothing is asked, and `contexts.parquet` is written in place of the map (docs/contexts.md).
    """
    if contexts:
        from instil.cli.commands.probe_contexts import probe_contexts
        from instil.probe.ranks import Ranks

        if Ranks.here().world > 1:
            raise WrongUsage("contexts are scored by one process", field="--contexts", expected="to start it alone")
        refuse_given(exemplars=exemplars is not None, engine=engine is not None, resume=resume)
        learner_options = {"dtype": dtype, "device": device, "style": style, "remote_code": remote_code}
        sources = {"layout": layout, "templates": templates, "skip_invalid": skip_invalid}
        given_settings = settings(config, overrides)
        probe_contexts(
            terminal, model, chat_template, learner_options, facts, documents, sources, given_settings, limit, out
        )
        return
    if documents is not None or limit is not None:
        raise WrongUsage(
            "this is for --contexts only",
            field="--documents" if documents is not None else "--limit",
            expected="--contexts",
        )
    from instil.facts import FactSet
    from instil.files import read_sealed
    from instil.probe import ProbeConfig, exemplar_sets
    from instil.probe import probe as ask
    from instil.probe.ranks import Ranks

    ranks = Ranks.here()
    if not ranks.first:
        terminal.quiet, terminal.as_json = True, False  # errors are still told
    check_out(out)
    given = settings(config, overrides)
    section = "probe" if "probe" in given else ""
    chosen = checked(ProbeConfig, probe_settings(terminal.seed, engine, given), given=given, section=section)
    asked = FactSet.read(facts, layout=layout, templates=templates, skip_invalid=skip_invalid)
    worked = None if exemplars is None else FactSet.read(exemplars)
    learner = read_model(
        terminal, model, chat_template, dtype=dtype, device=device, style=style, remote_code=remote_code
    )
    sets = exemplar_sets(asked, worked, chosen)
    for line in shown_warnings(sets.warnings, str(out / "summary.json")):
        terminal.note(f"note: {line}")
    with terminal.progress() as progress, told(sets.warnings):
        mastery = ask(
            learner,
            asked,
            sets,
            chosen,
            out=out,
            resume=resume,
            progress=lambda done, total: progress("probing", done, total, unit="facts"),
            checking=lambda done, total: progress("checking", done, total, unit="facts"),
            ranks=ranks,
        )
    if not ranks.first:
        return
    summary = read_sealed(out / "summary.json")
    terminal.result(summary)
    show_mastery(terminal, mastery, summary, out)
    if asked.left_out:
        terminal.show(f"Left out: {len(asked.left_out):,} (listed in summary.json)")
    terminal.show(f"The mastery map: {out / 'mastery.parquet'}")


def refuse_given(**given: bool) -> None:
    """Raises `WrongUsage` for the first of the options that was given: contexts are not asked behind exemplars."""
    for name, is_given in given.items():
        if is_given:
            raise WrongUsage("this does not go with --contexts", field=f"--{name}")


@contextmanager
def told(lines: Sequence[str]) -> Iterator[None]:
    """Leave out warnings that have been shown, or counted, before."""
    before = warnings.showwarning

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        if str(message) not in lines:
            before(message, *details, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def probe_settings(seed: int, engine: str | None, given: Given) -> dict[str, Any]:
    """Settings of a probe; a file of settings for `instil teach` serves too, by its section `probe`."""
    flat = given.section("probe") if "probe" in given else given
    return {"seed": seed, **flat, **({"engine": engine} if engine is not None else {})}
