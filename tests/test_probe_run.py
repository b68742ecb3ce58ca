"""`probe`: what it writes, how it goes on after an abort, and what it refuses."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import instil.probe.run as run
from instil.errors import InputError
from instil.facts import Fact, FactSet, Role
from instil.model import LanguageModel
from instil.probe import MasteryMap, ProbeConfig, probe
from tests.probing import people_facts, taught_lm, two_sets

pytestmark = [
    pytest.mark.filterwarnings("ignore:relation"),
    pytest.mark.filterwarnings("ignore:facts without a relation"),
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def lm() -> LanguageModel:
    return taught_lm()[0]


@pytest.fixture
def facts() -> FactSet:
    return people_facts()


@pytest.fixture
def config(facts: FactSet) -> ProbeConfig:
    return two_sets(facts, 2)[1]


def test_a_probe_leaves_the_map_and_its_summary_and_nothing_else(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "probe"
    mastery = probe(lm, facts, config=config, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["mastery.parquet", "summary.json"]
    assert MasteryMap.load(out / "mastery.parquet") == mastery == probe(lm, facts, config=config)
    assert [row.fact_id for row in mastery] == [fact.id for fact in facts]
    found = json.loads((out / "summary.json").read_text())
    assert found["model"]["fingerprint"] == lm.fingerprint
    assert found["data"]["facts_fingerprint"] == facts.fingerprint
    assert sum(found["counts"].values()) == len(facts)
    for figure in found["headline"].values():
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert found["headline"]["known"]["clusters"] == 8
    assert found["config"] == config.model_dump(mode="json")
    assert found["warnings"]


def abort_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Make the probe of the part after `parts` fail, as a full disk or Ctrl-C would."""
    original, calls = run.ask, []

    def ask(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > parts:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(run, "ask", ask)


def test_resume_after_an_abort_gives_the_same_rows(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BLOCK", 5)
    whole = probe(lm, facts, config=config, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        abort_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            probe(lm, facts, config=config, out=tmp_path / "cut")
    assert len(list((tmp_path / "cut" / "parts").iterdir())) == 2
    assert not (tmp_path / "cut" / "mastery.parquet").exists()
    with pytest.raises(InputError, match="unfinished run"):
        probe(lm, facts, config=config, out=tmp_path / "cut")
    seen: list[int] = []
    again = probe(
        lm, facts, config=config, out=tmp_path / "cut", resume=True, progress=lambda done, _: seen.append(done)
    )
    assert again == whole
    assert seen[:2] == [5, 10]
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["cost"]["facts_computed"] == 6
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["mastery.parquet", "summary.json"]


def test_a_finished_probe_is_returned_when_resumed_and_refused_otherwise(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "probe"
    mastery = probe(lm, facts, config=config, out=out)
    with pytest.raises(InputError, match="finished run"):
        probe(lm, facts, config=config, out=out)
    abort_after(monkeypatch, 0)
    assert probe(lm, facts, config=config, out=out, resume=True) == mastery


def test_a_kill_at_the_worst_moments_leaves_nothing_in_the_way(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the plan was written; and after the summary was, before the parts were removed."""
    out = tmp_path / "probe"
    out.mkdir()
    (out / ".plan.json.abc.tmp").write_text("{")
    with monkeypatch.context() as patch:
        patch.setattr(run._Run, "_clear", lambda self: None)
        mastery = probe(lm, facts, config=config, out=out)
    assert (out / "parts").exists()
    assert probe(lm, facts, config=config, out=out, resume=True) == mastery
    assert sorted(path.name for path in out.iterdir()) == ["mastery.parquet", "summary.json"]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", ["facts", "exemplars", "config", "model"])
def test_a_resume_with_another_plan_is_refused(
    lm: LanguageModel,
    facts: FactSet,
    config: ProbeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
    change: str,
) -> None:
    sets, _ = two_sets(facts, 2)
    out = tmp_path / "probe"
    if finished:
        probe(lm, facts, sets, config, out=out)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            abort_after(patch, 0)
            probe(lm, facts, sets, config, out=out)
    if change == "facts":
        facts = FactSet(facts[1:])
    elif change == "exemplars":
        sets = sets.first(1)
    elif change == "config":
        config = config.model_copy(update={"temperature": 0.7})
    else:
        from tests.models import tiny_model

        lm = LanguageModel.of(*tiny_model("llama", 5))
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"another run.*{change}"):
        probe(lm, facts, sets, config, out=out, resume=True)
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_folder_that_holds_something_else_is_refused(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="something else"):
            probe(lm, facts, config=config, out=tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Fact("long", "Who " * 2000 + "?", ("Ada",)), "context window"),
        (Fact("stop", "Who?", ("\n",)), "no answer"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, bad: Fact, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        probe(lm, FactSet([*facts, bad]), config=config, out=tmp_path / "probe")
    assert not (tmp_path / "probe").exists()
    with pytest.raises(InputError, match="nothing to probe"):
        probe(lm, FactSet(()), config=config, out=tmp_path / "probe")


def test_too_few_exemplars_are_warned_of(lm: LanguageModel, facts: FactSet, config: ProbeConfig) -> None:
    with pytest.warns(UserWarning, match="relation born: 8 exemplars"):
        mastery = probe(lm, facts, config=config)
    assert any("relation job" in line for line in mastery.warnings)


def test_exemplars_come_from_the_facts_of_that_role(lm: LanguageModel, config: ProbeConfig) -> None:
    facts = people_facts()
    reserved = {"born-0", "born-1", "born-2", "job-0", "job-1", "job-2"}
    marked = FactSet(
        [*facts.where(lambda f: f.id in reserved).assign(Role.EXEMPLAR), *facts.where(lambda f: f.id not in reserved)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = run._sets(marked, None, config)
        everyone = run._sets(facts, None, config)
    drawn = {exemplar.fact_id for sets in chosen.sets.values() for one in sets for exemplar in one}
    assert drawn <= reserved
    assert not {exemplar.fact_id for sets in everyone.sets.values() for one in sets for exemplar in one} <= reserved
