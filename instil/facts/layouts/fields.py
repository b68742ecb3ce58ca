"""What every layout needs: typed access to the fields of a row, with one message for each way to be wrong."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instil.answers import normalise
from instil.facts.faults import InvalidRow, kind, shown
from instil.facts.layouts.templates import Templates

Row = Mapping[str, Any]

Record = tuple[int, dict[str, Any]]
"""Line (or row number) and the row that stands there."""

LIST_OF_TEXTS = "a list of one or more texts"


@dataclass
class Source:
    """The file that is being read, as the layouts see it.

    Attributes:
        name: the file as the user named it.
        stem: its name without folders and suffixes; rows without an id get `stem-row`.
        text_cells: rows come from CSV, where a list is a JSON list or texts between bars.
        row: 0-based number of the row that is being read.
        given_templates: question templates by relation; None looks beside the file when they are first needed.
        unknown_fields: how often each field that the layout does not know was kept as metadata.
        layout: the name of the layout that the first row showed.
        passages: ids of the passages read so far, where every question repeats its own.
    """

    name: str
    stem: str
    text_cells: bool = False
    row: int = 0
    given_templates: Templates | None = None
    unknown_fields: Counter[str] = field(default_factory=Counter)
    layout: str | None = None
    passages: set[str] = field(default_factory=set)

    @property
    def templates(self) -> Templates:
        if self.given_templates is None:
            self.given_templates = Templates.beside(Path(self.name))
        return self.given_templates


def is_blank(text: str) -> bool:
    """Whether nothing that can be asked or answered is in `text`."""
    return not (text[:1].isalnum() or normalise(text))


def text(row: Row, name: str, *, what: str | None = None) -> str:
    """A text that must be there."""
    value = row.get(name)
    if value is None:
        raise InvalidRow(what or f"no {name}", field=name, found="nothing", expected="a text")
    if type(value) is not str:
        raise InvalidRow(f"{name} is not a text", field=name, found=kind(value), expected="a text")
    if is_blank(value):
        raise InvalidRow(f"the {name} is empty", field=name, found=shown(value), expected="a text")
    return value


def optional_text(row: Row, name: str) -> str | None:
    """A text or None; an empty one counts as None."""
    value = row.get(name)
    if value is None or (type(value) is str and is_blank(value)):
        return None
    if type(value) is not str:
        raise InvalidRow(f"{name} is not a text", field=name, found=kind(value), expected="a text")
    return value


def texts(row: Row, name: str, source: Source) -> tuple[str, ...]:
    """A list of texts; missing and empty lists count as ()."""
    value = row.get(name)
    if value is None:
        return ()
    if source.text_cells and type(value) is str:
        value = cell_list(value, name)
    return text_list(value, name)


def answers(row: Row, name: str, source: Source) -> tuple[str, ...]:
    """The answers, at least one."""
    value = row.get(name)
    if value is None:
        raise InvalidRow("no answers", field=name, found="nothing", expected=LIST_OF_TEXTS)
    if source.text_cells and type(value) is str:
        value = cell_list(value, name)
    listed = text_list(value, name)
    if not listed:
        raise InvalidRow("no answers", field=name, found="an empty list", expected=LIST_OF_TEXTS)
    return listed


def one_or_more(row: Row, name: str) -> tuple[str, ...]:
    """A text or a list of them as a tuple, for fields that come as either; () when missing."""
    value = row.get(name)
    if isinstance(value, list | tuple):
        return text_list(value, name)
    single = optional_text(row, name)
    return (single,) if single is not None else ()


def text_list(value: Any, name: str) -> tuple[str, ...]:
    """`value` as texts, none of them blank."""
    if type(value) is not list and type(value) is not tuple:
        raise InvalidRow(f"{name} is not a list", field=name, found=kind(value), expected=LIST_OF_TEXTS)
    for index, item in enumerate(value):
        if type(item) is not str:
            raise InvalidRow(
                f"{name} holds something that is not a text",
                field=f"{name}[{index}]",
                found=kind(item),
                expected="a text",
            )
        if is_blank(item):
            raise InvalidRow(f"{name} holds an empty text", field=f"{name}[{index}]", found=shown(item))
    return tuple(value)


def cell_list(cell: str, name: str) -> list[Any]:
    """The list in a CSV cell: JSON when it begins with a bracket, otherwise the texts between bars."""
    if is_blank(cell):
        return []
    if not cell.lstrip().startswith("["):
        return between_bars(cell)
    return json_list(cell, name)


def between_bars(cell: str) -> list[Any]:
    return [part.strip() for part in cell.split("|")]


def json_list(cell: str, name: str) -> list[Any]:
    """The list that a text holds as JSON."""
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise InvalidRow(
            f"{name} begins like a JSON list and is none",
            field=name,
            found=shown(cell),
            expected='["a", "b"] or a|b',
        )
    return value


def identifier(row: Row, name: str, source: Source) -> str:
    """The id as text (numbers are taken as they are written), or one made of file name and row."""
    value = row.get(name)
    if value is None or value == "":
        return f"{source.stem}-{source.row}"
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise InvalidRow(f"{name} is not a text", field=name, found=kind(value), expected="a text or a number")


def unique(items: Iterable[str]) -> tuple[str, ...]:
    """Each item once, in order of first appearance."""
    return tuple(dict.fromkeys(items))


def extras(row: Row, known: frozenset[str]) -> dict[str, Any]:
    """The fields that the layout does not use, in a form that JSON can hold."""
    return {name: storable(value, name) for name, value in row.items() if name not in known and value is not None}


def storable(value: Any, name: str) -> Any:
    """`value` as JSON can write it: dates and decimals as text; bytes are refused."""
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): storable(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item, name) for item in value]
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal):
        return str(value)
    raise InvalidRow(f"{name} cannot be kept", field=name, found=kind(value), expected="what JSON can hold")
