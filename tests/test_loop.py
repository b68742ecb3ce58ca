"""The one loop, end to end on a tiny model: what it writes, and that it can be trusted."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError
from instil.exam import Exam, Figure
from instil.facts import FactSet, Role
from instil.files import read_sealed
from instil.ledger import Ledger
from instil.loop import teach
from instil.loop.inputs import parse_budget, read_config
from instil.loop.summary import foreign_texts
from instil.probe import MasteryMap, ProbeConfig, draw_exemplars, probe
from instil.report import report
from tests.half_taught import SECTIONS, documents, facts, half_taught

TRAIN = {"epochs": 2, "learning_rate": 2e-3, "save_seconds": 0}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("loop") / "run"
    return teach(half_taught(), facts(), method="gradual", out=out, config={"train": TRAIN, **SECTIONS})


def test_run_folder_holds_what_the_design_names(taught: Any) -> None:
    entries = {entry.name for entry in taught.out.iterdir()}
    folders = {"model", "before", "after", "ledger"}
    assert entries == folders | {"exam.jsonl", "report.html", "report.json", "summary.json", "config.yaml"}
    assert read_sealed(taught.out / "summary.json") == taught.summary


def test_saved_model_loads_with_plain_transformers(taught: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(taught.out / "model")
    tokenizer = AutoTokenizer.from_pretrained(taught.out / "model")
    ids = tokenizer("Q: Where was person 1 born?\nA:", return_tensors="pt").input_ids
    assert model(ids).logits.shape[:2] == ids.shape


def test_mastery_maps_hold_every_target_fact(taught: Any) -> None:
    target = {fact.id for fact in facts().with_role(Role.TARGET)}
    for when in ("before", "after"):
        assert {row.fact_id for row in MasteryMap.load(taught.out / when / "mastery.parquet")} == target


def test_summary_counts_agree_with_the_ledger(taught: Any) -> None:
    ledger = Ledger(taught.out / "ledger")
    assert ledger.verify().ok
    verdicts = ledger.read("verdicts").to_pylist()
    asked = len(facts().with_role(Role.TARGET)) + len(facts().with_role(Role.HELD_BACK))
    assert len(verdicts) == asked == sum(taught.summary["verdicts"].values())
    assert sum(map(sum, taught.summary["transition"])) == len(facts().with_role(Role.TARGET))


def test_general_texts_that_are_foreign_to_the_model_are_said_to_show_nothing() -> None:
    def said(perplexity: float | None) -> list[str]:
        return foreign_texts({"perplexity_before": Figure(perplexity, None, None, 8, 8)}, vocabulary=6_000)

    assert said(5_999.0) == said(None) == foreign_texts({}, vocabulary=6_000) == []
    assert "1,905,301 before teaching, where guessing among its 6,000 tokens" in said(1_905_301.4)[0]


def test_ledger_holds_every_answer_of_every_state(taught: Any) -> None:
    ledger = Ledger(taught.out / "ledger")
    labels = [row["label"] for row in ledger.read("states").to_pylist()]
    assert labels == ["before", "stage 1", "stage 2", "after"]
    exam = Exam.read(taught.out / "exam.jsonl")
    answers = ledger.read("answers", purpose="exam").to_pylist()
    assert len(answers) == 2 * (len(exam) + len(exam.general_texts) + len(exam.openings))
    deciding = ledger.read("answers", purpose="deciding").to_pylist()
    assert {row["state_id"].rpartition(":")[2] for row in deciding} >= {"before", "stage 1"}


def test_a_lesson_with_sharpness_aware_steps_keeps_their_moves_in_the_ledger(tmp_path: Path) -> None:
    sharp = {"train": TRAIN | {"sharpness": {"rho": 0.05}}, **SECTIONS}
    teach(half_taught(), facts(), method="sft", out=tmp_path / "run", config=sharp)
    rows = Ledger(tmp_path / "run" / "ledger").read("stages").to_pylist()
    assert rows and all(0 < row["move_cosine"] <= 1 and row["move_norm"] > 0 for row in rows)


def test_a_run_is_data_frames(taught: Any) -> None:
    figures = taught.to_pandas().set_index("figure")
    for name in ("acquired", "retained", "accuracy_target"):
        held = taught.summary["headline"].get(name) or taught.summary["headline"][f"{name}_after"]
        assert (figures.value[name], figures.n[name]) == (held["value"], held["n"])
    before = taught.summary["headline"]["accuracy_target_before"]["value"]
    assert figures.before["accuracy_target"] == before
    assert dict(taught.verdicts.verdict.value_counts()) == taught.summary["verdicts"]
    assert list(dict.fromkeys(taught.curves.stage)) == ["stage 1", "stage 2"]


def test_a_run_is_a_picture(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("plotly")
    before, after = taught.plot().data
    assert after.x[after.y.index(next(name for name in after.y if name.startswith("acquired,")))] == pytest.approx(
        taught.summary["headline"]["acquired"]["value"]
    )
    assert len(before.x) == len(after.x) == len(after.error_x.array)
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(InputError, match=r"instil\[plot\]"):
        taught.plot()


def test_unfinished_run_can_be_reported(tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        if what.startswith("stage 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(half_taught(), facts(), out=tmp_path, config={"train": TRAIN, **SECTIONS}, progress=interrupt)
    run = Ledger(tmp_path / "ledger").runs()[0]
    assert (run["status"], run["finished"]) == ("running", None)
    page = report(tmp_path).read_text()
    assert "marked “running”" in page


def test_cost_is_charged_by_purpose(taught: Any) -> None:
    cost = taught.summary["cost"]
    assert set(cost) == {"training", "deciding", "exam"}
    assert all(cost[purpose]["flops"] > 0 for purpose in cost)
    assert taught.summary["budget"]["spent"] == cost["training"]["flops"] + cost["deciding"]["flops"]


def test_invariant_5_exam_is_frozen_before_teaching(taught: Any) -> None:
    exam = Exam.read(taught.out / "exam.jsonl")
    assert exam.fingerprint == taught.summary["data"]["exam_fingerprint"]
    rows = Ledger(taught.out / "ledger").read("answers", purpose="exam").to_pylist()
    before, after = ([row for row in rows if row["state_id"].endswith(when)] for when in (":before", ":after"))
    names = ("question_id", "question", "answers", "exemplars_fingerprint")
    assert [[row[name] for name in names] for row in before] == [[row[name] for name in names] for row in after]


def test_invariant_8_saved_scores_are_those_of_the_loaded_model(taught: Any) -> None:
    target = FactSet(facts().with_role(Role.TARGET))
    config = ProbeConfig(**SECTIONS["probe"])
    exemplars = draw_exemplars(facts().with_role(Role.EXEMPLAR), ["born"], config)
    again = probe(taught.model, target, exemplars, config)
    for now, then in zip(again, taught.after, strict=True):
        assert now.p_by_set == pytest.approx(then.p_by_set, abs=1e-6)
    assert [row.greedy_answer for row in again] == [row.greedy_answer for row in taught.after]


def test_starting_model_is_left_as_it_was(tmp_path: Path) -> None:
    lm = half_taught()
    mark = lm.fingerprint
    teach(lm, facts(), method="sft", out=tmp_path / "run", config={"train": {**TRAIN, "epochs": 1}, **SECTIONS})
    assert lm.fingerprint == mark


def test_second_lesson_goes_on_in_the_same_ledger(taught: Any, tmp_path: Path) -> None:
    config = {"train": {**TRAIN, "epochs": 1}, **SECTIONS}
    shared = tmp_path / "ledger"
    first = teach(half_taught(), facts(), method="sft", out=tmp_path / "a", config=config, ledger=shared)
    second = teach(first.model, facts(), method="sft", out=tmp_path / "b", config=config, ledger=shared, seed=1)
    runs = [row["run_id"] for row in Ledger(shared).runs()]
    assert runs == [first.summary["run_id"], second.summary["run_id"]]


def test_documents_about_held_back_facts_are_not_taught(tmp_path: Path) -> None:
    from instil.facts import Corpus, Document

    secret = facts().with_role(Role.HELD_BACK)[0]
    given = Corpus([*documents(), Document("secret", f"A note on {secret.subject}.", subject=secret.subject)])
    config = {"train": {**TRAIN, "epochs": 1}, **SECTIONS}
    run = teach(half_taught(), facts(), method="cpt", documents=given, out=tmp_path / "run", config=config)
    assert run.summary["data"]["documents"] == len(documents())
    assert any("document secret" in entry["what"] for entry in run.summary["left_out"])


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    found = teach(half_taught(), facts(), method="sft", out=tmp_path / "run", config=SECTIONS, dry_run=True)
    assert not (tmp_path / "run").exists()
    assert found.seconds > 0 and found.memory_bytes > 0 and found.disk_bytes > 0 and found.training_flops > 0


BAD_CALLS = {
    "unknown method": ({"method": "osmosis"}, "there is no such method"),
    "unknown setting": ({"config": {"trian": {}}}, "trian"),
    "wrong setting": ({"config": {"train": {"epochs": 0}}}, "train.epochs"),
    "no documents": ({"method": "cpt"}, "documents"),
    "no exam": ({"facts": None}, "an exam needs questions"),
    "bad budget": ({"budget": "plenty"}, "--budget"),
    "unknown adapter": ({"adapter": "prefix"}, "no such adapter"),
    "missing config": ({"config": "nowhere.yaml"}, "nowhere.yaml"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    changes, message = BAD_CALLS[name]
    call: dict[str, Any] = {"facts": facts(), "method": "sft", "out": tmp_path / "run", **changes}
    if isinstance(call.get("config"), dict):
        call["config"] = {**SECTIONS, **call["config"]}
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        teach(half_taught(), **call)
    assert not (tmp_path / "run").exists()


def test_gradual_refuses_when_nothing_is_half_known(taught: Any, tmp_path: Path) -> None:
    config = {"start_categories": ["WeaklyKnown"], "train": TRAIN, **SECTIONS}
    known = FactSet(fact for fact in facts() if fact.role is not Role.TARGET or fact.id in _mastered())
    shared = shutil.copytree(taught.out / "ledger", tmp_path / "ledger")
    with pytest.raises(InputError, match="no target fact is of a category"):
        teach(half_taught(), known, method="gradual", out=tmp_path / "run", config=config, ledger=shared)
    assert not (tmp_path / "run").exists()
    assert [run["status"] for run in Ledger(shared).runs()] == ["done", "failed"]


def _mastered() -> frozenset[str]:
    config = ProbeConfig(**SECTIONS["probe"])
    exemplars = draw_exemplars(facts().with_role(Role.EXEMPLAR), ["born"], config)
    return probe(half_taught(), facts().with_role(Role.TARGET), exemplars, config).where("HighlyKnown")


def test_folder_of_another_run_is_refused(taught: Any) -> None:
    with pytest.raises(InputError, match="finished run"):
        teach(half_taught(), facts(), method="gradual", out=taught.out)
    with pytest.raises(InputError, match="started otherwise"):
        teach(half_taught(), facts(), method="sft", out=taught.out, resume=True)


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        teach(half_taught(), facts(), method="sft", out=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("text", "flops"), [("3 PFLOP", 3e15), ("3e15", 3e15), (1e12, 1e12), ("2.5TFLOPs", 2.5e12), (None, None)]
)
def test_budgets_are_read(text: Any, flops: float | None) -> None:
    assert parse_budget(text) == flops


def test_config_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("- a\n- b\n")
    with pytest.raises(InputError, match="mapping"):
        read_config(tmp_path / "c.yaml")
