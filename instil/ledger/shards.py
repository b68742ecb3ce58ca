"""One append is one folder: the rows as Parquet and an entry that vouches for them.

    answers/00000007/rows.parquet    the rows
    answers/00000007/entry.json      their checksum, the batch's key, and the checksum of the entry before

Both are written into a hidden draft folder, synced, and renamed in one step to the next free number. So a shard is
there whole or not at all, no kill can leave rows without their entry, and of two writers exactly one gets a number.
Since every entry names the one before, a shard that was taken away or changed later is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instil.errors import InputError
from instil.files import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa

ROWS: Final = "rows.parquet"
ENTRY: Final = "entry.json"
DRAFT: Final = ".draft-"
NUMBER: Final = re.compile(r"\d{8}")
FIRST: Final = "none"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `Ledger.verify` found.

    Attributes:
        kind: "flipped", "missing", "unreadable", "foreign" or "unfinished"; the last two are harmless.
        where: path inside the ledger.
        what: in plain words.
        runs: the runs whose rows are hit, as far as the intact half of the shard says; empty when it does not.
    """

    kind: str
    where: str
    what: str
    runs: tuple[str, ...] = ()

    @property
    def harmless(self) -> bool:
        return self.kind in ("foreign", "unfinished")

    @property
    def table(self) -> str | None:
        """The table that is hit; None when it is the ledger's own header, or nothing of the ledger's."""
        first, inside, _ = self.where.partition("/")
        return first if inside else None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Damaged(InputError):
    """A shard is not as it was written. Carries the `Problem`."""

    def __init__(self, problem: Problem, folder: Path) -> None:
        super().__init__(f"the ledger is damaged: {problem.what}", file=folder / problem.where)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Entry:
    """What vouches for a shard.

    Attributes:
        format: of the ledger that the writer knew.
        table: the table it belongs to.
        number: its place, from 1 without gaps.
        rows: how many.
        size: of the Parquet file, in bytes.
        sha256: of the Parquet file.
        key: the batch, so that appending it again changes nothing.
        previous: checksum of the entry file before, or "none".
        written: ISO 8601 time.
        version: of Instil.
    """

    format: int
    table: str
    number: int
    rows: int
    size: int
    sha256: str
    key: str | None
    previous: str
    written: str
    version: str

    def to_bytes(self) -> bytes:
        plain = asdict(self)
        return (json.dumps({**plain, "checksum": _checksum(plain)}, indent=1, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Shard:
    """An entry with the checksum of its own file, which the next entry repeats."""

    entry: Entry
    own: str

    @property
    def where(self) -> str:
        return f"{self.entry.table}/{self.entry.number:08d}"


def numbers(folder: Path) -> list[int]:
    """The shards of a table's folder, in order; drafts and foreign names are passed over."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if NUMBER.fullmatch(path.name))


def read_entry(ledger: Path, table: str, number: int) -> Shard:
    """Raises `Damaged` when the entry is missing or not as it was written."""
    where = f"{table}/{number:08d}"
    path = ledger / where / ENTRY
    try:
        raw = path.read_bytes()
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise Damaged(Problem(kind, where, f"its {ENTRY} cannot be read"), ledger) from error
    try:
        plain: dict[str, Any] = json.loads(raw)
        checksum = plain.pop("checksum")
        entry = Entry(**{field.name: plain.pop(field.name) for field in fields(Entry)})
        # Byte for byte: JSON that means the same would hide a flip between its marks.
        intact = not plain and _checksum(asdict(entry)) == checksum and entry.to_bytes() == raw
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact or (entry.table, entry.number) != (table, number):
        raise Damaged(Problem("flipped", where, f"its {ENTRY} is not as it was written"), ledger)
    return Shard(entry, fingerprint([raw]))


def read_rows(ledger: Path, shard: Shard) -> pa.Table:
    """The rows of a shard, checked against its entry. Raises `Damaged` when they are missing or not as written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = ledger / shard.where / ROWS
    try:
        raw = path.read_bytes()
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise Damaged(Problem(kind, shard.where, f"its {ROWS} cannot be read"), ledger) from error
    if hashlib.sha256(raw).hexdigest() != shard.entry.sha256:
        raise Damaged(Problem("flipped", shard.where, f"its {ROWS} is not as it was written"), ledger)
    rows = pq.read_table(pa.BufferReader(raw))
    if len(rows) != shard.entry.rows:
        raise Damaged(Problem("flipped", shard.where, f"{len(rows)} rows, not {shard.entry.rows}"), ledger)
    return rows


def gaps(table: str, found: list[int]) -> Iterator[Problem]:
    """Numbers of a table that no shard has."""
    for number in sorted(set(range(1, max(found, default=0) + 1)) - set(found)):
        yield Problem("missing", f"{table}/{number:08d}", "the shard is missing")


def shard_problems(ledger: Path, table: str, found: list[int]) -> Iterator[Problem]:
    """Everything that is wrong with the shards of a table, each read in full."""
    yield from gaps(table, found)
    before = {0: FIRST}
    for number in found:
        try:
            shard = read_entry(ledger, table, number)
            before[number] = shard.own
            if before.get(number - 1, shard.entry.previous) != shard.entry.previous:
                what = "it was not written after the shard that now stands before it"
                yield Problem("flipped", shard.where, what, runs_of(ledger, table, number))
            read_rows(ledger, shard)
        except Damaged as damage:
            yield replace(damage.problem, runs=runs_of(ledger, table, number))


def runs_of(ledger: Path, table: str, number: int) -> tuple[str, ...]:
    """The runs whose rows a damaged shard holds: by its batch's key where the entry is intact, else by its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        key = read_entry(ledger, table, number).entry.key or ""
    except Damaged:
        key = ""
    if "/" in key:
        return (key.partition("/")[0],)
    try:
        file = pa.BufferReader((ledger / f"{table}/{number:08d}" / ROWS).read_bytes())
        found = pq.ParquetFile(file).read(columns=["run_id"], use_threads=False)
        return tuple(sorted(str(run) for run in set(found["run_id"].to_pylist())))
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return ()


def _checksum(plain: dict[str, Any]) -> str:
    return fingerprint([json.dumps(plain, sort_keys=True)])
