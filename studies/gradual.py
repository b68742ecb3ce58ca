"""Gradual learning: does a first stage on half-known facts help, and what keeps old facts while new ones are taught?

    python -m studies.gradual --tune      learning rates and settings, on development subjects
    python -m studies.gradual             the arms, on test subjects
    python -m studies.gradual --arms sft  (also with --tune) only the runs of these arms, to be kept; no results yet
    python -m studies.gradual --page      docs/results/gradual.md and its plots, from the committed results
    python -m studies.gradual --small     both in ten minutes on one base, to see that it works; results under runs/

It has two bases, `people` and `entityquestions`; the second needs the public data (INSTIL_DATA). Every arm is a method
of Instil through a real lesson, watched at each epoch's end. The figure of merit was fixed before anything was tried:
forgetting at equal acquisition (`gradual_measure`), read where 50, 75 and 90 % of the best arm's final acquisition is
reached. A finished run is not run again, and all of them are committed (`results/gradual_runs.jsonl.gz`): an
interrupted study goes on where it stopped, also on another machine. `--collect` commits what is finished.

Controls that no user needs, such as a stage 2 on random facts, are methods of the study's own (`gradual_methods`). How
many facts change category when nothing is trained is measured by `gradual_noise`, and what facts that were fitted cost
by `gradual_regression`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import RunFailed
from instil.files import fingerprint, read_sealed, write_json, write_sealed
from instil.loop.hardware import commit, hardware
from instil.methods.mentor.method import RECIPES, TRAIN
from instil.training.keys import DEPTH, OTHERS, RIDGE, SHARPNESS, THRESHOLD
from instil.training.values import MOMENTA
from studies.generalization import one_thread
from studies.gradual_arms import GRADUAL, MENTOR, PUBLISHED, arms
from studies.gradual_bases import BASES, SIZES, BaseName, Material, Sizes, Split, asked_of, mastery_of, material
from studies.gradual_figures import figures
from studies.gradual_kept import RUNS, collect, restore
from studies.gradual_measure import READINGS, acquired, lost, made_up_share, mean, perplexity, reading
from studies.gradual_run import Arm, Tuned, before, in_words, run

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gradual.json"
TUNING = HERE / "results" / "gradual_tuning.json"
WORK = Path("runs") / "gradual"


class Plan(BaseModel):
    """Sizes and settings that all arms share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bases: tuple[BaseName, ...] = Field(default=BASES, description="what is taught")
    seeds: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5), description="of the facts drawn and the order of training")
    once_seeds: tuple[int, ...] = Field(default=(1,), description="of the arms that are looked at once")
    tuning_seed: int = Field(default=0, description="of the development facts that settings are chosen on")
    sizes: dict[BaseName, dict[Split, Sizes]] = Field(
        default_factory=lambda: dict(SIZES), description="facts of each kind, by base and split"
    )
    epochs: int = Field(default=12, ge=1, description="at most, in each stage")
    batch: int = Field(default=32, ge=1, description="examples an optimiser step")
    budget: float | None = Field(
        default=6e13, description="operations that an arm may spend, deciding probes included; None: no limit"
    )
    rates: tuple[float, ...] = Field(default=(5e-5, 1e-4, 2e-4), description="learning rates tried")
    grids: bool = Field(default=True, description="also try the settings of an arm's grid, all combinations")


_FEW = Sizes(target=160, development=24, replay=60, held_back=160, untaught=32, general=8)

SMALL = Plan(
    bases=("people",),
    seeds=(1,),
    once_seeds=(1,),
    sizes={"people": {"development": _FEW, "test": _FEW}},
    epochs=3,
    rates=(3e-4,),
    grids=False,
)


LOOKS = 2
"""The version of how runs are measured: a run of another version is none of this study's."""

HOW_KEYS_ARE_FOUND = [DEPTH, THRESHOLD, SHARPNESS, OTHERS, RIDGE, *MOMENTA]

DRAWN: dict[BaseName, int] = {"entityquestions": 2}
"""The version of how facts are drawn, likewise, where it is not the first. Since 2, no subject is held back that
something taught names."""


def made_of(base: BaseName) -> dict[str, Any]:
    """What a base is, what is drawn of it and how it is looked at: a run is of these as much as of its settings."""
    drawn = {"drawn": DRAWN[base]} if base in DRAWN else {}
    return {**asked_of(base), "looks": LOOKS, **drawn}


