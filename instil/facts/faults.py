"""What is wrong with a file: where it stands, what was found there, and what was expected."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from instil.errors import InputError

SHOWN = 60
"""Characters of a found value that a message shows."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a file.

    Attributes:
        file: the file (or data set) as the user named it.
        what: the fault in plain words.
        line: 1-based line of a text file, row of a Parquet file or data set, None when the whole file is meant.
        field: the field or column.
        found: what stood there, shortened, with unprintable characters escaped.
        expected: what should have stood there.
        benign: the layout itself says that the row is not a fact (an unanswerable question): left out, never an error.
    """

    file: str
    what: str
    line: int | None = None
    field: str | None = None
    found: str | None = None
    expected: str | None = None
    benign: bool = False

    def as_error(self) -> InputError:
        return InputError(
            self.what, file=self.file, line=self.line, field=self.field, found=self.found, expected=self.expected
        )

    @staticmethod
    def of(error: InputError, file: str) -> Fault:
        """The fault that `error` tells of; `file` stands in where it names none."""
        named = file if error.file is None else str(error.file)
        return Fault(named, error.what, error.line, error.field, error.found, error.expected)

    def __str__(self) -> str:
        return str(self.as_error())

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "benign"}


class InvalidRow(Exception):
    """A row is no fact. Raised by layouts, turned into a `Fault` where file and line are known.

    `found` is printed as it is: pass it through `shown` or `kind`.
    """

    def __init__(
        self,
        what: str,
        *,
        field: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        benign: bool = False,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.field = field
        self.found = found
        self.expected = expected
        self.benign = benign

    def at(self, file: str, line: int | None, inside: str = "") -> Fault:
        """The fault with its place; `inside` is the path to the part of the row that holds `field`."""
        field = ".".join(part for part in (inside, self.field) if part) or None
        return Fault(file, self.what, line, field, self.found, self.expected, self.benign)


def shown(value: Any) -> str:
    """A short printable form of any value: control characters and direction marks come out escaped."""
    head = value[: SHOWN + 1] if isinstance(value, str | bytes | list | tuple) else value
    text = repr(head)
    return text if len(text) <= SHOWN + 2 else text[:SHOWN] + "…"


_PLAIN_NAMES = {
    "NoneType": "nothing",
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
}


def kind(value: Any) -> str:
    """The type of `value` in words that a JSON user knows, with the value: "a number: 1912"."""
    name = _PLAIN_NAMES.get(type(value).__name__, type(value).__name__)
    return name if value is None else f"{name}: {shown(value)}"
