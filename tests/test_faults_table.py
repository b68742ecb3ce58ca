"""The table of faults: every stage struck down by every blow at many file operations, every file damaged in every way.

A blow (SIGKILL, SIGINT, SIGTERM, a full disk) may fall at any moment: what is there is whole, and `--resume` ends with
what the undisturbed run has. A damaged file (cut, one byte flipped) is either named in one line, with exit 1
or 2, or it makes no difference. `STRUCK` and `DAMAGED` are the table. Other rows of it: `tests/test_cli_faults.py` (the
method gradual, no memory, disks that fill up), `tests/test_ledger_faults.py` (the ledger, second lessons, undo),
`tests/test_probe_ranks.py` (several processes) and `tests/test_training_run.py` (each step of training).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import instil
from instil.errors import InputError
from instil.facts import FactSet
from instil.files import seal
from instil.ledger import Ledger
from instil.loop.compare_run import Comparison
from instil.model import LanguageModel, save
from instil.probe import MasteryMap
from tests.fault_server import FULL
from tests.half_taught import facts
from tests.models import tiny_model
from tests.test_hostile import torch_pickle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PROBED = ["--set", "exemplar_sets=2", "--set", "shots=1", "--set", "prior=false"]
SMALL = ["--set", "probe.exemplar_sets=2", "--set", "probe.shots=1", "--set", "probe.prior=false"]
EXAMINED = [*SMALL, "--set", "exam.resamples=100", "--set", "exam.parts=[]", "--set", "exam.openings=0"]
EXAMINED += ["--set", "exam.wordings=1", "--set", "exam.confidence_sets=1", "--set", "exam.general_texts=2"]
TRAINED = ["--set", "train.epochs=2", "--set", "train.save_seconds=0", "--set", "train.batch_size=4"]
TAUGHT = [*EXAMINED, *TRAINED, "--set", "categories=[Unknown,WeaklyKnown,MaybeKnown,HighlyKnown]"]

BLOWS = ("SIGKILL", "SIGINT", "SIGTERM", FULL)
STRUCK = {"probe": 2, "teach": 4, "exam run": 2, "compare": 3, "report": 1, "report of a comparison": 1}
"""Stage, and at how many moments each blow falls."""

RESUMABLE = ("probe", "teach", "exam run", "compare")

REFUSED, SAME = "refused", "same"
DAMAGED: dict[tuple[str, str | None], dict[str, str]] = {
    ("probe", "parts/000000008.parquet"): {"plan.json": REFUSED, "parts/000000000.parquet": REFUSED},
    ("probe", None): {"summary.json": REFUSED, "mastery.parquet": REFUSED},
    ("exam run", "parts/held_back-*.json"): {
        "plan.json": REFUSED,
        "parts/as_worded-*.parquet": SAME,
        "parts/as_worded-*.json": SAME,
    },
    ("exam run", None): {"summary.json": REFUSED},
    ("teach", "work/lesson/001-train/checkpoint-*/seal.json"): {
        f"work/lesson/001-train/checkpoint-*/{name}": REFUSED
        for name in (
            "trained.safetensors",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
            "trainer_state.json",
            "instil.json",
            "seal.json",
        )
    },
    ("teach", "work/exam-after/as_worded-*.json"): {
        "config.yaml": REFUSED,
        "exam.jsonl": REFUSED,
        "ledger/ledger.json": REFUSED,
        "ledger/answers/00000001/rows.parquet": REFUSED,
        "ledger/answers/00000001/entry.json": REFUSED,
        "before/mastery.parquet": SAME,
        "work/started.json": REFUSED,
        "work/exam-before/as_worded-*.parquet": SAME,
        "work/exam-before/as_worded-*.json": SAME,
        "work/exam-before-cost.json": REFUSED,
        "work/lesson/000-probe/mastery.parquet": REFUSED,
        "work/lesson/000-probe/done.json": REFUSED,
        "work/lesson/001-train/run": REFUSED,
        "work/lesson/001-train/final.safetensors": REFUSED,
        "work/lesson/001-train/result.json": REFUSED,
        "work/model.json": REFUSED,
        "model/model.safetensors": REFUSED,
        "model/config.json": REFUSED,
        "model/tokenizer.json": REFUSED,
        "work/exam-after/as_worded-*.parquet": SAME,
    },
    ("teach", None): {
        "config.yaml": REFUSED,
        "exam.jsonl": REFUSED,
        "summary.json": REFUSED,
        "before/mastery.parquet": REFUSED,
        "after/mastery.parquet": REFUSED,
        "model/model.safetensors": REFUSED,
    },
    ("compare", "arms/sft/seed-0/summary.json"): {
        "config.yaml": REFUSED,
        "exam.jsonl": REFUSED,
        "work/before/as_worded-*.parquet": SAME,
        "work/before/cost.json": REFUSED,
        "arms/sft/seed-0/summary.json": REFUSED,
        "arms/sft/seed-0/exam.jsonl": REFUSED,
        "arms/sft/seed-0/model/model.safetensors": REFUSED,
        "arms/sft/seed-0/ledger/verdicts/00000001/rows.parquet": REFUSED,
    },
    ("compare", None): {"config.yaml": REFUSED, "summary.json": REFUSED},
    ("report", None): {
        "summary.json": REFUSED,
        "ledger/ledger.json": REFUSED,
        "ledger/verdicts/00000001/rows.parquet": REFUSED,
        "ledger/runs/00000001/entry.json": REFUSED,
    },
    ("report of a comparison", None): {"summary.json": REFUSED},
}
"""Stage and the file at whose appearance it was interrupted (None: it was finished), then each file with what must come
of its damage when the stage goes on: it is refused in a line that names the file, or ends as the undisturbed one."""

TIMES = {"seconds", "started", "finished", "command", "ledger", "checksum", "files", "exam_before"}
TIMES |= {"facts_per_second", "facts_computed", "peak_memory_mb"}


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (below zero: the signal), what it said, how often it touched its folder."""

    code: int
    err: str
    touches: tuple[int, int]


