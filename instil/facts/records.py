"""From a file or a data set to its rows, one after another: what it is made of is told by content, not by its name.

A fault of one row is yielded in its place; what makes the whole file unreadable is raised.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any, NoReturn

from instil.errors import InputError
from instil.facts.faults import Fault, kind, shown
from instil.facts.layouts.fields import Record, Source

BUFFER = 1 << 16
GZIP, PARQUET, BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
FOREIGN = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"%PDF": "a PDF document",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"ARROW1": "an Arrow file",
}
EXPECTED = "JSON Lines, JSON, CSV or Parquet, plain or gzipped"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILE_SUFFIX = re.compile(r"\.(jsonl|json|ndjson|csv|tsv|parquet|txt|md|gz)$", re.IGNORECASE)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def records(source: Source) -> Iterator[Record | Fault]:
    """The rows of the file or data set that `source` names.

    Raises:
        InputError: nothing of it can be read (missing, empty, of an unknown kind).
    """
    if source.name.startswith("hf:"):
        return _hub_records(source.name, source.name.removeprefix("hf:"))
    path = Path(source.name)
    try:
        if path.is_dir():
            return _hub_records(source.name, source.name)
        present = path.exists()
    except (OSError, ValueError) as error:
        raise InputError("the path cannot be used", file=shown(source.name), found=str(error)) from error
    if present:
        return _file_records(path, source)
    if _HUB_NAME.fullmatch(source.name.split(":")[0].split("@")[0]) and not _FILE_SUFFIX.search(source.name):
        return _hub_records(source.name, source.name)
    raise InputError("no such file", file=source.name)


def _hub_records(name: str, spec: str) -> Iterator[Record | Fault]:
    from instil.facts.hub import hub_records

    return hub_records(name, spec)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader[Any]]:
    """The bytes of a file, unzipped where they are gzipped.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        raw = io.FileIO(path)
    except OSError as error:
        raise InputError("the file cannot be opened", file=path, found=error.strerror) from error
    with io.BufferedReader(raw, BUFFER) as file:
        if file.peek(2)[:2] != GZIP:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unzipped:
            yield io.BufferedReader(unzipped, BUFFER)


def _file_records(path: Path, source: Source) -> Iterator[Record | Fault]:
    with opened(path) as file:
        start = b""
        with _unzipping(source.name):
            start = file.peek(BUFFER)
        refuse_foreign(start, source.name)
        if start.startswith(PARQUET):
            from instil.facts.columns import parquet_records

            yield from parquet_records(path, file, source)
            return
        if start.startswith(BOM):
            file.read(len(BOM))
            start = start[len(BOM) :]
        if not start.strip():
            file, start = _past_white_space(file, source.name)
        yield from _text_records(file, start.lstrip(), source)


def _past_white_space(file: io.BufferedReader[Any], name: str) -> tuple[io.BufferedReader[Any], bytes]:
    """A file that begins with a long stretch of white space is refused as empty unless something follows."""
    with _unzipping(name):
        while not (start := file.peek(BUFFER)).strip():
            if not file.read(len(start)):
                raise InputError("the file is empty", file=name, expected="at least one fact")
    return file, start


def _text_records(file: io.BufferedReader[Any], start: bytes, source: Source) -> Iterator[Record | Fault]:
    suffixes = [suffix.lower() for suffix in Path(source.name).suffixes]
    if start.startswith(b"["):
        return _array_records(file, source.name)
    if start.startswith(b"{"):
        return line_records(file, source.name)
    from instil.facts.columns import csv_dialect, csv_records

    dialect = csv_dialect(start)
    if dialect is not None or {".csv", ".tsv"} & set(suffixes):
        source.text_cells = True
        return csv_records(file, dialect or ",", source.name)
    if {".jsonl", ".ndjson", ".json"} & set(suffixes):
        return line_records(file, source.name)
    raise InputError(
        "the file is of no known kind", file=source.name, line=1, found=shown(start[:40]), expected=EXPECTED
    )


def refuse_foreign(start: bytes, name: str) -> None:
    """
    Raises:
        InputError: the file is empty, or begins like a kind of file that is not read.
    """
    if not start:
        raise InputError("the file is empty", file=name, expected="at least one fact")
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise InputError(f"the file is {what}", file=name, expected=EXPECTED + ", UTF-8")


