"""Bad input: one clear line, exit 2, and nothing left behind. One table for all commands that read it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.cli import main
from instil.model import save
from tests.half_taught import documents, facts, half_taught

FACT = {"id": "1", "question": "Where was person 1 born?", "answers": ["Brin"], "relation": "born"}


def _line(**changes: Any) -> bytes:
    return json.dumps({**FACT, **changes}).encode() + b"\n"


BAD_FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such file"),
    "empty": (b"", "empty"),
    "only blank lines": (b"\n\n", "facts.jsonl"),
    "not JSON": (_line() + b"born in Brin\n", "facts.jsonl:2"),
    "cut JSON": (_line() + b'{"id": "2", "question": "Whe', "facts.jsonl:2"),
    "no answers": (_line(answers=[]), "no answers"),
    "no answers field": (b'{"id": "1", "question": "q?"}\n', "facts.jsonl"),
    "answers of a wrong type": (_line(answers=[17]), "answers"),
    "non-UTF-8": (_line(id="0") + b'{"id": "1", "question": "caf\xe9?", "answers": ["a"]}\n', "UTF-8"),
    "UTF-16": (json.dumps(FACT).encode("utf-16"), "UTF-8"),
    "duplicate ids": (_line() + _line(question="Another?"), "facts.jsonl:2"),
    "a cut gzip file": (gzip.compress(_line() * 500)[:60], "facts.jsonl"),
    "a number": (b"17\n", "facts.jsonl:1"),
}

READERS: dict[str, Callable[[str, str], list[str]]] = {
    "probe": lambda model, file: ["probe", model, file, "--out", "out"],
    "teach": lambda model, file: ["teach", model, file, "--method", "sft", "--out", "out"],
    "exam build": lambda model, file: ["exam", "build", file, "--out", "exam.jsonl"],
    "teach --held-back": lambda model, file: ["teach", model, "good.jsonl", "--held-back", file, "--out", "out"],
    "probe --exemplars": lambda model, file: ["probe", model, "good.jsonl", "--exemplars", file, "--out", "out"],
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(half_taught(), tmp_path_factory.mktemp("model") / "half-taught")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with one good file of facts."""
    monkeypatch.chdir(tmp_path)
    facts().write("good.jsonl")
    return tmp_path


