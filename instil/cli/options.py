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


def settings(file: Path | None, overrides: Sequence[str] | None) -> dict[str, Any]:
    """The settings file as a mapping, with `KEY=VALUE` overrides written into it; values are read as YAML.

    Raises:
        InputError: the file is missing or is no mapping, or an override has no `=`.
    """
    merged = read_settings(file) if file is not None else {}
    for override in overrides or ():
        key, found, value = override.partition("=")
        if not found or not key.strip("."):
            raise InputError("an override without a value", field="--set", found=override, expected="KEY=VALUE")
        _place(merged, key.strip().split("."), _yaml(value, "--set"), override)
    return merged


def read_settings(file: Path) -> dict[str, Any]:
    """A YAML or JSON file that holds a mapping (YAML is read safely: no tags, no code)."""
    if not file.is_file():
        raise InputError("no such settings file", file=file)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", file=file, found=f"byte {error.object[error.start]:#04x}") from error
    value = _yaml(text, file)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(
            "settings must be a mapping", file=file, found=type(value).__name__, expected="key: value lines"
        )
    return value


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


def checked(model: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Settings as pydantic checks them.

    Raises:
        InputError: a field is unknown or has a wrong value; the first fault is named.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(
            "a setting is wrong",
            field=".".join(str(part) for part in fault["loc"]),
            found=repr(fault["input"])[:80],
            expected=fault["msg"],
        ) from None


def _yaml(text: str, source: str | Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        what = f"not YAML: {getattr(error, 'problem', None) or error}"
        if isinstance(source, Path):
            raise InputError(what, file=source, line=line) from error
        raise InputError(what, field=source, found=text) from error


def _place(into: dict[str, Any], path: list[str], value: Any, override: str) -> None:
    for step in path[:-1]:
        branch = into.setdefault(step, {})
        if not isinstance(branch, dict):
            raise InputError(f"{step} is a single value, not a group", field="--set", found=override)
        into = branch
    into[path[-1]] = value
