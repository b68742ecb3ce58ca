"""The ledger: what was appended is there, whole and once, whatever happened meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.errors import InputError, RunFailed
from instil.ledger import TABLES, Ledger, column_names

LEFT_OUT = {"run_id": "r", "what": "fact 7", "reason": "no answers"}


def left_out(number: int) -> dict[str, str]:
    return {**LEFT_OUT, "what": f"fact {number}"}


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "run_id": "r",
        "state_id": "r:before",
        "purpose": "exam",
        "part": "as_worded",
        "question_id": "q",
        **changes,
    }


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_rows_come_back_as_they_went_in(ledger: Ledger) -> None:
    row = answer(
        fact_id="f",
        answers=("Paris", "Paris, France"),
        p_greedy=0.5,
        known=True,
        greedy_right_by_set=[True, False],
        p_by_set=[0.25, 1.0],
        greedy_answer_by_set=("Paris", ""),
    )
    assert ledger.append("answers", [row])
    (found,) = ledger.read("answers").to_pylist()
    assert found["answers"] == ["Paris", "Paris, France"]
    assert found["greedy_right_by_set"] == [True, False]
    assert found["p_by_set"] == [0.25, 1.0]
    assert found["nll"] is None
    assert set(found) == set(column_names("answers"))


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.text(max_size=20), st.none() | st.integers(-(2**62), 2**62)), max_size=4), max_size=4
    )
)
def test_any_text_and_number_survives_in_order(tmp_path_factory: pytest.TempPathFactory, batches: Any) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "here")
    for batch in batches:
        rows = [answer(question=text, tokens=number) for text, number in batch]
        ledger.append("answers", rows)
    if not any(batches):
        assert ledger.read("answers").num_rows == 0
        return
    found = [(row["question"], row["tokens"]) for row in Ledger(ledger.folder).read("answers").to_pylist()]
    assert found == [pair for batch in batches for pair in batch]
    assert ledger.verify().ok


def test_lone_surrogates_are_refused_not_dropped(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="question"):
        ledger.append("answers", [answer(question="\ud800")])


@pytest.mark.parametrize(
    ("table", "row", "word"),
    [
        ("left_out", {**LEFT_OUT, "colour": "red"}, "colour"),
        ("left_out", {"run_id": "r", "what": "x"}, "reason"),
        ("left_out", {**LEFT_OUT, "what": 7}, "what"),
        ("answers", answer(known="yes"), "known"),
        ("answers", answer(tokens=1.5), "tokens"),
        ("costs", {"run_id": "r", "purpose": "exam", "flops": 1.0, "tokens": None, "seconds": 1.0}, "tokens"),
        ("moods", {"run_id": "r"}, "moods"),
    ],
)
def test_rows_that_do_not_fit_are_refused_whole(ledger: Ledger, table: str, row: dict[str, Any], word: str) -> None:
    good = [answer()] if table == "answers" else []
    with pytest.raises(InputError, match=word):
        ledger.append(table, [*good, row])
    assert not ledger.folder.exists()


def test_arrow_tables_are_taken_and_held_to_the_same_schema(ledger: Ledger) -> None:
    ledger.append("left_out", pa.Table.from_pylist([LEFT_OUT]))
    assert ledger.read("left_out").to_pylist() == [LEFT_OUT]
    with pytest.raises(InputError, match="colour"):
        ledger.append("left_out", pa.Table.from_pylist([{**LEFT_OUT, "colour": "red"}]))
    with pytest.raises(InputError, match="reason"):
        ledger.append("left_out", pa.Table.from_pylist([{"run_id": "r", "what": "x"}]))


def test_filters_and_columns(ledger: Ledger) -> None:
    ledger.append("answers", [answer(question_id="a", known=True), answer(question_id="b", known=False)])
    ledger.append("answers", [answer(question_id="c", part="reworded"), answer(question_id="d", run_id="s")])

    def ids(**filters: Any) -> list[str]:
        return ledger.read("answers", columns=["question_id"], **filters)["question_id"].to_pylist()

    assert ids(known=True) == ["a"]
    assert ids(known=None) == ["c", "d"]
    assert ids(part="as_worded", run_id="r") == ["a", "b"]
    assert ids(question_id={"d", "a"}) == ["a", "d"]
    assert ids(run_id=[]) == []
    with pytest.raises(InputError, match="colour"):
        ids(colour="red")


def test_a_batch_is_appended_once_by_its_key(ledger: Ledger) -> None:
    assert ledger.append("left_out", [left_out(1)], key="r/001")
    assert not ledger.append("left_out", [left_out(1)], key="r/001")
    assert not Ledger(ledger.folder).append("left_out", [left_out(1)], key="r/001")
    assert ledger.append("left_out", [left_out(1)], key="r/002")
    assert ledger.append("costs", [{"run_id": "r", "purpose": "exam", "flops": 1, "tokens": 2, "seconds": 3}], "r/001")
    assert ledger.tables() == {"left_out": 2, "costs": 1}
    assert ledger.keys("left_out") == {"r/001", "r/002"}


def test_no_rows_leave_no_trace(ledger: Ledger) -> None:
    assert not ledger.append("left_out", [], key="r/001")
    assert not ledger.folder.exists()
    assert ledger.read("left_out").num_rows == 0
    assert ledger.tables() == {} and ledger.runs() == [] and ledger.verify().ok


def test_the_last_row_of_a_run_counts(ledger: Ledger) -> None:
    run = {"method": "sft", "model_name": "m", "model_fingerprint": "f", "config_json": "{}", "version": "0"}
    ledger.append("runs", [{**run, "run_id": "a", "started": "2026-01-01", "status": "running"}])
    ledger.append("runs", [{**run, "run_id": "b", "started": "2026-01-02", "status": "running"}])
    ledger.append("runs", [{**run, "run_id": "a", "started": "2026-01-01", "status": "done"}])
    assert [(row["run_id"], row["status"]) for row in ledger.runs()] == [("a", "done"), ("b", "running")]


def filled(ledger: Ledger, count: int = 4) -> Path:
    for number in range(count):
        ledger.append("left_out", [left_out(number)], key=f"r/{number}")
    return ledger.folder / "left_out"


@pytest.mark.parametrize("file", ["rows.parquet", "entry.json"])
@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_flipped_byte_is_found_wherever_it_stands(ledger: Ledger, file: str, number: int) -> None:
    path = filled(ledger) / f"{number:08d}" / file
    good = path.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 40)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        found = ledger.verify()
        assert not found.ok, place
        assert found.problems[0].kind == "flipped" and found.problems[0].where == f"left_out/{number:08d}"
        assert found.problems[0].table == "left_out" and found.problems[0].runs == ("r",)
        with pytest.raises(InputError, match="damaged"):
            Ledger(ledger.folder).read("left_out")
    path.write_bytes(good)
    assert ledger.verify().ok and ledger.verify().rows == {"left_out": 4}


def test_a_changed_byte_is_found_in_every_file_of_a_ledger(ledger: Ledger) -> None:
    filled(ledger, 2)
    ledger.append("costs", [{"run_id": "r", "purpose": "exam", "flops": 1, "tokens": 2, "seconds": 3}], "r/001")
    files = [path for path in ledger.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"ledger.json", "entry.json", "rows.parquet"} and len(files) == 7
    for path in files:
        good = path.read_bytes()
        for place in range(0, len(good), 1 if path.name == "ledger.json" else max(1, len(good) // 60)):
            path.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
            problems = Ledger.unopened(ledger.folder).verify().problems
            assert [problem.where for problem in problems if not problem.harmless] == [
                str(path.parent.relative_to(ledger.folder)) if path.name != "ledger.json" else "ledger.json"
            ], (path, place)
        path.write_bytes(good)
    assert ledger.verify().ok


@pytest.mark.parametrize(("old", "new"), [(b'": ', b'":\n'), (b'"rows": 1', b'"rows": 1.0'), (b"\n}", b" }")])
def test_an_entry_that_means_the_same_is_not_as_it_was_written(ledger: Ledger, old: bytes, new: bytes) -> None:
    path = filled(ledger, 1) / "00000001" / "entry.json"
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    assert [problem.kind for problem in ledger.verify().problems] == ["flipped"]


def test_a_batch_without_a_key_is_traced_to_its_runs_by_its_rows(ledger: Ledger) -> None:
    ledger.append("left_out", [left_out(1), {**left_out(2), "run_id": "s"}])
    entry = ledger.folder / "left_out" / "00000001" / "entry.json"
    entry.write_bytes(entry.read_bytes().replace(b'"rows": 2', b'"rows": 3'))
    (problem,) = ledger.verify().problems
    assert problem.runs == ("r", "s")
    (entry.parent / "rows.parquet").write_bytes(b"nothing")
    assert ledger.verify().problems[0].runs == ()


def test_a_foreign_file_in_a_shard_is_told_and_harmless(ledger: Ledger) -> None:
    (filled(ledger, 1) / "00000001" / "notes.txt").write_text("mine")
    found = ledger.verify()
    assert found.ok and [problem.where for problem in found.problems] == ["left_out/00000001/notes.txt"]


def test_a_shard_that_is_gone_is_missed(ledger: Ledger) -> None:
    home = filled(ledger)
    for file in (home / "00000002").iterdir():
        file.unlink()
    assert {problem.kind for problem in ledger.verify().problems} == {"missing"}
    (home / "00000002").rmdir()
    assert [problem.where for problem in ledger.verify().problems] == ["left_out/00000002"]
    with pytest.raises(InputError, match="missing"):
        ledger.read("left_out")
    assert ledger.append("left_out", [left_out(9)]), "what a run found out is kept even so"
    assert not (home / "00000002").exists()


def test_a_shard_swapped_for_an_older_copy_is_found(ledger: Ledger, tmp_path: Path) -> None:
    home = filled(ledger)
    other = Ledger(tmp_path / "other")
    filled(other, 2)
    other_home = other.folder / "left_out"
    for file in ("rows.parquet", "entry.json"):
        (home / "00000002" / file).write_bytes((other_home / "00000002" / file).read_bytes())
    assert any("not written after" in problem.what for problem in ledger.verify().problems)


def test_half_written_drafts_are_passed_over_and_reported(ledger: Ledger) -> None:
    home = filled(ledger)
    draft = home / ".draft-killed"
    draft.mkdir()
    (draft / "rows.parquet").write_bytes(b"PAR1 and then the power went")
    found = ledger.verify()
    assert found.ok and [problem.kind for problem in found.problems] == ["unfinished"]
    assert len(Ledger(ledger.folder).read("left_out")) == 4


def test_what_a_newer_version_wrote_is_refused(ledger: Ledger) -> None:
    filled(ledger)
    (ledger.folder / "ledger.json").write_text(json.dumps({"format": 2, "version": "9.0"}))
    with pytest.raises(InputError, match="newer version"):
        Ledger(ledger.folder)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "poems.txt").write_text("not a ledger")
    with pytest.raises(InputError, match="not a ledger"):
        Ledger(tmp_path)
    with pytest.raises(InputError, match="not a ledger"):
        Ledger(tmp_path / "poems.txt")


def test_a_full_disk_fails_the_run_and_leaves_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    home = filled(ledger, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(RunFailed, match="No space left"):
        ledger.append("left_out", [left_out(2)])
    assert [path.name for path in home.iterdir()] == ["00000001"]
    assert ledger.verify().ok


def test_columns_added_later_are_empty_in_older_shards(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from instil.ledger import Column, tables

    filled(ledger)
    wider = {**TABLES["left_out"], "colour": Column("text", "new in this version", nullable=True)}
    monkeypatch.setattr(tables, "TABLES", {**TABLES, "left_out": wider})
    tables.schema.cache_clear()
    try:
        assert ledger.read("left_out")["colour"].to_pylist() == [None] * 4
    finally:
        monkeypatch.undo()
        tables.schema.cache_clear()


WRITER = """
import sys
from instil.ledger import Ledger
ledger = Ledger(sys.argv[1])
name, count = sys.argv[2], int(sys.argv[3])
for number in range(count):
    rows = [{"run_id": name, "what": f"{number}", "reason": "x" * 200}] * 3
    if ledger.append("left_out", rows, key=f"{sys.argv[4]}{number}"):
        print(number, flush=True)
