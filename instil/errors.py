"""The two ways a command can end badly: the input was wrong (exit 2), or the run failed (exit 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class InputError(Exception):
    """The input or the options were wrong. The command line prints one line and exits with 2.

    Attributes:
        what: the fault in plain words, without a trailing full stop.
        file: the file or folder that holds it, if any.
        line: 1-based line (or row) in that file.
        field: the field or option.
        found: what stood there, shortened.
        expected: what should have stood there.
    """

    what: str
    file: str | Path | None = None
    line: int | None = None
    field: str | None = None
    found: str | None = None
    expected: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        detail = ", ".join(
            f"{name} {value}"
            for name, value in (("field", self.field), ("found", self.found), ("expected", self.expected))
            if value is not None
        )
        text = f"{place}: {self.what}" if place else self.what
        return f"{text} ({detail})" if detail else text


class RunFailed(Exception):
    """The run ended for a reason outside the input (disk, memory, a worker). The command line exits with 1."""
