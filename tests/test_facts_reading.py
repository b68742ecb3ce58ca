"""Fact files of every kind: what is read, what is refused and how it is said."""

# ruff: noqa: E501 - rows of tables of cases stay on one line

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instil.errors import InputError
from instil.facts import Fact, FactSet, Fault, Role, iter_facts, read_facts
from instil.facts.layouts import own
from instil.facts.layouts.fields import Source
from instil.facts.records import NotJSON, json_value
from instil.facts.seen import SeenIds
from tests.facts_data import GOOD, ONE, jsonl, put, table

FULL = Fact(
    id="full",
    question="Where was Ada born?",
    answers=("London", "London, England"),
    subject="Ada",
    relation="birthplace",
    paraphrases=("In which city was Ada born?",),
    completions=("Ada was born in",),
    reverse_question="Who was born in London?",
    reverse_answers=("Ada",),
    documents=("d1", "d2"),
    role=Role.HELD_BACK,
    metadata={"exposures": 3, "nested": {"list": [1, None, "x"]}},
)


def csv_bytes(rows: list[dict[str, Any]], separator: str = ",") -> bytes:
    cells = [{**row, "answers": "|".join(row["answers"])} for row in rows]
    head = separator.join(cells[0])
    lines = [separator.join(f'"{str(cell).replace(chr(34), chr(34) * 2)}"' for cell in row.values()) for row in cells]
    return ("\r\n".join([head, *lines]) + "\r\n").encode()


