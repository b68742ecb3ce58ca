"""Formats and sharpness-aware minimization at equal compute: do documents become knowledge that can be asked for?

    python -m studies.generalization --tune     learning rates and ρ, on development people
    python -m studies.generalization            the cells, on worlds that nothing was tuned on
    python -m studies.generalization --small    both in ten minutes, to see that it works; results under runs/
    python -m studies.generalization --page     docs/results/generalization.md from the JSON

Every cell is continued pre-training on one biography a person, then practice questions about people whom the base
knows; then it is asked about the biographies, with questions that are never trained on. *AdamW* spends half of the
budget, *AdamW, twice the compute* and *SAM* all of it: SAM's step costs two. A finished cell is not run again: an
interrupted study goes on where it stopped, also from its committed results alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from instil.augment import FORMATS
from instil.files import read_sealed, write_json, write_sealed
from instil.loop.hardware import commit, hardware
from studies.generalization_figures import asked_pairs, compact, difference, figure, mean, quarters, right, together
from studies.generalization_kept import SIZES, restore
from studies.generalization_run import Cell, Tuned, run
from studies.generalization_worlds import DEVELOPMENT, Data, data, describe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "generalization.json"
TUNING = HERE / "results" / "generalization_tuning.json"
WORK = Path("runs") / "generalization"

AUGMENTED: dict[str, dict[str, Any]] = {
    "plain": {"copies": 0},
    "formats": {"copies": 4},
    "permutation": {"formats": ("permutation",), "copies": 4},
    "paraphrase": {"formats": ("paraphrase",), "copies": 4},
}
TITLED = ("heading", "markdown", "html", "table", "fields", "latex")
"""Formats that put the title first: then the name stands before every fact, also before one that is told backwards."""

RECIPE = "recipe: title first, sentences shuffled"
HALF, WHOLE, SAM = "AdamW", "AdamW, twice the compute", "SAM"
CHEAP = "SAM every 5th step, tuned, as many steps"
LATE = "SAM in the last fifth, tuned, as many steps"


def main_cells() -> list[Cell]:
    found = []
    for (name, settings), optimiser in product(AUGMENTED.items(), (HALF, WHOLE, SAM)):
        found.append(
            Cell(
                name=f"{name}, {optimiser}",
                settings=settings,
                sharpness={"kind": "sam"} if optimiser == SAM else None,
                compute=0.5 if optimiser == HALF else 1.0,
            )
        )
    return found


def recipe_cells() -> list[Cell]:
    """The variant that was found on development people, with the rate that was best for formats there."""
    settings = {"formats": tuple(f"shuffling+{name}" for name in TITLED), "copies": len(TITLED)}
    return [Cell(name=RECIPE, settings=settings, like=f"formats, {WHOLE}")]


def cheap_cells() -> list[Cell]:
    """Sharpness-aware steps that cost 1.2 times AdamW's, as many of them as the cells with SAM take."""
    kinds = {"SAM every 5th step": {"kind": "sam", "every": 5}, "LookSAM": {"kind": "looksam"}}
    return [
        Cell(
            name=f"{augmented}, {kind}, as many steps",
            settings=AUGMENTED[augmented],
            sharpness=sharpness,
            compute=0.6,
            like=f"{augmented}, {SAM}",
        )
        for augmented in ("plain", "formats")
        for kind, sharpness in kinds.items()
    ]


def tuned_cheap_cells() -> list[Cell]:
    """Cheap forms with a rate and a ρ of their own: with SAM's the first was not shown to be as good."""
    kinds = {CHEAP: {"kind": "sam", "every": 5}, LATE: {"kind": "sam", "start": 0.8}}
    return [
        Cell(name=f"{name}, {kind}", settings=AUGMENTED[name], sharpness=sharpness, compute=0.6)
        for kind, sharpness in kinds.items()
        for name in ("plain", "formats")
    ]


