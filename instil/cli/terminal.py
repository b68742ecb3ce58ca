"""What a command says: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from instil.cli.progress import Progress


LONGEST_LINE = 2_000
"""Characters of an error that are printed; `--json` has all of them."""


@dataclass
class Terminal:
    """The two streams of one command.

    Attributes:
        as_json: standard output carries one JSON value and nothing else.
        quiet: only errors (and the JSON, if asked for).
        seed: the command's `--seed`.
        out: where results go; libraries that print while a command runs are sent to `err`.
        err: where progress and remarks go.
        answered: whether the JSON value was printed.
    """

    as_json: bool = False
    quiet: bool = False
    seed: int = 0
    out: IO[str] = field(default_factory=lambda: sys.stdout)
    err: IO[str] = field(default_factory=lambda: sys.stderr)
    answered: bool = False

    @property
    def console(self) -> Console:
        """A rich console on standard output: colours on a terminal, plain and 100 columns wide elsewhere."""
        from rich.console import Console

        return Console(file=self.out, highlight=False, width=None if self.out.isatty() else 100, soft_wrap=False)

    def show(self, *parts: RenderableType) -> None:
        """Print a result for people. Square brackets in a fact are no markup, control characters are shown as such."""
        if self.as_json or self.quiet:
            return
        for part in parts:
            if isinstance(part, str):
                self.out.write(printable(part) + "\n")
            else:
                self.console.print(part)
        self.out.flush()

    def show_data(self, text: str) -> None:
        """Print what another program reads and is no JSON, such as CSV, as it is."""
        if not self.as_json and not self.quiet:
            self.out.write(text + "\n")
            self.out.flush()

    def result(self, value: Any) -> None:
        """Print the result for machines, when they were asked for. Only the first is printed: it is one value."""
        if self.as_json and not self.answered:
            self.answered = True
            self.out.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")
            self.out.flush()

    def note(self, text: str) -> None:
        """A remark that is no result."""
        if not self.quiet:
            self.err.write(printable(text) + "\n")
            self.err.flush()

    def fail(self, message: str, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        """One line on standard error (a second one for the hint), and with `--json` an object on standard output."""
        line = " ".join(message.split())
        cut = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… [{len(line):,} characters]"
        self.err.write(f"instil: {printable(cut)}\n")
        if hint:
            self.err.write(f"{hint}\n")
        self.err.flush()
        self.result({"error": {"message": message, **(details or {}), **({"hint": hint} if hint else {})}})

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress with rate and time left on a terminal, plain lines elsewhere, silence with `--quiet`."""
        from instil.cli.progress import LineProgress, RichProgress, SilentProgress

        if self.quiet:
            yield SilentProgress()
        elif self.err.isatty():
            with RichProgress(self.err) as progress:
                yield progress
        else:
            with LineProgress(self.err) as progress:
                yield progress


def table(
    title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, last_apart: bool = False
) -> RenderableType:
    """A rich table whose cells are taken as they are; columns after the first that hold numbers are set right.

    With `last_apart` a line stands before the last row, which sums up the others.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [[_cell(value) for value in row] for row in rows]
    drawn = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        numeric = position > 0 and bool(rows) and all(_numeric(row[position]) for row in rows)
        drawn.add_column(printable(column), justify="right" if numeric else "left", overflow="fold")
    for place, row in enumerate(rows):
        drawn.add_row(*(Text(cell) for cell in row), end_section=last_apart and place == len(rows) - 2)
    return drawn


def printable(text: str) -> str:
    """Control characters and direction marks as \\x1b and \\u202e: no fact moves the cursor, colours what follows or
    turns a line around. Line ends and tabs stay."""
    return text.translate(_SEEN)


_SEEN = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))} | {
    code: f"\\u{code:04x}"
    for code in (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _numeric(cell: str) -> bool:
    return cell == "–" or cell[:1].isdigit() or (cell[:1] in "-−+±<" and cell[1:2].isdigit())


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    return str(value)