# Every kind of file -------------------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda folder: put(folder, jsonl(GOOD)),
    "jsonl without the last line break": lambda folder: put(folder, jsonl(GOOD).rstrip()),
    "jsonl with blank lines": lambda folder: put(folder, b"\n  \n" + jsonl(GOOD).replace(b"\n", b"\r\n\r\n")),
    "jsonl with a byte order mark": lambda folder: put(folder, b"\xef\xbb\xbf" + jsonl(GOOD)),
    "jsonl, escaped": lambda folder: put(folder, "".join(json.dumps(row) + "\n" for row in GOOD).encode()),
    "jsonl after much white space": lambda folder: put(folder, b" \n" * 50_000 + jsonl(GOOD)),
    "jsonl, gzipped": lambda folder: put(folder, gzip.compress(jsonl(GOOD)), "facts.jsonl.gz"),
    "jsonl, gzipped, in two members": lambda folder: put(
        folder, gzip.compress(jsonl(GOOD[:1])) + gzip.compress(jsonl(GOOD[1:])), "facts.jsonl.gz"
    ),
    "jsonl under another name": lambda folder: put(folder, gzip.compress(jsonl(GOOD)), "facts.parquet"),
    "a JSON array": lambda folder: put(folder, json.dumps(GOOD).encode(), "facts.json"),
    "an indented JSON array": lambda folder: put(folder, json.dumps(GOOD, indent=2).encode(), "facts.json"),
    "csv": lambda folder: put(folder, csv_bytes(GOOD), "facts.csv"),
    "csv with a byte order mark": lambda folder: put(folder, b"\xef\xbb\xbf" + csv_bytes(GOOD), "facts.csv"),
    "csv between semicolons": lambda folder: put(folder, csv_bytes(GOOD, ";"), "facts.csv"),
    "tsv": lambda folder: put(folder, csv_bytes(GOOD, "\t"), "facts.tsv"),
    "csv, gzipped, without a suffix": lambda folder: put(folder, gzip.compress(csv_bytes(GOOD)), "facts"),
    "csv with capitals": lambda folder: put(
        folder, csv_bytes(GOOD).replace(b"id,question,answers", b"ID, Question,Answers"), "facts.csv"
    ),
    "parquet": lambda folder: table(folder / "facts.parquet", GOOD),
    "parquet under another name": lambda folder: table(folder / "facts.jsonl", GOOD),
    "parquet, gzipped": lambda folder: put(
        folder, gzip.compress(table(folder / "plain.parquet", GOOD).read_bytes()), "facts.parquet.gz"
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_one_set_of_facts_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    facts = read_facts(WRITERS[kind](tmp_path))
    assert list(facts) == [Fact("a", "Where was Ada born?", ("London",), "Ada", "P19"),
                           Fact("b", "Where was Bo born?", ("Oslo", "Kristiania"), "Bo", "P19")]  # fmt: skip
    assert facts.left_out == ()
    assert list(iter_facts(WRITERS[kind](tmp_path))) == list(facts)


def test_every_field_survives_writing_and_reading(tmp_path: Path) -> None:
    FactSet([FULL]).write(tmp_path / "facts.jsonl")
    assert list(FactSet.read(tmp_path / "facts.jsonl")) == [FULL]


def test_every_field_survives_parquet_and_csv(tmp_path: Path) -> None:
    row = {**FULL.to_dict(), "metadata": {"exposures": 3}}
    expected = Fact(**{**row, "role": Role.HELD_BACK})
    assert list(read_facts(table(tmp_path / "facts.parquet", [row]))) == [expected]
    cells = {name: json.dumps(value) if isinstance(value, tuple | dict) else str(value) for name, value in row.items()}
    with (tmp_path / "facts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, cells)
        writer.writeheader()
        writer.writerow(cells)
    assert list(read_facts(tmp_path / "facts.csv")) == [expected]


def test_unknown_fields_are_kept_as_metadata(tmp_path: Path) -> None:
    (fact,) = read_facts(put(tmp_path, jsonl([{**GOOD[0], "source": {"page": 3}, "metadata": {"exposures": 2}}])))
    assert fact.metadata == {"source": {"page": 3}, "exposures": 2}


def test_rows_without_an_id_are_named_after_file_and_row(tmp_path: Path) -> None:
    rows = [{"question": "Who?", "answers": ["A"]}, {"question": "When?", "answers": ["B"]}]
    facts = read_facts(put(tmp_path, jsonl(rows), "train.v2.jsonl"))
    assert [fact.id for fact in facts] == ["train-0", "train-1"]


def test_numbers_as_ids_are_taken_as_written(tmp_path: Path) -> None:
    assert read_facts(put(tmp_path, jsonl([{"id": 17, "question": "Who?", "answer": "A"}])))[0].id == "17"


def test_csv_lists_are_bars_or_json(tmp_path: Path) -> None:
    content = b'id,question,answers\n1,Who?,A|B\n2,When?,"[""C|D"", ""E""]"\n3,"Two\nlines?",F\n'
    assert [fact.answers for fact in read_facts(put(tmp_path, content, "x.csv"))] == [("A", "B"), ("C|D", "E"), ("F",)]


@pytest.mark.parametrize(
    "answer", ["1 MB " + "x" * 1_000_000, "<script>alert('x')</script>", "\u202eabc", "a\x07b", "  x  "]
)
@pytest.mark.parametrize("name", ["../../etc/passwd", "/tmp/x", "C:\\x", "a\nb"])
def test_hostile_text_is_kept_verbatim_and_written_nowhere_else(answer: str, name: str, tmp_path: Path) -> None:
    path = put(tmp_path, jsonl([{"id": name, "question": "Who?", "answers": [answer]}]))
    facts = read_facts(path)
    assert (facts[0].id, facts[0].answers) == (name, (answer,))
    facts.write(tmp_path / "again.jsonl")
    assert list(read_facts(tmp_path / "again.jsonl")) == list(facts)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again.jsonl", "facts.jsonl"]


# Bad input ----------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "not JSON": (ONE + b"hello\n", "not JSON", {"line": 2}),
    "cut JSON": (ONE + b'{"id": "b", "question": "Wh', "the JSON breaks off", {"line": 2}),
    "cut after a value": (ONE + b'{"id": "b"', "the JSON breaks off", {"line": 2}),
    "two objects on a line": (ONE + ONE.strip() + ONE, "not JSON", {"line": 2}),
    "NaN": (ONE + b'{"id": "b", "question": "Who?", "answers": ["A"], "x": NaN}\n', "not JSON", {"line": 2}),
    "deep nesting": (ONE + b'{"x": ' + b"[" * 100_000 + b"\n", "the JSON is nested too deeply", {"line": 2}),
    "a row that is a list": (ONE + b'["b"]\n', "a row is not an object", {"line": 2, "found": "a list: ['b']"}),
    "no answers": (ONE + b'{"id": "b", "question": "Who?"}\n', "no answers", {"line": 2, "field": "answers"}),
    "an empty list of answers": (b'{"question": "Who?", "answers": []}\n', "no answers", {"found": "an empty list"}),
    "null answers": (b'{"question": "Who?", "answers": null}\n', "no answers", {"line": 1}),
    "a text for answers": (
        b'{"question": "Who?", "answers": "A"}', "answers is not a list", {"found": "text: 'A'"}
    ),
    "a number among answers": (
        b'{"question": "When?", "answers": ["x", 1912]}', "answers holds something that is not a text",
        {"field": "answers[1]", "found": "a number: 1912", "expected": "a text"},
    ),
    "a blank answer": (b'{"question": "Who?", "answers": ["A", " "]}', "answers holds an empty text", {"line": 1}),
    "an invisible answer": (b'{"question": "Who?", "answers": ["\\u200b"]}', "answers holds an empty text", {}),
    "no question": (ONE + b'{"id": "b", "answers": ["A"]}\n', "no question", {"line": 2, "field": "question"}),
    "an empty question": (b'{"question": "", "answers": ["A"]}', "the question is empty", {"field": "question"}),
    "a number for a question": (b'{"question": 3, "answers": ["A"]}', "question is not a text", {"found": "a number: 3"}),
    "true for an id": (b'{"id": true, "question": "Q?", "answers": ["A"]}', "id is not a text", {"field": "id"}),
    "a list for a subject": (b'{"question": "Q?", "answers": ["A"], "subject": []}', "subject is not a text", {}),
    "an unknown role": (b'{"question": "Q?", "answers": ["A"], "role": "boss"}', "an unknown role", {"field": "role"}),
    "a repeated id": (ONE + ONE, "an id occurs twice", {"line": 2, "expected": "unique ids; the first stands on line 1"}),
    "a number that repeats a text id": (
        b'{"id": "1", "question": "Q?", "answers": ["A"]}\n{"id": 1, "question": "R?", "answers": ["A"]}\n',
        "an id occurs twice", {"line": 2},
    ),
    "Latin-1": (ONE + '{"id": "b", "question": "Café?", "answers": ["A"]}\n'.encode("latin-1"), "not UTF-8",
                {"line": 2, "found": "byte 0xe9 at byte 29 of the line"}),
    "half a surrogate pair": (b'{"question": "\\ud83d?", "answers": ["A"]}', "half of a surrogate pair is no character", {}),
    "answer and answers": (b'{"question": "Q?", "answers": ["A"], "answer": "B"}', "both answer and answers", {}),
    "metadata that repeats a field": (
        b'{"question": "Q?", "answers": ["A"], "x": 1, "metadata": {"x": 2}}',
        "a field stands in the row and in its metadata", {"field": "x"},
    ),
    "metadata that is a list": (b'{"question": "Q?", "answers": ["A"], "metadata": [1]}', "metadata is not an object", {}),
    "nothing": (b"", "the file is empty", {}),
    "white space": (b" \n\n", "the file is empty", {}),
    "much white space": (b" \n" * 100_000, "the file is empty", {}),
    "nothing, gzipped": (gzip.compress(b""), "the file is empty", {}),
    "an empty array": (b"[]", "nothing valid is in the file", {}),
    "a cut array": (b'[{"question": "Q?", "answers": ["A"]},\n {"quest', "the JSON breaks off; nothing after it was read", {"line": 2}),
    "an array without its end": (b'[{"question": "Q?", "answers": ["A"]}', "the JSON breaks off", {}),
    "an array without commas": (b'[{"question": "Q?", "answers": ["A"]} {}]', "not JSON", {"expected": ", or ]"}),
    "an array and more": (b'[{"question": "Q?", "answers": ["A"]}] x', "something stands after the JSON array", {}),
    "a broken item": (b'[{"question": "Q?", "answers": ["A"]},\n{"q" 1}]' + b" " * 99, "not JSON; nothing after it was read", {"line": 2}),
    "Latin-1 in an array": (b'[{"question": "Caf\xe9?", "answers": ["A"]}]', "not UTF-8; nothing after it was read", {"line": 1}),
    "a scalar in an array": (b"[1]", "a row is not an object", {"line": 1}),
    "an unknown layout": (b'{"name": "x", "value": 1}\n', "the layout is not recognised", {}),
    "documents": (b'{"id": "1", "text": "Long ago"}\n', "these are documents, not facts", {}),
    "UTF-16": ('{"id": "a"}'.encode("utf-16"), "the file is UTF-16 text", {}),
    "a zip archive": (b"PK\x03\x04rest", "the file is a zip archive or a spreadsheet", {}),
    "cut gzip": (gzip.compress(ONE * 1 + jsonl([{**GOOD[0], "id": str(i)} for i in range(9000)]))[:-20],
                 "the gzipped file is cut or damaged here; nothing after it was read", {}),
    "gzip cut at once": (gzip.compress(ONE)[:12], "the gzipped file is cut or damaged", {}),
    "cut parquet": (b"PAR1" + b"\x00" * 50, "the Parquet file is cut or damaged", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_clear_line(case: str, tmp_path: Path) -> None:
    content, what, place = BAD[case]
    path = put(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_facts(path)
    assert caught.value.what == what
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, value in place.items():
        assert getattr(caught.value, name) == value
    with pytest.raises(InputError, match=what.replace("[", r"\[")):
        list(iter_facts(path))
    assert [each.name for each in tmp_path.iterdir()] == ["facts.jsonl"]


# fmt: off
BAD_CSV: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "a short row": (
        b"id,question,answers\n1,Who?,A\n2,When?\n",
        "a row of another length",
        {"line": 3, "found": "2 cells"},
    ),
    "an open quote": (b'id,question,answers\n1,Who?,A\n2,"When?,B\n', "a quote is never closed", {"line": 3}),
    "Latin-1": (b"id,question,answers\n1,Who?,A\n2,Caf\xe9?,B\n", "not UTF-8", {"line": 3, "field": "question"}),
    "a column twice": (b"id,question,answers,id\n1,Who?,A,2\n", "a column occurs twice", {"field": "id"}),
    "no answers": (b"id,question,answers\n1,Who?,\n", "no answers", {"line": 2, "field": "answers"}),
    "an empty answer": (b"id,question,answers\n1,Who?,A||B\n", "answers holds an empty text", {"field": "answers[1]"}),
    "a Python list": (
        b"id,question,answers\n1,Who?,\"['A' 'B']\"\n",
        "answers begins like a JSON list and is none",
        {},
    ),
    "a repeated id": (b"id,question,answers\n1,Who?,A\n1,When?,B\n", "an id occurs twice", {"line": 3}),
    "a head alone": (b"id,question,answers\n", "nothing valid is in the file", {}),
}
# fmt: on


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_tables_are_refused_in_one_clear_line(case: str, tmp_path: Path) -> None:
    content, what, place = BAD_CSV[case]
    with pytest.raises(InputError) as caught:
        read_facts(put(tmp_path, content, "facts.csv"))
    assert caught.value.what == what
    for name, value in place.items():
        assert getattr(caught.value, name) == value


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_facts(tmp_path / "missing.jsonl")


def test_a_path_that_cannot_be_one() -> None:
    with pytest.raises(InputError, match=r"no such file|the path cannot be used"):
        read_facts("a\x00b.jsonl")


def test_prose_is_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of no known kind"):
        read_facts(put(tmp_path, b"Once upon a time, there was\n", "story"))


def test_bad_bytes_in_parquet_are_told_by_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00"), pa.py_buffer(b"Q?\xe9?"))  # fmt: skip
    pq.write_table(pa.table({"question": bad, "answers": [["A"], ["B"]]}), tmp_path / "facts.parquet")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        read_facts(tmp_path / "facts.parquet")
    assert (caught.value.line, caught.value.field) == (2, "question")
    facts = read_facts(tmp_path / "facts.parquet", skip_invalid=True)
    assert [fact.question for fact in facts] == ["Q?"]


def test_missing_values_of_data_frames_count_as_missing(tmp_path: Path) -> None:
    import pandas as pd

    rows = pd.DataFrame(
        {"question": ["Q?", "R?"], "answers": [["A"], ["B"]], "subject": ["S", None], "year": [1.0, None]}
    )
    rows.iloc[[1, 0]].to_parquet(tmp_path / "facts.parquet")
    facts = read_facts(tmp_path / "facts.parquet")
    assert [(fact.subject, fact.metadata) for fact in facts] == [(None, {}), ("S", {"year": 1.0})]


# Leaving out what is invalid ----------------------------------------------------------------------------------------


def test_skip_invalid_keeps_the_rest_and_says_what_was_left_out(tmp_path: Path) -> None:
    rows = [
        ONE,
        b"broken\n",
        b'{"id": "b", "question": "Who?"}\n',
        b'{"id": "c", "question": "When?", "answers": ["B"]}\n',
        ONE,
    ]
    path = put(tmp_path, b"".join(rows))
    facts = FactSet.read(path, skip_invalid=True)
    assert [fact.id for fact in facts] == ["a", "c"]
    assert [line.removeprefix(f"{path}:").split(" (")[0] for line in facts.left_out] == [
        "2: not JSON",
        "3: no answers",
        "5: an id occurs twice",
    ]
    told: list[Fault] = []
    assert [fact.id for fact in iter_facts(path, on_fault=told.append)] == ["a", "c"]
    assert [fault.line for fault in told] == [2, 3, 5]


def test_skip_invalid_keeps_what_comes_before_a_cut(tmp_path: Path) -> None:
    rows = jsonl([{**GOOD[0], "id": str(number)} for number in range(9000)])
    facts = read_facts(put(tmp_path, gzip.compress(rows)[:-4000], "facts.jsonl.gz"), skip_invalid=True)
    assert 0 < len(facts) < 9000
    assert "cut or damaged" in facts.left_out[-1]


def test_skip_invalid_never_gives_an_empty_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing valid is in the file"):
        read_facts(put(tmp_path, b'{"question": "Who?"}\n'), skip_invalid=True)


# Fast ways and their naive twins ------------------------------------------------------------------------------------

ROWS = st.dictionaries(
    st.sampled_from(["id", "question", "answers", "subject", "relation", "role", "x"]),
    st.one_of(
        st.text(max_size=6),
        st.none(),
        st.integers(),
        st.booleans(),
        st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=3),
        st.sampled_from(["Who?", "target", " ", "\u200b", "!"]),
    ),
)


@given(ROWS, st.booleans())
def test_the_short_way_gives_the_fact_of_the_long_way_or_nothing(row: dict[str, Any], cells: bool) -> None:
    short = own._plain_fact(row, cells)
    assert short is None or short == own.any_fact(row, Source("f.csv" if cells else "f.jsonl", "f", text_cells=cells))


@given(st.text(st.sampled_from('ab |["]!'), max_size=8))
def test_answers_in_a_cell_are_those_of_the_long_way(cell: str) -> None:
    row = {"id": "a", "question": "Who?", "answers": cell}
    short = own._plain_fact(row, text_cells=True)
    assert short is None or short == own.any_fact(row, Source("f.csv", "f", text_cells=True))


@given(st.lists(ROWS, max_size=4), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fast_json_lines_equal_the_standard_library(tmp_path: Path, rows: list[dict[str, Any]], ascii: bool) -> None:
    from instil.facts.records import _jsonl_records

    lines = [json.dumps(row, ensure_ascii=ascii).encode("utf-8", "surrogatepass") + b"\n" for row in rows]
    assert list(_jsonl_records(iter(lines), "f")) == [
        (number, json.loads(line)) for number, line in enumerate(lines, 1)
    ]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=3), max_size=5), st.sampled_from([None, 0, 3]), st.integers(1, 40))  # fmt: skip