def checked_cells() -> list[Cell]:
    """Cheap forms that could be the default, and SAM: they are run beyond the main worlds as well."""
    given = [cell for cell in cheap_cells() if "every 5th" in cell.name]
    return [*tuned_cheap_cells(), *given, *(cell for cell in main_cells() if cell.name in {one.like for one in given})]


def parted_cells() -> list[Cell]:
    """Formats that set sentences apart, each word in its place: they were the best by themselves in the first world, so
    they are reported on the others."""
    apart = ("bullets", "numbers", "separators", "comments")
    titled = (*(f"heading+{name}" for name in apart[:3]), "markdown", "html", "table")
    return [
        Cell(name=name, settings={"formats": formats, "copies": len(formats)}, like=f"formats, {WHOLE}")
        for name, formats in (("sentences set apart", apart), ("title first, sentences set apart", titled))
    ]


def further_cells() -> list[Cell]:
    """What is looked at once: each takes rate and ρ of the main cell that it is nearest to."""

    def plain(name: str, **settings: Any) -> Cell:
        like = settings.pop("like", f"plain, {WHOLE}")
        return Cell(name=name, like=like, **settings)

    sharp = {
        "SAM every 5th step": {"kind": "sam", "every": 5},
        "LookSAM": {"kind": "looksam"},
        "SAM, norm layers": {"kind": "sam", "perturb": "norms"},
        "SAM, last half": {"kind": "sam", "start": 0.5},
        "a random move": {"kind": "random"},
    }
    cells = [
        plain("repetition", settings={"formats": ("repetition",), "copies": 4}),
        plain("token noise", settings={"formats": ("repetition",), "copies": 4}, noise=0.1),
        plain("shuffling", settings={"formats": ("shuffling",), "copies": 4}),
        plain("title first", settings={"formats": TITLED, "copies": len(TITLED)}),
        plain("full name", settings={"formats": ("fullname",), "copies": 4}),
        plain("full name, permuted", settings={"formats": ("fullname+permutation",), "copies": 4}),
        plain("formats and permutation", settings={"formats": tuple(f"permutation+{f}" for f in FORMATS), "copies": 8}),
        plain("high learning rate", settings=AUGMENTED["plain"], rate_factor=2.0),
        plain("pre-instruction tuning (pit++)", method="pit", settings={"practice_epochs": 1, "question_epochs": 1}),
    ]
    cells += [plain(f"only {name}", settings={"formats": (name,), "copies": 4}) for name in FORMATS]
    cells += [
        plain(f"{augmented}, {name}", settings=AUGMENTED[augmented], sharpness=kind, like=f"{augmented}, {SAM}")
        for augmented in ("plain", "formats")
        for name, kind in sharp.items()
        if augmented == "plain" or name == "LookSAM"
    ]
    return cells


