"""Every command does its work, on a tiny model: what it writes, and what it says to people and to machines."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from instil.cli import main
from instil.facts import Corpus, FactSet
from instil.files import read_sealed
from instil.ledger import Ledger
from instil.model import save
from instil.probe import MasteryMap
from tests.half_taught import documents, facts, half_taught

ROOT = Path(__file__).resolve().parents[1]
PROBE = ["--set", "probe.exemplar_sets=2", "--set", "probe.shots=1", "--set", "probe.prior=false"]
EXAM = [*PROBE, "--set", "exam.wordings=1", "--set", "exam.resamples=100"]
TRAIN = ["--set", "train.epochs=1", "--set", "train.learning_rate=1e-3", "--set", "train.save_every=never"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    save(half_taught(), folder / "half-taught")
    facts().write(folder / "facts.jsonl")
    documents().write(folder / "documents.jsonl")
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def taught(home: Path) -> Path:
    out = home / "taught"
    words = ["teach", str(home / "half-taught"), str(home / "facts.jsonl"), "--method", "sft", "--out", str(out)]
    assert main([*words, *EXAM, *TRAIN, "--quiet"]) == 0
    return out


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert main([*words]) == 0, capsys.readouterr().err
    return capsys.readouterr()


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(_run(capsys, *words, "--json")[0])


def test_probe(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = _run(capsys, "probe", "half-taught", "facts.jsonl", "--out", "probed", *PROBE, "--seed", "3")
    assert {path.name for path in (home / "probed").iterdir()} == {"mastery.parquet", "summary.json"}
    counts = MasteryMap.load(home / "probed" / "mastery.parquet").counts()
    for word in ("Highly known", "Maybe known", "Weakly known", "Unknown"):
        assert word in out
    assert sum(counts.values()) == len(facts())
    assert "float32 on cpu" in err
    assert re.search(r"probing: .*90 of 90", err)
    again = _json(capsys, "probe", "half-taught", "facts.jsonl", "--out", "probed", *PROBE, "--seed", "3", "--resume")
    assert again == read_sealed(home / "probed" / "summary.json")
    assert again["seed"] == 3
    assert again["config"]["exemplar_sets"] == 2


def test_probe_by_the_sampled_engine(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", "half-taught", "facts.jsonl", "--out", "sampled", "--engine", "sampled", *PROBE]
    assert _json(capsys, *words, "--set", "samples=2")["config"]["engine"] == "sampled"


def test_exam(home: Path, taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = _json(capsys, "exam", "build", "facts.jsonl", "--out", "exam.jsonl", *EXAM)
    assert built["questions"]["as_worded"] > 0
    summary = _json(capsys, "exam", "run", "half-taught", "exam.jsonl", "--out", "sat")
    assert summary["data"]["exam_fingerprint"] == built["fingerprint"]
    assert {path.name for path in (home / "sat").iterdir()} == {"summary.json"}
    assert summary["headline"]["known_as_worded"]["n"] == built["questions"]["as_worded"]
    out, _ = _run(capsys, "exam", "run", "half-taught", "exam.jsonl", "--out", "sat", "--resume")
    assert "finished before" in out
    assert main(["exam", "run", "taught/model", "exam.jsonl", "--out", "sat", "--resume"]) == 2


def test_teach_writes_what_the_design_names(taught: Path) -> None:
    entries = {entry.name for entry in taught.iterdir()}
    assert entries >= {"model", "before", "after", "ledger", "report.html", "summary.json", "config.yaml"}
    summary = json.loads((taught / "summary.json").read_text())
    assert summary["config"]["train"]["epochs"] == 1
    assert summary["config"]["probe"]["shots"] == 1


def test_teach_shows_the_headline(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["teach", str(taught.parent / "half-taught"), "facts.jsonl", "--method", "sft", "--out", str(taught)]
    words += [*EXAM, *TRAIN, "--resume"]
    out, _ = _run(capsys, *words)
    assert "acquired: taught facts" in out
    assert "95 % interval" in out
    assert "Verdicts:" in out
    assert f"The report: {taught / 'report.html'}" in out
    assert _json(capsys, *words) == read_sealed(taught / "summary.json")


def test_teach_from_documents(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["teach", "half-taught", "facts.jsonl", "--documents", "documents.jsonl", "--method", "cpt"]
    summary = _json(capsys, *words, "--out", "read", *EXAM, *TRAIN)
    assert summary["data"]["documents"] == len(Corpus.read("documents.jsonl"))


def test_teach_an_adapter_in_another_ledger(home: Path, taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(taught / "ledger", home / "continued")
    words = ["teach", "taught/model", "facts.jsonl", "--method", "sft", "--adapter", "lora", "--seed", "2"]
    summary = _json(capsys, *words, "--out", "adapted", "--ledger", "continued", *EXAM, *TRAIN)
    assert summary["config"]["train"]["adapter"] is not None
    assert len(Ledger(home / "continued").runs()) == 2


def test_roles_can_come_from_files(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = FactSet.read("facts.jsonl").assign(None)
    every[:40].write(home / "target.jsonl")
    every[40:60].write(home / "held.jsonl")
    every[60:75].write(home / "exemplars.jsonl")
    (home / "general.txt").write_text("A first paragraph.\n\nA second one.\n")
    words = ["teach", "half-taught", "target.jsonl", "--method", "sft", "--held-back", "held.jsonl"]
    words += ["--exemplars", "exemplars.jsonl", "--general", "general.txt", "--out", "roles", *EXAM, *TRAIN]
    summary = _json(capsys, *words)
    assert summary["data"]["facts"]["held_back"] == 20
    assert summary["data"]["facts"]["exemplar"] == 15


def test_a_dry_run_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = _run(capsys, "teach", "half-taught", "facts.jsonl", "--method", "sft", "--out", "dry", "--dry-run")
    assert "memory" in out
    assert "Nothing was written" in out
    assert not (home / "dry").exists()


def test_report_is_rebuilt_from_the_ledger(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (taught / "report.html").unlink()
    assert _json(capsys, "report", str(taught))["report"] == str(taught / "report.html")
    assert (taught / "report.html").stat().st_size > 10_000


def test_the_record_holds_the_command_as_given(taught: Path) -> None:
    summary = json.loads((taught / "summary.json").read_text())
    assert summary["command"].startswith(f"instil teach {shlex.quote(str(taught.parent / 'half-taught'))} ")
    assert "--method sft" in summary["command"]
    assert summary["command"] in html.unescape((taught / "report.html").read_text())


def test_ledger(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = _run(capsys, "ledger", "show", str(taught))
    assert "sft" in out
    assert "verdicts" in out
    rows = _json(capsys, "ledger", "show", str(taught), "--table", "verdicts", "--limit", "3")
    assert len(rows["shown"]) == 3
    assert _json(capsys, "ledger", "verify", str(taught))["ok"]


def test_a_damaged_ledger_is_exit_1(taught: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(taught / "ledger", home / "damaged")
    file = next((home / "damaged" / "answers").rglob("*.parquet"))
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    assert main(["ledger", "verify", "damaged"]) == 1
    out, err = capsys.readouterr()
    assert "answers" in out
    assert "damaged" in err
    assert main(["ledger", "verify", "damaged", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    listed = _json(capsys, "methods")
    assert {method["name"] for method in listed} == {
        "sft",
        "gradual",
        "cpt",
        "cpt_sft",
        "mixed",
        "pit",
        "generalize",
        "mentor",
    }
    shown = _json(capsys, "methods", "gradual")
    assert shown["card"].startswith("# ")
    assert "replay_ratio" in shown["settings"]["properties"]


WORLD = ["--set", "people=30", "--set", "new_people=10", "--set", "prose_paragraphs=20", "--set", "unknown_entities=10"]
TINY = {"hidden_size": 16, "heads": 2, "layers": 1, "intermediate_size": 16, "vocab_size": 320, "row_length": 64}
TINY |= {"batch_tokens": 65536, "max_positions": 256, "long_row_length": 256, "threads": 1, "precision": "fp32"}


def test_world(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = _json(capsys, "world", "build", "--out", "world", *WORLD, "--seed", "5")
    again = _json(capsys, "world", "build", "--out", "world-again", *WORLD, "--seed", "5")
    assert built == again
    names = {"facts.jsonl", "hops.jsonl", "documents.jsonl", "general.txt", "pretraining.jsonl.gz", "summary.json"}
    assert {path.name for path in (home / "world").iterdir()} == names
    for name in names:
        assert (home / "world" / name).read_bytes() == (home / "world-again" / name).read_bytes()
    read = FactSet.read("world/facts.jsonl")
    assert len(read) == built["data"]["facts"]
    assert all("exposures" in fact.metadata for fact in read)
    assert len(Corpus.read("world/documents.jsonl")) == built["data"]["documents"]

    sizes = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    (home / "texts.jsonl").write_text("".join(json.dumps({"text": fact.question}) + "\n" for fact in read[:200]))
    base = _json(capsys, "world", "pretrain", "texts.jsonl", "--out", "base", *sizes)
    assert base["final_loss"] > 0
    assert main(["probe", "base", "facts.jsonl", "--out", "base-probed", *PROBE, "--quiet"]) == 0


def test_demo_takes_the_next_free_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from instil.cli.commands.demo import free_folder, unfinished_folder
    from instil.errors import InputError

    assert free_folder() == Path("runs/demo")
    Path("runs/demo").mkdir(parents=True)
    assert free_folder() == Path("runs/demo")
    Path("runs/demo/config.yaml").touch()
    assert unfinished_folder() == Path("runs/demo")
    assert free_folder() == Path("runs/demo-2")
    Path("runs/demo/summary.json").touch()
    with pytest.raises(InputError, match="no interrupted demo"):
        unfinished_folder()


@pytest.mark.slow
def test_demo(home: Path) -> None:
    """Under 5 minutes and 2 GB on two cores, with nothing but the package: no network, no GPU."""
    # The process measures itself: what its parent counts for it starts, on Linux, at the parent's own peak.
    code = """
