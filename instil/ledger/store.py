"""`Ledger`: append-only tables in one folder that survive a kill at any moment and several writers at once."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instil.errors import InputError, RunFailed
from instil.files import claim, fingerprint, write_text
from instil.ledger import shards as sh
from instil.ledger.tables import TABLES, conform, schema, to_arrow
from instil.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT: Final = 1
HEADER: Final = "ledger.json"


@dataclass(frozen=True, slots=True)
class Verification:
    """What `Ledger.verify` saw.

    Attributes:
        shards: how many were read.
        rows: how many they should hold, by table.
        problems: what is wrong or left over.
    """

    shards: int
    rows: Mapping[str, int]
    problems: tuple[sh.Problem, ...]

    @property
    def ok(self) -> bool:
        """Nothing that was appended is lost or changed. A killed writer's draft and foreign files are harmless."""
        return all(problem.harmless for problem in self.problems)


class Ledger:
    """A folder of append-only tables; `instil.ledger.TABLES` lists them and their columns.

    Nothing is written before the first `append`. Every append is durable when it returns. Reading checks each shard
    against its checksum and refuses a damaged one.

    Raises:
        InputError: the folder holds something else, or a ledger that a newer version wrote.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._seen: dict[str, dict[int, sh.Shard]] = {table: {} for table in TABLES}
        self._check_header()

    def __repr__(self) -> str:
        return f"Ledger({str(self.folder)!r})"

    @classmethod
    def unopened(cls, folder: str | Path) -> Ledger:
        """A ledger whose header was not looked at, so that `verify` can tell what is wrong with it too."""
        ledger = cls.__new__(cls)
        ledger.folder, ledger._seen = Path(folder), {table: {} for table in TABLES}
        return ledger

    def append(self, table: str, rows: Sequence[Mapping[str, Any]] | pa.Table, key: str | None = None) -> bool:
        """Append rows as one shard, all or none.

        Args:
            table: its name.
            rows: mappings of column to value, or an Arrow table. Columns that may be empty can be absent.
            key: names the batch. A batch whose key the table already holds is not appended again, so that a run that
                is resumed may repeat what it recorded before it was cut off.

        Returns:
            Whether rows were appended.

        Raises:
            InputError: a column is unknown or missing, or a value is of another type.
            RunFailed: the disk is full or cannot be written.
        """
        data = to_arrow(table, rows)
        if not len(data):
            return False
        try:
            self._write_header()
            return self._append(table, data, key)
        except OSError as error:
            raise RunFailed(f"could not write to the ledger {self.folder}: {error.strerror or error}") from error

    def read(self, table: str, *, columns: Sequence[str] | None = None, **filters: Any) -> pa.Table:
        """The rows of a table in the order in which they were appended.

        Args:
            table: its name.
            columns: only these.
            **filters: a column and the value, or a list or set of values, that it must have; `None` for empty.

        Raises:
            InputError: no such table or column, or a shard is missing or damaged.
        """
        import pyarrow as pa

        wanted = schema(table)
        for name in (*filters, *(columns or ())):
            if name not in wanted.names:
                raise InputError(f"table {table} has no such column", field=name, expected=", ".join(wanted.names))
        parts = [_matching(conform(table, sh.read_rows(self.folder, shard)), filters) for shard in self._shards(table)]
        rows = pa.concat_tables(parts) if parts else wanted.empty_table()
        return rows.select(list(columns)) if columns is not None else rows

    def runs(self) -> list[dict[str, Any]]:
        """The last row of every run, in the order in which the runs began."""
        last: dict[str, dict[str, Any]] = {}
        for row in self.read("runs").to_pylist():
            last[row["run_id"]] = row
        return list(last.values())

    def tables(self) -> dict[str, int]:
        """Tables that hold rows, with how many. Raises `InputError` when a shard is missing or damaged."""
        counts = {table: sum(shard.entry.rows for shard in self._shards(table)) for table in TABLES}
        return {table: count for table, count in counts.items() if count}

    def keys(self, table: str) -> frozenset[str]:
        """The batches that a table holds."""
        return frozenset(shard.entry.key for shard in self._shards(table) if shard.entry.key is not None)

    def verify(self) -> Verification:
        """Read everything afresh, and tell what is missing, changed, left over or does not belong here."""
        problems: list[sh.Problem] = []
        try:
            self._check_header()
        except sh.Damaged as damage:
            problems.append(damage.problem)
        except InputError as fault:
            if not (self.folder / HEADER).is_file():
                raise
            problems.append(sh.Problem("unreadable", HEADER, fault.what))
        problems += self._strangers()
        rows: dict[str, int] = {}
        count = 0
        for table in TABLES:
            found = sh.numbers(self.folder / table)
            problems += sh.shard_problems(self.folder, table, found)
            count += len(found)
            if found:
                rows[table] = sum(self._rows_of(table, number) for number in found)
        return Verification(count, rows, tuple(problems))

    # ---------------------------------------------------------------- private

    def _append(self, table: str, data: pa.Table, key: str | None) -> bool:
        import pyarrow.parquet as pq

        home = self.folder / table
        home.mkdir(exist_ok=True)
        with _draft(home) as draft:
            pq.write_table(data, draft / sh.ROWS, compression="zstd")
            raw = (draft / sh.ROWS).read_bytes()
            while True:
                known = self._known(table)
                if key is not None and any(shard.entry.key == key for shard in known.values()):
                    return False
                number = max(known, default=0) + 1
                entry = sh.Entry(
                    format=FORMAT,
                    table=table,
                    number=number,
                    rows=len(data),
                    size=len(raw),
                    sha256=hashlib.sha256(raw).hexdigest(),
                    key=key,
                    previous=known[number - 1].own if known else sh.FIRST,
                    written=datetime.now(UTC).isoformat(timespec="milliseconds"),
                    version=__version__,
                )
                (draft / sh.ENTRY).write_bytes(entry.to_bytes())
                # Another writer may have taken the number since; then its key is looked at, and the next number tried.
                if claim(draft, home / f"{number:08d}"):
                    return True

    def _shards(self, table: str) -> list[sh.Shard]:
        """All shards in order; refuses a table with a gap."""
        schema(table)
        known = self._known(table)
        for problem in sh.gaps(table, sorted(known)):
            raise sh.Damaged(problem, self.folder)
        return [known[number] for number in sorted(known)]

    def _known(self, table: str) -> dict[int, sh.Shard]:
        """The entries on disk; one that was read is not read again, since entries never change."""
        seen = self._seen[table]
        found = sh.numbers(self.folder / table)
        for number in found:
            if number not in seen:
                seen[number] = self._not_newer(sh.read_entry(self.folder, table, number))
        return {number: seen[number] for number in found}

    def _rows_of(self, table: str, number: int) -> int:
        try:
            return sh.read_entry(self.folder, table, number).entry.rows
        except sh.Damaged:
            return 0

    def _strangers(self) -> Iterator[sh.Problem]:
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if path.name.startswith(f".{HEADER}."):
                yield sh.Problem("unfinished", path.name, "left by a writer that was killed; it may be deleted")
            elif path.name != HEADER and path.name not in TABLES:
                yield sh.Problem("foreign", path.name, "does not belong to a ledger")
            elif path.is_dir():
                yield from self._strangers_in(path)

    def _strangers_in(self, home: Path) -> Iterator[sh.Problem]:
        for path in sorted(home.iterdir()):
            where = f"{home.name}/{path.name}"
            if path.name.startswith(sh.DRAFT):
                what = "an append that was not finished, or is under way; it was never acknowledged"
                yield sh.Problem("unfinished", where, what)
            elif not sh.NUMBER.fullmatch(path.name):
                yield sh.Problem("foreign", where, "does not belong to a ledger")
            elif path.is_dir():
                for file in sorted(path.iterdir()):
                    if file.name not in (sh.ROWS, sh.ENTRY):
                        yield sh.Problem("foreign", f"{where}/{file.name}", "does not belong to a ledger")

    def _check_header(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError("not a ledger", file=self.folder, found="a file", expected="a folder")
        header = self.folder / HEADER
        if header.exists():
            try:
                raw = header.read_bytes()
                plain = json.loads(raw)
                form = plain["format"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise sh.Damaged(sh.Problem("flipped", HEADER, f"{HEADER} cannot be read"), self.folder) from error
            self._refuse_newer(form)
            if raw != _header(plain.get("version")):
                raise sh.Damaged(sh.Problem("flipped", HEADER, f"{HEADER} is not as it was written"), self.folder)
        elif self.folder.is_dir() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise InputError("not a ledger", file=self.folder, found=f"other files and no {HEADER}")

    def _write_header(self) -> None:
        if not (self.folder / HEADER).exists():
            write_text(self.folder / HEADER, _header(__version__).decode())

    def _not_newer(self, shard: sh.Shard) -> sh.Shard:
        self._refuse_newer(shard.entry.format)
        return shard

    def _refuse_newer(self, form: Any) -> None:
        if not isinstance(form, int) or form > FORMAT:
            raise InputError(
                "this ledger was written by a newer version of Instil",
                file=self.folder,
                found=f"format {form}",
                expected=f"format {FORMAT} or earlier",
            )


def _header(version: Any) -> bytes:
    """The content of ledger.json as the given version of Instil wrote it, with its checksum."""
    plain = {"format": FORMAT, "version": version}
    return (json.dumps({**plain, "checksum": fingerprint([json.dumps(plain)])}, indent=1) + "\n").encode()


@contextmanager
def _draft(home: Path) -> Iterator[Path]:
    draft = Path(tempfile.mkdtemp(dir=home, prefix=sh.DRAFT))
    try:
        draft.chmod(0o755)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _matching(rows: pa.Table, filters: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, value in filters.items():
        column = rows[name]
        if isinstance(value, list | tuple | set | frozenset):
            mask = pc.is_in(column, value_set=pa.array(list(value), column.type))
        else:
            mask = pc.is_null(column) if value is None else pc.equal(column, pa.scalar(value, column.type))
        rows = rows.filter(mask)
    return rows