@contextlib.contextmanager
def _unzipping(name: str) -> Iterator[None]:
    """Turn the ways in which a gzipped file can be broken into one `InputError`."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError("the gzipped file is cut or damaged", file=name, found=str(error)) from error


def guarded_lines(file: IO[bytes], name: str) -> Iterator[bytes | Fault]:
    """The lines of a file; where a gzipped file breaks off, a last fault."""
    number = 0
    try:
        for line in file:
            number += 1
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield Fault(
            name, "the gzipped file is cut or damaged here; nothing after it was read", number + 1, found=str(error)
        )


def line_records(file: IO[bytes], name: str) -> Iterator[Record | Fault]:
    """Rows of JSON Lines; or, when the first line only begins an object, the one object that is the file."""
    lines = guarded_lines(file, name)
    head: list[bytes | Fault] = []
    for line in lines:
        head.append(line)
        if isinstance(line, Fault) or line.strip():
            break
    first = head[-1] if head else b""
    if isinstance(first, bytes) and isinstance(_parse(first, name, len(head)), Fault):
        rest = next(lines, None)
        if _is_continued(first, rest):
            yield from _whole_object(chain(head, [] if rest is None else [rest], lines), name)
            return
        head += [] if rest is None else [rest]
    yield from _jsonl_records(chain(head, lines), name)


def _is_continued(first: bytes, second: bytes | Fault | None) -> bool:
    """Whether a line that is not JSON may begin an object that is written over several lines."""
    if second is None or not first.lstrip().startswith(b"{"):
        return False
    return isinstance(second, bytes) and not second.startswith(b"{")


def _jsonl_records(lines: Iterator[bytes | Fault], name: str) -> Iterator[Record | Fault]:
    """The short way takes a line that is exactly one object; `_parse` does the rest, and tells what is wrong."""
    scan = _SCANNER
    for number, line in enumerate(lines, 1):
        if isinstance(line, bytes):
            try:
                text = line.decode()
                value, end = scan(text, 0)
                if value.__class__ is dict and text[end:] in _LINE_ENDS and b"\\ud" not in line and b"\\uD" not in line:
                    yield number, value
                    continue
            except (ValueError, StopIteration, RecursionError):
                pass
            parsed = _parse(line, name, number)
            if parsed is not None:
                yield parsed
        else:
            yield line


def _parse(line: bytes, name: str, number: int) -> Record | Fault | None:
    """One line in full: its row, its fault, or None when it is blank."""
    if not line.strip():
        return None
    try:
        value = json_value(line.decode())
    except UnicodeDecodeError as error:
        return encoding_fault(name, number, error)
    except NotJSON as error:
        return Fault(name, error.what, number, found=error.found, expected="one JSON object a line")
    return _row(value, line, name, number)


def _row(value: Any, raw: bytes, name: str, number: int) -> Record | Fault:
    if not isinstance(value, dict):
        return Fault(
            name, "a row is not an object", number, found=kind(value), expected='{"question": …, "answers": […]}'
        )
    if _SURROGATE.search(raw) and (half := _half_character(value)):
        return Fault(name, "half of a surrogate pair is no character", number, found=half, expected="UTF-8 text")
    return number, value


def _half_character(value: Any) -> str | None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return ascii(error.object[error.start])
    return None


class NotJSON(Exception):
    """Text is not JSON: `what` is wrong, `found` is where."""

    def __init__(self, what: str, found: str, line: int = 1) -> None:
        super().__init__(what)
        self.what, self.found, self.line = what, found, line


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SCANNER: Callable[[str, int], tuple[Any, int]] = DECODER.scan_once  # type: ignore[attr-defined]
_LINE_ENDS = frozenset(("", "\n", "\r\n"))


def json_value(text: str) -> Any:
    """The JSON value that a text is.

    Raises:
        NotJSON: it is none, is cut, holds NaN or Infinity, or is nested beyond reason.
    """
    try:
        return DECODER.decode(text)
    except JSONDecodeError as error:
        raise not_json(error, text) from error
    except RecursionError as error:
        raise NotJSON("the JSON is nested too deeply", shown(text)) from error
    except ValueError as error:
        raise NotJSON("not JSON", str(error)) from error


def not_json(error: JSONDecodeError, text: str) -> NotJSON:
    place = f"{error.msg} at column {error.colno}: {shown(text[max(error.pos - 20, 0) : error.pos + 20])}"
    return NotJSON("the JSON breaks off" if is_cut(error, text) else "not JSON", place, error.lineno)


def is_cut(error: JSONDecodeError, text: str) -> bool:
    """Whether the text so far may be the beginning of valid JSON."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip())


def encoding_fault(name: str, number: int | None, error: UnicodeDecodeError) -> Fault:
    found = f"byte 0x{error.object[error.start]:02x} at byte {error.start + 1} of the line"
    return Fault(name, "not UTF-8", number, found=found, expected="UTF-8")


def _whole_object(lines: Iterator[bytes | Fault], name: str) -> Iterator[Record | Fault]:
    """The one object that a file is."""
    held = list(lines)
    faults = [line for line in held if isinstance(line, Fault)]
    data = b"".join(line for line in held if isinstance(line, bytes))
    try:
        yield faults[0] if faults else _row(json_value(data.decode()), data, name, 1)
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        yield encoding_fault(name, number, error)
    except NotJSON as error:
        yield Fault(
            name, error.what, error.line, found=error.found, expected="one JSON object a line, or one JSON file"
        )


def _array_records(file: IO[bytes], name: str) -> Iterator[Record | Fault]:
    """The items of one JSON array, parsed as they come; a broken item ends the file, since nothing marks the next."""
    from instil.facts.arrays import array_items

    for number, value, raw in array_items(file, name):
        yield value if isinstance(value, Fault) else _row(value, raw, name, number)
