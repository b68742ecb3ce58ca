"""`probe`: what it writes, how it goes on after an abort, and what it refuses."""

from __future__ import annotations

import gc
import json
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import instil.probe.asking as asking
import instil.probe.run as run
from instil.errors import InputError, RunFailed
from instil.facts import Fact, FactSet, Role
from instil.model import LanguageModel
from instil.probe import MasteryMap, ProbeConfig, probe
from instil.probe.asking import Asker
from instil.probe.exemplars import exemplar_sets
from instil.probe.intervals import share
from instil.probe.shards import Shards
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


def small_parts(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in (run, asking):
        monkeypatch.setattr(module, "BLOCK", size)


def abort_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Make the probe of the part after `parts` fail, as a full disk or Ctrl-C would."""
    original, calls = Asker.answer, []

    def answer(self: Asker, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > parts:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Asker, "answer", answer)


def test_resume_after_an_abort_gives_the_same_rows(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 5)
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
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut")]
    for figures in ("counts", "by_relation", "headline"):
        assert summaries[0][figures] == summaries[1][figures]
    assert seen[0] == 10, "what was there before is no progress"
    assert seen == sorted(set(seen))
    assert seen[-1] == 16
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
        patch.setattr(Shards, "clear", lambda self: None)
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
        chosen = exemplar_sets(marked, None, config)
        everyone = exemplar_sets(facts, None, config)
    drawn = {exemplar.fact_id for sets in chosen.sets.values() for one in sets for exemplar in one}
    assert drawn <= reserved
    assert not {exemplar.fact_id for sets in everyone.sets.values() for one in sets for exemplar in one} <= reserved


def test_parts_do_not_change_the_bits(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory and by parts the same; and nothing of a part depends on what was computed before it."""
    small_parts(monkeypatch, 5)
    whole = probe(lm, facts, config=config)
    assert probe(lm, facts, config=config, out=tmp_path / "parts") == whole
    sets = exemplar_sets(facts, None, config)
    assert probe(lm, facts[10:15], sets, config) == whole[10:15]


# ------------------------------------------------------------- out of memory


class NoMemory:
    """Makes the model run out of memory on more than `tokens` tokens in one pass; `passes` counts its passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lm: LanguageModel, tokens: int, fault: Exception) -> None:
        self.tokens, self.fault, self.longest, self.refused, self.after = tokens, fault, 0, 0, 0
        forward = lm.model.forward

        def limited(*arguments: Any, **options: Any) -> Any:
            count = options["input_ids"].numel()
            self.after -= 1
            if count > self.tokens and self.after < 0:
                self.refused += 1
                raise self.fault
            self.longest = max(self.longest, count)
            return forward(*arguments, **options)

        monkeypatch.setattr(lm.model, "forward", limited)


TRYING = 7
"""Passes in which it is tried which way of computing is the right one."""

FAULTS = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    "python": MemoryError(),
}


@pytest.fixture
def own_lm() -> LanguageModel:
    """A copy that may be made to fail."""
    taught = taught_lm()[0]
    return taught.at(taught.dtype)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("engine", ["exact", "sampled"])
def test_out_of_memory_halves_the_batches_and_goes_on(
    own_lm: LanguageModel,
    facts: FactSet,
    config: ProbeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    engine: str,
) -> None:
    config = config.model_copy(update={"engine": engine})
    whole = probe(own_lm, facts, config=config)
    small_parts(monkeypatch, 5)
    memory = NoMemory(monkeypatch, own_lm, 150, FAULTS[fault])
    seen: list[int] = []
    found = probe(own_lm, facts, config=config, out=tmp_path / "probe", progress=lambda done, _: seen.append(done))
    assert memory.refused and memory.longest <= 150
    assert seen == sorted(seen)
    for one, other in zip(found, whole, strict=True):
        assert one.p_by_set == pytest.approx(other.p_by_set, abs=1e-5)
        assert one.greedy_answer_by_set == other.greedy_answer_by_set
        assert one.p_prior == pytest.approx(other.p_prior, abs=1e-5)
    summary = json.loads((tmp_path / "probe" / "summary.json").read_text())
    halved = summary["batches"]["halved"]
    assert len(halved) == memory.refused
    assert [one["batch_tokens"] for one in halved] == sorted((one["batch_tokens"] for one in halved), reverse=True)
    assert halved[0]["from_fact"] % 5 == 0 and summary["batches"]["batch_tokens"] == config.batch_tokens
    assert (str(FAULTS[fault]) or "MemoryError") == halved[0]["why"]
    assert "batches of at most" in caplog.text


def test_a_resume_keeps_the_halved_batches(
    own_lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: what was cut off after a halving goes on with the smaller batches, though memory is there again."""
    small_parts(monkeypatch, 5)
    rows = {}
    for cut in (False, True):
        out = tmp_path / str(cut)
        with monkeypatch.context() as patch:
            memory = NoMemory(patch, own_lm, 100, FAULTS["torch"])
            memory.after = TRYING
            if cut:
                abort_after(patch, 2)
                with pytest.raises(KeyboardInterrupt):
                    probe(own_lm, facts, config=config, out=out)
                assert memory.refused
            else:
                probe(own_lm, facts, config=config, out=out)
        used: list[asking.Limits] = []
        original = Asker.answer

        def answer(self: Asker, *arguments: Any, used: list[asking.Limits] = used, original: Any = original) -> Any:
            used.append(self.limits)
            return original(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Asker, "answer", answer)
            rows[cut] = probe(own_lm, facts, config=config, out=out, resume=True)
        summary = json.loads((out / "summary.json").read_text())
        assert all(limits.tokens == summary["batches"]["halved"][-1]["batch_tokens"] for limits in used)
        assert len(used) == (2 if cut else 0)
    assert rows[True] == rows[False]


def test_a_single_question_without_memory_fails_with_advice(
    own_lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = NoMemory(monkeypatch, own_lm, 5, FAULTS["torch"])
    memory.after = TRYING
    with pytest.raises(RunFailed, match=r"single question.*fewer shots"):
        probe(own_lm, facts, config=config, out=tmp_path / "probe")
    with monkeypatch.context() as patch:
        patch.setattr(own_lm.model, "forward", type(own_lm.model).forward.__get__(own_lm.model))
        assert len(probe(own_lm, facts, config=config, out=tmp_path / "probe", resume=True)) == len(facts)


def test_other_faults_are_not_taken_for_lack_of_memory(
    own_lm: LanguageModel, facts: FactSet, config: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = NoMemory(monkeypatch, own_lm, 5, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    memory.after = TRYING
    with pytest.raises(RuntimeError, match="shapes"):
        probe(own_lm, facts, config=config)
    assert memory.refused == 1


# ---------------------------------------------------------------- large maps


def test_a_map_in_its_file_is_the_map_in_memory(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 5)
    stored = probe(lm, facts, config=config, out=tmp_path / "probe")
    held = MasteryMap.load(tmp_path / "probe" / "mastery.parquet")
    later = probe(lm, facts, config=config.model_copy(update={"shots": 1}))
    assert stored == held and hash(stored) == hash(held) and repr(stored) == repr(held)
    assert [stored[place] for place in (0, 7, -1, 15, 4, 5)] == [held[place] for place in (0, 7, -1, 15, 4, 5)]
    assert stored[3:9] == held[3:9]
    for outside in (16, -17):
        with pytest.raises(IndexError):
            stored[outside]
    assert stored.counts() == held.counts() and stored.by_relation() == held.by_relation()
    for category in stored.counts():
        assert stored.where(category) == held.where(category)
        assert later.rose_to(category, since=stored) == later.rose_to(category, since=held)
        assert stored.rose_to(category, since=later) == held.rose_to(category, since=later)
    assert dict(stored.by_id) == held.by_id
    assert stored.category_of("job-3") is held.category_of("job-3")
    assert stored.to_table() == held.to_table()
    stored.save(tmp_path / "again.parquet")
    assert MasteryMap.load(tmp_path / "again.parquet") == held
    (tmp_path / "probe" / "mastery.parquet").unlink()
    assert stored == held, "the file is held open"
    assert stored.warnings


def test_figures_by_parts_are_those_of_all_rows(
    lm: LanguageModel, facts: FactSet, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 5)
    rows = probe(lm, facts, config=config, out=tmp_path / "probe")
    found = json.loads((tmp_path / "probe" / "summary.json").read_text())
    clusters = [facts.by_id[row.fact_id].cluster for row in rows]
    naive = {
        "known": [float(row.known) for row in rows],
        "p_greedy": [row.p_greedy for row in rows],
        "p_sampled": [row.p_sampled for row in rows],
        "p_any": [row.p_any for row in rows],
        "p_prior": [row.p_prior or 0.0 for row in rows],
        "gold_in_prompt": [float(row.gold_in_prompt) for row in rows],
        **{str(category): [float(row.category is category) for row in rows] for category in rows.counts()},
    }
    assert found["headline"] == {
        name: pytest.approx(share(values, clusters).to_dict(), abs=1e-9) for name, values in naive.items()
    }
    assert found["counts"] == {str(category): count for category, count in rows.counts().items()}
    guessed = rows.guesses(samples=config.samples)
    for relation, counts in rows.by_relation().items():
        entry, own = found["by_relation"][relation], [row for row in rows if row.relation == relation]
        assert entry["facts"] == entry["with_prior"] == len(own)
        assert {category: entry[category] for category in counts} == counts
        assert entry["known"] == sum(row.known for row in own) / len(own)
        assert entry["known_without_guesses"] == sum(row.known and row.fact_id not in guessed for row in own) / len(own)
        assert entry["guesses"] == {
            category: sum(row.category is category and row.fact_id in guessed for row in own) for category in counts
        }
        assert entry["p_sampled"] == pytest.approx(sum(row.p_sampled for row in own) / len(own), abs=1e-12)
    assert list(found["by_relation"]) == list(rows.by_relation())
    assert found["data"]["subjects"] == 8
    assert found["cost"]["peak_memory_mb"] > 10


def test_only_one_block_is_prepared_and_held(
    lm: LanguageModel, config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many times the facts: no more questions, prepared questions or rows are alive than two parts have."""
    small_parts(monkeypatch, 4)
    many = FactSet(replace(fact, id=f"{fact.id}-{turn}") for turn in range(6) for fact in people_facts())
    most: Counter[str] = Counter()

    def count(done: int, total: int) -> None:
        gc.collect()
        now = Counter(type(each).__name__ for each in gc.get_objects())
        for name in ("Prepared", "Question", "Mastery", "Asked"):
            most[name] = max(most[name], now[name])

    gc.collect()
    gc.freeze()  # what is there already is neither collected nor counted
    try:
        rows = probe(lm, many, config=config, out=tmp_path / "probe", progress=count, checking=count)
    finally:
        gc.unfreeze()
    assert len(rows) == 96
    assert all(found <= 3 * 4 for found in most.values()), most
    assert most["Prepared"] >= 4
