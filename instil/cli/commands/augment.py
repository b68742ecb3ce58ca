"""`instil augment`: documents in other formats, to look at or into a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instil.cli.commanding import WrongUsage, command, flag
from instil.cli.options import SkipInvalid, check_out
from instil.cli.terminal import Terminal, printable, table
from instil.errors import InputError

if TYPE_CHECKING:
    from instil.augment import Copy, Recipe
    from instil.augment.writing import Written
    from instil.facts import Document, Fault

SHOWN = 3
LONGEST = 700
"""Characters of a text that the preview shows."""

SAMPLE = "Ada Lovelace was born in London on 10 December 1815. Her notes on Babbage's engine hold the first program."
INSERTED, HEAD = "bold cyan", "bold"


def register(app: typer.Typer) -> None:
    command(app, "augment", example="instil augment articles.jsonl --show 3")(augment)


def augment(
    terminal: Terminal,
    documents: Annotated[
        str | None, typer.Argument(metavar="DOCS", help="Documents: rows with `text`, or texts.", show_default=False)
    ] = None,
    show: Annotated[
        int | None, typer.Option("--show", metavar="N", min=1, help="Print the first N documents and their copies.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="JSONL file to write; gzipped as .gz.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--formats",
            metavar="A,B,C",
            help="Formats (or controls) to choose from; heading+bullets is both in one copy. Every format if left out.",
        ),
    ] = None,
    copies: Annotated[int, typer.Option("--copies", min=0, help="Copies of each document, besides itself.")] = 4,
    without_original: Annotated[bool, flag("--without-original", help="Write the copies only.")] = False,
    spans: Annotated[bool, flag("--spans", help="Write into each copy's metadata what was inserted where.")] = False,
    listed: Annotated[bool, flag("--list", help="List the formats and the controls, and stop.")] = False,
    force: Annotated[bool, flag("--force", help="Replace a file that is there.")] = False,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Put documents into other formats, which keep every word in its place: a preview, or a file to teach from.

    Without --out the first documents are shown beside their copies; what a format inserted is coloured on a terminal.
    The same seed gives a document the same copies, whatever other documents are with it.
    """
    from instil.augment import recipes

    if listed:
        show_formats(terminal)
        return
    if documents is None:
        raise WrongUsage("no documents are named", field="DOCS", expected="a file of documents, or --list")
    if show is not None and out is not None:
        raise WrongUsage("a preview or a file, not both", field="--show", found=f"--out {out}")
    if without_original and not copies:
        raise WrongUsage("nothing would be written", field="--copies", found="0", expected="1 or more")
    pool = recipes(formats)
    faults: list[Fault] = []
    found = read(documents, faults, skip_invalid)
    if out is None:
        preview(terminal, list(itertools.islice(found, show or SHOWN)), pool, copies)
        return
    check_file(out, documents, force)
    write(terminal, found, out, pool, faults, copies=copies, original=not without_original, spans=spans)


def read(source: str, faults: list[Fault], skip_invalid: bool) -> Iterator[Document]:
    """The documents of a file as a stream; what is left out goes to `faults`.

    Raises:
        InputError: the file is faulty, or holds no document.
    """
    from instil.facts import iter_documents

    def note(fault: Fault) -> None:
        if not (skip_invalid or fault.benign):
            raise fault.as_error()
        faults.append(fault)

    none = True
    for document in iter_documents(source, on_fault=note):
        none = False
        yield document
    if none:
        found = f"{len(faults)} invalid rows" if faults else "no rows"
        raise InputError("nothing valid is in the file", file=source, found=found, expected="at least one document")


def check_file(out: Path, documents: str, force: bool) -> None:
    """Raises `InputError` when the file cannot be written, is there already, or is what is read."""
    if out.is_dir() or (out.exists() and not force):
        raise InputError("something is there already", file=out, field="--out", expected="a new file, or --force")
    if out.exists() and Path(documents).exists() and out.samefile(documents):
        raise InputError("this is the file that is read", file=out, field="--out", expected="another file")
    check_out(out.parent)


def write(
    terminal: Terminal,
    documents: Iterator[Document],
    out: Path,
    pool: Sequence[Recipe],
    faults: list[Fault],
    **options: Any,
) -> None:
    """Write the file, and say what is in it."""
    from instil.augment.writing import write_copies

    with terminal.progress() as progress:
        done = write_copies(
            documents,
            out,
            pool,
            seed=terminal.seed,
            progress=lambda ready: progress("formatting", ready, None, unit="documents"),
            **options,
        )
    left_out = [str(fault) for fault in faults]
    plan = {"seed": terminal.seed, **options}
    terminal.result({"out": str(out), **plan, "written": done.to_dict(), "left_out": left_out})
    terminal.show(*written_lines(done, out))
    if left_out:
        terminal.show(f"Left out: {len(left_out):,} (--json lists them)")


