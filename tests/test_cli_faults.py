"""Faults: a full disk, Ctrl-C, a kill, no memory. The run ends with exit 1, and --resume goes on as if nothing was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from instil.cli import main
from instil.files import alone_in
from instil.ledger import Ledger
from instil.model import save
from instil.probe import MasteryMap
from tests import faults
from tests.half_taught import facts, half_taught

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--set", "probe.exemplar_sets=2", "--set", "probe.shots=1", "--set", "probe.prior=false"]
TAUGHT = [*SMALL, "--set", "exam.wordings=1", "--set", "exam.resamples=100", "--set", "train.epochs=2"]
TAUGHT += ["--set", "train.learning_rate=2e-3", "--set", "train.save_seconds=0"]
PROBED = ["--set", "exemplar_sets=2", "--set", "shots=1", "--set", "prior=false"]
EXAMINED = [*SMALL, "--set", "exam.resamples=100"]

Strike = Callable[[], None]
STRIKES: dict[str, tuple[Strike, str]] = {
    "disk full": (faults.disk_full, "the disk is full"),
    "no memory": (faults.out_of_memory, "out of memory"),
    "no memory for torch": (faults.torch_out_of_memory, "out of memory"),
    "ctrl-c": (faults.ctrl_c, "interrupted"),
}


class Case:
    """A command on the tiny model, what it wrote undisturbed, and how often it synced."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        model, file = str(folder / "half-taught"), str(folder / "facts.jsonl")
        self.words = {
            "probe": ["probe", model, file, *PROBED],
            "teach": ["teach", model, file, "--method", "gradual", *TAUGHT],
            "exam run": ["exam", "run", model, str(folder / "exam.jsonl")],
        }[name]
        self.undisturbed = folder / f"{name} undisturbed"
        with faults.striking(0, faults.kill) as syncs:
            assert main([*self.words, "--out", str(self.undisturbed), "--quiet"]) == 0
        self.syncs = syncs[0]

    def run(self, out: Path, *more: str) -> int:
        return main([*self.words, "--out", str(out), "--quiet", *more])

    def check_resumed(self, out: Path) -> None:
        """Resuming ends well, with the results of the run that was not disturbed, and leaves no scraps."""
        assert self.run(out, "--resume") == 0
        assert _figures(out) == _figures(self.undisturbed)
        assert _names(out) == _names(self.undisturbed)
        if self.name == "teach":
            for when in ("before", "after"):
                rows = [MasteryMap.load(place / when / "mastery.parquet") for place in (out, self.undisturbed)]
                assert rows[0] == rows[1]
            assert Ledger(out / "ledger").verify().ok
            counts = [Ledger(place / "ledger").tables() for place in (out, self.undisturbed)]
            assert counts[0] == counts[1]


def _figures(out: Path) -> dict[str, Any]:
    """What may not depend on having been interrupted."""
    summary = json.loads((out / "summary.json").read_text())
    names = ("headline", "verdicts", "transition", "by_category", "counts", "data", "config")
    found = {name: summary[name] for name in names if name in summary}
    found["after"] = summary["model"].get("fingerprint_after")
    if "cost" in summary and "training" in summary["cost"]:
        # What is charged to the budget. An exam that was cut off is charged to nobody, and part of it is asked again.
        costs = {purpose: summary["cost"][purpose] for purpose in ("training", "deciding")}
        found["spent"] = {purpose: (cost["flops"], cost["tokens"]) for purpose, cost in costs.items()}
    return found


def _names(out: Path) -> set[str]:
    """Files of a run, shards of the ledger apart: they may be cut otherwise."""
    return {str(path.relative_to(out)) for path in out.rglob("*") if "ledger/" not in str(path.relative_to(out))}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    save(half_taught(), folder / "half-taught")
    facts().write(folder / "facts.jsonl")
    assert main(["exam", "build", str(folder / "facts.jsonl"), "--out", str(folder / "exam.jsonl"), *EXAMINED]) == 0
    return folder


@pytest.fixture(scope="module")
def cases(home: Path) -> dict[str, Case]:
    return {name: Case(name, home) for name in ("probe", "teach", "exam run")}


