"""What several commands read besides facts: the model, facts by role, general text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError

if TYPE_CHECKING:
    from instil.cli.terminal import Terminal
    from instil.facts import FactSet, Role
    from instil.model import LanguageModel


def read_model(terminal: Terminal, spec: str, chat_template: Path | None, **options: Any) -> LanguageModel:
    """The model, told in one line: what it is, at which precision and where."""
    from instil.model import load
    from instil.report.words import parameters

    terminal.note(f"reading {spec}")
    lm = load(spec, chat_template=None if chat_template is None else str(chat_template), **options)
    size, precision = parameters(lm.parameters), str(lm.dtype).removeprefix("torch.")
    terminal.note(f"{lm.name}: {size}, {precision} on {lm.device}, asked in {lm.style} style")
    return lm


def read_roles(**files: str | None) -> dict[Role, FactSet]:
    """The facts of each role whose file was given."""
    from instil.facts import FactSet, Role

    return {Role(name): FactSet.read(file).assign(Role(name)) for name, file in files.items() if file is not None}


def read_general(file: Path) -> list[str]:
    """Texts of a documents file, or the paragraphs of a plain text file."""
    from instil.facts import Corpus

    if file.suffix != ".txt":
        return [document.text for document in Corpus.read(file)]
    try:
        paragraphs = file.read_text(encoding="utf-8").split("\n\n")
    except FileNotFoundError:
        raise InputError("no such file", file=file, field="--general") from None
    except UnicodeDecodeError as error:
        raise InputError(
            "not UTF-8", file=file, field="--general", found=f"byte {error.object[error.start]:#04x}"
        ) from None
    return [paragraph.strip() for paragraph in paragraphs if paragraph.strip()]
