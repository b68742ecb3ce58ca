"""Plain text files as documents: one .txt or .md file, or a folder of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from instil.errors import InputError
from instil.facts.faults import Fault
from instil.facts.types import Document

SUFFIXES = (".txt", ".md", ".txt.gz", ".md.gz")


def holds_texts(path: Path) -> bool:
    """Whether `path` is a text file by its name, or a folder with one."""
    try:
        if path.is_dir():
            return any(_is_text(each) for each in path.rglob("*"))
        return path.is_file() and _is_text(path)
    except (OSError, ValueError):
        return False


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def text_documents(path: Path, note: Callable[[Fault], None]) -> Iterator[tuple[int, Document]]:
    """One document a file, its id the path inside the folder. Other files of the folder go to `note`, as left out."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    for file in files:
        inside = file.relative_to(path) if file != path else Path(file.name)
        if any(part.startswith(".") for part in inside.parts):
            continue
        if not _is_text(file):
            note(Fault(str(file), "not a text file, left out", expected=" or ".join(SUFFIXES), benign=True))
            continue
        try:
            text = _text(file)
        except InputError as error:
            note(Fault.of(error, str(file)))
            continue
        yield 1, Document(inside.as_posix(), text, title=file.name.split(".")[0])


def _text(file: Path) -> str:
    """
    Raises:
        InputError: the file cannot be read, is not UTF-8, or is blank.
    """
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{error.object[error.start]:02x}"
        raise InputError("not UTF-8", file=file, line=line, found=found, expected="UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError("the gzipped file is cut or damaged", file=file, found=str(error)) from error
    except OSError as error:
        raise InputError("the file cannot be opened", file=file, found=error.strerror) from error
    if not text.strip():
        raise InputError("the file is empty", file=file, expected="a text")
    return text
