"""`compare`, end to end on a tiny model: one exam, equal budgets, arms that fail alone, resumes that change nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import instil
from instil.cli import main
from instil.errors import InputError
from instil.exam import Exam
from instil.facts import Corpus, Document, Role
from instil.ledger import Ledger
from instil.loop.compare_arms import ADDITIONS, PUBLISHED, parse_arm, read_arms
from instil.loop.compare_plan import Forecast
from instil.loop.compare_run import Comparison
from instil.loop.inputs import with_shortcuts
from instil.methods import get
from instil.model import save
from tests.half_taught import TOWNS, facts, half_taught

ARMS = "sft,sft+lora,sft:train.learning_rate=1e30"
BROKEN = "sft:train.learning_rate=1e30"
CONFIG: dict[str, Any] = {
    "train": {"epochs": 2, "learning_rate": 3e-3, "save_seconds": 0},
    "probe": {"exemplar_sets": 2, "shots": 2, "prior": False},
    "exam": {"wordings": 1, "held_back_wordings": 0, "reworded_sets": 2, "resamples": 200},
}


class Killed(BaseException):
    pass


def run(out: Path, **changes: Any) -> Comparison:
    given: dict[str, Any] = {"methods": ARMS, "seeds": 2, "config": CONFIG, "budget": 2e9} | changes
    found = instil.compare(half_taught(), facts(), out=out, **given)
    assert isinstance(found, Comparison)
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    pytest.importorskip("peft")
    return run(tmp_path_factory.mktemp("compare") / "out")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        skipped = {"seconds", "finished", "command"}
        return {key: without_times(inner) for key, inner in value.items() if key not in skipped}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def test_folder_holds_what_was_promised(compared: Comparison) -> None:
    names = {"comparison.parquet", "summary.json", "report.html", "table.md", "table.tex", "table.csv"}
    assert names <= {entry.name for entry in compared.out.iterdir()}
    for arm in ("sft", "sft+lora"):
        for seed in (0, 1):
            home = compared.out / "arms" / arm / f"seed-{seed}"
            assert {
                "model",
                "ledger",
                "before",
                "after",
                "report.html",
                "report.json",
                "summary.json",
                "config.yaml",
                "exam.jsonl",
            } == {entry.name for entry in home.iterdir()}
    assert compared.table() == (compared.out / "table.md").read_text()
    assert Comparison.load(compared.out).summary == compared.summary
    assert compared.plot()._repr_svg_().startswith("<svg")


def test_a_row_for_each_fact_arm_and_seed(compared: Comparison) -> None:
    frame = compared.to_pandas()
    asked = len(facts().with_role(Role.TARGET)) + len(facts().with_role(Role.HELD_BACK))
    assert frame.groupby(["arm", "seed"]).size().to_dict() == {
        (arm, seed): asked for arm in ("sft", "sft+lora") for seed in (0, 1)
    }
    assert {"verdict", "known_before", "known_after", "p_sampled_before", "p_sampled_after"} <= set(frame.columns)


def test_figures_are_those_of_the_runs(compared: Comparison) -> None:
    """Learned and lost, counted from the rows, equal what each run's own exam says."""
    for arm in compared.summary["arms"]:
        for one in arm["runs"]:
            own = json.loads((compared.out / one["folder"] / "summary.json").read_text())["headline"]
            assert one["learned"] == pytest.approx(own["acquired_reworded"]["value"])
            assert one["learned_as_worded"] == pytest.approx(own["acquired"]["value"])
            assert one["lost"] == pytest.approx(own["forgotten"]["value"])
            assert one["made_up"] == pytest.approx(own["made_up"]["value"])


def test_all_runs_sit_one_exam_and_share_its_answers_before(compared: Comparison) -> None:
    exam = Exam.read(compared.out / "exam.jsonl")
    assert exam.fingerprint == compared.summary["data"]["exam_fingerprint"]
    frame = compared.to_pandas()
    before = [name for name in frame.columns if name.endswith("_before")]
    first, *others = (group[before].reset_index(drop=True) for _, group in frame.groupby(["arm", "seed"]))
    for other in others:
        pd.testing.assert_frame_equal(first, other)
    for arm in compared.summary["arms"]:
        for one in arm["runs"]:
            assert Exam.read(compared.out / one["folder"] / "exam.jsonl").fingerprint == exam.fingerprint


