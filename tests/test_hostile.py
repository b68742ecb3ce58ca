"""Hostile input, from its file to the report: markup, control characters, direction marks, paths, giants, pickles."""

from __future__ import annotations

import json
import pickle
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.cli import main
from instil.cli.terminal import LONGEST_LINE, printable
from instil.errors import InputError
from instil.facts import Fact, FactSet, Role
from instil.ledger import Ledger
from instil.loop.compare_arms import Arm, read_arms
from instil.model import LanguageModel, load, save
from instil.probe import MasteryMap
from instil.report import facts as page_facts
from instil.report import words
from instil.report.page import build_report
from tests.models import tiny_model
from tests.report_data import tables, write_ledger

TEXTS = (
    '<script>window.hacked = 1</script><img src=x onerror="hacked()">',
    "</script><!-- <style> never ends",
    "\x1b[2J\x07\x9b31mred",
    "\u202egnorw\u202c \u200fright-to-left\u2066",
    "../../etc/passwd",
    "a/b",
    "..",
    "C:\\con\\nul",
    "{{ 7 * 7 }} ${hacked} `x`",
    "=cmd|' /C calc'!A0",
)
SMALL = ["--set", "probe.exemplar_sets=1", "--set", "probe.shots=1", "--set", "probe.prior=false"]
SMALL += ["--set", "exam.resamples=100", "--set", "exam.parts=[]", "--set", "exam.openings=0"]
SMALL += ["--set", "exam.wordings=1", "--set", "exam.confidence_sets=0", "--set", "exam.general_texts=1"]
SMALL += ["--set", "train.epochs=1", "--set", "train.save_every=never", "--keep-states", "all"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(LanguageModel.of(*tiny_model("llama")), tmp_path_factory.mktemp("hostile") / "model")


def hostile_facts() -> FactSet:
    """Each text as id, subject, relation, question and answer; a role each by turns."""
    roles = (Role.TARGET, Role.HELD_BACK, Role.EXEMPLAR)
    return FactSet(
        Fact(
            text if role is Role.TARGET else f"{text}#{role}",
            f"What is {text} ({role})?",
            (f"{text}, the answer",),
            subject=f"{text} {role}",
            relation=text,
            paraphrases=(f"Say what {text} is ({role}).",),
            role=role,
        )
        for text in TEXTS
        for role in roles
    )


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.data: dict[str, str] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self._inside = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        self.data[self._inside] = self.data.get(self._inside, "") + data


@pytest.fixture(scope="module")
def taught(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which hostile facts were taught, and all that the commands said."""
    import contextlib
    import io

    home = tmp_path_factory.mktemp("taught") / "deep" / "er"
    home.mkdir(parents=True)
    hostile_facts().write(home / "facts.jsonl")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        given = ["teach", str(model), str(home / "facts.jsonl"), "--method", "sft", "--out", str(home / "run"), *SMALL]
        assert main(given) == 0, said.getvalue()
        assert main(["ledger", "show", str(home / "run"), "--table", "verdicts"]) == 0, said.getvalue()
        assert main(["ledger", "query", str(home / "run"), "SELECT question_id, answers FROM answers"]) == 0
    return home, said.getvalue()


def test_hostile_facts_reach_the_ledger_as_they_are(taught: tuple[Path, str]) -> None:
    home, _ = taught
    expected = {fact.id: fact for fact in hostile_facts()}
    rows = Ledger(home / "run" / "ledger").read("verdicts").to_pylist()
    assert {row["fact_id"] for row in rows if row["role"] == "target"} == set(TEXTS)
    for row in rows:
        fact = expected[row["fact_id"]]
        assert (row["question"], row["answer"], row["relation"]) == (fact.question, fact.answers[0], fact.relation)
    before = MasteryMap.load(home / "run" / "before" / "mastery.parquet")
    assert {row.fact_id: row.answer for row in before} == {text: f"{text}, the answer" for text in TEXTS}


def test_ids_like_paths_name_no_file(taught: tuple[Path, str]) -> None:
    home, _ = taught
    assert sorted(path.name for path in home.iterdir()) == ["facts.jsonl", "run"]
    assert [path.name for path in home.parent.iterdir()] == ["er"]
    assert [path.name for path in home.parent.parent.iterdir()] == ["deep"]
    names = {part for path in (home / "run").rglob("*") for part in path.relative_to(home / "run").parts}
    assert not names & {"etc", "passwd", "a", "b", "con", "nul"}
    assert sorted(path.name for path in (home / "run" / "states").iterdir()) == ["0-before", "1-fine-tuning"]


def test_the_page_of_hostile_facts_shows_them_as_text(taught: tuple[Path, str], tmp_path: Path) -> None:
    home, _ = taught
    html = (home / "run" / "report.html").read_text(encoding="utf-8")
    tame_html = build_report(write_ledger(tmp_path, tables(30))).read_text(encoding="utf-8")
    page, tame = Tags(html), Tags(tame_html)
    for tag in ("script", "img", "style", "iframe"):
        assert page.tags.count(tag) == tame.tags.count(tag), tag
    assert not page.handlers
    for control in "\x00\x07\x1b\x7f\x9b":
        assert html.count(control) == tame_html.count(control), ascii(control)
    shown = page_facts.decode(page.data["facts-data"].strip())["texts"]
    for text in TEXTS:
        assert words.visible(text) in shown and words.visible(f"{text}, the answer") in shown
    assert "\\x1b[2J\\x07\\x9b31mred" in shown
    machine = json.loads((home / "run" / "report.json").read_text(encoding="utf-8"))
    assert {words.visible(text) for text in TEXTS} <= {row["fact_id"] for row in machine["facts"]["rows"]}
    assert "<script" not in (home / "run" / "model" / "README.md").read_text(encoding="utf-8")


def test_no_command_sends_control_characters_to_the_terminal(taught: tuple[Path, str]) -> None:
    _, said = taught
    assert "\\x1b[2J" in said and "\\u202e" in said
    assert not {character for character in said if not character.isprintable()} - {"\n", "\t", " ", "\u202f", "\xa0"}


def test_printable_text_is_left_alone_and_the_rest_is_shown() -> None:
    honest = "naïve 東京 שלום 👩‍👩‍👧 é\tline\n"
    assert printable(honest) == honest
    assert printable("\x1b[0m\x00\x7f\x85\u202e\u200f\u2028") == "\\x1b[0m\\x00\\x7f\\x85\\u202e\\u200f\\u2028"


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "/etc/passwd", "a/b", "..\\..", ".hidden", "~", "con:nul"])
def test_arms_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    home = (tmp_path / "arms" / Arm(name, "sft").folder / "seed-0").resolve()
    assert home.parent.parent == (tmp_path / "arms").resolve()
    assert not home.parent.name.startswith(".")


@pytest.mark.parametrize("name", ["\x1b[2J", "one\ntwo", "\u202ereversed", "x" * 300])
def test_names_of_arms_that_cannot_be_shown_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "arms.yaml").write_text(json.dumps({name: {"method": "sft"}, "sft": None}))
    with pytest.raises(InputError, match="name of an arm"):
        read_arms(None, tmp_path / "arms.yaml")


# -------------------------------------------------------------------- giants

GIANT = "huge " * 200_000


@pytest.mark.parametrize("field", ["answers", "question", "id"])
@pytest.mark.parametrize("command", ["probe", "teach"])
def test_a_megabyte_is_refused_in_a_short_line(
    command: str, field: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fact: dict[str, Any] = {"id": "giant", "question": "Where?", "answers": ["Here"], "role": "target"}
    fact |= {"answers": ["Here", GIANT]} if field == "answers" else {field: GIANT}
    if field == "id":  # An id may be long; a question that cannot be asked is refused by its id.
        fact["question"] = "Where " * 3000
    rows = [*(one.to_dict() for one in hostile_facts()), fact]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([command, str(model), str(tmp_path / "facts.jsonl"), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and len(err) < LONGEST_LINE + 100
    assert "context window" in err or "characters]" in err
    assert "giant" in err or field == "id"
    assert not (tmp_path / "out").exists()


def test_megabytes_in_the_ledger_leave_the_page_small(tmp_path: Path) -> None:
    rows = tables(60, huge=True)
    rows["left_out"] = [{"run_id": "run-0001", "what": f"{n} {GIANT}", "reason": GIANT} for n in range(4)]
    for row in rows["verdicts"][:3]:
        row |= dict.fromkeys(("question", "answer_before", "answer_after", "evidence", "subject", "relation"), GIANT)
    summary = json.loads(rows["runs"][0]["summary_json"]) | {"warnings": [GIANT] * 5}
    rows["runs"][0] |= {"summary_json": json.dumps(summary)}
    path = build_report(write_ledger(tmp_path, rows))
    assert path.stat().st_size < 3_000_000
    assert (tmp_path / "report.json").stat().st_size < 3_000_000
    assert "[1,000,000 characters; all of them in the ledger]" in path.read_text(encoding="utf-8")


# ------------------------------------------------------------------- pickles


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(mark)))


def old_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(mark), protocol=0))


def torch_pickle(path: Path, mark: Path) -> None:
    torch.save({"model.norm.weight": torch.ones(32), "bomb": Bomb(mark)}, path)


PICKLES = (plain_pickle, old_pickle, torch_pickle)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "posing")


def refused(folder: Path, mark: Path, **options: Any) -> str:
    with pytest.raises(InputError) as fault:
        load(folder, **options)
    assert not mark.exists(), "it was unpickled"
    assert "\n" not in str(fault.value)
    return str(fault.value)


def test_the_bomb_goes_off_when_it_is_unpickled(tmp_path: Path) -> None:
    for number, disguise in enumerate(PICKLES):
        disguise(tmp_path / "file", tmp_path / str(number))
        if disguise is torch_pickle:
            torch.load(tmp_path / "file", weights_only=False)
        else:
            pickle.loads((tmp_path / "file").read_bytes())
        assert (tmp_path / str(number)).exists()


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize("disguise", PICKLES)
def test_a_pickle_that_is_called_safetensors_is_refused_unread(disguise: Any, dtype: str, copy: Path) -> None:
    disguise(copy / "model.safetensors", copy / "mark")
    said = refused(copy, copy / "mark", dtype=dtype)
    assert "posing" in said and "cannot be" in said


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.pkl"])
def test_a_pickle_instead_of_weights_is_refused_unread(name: str, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch_pickle(copy / name, copy / "mark")
    assert name in refused(copy, copy / "mark")


def test_a_pickle_beside_weights_is_not_touched(copy: Path) -> None:
    for name in ("pytorch_model.bin", "adapter_model.bin", "optimizer.pt", "training_args.bin"):
        torch_pickle(copy / name, copy / "mark")
    load(copy)
    assert not (copy / "mark").exists()


@pytest.mark.parametrize("named", ["evil.bin", "../evil.safetensors", "/tmp/evil.safetensors", "evil.safetensors.pkl"])
def test_an_index_may_name_safetensors_beside_it_only(named: str, copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    torch_pickle(copy / "evil.bin", copy / "mark")
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": named}}))
    assert "index" in refused(copy, copy / "mark")
    index.write_text("[]")
    assert "index" in refused(copy, copy / "mark")


def test_weights_in_several_files_are_loaded(model: Path, tmp_path: Path) -> None:
    lm = load(model)
    lm.model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    lm.tokenizer.save_pretrained(tmp_path / "sharded")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").exists()
    assert load(tmp_path / "sharded").fingerprint == lm.fingerprint