class Plan(BaseModel):
    """Sizes; all cells share them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worlds: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5), description="of the main cells; each also the seed")
    further_worlds: tuple[int, ...] = Field(default=(1, 2, 3), description="of the cells that are looked at once")
    cheap_worlds: tuple[int, ...] = Field(
        default=(6, 7, 8, 9, 10, 11), description="where the chosen cheap form of SAM is checked against SAM"
    )
    people: int = Field(default=36, description="taught in each world, a biography each")
    wordings: int = Field(default=5, description="further biographies of each, for the paraphrase cells and contexts")
    practice: int = Field(default=64, description="practice questions, about people whom the base knows")
    known: int = Field(default=400, description="questions about other people whom the base was told of")
    budget: float = Field(default=8e12, description="operations of a cell; the cells of half the compute have half")
    batch: int = Field(default=16, description="documents a step")
    points: int = Field(default=6, description="of the learning curve, over the whole budget")
    rates: tuple[float, ...] = Field(
        default=(5e-4, 1e-3, 2e-3), description="learning rates tried; each falls to zero over the budget"
    )
    rhos: tuple[float, ...] = Field(default=(0.15, 0.5), description="ρ tried")
    kept_worlds: tuple[int, ...] = Field(default=(1, 2, 3), description="whose models along the curve are kept")


SMALL = Plan(
    worlds=(1,), further_worlds=(), cheap_worlds=(), kept_worlds=(),
    people=12, wordings=4, practice=16, known=60, budget=4e11, points=2, rates=(5e-4, 1e-3), rhos=(0.5,),
)  # fmt: skip


class Job(BaseModel):
    """One run of one cell."""

    model_config = ConfigDict(frozen=True)

    cell: Cell
    tuned: Tuned
    world: int
    plan: Plan

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its result; not which other worlds and settings the plan has."""
        plan = self.plan.model_dump(mode="json", include=set(SIZES))
        return {**self.model_dump(mode="json", exclude={"plan"}), "plan": plan}

    @property
    def name(self) -> str:
        tuned = f"{self.tuned.rate:g}" + ("" if self.tuned.rho is None else f"-{self.tuned.rho:g}")
        return "".join(c if c.isalnum() else "-" for c in f"{self.cell.name}-{self.world}-{tuned}".replace(".", "_"))


