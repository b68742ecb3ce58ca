"""SQL over a ledger, through DuckDB: reading only, and nothing but the ledger's own tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from instil.errors import InputError
from instil.ledger.tables import TABLES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from instil.ledger.store import Ledger

LATEST_RUNS: Final = "latest_runs"
"""A table for queries only: the last row of every run, which is the one that counts."""

_ALONE: Final = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}
"""No files, no network, no extensions, and no variables of this program."""


@dataclass(frozen=True)
class Found:
    """What a query gave.

    Attributes:
        columns: their names, which may repeat.
        rows: plain values, as JSON can hold them.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "rows": [list(row) for row in self.rows]}


def query(ledger: Ledger, sql: str) -> Found:
    """Ask one SELECT of the ledger's tables, and of `latest_runs`, which has one row a run.

    Everything in the ledger is verified first. The query runs in memory: it can read no file and no address, and
    change nothing.

    Raises:
        InputError: the ledger is damaged, the query is not one SELECT, or DuckDB refuses it; with its words.
    """
    import duckdb

    refuse_damaged(ledger)
    with duckdb.connect(":memory:", config=dict(_ALONE)) as connection:
        for table in TABLES:
            connection.register(table, ledger.read(table))
        connection.register(LATEST_RUNS, _latest_runs(ledger))
        connection.execute("SET lock_configuration = true")
        try:
            statements = connection.extract_statements(sql)
            _refuse_all_but_one_reading(statements, sql)
            cursor = connection.execute(sql)
            columns = tuple(str(column[0]) for column in cursor.description or ())
            return Found(columns, tuple(tuple(map(_plain, row)) for row in cursor.fetchall()))
        except duckdb.Error as fault:
            raise InputError(
                f"the query cannot be answered: {_in_one_line(fault)}", field="SQL", found=_shortened(sql)
            ) from fault


def refuse_damaged(ledger: Ledger) -> None:
    """Raises `InputError` unless everything that was appended is there as it was written."""
    seen = ledger.verify()
    lost = [problem for problem in seen.problems if not problem.harmless]
    if lost:
        raise InputError(
            f"the ledger is damaged, so nothing is read from it: {lost[0]}",
            file=ledger.folder,
            found=f"{len(lost)} problems, which `instil ledger verify` lists",
        )


def _refuse_all_but_one_reading(statements: list[duckdb.Statement], sql: str) -> None:
    import duckdb

    reading = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(statements) != 1 or statements[0].type not in reading:
        raise InputError(
            "a ledger is only read, by one query at a time",
            field="SQL",
            found=_shortened(sql) or "nothing",
            expected="one SELECT",
        )


def _latest_runs(ledger: Ledger) -> pa.Table:
    from instil.ledger.tables import to_arrow

    return to_arrow("runs", ledger.runs())


def _plain(value: Any) -> Any:
    """A value as JSON holds it; a number that JSON has no word for becomes text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, date | datetime | time | timedelta):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _in_one_line(fault: BaseException) -> str:
    return " ".join(str(fault).split("LINE 1:", maxsplit=1)[0].split())


def _shortened(sql: str, longest: int = 120) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
