"""`check_facts`: every fault, and what is valid but suspicious."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError
from instil.facts import check_facts


def fact(name: str, question: str = "Who?", answers: Any = ("A",), **more: Any) -> dict[str, Any]:
    return {"id": name, "question": question, "answers": list(answers), **more}


def put(folder: Path, *rows: Any, name: str = "facts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def warnings(path: Path | list[str | Path]) -> dict[str, int]:
    return {warned.what: warned.count for warned in check_facts(path).warnings}


def test_every_fault_is_reported_not_only_the_first(tmp_path: Path) -> None:
    path = put(tmp_path, fact("a"), "{", {"id": "b"}, fact("a"), {"id": "c", "question": "", "answers": 3}, fact("d"))
    report = check_facts(path)
    assert not report.ok
    assert [(fault.line, fault.field) for fault in report.errors] == [
        (2, None),
        (3, "question"),
        (4, "id"),
        (5, "question"),
    ]
    assert (report.error_count, report.total) == (4, 2)
    assert [line.split(" (")[0] for line in report.would_drop] == [str(fault).split(" (")[0] for fault in report.errors]
    assert json.loads(json.dumps(report.to_dict()))["errors"][0]["line"] == 2
    assert any("with --skip-invalid 2 facts would be used" in line for line in report.lines())


def test_a_sound_file(tmp_path: Path) -> None:
    report = check_facts(put(tmp_path, fact("a", relation="P19", role="target"), fact("b", "When?", subject="S")))
    assert report.ok
    assert report.facts == {str(tmp_path / "facts.jsonl"): 2}
    assert report.layouts == {str(tmp_path / "facts.jsonl"): "instil"}
    assert report.relations == {"P19": 1, "": 1}
    assert report.roles == {"target": 1, "": 1}
    assert report.without_subject == 1
    assert report.lines()[-1] == "fit for use"


def test_repeated_questions_and_conflicting_answers(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        fact("a", "Who won?", ["Ada", "Bo"]),
        fact("b", "who won", ["ada."]),
        fact("c", "Who  won?", ["Cy"]),
        fact("d", "Who lost?", ["Cy"]),
    )
    assert warnings(path) == {
        "a question that occurs before": 2,
        "a question that occurs before with entirely different answers": 1,
    }
    examples = {warned.what: warned.examples for warned in check_facts(path).warnings}
    assert examples["a question that occurs before with entirely different answers"] == [
        f"{path}:3 and line 1: 'Who  won?'"
    ]


def test_subjects_and_questions_shared_between_roles(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        fact("a", "Where?", subject="Ada", role="target"),
        fact("b", "When?", subject="ada", role="held_back"),
        fact("c", "where", subject="Bo", role="held_back"),
    )
    assert warnings(path)[f"subjects shared between {path} (target) and {path} (held_back)"] == 1
    assert warnings(path)[f"questions shared between {path} (target) and {path} (held_back)"] == 1


def test_subjects_and_questions_shared_between_files(tmp_path: Path) -> None:
    train = put(tmp_path, *(fact(str(i), f"Q{i}?", subject=f"S{i}") for i in range(4)), name="train.jsonl")
    dev = put(tmp_path, fact("x", "Q1?", ["B"], subject="S1"), fact("y", "New?", subject="S2"), name="dev.jsonl")
    found = warnings([train, dev])
    assert found[f"subjects shared between {train} and {dev}"] == 2
    assert found[f"questions shared between {train} and {dev}"] == 1
    assert found["a question that occurs before with entirely different answers"] == 1
    assert "a question that occurs before" not in found


def test_unknown_fields_and_line_breaks_are_warned_of(tmp_path: Path) -> None:
    found = warnings(put(tmp_path, fact("a", answers=["A\nB"], realtion="P19"), fact("b", "When?", realtion="P19")))
    assert found == {
        "unknown field 'realtion', kept as metadata": 2,
        "an answer with a line break, which ends an answer": 1,
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", gzip.compress(b"{}")[:8], b'{"x": 1}\n', b"hello\n"],
    ids=["empty", "zip", "cut gzip", "no fact", "no JSON"],
)
def test_a_file_that_cannot_be_read_is_a_fault_of_the_report(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "facts").write_bytes(content)
    good = put(tmp_path, fact("a"))
    report = check_facts([tmp_path / "facts", good, tmp_path / "missing.jsonl"])
    assert report.error_count == 2
    assert report.total == 1
    assert report.errors[1].what == "no such file"


def test_faults_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    report = check_facts(put(tmp_path, *(['{"question": ""}'] * 20)), limit=3)
    assert (len(report.errors), report.error_count) == (3, 20)
    assert any("17 more" in line for line in report.lines())
    assert len(check_facts(tmp_path / "facts.jsonl", limit=None).errors) == 20


def test_what_the_layout_leaves_out_is_no_fault(tmp_path: Path) -> None:
    row = {"id": "1", "title": "T", "context": "C", "question": "Q?", "answers": {"text": ["A"]}}
    report = check_facts(put(tmp_path, row, {**row, "id": "2", "question": "R?", "answers": {"text": []}}))
    assert report.ok
    assert report.would_drop == (
        f"{tmp_path / 'facts.jsonl'}: 1 rows left out: the question is marked as unanswerable",
    )


def test_options_that_are_wrong_are_raised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an unknown layout"):
        check_facts(put(tmp_path, fact("a")), layout="nonsense")
    with pytest.raises(InputError, match="the templates cannot be read"):
        check_facts(tmp_path / "facts.jsonl", templates=tmp_path / "missing.json")


def test_real_questions_occur_twice(real_data: Callable[[str], Path]) -> None:
    report = check_facts(real_data("entityquestions/dev.jsonl.gz"))
    assert report.ok
    assert {warned.what: warned.count for warned in report.warnings} == {
        "a question that occurs before": 6,
        "a question that occurs before with entirely different answers": 6,
    }