def test_streamed_arrays_equal_the_standard_library(
    items: list[dict[str, Any]], indent: int | None, block: int
) -> None:
    import io

    from instil.facts import arrays

    text = json.dumps(items, indent=indent, ensure_ascii=False)
    before, arrays._BLOCK = arrays._BLOCK, block
    try:
        read = list(arrays.array_items(io.BytesIO(text.encode("utf-8", "surrogatepass")), "f"))
    finally:
        arrays._BLOCK = before
    assert [value for _, value, _ in read] == items


@given(st.text())
def test_any_text_is_a_value_or_told_not_to_be_json(text: str) -> None:
    try:
        value = json_value(text)
    except NotJSON as error:
        assert error.what
    else:
        assert json.loads(text) == value


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("facts.jsonl", "facts.csv"):
        try:
            assert len(read_facts(put(tmp_path, content, name)))
        except InputError as error:
            assert "\n" not in str(error)


@given(st.lists(st.text()))
def test_seen_ids_equal_a_set(ids: list[str]) -> None:
    seen, naive = SeenIds(), set[str]()
    for name in ids:
        assert seen.add(name) == (name not in naive)
        naive.add(name)
    assert len(seen) == len(naive)


def test_seen_ids_grow() -> None:
    seen = SeenIds()
    assert all(seen.add(str(number)) for number in range(5000))
    assert not any(seen.add(str(number)) for number in range(5000))


TEXTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: text.strip() != "")


@given(
    st.lists(
        st.builds(
            Fact,
            id=TEXTS,
            question=TEXTS.map(lambda text: text + "?"),
            answers=st.lists(TEXTS.map(lambda text: "A" + text), min_size=1, max_size=3).map(tuple),
            subject=st.none() | TEXTS.map(lambda text: "S" + text),
            paraphrases=st.lists(TEXTS.map(lambda text: "P" + text), max_size=2).map(tuple),
            role=st.none() | st.sampled_from(Role),
            metadata=st.dictionaries(TEXTS, st.integers() | TEXTS | st.lists(st.booleans()), max_size=2),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda fact: fact.id,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_facts_survive_writing_and_reading(tmp_path: Path, facts: list[Fact]) -> None:
    written = FactSet(facts)
    written.write(tmp_path / "facts.jsonl")
    read = read_facts(tmp_path / "facts.jsonl", layout="instil")
    assert list(read) == facts
    assert read.fingerprint == written.fingerprint


# A stream -----------------------------------------------------------------------------------------------------------


def stream_peak(path: Path) -> tuple[int, int]:
    """(facts, peak bytes) of reading a file as a stream."""
    tracemalloc.start()
    try:
        return sum(1 for _ in iter_facts(path)), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["jsonl", "array"])
def test_streaming_needs_no_memory_but_for_the_ids(kind: str, tmp_path: Path) -> None:
    count = 60_000
    rows = (json.dumps({**GOOD[0], "id": str(number)}) for number in range(count))
    text = "\n".join(rows) if kind == "jsonl" else "[" + ",\n".join(rows) + "]"
    facts, peak = stream_peak(put(tmp_path, text.encode()))
    assert facts == count
    assert peak < 48 * count + 3_000_000


def test_a_giant_item_of_an_array_costs_linear_time(tmp_path: Path) -> None:
    path = put(tmp_path, json.dumps([{"question": "Q?", "answers": ["x" * 5_000_000]}]).encode())
    assert len(read_facts(path)[0].answers[0]) == 5_000_000
