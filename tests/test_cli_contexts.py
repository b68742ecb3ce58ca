"""`instil probe --contexts` and `instil.probe_contexts`: what is written, said and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import instil
from instil.cli import main
from instil.exam.contexts import ContextConfig, ContextScores, contexts_of_documents
from instil.facts import Corpus, Document, Fact, FactSet
from instil.files import read_sealed
from instil.model import LanguageModel, save
from tests.models import tiny_model
from tests.test_exam_cloze import lives

TOLD = "The painter Ada Cole was born in the old town of Brinvale, and lived there for fifty years."
BORN = Fact("born", "Where was Ada Cole born?", ("Brinvale",), subject="Ada Cole", documents=("ada",))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contexts")
    save(LanguageModel.of(*tiny_model("llama")), folder / "tiny")
    lives(4).write(folder / "lives.jsonl")
    Corpus([Document("ada", TOLD, subject="Ada Cole")]).write(folder / "ada.jsonl")
    FactSet([BORN]).write(folder / "bare.jsonl")
    FactSet([replace(BORN, completions=("Ada Cole is from",))]).write(folder / "facts.jsonl")
    (folder / "ada.md").write_text(f"# Ada Cole\n\n{TOLD}\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def test_documents_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["probe", "tiny", "lives.jsonl", "--contexts", "--seed", "3", "--limit", "5"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    out, _ = capsys.readouterr()
    assert "as written" in out
    assert "Left out: " in out
    summary = read_sealed(tmp_path / "one" / "summary.json")
    assert (summary["seed"], summary["config"]["items"], summary["counts"]["facts"]) == (3, 5, 5)
    assert summary["model"]["fingerprint"] == instil.load("tiny").fingerprint
    assert summary["data"]["documents_fingerprint"] == lives(4).fingerprint
    written = summary["headline"]["probability_as_written"]
    assert written["low"] <= written["value"] <= written["high"]
    scores = ContextScores.load(tmp_path / "one" / "contexts.parquet")
    assert summary["counts"]["contexts"] == len(scores)
    assert summary["left_out"]["all"] == [f"{what}: {reason}" for what, reason in scores.left_out]
    config = ContextConfig(seed=3, items=5)
    assert instil.probe_contexts(instil.load("tiny"), Corpus.read("lives.jsonl"), config=config) == scores
    once = contexts_of_documents(Corpus.read("lives.jsonl"), config)
    assert list(instil.probe_contexts(instil.load("tiny"), once, config=config)) == list(scores)
    assert main([*words, "--out", str(tmp_path / "two"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["headline"] == summary["headline"]
    assert main([*words, "--out", str(tmp_path / "three"), "--quiet", "--set", "formats=[quotes]"]) == 0
    assert capsys.readouterr().out == ""
    kinds = read_sealed(tmp_path / "three" / "summary.json")["by_kind"]
    assert set(kinds) == {"as written", "quotes", "sentence alone"}


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        (["facts.jsonl"], {"completion"}),
        (["facts.jsonl", "--documents", "ada.jsonl"], {"as written", "html", "completion"}),
        (["bare.jsonl", "--documents", "ada.jsonl"], {"as written", "html"}),
        (["ada.md"], {"as written", "html"}),
    ],
)
def test_facts_and_pages(source: list[str], kinds: set[str], tmp_path: Path) -> None:
    assert main(["probe", "tiny", *source, "--contexts", "--out", str(tmp_path), "--quiet"]) == 0
    scores = ContextScores.load(tmp_path / "contexts.parquet")
    found = {score.context.kind for score in scores}
    assert kinds <= found
    assert found - {"as written", "html", "heading", "bullets", "sentence alone", "completion"} == set()
    if source[0] != "ada.md":
        assert {(score.context.item, score.context.fact) for score in scores} == {("born", "Brinvale")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bare.jsonl", "--contexts"], "no text leads to these facts"),
        (["lives.jsonl", "--contexts", "--engine", "exact"], "does not go with --contexts"),
        (["lives.jsonl", "--contexts", "--resume"], "does not go with --contexts"),
        (["lives.jsonl", "--contexts", "--exemplars", "facts.jsonl"], "does not go with --contexts"),
        (["lives.jsonl", "--contexts", "--set", "formats=[rhyme]"], "no such format"),
        (["lives.jsonl", "--contexts", "--set", "shots=4"], "shots"),
        (["lives.jsonl", "--contexts", "--limit", "0"], "--limit"),
        (["none.jsonl", "--contexts"], "none.jsonl"),
        (["lives.jsonl", "--contexts", "--documents", "ada.jsonl"], "documents"),
        (["facts.jsonl", "--documents", "ada.jsonl"], "for --contexts only"),
        (["facts.jsonl", "--limit", "3"], "for --contexts only"),
    ],
)
def test_what_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["probe", "tiny", *words, "--out", str(tmp_path / "out")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_folder_that_holds_something_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mastery.parquet").write_text("another run")
    assert main(["probe", "tiny", "lives.jsonl", "--contexts", "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_several_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["probe", "tiny", "lives.jsonl", "--contexts", "--out", str(tmp_path / "out")]) == 2
    assert "by one process" in capsys.readouterr().err