class Bench:
    """A tiny model, a few facts, and the server that runs commands on them."""

    def __init__(self, home: Path) -> None:
        self.home, self._runs = home, 0
        model, tokenizer = tiny_model("llama")
        save(LanguageModel.of(model, tokenizer), home / "model")
        FactSet(facts()[:30]).write(home / "facts.jsonl")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.fault_server"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        built = ["exam", "build", str(home / "facts.jsonl"), "--out", str(home / "exam.jsonl"), *EXAMINED]
        assert self._process(built, home, 0, None, "SIGKILL", None).code == 0

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def words(self, stage: str, out: Path) -> list[str]:
        model, file, exam = (str(self.home / name) for name in ("model", "facts.jsonl", "exam.jsonl"))
        arms = ["--methods", "sft,sft:train.epochs=1", "--seeds", "1", "--budget", "1e12"]
        return {
            "probe": ["probe", model, file, *PROBED, "--out", str(out)],
            "exam run": ["exam", "run", model, exam, "--out", str(out)],
            "teach": ["teach", model, file, "--method", "sft", *TAUGHT, "--out", str(out)],
            "compare": ["compare", model, file, *arms, *EXAMINED, *TRAINED, "--out", str(out)],
            "report": ["report", str(out)],
            "report of a comparison": ["report", str(out)],
        }[stage]

    def prepare(self, stage: str, out: Path) -> None:
        """What the stage starts from: nothing, or a finished run."""
        if stage not in RESUMABLE:
            shutil.copytree(self.undisturbed("teach" if stage == "report" else "compare")[0], out)
            for name in ("report.html", "report.json"):
                (out / name).unlink(missing_ok=True)

    def run(
        self,
        stage: str,
        out: Path,
        *,
        blow: str = "SIGKILL",
        moment: int = 0,
        until: str | None = None,
        resume: bool = False,
    ) -> Ended:
        """The stage on its own (moment 0), struck at a moment, or struck when a file has appeared."""
        words = self.words(stage, out) + (["--resume"] if resume and stage in RESUMABLE else [])
        return self._process(words, out, moment, until, blow, 8 if stage == "probe" else None)

    @cache  # noqa: B019 - one bench a module
    def undisturbed(self, stage: str) -> tuple[Path, Ended, dict[str, Any]]:
        """The folder of the stage when nothing went wrong, how it ended, and all that counts of it."""
        out = self.home / f"undisturbed {stage}"
        self.prepare(stage, out)
        ended = self.run(stage, out)
        assert ended.code == 0, ended.err
        return out, ended, outcome(out)

    @cache  # noqa: B019
    def interrupted(self, stage: str, until: str | None) -> Path:
        """A folder of the stage that was interrupted when a file had appeared; the finished one without such a file."""
        if until is None:
            return self.undisturbed(stage)[0]
        out = self.home / f"interrupted {stage} {len(until)}"
        ended = self.run(stage, out, blow="SIGINT", until=until)
        assert ended.code == 1 and "interrupted" in ended.err, f"{until} never appeared: {ended.err}"
        return out

    def _process(
        self, words: list[str], folder: Path, moment: int, until: str | None, blow: str, part: int | None
    ) -> Ended:
        self._runs += 1
        said = str(self.home / f"said-{self._runs}")
        case = {"words": [*words, "--quiet"], "folder": str(folder), "moment": moment, "until": until}
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(case | {"blow": blow, "part": part, "said": said}) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        count = Path(said + ".touches")
        touches = tuple(json.loads(count.read_text())) if count.exists() else (0, 0)
        return Ended(code, Path(said + ".err").read_text(), touches)  # type: ignore[arg-type]