def _moments(syncs: int, count: int) -> list[int]:
    """`count` syncs spread over a run, the first and the last among them."""
    return sorted({1 + round(step * (syncs - 1) / (count - 1)) for step in range(count)})


@pytest.mark.parametrize("name", ["probe", "teach", "exam run"])
@pytest.mark.parametrize("strike", STRIKES)
def test_a_fault_at_any_moment_can_be_resumed(
    strike: str, name: str, cases: dict[str, Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = cases[name]
    action, said = STRIKES[strike]
    for moment in _moments(case.syncs, 7 if name == "teach" else 3):
        out = tmp_path / str(moment)
        with faults.striking(moment, action):
            code = case.run(out)
        err = capsys.readouterr().err
        assert code == 1, f"sync {moment}: {err}"
        assert err.startswith(f"instil: {said}"), f"sync {moment}: {err}"
        assert "--resume" in err
        assert "Traceback" not in err
        case.check_resumed(out)
        shutil.rmtree(out)


@pytest.mark.parametrize("name", ["probe", "teach", "exam run"])
def test_a_disk_that_fills_up_can_be_resumed(
    name: str, cases: dict[str, Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = cases[name]
    sizes = sorted({path.stat().st_size for path in case.undisturbed.rglob("*") if path.is_file()})
    # A page holds the command that was given, and with it a path of another length: a hundredth is left for that.
    for number, size in enumerate({sizes[0] // 2, sizes[len(sizes) // 2] - 1, sizes[-1] * 99 // 100}):
        out = tmp_path / str(number)
        with faults.files_no_larger_than(size):
            code = case.run(out)
        err = capsys.readouterr().err
        assert code == 1, f"{size} bytes: {err}"
        assert "disk is full" in err, f"{size} bytes: {err}"
        case.check_resumed(out)


def test_a_killed_teach_can_be_resumed(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["teach"]
    for moment in _moments(case.syncs, 6):
        out = tmp_path / str(moment)
        words = [sys.executable, "-m", "tests.faults", str(moment), *case.words, "--out", str(out), "--quiet"]
        killed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        case.check_resumed(out)


@pytest.mark.parametrize("name", ["probe", "exam run"])
def test_what_was_killed_can_be_resumed(name: str, cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases[name]
    for moment in _moments(case.syncs, 2):
        out = tmp_path / str(moment)
        words = [sys.executable, "-m", "tests.faults", str(moment), *case.words, "--out", str(out), "--quiet"]
        killed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        case.check_resumed(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_real_process_with_exit_1(
    number: signal.Signals, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, out = cases["teach"], tmp_path / "out"
    words = [sys.executable, "-m", "instil", *case.words, "--out", str(out)]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # What a shell starts in the background ignores interrupts, and so does all that it starts: the tests may be that.
    heeding = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(words, cwd=ROOT, preexec_fn=heeding, **pipes) as process:  # noqa: PLW1509 (one call of C)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("stage 1"):
                process.send_signal(number)
                break
        said += process.stderr.readlines()
    assert process.returncode == 1, "".join(said)
    assert "instil: interrupted\n" in said
    assert any("--resume" in line for line in said)
    case.check_resumed(out)


def test_a_run_is_resumed_as_often_as_it_is_interrupted(
    cases: dict[str, Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = cases["teach"], tmp_path / "out"
    for _ in range(case.syncs):
        with faults.striking(25, faults.ctrl_c):
            code = case.run(out, *(["--resume"] if out.exists() else []))
        if code == 0:
            break
    assert code == 0, capsys.readouterr().err
    case.check_resumed(out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_wrong_input(home: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert main(["probe", str(home / "half-taught"), str(home / "facts.jsonl"), "--out", str(tmp_path / "x")]) == 2


@pytest.mark.parametrize("name", ["probe", "teach", "exam run"])
def test_two_processes_never_work_in_one_folder(name: str, cases: dict[str, Case], tmp_path: Path) -> None:
    out, case = tmp_path / "out", cases[name]
    with alone_in(out):
        assert case.run(out) == 2
        assert list(out.iterdir()) == []
    assert case.run(out) == 0
    assert _figures(out) == _figures(case.undisturbed)
