"""What several commands read besides facts: the model, facts by role, general text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError

if TYPE_CHECKING:
    from instil.cli.terminal import Terminal
    from instil.facts import Corpus, FactSet, Role
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


def read_taught(
    facts: str | None, documents: str | None, *, layout: str | None, templates: Path | None, skip_invalid: bool
) -> tuple[FactSet | None, Corpus | None]:
    """What is taught and asked. Without a file of facts, the questions that stand beside the documents are asked; where
    there are none, the facts are None, and the exam is made from the documents' text.

    Raises:
        InputError: there is nothing, or a file is faulty.
    """
    from instil.facts import Corpus, FactSet
    from instil.facts.texts import holds_texts

    if facts is None and documents is None:
        raise InputError(
            "there is nothing to teach", field="FACTS", found="none", expected="a file of facts, or --documents"
        )
    corpus = None if documents is None else Corpus.read(documents, skip_invalid=skip_invalid)
    if facts is None and holds_texts(Path(documents or "")):
        return None, corpus
    try:
        asked = FactSet.read(facts or documents or "", layout=layout, templates=templates, skip_invalid=skip_invalid)
    except InputError as error:
        if facts is None and error.what.startswith("these are documents"):
            return None, corpus
        raise
    return asked, corpus


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