def timeless(value: Any) -> Any:
    """A summary without what the clock and the place decide. An exam that was cut off is charged to nobody."""
    if isinstance(value, dict):
        kept = {name: entry for name, entry in value.items() if name not in TIMES}
        if isinstance(kept.get("cost"), dict):
            kept["cost"] = {name: entry for name, entry in kept["cost"].items() if name != "exam"}
        return {name: timeless(entry) for name, entry in kept.items()}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def outcome(folder: Path) -> dict[str, Any]:
    """All that a stage leaves and that may not depend on having been interrupted, file by file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or "ledger/" in name or path.name.startswith("."):
            continue
        if path.name == "summary.json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".parquet":
            found[name] = pq.read_table(path).to_pylist()
        elif path.suffix in (".safetensors", ".jsonl", ".yaml") or path.parent.name == "model":
            found[name] = "" if path.name == "README.md" else hashlib.sha256(path.read_bytes()).hexdigest()
        else:  # Pages and tables tell times as well; what they are made from is compared.
            found[name] = path.stat().st_size > 0
    for header in sorted(folder.rglob("ledger.json")):
        ledger = Ledger(header.parent)
        for table in ("states", "answers", "stages", "verdicts", "left_out"):
            rows = [timeless(row) for row in ledger.read(table).to_pylist()]
            found[f"{header.parent.relative_to(folder)}: {table}"] = rows
    return found


def differences(out: Path, expected: dict[str, Any]) -> list[str]:
    found = outcome(out)
    return sorted(name for name in {*found, *expected} if found.get(name, 0) != expected.get(name, 0))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("faults table"))
    yield made
    made.close()


def moments(touches: int, count: int, place: int) -> list[int]:
    """`count` touches spread over a run; those of each blow lie between those of the others."""
    share = (place + 0.5) / len(BLOWS)
    return sorted({max(1, round((number + share) * touches / count)) for number in range(count)})


@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("stage", STRUCK)
def test_struck_at_any_file_operation_nothing_is_lost(stage: str, blow: str, bench: Bench, tmp_path: Path) -> None:
    place, whole, expected = bench.undisturbed(stage)
    for moment in moments(whole.touches[blow == FULL], STRUCK[stage], BLOWS.index(blow)):
        case, out = f"{blow} at touch {moment}", tmp_path / str(moment)
        bench.prepare(stage, out)
        ended = bench.run(stage, out, blow=blow, moment=moment)
        if blow == "SIGKILL":
            assert ended.code == -9, f"{case}: {ended.err}"
        elif blow == FULL and ended.code == 0:  # What could not be written was something that nobody needs.
            assert not differences(out, expected), f"{case}: a failed write was swallowed"
        elif blow == FULL:
            assert ended.code in (1, 2), f"{case}: {ended.code} {ended.err}"
            assert "disk is full" in ended.err or "No space left" in ended.err, f"{case}: {ended.err}"
        else:
            assert ended.code == 1 and ended.err.startswith("instil: interrupted"), f"{case}: {ended.code} {ended.err}"
        assert "Traceback" not in ended.err, f"{case}: {ended.err}"
        for header in out.rglob("ledger.json"):
            assert Ledger(header.parent).verify().ok, case
        if stage not in RESUMABLE and (page := out / "report.html").exists():
            assert page.read_bytes() == (place / "report.html").read_bytes(), f"{case}: half a page"
        resumed = bench.run(stage, out, resume=True)
        assert resumed.code == 0, f"{case}: {resumed.err}"
        assert not differences(out, expected), case
        if stage not in RESUMABLE:
            assert (out / "report.html").read_bytes() == (place / "report.html").read_bytes(), case
        shutil.rmtree(out)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def flipped_early(content: bytes) -> bytes:
    place = len(content) // 7
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGES = (cut, flipped, flipped_early)
"""The last may hit what no reader needs, such as a writer's name: then it must make no difference."""

ROWS = [(*state, name) for state, files in DAMAGED.items() for name in files]