def test_seeds_change_training_and_nothing_else(compared: Comparison) -> None:
    runs = [one for arm in compared.summary["arms"] for one in arm["runs"]]
    summaries = [json.loads((compared.out / one["folder"] / "summary.json").read_text()) for one in runs]
    assert len({one["model"]["fingerprint_after"] for one in summaries}) == 4
    assert len({one["data"]["facts_fingerprint"] for one in summaries}) == 1
    assert [one["config"]["train"]["seed"] for one in summaries] == [0, 1, 0, 1]


def test_an_arm_that_fails_does_not_stop_the_others(compared: Comparison) -> None:
    assert [(one["arm"], one["seed"]) for one in compared.failures] == [(BROKEN, 0), (BROKEN, 1)]
    assert all(one["message"] for one in compared.failures)
    arms = {arm["name"]: arm for arm in compared.summary["arms"]}
    assert arms[BROKEN]["failed"] == [0, 1] and not arms[BROKEN]["compared"]
    assert {(pair["first"], pair["second"]) for pair in compared.summary["pairs"]} == {("sft", "sft+lora")}
    page = compared.report.read_text()
    assert page.count("<b>Failed:</b>") == 2


def test_spent_stands_next_to_the_budget(compared: Comparison) -> None:
    assert compared.summary["budget"] == {"flops": 2e9, "given": True}
    for arm in compared.summary["arms"]:
        for one in arm["runs"]:
            assert one["of_budget"] == pytest.approx(one["spent"] / 2e9)
            assert one["ended"] == ("at the budget" if one["spent"] >= 2e9 else "when the method was done")


def test_a_resume_tries_the_failed_again_and_leaves_the_finished(compared: Comparison, tmp_path: Path) -> None:
    shutil.copytree(compared.out, tmp_path / "out")
    marks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/arms/*/*/summary.json")}
    told: list[str] = []
    again = run(tmp_path / "out", resume=True, progress=lambda what, done, total: told.append(what))
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    assert {what.split(",")[0] for what in told if "seed" in what} == {BROKEN}
    assert without_times(again.summary) == without_times(compared.summary)


@pytest.mark.parametrize("moment", [*(pytest.param(at, marks=pytest.mark.slow) for at in (3, 12)), 25])
def test_resumed_equals_uninterrupted(compared: Comparison, tmp_path: Path, moment: int) -> None:
    told = 0

    def kill(what: str, done: int, total: int | None) -> None:
        nonlocal told
        told += 1
        if told == moment:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "out", progress=kill)
    assert not (tmp_path / "out" / "summary.json").exists()
    resumed = run(tmp_path / "out", resume=True)
    pd.testing.assert_frame_equal(resumed.to_pandas(), compared.to_pandas())
    exams = {
        "exam",
        "exam_before",
    }  # what was asked again after the kill is not counted twice, and what was lost not at all
    strip = lambda value: {key: inner for key, inner in without_times(value).items() if key not in exams}  # noqa: E731
    mine, theirs = strip(resumed.summary), strip(compared.summary)
    for arms in (mine["arms"], theirs["arms"]):
        for arm in arms:
            arm["cost"].pop("exam", None)
    assert mine == theirs


def test_a_finished_comparison_is_returned_as_it_is(tmp_path: Path) -> None:
    found = run(tmp_path / "out", methods="sft,sft:train.epochs=1", seeds=1, keep_models=False)
    assert not list(tmp_path.glob("out/arms/*/*/model")) and not (tmp_path / "out" / "work").exists()
    mark = found.report.stat().st_mtime_ns
    again = run(tmp_path / "out", methods="sft,sft:train.epochs=1", seeds=1, keep_models=False, resume=True)
    assert again.summary == found.summary and found.report.stat().st_mtime_ns == mark
    with pytest.raises(InputError, match=r"was started otherwise.*seeds"):
        run(tmp_path / "out", methods="sft,sft:train.epochs=1", seeds=2, resume=True)
    with pytest.raises(InputError, match="holds a finished run"):
        run(tmp_path / "out", methods="sft,sft:train.epochs=1", seeds=1)