def work_through(
    jobs: Sequence[Job],
    work: Path,
    workers: int,
    tell: Callable[[str], None],
    work_on: Callable[[Job, Path], str] | None = None,
) -> list[dict[str, Any]]:
    """The results of the jobs in their order; several processes of one thread each, which is quicker than the other
    way round with a model this small."""
    work.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not file_of(job, work).exists()]
    tell(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them done")
    if todo:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as pool:
            for number, line in enumerate(pool.map(work_on or teach_people, todo, [work] * len(todo)), start=1):
                tell(f"{number}/{len(todo)} {line}")
    return [result_of(job, work) for job in jobs]


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def file_of(job: Job, work: Path) -> Path:
    return work / f"{job.name}.json"


def teach_people(job: Job, work: Path) -> str:
    plan = job.plan
    found = run(
        job.cell,
        job.tuned,
        data(job.world, people=plan.people, wordings=plan.wordings, practice=plan.practice, known=plan.known),
        budget=plan.budget,
        batch=plan.batch,
        points=plan.points,
        seed=job.world,
        keep=work / "models" / job.name if job.world in plan.kept_worlds else None,
    )
    write_sealed(file_of(job, work), {"job": job.identity, **found})
    right = [row["first"] for row in found["questions"]]
    return f"{job.name}: {100 * sum(right) / len(right):.1f} % right, {found['seconds']:.0f} s"


def result_of(job: Job, work: Path) -> dict[str, Any]:
    found = read_sealed(file_of(job, work))
    if found["job"] != job.identity:
        raise SystemExit(f"{file_of(job, work)} is of another plan: remove {work}, or give another --work")
    return found


# --------------------------------------------------------------------- choosing


def tune(
    plan: Plan,
    work: Path,
    workers: int,
    tell: Callable[[str], None],
    committed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Each cell that has settings of its own with each rate, and SAM with each ρ, on development people; the best is
    chosen by `score`. What `committed` tuning of the same plan has tried is not tried again."""
    tried: dict[str, list[dict[str, Any]]] = {}
    if committed is not None and all(committed["plan"][name] == value for name, value in tuned_by(plan).items()):
        tried |= committed["tried"]
    jobs = [
        Job(cell=cell, tuned=Tuned(rate=rate, rho=rho), world=DEVELOPMENT, plan=plan)
        for cell in (*main_cells(), *tuned_cheap_cells())
        for rate, rho in product(plan.rates, plan.rhos if cell.sharpness else (None,))
        if cell.name not in tried
    ]
    for job, result in zip(jobs, work_through(jobs, work, workers, tell), strict=True):
        tried.setdefault(job.cell.name, []).append(
            {**job.tuned.model_dump(), "score": score(result), "loss": result["loss"], "flops": result["flops"],
             "move_cosine": result["move_cosine"]}
        )  # fmt: skip
    return {
        **about(plan, "--tune"),
        "tried": tried,
        "chosen": {
            name: {key: max(rows, key=lambda row: row["score"])[key] for key in ("rate", "rho")}
            for name, rows in tried.items()
        },
    }


def tuned_by(plan: Plan) -> dict[str, Any]:
    """What of a plan decides its tuning."""
    return plan.model_dump(mode="json", include={*SIZES, "rates", "rhos"})


def score(result: dict[str, Any]) -> float:
    """Right answers to the taught people's questions, the mean over all wordings."""
    return mean([right(row) for row in result["questions"]])


# -------------------------------------------------------------------- reporting


def study(
    plan: Plan,
    tuning: dict[str, Any],
    work: Path,
    workers: int,
    tell: Callable[[str], None],
    committed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The results; what `committed` ones say already is not run again."""
    chosen = {name: Tuned(**found) for name, found in tuning["chosen"].items()}
    # World after world, so that a study that is cut off has whole worlds.
    order = [
        *product(plan.worlds, (*main_cells(), *recipe_cells(), *cheap_cells(), *tuned_cheap_cells())),
        *product(plan.worlds[1:], parted_cells()),
        *product(plan.cheap_worlds, checked_cells()),
        *product(plan.further_worlds, further_cells()),
    ]
    jobs = [Job(cell=cell, tuned=chosen[cell.tuned_as], world=world, plan=plan) for world, cell in order]
    if committed is not None:
        tell(f"{len(restore(committed, jobs, work, data_of))} cells from committed results")
    found = {
        (job.cell.name, job.world): result
        for job, result in zip(jobs, work_through(jobs, work, workers, tell), strict=True)
    }
    # What is checked in other worlds is told by itself: the cells of one table share their worlds.
    runs = {key: result for key, result in found.items() if key[1] not in plan.cheap_worlds}
    start = {str(world): before(plan, world, work) for world in plan.worlds}
    further = further_cells() if plan.further_worlds else []
    against = asked_pairs(list(AUGMENTED), (HALF, WHOLE, SAM))
    against += [(RECIPE, f"{name}, {how}") for name, how in (("plain", WHOLE), ("plain", HALF), ("permutation", WHOLE))]
    against += [(cell.name, cell.like) for cell in (*cheap_cells(), *further)]
    against += [(cell.name, sam_of(cell)) for cell in tuned_cheap_cells()]
    if len(plan.worlds) > 1:
        against += [(cell.name, other) for cell in parted_cells() for other in (f"plain, {WHOLE}", RECIPE)]
    return {
        **about(plan, options_of(plan)),
        "chosen": tuning["chosen"],
        "worlds": {str(world): describe(data_of(plan, world)) for world in plan.worlds},
        "before": {
            world: {
                "accuracy": mean(list(map(right, found["questions"]))),
                "known": quarters([row["p_greedy"] for row in found["known"]]),
            }
            for world, found in start.items()
        },
        "cells": {name: figure(runs, start, name) for name in dict.fromkeys(name for name, _ in runs)},
        "differences": [difference(runs, first, second) for first, second in against],
        "checked": checked(found, plan.worlds, plan.cheap_worlds) if plan.cheap_worlds else None,
        "definitions": {cell.name: cell.model_dump(mode="json") for _, cell in order},
        # What is finished of worlds that the plan leaves out is kept as well, for the next time.
        "runs": [
            {"cell": cell, "world": world, **compact(run)}
            for (cell, world), run in {**found, **finished(plan, chosen, work)}.items()
        ],
    }


def finished(plan: Plan, chosen: Mapping[str, Tuned], work: Path) -> dict[tuple[str, int], Any]:
    """The finished runs of the cells that are looked at once, in any world."""
    jobs = [
        Job(cell=cell, tuned=chosen[cell.tuned_as], world=world, plan=plan)
        for world, cell in product(Plan().further_worlds, further_cells())
    ]
    return {(job.cell.name, job.world): result_of(job, work) for job in jobs if file_of(job, work).exists()}


def sam_of(cell: Cell) -> str:
    """The cell with full SAM on the same documents."""
    return f"{cell.name.partition(',')[0]}, {SAM}"


def checked(
    runs: Mapping[tuple[str, int], Any], main_worlds: Sequence[int], more: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Cheap forms beside SAM: for each kind of documents, and the mean of both, fact by fact. The first form was chosen
    in the main worlds, so it is checked in the others only; the rest were tuned in neither."""
    forms = {
        "every 5th step, with SAM's rate": ([cell for cell in checked_cells() if cell.like and cell.sharpness], more)
    }
    for name, kind in (("every 5th step, tuned", CHEAP), ("the last fifth, tuned", LATE)):
        forms[name] = ([cell for cell in tuned_cheap_cells() if cell.name.endswith(kind)], [*main_worlds, *more])
    found = {}
    for name, (cells, worlds) in forms.items():
        there = {(cell, world): run for (cell, world), run in runs.items() if world in worlds}
        pairs = [(cell.name, sam_of(cell)) for cell in cells]
        found[name] = {
            "by_documents": [difference(there, *pair) for pair in pairs],
            "together": together(there, pairs),
        }
    return found


def data_of(plan: Plan, world: int) -> Data:
    return data(world, people=plan.people, wordings=plan.wordings, practice=plan.practice, known=plan.known)


def before(plan: Plan, world: int, work: Path) -> dict[str, Any]:
    """The base itself, measured as every taught model is."""
    import instil

    kept = work / f"base-{world}.json"
    if not kept.exists():
        found = data_of(plan, world)
        write_sealed(kept, found.examine(instil.load(found.base)))
    return read_sealed(kept)


def options_of(plan: Plan) -> str:
    number, whole = len(plan.further_worlds), len(Plan().further_worlds)
    return "" if number == whole else f"--further-worlds {number}" if number else "--main"


def about(plan: Plan, options: str, module: str = "generalization") -> dict[str, Any]:
    return {
        "command": f"python -m studies.{module} {options}".strip(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "plan": plan.model_dump(mode="json"),
    }


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tune", action="store_true", help="choose rates and ρ on development people")
    parser.add_argument("--small", action="store_true", help="both in about ten minutes, results under runs/")
    parser.add_argument("--page", action="store_true", help="write the page from the JSON, run nothing")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished cells are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--worlds", type=int, help="the first so many worlds only")
    parser.add_argument("--main", action="store_true", help="the main cells only")
    parser.add_argument("--further-worlds", type=int, help="the first so many worlds of the cells looked at once")
    given = parser.parse_args(None if words is None else list(words))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if given.page:
        from studies.generalization_page import write_page

        write_page(json.loads(given.out.read_text(encoding="utf-8")))
    elif given.small:
        tuning = tune(SMALL, given.work / "small" / "tuning", given.workers, tell)
        write_json(given.work / "small.json", study(SMALL, tuning, given.work / "small", given.workers, tell))
    elif given.tune:
        committed = json.loads(TUNING.read_text(encoding="utf-8")) if TUNING.exists() else None
        write_json(TUNING, tune(Plan(), given.work / "tuning", given.workers, tell, committed))
    else:
        tuning = json.loads(TUNING.read_text(encoding="utf-8"))
        plan = Plan()
        if given.worlds:
            plan = plan.model_copy(update={"worlds": plan.worlds[: given.worlds]})
        further = 0 if given.main else given.further_worlds
        if further is not None:
            plan = plan.model_copy(update={"further_worlds": plan.further_worlds[:further]})
        committed = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else None
        write_json(given.out, study(plan, tuning, given.work, given.workers, tell, committed))


if __name__ == "__main__":
    main()
