"""`instil probe`: which facts does a model know?"""

from __future__ import annotations

from typing import Annotated

import typer

from instil.cli.commanding import command
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
)
from instil.cli.terminal import Terminal


def register(app: typer.Typer) -> None:
    command(app, "probe", example="instil probe embedded facts.jsonl --out runs/probe", resumable=True)(probe)


Engine = Annotated[str, typer.Option("--engine", metavar="NAME", help="exact, or sampled (the slow audit of exact).")]


def probe(
    terminal: Terminal,
    model: Model,
    facts: Facts,
    out: Out,
    exemplars: Annotated[
        str | None,
        typer.Option("--exemplars", metavar="FACTS", help="Facts for the prompts; drawn from FACTS when left out."),
    ] = None,
    engine: Engine = "exact",
    config: Config = None,
    overrides: Set = None,
    layout: Layout = None,
    skip_invalid: SkipInvalid = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    style: Style = "auto",
    chat_template: ChatTemplate = None,
    remote_code: RemoteCode = False,
    resume: Resume = False,
) -> None:
    """Ask every fact and write the mastery map: `mastery.parquet` and `summary.json`."""
    raise NotImplementedError
