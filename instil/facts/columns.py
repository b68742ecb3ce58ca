"""Rows of files with columns: CSV and Parquet."""

from __future__ import annotations

import csv
import io
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from instil.errors import InputError
from instil.facts.faults import Fault, shown
from instil.facts.layouts import counterfact, own, popqa, squad, triples, zsre
from instil.facts.layouts.fields import Record, Source

INDEX = "__index_level_"
"""How a data frame's index is named in a Parquet file."""

BATCH_ROWS = 2048
MARKS = (own.FIELDS | popqa.FIELDS | counterfact.FLAT_FIELDS | zsre.FIELDS | squad.ROW_FIELDS | {"text", "object"}) | {
    name for names in triples.NAMES for name in names
}
"""Column names by which a line of text is told to be the head of a table."""


def csv_dialect(start: bytes) -> str | None:
    """The separator of a table whose head is the first line of `start`, or None when no column is known."""
    head = start.split(b"\n", 1)[0].decode("utf-8", "replace")
    cells = {mark: [cell.strip(' "\r') for cell in head.split(mark)] for mark in ",\t;"}
    found = {mark: MARKS & set(_columns(names)) for mark, names in cells.items()}
    best = max(found, key=lambda mark: len(found[mark]))
    return best if found[best] else None


def _columns(cells: list[str]) -> list[str]:
    """Column names without space around them; the known ones in lower case, since tables often have capitals."""
    stripped = [cell.strip() for cell in cells]
    return [cell.lower() if cell.lower() in MARKS else cell for cell in stripped]


def csv_records(file: IO[bytes], separator: str, name: str) -> Iterator[Record | Fault]:
    """Rows by column name; an empty cell counts as missing.

    Raises:
        InputError: a column name occurs twice.
    """
    from instil.facts.records import guarded_lines

    csv.field_size_limit(sys.maxsize)
    breaks: list[Fault] = []
    reader = csv.reader(_decoded(guarded_lines(file, name), breaks), delimiter=separator, strict=True)
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            what = "a quote is never closed" if "unexpected end" in str(error) else "not CSV"
            yield Fault(name, what, line, found=str(error), expected="quotes around a cell, doubled inside it")
            continue
        if not cells:
            continue
        if columns is None:
            columns = _columns(cells)
            if repeated := [column for column in columns if columns.count(column) > 1]:
                raise InputError("a column occurs twice", file=name, line=line, field=repeated[0])
        else:
            yield _csv_row(cells, columns, name, line)
    yield from breaks


def _decoded(lines: Iterator[bytes | Fault], breaks: list[Fault]) -> Iterator[str]:
    """Text with undecodable bytes as lone surrogates, by which `_csv_row` knows them; a break is set aside."""
    for line in lines:
        if isinstance(line, Fault):
            breaks.append(line)
        else:
            yield line.decode("utf-8", "surrogateescape")


def _csv_row(cells: list[str], columns: list[str], name: str, line: int) -> Record | Fault:
    if len(cells) != len(columns):
        return Fault(name, "a row of another length", line, found=f"{len(cells)} cells", expected=f"{len(columns)}")
    for column, cell in zip(columns, cells, strict=True):
        if not cell.isascii() and (wrong := next((mark for mark in cell if "\udc80" <= mark <= "\udcff"), None)):
            return Fault(name, "not UTF-8", line, column, f"byte 0x{ord(wrong) - 0xDC00:02x}", "UTF-8")
    return line, {column: cell or None for column, cell in zip(columns, cells, strict=True)}


def parquet_records(path: Path, file: io.BufferedReader[Any], source: Source) -> Iterator[Record | Fault]:
    """Rows of a Parquet file, read in batches; a gzipped one is unzipped into a temporary file first.

    Raises:
        InputError: it is cut or damaged.
    """
    if file.raw is not None and isinstance(file.raw, io.FileIO):
        yield from _parquet_rows(str(path), source.name)
        return
    with tempfile.TemporaryFile() as unzipped:
        try:
            shutil.copyfileobj(file, unzipped)
        except (EOFError, OSError) as error:
            raise InputError("the gzipped file is cut or damaged", file=source.name, found=str(error)) from error
        unzipped.seek(0)
        yield from _parquet_rows(unzipped, source.name)


def _parquet_rows(place: str | IO[bytes], name: str) -> Iterator[Record | Fault]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(place) as table:
            if not table.metadata.num_rows:
                raise InputError("the file is empty", file=name, found="0 rows", expected="at least one fact")
            number = 0
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for row in _batch_rows(batch):
                    number += 1
                    yield (
                        Fault(name, row.what, number, row.field, row.found, row.expected)
                        if isinstance(row, Fault)
                        else (number, row)
                    )
    except (pa.ArrowException, OSError) as error:
        raise InputError("the Parquet file is cut or damaged", file=name, found=shown(str(error))) from error


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | Fault]:
    """The rows of one batch; only where a text in it is no UTF-8 are the cells taken one by one."""
    try:
        names, cells = batch.schema.names, (column.to_pylist() for column in batch.columns)
        rows: list[dict[str, Any] | Fault] = [
            dict(zip(names, values, strict=True)) for values in zip(*cells, strict=True)
        ]
    except UnicodeDecodeError:
        rows = [_cells(batch, index) for index in range(batch.num_rows)]
    if _is_clean(batch.schema):
        yield from rows
        return
    for row in rows:
        yield row if isinstance(row, Fault) else clean_row(row)


def _is_clean(schema: Any) -> bool:
    """Whether `clean_row` would find nothing in any row."""
    import pyarrow.types as types

    return not any(field.name.startswith(INDEX) or types.is_floating(field.type) for field in schema)


def _cells(batch: Any, index: int) -> dict[str, Any] | Fault:
    row = {}
    for column in batch.schema.names:
        try:
            row[column] = batch.column(column)[index].as_py()
        except UnicodeDecodeError as error:
            return Fault("", "not UTF-8", None, column, f"byte 0x{error.object[error.start]:02x}", "UTF-8")
    return row


def clean_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a data frame as JSON would have it: NaN stands for missing there, and the index is no field."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in row.items()
        if not name.startswith(INDEX)
    }
