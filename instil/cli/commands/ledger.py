"""`instil ledger`: the durable record of every answer and every model state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instil.cli.commanding import command
from instil.cli.terminal import Terminal, table
from instil.errors import InputError, RunFailed

if TYPE_CHECKING:
    from instil.ledger import Ledger

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A ledger, or the folder of a run that has one.", show_default=False)
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", help="Read and verify the record of runs.")
    app.add_typer(group, name="ledger")
    command(group, "show", example="instil ledger show runs/demo")(show)
    command(group, "verify", example="instil ledger verify runs/demo")(verify)


def show(
    terminal: Terminal,
    folder: Folder,
    table_name: Annotated[
        str | None, typer.Option("--table", metavar="NAME", help="Print the rows of this table.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows to print at most.")] = 20,
) -> None:
    """List the runs, their model states and how many rows each table holds; or print one table."""
    ledger = open_ledger(folder)
    if table_name is not None:
        show_table(terminal, ledger, table_name, limit)
        return
    runs, states, tables = ledger.runs(), ledger.read("states").to_pylist(), ledger.tables()
    terminal.result({"folder": str(ledger.folder), "tables": tables, "runs": runs, "states": states})
    columns = ("run_id", "method", "model_name", "seed", "status", "started", "finished")
    terminal.show(
        table("Runs", [name.replace("_", " ") for name in columns], [[run[name] for name in columns] for run in runs]),
        table(
            "Model states",
            ("run", "state", "parent", "fingerprint"),
            [[row["run_id"], row["label"], row["parent_id"], row["fingerprint"]] for row in states],
        ),
        table("Tables", ("table", "rows"), list(tables.items())),
    )


def show_table(terminal: Terminal, ledger: Ledger, name: str, limit: int) -> None:
    rows = ledger.read(name)
    first: list[dict[str, Any]] = rows.slice(0, limit).to_pylist()
    terminal.result({"table": name, "rows": rows.num_rows, "shown": first})
    filled = [column for column in rows.column_names if any(row[column] is not None for row in first)]
    for number, row in enumerate(first, 1):
        terminal.show(
            table(f"{name} {number} of {rows.num_rows:,}", ("column", "value"), [(c, row[c]) for c in filled])
        )


def verify(terminal: Terminal, folder: Folder) -> None:
    """Read everything afresh and tell what is missing, changed or left over; exit 1 when rows are lost."""
    ledger = open_ledger(folder)
    seen = ledger.verify()
    problems = [{"kind": str(p.kind), "place": str(p.where), "what": str(p.what)} for p in seen.problems]
    terminal.result({"ok": seen.ok, "shards": seen.shards, "rows": dict(seen.rows), "problems": problems})
    for problem in problems:
        terminal.show(f"{problem['kind']}: {problem['place']}: {problem['what']}")
    if not seen.ok:
        raise RunFailed(f"the ledger {ledger.folder} is damaged: {len(problems)} problems")
    terminal.show(f"{sum(seen.rows.values()):,} rows in {seen.shards:,} shards are as they were written")


def open_ledger(folder: Path) -> Ledger:
    """The ledger in this folder, or in its `ledger/`.

    Raises:
        InputError: there is none.
    """
    from instil.ledger import Ledger

    for place in (folder / "ledger", folder):
        if (place / "ledger.json").is_file():
            return Ledger(place)
    raise InputError("there is no ledger here", file=folder, expected="a folder that `instil teach` wrote")