@pytest.mark.parametrize(("stage", "until", "name"), ROWS, ids=[f"{row[0]}, {row[2]}, {row[1]}" for row in ROWS])
def test_a_damaged_file_is_named_or_makes_no_difference(
    stage: str, until: str | None, name: str, bench: Bench, tmp_path: Path
) -> None:
    expected, wanted = bench.undisturbed(stage)[2], DAMAGED[stage, until][name]
    for damage in DAMAGES:
        out = tmp_path / damage.__name__
        if stage in RESUMABLE:
            shutil.copytree(bench.interrupted(stage, until), out)
        else:
            bench.prepare(stage, out)
        file = next(iter(sorted(out.glob(name))))
        before = file.read_bytes()
        file.write_bytes(damage(before))
        went_on = bench.run(stage, out, resume=True)
        case = f"{damage.__name__}: exit {went_on.code}, {went_on.err}"
        if wanted == SAME or (went_on.code == 0 and damage is flipped_early):
            assert went_on.code == 0 and not differences(out, expected), case
            continue
        assert went_on.code in (1, 2), case
        assert went_on.err.startswith("instil: ") and "Traceback" not in went_on.err, case
        assert file.name in went_on.err or f"{file.parent.name}:" in went_on.err, case
        if until is not None and damage is DAMAGES[0]:
            # With what was there, or without what the line says to remove, the run goes on.
            removed = re.search(r"remove (\S+) and resume", went_on.err)
            if removed is None:
                file.write_bytes(before)
            elif removed[1] == "it":
                file.unlink()
            else:
                shutil.rmtree(removed[1])
            again = bench.run(stage, out, resume=True)
            assert again.code == 0 and not differences(out, expected), f"{case}; then {again.err}"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_checkpoint_is_not_run(name: str, bench: Bench, tmp_path: Path) -> None:
    """The optimiser's state is a pickle by trade. Exchanged it is refused; sealed anew by whoever did it, it still does
    nothing, since only tensors are unpickled."""
    until = next(state[1] for state in DAMAGED if state[1] and "checkpoint" in state[1])
    for sealed in (False, True):
        out = shutil.copytree(bench.interrupted("teach", until), tmp_path / str(sealed))
        (checkpoint,) = (out / "work" / "lesson" / "001-train").glob("checkpoint-*")
        torch_pickle(checkpoint / name, tmp_path / "mark")
        if sealed:
            files = sorted(path for path in checkpoint.iterdir() if path.name != "seal.json")
            seal(checkpoint / "seal.json", files)
        ended = bench.run("teach", out, resume=True)
        assert ended.code == 1 and "Traceback" not in ended.err, ended.err
        assert sealed or name in ended.err
        assert not (tmp_path / "mark").exists(), "it was unpickled"


def test_a_ledger_that_is_damaged_while_a_lesson_runs_does_not_cost_the_lesson(bench: Bench, tmp_path: Path) -> None:
    """The same process began the run: what the user gave wrong would be cleared away, and with it the trained model."""
    model, tokenizer = tiny_model("llama")
    config = {
        "train": {"epochs": 1},
        "probe": {"exemplar_sets": 1, "shots": 1, "prior": False},
        "exam": {"parts": [], "openings": 0, "resamples": 100, "wordings": 0, "general_texts": 1},
    }
    call: dict[str, Any] = {"method": "sft", "out": tmp_path / "run", "config": config}
    rows = tmp_path / "run" / "ledger" / "verdicts" / "00000001" / "rows.parquet"
    whole = b""

    def damage(what: str, done: int, total: int | None) -> None:
        nonlocal whole
        if what == "writing the report":
            whole = rows.read_bytes()
            rows.write_bytes(flipped(whole))

    lm = LanguageModel.of(model, tokenizer)
    with pytest.raises(InputError, match="the ledger is damaged"):
        instil.teach(lm, facts()[:30], **call, progress=damage)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    rows.write_bytes(whole)
    assert instil.teach(lm, facts()[:30], **call, resume=True).report.exists()


def test_what_is_damaged_later_is_found_by_who_reads_it(bench: Bench, tmp_path: Path) -> None:
    taught = shutil.copytree(bench.undisturbed("teach")[0], tmp_path / "taught")
    compared = shutil.copytree(bench.undisturbed("compare")[0], tmp_path / "compared")
    for damage in (cut, flipped):
        for name in ("before", "after"):
            file = taught / name / "mastery.parquet"
            before = file.read_bytes()
            file.write_bytes(damage(before))
            with pytest.raises(InputError, match=r"mastery\.parquet"):
                MasteryMap.load(file)
            file.write_bytes(before)
        file = compared / "comparison.parquet"
        before = file.read_bytes()
        file.write_bytes(damage(before))
        with pytest.raises(InputError, match=r"comparison\.parquet"):
            Comparison.load(compared).to_pandas()
        file.write_bytes(before)
