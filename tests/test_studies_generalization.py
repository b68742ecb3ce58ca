"""The study of generalization: its figures against ones made by hand, its data, and a cell at toy size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import instil
from instil.facts import Role
from instil.training import Example, Meter, train
from instil.worlds.embedded import embedded_world
from studies import generalization
from studies.generalization import (
    AUGMENTED,
    CHEAP,
    HALF,
    RECIPE,
    SAM,
    SMALL,
    WHOLE,
    Job,
    cheap_cells,
    checked,
    checked_cells,
    data_of,
    file_of,
    further_cells,
    main_cells,
    parted_cells,
    recipe_cells,
    result_of,
    teach_people,
    tune,
    tuned_cheap_cells,
)
from studies.generalization_figures import asked_pairs, compact, curve, difference, figure, perplexity, right, together
from studies.generalization_kept import restore
from studies.generalization_page import page
from studies.generalization_run import Cell, Tuned, cost_of, is_taught, noisy, plan, run
from studies.generalization_worlds import DEVELOPMENT, Data, data

TINY = SMALL.model_copy(update={"people": 4, "wordings": 2, "practice": 4, "known": 12, "budget": 4e10, "points": 2})
EVERY = (
    *main_cells(), *recipe_cells(), *cheap_cells(), *tuned_cheap_cells(), *parted_cells(), *further_cells(),
)  # fmt: skip
CELLS = {cell.name: cell for cell in EVERY}


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(world: int) -> Data:
    return data(world, people=4, wordings=2, practice=4, known=12)


def rows(*shares: float) -> list[dict[str, Any]]:
    return [
        {"fact": f"f{n}", "subject": f"s{n // 2}", "relation": "r", "first": share, "others": share, "p": share}
        for n, share in enumerate(shares)
    ]


def made_run(*shares: float, known: tuple[float, ...] = (1.0, 0.25, 0.75), nll: float = 20.0) -> dict[str, Any]:
    return {
        "questions": rows(*shares),
        "known": [{"fact": f"k{n}", "subject": f"t{n}", "p_greedy": share} for n, share in enumerate(known)],
        "nll": nll,
        "nll_tokens": 10,
        "curve": [{"flops": 1.0, "tokens": 2.0, "loss": 3.0, "accuracy": shares[0]}],
        "flops": 2.0,
        "tokens": 4,
        "loss": 0.5,
        "move_cosine": None,
        "notes": [],
        "seconds": 1.0,
    }


BEFORE = {
    str(world): made_run(0.0, 0.0, 0.0, 0.0, known=(0.5, 1.0, 0.25), nll=10.0 * world) for world in (1, 2)
}  # the first two are known


class TestFigures:
    def test_a_share_is_over_three_wordings(self) -> None:
        assert right({"first": 1.0, "others": 0.25}) == pytest.approx(0.5)

    def test_of_a_cell(self) -> None:
        runs = {("a", 1): made_run(1, 0.5, 0, 0.5, nll=20), ("a", 2): made_run(0, 0.5, 0, 0.5, nll=20)}
        found = figure(runs, BEFORE, "a")
        assert found["accuracy"]["value"] == pytest.approx(3 / 8) and found["accuracy"]["n"] == 8
        assert found["by_world"] == pytest.approx([0.5, 0.25])
        assert found["kept"]["value"] == pytest.approx(0.5), "of f0 and f1, known before, the first is known after"
        assert found["perplexity"]["value"] == pytest.approx(math.exp((1 + 0) / 2))
        assert found["curve"] == [{"flops": 1.0, "tokens": 2.0, "loss": 3.0, "accuracy": 0.5}]

    def test_of_two_cells_fact_by_fact(self) -> None:
        runs = {}
        for world in (1, 2, 3):
            runs["a", world] = made_run(*[0.75] * 8)
            runs["b", world] = made_run(*[0.5, 0.25, 0.5, 0.75] * 2)
        found = difference(runs, "a", "b")
        assert found["points"]["value"] == pytest.approx(0.25)
        assert found["relative"]["value"] == pytest.approx(0.5)
        assert found["relative"]["low"] == pytest.approx(2 * found["points"]["low"])
        assert found["verdict"] == "higher" and found["worlds"] == [1, 2, 3]
        assert difference(runs, "b", "a")["verdict"] == "lower"
        assert difference(runs, "b", "b")["verdict"] == "no difference"

    def test_only_worlds_that_both_have(self) -> None:
        runs = {("a", 1): made_run(1, 1, 0, 1), ("b", 1): made_run(0, 0, 0, 0), ("b", 2): made_run(1, 1, 1, 1)}
        assert difference(runs, "a", "b")["worlds"] == [1]

    def test_other_facts_are_not_compared(self) -> None:
        runs = {("a", 1): made_run(1, 1, 0), ("b", 1): made_run(0, 0, 0)}
        runs["b", 1]["questions"][0]["fact"] = "another"
        with pytest.raises(AssertionError):
            difference(runs, "a", "b")

    def test_tuning_goes_on_from_what_was_tried(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[str] = []

        def made(jobs: Any, *_: Any) -> list[Any]:
            done.extend(job.cell.name for job in jobs)
            return [made_run(float(job.tuned.rate == 1e-3)) for job in jobs]

        monkeypatch.setattr(generalization, "work_through", made)
        first = tune(TINY, tmp_path, 1, lambda line: None)
        assert first["chosen"][f"plain, {CHEAP}"] == {"rate": 1e-3, "rho": 0.5}
        again = {**first, "tried": {name: rows for name, rows in first["tried"].items() if "tuned" not in name}}
        done.clear()
        assert tune(TINY, tmp_path, 1, lambda line: None, again)["tried"] == first["tried"]
        assert done == [cell.name for cell in tuned_cheap_cells() for _ in TINY.rates]
        done.clear()
        tune(TINY.model_copy(update={"batch": 8}), tmp_path, 1, lambda line: None, first)
        assert len(set(done)) == len(first["tried"]), "another plan is tuned anew"

    def test_of_several_differences_together(self) -> None:
        runs: dict[tuple[str, int], Any] = {}
        for world in (1, 2):
            runs["a", world], runs["b", world] = made_run(1, 1, 0, 0), made_run(0, 0, 0, 0)
            runs["c", world], runs["d", world] = made_run(0, 1, 0, 0), made_run(1, 1, 0, 0)
        runs["a", 3] = made_run(1, 1, 1, 1)  # the other cells have no third world
        found = together(runs, [("a", "b"), ("c", "d")])
        assert found["points"]["value"] == pytest.approx(((1 - 1) / 2 + (1 + 0) / 2) / 4)
        assert found["worlds"] == [1, 2] and found["points"]["n"] == 8
        assert found["at_least"] >= found["points"]["low"]
        runs["d", 2]["questions"][0]["fact"] = "another"
        with pytest.raises(AssertionError):
            together(runs, [("a", "b"), ("c", "d")])

    def test_perplexity_of_one_world_has_no_interval(self) -> None:
        found = perplexity({("a", 1): made_run(0.0, nll=10.0)}, BEFORE, "a")
        assert found.value == pytest.approx(1.0) and found.low is None

    def test_a_curve_ends_where_the_shortest_does(self) -> None:
        long, short = made_run(1.0), made_run(0.0)
        long["curve"] = [*long["curve"], *long["curve"]]
        assert [point["accuracy"] for point in curve([long, short])] == [0.5]

    def test_every_pair_once(self) -> None:
        pairs = asked_pairs(list(AUGMENTED), (HALF, WHOLE, SAM))
        assert len(set(pairs)) == len(pairs) == 3 * 3 + 4 * 2
        assert {name for pair in pairs for name in pair} == {cell.name for cell in main_cells()}


class TestData:
    @pytest.mark.parametrize("world", [DEVELOPMENT, 1])
    def test_taught_people_are_new_to_the_base(self, world: int) -> None:
        found, base = tiny(world), embedded_world()
        told = {
            claim.subject.name for claim in base.claims if claim.exposures
        }  # whoever pre-training has a single statement about
        assert not found.questions.subjects & told
        assert (found.practice.subjects | found.known.subjects | found.exemplars.subjects) <= told

    @pytest.mark.parametrize("world", [DEVELOPMENT, 1])
    def test_each_wording_tells_every_fact(self, world: int) -> None:
        found = tiny(world)
        by_subject = {document.subject: document for document in found.documents}
        assert len(found.questions) == 8 * len(found.documents)
        for fact in found.questions:
            document = by_subject[fact.subject]
            for text in (document.text, *document.metadata["paraphrases"]):
                assert fact.answers[0].lower() in text.lower()
                assert fact.question not in text

    def test_roles_share_no_subject(self) -> None:
        found = tiny(1)
        parts = [found.questions, found.practice, found.known, found.exemplars]
        names = [name for part in parts for name in part.subjects]
        assert len(names) == len(set(names))
        assert found.practice_documents.__iter__ and all(one.role is Role.PRACTICE for one in found.practice_documents)
        assert {one.subject for one in found.practice_documents} == found.practice.subjects

    def test_worlds_differ(self) -> None:
        assert not tiny(1).questions.subjects & tiny(2).questions.subjects


class TestCells:
    def test_names_and_what_they_are_like(self) -> None:
        assert len(CELLS) == len(EVERY)
        own = {cell.name for cell in (*main_cells(), *tuned_cheap_cells())}
        assert {cell.tuned_as for cell in CELLS.values()} == own

    @pytest.mark.parametrize("name", [name for name in CELLS if not name.startswith("only ")])
    def test_every_cell_has_a_plan(self, name: str) -> None:
        stages = plan(CELLS[name], Tuned(rate=1e-3, rho=0.5), tiny(1), batch=4, seed=0)
        told = [document for stage in stages for document in stage.documents]
        assert {document.original for document in told if document.role is Role.TARGET} == {
            document.id for document in tiny(1).documents
        }
        sharp = CELLS[name].sharpness
        assert all((stage.config.sharpness is None) == (sharp is None) for stage in stages)
        assert stages[-1].questions or CELLS[name].method == "pit"

    @pytest.mark.parametrize("name", [f"plain, {SAM}", "pre-instruction tuning (pit++)"])
    def test_practice_has_its_epochs_and_the_documents_the_rest_of_the_budget(self, tmp_path: Path, name: str) -> None:
        lm = instil.load("embedded")
        stages = plan(CELLS[name], Tuned(rate=1e-3, rho=0.5), tiny(1), batch=4, seed=0)
        taught = [is_taught(stage) for stage in stages]
        assert sum(taught) == 1
        practice = stages[taught.index(False)]
        examples = practice.examples(lm.prompts, lm.context_window)
        meter = Meter()
        train(lm, examples, practice.training, out=tmp_path, meter=meter)
        assert cost_of(lm, practice, examples) == pytest.approx(meter.total, rel=0.15)

    def test_noise_is_in_what_is_read_of_all_copies_but_the_first(self) -> None:
        lm = instil.load("embedded")
        ids = tuple(range(10, 40))
        given = [Example(ids, (-100, *ids[1:]), key=key) for key in ("a", "a", "b", "a")]
        found = noisy(Cell(name="noise", noise=0.5), given, lm, seed=0)
        assert [one.input_ids == ids for one in found] == [True, False, True, False]
        assert found[1].input_ids != found[3].input_ids
        assert all(one.labels == two.labels for one, two in zip(found, given, strict=True))
        assert noisy(Cell(name="none"), given, lm, seed=0) == given


class TestARun:
    def test_half_and_whole_budget_and_sam(self) -> None:
        found = {
            how: run(
                CELLS[f"plain, {how}"], Tuned(rate=1e-3, rho=0.2), tiny(1),
                budget=1e11, batch=2, points=2, seed=1, keep=None,
            )
            for how in (HALF, WHOLE, SAM)
        }  # fmt: skip
        assert found[WHOLE]["flops"] == pytest.approx(1e11, rel=0.2)
        assert found[HALF]["flops"] == pytest.approx(found[WHOLE]["flops"] / 2, rel=0.2)
        assert found[SAM]["tokens"] < 0.75 * found[WHOLE]["tokens"], "each step costs two"
        assert found[SAM]["move_cosine"] is not None and found[WHOLE]["move_cosine"] is None
        assert len(found[WHOLE]["curve"]) >= 1
        assert [row["fact"] for row in found[HALF]["questions"]] == [row["fact"] for row in found[SAM]["questions"]]

    def test_is_kept_and_never_taken_for_another_plans(self, tmp_path: Path) -> None:
        job = Job(cell=CELLS[f"plain, {HALF}"], tuned=Tuned(rate=1e-3), world=1, plan=TINY)
        line = teach_people(job, tmp_path)
        assert job.name in line and "% right" in line
        found = result_of(job, tmp_path)
        other = job.model_copy(update={"plan": TINY.model_copy(update={"batch": 8})})
        with pytest.raises(SystemExit, match="another plan"):
            result_of(other, tmp_path)
        assert len(compact(found)["first"]) == len(found["questions"]) == 32
        self.comes_back_from_committed_results(job, found, tmp_path / "another")

    def comes_back_from_committed_results(self, job: Job, found: dict[str, Any], work: Path) -> None:
        name, tuned = job.cell.name, job.tuned.model_dump(mode="json")
        committed = {
            "plan": job.plan.model_dump(mode="json"),
            "chosen": {name: tuned},
            "definitions": {name: job.cell.model_dump(mode="json")},
            "runs": [{"cell": name, "world": 1, **compact(found)}],
        }
        others = (
            {"plan": {**committed["plan"], "batch": 8}},
            {"chosen": {name: {**tuned, "rate": 1e-4}}},
            {"definitions": {name: {**committed["definitions"][name], "noise": 0.1}}},
            {"runs": [{**committed["runs"][0], "world": 2}]},
        )
        for other in others:
            assert restore({**committed, **other}, [job], work, data_of) == []
        assert not file_of(job, work).exists()
        assert restore(committed, [job], work, data_of) == [job.name]
        assert restore(committed, [job], work, data_of) == [], "it is there already"
        back = result_of(job, work)
        for row in found["questions"]:
            row.pop("p")
        assert back == found


def test_the_page_tells_of_every_cell() -> None:
    names = [cell.name for cell in main_cells()]
    others = [RECIPE, "token noise", *(cell.name for cell in (*cheap_cells(), *parted_cells()))]
    runs = {(name, world): made_run(1, 0.5, 0, 0.25) for name in (*names, *others) for world in (1, 2)}
    pairs = asked_pairs(list(AUGMENTED), (HALF, WHOLE, SAM))
    pairs += [("token noise", f"plain, {WHOLE}"), (RECIPE, f"plain, {WHOLE}"), (RECIPE, f"plain, {HALF}")]
    pairs += [(cell.name, cell.like) for cell in cheap_cells()]
    pairs += [(cell.name, RECIPE) for cell in parted_cells()]
    result = {
        "command": "python -m studies.generalization",
        "commit": "0123456789ab",
        "finished": "2026-11-21T00:00:00+00:00",
        "hardware": {"processor": "a processor", "torch": "2"},
        "plan": TINY.model_copy(update={"further_worlds": (1, 2)}).model_dump(mode="json"),
        "chosen": {name: {"rate": 1e-3, "rho": None} for name in names},
        "worlds": {"1": {"questions": 4, "words_a_document": 70.0}},
        "before": {"1": {"accuracy": 0.0}},
        "cells": {name: figure(runs, BEFORE, name) for name in dict.fromkeys(name for name, _ in runs)},
        "differences": [difference(runs, *pair) for pair in pairs],
        "runs": [{"seconds": 1800.0}] * 4,
    }
    text = page(result)
    assert "4 runs, 2.0 hours of one thread" in text
    for name in AUGMENTED:
        assert text.count(f"| {name} |") == 3
    assert "| token noise |" in text and "no difference" in text
    for each, low in zip(result["differences"][-6:-2], (-0.009, -0.011, 0.02, None), strict=True):
        each["at_least"] = low
    cheap = page(result).partition("## Cheap sharpness")[2].partition("## ")[0]
    assert (cheap.count("| met |"), cheap.count("| not shown |"), cheap.count("| – | – |")) == (2, 1, 1)
    assert all(f"| {cell.name} |" in text for cell in parted_cells())
    there = {(cell.name, world): made_run(1, 0.5, 0, 0.25) for cell in checked_cells() for world in (1, 6, 7)}
    result["checked"] = checked(there, (1,), (6, 7))
    assert (page(result).count("worlds 1 to 7"), page(result).count("worlds 6 to 7")) == (2, 1)
    assert page(result).count("no interval") == 6
    result["checked"]["the last fifth, tuned"]["together"]["at_least"] = -0.009
    result["checked"]["every 5th step, tuned"]["together"]["at_least"] = -0.02
    counted = [page(result).count(f"bar of −1 point is {word}") for word in ("met", "**not** shown")]
    assert counted == [1, 2]
