"""`instil ledger`: the durable record of every answer and every model state."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instil.cli.commanding import command, flag
from instil.cli.terminal import Terminal, table
from instil.errors import RunFailed

if TYPE_CHECKING:
    from instil.ledger import Difference, Found, Ledger, Problem

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A ledger, or the folder of a run that has one.", show_default=False)
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", help="Read, ask, compare and verify the record of runs.")
    app.add_typer(group, name="ledger")
    command(group, "show", example="instil ledger show runs/demo")(show)
    query_example = 'instil ledger query runs/demo "SELECT verdict, count(*) AS facts FROM verdicts GROUP BY verdict"'
    command(group, "query", example=query_example)(query)
    command(group, "diff", example="instil ledger diff runs/demo")(diff)
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
            ("run", "state", "parent", "fingerprint", "kept in"),
            [[row[name] for name in ("run_id", "label", "parent_id", "fingerprint", "path")] for row in states],
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


def query(
    terminal: Terminal,
    folder: Folder,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, as DuckDB takes it.", show_default=False)],
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Rows to print at most; --csv and --json print all.")
    ] = 100,
    as_csv: Annotated[bool, flag("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Ask the ledger's tables in SQL; `latest_runs` has one row a run. Nothing can be changed, nor anything else read.

    The tables and their columns are in docs/ledger.md.
    """
    from instil.ledger import query as ask

    found = ask(open_ledger(folder), sql)
    terminal.result(found.to_dict())
    if as_csv:
        terminal.show_data(_csv(found).rstrip("\n"))
        return
    terminal.show(table(None, found.columns, [[_cell(value) for value in row] for row in found.rows[:limit]]))
    if len(found.rows) > limit:
        terminal.show(f"and {len(found.rows) - limit:,} more rows")


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _csv(found: Found) -> str:
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(found.columns)
    lines.writerows([_cell(value) for value in row] for row in found.rows)
    return written.getvalue()


def diff(
    terminal: Terminal,
    folder: Folder,
    a: Annotated[
        str | None,
        typer.Argument(metavar="RUN_A", help="A run, or a state of one (RUN:before); the last run when left out."),
    ] = None,
    b: Annotated[
        str | None,
        typer.Argument(metavar="RUN_B", help="What to compare it with; without it, RUN_A before and after."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Facts to print at most; --json prints all.")] = 20,
) -> None:
    """What changed between two runs or two states of the model, fact by fact.

    A run stands for the state that sat its last exam. Compared are the facts that both were asked, as first worded.
    """
    from instil.ledger import diff as compare

    seen = compare(open_ledger(folder), a, b)
    terminal.result(seen.to_dict())
    counted = ", ".join(f"{count:,} {change}" for change, count in seen.counts.items())
    terminal.show(f"{seen.a} → {seen.b}: {counted}")
    if seen.changed:
        rows = [
            (fact.change, fact.question, _first(fact.answers), fact.answer_a, fact.answer_b, _verdicts(fact))
            for fact in seen.changed[:limit]
        ]
        terminal.show(table(None, ("change", "question", "right", "said", "says", "verdict"), rows))
    if len(seen.changed) > limit:
        terminal.show(f"and {len(seen.changed) - limit:,} more, with --limit or --json")
    for only, state in ((seen.only_a, seen.a), (seen.only_b, seen.b)):
        if only:
            terminal.show(f"{len(only):,} facts were asked of {state} only")


def _first(answers: tuple[str, ...]) -> str | None:
    return answers[0] if answers else None


def _verdicts(fact: Difference) -> str | None:
    told = [verdict for verdict in (fact.verdict_a, fact.verdict_b) if verdict is not None]
    return " → ".join(told) or None


def verify(terminal: Terminal, folder: Folder) -> None:
    """Read everything afresh; tell what is missing, changed or left over, and whose rows are hit (then exit 1)."""
    from instil.ledger import Ledger, ledger_folder

    ledger = Ledger.unopened(ledger_folder(folder))
    seen = ledger.verify()
    problems = [
        {
            "kind": problem.kind,
            "place": problem.where,
            "table": problem.table,
            "runs": list(problem.runs),
            "what": problem.what,
        }
        for problem in seen.problems
    ]
    terminal.result({"ok": seen.ok, "shards": seen.shards, "rows": dict(seen.rows), "problems": problems})
    for problem in seen.problems:
        terminal.show(f"{problem.kind}: {problem.where}: {problem.what}{_whose(problem)}")
    if not seen.ok:
        lost = sum(not problem.harmless for problem in seen.problems)
        raise RunFailed(f"the ledger {ledger.folder} is damaged: {lost} problems")
    terminal.show(f"{sum(seen.rows.values()):,} rows in {seen.shards:,} shards are as they were written")


def _whose(problem: Problem) -> str:
    if problem.harmless or problem.table is None:
        return ""
    return f" (table {problem.table}, run {' and '.join(problem.runs) or 'not known'})"


def open_ledger(folder: Path) -> Ledger:
    """The ledger in this folder, in its `ledger/`, or that its run went on with.

    Raises:
        InputError: there is none.
    """
    from instil.ledger import open_ledger as find

    return find(folder)