def mark_of(identity: Mapping[str, Any]) -> str:
    """Tells runs of other settings apart where their names do not."""
    return fingerprint([json.dumps(identity, sort_keys=True)])[:8]


class Job(BaseModel):
    """One run of one arm."""

    model_config = ConfigDict(frozen=True)

    arm: Arm
    tuned: Tuned
    base: BaseName
    split: Split
    seed: int
    plan: Plan

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its result; not which other runs the plan has, nor what else is tried."""
        plan = self.plan.model_dump(mode="json", include={"epochs", "batch", "budget"})
        own_batch = {"own_batch"} if self.arm.own_batch else set()
        arm = self.arm.model_dump(mode="json", include={"name", "method", "settings", "epoch_factor", *own_batch})
        plan["sizes"] = self.sizes.model_dump(mode="json")
        own = self.model_dump(mode="json", exclude={"plan", "arm"})
        if self.arm.method == MENTOR:  # its defaults are what is searched for: a run is of those it was made with
            own["recipe"] = {"settings": RECIPES, "train": TRAIN, "keys": HOW_KEYS_ARE_FOUND}
        return {**own, "arm": arm, "plan": plan, "of": made_of(self.base)}

    @property
    def sizes(self) -> Sizes:
        return self.plan.sizes[self.base][self.split]

    @property
    def name(self) -> str:
        tuned = "-".join([f"{self.tuned.rate:g}", *(f"{value}" for value in self.tuned.settings.values())])
        name = f"{self.base}-{self.split}-{self.arm.name}-{self.seed}-{tuned}".replace(".", "_")
        return "".join(c if c.isalnum() or c == "_" else "-" for c in name) + "-" + mark_of(self.identity)

    def file(self, work: Path) -> Path:
        return work / f"{self.name}.json"

    @property
    def start(self) -> Start:
        return Start(base=self.base, split=self.split, seed=self.seed, sizes=self.sizes)

    def material(self, work: Path) -> Material:
        return material(self.base, self.split, self.seed, work / "bases", self.sizes)


# ---------------------------------------------------------------------- running


def work_through(jobs: Sequence[Job], work: Path, workers: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """The results of the jobs in their order; several processes of one thread each.

    The bases are asked first, once and for all; then each base, split and seed is measured as it is; then the arms.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not all(job.file(work).exists() for job in jobs):
        for base in sorted({job.base for job in jobs}):  # first, as what a base is belongs to the identity of its runs
            tell(f"what {base} knows")
            mastery_of(base, work / "bases")
    starts = starts_of(jobs)
    restore([*starts, *jobs], work)
    todo = [job for job in jobs if not job.file(work).exists()]
    tell(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them done")
    if todo:
        unseen = [start for start in starts_of(todo) if not start.file(work).exists()]
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as pool:
            failed = done(pool, partial(measure_start, work=work), unseen, tell)
            failed += [] if failed else done(pool, partial(teach, work=work), todo, tell)
        if failed:
            raise RunFailed("\n".join([f"{len(failed)} runs failed; the others are finished", *failed]))
    return [result_of(job, work) for job in jobs]


def done(pool: Executor, work: Callable[[Any], str], jobs: Sequence[Any], tell: Callable[[str], None]) -> list[str]:
    """Work on all jobs; what fails stops no other. Returns what failed, in words."""
    failed: list[str] = []
    waiting = {pool.submit(work, job): job for job in jobs}
    for number, future in enumerate(as_completed(waiting), start=1):
        try:
            line = future.result()
        except Exception as fault:  # whatever it is, the other runs are worth hours
            line = f"{waiting[future].file(Path()).stem} failed: {type(fault).__name__}: {fault}"
            failed.append(line)
        tell(f"{number}/{len(jobs)} {line}")
    return failed


def starts_of(jobs: Sequence[Job]) -> list[Start]:
    return list(dict.fromkeys(job.start for job in jobs))


class Start(BaseModel):
    """The base as it is, measured on what one seed asks."""

    model_config = ConfigDict(frozen=True)

    base: BaseName
    split: Split
    seed: int
    sizes: Sizes

    @property
    def identity(self) -> dict[str, Any]:
        return {"before": self.model_dump(mode="json"), "of": made_of(self.base)}

    def file(self, work: Path) -> Path:
        return work / f"before-{self.base}-{self.split}-{self.seed}-{mark_of(self.identity)}.json"


def measure_start(start: Start, work: Path) -> str:
    found = before(material(start.base, start.split, start.seed, work / "bases", start.sizes))
    write_sealed(start.file(work), {"job": start.identity, **found})
    return f"{start.base}, {start.split} subjects, seed {start.seed}: measured before"


def teach(job: Job, work: Path) -> str:
    found = run(
        job.arm,
        job.tuned,
        job.material(work),
        result_of(job.start, work),
        epochs=job.plan.epochs,
        batch=job.plan.batch,
        budget=job.plan.budget,
    )
    write_sealed(job.file(work), {"job": job.identity, **found})
    return f"{job.name}: {in_words(found)}"


def result_of(job: Job | Start, work: Path) -> dict[str, Any]:
    found = read_sealed(job.file(work))
    if found["job"] != job.identity:
        raise RunFailed(f"{job.file(work)} is of another plan")
    return found


# --------------------------------------------------------------------- choosing


def candidates(arm: Arm, plan: Plan) -> list[Tuned]:
    """What is tried of an arm."""
    grid = arm.grid if plan.grids else {}
    return [
        Tuned(rate=rate * arm.rate_factor, settings=dict(zip(grid, values, strict=True)))
        for rate, *values in product(plan.rates, *grid.values())
    ]


def tuning_jobs(plan: Plan) -> list[Job]:
    """What is tried on development subjects."""
    return [
        Job(arm=arm, tuned=tuned, base=base, split="development", seed=plan.tuning_seed, plan=plan)
        for base in plan.bases
        for arm in arms()
        if not arm.like
        for tuned in candidates(arm, plan)
    ]


def tune(plan: Plan, work: Path, workers: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Every arm that is tuned by itself, on development subjects; of each the best is chosen, by `score`."""
    jobs = tuning_jobs(plan)
    own = list(dict.fromkeys(job.arm.name for job in jobs))
    found = list(zip(jobs, work_through(jobs, work, workers, tell), strict=True))
    tried: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for base in plan.bases:
        results = [(job, result) for job, result in found if job.base == base]
        best = max(final_acquisition(result) for _, result in results)
        tried[base] = {name: [] for name in own}
        for job, result in results:
            row = {**job.tuned.model_dump(), "score": score(result, best), **summary(result, best)}
            tried[base][job.arm.name].append(row)
    chosen = {
        base: {
            name: {key: min(rows, key=lambda row: row["score"])[key] for key in ("rate", "settings")}
            for name, rows in by_arm.items()
        }
        for base, by_arm in tried.items()
    }
    return {**about(plan, "--tune"), "tried": tried, "chosen": chosen}


def score(result: dict[str, Any], best: float) -> list[float]:
    """Forgetting, the mean over the readings; one that is never reached counts as everything forgotten. The less the
    better; then the more acquired the better."""
    read = [reading(result["curve"], share, best) for share in READINGS]
    return [mean([1.0 if one is None else one for one in read]), -final_acquisition(result)]


def final_acquisition(result: dict[str, Any]) -> float:
    return acquired(result["end"]["quick"])


def summary(result: dict[str, Any], best: float) -> dict[str, Any]:
    """A run's figures without its facts."""
    return {
        "acquired": final_acquisition(result),
        "lost": lost(result["curve"][0], result["end"]["quick"]),
        "readings": {f"{share:g}": reading(result["curve"], share, best) for share in READINGS},
        "made_up": made_up_share(result["end"]["quick"]),
        "perplexity": perplexity(result["end"]["quick"]),
        "flops": sum(cost["flops"] for cost in result["cost"].values()),
        "seconds": result["seconds"],
    }


# -------------------------------------------------------------------- reporting


def study(plan: Plan, tuning: dict[str, Any], work: Path, workers: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """The arms on test subjects, a run's figures each; its facts are in `gradual_runs.jsonl.gz`."""
    against = {base: best_published(tuning["tried"][base]) for base in plan.bases}
    jobs = test_jobs(plan, tuning)
    found = list(zip(jobs, work_through(jobs, work, workers, tell), strict=True))
    best = {base: best_final(base, found) for base in plan.bases}
    first = {(job.base, job.seed): job for job in jobs}
    rows = [*(result_of(start, work) for start in starts_of(jobs)), *(result for _, result in found)]
    return {
        **about(plan, ""),
        "chosen": tuning["chosen"],
        "best_final_acquisition": best,
        "materials": {f"{base} {seed}": job.material(work).described() for (base, seed), job in first.items()},
        "runs": [{**job.identity, **summary(result, best[job.base])} for job, result in found],
        "figures": figures(rows, best, against, GRADUAL),
    }


def test_jobs(plan: Plan, tuning: dict[str, Any]) -> list[Job]:
    """What is run on test subjects, seed after seed, so that a study that is cut off has whole seeds."""
    against = {base: best_published(tuning["tried"][base]) for base in plan.bases}
    return [
        Job(arm=arm, tuned=Tuned(**tuning["chosen"][base][arm.tuned_as]), base=base, split="test", seed=seed, plan=plan)
        for seed in plan.seeds
        for base in plan.bases
        for arm in arms()
        if seed in plan.once_seeds or not arm.once or arm.name == against[base]
    ]


def best_published(tried: dict[str, list[dict[str, Any]]]) -> str:
    """The published arm that had the best score on development subjects: it is what others have to beat."""
    return min((name for name in PUBLISHED if name in tried), key=lambda name: min(row["score"] for row in tried[name]))


def best_final(base: str, found: Sequence[tuple[Job, dict[str, Any]]]) -> float:
    """The final acquisition of the arm that acquires most, the mean over its seeds; of arms with as many as any."""
    finals: dict[str, list[float]] = {}
    for job, result in found:
        if job.base == base:
            finals.setdefault(job.arm.name, []).append(final_acquisition(result))
    most = max(map(len, finals.values()))
    return max(mean(values) for values in finals.values() if len(values) == most)


def about(plan: Plan, options: str) -> dict[str, Any]:
    return {
        "command": f"python -m studies.gradual {options}".strip(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "plan": plan.model_dump(mode="json"),
    }


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tune", action="store_true", help="choose rates and settings on development subjects")
    parser.add_argument("--small", action="store_true", help="both in about ten minutes, results under runs/")
    parser.add_argument("--collect", action="store_true", help="commit finished runs to the results, run nothing")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="only run these arms and keep their runs, no results")
    parser.add_argument("--page", action="store_true", help="only write the page and its plots again")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished runs are kept")
    parser.add_argument("--out", type=Path, help="where the results go (default: the committed files)")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--seeds", type=int, help="the first so many seeds only")
    parser.add_argument("--once-seeds", type=int, help="the first so many seeds for arms that are looked at once (1)")
    parser.add_argument("--bases", nargs="+", choices=BASES, help="these bases only")
    given = parser.parse_args(None if words is None else list(words))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    from studies.gradual_page import write_page

    if unknown := set(given.arms or ()) - {arm.name for arm in arms()}:
        parser.error(f"no arm is called {min(unknown)}; they are {', '.join(arm.name for arm in arms())}")
    plan = SMALL if given.small else Plan()
    if given.bases:
        plan = plan.model_copy(update={"bases": tuple(given.bases)})
    if given.seeds:
        plan = plan.model_copy(update={"seeds": plan.seeds[: given.seeds]})
    if given.once_seeds:
        plan = plan.model_copy(update={"once_seeds": plan.seeds[: given.once_seeds]})
    if given.small:
        small = given.work / "small"
        tuning = tune(plan, small, given.workers, tell)
        results = given.out or small / "results" / "gradual.json"
        write_json(results, study(plan, tuning, small, given.workers, tell))
        tell(f"the page: {write_page(results, small / 'docs')}")
    elif given.page:
        tell(f"the page: {write_page(given.out or RESULTS)}")
    elif given.collect:
        tell(f"{collect(given.work)} rows in {RUNS}")
    else:
        try:
            tuning = {} if given.tune else json.loads(TUNING.read_text(encoding="utf-8"))
            if given.arms:
                jobs = tuning_jobs(plan) if given.tune else test_jobs(plan, tuning)
                work_through([job for job in jobs if job.arm.name in given.arms], given.work, given.workers, tell)
            elif given.tune:
                write_json(given.out or TUNING, tune(plan, given.work, given.workers, tell))
            else:
                write_json(given.out or RESULTS, study(plan, tuning, given.work, given.workers, tell))
        finally:
            collect(given.work)


if __name__ == "__main__":
    main()
