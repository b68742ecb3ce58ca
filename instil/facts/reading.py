"""Facts and documents from files and data sets.

A file is refused at its first fault, unless the caller asks to leave out what is invalid and to be told of it.
Everything streams: `iter_facts` holds one row and 16 to 32 bytes for each id, however long the file is. Of long files
`read_facts` holds 32 to 64 bytes a fact while it reads, and 8 bytes afterwards (`instil.facts.packed`).
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from instil.errors import InputError
from instil.facts.faults import Fault, InvalidRow, shown
from instil.facts.layouts import LAYOUTS, Layout, Row, Source, Templates, by_name, recognise
from instil.facts.layouts import document as document_layout
from instil.facts.packed import Collector
from instil.facts.records import records
from instil.facts.seen import SeenIds
from instil.facts.texts import holds_texts, text_documents
from instil.facts.types import Corpus, Document, Fact, FactSet

Item = TypeVar("Item", Fact, Document)
Convert = Callable[[Row, Source], Sequence[Item | Fault]]
OnFault = Callable[[Fault], None]


def read_facts(
    source: str | Path,
    *,
    layout: str | None = None,
    templates: str | Path | None = None,
    skip_invalid: bool = False,
) -> FactSet:
    """Read all facts of a file (JSON Lines, JSON, CSV, Parquet, gzipped or not) or of a Hugging Face data set.

    Args:
        source: a path, `hf:NAME[@CONFIG][:SPLIT]`, or the name of a data set where no such file exists.
        layout: one of `instil.facts.layouts.LAYOUTS`; None recognises it by the first row.
        templates: question templates by relation, for triples; None looks beside the file.
        skip_invalid: leave out what is invalid instead of refusing the file; `FactSet.left_out` says what and why.

    Raises:
        InputError: the file is missing, empty, unreadable, has a fault, or (with `skip_invalid`) holds no valid fact.
    """
    faults: list[Fault] = []
    benign: list[Fault] = []

    def note(fault: Fault) -> None:
        if not (skip_invalid or fault.benign):
            raise fault.as_error()
        (benign if fault.benign else faults).append(fault)

    place = source_of(source, templates)
    facts = _once(fact_rows(place, layout, note), place, note, Collector())
    return FactSet(_some(facts, place, faults), left_out=(*map(str, faults), *grouped(benign)))


def iter_facts(
    source: str | Path,
    *,
    layout: str | None = None,
    templates: str | Path | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[Fact]:
    """The facts of a file one after another, in memory that does not grow with it (16 to 32 bytes an id apart).

    Args:
        on_fault: told of every row that is left out. Without it the first fault is raised, and only rows that the
            layout itself marks as no facts (unanswerable questions) are passed over.

    Raises:
        InputError: as `read_facts`; possibly after many facts have been yielded.
    """

    def note(fault: Fault) -> None:
        if on_fault is not None:
            on_fault(fault)
        elif not fault.benign:
            raise fault.as_error()

    place = source_of(source, templates)
    seen = SeenIds()
    found = False
    for line, fact in fact_rows(place, layout, note):
        if not seen.add(fact.id):
            note(repeated_id(place, line, fact.id, None))
            continue
        found = True
        yield fact
    if not found:
        _some((), place, ())


def read_documents(source: str | Path, *, skip_invalid: bool = False) -> Corpus:
    """Read documents: rows with `text` (and `id`, `title`), SQuAD's passages, a .txt or .md file, or a folder of them.

    Raises:
        InputError: as `read_facts`.
    """
    faults: list[Fault] = []

    def note(fault: Fault) -> None:
        if not skip_invalid and not fault.benign:
            raise fault.as_error()
        faults.append(fault)

    place = source_of(source, None)
    documents = _once(_document_rows(place, note), place, note, Collector(above=sys.maxsize))
    return Corpus(_some(documents, place, faults), left_out=tuple(map(str, faults)))


def iter_documents(source: str | Path, *, on_fault: OnFault | None = None) -> Iterator[Document]:
    """The documents of a file one after another; `on_fault` as in `iter_facts`.

    Raises:
        InputError: as `read_documents`.
    """

    def note(fault: Fault) -> None:
        if on_fault is not None:
            on_fault(fault)
        elif not fault.benign:
            raise fault.as_error()

    place = source_of(source, None)
    seen = SeenIds()
    for line, document in _document_rows(place, note):
        if seen.add(document.id):
            yield document
        else:
            note(repeated_id(place, line, document.id, None))


def source_of(source: str | Path, templates: str | Path | None) -> Source:
    """What is to be read, with its templates already loaded where they are named."""
    name = str(source)
    stem = Path(name.split(":")[-1]).name.split(".")[0] or "row"
    return Source(name, stem, given_templates=None if templates is None else Templates.load(templates))


def fact_rows(source: Source, layout: str | None, note: OnFault) -> Iterator[tuple[int, Fact]]:
    """(line, fact) for every row that is one; ids may repeat. The others go to `note`."""
    named = by_name(layout) if layout is not None else None

    def choose(row: Row) -> Convert[Fact]:
        chosen = named or recognised(row, source)
        source.layout = chosen.name
        return chosen.facts

    return _converted(source, choose, note)


def recognised(row: Row, source: Source) -> Layout:
    """The layout of a file's first row.

    Raises:
        InputError: it is none that is known.
    """
    layout = recognise(row)
    if layout is not None:
        return layout
    if "text" in row:
        raise InputError(
            "these are documents, not facts", file=source.name, expected="--documents, or rows with answers"
        )
    raise InputError(
        "the layout is not recognised",
        file=source.name,
        found="fields " + shown(", ".join(map(str, row))),
        expected="; ".join(f"{each.tells} ({each.name})" for each in LAYOUTS.values()),
    )


def _document_rows(source: Source, note: OnFault) -> Iterator[tuple[int, Document]]:
    def choose(row: Row) -> Convert[Document]:
        layout = recognise(row)
        if layout is not None and layout.documents is not None:
            source.layout = layout.name
            return layout.documents
        if "text" in row:
            return document_layout.documents
        what = "these are facts, not documents" if layout is not None else "rows without a text"
        found = "fields " + shown(", ".join(map(str, row)))
        raise InputError(what, file=source.name, field="text", found=found, expected="id, title and text")

    if holds_texts(Path(source.name)):
        return text_documents(Path(source.name), note)
    return _converted(source, choose, note)


def _converted(source: Source, choose: Callable[[Row], Convert[Item]], note: OnFault) -> Iterator[tuple[int, Item]]:
    """Every row through the conversion that the first row chooses."""
    convert: Convert[Item] | None = None
    for record in records(source):
        if isinstance(record, Fault):
            note(record)
        else:
            line, row = record
            if convert is None:
                convert = choose(row)
            try:
                for item in convert(row, source):
                    if isinstance(item, Fault):
                        note(replace(item, line=line))
                    else:
                        yield line, item
            except InvalidRow as fault:
                note(fault.at(source.name, line))
        source.row += 1


def _once(rows: Iterator[tuple[int, Item]], source: Source, note: OnFault, collector: Collector) -> Sequence[Item]:
    """The rows whose id is new."""
    lines = array("Q")
    for line, item in rows:
        there = collector.add(item)
        if there is None:
            lines.append(line)
        else:
            note(repeated_id(source, line, item.id, lines[there]))
    return collector.items()


def repeated_id(source: Source, line: int, name: str, first: int | None) -> Fault:
    expected = "unique ids" if first is None else f"unique ids; the first stands on line {first}"
    return Fault(source.name, "an id occurs twice", line, "id", shown(name), expected)


def _some(items: Sequence[Item], source: Source, faults: Sequence[Fault]) -> Sequence[Item]:
    """
    Raises:
        InputError: nothing is left; an empty set would fail silently later.
    """
    if not items:
        found = f"{len(faults)} invalid rows" if faults else "no rows"
        raise InputError("nothing valid is in the file", file=source.name, found=found, expected="at least one row")
    return items


def grouped(faults: Sequence[Fault]) -> list[str]:
    """One line for all rows that were left out for the same benign reason."""
    counts = Counter((fault.file, fault.what) for fault in faults)
    return [f"{file}: {count} rows left out: {what}" for (file, what), count in counts.items()]