def written_lines(done: Written, out: Path) -> list[Any]:
    """What was written: how many copies in which formats, and what they did to the words."""
    rows = [(name, count) for name, count in sorted(done.by_format.items())]
    lines = [table(None, ("format", "copies"), rows), f"{done.documents:,} documents, {done.copies:,} copies: {out}"]
    kept = done.copies - sum(done.by_format[name] for name in done.changing)
    if kept:
        lines.append(f"Proved: {kept:,} copies hold every word of their document, in its place.")
    if done.changing:
        lines.append(f"Not content-preserving: {', '.join(done.changing)}")
    if done.unchanged:
        lines.append(f"{done.unchanged:,} copies are as the document itself: the format found nothing to do.")
    return lines


# --------------------------------------------------------------------- preview


def preview(terminal: Terminal, documents: Sequence[Document], pool: Sequence[Recipe], copies: int) -> None:
    """Documents, each with its copies as they would be written."""
    from instil.augment import copies_of

    shown = [(one, list(copies_of(one, pool, copies=copies, seed=terminal.seed))) for one in documents]
    terminal.result([as_json(document, made) for document, made in shown])
    for document, made in shown:
        name = document.title or document.subject
        terminal.show(headline(f"{document.id} · {name}" if name else document.id, terminal, "━"))
        terminal.show(*block("as it is", document.text, (), terminal))
        for copy in made:
            label = copy.recipe.name + remark(copy, document.text)
            terminal.show(*block(label, copy.formatted.text, copy.formatted.inserted, terminal))


def remark(copy: Copy, text: str) -> str:
    """What the colours do not show of a copy."""
    if not copy.recipe.preserving:
        return " (not content-preserving)"
    if copy.document.text == text:
        return " (as it is)"
    return "" if copy.formatted.inserted else " (white space only)"


def as_json(document: Document, copies: Sequence[Copy]) -> dict[str, Any]:
    made = [
        {
            "id": copy.document.id,
            "formats": copy.recipe.name,
            "content_preserving": copy.recipe.preserving,
            "text": copy.formatted.text,
            "inserted": copy.formatted.inserted,
        }
        for copy in copies
    ]
    return {"id": document.id, "title": document.title, "text": document.text, "copies": made}


def headline(text: str, terminal: Terminal, rule: str) -> Any:
    line = f"{rule * 2} {printable(text)} {rule * max(2, 70 - len(text))}"
    if not terminal.out.isatty():
        return line
    from rich.text import Text

    return Text(line, HEAD)


def block(label: str, text: str, inserted: Sequence[tuple[int, int]], terminal: Terminal) -> list[Any]:
    """A text under its label, shortened; on a terminal with what was inserted in colour."""
    more = len(text) - LONGEST
    rest = f"… [{more:,} characters more]" if more > 0 else ""
    body: Any = text[:LONGEST] + rest
    if terminal.out.isatty():
        from rich.text import Text

        body, last = Text(), 0
        for start, end in inserted:
            body.append(printable(text[last : min(start, LONGEST)]))
            body.append(printable(text[start : min(end, LONGEST)]), INSERTED)
            last = end
        body.append(printable(text[last:LONGEST]) + rest)
    return [headline(label, terminal, "─"), body, ""]


# ------------------------------------------------------------------------ list


def show_formats(terminal: Terminal) -> None:
    """Every format with an example, and every control with what it keeps."""
    from instil.augment import CONTROLS, FORMATS

    shown = examples()
    terminal.result(
        {
            "formats": [{"name": one.name, "about": one.about, "example": shown[one.name]} for one in FORMATS.values()],
            "controls": [{"name": one.name, "about": one.about, "keeps": one.keeps} for one in CONTROLS.values()],
        }
    )
    terminal.show(
        table("Formats: every word stays in its place", ("format", "what it does"), rows_of(FORMATS)),
        table(
            "Controls: not content-preserving, to compare with",
            ("control", "what it does", "what it keeps"),
            [(one.name, one.about, one.keeps) for one in CONTROLS.values()],
        ),
        "heading+bullets is both in one copy. Noise and dropout on token ids: instil.augment in Python.",
    )


def examples() -> dict[str, str]:
    """A short document in each format, in one of its variants."""
    from instil.augment import FORMATS, Recipe, copy_of
    from instil.facts import Document

    sample = Document("sample", SAMPLE, title="Ada Lovelace")
    return {name: copy_of(sample, Recipe.parse(name), copy=1, seed=0).formatted.text for name in FORMATS}


def rows_of(formats: Any) -> list[tuple[str, str]]:
    return [(one.name, one.about) for one in formats.values()]
