"""`instil augment`: the preview, the file, the list, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from instil.augment import CONTROLS, FORMATS, formatted_copies, recover
from instil.cli import main
from instil.cli.commands.augment import LONGEST, preview
from instil.cli.terminal import Terminal
from instil.facts import Corpus, Document
from tests.augment_data import ADA, BEN

COPIES = ["--copies", "2", "--formats", "bullets,heading+quotes"]


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Corpus([ADA, BEN, Document("x", "One [red]word[/red] \x1b[31m.", metadata={"a": 1})]).write("docs.jsonl")
    return tmp_path


def _ran(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    return out, err


def test_the_file_holds_what_python_gives(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = _ran(["augment", "docs.jsonl", "--out", "more.jsonl", *COPIES, "--seed", "7"], capsys)
    wanted = list(formatted_copies(Corpus.read("docs.jsonl"), ["bullets", "heading+quotes"], 2, 7))
    assert list(Corpus.read("more.jsonl")) == wanted
    assert "3 documents, 6 copies: more.jsonl" in out
    assert "Proved: 6 copies hold every word" in out
    _ran(["augment", "docs.jsonl", "--out", "bare.jsonl", *COPIES, "--seed", "7", "--without-original"], capsys)
    assert list(Corpus.read("bare.jsonl")) == [document for document in wanted if document.copy_of]


def test_a_gzipped_file_is_the_same_text_and_the_same_bytes_each_time(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.gz"):
        _ran(["augment", "docs.jsonl", "--out", name, *COPIES, "--quiet"], capsys)
    assert gzip.decompress(Path("b.jsonl.gz").read_bytes()) == Path("a.jsonl").read_bytes()
    assert Path("b.jsonl.gz").read_bytes() == Path("c.jsonl.gz").read_bytes()


def test_the_spans_in_a_file_prove_it(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ran(["augment", "docs.jsonl", "--out", "more.jsonl", "--spans", "--copies", "20"], capsys)
    corpus = Corpus.read("more.jsonl")
    copies = [document for document in corpus if document.copy_of]
    assert len(copies) == 60
    for copy in copies:
        assert recover(copy.text, copy.metadata["inserted"]) == corpus.by_id[copy.original].text.split()


def test_the_summary_for_machines(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "bullets,shuffling,repetition,wrapped"
    out, err = _ran(
        ["augment", "docs.jsonl", "-o", "m.jsonl", "--formats", names, "--copies", "4", "--json", "-q"], capsys
    )
    summary = json.loads(out)
    written = summary["written"]
    assert err == ""
    assert (summary["out"], summary["seed"], summary["copies"], summary["left_out"]) == ("m.jsonl", 0, 4, [])
    assert (written["documents"], written["copies"]) == (3, 12)
    assert written["by_format"] == {"bullets": 3, "repetition": 3, "shuffling": 3, "wrapped": 3}
    assert written["changing"] == ["shuffling"]
    assert written["words"] == sum(len(document.text.split()) for document in Corpus.read("docs.jsonl"))
    assert written["characters"]["written"] == sum(len(document.text) for document in Corpus.read("m.jsonl"))
    assert 1 <= written["unchanged"] <= 6  # the short one fits a line, and has one sentence


def test_what_is_not_content_preserving_is_called_so(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = _ran(["augment", "docs.jsonl", "-o", "m.jsonl", "--formats", "shuffling", "--copies", "1"], capsys)
    assert "Not content-preserving: shuffling" in out
    assert "Proved" not in out
    out, _ = _ran(["augment", "docs.jsonl", "--formats", "shuffling", "--copies", "1"], capsys)
    assert "shuffling (not content-preserving)" in out


def test_the_preview_shows_documents_beside_their_copies(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = _ran(["augment", "docs.jsonl", "--show", "2", *COPIES], capsys)
    copies = list(formatted_copies([ADA, BEN], ["bullets", "heading+quotes"], 2))
    assert all(document.text in out for document in copies)
    assert out.count("as it is") == 2
    assert "ada · Ada Lovelace" in out
    assert err == ""
    assert "padding (white space only)" in _ran(["augment", "docs.jsonl", "--formats", "padding"], capsys)[0]
    assert "repetition (as it is)" in _ran(["augment", "docs.jsonl", "--formats", "repetition"], capsys)[0]
    assert "[red]word[/red] \\x1b[31m" in _ran(["augment", "docs.jsonl", "--copies", "1"], capsys)[0]
    assert sorted(path.name for path in docs.iterdir()) == ["docs.jsonl"]


def test_the_preview_for_machines(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = _ran(["augment", "docs.jsonl", "--show", "1", *COPIES, "--json"], capsys)
    (shown,) = json.loads(out)
    assert (shown["id"], shown["text"]) == ("ada", ADA.text)
    assert [copy["id"] for copy in shown["copies"]] == ["ada#copy1", "ada#copy2"]
    for copy in shown["copies"]:
        assert copy["content_preserving"]
        assert recover(copy["text"], copy["inserted"]) == ADA.text.split()


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_what_was_put_in_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    from instil.augment import recipes

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = _Screen()
    document = Document("x", "One two. \u202eThree [b]four[/b]. " + "Word. " * 400, "T")
    preview(Terminal(out=screen), [document], recipes(["html"]), 1)
    shown = screen.getvalue()
    assert re.search(r"\x1b\[1;36m<h\d>T</h\d>\x1b\[0m", shown)
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert "\\u202eThree [b]four[/b]." in plain.replace("\n", " ")
    assert f"[{len(document.text) - LONGEST:,} characters more]" in plain.replace("\n", " ")


def test_the_list_names_every_format_and_control(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = _ran(["augment", "--list"], capsys)
    assert all(name in out for name in (*FORMATS, *CONTROLS))
    listed = json.loads(_ran(["augment", "--list", "--json"], capsys)[0])
    assert [one["name"] for one in listed["formats"]] == list(FORMATS)
    assert all(one["keeps"] for one in listed["controls"])
    assert all(one["example"] for one in listed["formats"])


REFUSED: dict[str, tuple[list[str], str]] = {
    "no documents": ([], "no documents are named"),
    "a file and a preview": (["docs.jsonl", "--show", "1", "--out", "x.jsonl"], "a preview or a file, not both"),
    "neither originals nor copies": (["docs.jsonl", "--copies", "0", "--without-original"], "nothing would be written"),
    "an unknown format": (["docs.jsonl", "--formats", "bullets,sparkles"], "no such format"),
    "a file that is there": (["docs.jsonl", "--out", "there.jsonl"], "something is there already"),
    "a folder": (["docs.jsonl", "--out", ".", "--force"], "something is there already"),
    "the file that is read": (["docs.jsonl", "--out", "docs.jsonl", "--force"], "the file that is read"),
    "a missing file": (["none.jsonl", "--out", "x.jsonl"], "no such file"),
    "facts": (["facts.jsonl", "--out", "x.jsonl"], "these are facts, not documents"),
    "a fault late in the file": (["late.jsonl", "--out", "x.jsonl"], "late.jsonl:3"),
    "an empty file": (["empty.jsonl", "--out", "x.jsonl"], "empty"),
    "nothing valid": (["bad.jsonl", "--out", "x.jsonl", "--skip-invalid"], "nothing valid is in the file"),
    "no subject": (["bare.jsonl", "--out", "x.jsonl", "--formats", "fullname"], "neither subject nor title"),
    "no paraphrases": (["docs.jsonl", "--out", "x.jsonl", "--formats", "paraphrase"], "brings no paraphrases"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_told_in_one_line_and_leaves_nothing(
    case: str, docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = '{"id": "1", "text": "A text."}\n'
    Path("there.jsonl").write_text("kept")
    Path("facts.jsonl").write_text('{"id": "1", "question": "q?", "answers": ["a"]}\n')
    Path("late.jsonl").write_text(line + line.replace("1", "2") + '{"id": "3"}\n')
    Path("empty.jsonl").write_text("")
    Path("bad.jsonl").write_text('{"id": "3", "text": 5}\n')
    Path("bare.jsonl").write_text(line)
    before = {path.name: path.read_bytes() for path in docs.iterdir()}
    arguments, said = REFUSED[case]
    assert main(["augment", *arguments, "--quiet", "--json"]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and said in err
    assert json.loads(out)["error"]["kind"] == "input"
    assert {path.name: path.read_bytes() for path in docs.iterdir()} == before


def test_a_world_writes_the_paraphrases_that_augment_uses(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = {"people": 20, "new_people": 0, "exemplar_people": 4, "prose_paragraphs": 5, "unknown_entities": 5}
    sizes = [word for name, value in size.items() for word in ("--set", f"{name}={value}")]
    _ran(["world", "build", "--out", "world", "--paraphrases", "2", *sizes, "--quiet"], capsys)
    told = Corpus.read("world/documents.jsonl")
    _ran(
        ["augment", "world/documents.jsonl", "-o", "m.jsonl", "--formats", "paraphrase", "--copies", "2", "-q"], capsys
    )
    copies = [document for document in Corpus.read("m.jsonl") if document.copy_of]
    assert len(copies) == 2 * len(told)
    for copy in copies:
        assert copy.text in told.by_id[copy.original].metadata["paraphrases"]
        assert "paraphrases" not in copy.metadata


def test_a_file_is_replaced_only_when_asked(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.jsonl").write_text("old")
    _ran(["augment", "docs.jsonl", "--out", "there.jsonl", "--force", *COPIES], capsys)
    assert len(Corpus.read("there.jsonl")) == 9


def test_faulty_rows_can_be_left_out_and_are_named(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("docs.jsonl").open("a") as file:
        file.write('{"id": "bad"}\n')
    arguments = ["augment", "docs.jsonl", "--skip-invalid", "--out", "m.jsonl", *COPIES]
    assert "Left out: 1" in _ran(arguments, capsys)[0]
    summary: dict[str, Any] = json.loads(_ran([*arguments, "--force", "--json"], capsys)[0])
    assert "docs.jsonl:4" in summary["left_out"][0]


def test_plain_texts_are_documents_too(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts").mkdir()
    Path("texts/one.txt").write_text("A first sentence. A second one.")
    _ran(["augment", "texts", "--out", "m.jsonl", *COPIES], capsys)
    assert [document.original for document in Corpus.read("m.jsonl")] == ["one.txt"] * 3