def test_an_arm_over_the_budget_is_compared_with_none(tmp_path: Path) -> None:
    """What `gradual` decides by is charged: it cannot keep to a budget below its first probe."""
    found = run(tmp_path / "out", methods="sft,sft:train.epochs=1,gradual", seeds=1, budget=2e8)
    arms = {arm["name"]: arm for arm in found.summary["arms"]}
    assert arms["gradual"]["runs"][0]["ended"] == "over the budget" and not arms["gradual"]["compared"]
    assert {pair["second"] for pair in found.summary["pairs"]} == {"sft:train.epochs=1"}
    assert "gradual (" in found.summary["headline"]["equal"][0]
    assert arms["sft"]["runs"][0]["ended"] == "at the budget"


BAD_ARMS = {
    "unknown method": ("sft,osmosis", "there is no such method.*osmosis"),
    "unknown addition": ("sft,sft+magic", r"no such addition.*\+replay"),
    "one arm": ("sft", "two arms or more"),
    "none": ("", "two arms or more"),
    "twice": ("sft,sft", "one name"),
    "unknown setting": ("sft,gradual:replay=1", "arm gradual:replay=1: a setting of method gradual.*replay"),
    "wrong setting": ("sft,sft:train.epochs=0", "arm sft:train.epochs=0.*train.epochs"),
    "no value": ("sft,sft:early_stop", "without a value"),
    "no documents": ("sft,cpt", "arm cpt needs documents"),
    "no practice": ("sft,pit", "arm pit needs (documents|practice)"),
    "addition of another method": ("sft,cpt+replay", r"arm cpt\+replay.*replay_ratio"),
    "another exam": ("sft,sft:exam.wordings=2", "same for all arms"),
}


@pytest.mark.parametrize("case", list(BAD_ARMS))
def test_wrong_arms_are_found_before_anything_runs(case: str, tmp_path: Path) -> None:
    methods, message = BAD_ARMS[case]
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", methods=methods)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_documents_alone_are_compared_by_an_exam_made_of_their_text(tmp_path: Path) -> None:
    def told(n: int, town: str) -> str:
        after = f"In 19{n + 10} she moved with her family to the old town of {TOWNS[n % 5]}."
        return f"Ada Number {n} was born in the small town of {town}. {after}"

    lives = Corpus(Document(f"d{n}", told(n, town), f"Ada {n}") for n, town in enumerate(TOWNS))
    config = {**CONFIG, "exam": {"resamples": 200}}
    methods = "cpt,generalize:recipe=paper:copies=1"
    found = instil.compare(
        half_taught(), documents=lives, out=tmp_path / "out", methods=methods, seeds=1, budget=1e9, config=config
    )
    assert isinstance(found, Comparison)
    rows = pd.read_parquet(tmp_path / "out" / "comparison.parquet")
    asked = {arm: set(part["fact_id"]) for arm, part in rows.groupby("arm")}
    assert len(asked) == 2 and len(set(map(frozenset, asked.values()))) == 1 and min(map(len, asked.values())) >= 6
    assert not found.failures


