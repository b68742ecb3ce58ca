"""Kills at every moment and writers at once, in real processes: what was acknowledged is there, whole and once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import instil
from instil.errors import InputError, RunFailed
from instil.ledger import Ledger, diff, query
from instil.model import save
from tests import faults
from tests.half_taught import facts, half_taught

ROOT = Path(__file__).resolve().parents[1]

STRIKER = """
import os, signal, sys
from instil.ledger import Ledger
import pyarrow.parquet

folder, strike = sys.argv[1], int(sys.argv[2])
seen = 0

def watch(event, arguments):
    # Every touch of the ledger's folder that Python makes: files opened, folders made, renamed, listed, removed.
    global seen
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "os.chmod"):
        if any(str(argument).startswith(folder) for argument in arguments[:2]):
            seen += 1
            if seen == strike:
                os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
for number in range(2):
    Ledger(folder).append("left_out", [{"run_id": "r", "what": str(number), "reason": "x"}] * 3, key=f"r/{number}")
    print(number, flush=True)
print("touches", seen)
"""


def striker(folder: Path, strike: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STRIKER, str(folder), str(strike)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)


def touches(folder: Path) -> int:
    undisturbed = striker(folder, 0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    return int(undisturbed.stdout.split()[-1])


def check_survived(folder: Path, acknowledged: int) -> None:
    """What was acknowledged is there, at most one append more, nothing in part; and the writer can go on."""
    ledger = Ledger(folder)
    found = ledger.verify()
    assert found.ok, found.problems
    whole = ledger.read("left_out")["what"].to_pylist()
    assert whole in ([], ["0"] * 3, ["0"] * 3 + ["1"] * 3)
    assert len(whole) // 3 in (acknowledged, acknowledged + 1)
    for number in range(2):
        ledger.append("left_out", [{"run_id": "r", "what": str(number), "reason": "x"}] * 3, key=f"r/{number}")
    assert ledger.read("left_out")["what"].to_pylist() == ["0"] * 3 + ["1"] * 3
    assert Ledger(folder).verify().ok


def killed_at(folder: Path, strike: int) -> None:
    killed = striker(folder, strike)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    check_survived(folder, len(killed.stdout.splitlines()))


def test_a_writer_killed_at_chosen_touches_loses_nothing(tmp_path: Path) -> None:
    every = touches(tmp_path / "undisturbed")
    for strike in sorted({1, every // 4, every // 2, 3 * every // 4, every}):
        killed_at(tmp_path / str(strike), strike)


@pytest.mark.slow
def test_a_writer_killed_at_every_touch_of_its_folder_loses_nothing(tmp_path: Path) -> None:
    every = touches(tmp_path / "undisturbed")
    assert every > 20
    for strike in range(1, every + 1):
        killed_at(tmp_path / str(strike), strike)


def test_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    """There is no lock: what one left half done stands in no other's way."""
    folder = tmp_path / "ledger"
    every = touches(tmp_path / "undisturbed")
    ledger = Ledger(folder)
    ledger.append("left_out", [{"run_id": "first", "what": "w", "reason": "r"}])
    assert striker(folder, every // 2).returncode == -signal.SIGKILL
    assert ledger.append("left_out", [{"run_id": "second", "what": "w", "reason": "r"}])
    assert ledger.read("left_out", run_id=["first", "second"]).num_rows == 2
    assert ledger.verify().ok


def test_reading_goes_on_while_another_writes(tmp_path: Path) -> None:
    """A reader sees whole appends and ever more of them, whatever it does meanwhile."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("left_out", [{"run_id": "r", "what": "w", "reason": "r"}])
    code = (
        "import sys; from instil.ledger import Ledger; ledger = Ledger(sys.argv[1])\n"
        "for number in range(40):\n"
        "    ledger.append('left_out', [{'run_id': 'other', 'what': str(number), 'reason': 'r'}] * 2)"
    )
    counts = []
    with subprocess.Popen([sys.executable, "-c", code, str(ledger.folder)], cwd=ROOT) as process:
        while process.poll() is None:
            counts.append(Ledger(ledger.folder).read("left_out", run_id="other").num_rows)
            assert query(Ledger(ledger.folder), "SELECT count(*) FROM left_out").rows[0][0] % 2 == 1
    assert process.returncode == 0
    assert counts == sorted(counts) and all(count % 2 == 0 for count in counts)
    assert ledger.read("left_out", run_id="other").num_rows == 80


# ---------------------------------------------------------------- whole lessons

SMALL = ["--set", "probe.exemplar_sets=2", "--set", "probe.shots=1", "--set", "probe.prior=false"]
SMALL += ["--set", "exam.wordings=0", "--set", "exam.held_back_wordings=0", "--set", "exam.confidence_sets=0"]
SMALL += ["--set", "exam.resamples=100", "--set", "exam.general_texts=2", "--set", "train.epochs=2"]
SMALL += ["--set", "train.learning_rate=2e-3", "--set", "train.save_seconds=0", "--method", "sft"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first lesson, and what a second one needs."""
    folder = tmp_path_factory.mktemp("faults")
    save(half_taught(), folder / "base")
    facts()[:45].write(folder / "first.jsonl")
    facts()[45:].write(folder / "second.jsonl")
    first = taught(folder / "base", folder / "first.jsonl", folder / "first", folder / "ledger")
    assert subprocess.run(first, cwd=ROOT, capture_output=True, check=False).returncode == 0
    return folder


def taught(model: Path, file: Path, out: Path, ledger: Path, *more: str) -> list[str]:
    words = ["teach", str(model), str(file), "--out", str(out), "--ledger", str(ledger), "--quiet", *SMALL, *more]
    return [sys.executable, "-m", "tests.faults", "0", *words]


def facts_of(ledger: Ledger, run: str) -> list[tuple[Any, ...]]:
    columns = ["fact_id", "role", "verdict", "answer_before", "answer_after", "p_sampled_after"]
    return [tuple(row.values()) for row in ledger.read("verdicts", columns=columns, run_id=run).to_pylist()]


@pytest.mark.slow
def test_two_lessons_at_once_in_one_ledger_are_both_whole(home: Path, tmp_path: Path) -> None:
    ledger = shutil.copytree(home / "ledger", tmp_path / "ledger")
    alone = {}
    for seed in ("1", "2"):
        own = shutil.copytree(home / "ledger", tmp_path / f"ledger-{seed}")
        words = taught(home / "first" / "model", home / "second.jsonl", tmp_path / f"alone-{seed}", own, "--seed", seed)
        assert subprocess.run(words, cwd=ROOT, check=False).returncode == 0
        run = Ledger(own).runs()[-1]["run_id"]
        alone[run] = facts_of(Ledger(own), run)
    both = [
        subprocess.Popen(
            taught(
                home / "first" / "model", home / "second.jsonl", tmp_path / f"at-once-{seed}", ledger, "--seed", seed
            ),
            cwd=ROOT,
        )
        for seed in ("1", "2")
    ]
    assert [process.wait(900) for process in both] == [0, 0]
    shared = Ledger(ledger)
    assert shared.verify().ok
    assert {run: facts_of(shared, run) for run in alone} == alone
    assert [run["status"] for run in shared.runs()] == ["done"] * 3


@pytest.mark.slow
def test_a_second_lesson_killed_at_any_moment_ends_as_if_it_had_not_been(home: Path, tmp_path: Path) -> None:
    def words(name: str, *more: str) -> list[str]:
        ledger = tmp_path / name / "ledger"
        if not ledger.exists():
            shutil.copytree(home / "ledger", ledger)
        place = tmp_path / name / "run"
        return taught(home / "first" / "model", home / "second.jsonl", place, ledger, "--keep-states", "all", *more)

    assert subprocess.run(words("undisturbed"), cwd=ROOT, check=False).returncode == 0
    whole = Ledger(tmp_path / "undisturbed" / "ledger")
    run = whole.runs()[-1]["run_id"]
    states = whole.read("states", run_id=run, columns=["state_id", "parent_id", "fingerprint", "path"]).to_pylist()
    assert states[0]["parent_id"].endswith(":after") and all(row["path"] for row in states)
    for moment in (20, 45, 70):
        call = words(str(moment))
        call[3] = str(moment)
        killed = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, f"sync {moment} of a run that is shorter: {killed.stderr}"
        assert Ledger(tmp_path / str(moment) / "ledger").verify().ok
        assert subprocess.run(words(str(moment), "--resume"), cwd=ROOT, check=False).returncode == 0
        ledger = Ledger(tmp_path / str(moment) / "ledger")
        assert ledger.tables() == whole.tables() and ledger.verify().ok
        assert facts_of(ledger, run) == facts_of(whole, run)
        found = ledger.read("states", run_id=run, columns=["state_id", "parent_id", "fingerprint", "path"]).to_pylist()
        assert found == states
        assert diff(ledger, run).counts == diff(whole, run).counts
        assert sorted(path.name for path in (tmp_path / str(moment) / "run" / "states").iterdir()) == [
            "0-before",
            "1-fine-tuning",
        ]
        shutil.rmtree(tmp_path / str(moment))


STRIKES: dict[str, Callable[[], None]] = {"disk full": faults.disk_full, "ctrl-c": faults.ctrl_c}


@pytest.mark.slow
@pytest.mark.parametrize("strike", STRIKES)
def test_an_undo_that_is_cut_off_leaves_nothing_and_can_be_repeated(home: Path, tmp_path: Path, strike: str) -> None:
    run = shutil.copytree(home / "first", tmp_path / "first")
    shutil.copytree(home / "ledger", tmp_path / "first" / "ledger")
    with faults.striking(0, faults.kill) as syncs:
        instil.undo(run, out=tmp_path / "undisturbed")
    for moment in range(1, syncs[0] + 1):
        out = tmp_path / str(moment)
        with (
            faults.striking(moment, STRIKES[strike]),
            pytest.raises((OSError, RunFailed, InputError, KeyboardInterrupt)),
        ):
            instil.undo(run, out=out)
        assert not list(tmp_path.glob(".*.tmp"))
        assert Ledger(run / "ledger").verify().ok
        done = instil.undo(run, out=out)  # Also where the weights were whole, and the ledger not yet told.
        assert done.model.fingerprint == done.fingerprint
        assert Ledger(run / "ledger").read("states", state_id=done.state).num_rows == 1