"""


def writer(folder: Path, name: str, count: int, key: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(folder), name, str(count), key]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_two_writers_at_once_lose_and_double_nothing(ledger: Ledger) -> None:
    both = [writer(ledger.folder, name, 25, f"{name}/") for name in ("a", "b")]
    assert [process.wait(400) for process in both] == [0, 0]
    for name in ("a", "b"):
        found = ledger.read("left_out", run_id=name)["what"].to_pylist()
        assert found == [str(number) for number in range(25) for _ in range(3)]
    assert ledger.verify().ok and ledger.verify().shards == 50


def test_two_writers_of_the_same_batches_append_each_once(ledger: Ledger) -> None:
    both = [writer(ledger.folder, name, 25, "shared/") for name in ("a", "b")]
    said = [set(process.communicate(timeout=400)[0].split()) for process in both]
    assert said[0].isdisjoint(said[1]) and len(said[0] | said[1]) == 25
    assert ledger.tables() == {"left_out": 75}


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05, 0.11, 0.2, 0.31])
def test_every_acknowledged_append_survives_kill_9(ledger: Ledger, delay: float) -> None:
    process = writer(ledger.folder, "a", 100_000, "a/")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    acknowledged = 1 + len(process.stdout.read().splitlines())
    process.wait(60)
    found = Ledger(ledger.folder).verify()
    assert found.ok, found.problems
    whole = Ledger(ledger.folder).read("left_out")["what"].to_pylist()
    assert len(whole) % 3 == 0 and whole == [str(number) for number in range(len(whole) // 3) for _ in range(3)]
    assert acknowledged <= len(whole) // 3 <= acknowledged + 1
    assert Ledger(ledger.folder).append("left_out", [LEFT_OUT])


def test_the_ledger_knows_nothing_of_models() -> None:
    code = (
        "import sys, instil.ledger; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
