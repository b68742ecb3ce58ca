"""Real processes: killed at many moments and resumed; two that share a probe; one of two that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import instil.probe.ranks as ranks_module
from instil.errors import InputError, RunFailed
from instil.model import save
from instil.probe import MasteryMap
from instil.probe.ranks import Meeting, Ranks
from tests.probing import people_facts, taught_lm

ROOT = Path(__file__).resolve().parents[1]
PART = 4
SMALL = ["--set", "exemplar_sets=2", "--set", "shots=2", "--set", "max_answer_tokens=8", "--set", "batch_tokens=256"]

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    save(taught_lm()[0], folder / "taught")
    people_facts().write(folder / "facts.jsonl")
    return folder


def words(home: Path, out: Path, *more: str, moment: str = "never") -> list[str]:
    probe = ["probe", str(home / "taught"), str(home / "facts.jsonl"), "--out", str(out), *SMALL, *more]
    return [sys.executable, "-m", "tests.probe_faults", str(PART), moment, *probe]


def environment(**more: str) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def run(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, check=False)


def rows(out: Path) -> list[Any]:
    """Every figure of every row, to the last bit."""
    return [row.to_dict() for row in MasteryMap.load(out / "mastery.parquet")]


@pytest.fixture(scope="module")
def alone(home: Path) -> list[Any]:
    done = run(words(home, home / "alone", "--quiet"))
    assert done.returncode == 0, done.stderr
    return rows(home / "alone")


# ------------------------------------------------------------------- kill -9


@slow
@pytest.mark.parametrize(
    "moment",
    [
        *(f"sync:{number}" for number in (1, 3, 6, 9, 12)),
        *(f"replace:{number}" for number in (1, 2, 4, 6, 7)),
        *(f"forward:{number}" for number in (1, 3, 6, 9)),
    ],
)
def test_kill_9_at_any_moment_and_resume_give_the_same_bits(
    moment: str, home: Path, alone: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = run(words(home, out, moment=moment))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = run(words(home, out, "--resume", "--json"))
    assert again.returncode == 0, again.stderr
    assert rows(out) == alone
    assert sorted(path.name for path in out.iterdir()) == ["mastery.parquet", "summary.json"]
    assert json.loads(again.stdout)["data"]["facts"] == 16


@slow
def test_killed_again_and_again_it_ends_with_the_same_bits(home: Path, alone: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(12):
        done = run(words(home, out, "--resume", "--quiet", moment="replace:3"))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.returncode == 0
    assert rows(out) == alone


@slow
def test_killed_after_a_halving_it_keeps_the_smaller_batches(home: Path, alone: list[Any], tmp_path: Path) -> None:
    """Memory ran out once; the resumed run, which has memory enough, computes in the batches that were recorded."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(words(home, whole, "--quiet", moment="memory:3")).returncode == 0
    found = json.loads((whole / "summary.json").read_text())["batches"]["halved"]
    assert len(found) == 1 and found[0]["batch_tokens"] < 256
    # The same lack of memory, and the kill where the second part is renamed to its place: plan, halving, parts.
    code = (
        "import sys; from tests.probe_faults import *; strike_replace(4); sys.exit(main(int(sys.argv[1]), sys.argv[2], "
        "sys.argv[3:]))"
    )
    command = words(home, cut, "--quiet", moment="memory:3")
    killed = run([sys.executable, "-c", code, *command[3:]])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert run(words(home, cut, "--quiet", "--resume")).returncode == 0
    assert json.loads((cut / "summary.json").read_text())["batches"]["halved"] == found
    assert rows(cut) == rows(whole)


# ----------------------------------------------------------------- two ranks


def together(commands: list[list[str]], **more: str) -> list[subprocess.Popen[str]]:
    """One process a rank, started as a launcher would; all have ended."""
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(len(commands)), **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]
    said = [process.communicate(timeout=600) for process in started]
    for process, (out, err) in zip(started, said, strict=True):
        process.said = (out, err)  # type: ignore[attr-defined]
    return started


