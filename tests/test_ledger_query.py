"""Asking and comparing what a ledger holds: SQL that can only read, and differences fact by fact."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from instil.cli import main
from instil.errors import InputError
from instil.ledger import TABLES, Ledger, diff, ledger_folder, query
from tests.ledger_data import RIGHT, SAID, VERDICTS, two_lessons


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return two_lessons(tmp_path_factory.mktemp("ledger") / "here")


# ------------------------------------------------------------------------ SQL


def test_sql_counts_what_read_reads(ledger: Ledger) -> None:
    found = query(ledger, "SELECT run_id, verdict, count(*) AS facts FROM verdicts GROUP BY ALL ORDER BY ALL")
    rows = ledger.read("verdicts").to_pylist()
    pairs = sorted({(row["run_id"], row["verdict"]) for row in rows})
    assert found.columns == ("run_id", "verdict", "facts")
    assert found.rows == tuple((*pair, sum((row["run_id"], row["verdict"]) == pair for row in rows)) for pair in pairs)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_can_be_asked_with_all_its_columns(ledger: Ledger, table: str) -> None:
    found = query(ledger, f"SELECT * FROM {table}")
    assert found.columns == tuple(TABLES[table])
    assert [dict(zip(found.columns, row, strict=True)) for row in found.rows] == ledger.read(table).to_pylist()


def test_latest_runs_has_one_row_a_run(ledger: Ledger) -> None:
    assert query(ledger, "SELECT run_id, status FROM latest_runs ORDER BY run_id").rows == (
        ("a", "done"),
        ("b", "done"),
    )
    assert query(ledger, "SELECT count(*) FROM runs").rows == ((4,),)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "EXPLAIN ANALYZE SELECT * FROM read_text('{secret}')",
        "COPY verdicts TO '{folder}/copy.csv'",
        "COPY (SELECT 1) TO '{folder}/copy.csv'",
        "ATTACH '{folder}/other.db'",
        "EXPORT DATABASE '{folder}/all'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "CREATE TABLE mine AS SELECT 1",
        "DELETE FROM verdicts",
        "INSERT INTO left_out VALUES ('r', 'w', 'r')",
        "DROP VIEW verdicts",
        "PRAGMA version",
        "SELECT * FROM rows_of_this_program",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM verdicts",
        "SELECT colour FROM verdicts",
        "SELECT * FROM moods",
        "SELEC 1",
        "SELECT 1 / 'x'",
        "",
        "-- nothing",
    ],
)
def test_sql_reads_the_ledger_and_nothing_else(ledger: Ledger, tmp_path: Path, sql: str) -> None:
    import pyarrow as pa

    rows_of_this_program = pa.table({"secret": [1]})
    assert len(rows_of_this_program) == 1
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\n1\n")
    with pytest.raises(InputError) as refused:
        query(ledger, sql.format(secret=secret, folder=tmp_path))
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert ledger.verify().ok


def test_values_that_json_has_no_word_for_become_text_or_numbers(ledger: Ledger) -> None:
    values = "sum(seed), 1.5::DECIMAL(4,1), 'nan'::DOUBLE, DATE '2026-01-02', [1, 2], {'a': 'inf'::DOUBLE}, NULL, x'00'"
    (row,) = query(ledger, f"SELECT {values} FROM latest_runs").rows
    assert row[:7] == (1, 1.5, "nan", "2026-01-02", [1, 2], {"a": "inf"}, None)
    assert isinstance(row[0], int) and json.dumps(row)


@pytest.mark.parametrize("file", ["rows.parquet", "entry.json"])
def test_a_damaged_ledger_is_not_asked(tmp_path: Path, file: str) -> None:
    ledger = two_lessons(tmp_path / "ledger")
    path = ledger.folder / "costs"
    ledger.append("costs", [{"run_id": "a", "purpose": "exam", "flops": 1, "tokens": 2, "seconds": 3}], "a/costs")
    path = path / "00000001" / file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        query(ledger, "SELECT count(*) FROM verdicts")


# ----------------------------------------------------------------------- diff


def test_diff_of_a_run_is_before_against_after(ledger: Ledger) -> None:
    seen = diff(ledger, "a")
    assert (seen.a, seen.b) == ("a:before", "a:after")
    assert {fact.fact_id: str(fact.change) for fact in seen.facts} == {
        "f1": "gained",
        "f2": "same",
        "f3": "other answer",
        "f4": "lost",
    }
    assert [fact.fact_id for fact in seen.changed] == ["f4", "f1", "f3"]
    assert {fact.fact_id: fact.verdict_b for fact in seen.facts} == VERDICTS["a"]
    assert not any(fact.verdict_a for fact in seen.facts)
    assert seen.counts == {"gained": 1, "lost": 1, "other answer": 1, "same": 1}
    assert diff(ledger).a == "b:before", "the last run, when none is named"


def test_diff_of_two_runs_lists_what_only_one_was_asked(ledger: Ledger) -> None:
    seen = diff(ledger, "a", "b")
    assert (seen.a, seen.b) == ("a:after", "b:after")
    assert (seen.only_a, seen.only_b) == (("f3", "f4"), ("f5",))
    lost = seen.changed[0]
    assert (lost.fact_id, lost.answer_a, lost.answer_b) == ("f1", "London", "Graz")
    assert (lost.verdict_a, lost.verdict_b) == ("learned", "forgotten")
    backwards = diff(ledger, "b", "a")
    assert backwards.counts == {**seen.counts, "gained": seen.counts["lost"], "lost": seen.counts["gained"]}


def test_diff_counts_every_fact_once(ledger: Ledger) -> None:
    for first in SAID:
        for second in SAID:
            seen = diff(ledger, ":".join(first), ":".join(second))
            assert len(seen.facts) + len(seen.only_a) == len(SAID[first])
            assert len(seen.facts) + len(seen.only_b) == len(SAID[second])
            for fact in seen.facts:
                known = [SAID[state][fact.fact_id] == RIGHT[fact.fact_id] for state in (first, second)]
                assert [fact.known_a, fact.known_b] == known


def test_a_fact_is_the_same_by_its_words_not_by_its_id(tmp_path: Path) -> None:
    ledger = two_lessons(tmp_path / "ledger")
    (row,) = ledger.read("answers", state_id="b:after", fact_id="f1").to_pylist()
    (other,) = ledger.read("answers", state_id="b:after", fact_id="f5").to_pylist()
    begun = [{**row, "fact_id": "f5", "state_id": "c:after"}, {**other, "fact_id": "f1", "state_id": "c:after"}]
    ledger.append("answers", [{**row, "run_id": "c"} for row in begun])
    ledger.append("states", [{"state_id": "c:after", "run_id": "c", "label": "after", "order": 1}])
    assert diff(ledger, "b:after", "c:after").counts["same"] == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [(("c",), "no such run"), (("a:stage 1", "b"), "no such state"), (("", "b"), "several runs"), (("a", "c"), "run")],
)
def test_diff_refuses_what_is_not_there(ledger: Ledger, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        diff(ledger, *names)


def test_diff_of_a_run_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with pytest.raises(InputError, match="no run that sat two exams"):
        diff(ledger)


# ------------------------------------------------------------------- commands


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main([*words]) == code
    return capsys.readouterr().out


def test_query_prints_a_table_csv_and_json(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT fact_id, p_by_set, known FROM answers WHERE state_id = 'a:after' ORDER BY fact_id"
    words = ["ledger", "query", str(ledger.folder), sql]
    shown = run(capsys, *words, "--limit", "3")
    assert "f1" in shown and "f4" not in shown and "and 1 more rows" in shown
    rows = list(csv.reader(io.StringIO(run(capsys, *words, "--csv"))))
    assert rows[0] == ["fact_id", "p_by_set", "known"] and rows[1] == ["f1", "[1.0]", "True"] and len(rows) == 5
    told = json.loads(run(capsys, *words, "--json"))
    assert told["columns"] == rows[0] and told["rows"][0] == ["f1", [1.0], True] and len(told["rows"]) == 4
    assert main(["ledger", "query", str(ledger.folder), "DROP TABLE answers"]) == 2


def test_diff_prints_a_table_and_json(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "ledger", "diff", str(ledger.folder), "a", "b")
    assert "a:after → b:after: 0 gained, 1 lost, 0 other answer, 1 same" in shown
    assert "learned → forgotten" in shown and "2 facts were asked of a:after only" in shown
    told = json.loads(run(capsys, "ledger", "diff", str(ledger.folder), "--json"))
    assert told["counts"] == diff(ledger).counts and told["changed"][0]["fact_id"] == "f1"


def test_verify_says_which_run_and_table_is_hit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = two_lessons(tmp_path / "ledger")
    assert json.loads(run(capsys, "ledger", "verify", str(tmp_path), "--json"))["ok"]
    path = ledger.folder / "verdicts" / "00000002" / "rows.parquet"
    raw = bytearray(path.read_bytes())
    raw[99] ^= 1
    path.write_bytes(raw)
    assert "(table verdicts, run b)" in run(capsys, "ledger", "verify", str(tmp_path), code=1)
    (problem,) = json.loads(run(capsys, "ledger", "verify", str(tmp_path), "--json", code=1))["problems"]
    assert (problem["table"], problem["runs"]) == ("verdicts", ["b"])
    header = ledger.folder / "ledger.json"
    header.write_bytes(header.read_bytes().replace(b"format", b"fortmat"))
    assert "flipped: ledger.json" in run(capsys, "ledger", "verify", str(tmp_path), code=1)


def test_the_ledger_is_found_in_its_folder_its_run_or_by_its_summary(tmp_path: Path, ledger: Ledger) -> None:
    def found(folder: Path, summary: dict[str, Any]) -> Path:
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(summary))
        return ledger_folder(folder)

    assert ledger_folder(ledger.folder) == ledger.folder
    assert found(tmp_path / "run", {"ledger": str(ledger.folder)}) == ledger.folder
    with pytest.raises(InputError, match="no ledger"):
        found(tmp_path / "other", {})
