"""Data sets and folders of documents: what is read, what is refused and how it is said."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError
from instil.facts import Corpus, Document, read_documents, read_facts
from tests.facts_data import GOOD, ONE, jsonl, put, table

# Data sets ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as the `datasets` library reads and writes them."""
    import datasets

    folder = tmp_path_factory.mktemp("sets")
    one = datasets.Dataset.from_list(GOOD)
    one.save_to_disk(str(folder / "saved"))
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(str(folder / "splits"))
    (folder / "files").mkdir()
    put(folder / "files", jsonl(GOOD), "train.jsonl")
    put(folder / "files", jsonl(GOOD[:1]), "test.jsonl")
    return folder


def test_a_saved_data_set(data_sets: Path) -> None:
    assert [fact.answers for fact in read_facts(data_sets / "saved")] == [("London",), ("Oslo", "Kristiania")]


@pytest.mark.parametrize("name", ["splits", "files"])
def test_a_split_is_named_or_asked_for(
    name: str, data_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert len(read_facts(f"hf:{data_sets / name}:test")) == 1
    with pytest.raises(InputError, match="no split is named") as caught:
        read_facts(f"hf:{data_sets / name}")
    assert ":train or " in str(caught.value.expected) or ":test or " in str(caught.value.expected)
    with pytest.raises(InputError, match="no such split"):
        read_facts(f"hf:{data_sets / name}:validation")


@pytest.mark.parametrize("name", ["some/name", "hf:some/name@config:train", "name"])
def test_a_data_set_that_cannot_be_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*given: Any, **named: Any) -> None:
        assert given[0] in ("some/name", "name")
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match="no such file, and no data set of that name") as caught:
        read_facts(name)
    assert caught.value.found == "ConnectionError: no route"


def test_a_data_set_that_breaks_off(data_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def broken(*given: Any) -> Any:
        yield GOOD[0]
        raise OSError("reset by peer")

    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: {"train": broken()})
    with pytest.raises(InputError, match="the data set breaks off") as caught:
        read_facts("some/name")
    assert caught.value.line == 2


def test_a_folder_without_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder holds no data set"):
        read_facts(tmp_path)


# Documents ----------------------------------------------------------------------------------------------------------


def test_documents_from_rows(tmp_path: Path) -> None:
    rows = [{"id": "1", "title": "T", "text": "Long ago.", "url": "u"}, {"text": "Then."}]
    corpus = read_documents(put(tmp_path, jsonl(rows), "docs.jsonl"))
    assert list(corpus) == [Document("1", "Long ago.", "T", metadata={"url": "u"}), Document("docs-1", "Then.")]
    corpus.write(tmp_path / "again.jsonl")
    assert list(Corpus.read(tmp_path / "again.jsonl")) == list(corpus)
    table(tmp_path / "docs.parquet", rows)
    assert [doc.text for doc in read_documents(tmp_path / "docs.parquet")] == ["Long ago.", "Then."]
    assert read_documents(put(tmp_path, b"id,text\n1,Once\n", "docs.csv"))[0].text == "Once"


def test_documents_from_text_files(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    put(tmp_path, b"One.\n", "one.txt")
    put(tmp_path / "inner", gzip.compress("Zwei: ä".encode()), "two.md.gz")
    put(tmp_path, b"\x89PNG", "picture.png")
    corpus = read_documents(tmp_path)
    assert [(doc.id, doc.text) for doc in corpus] == [("inner/two.md.gz", "Zwei: ä"), ("one.txt", "One.\n")]
    assert len(corpus.left_out) == 1
    assert "picture.png" in corpus.left_out[0]
    assert read_documents(tmp_path / "one.txt")[0].id == "one.txt"


@pytest.mark.parametrize(
    ("content", "name", "what"),
    [
        (b'{"id": "1", "text": ""}\n', "docs.jsonl", "the text is empty"),
        (b'{"text": 3}\n', "docs.jsonl", "text is not a text"),
        (b'{"text": "a", "id": 1}\n{"text": "b", "id": 1}\n', "docs.jsonl", "an id occurs twice"),
        (ONE, "docs.jsonl", "these are facts, not documents"),
        (b'{"name": "x"}\n', "docs.jsonl", "rows without a text"),
        (b"Caf\xe9", "docs.txt", "not UTF-8"),
        (b" \n", "docs.txt", "the file is empty"),
        (b"", "docs.md", "the file is empty"),
    ],
)
def test_bad_documents_are_refused(content: bytes, name: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=what):
        read_documents(put(tmp_path, content, name))