def test_other_wrong_options(tmp_path: Path) -> None:
    for changes, message in (({"seeds": 0}, "--seeds"), ({"budget": "plenty"}, "--budget")):
        with pytest.raises(InputError, match=message):
            run(tmp_path / "out", **changes)
    with pytest.raises(InputError, match="no finished comparison"):
        Comparison.load(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    found = instil.compare(
        half_taught(), facts(), methods="sft,gradual", seeds=3, out=tmp_path / "out", config=CONFIG, dry_run=True
    )
    assert isinstance(found, Forecast) and not (tmp_path / "out").exists()
    assert found.runs == 6 and found.seconds > 0 and found.memory_bytes > 0 and found.disk_bytes > 0
    assert found.budget == found.arms["gradual"]["training_flops"]  # the arm that trains longest


def test_published_arms_are_what_they_say() -> None:
    arms = {arm.name: arm for arm in read_arms(",".join(PUBLISHED))}
    settings = {
        name: get(arm.method).settings(
            with_shortcuts(arm.settings({"train": {"learning_rate": 1e-4}}), seed=3, adapter=None)
        )
        for name, arm in arms.items()
    }
    plain: Any = settings["sft"]
    assert plain.train.adapter is None and plain.train.seed == 3 and not plain.replay_ratio and not plain.kl_weight
    assert settings["sft+replay"].replay_ratio == 0.2 == settings["gradual"].replay_ratio  # type: ignore[attr-defined]
    assert settings["sft+kl"].kl_weight == 1.0  # type: ignore[attr-defined]
    lora, osf = (settings[name].train for name in ("sft+lora", "sft+osf"))  # type: ignore[attr-defined]
    assert (lora.adapter.kind, lora.learning_rate) == ("lora", pytest.approx(1e-3))
    assert (osf.adapter.kind, osf.learning_rate) == ("osf", 1e-4)
    assert set(ADDITIONS) == {"replay", "kl", "lora", "osf", "sam"}
    sharp = get("sft").settings(parse_arm("sft+sam:train.sharpness.rho=0.1").settings({}))
    assert (sharp.train.sharpness.kind, sharp.train.sharpness.rho) == ("sam", 0.1)  # type: ignore[attr-defined]


def test_settings_of_an_arm_win() -> None:
    arm = parse_arm("gradual+lora:replay_ratio=0.5:train.adapter.r=4:train.learning_rate=1e-3")
    common = {"train": {"epochs": 7, "learning_rate": 1e-4}, "replay_ratio": 0.1}
    assert arm.settings(common) == {
        "train": {"epochs": 7, "learning_rate": "1e-3", "adapter": {"kind": "lora", "r": 4}},
        "replay_ratio": 0.5,
    }
    assert common == {"train": {"epochs": 7, "learning_rate": 1e-4}, "replay_ratio": 0.1}
    two = read_arms("sft:categories=[Unknown,WeaklyKnown],cpt")
    assert (
        two[0].own == {"categories": ["Unknown", "WeaklyKnown"]}
        and two[0].folder == "sft_categories=_Unknown_WeaklyKnown_"
    )


def test_arms_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "arms.yaml"
    file.write_text("slow:\n  method: gradual+lora\n  replay_ratio: 0.5\nsft:\n")
    slow, plain = read_arms(None, file)
    assert (slow.name, slow.method, slow.additions, slow.own) == ("slow", "gradual", ("lora",), {"replay_ratio": 0.5})
    assert (plain.name, plain.method) == ("sft", "sft")
    assert [arm.name for arm in read_arms("cpt", file)] == ["cpt", "slow", "sft"]
    for text, message in (("slow: 3\n", "must be a mapping"), ("slow:\n  replay_ratio: 1\n", "no such method.*slow")):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_arms("sft", file)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare-cli")
    save(half_taught(), folder / "model")
    facts().write(folder / "facts.jsonl")
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    return folder


def words(home: Path, *more: str) -> list[str]:
    given = [str(home / "model"), str(home / "facts.jsonl"), "--config", str(home / "config.yaml"), "--seeds", "1"]
    return ["compare", *given, "--out", str(home / "out"), *more]


def test_the_command_ends_with_one_when_a_run_failed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(home, "--methods", f"sft,sft:train.epochs=1,{BROKEN}")) == 1
    out, err = capsys.readouterr()
    assert "1 of 3 runs failed" in err and BROKEN in err and "--resume" in err
    assert "new facts learned" in out and "The report:" in out
    assert main(["report", str(home / "out")]) == 0
    assert "The report:" in capsys.readouterr().out
    assert Ledger(home / "out" / "arms" / "sft" / "seed-0" / "ledger").verify().ok


def test_the_command_for_machines_and_its_dry_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(home, "--methods", "sft,gradual", "--dry-run", "--json", "--out", str(home / "dry"))) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 2 and not (home / "dry").exists()
    assert main(words(home, "--methods", "sft,sft:train.epochs=0", "--out", str(home / "bad"))) == 2
    assert not (home / "bad").exists()


def test_a_comparison_in_which_everything_failed_still_says_so(tmp_path: Path) -> None:
    found = run(tmp_path / "out", methods=f"{BROKEN},sft:train.learning_rate=2e30", seeds=1)
    assert len(found.failures) == 2 and found.sentences == [] and len(found.to_pandas()) == 0
    assert found.report.read_text().count("<b>Failed:</b>") == 2
    assert found.table().count("0/1") == 2
