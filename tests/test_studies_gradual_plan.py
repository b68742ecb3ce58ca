"""The plan of the study of gradual learning: which runs there are, what they are of, and what is chosen by them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError, RunFailed
from instil.files import read_sealed, write_sealed
from instil.methods.mentor.method import RECIPES
from instil.probe import Category
from studies import gradual
from studies.gradual import SMALL, Job, Plan, best_final, candidates, done, score, tune, work_through
from studies.gradual_arms import GRADUAL, arms
from studies.gradual_kept import collect, kept_or_made, restore
from studies.gradual_methods import method_of
from studies.gradual_run import Arm, Tuned, settings_of
from tests.gradual_curves import CURVE, look

pytestmark = pytest.mark.usefixtures("one_thread")


class TestThePlan:
    def test_every_arm_is_tuned_or_like_one_that_is(self) -> None:
        names = [arm.name for arm in arms()]
        own = {arm.name for arm in arms() if not arm.like}
        assert len(set(names)) == len(names)
        assert {arm.tuned_as for arm in arms()} == own
        assert {f"{category} only" for category in Category} <= set(names)

    @pytest.mark.parametrize("arm", arms(), ids=lambda arm: arm.name)
    def test_every_candidate_has_settings_that_its_method_takes(self, arm: Arm) -> None:
        for tuned in candidates(arm, Plan()):
            found: Any = method_of(arm.method).settings(settings_of(arm, tuned, epochs=5, batch=16, seed=3))
            assert found.train.learning_rate == tuned.rate
            assert found.train.batch_size == (None if arm.own_batch else 16)
            assert (found.train.epochs, found.train.seed) == (max(1, round(5 * arm.epoch_factor)), 3)
            for path, value in tuned.settings.items():
                inner = found
                for name in path.split("."):
                    inner = getattr(inner, name)
                assert inner == value

    def test_jobs_have_their_own_files(self) -> None:
        jobs = [
            Job(arm=arm, tuned=tuned, base="people", split="test", seed=seed, plan=SMALL)
            for arm in arms()
            for tuned in candidates(arm, Plan())
            for seed in (1, 2)
        ]
        assert len({job.name for job in jobs}) == len(jobs)

    def test_a_run_of_mentor_is_of_its_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        arm = next(arm for arm in arms() if arm.name == "mentor")
        job = Job(arm=arm, tuned=Tuned(rate=1e-3), base="people", split="test", seed=1, plan=SMALL)
        before = job.name
        monkeypatch.setitem(RECIPES["questions"], "kl_weight", 99.0)
        assert job.name != before

    def test_what_is_kept_is_never_taken_for_another_plans(self, tmp_path: Path) -> None:
        job = Job(arm=arms()[0], tuned=Tuned(rate=1e-4), base="people", split="test", seed=1, plan=SMALL)
        write_sealed(job.file(tmp_path), {"job": job.identity, "end": 1})
        assert work_through([job], tmp_path, 1, lambda line: None)[0]["end"] == 1
        more = job.model_copy(update={"plan": SMALL.model_copy(update={"seeds": (1, 2), "rates": (1.0,)})})
        assert work_through([more], tmp_path, 1, lambda line: None)[0]["end"] == 1
        other = job.model_copy(update={"plan": SMALL.model_copy(update={"batch": 8})})
        assert not other.file(tmp_path).exists()
        write_sealed(other.file(tmp_path), {"job": job.identity, "end": 1})
        with pytest.raises(RunFailed, match="another plan"):
            work_through([other], tmp_path, 1, lambda line: None)

    def test_a_run_is_of_its_base_and_of_how_it_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        job = Job(arm=arms()[0], tuned=Tuned(rate=1e-4), base="people", split="test", seed=1, plan=SMALL)
        names = [job.name, job.start.file(Path()).name]
        monkeypatch.setattr(gradual, "asked_of", lambda base: {"model": "another"})
        others = [job.name, job.start.file(Path()).name]
        monkeypatch.setattr(gradual, "LOOKS", 99)
        assert len({*names, *others, job.name, job.start.file(Path()).name}) == 6

    def test_a_run_that_fails_stops_no_other(self) -> None:
        job = Job(arm=arms()[0], tuned=Tuned(rate=1e-4), base="people", split="test", seed=1, plan=SMALL)
        jobs = [job.model_copy(update={"seed": seed}) for seed in range(4)]

        def work(one: Job) -> str:
            if one.seed == 1:
                raise InputError("too few facts")
            return f"seed {one.seed}"

        told: list[str] = []
        with ThreadPoolExecutor(1) as pool:
            failed = done(pool, work, jobs, told.append)
        assert len(told) == 4 and {line.partition(" ")[2] for line in told} > {"seed 0", "seed 2", "seed 3"}
        assert len(failed) == 1 and "InputError: too few facts" in failed[0] and jobs[1].name in failed[0]

    def test_what_is_committed_is_not_run_again(self, tmp_path: Path) -> None:
        job = Job(arm=arms()[0], tuned=Tuned(rate=1e-4), base="people", split="test", seed=1, plan=SMALL)
        other = job.model_copy(update={"seed": 2})
        first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "runs.jsonl.gz"
        for each in (job, job.start, other):
            write_sealed(each.file(first), {"job": each.identity, "end": each.seed})
        assert collect(first, file) == 3
        packed = file.read_bytes()
        assert collect(first, file) == 3 and file.read_bytes() == packed
        third = job.model_copy(update={"plan": SMALL.model_copy(update={"batch": 8})})
        assert restore([job, job.start, third], second, file) == 2, "one of another plan is not its own"
        assert read_sealed(job.file(second)) == read_sealed(job.file(first)) and not other.file(second).exists()
        assert restore([job], second, file) == 0
        write_sealed(job.file(second), {"job": job.identity, "end": "again"})
        (second / "notes.json").write_text("{}")
        with pytest.raises(InputError, match=r"notes\.json.*not a run"):
            collect(second, file)
        (second / "notes.json").unlink()
        assert collect(second, file) == 3 and restore([job, other], tmp_path / "last", file) == 2
        assert read_sealed(job.file(tmp_path / "last"))["end"] == "again"

    def test_what_a_base_answers_is_kept_for_this_base_and_these_facts(self, tmp_path: Path) -> None:
        file, made = tmp_path / "bases.json", []

        def make() -> dict[str, str]:
            made.append(1)
            return {"categories": "H" * len(made)}

        assert kept_or_made(file, "people", {"model": "a"}, make)["categories"] == "H"
        assert kept_or_made(file, "people", {"model": "a"}, make)["categories"] == "H" and len(made) == 1
        assert kept_or_made(file, "people", {"model": "b"}, make)["categories"] == "HH"
        assert kept_or_made(file, "others", {"model": "b"}, make)["categories"] == "HHH"
        assert kept_or_made(file, "people", {"model": "b"}, make)["categories"] == "HH"

    def test_the_least_forgetting_at_equal_acquisition_is_chosen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def made(curve: list[Any]) -> dict[str, Any]:
            end = {"quick": curve[-1]}
            return {"curve": curve, "end": end, "cost": {"training": {"flops": 1.0}}, "seconds": 1.0}

        gentle = made([CURVE[0], look("0444", "2222"), look("4444", "2220")])
        half = made(CURVE[:3])
        assert score(gentle, 1.0) < score(made(CURVE), 1.0) < score(half, 1.0)

        def done(jobs: Any, *_: Any) -> list[dict[str, Any]]:
            return [gentle if job.tuned.rate == candidates(job.arm, plan)[1].rate else half for job in jobs]

        plan = SMALL.model_copy(update={"rates": (1e-4, 3e-4, 1e-3)})
        monkeypatch.setattr(gradual, "work_through", done)
        found = tune(plan, tmp_path, 1, lambda line: None)
        assert found["chosen"]["people"][GRADUAL] == {"rate": 3e-4, "settings": {}}
        assert found["tried"]["people"][GRADUAL][0]["readings"]["0.9"] is None
        job = Job(arm=arms()[0], tuned=Tuned(rate=1e-4), base="people", split="test", seed=1, plan=plan)
        assert best_final("people", [(job, half), (job, gentle)]) == pytest.approx(0.875)