def _refused(arguments: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says it, exit 2, an error object with --json, and not one file more than before."""
    before = sorted(place.rglob("*"))
    assert main([*arguments, "--quiet", "--json"]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1, err
    assert err.startswith("instil: ")
    assert said.lower() in err.lower()
    assert "Traceback" not in err
    assert json.loads(out)["error"]["kind"] == "input"
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_file_is_refused(
    fault: str, reader: str, model_folder: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said = BAD_FILES[fault]
    if content is not None:
        (place / "facts.jsonl").write_bytes(content)
    _refused(READERS[reader](str(model_folder), "facts.jsonl"), said, place, capsys)


@pytest.mark.parametrize("fault", BAD_FILES)
def test_facts_check_finds_the_fault(fault: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = BAD_FILES[fault]
    if content is not None:
        (place / "facts.jsonl").write_bytes(content)
    assert main(["facts", "check", "facts.jsonl"]) == 2
    out, err = capsys.readouterr()
    assert said.lower() in err.lower()
    assert len(err.splitlines()) == 1
    assert "errors: 1" in out
    assert main(["facts", "check", "facts.jsonl", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_facts_check_finds_every_fault(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "facts.jsonl").write_bytes(_line(answers=[]) + _line() + _line() + b"{\n" + _line(id="2"))
    assert main(["facts", "check", "facts.jsonl"]) == 2
    out, err = capsys.readouterr()
    assert all(f"facts.jsonl:{line}" in out for line in (1, 3, 4))
    assert "the first of 3 faults" in err
    assert main(["facts", "check", "facts.jsonl", "--skip-invalid"]) == 0


def test_skip_invalid_uses_the_rest_and_says_so(
    model_folder: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("good.jsonl").open("ab") as file:
        file.write(_line(id="x", answers=[]))
    assert main(["probe", str(model_folder), "good.jsonl", "--out", "out", *_small_probe()]) == 2
    assert main(["probe", str(model_folder), "good.jsonl", "--out", "out", "--skip-invalid", *_small_probe()]) == 0
    assert "Left out: 1" in capsys.readouterr().out
    assert len(json.loads(Path("out/summary.json").read_text())["left_out"]) == 1


def _small_probe() -> list[str]:
    return ["--set", "exemplar_sets=1", "--set", "shots=1", "--set", "prior=false"]


# -------------------------------------------------------------------- models


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])


def _without_end_token(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("eos_token")
    file.write_text(json.dumps(settings))


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


BAD_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (_without_weights, "no weights"),
    "pickled weights": (_pickled, "pickled"),
    "weights cut off": (_cut_weights, "model"),
    "no end token": (_without_end_token, "no end token"),
    "no config": (_without_config, "config.json"),
    "no tokenizer": (_without_tokenizer, "tokenizer"),
}


@pytest.mark.parametrize("command", ["probe", "teach"])
@pytest.mark.parametrize("fault", BAD_MODELS)
def test_a_bad_model_is_refused(
    fault: str, command: str, model_folder: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = BAD_MODELS[fault]
    shutil.copytree(model_folder, place / "model")
    spoil(place / "model")
    _refused([command, "model", "good.jsonl", "--out", "out"], said, place, capsys)


# ------------------------------------------------------------------- options

LONG = {"id": "long", "question": "Where was person 1 born, " * 300 + "?", "answers": ["Brin"], "role": "target"}

BAD_OPTIONS: dict[str, tuple[str, str]] = {
    "unknown method": ("teach {model} good.jsonl --method osmosis --out out", "no such method"),
    "no such model": ("probe ./nowhere good.jsonl --out out", "nowhere"),
    "unknown setting": ("teach {model} good.jsonl --out out --set trian.epochs=2", "trian"),
    "wrong setting": ("teach {model} good.jsonl --out out --set train.epochs=0", "train.epochs"),
    "wrong probe setting": ("probe {model} good.jsonl --out out --set shots=-1", "shots"),
    "unknown engine": ("probe {model} good.jsonl --out out --engine guess", "engine"),
    "no such settings file": ("teach {model} good.jsonl --out out --config nowhere.yaml", "nowhere.yaml"),
    "override without value": ("teach {model} good.jsonl --out out --set epochs", "KEY=VALUE"),
    "bad budget": ("teach {model} good.jsonl --out out --budget plenty", "budget"),
    "unknown adapter": ("teach {model} good.jsonl --out out --adapter prefix", "adapter"),
    "unknown precision": ("probe {model} good.jsonl --out out --dtype float8", "float8"),
    "unknown device": ("probe {model} good.jsonl --out out --device abacus", "abacus"),
    "unknown style": ("probe {model} good.jsonl --out out --style verse", "verse"),
    "no such chat template": ("probe {model} good.jsonl --out out --chat-template nowhere.jinja", "nowhere.jinja"),
    "no such documents": ("teach {model} good.jsonl --out out --method cpt --documents nowhere.jsonl", "nowhere"),
    "nothing to teach": ("teach {model} --out out", "nothing to teach"),
    "documents without questions": ("teach {model} --documents docs.jsonl --method sft --out out", "only documents"),
    "no documents": ("teach {model} good.jsonl --out out --method cpt", "documents"),
    "no such general text": ("teach {model} good.jsonl --out out --general nowhere.txt", "nowhere.txt"),
    "unknown layout": ("facts check good.jsonl --layout papyrus", "papyrus"),
    "question longer than the window": ("probe {model} long.jsonl --out out", "window"),
    "taught question longer than the window": ("teach {model} long.jsonl --out out", "window"),
    "out is a file": ("teach {model} good.jsonl --out good.jsonl", "good.jsonl"),
    "out below a file": ("probe {model} good.jsonl --out good.jsonl/out", "good.jsonl"),
    "out holds other files": ("teach {model} good.jsonl --out full", "something else"),
    "probe's out holds other files": ("probe {model} good.jsonl --out full", "something else"),
    "demo's out holds other files": ("demo --out full", "full"),
    "world's out holds other files": ("world build --out full", "full"),
    "exam is there already": ("exam build good.jsonl --out full/mine.txt", "mine.txt"),
    "not an exam": ("exam run {model} good.jsonl --out out", "not an exam"),
    "no such exam": ("exam run {model} nowhere.jsonl --out out", "nowhere.jsonl"),
    "no ledger": ("ledger show full", "no ledger"),
    "no such table": ("ledger show run --table gossip", "gossip"),
    "nothing to report": ("report full", "full"),
    "no texts": ("world pretrain full --out out", "full"),
    "wrong world": ("world build --out out --set people=1", "people"),
    "too large a world": ("world build --out out --set people=100000", "people"),
    "no demo to continue": ("demo --resume", "no interrupted demo"),
    "ledger is another folder": ("teach {model} good.jsonl --out out --ledger full", "not a ledger"),
}


@pytest.mark.parametrize("fault", BAD_OPTIONS)
def test_a_bad_option_is_refused(
    fault: str, model_folder: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = BAD_OPTIONS[fault]
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("mine")
    documents().write("docs.jsonl")
    (place / "long.jsonl").write_text(
        "".join(json.dumps(fact.to_dict()) + "\n" for fact in facts()) + json.dumps(LONG) + "\n"
    )
    if "ledger show run" in words:
        from instil.ledger import Ledger

        Ledger(place / "run").append("left_out", [{"run_id": "r", "what": "w", "reason": "r"}])
    _refused(words.format(model=model_folder).split(), said, place, capsys)


def test_a_folder_that_holds_another_run_is_refused(
    model_folder: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["probe", str(model_folder), "good.jsonl", "--out", "out", *_small_probe()]
    assert main([*call, "--quiet"]) == 0
    _refused(call, "finished run", place, capsys)
    _refused([*call, "--set", "shots=2", "--resume"], "another run", place, capsys)
    assert main([*call, "--resume", "--quiet"]) == 0
