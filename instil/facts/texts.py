"""Pages as documents: one file of plain text, Markdown, HTML or PDF, or a folder of them."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from instil.errors import InputError
from instil.facts.faults import Fault
from instil.facts.pages import SUFFIXES, kind_of, read_page
from instil.facts.records import opened
from instil.facts.types import Document

KINDS = "plain text, Markdown, HTML or PDF (" + ", ".join(each for known in SUFFIXES.values() for each in known) + ")"


def holds_texts(path: Path) -> bool:
    """Whether `path` is a page by its content or name, or a folder with one. What cannot be opened may be one."""
    try:
        if path.is_dir():
            return any(_kind(file) is not None for file in _files(path, lambda fault: None))
        return path.is_file() and _kind(path) is not None
    except InputError:
        return True
    except (OSError, ValueError):
        return False


def text_documents(path: Path, note: Callable[[Fault], None]) -> Iterator[tuple[int, Document]]:
    """One document a file, its id the path inside the folder. Other files of the folder go to `note`, as left out.

    Hidden files and folders, whose names begin with a full stop, are passed over.
    """
    for file in _files(path, note) if path.is_dir() else [path]:
        inside = file.relative_to(path) if file != path else Path(file.name)
        try:
            kind = _kind(file)
            if kind is None:
                note(Fault(str(file), "a file of another kind, left out", expected=KINDS, benign=True))
                continue
            page = read_page(kind, _bytes(file), file, note)
        except InputError as error:
            note(Fault.of(error, str(file)))
            continue
        title = page.title or file.name.removesuffix(".gz").rpartition(".")[0] or file.name
        yield 1, Document(inside.as_posix(), page.text, title=title, metadata=page.metadata)


def _files(folder: Path, note: Callable[[Fault], None]) -> list[Path]:
    """The files of a folder and the folders in it, sorted by their paths; what is no file is told."""

    def unreadable(error: OSError) -> None:
        note(Fault(str(error.filename), "the folder cannot be read", found=error.strerror))

    found: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (inner := Path(here) / name).is_symlink():  # It may lead back to where it stands.
                note(Fault(str(inner), "a link to a folder, not followed", benign=True))
        for name in names:
            if name.startswith("."):
                continue
            if (file := Path(here) / name).is_file():
                found.append(file)
            else:
                what = "a link that leads nowhere, left out" if file.is_symlink() else "no file, left out"
                note(Fault(str(file), what, benign=True))
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _kind(file: Path) -> str | None:
    """
    Raises:
        InputError: the file cannot be opened.
    """
    try:
        with opened(file) as stream:
            return kind_of(file.name, stream.peek(1024))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return kind_of(file.name, b"")


def _bytes(file: Path) -> bytes:
    """
    Raises:
        InputError: the file cannot be read.
    """
    try:
        with opened(file) as stream:
            return stream.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError("the gzipped file is cut or damaged", file=file, found=str(error)) from error
    except OSError as error:
        raise InputError("the file cannot be read", file=file, found=error.strerror) from error
