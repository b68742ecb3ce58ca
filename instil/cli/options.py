"""Arguments and options that several commands share, and the checks on what was given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from instil.cli.commanding import flag
from instil.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from instil.loop.settings import Given

Settings = TypeVar("Settings", bound="BaseModel")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A hub id, a folder, or `embedded`.", show_default=False)]
Facts = Annotated[
    str,
    typer.Argument(
        metavar="FACTS",
        help="JSONL, CSV or Parquet, plain or gzipped, a public layout, or the name of a Hugging Face dataset.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", show_default=False)]
Layout = Annotated[
    str | None,
    typer.Option("--layout", metavar="NAME", help="Layout of the file; recognised by content when left out."),
]
Templates = Annotated[
    Path | None,
    typer.Option("--templates", metavar="FILE", help="Question templates by relation, for triples."),
]
SkipInvalid = Annotated[
    bool, flag("--skip-invalid", help="Leave faulty rows out, and say so, instead of refusing the file.")
]
Resume = Annotated[bool, flag("--resume", help="Continue the run in --out where it stopped.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, dotted (probe.shots=2); may be repeated."),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings as YAML or JSON; --set overrides them.")
]
Dtype = Annotated[str, typer.Option("--dtype", metavar="NAME", help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")]
RemoteCode = Annotated[bool, flag("--remote-code", help="Run the code that comes with the model.")]
ChatTemplate = Annotated[
    Path | None,
    typer.Option("--chat-template", metavar="FILE", help="Jinja template to use instead of the model's own."),
]
Style = Annotated[str, typer.Option("--style", metavar="NAME", help="auto, base or chat: how questions are put.")]


def _role(option: str, help: str) -> typer.models.OptionInfo:
    return typer.Option(option, metavar="FACTS", help=help)


TaughtFacts = Annotated[
    str | None,
    typer.Argument(
        metavar="FACTS",
        help="What is taught and asked. Left out, the questions beside the documents are asked, as in SQuAD; where "
        "there are none, items made from their text.",
        show_default=False,
    ),
]
Documents = Annotated[
    str | None,
    typer.Option(
        "--documents",
        metavar="DOCS",
        help="Documents to learn from: text, Markdown, HTML, PDF, a folder of them, or rows with texts.",
    ),
]
Known = Annotated[str | None, _role("--known", "Known facts for replay.")]
Development = Annotated[str | None, _role("--development", "Facts for early stop and tuning.")]
Exemplars = Annotated[str | None, _role("--exemplars", "Facts for the prompts, never taught.")]
HeldBack = Annotated[str | None, _role("--held-back", "Facts asked before and after, never taught.")]
Practice = Annotated[str | None, _role("--practice", "Questions about documents, to learn how to be asked.")]
PracticeShare = Annotated[
    float | None,
    typer.Option(
        "--practice-share",
        metavar="SHARE",
        help="Of the subjects without a role, how many become practice (0.4): documents with questions to train on.",
    ),
]
General = Annotated[
    Path | None, typer.Option("--general", metavar="FILE", help="General text for perplexity: documents, or .txt.")
]
DryRun = Annotated[bool, flag("--dry-run", help="Say what time, memory and disk it would take, and stop.")]


def settings(file: Path | None, overrides: Sequence[str] | None) -> Given:
    """The settings file with `KEY=VALUE` overrides written into it; values are read as YAML.

    Raises:
        InputError: the file is missing or is no mapping, or an override has no `=`.
    """
    from instil.loop.settings import gathered

    return gathered(file, overrides)


def check_out(folder: Path) -> Path:
    """The output folder can be made and written.

    Raises:
        InputError: it is a file, or a folder that this user may not write in.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("the output is a file, not a folder", file=folder, field="--out")
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError("the output folder cannot be written", file=folder, field="--out")
    return folder


def refuse_filled(folder: Path) -> None:
    """Refuse an output folder that holds something: it may be another run.

    Raises:
        InputError: it holds something.
    """
    holds = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if holds:
        raise InputError(
            "the output folder is not empty",
            file=folder,
            field="--out",
            found=", ".join(holds[:4]),
            expected="an empty or a new folder",
        )


def checked(
    model: type[Settings], values: Mapping[str, Any], *, given: Given | None = None, section: str = ""
) -> Settings:
    """Settings as pydantic checks them.

    Args:
        model: the class of the settings.
        values: what is checked.
        given: the settings as they were given, to name the file and the line of a fault.
        section: the group of `given` that `values` are from.

    Raises:
        InputError: a field is unknown or has a wrong value; the first fault is named.
    """
    from instil.loop.settings import Given
    from instil.loop.settings import checked as check

    with (given or Given()).located():
        result: Settings = check(model, values, section)
        return result