@slow
def test_two_ranks_equal_one_bit_for_bit(home: Path, alone: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = together([words(home, out)] * 2)
    assert (first.returncode, second.returncode) == (0, 0), (first.said, second.said)
    assert rows(out) == alone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "the meeting place is gone"
    assert sorted(path.name for path in out.iterdir()) == ["mastery.parquet", "summary.json"]
    found, single = (json.loads((place / "summary.json").read_text()) for place in (out, home / "alone"))
    for figures in ("counts", "by_relation", "headline"):
        assert found[figures] == single[figures]
    assert found["cost"]["ranks"] == 2 and found["cost"]["facts_computed"] == 16
    assert "The mastery map" in first.said[0] and "16 of 16 facts" in first.said[1]
    assert second.said == ("", ""), "only rank 0 speaks"


@slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_launchers_start_it(launcher: str, home: Path, alone: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    module = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"],
    }[launcher]
    more = ["--mixed_precision", "no", "--dynamo_backend", "no"] if launcher == "accelerate" else []
    done = run([sys.executable, "-m", *module, *more, *words(home, out, "--json")[1:]])
    assert done.returncode == 0, done.stderr
    assert rows(out) == alone
    assert json.loads(done.stdout)["cost"]["ranks"] == 2


@slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ["fail", "forward"])
def test_a_rank_that_fails_or_dies_fails_the_run_which_can_be_resumed(
    kind: str, rank: int, home: Path, alone: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = together([words(home, out, moment=f"{rank}@{kind}:2")] * 2, PATIENCE="10")
    codes = [process.returncode for process in both]
    assert codes[1 - rank] == 1, both[1 - rank].said
    assert codes[rank] == (1 if kind == "fail" else -signal.SIGKILL), both[rank].said
    assert ("told to fail" if kind == "fail" else "has died") in both[1 - rank].said[1]
    again = run(words(home, out, "--resume", "--quiet"))
    assert again.returncode == 0, again.stderr
    assert rows(out) == alone


@slow
def test_wrong_input_is_wrong_input_on_every_rank(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    both = together([words(home, tmp_path / "out")] * 2)
    assert [process.returncode for process in both] == [2, 2], [process.said for process in both]
    assert all("something else" in process.said[1] for process in both)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


# ------------------------------------------------ meetings, in threads, quick


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT": 0.02, "PATIENCE": 2.0, "ARRIVAL": 20.0, "POLL": 0.005, "GRACE": 0.3}.items():
        monkeypatch.setattr(ranks_module, name, seconds)


def meet(out: Path, *roles: Any) -> list[Any]:
    """Each role is a rank's part in a meeting; what it returned or raised."""
    found: list[Any] = [None] * len(roles)

    def play(rank: int) -> None:
        try:
            with Meeting(out, Ranks(rank, len(roles))) as meeting:
                found[rank] = roles[rank](meeting)
        except Exception as fault:
            found[rank] = fault

    threads = [threading.Thread(target=play, args=(rank,)) for rank in reversed(range(len(roles)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a meeting hangs"
    return found


def test_all_ranks_learn_what_the_first_decides(quick: None, tmp_path: Path) -> None:
    done: list[int] = []

    def role(meeting: Meeting) -> Any:
        task = meeting.agree(lambda: {"numbers": [1, 2, 3]})
        meeting.check()
        done.append(meeting.ranks.rank)
        meeting.conclude(lambda: len(done) == 3, lambda: done.append(9))
        return task["numbers"], done[-1]

    assert meet(tmp_path / "out", role, role, role) == [([1, 2, 3], 9)] * 3
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_run_left_is_not_taken_for_this_one(quick: None, tmp_path: Path) -> None:
    """A finished and a failed rank 0, and a rank 1 that seems to be there already."""
    for state in ("done", "failed"):
        place = tmp_path / ".out.ranks.tmp"
        place.mkdir()
        left = {"nonce": "old", "beat": 3, "state": state, "error": {"text": "old"}, "seen": {"1": "x"}, "decision": {}}
        (place / "0.json").write_text(json.dumps(left))
        (place / "1.json").write_text(json.dumps(left))

        def role(meeting: Meeting) -> Any:
            task = meeting.agree(lambda: {"fresh": True})
            meeting.conclude(lambda: True, lambda: None)
            return task

        assert meet(tmp_path / "out", role, role) == [{"fresh": True}] * 2
        assert list(tmp_path.iterdir()) == []


def test_a_failure_reaches_every_rank_as_what_it_is(quick: None, tmp_path: Path) -> None:
    def wrong() -> Any:
        raise InputError("no good", file="f.jsonl", line=3, expected="better")

    first, second = meet(tmp_path / "a", *[lambda meeting: meeting.agree(wrong)] * 2)
    assert isinstance(first, InputError) and first == second

    def fails(meeting: Meeting) -> None:
        meeting.agree(dict)
        raise ValueError("out of luck")

    def waits(meeting: Meeting) -> None:
        meeting.agree(dict)
        meeting.conclude(lambda: False, lambda: None)

    first, second = meet(tmp_path / "b", waits, fails)
    assert isinstance(second, ValueError)
    assert isinstance(first, RunFailed) and "rank 1 failed: out of luck" in str(first)
    first, second = meet(tmp_path / "c", fails, waits)
    assert isinstance(second, RunFailed) and "rank 0 failed: out of luck" in str(second)


def test_nobody_waits_for_ever(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a rank that died silently, and for one that never came."""

    def dies(meeting: Meeting) -> None:
        meeting.agree(dict)
        meeting._over.set()  # its heart stops
        meeting._heart.join()
        dead.wait(30)

    def waits(meeting: Meeting) -> None:
        meeting.agree(dict)
        try:
            meeting.conclude(lambda: False, lambda: None)
        finally:
            dead.set()

    for number, roles in enumerate(([waits, dies], [dies, waits])):
        dead = threading.Event()
        found = meet(tmp_path / str(number), *roles)
        assert any(isinstance(one, RunFailed) and "has died" in str(one) for one in found), found
    monkeypatch.setattr(ranks_module, "ARRIVAL", 0.2)
    with pytest.raises(RunFailed, match="rank 1 of 2 has not come"), Meeting(tmp_path / "x", Ranks(0, 2)) as meeting:
        meeting.agree(dict)
    with pytest.raises(RunFailed, match="rank 0 of 2 has not come"), Meeting(tmp_path / "y", Ranks(1, 2)) as meeting:
        meeting.agree(dict)


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("x", "2"), ("0", "0"), ("-1", "2")])
def test_numbers_of_ranks_that_do_not_fit_are_refused(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match="do not fit"):
        Ranks.here()


def test_without_a_launcher_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.here() == Ranks(0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Ranks.here() == Ranks(3, 8)