from pathlib import Path
from tests.network import refuse_network
refuse_network()
from instil.cli import main
from instil.probe.memory import peak_memory_mb
code = main(["demo"])
Path("peak.txt").write_text(str(peak_memory_mb()))
raise SystemExit(code)
"""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    shutil.rmtree(home / "runs", ignore_errors=True)
    began = time.monotonic()
    with (home / "said.txt").open("w") as said:
        assert (
            subprocess.run([sys.executable, "-c", code], cwd=home, env=variables, stdout=said, check=False).returncode
            == 0
        )
    shown = (home / "said.txt").read_text()
    assert "acquired" in shown
    assert "The report: runs/demo/report.html" in shown
    summary = json.loads((home / "runs" / "demo" / "summary.json").read_text())
    assert summary["method"] == "gradual"
    assert len(FactSet.read("runs/demo/facts.jsonl")) >= 600
    assert float((home / "peak.txt").read_text()) * (1 << 20) < 2e9
    assert time.monotonic() - began < 300


@pytest.mark.slow
def test_the_readmes_python_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[0]
    names: dict[str, Any] = {}
    exec(code.replace("Qwen/Qwen3-0.6B", "half-taught"), names)
    assert len(names["after"]) == len(names["before"]) == len(facts())
    assert (home / "runs" / "first" / "report.html").is_file()
