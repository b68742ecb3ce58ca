"""Finished cells from committed results, so that a study goes on where no folder of finished cells is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.files import write_sealed
from studies.generalization_figures import unquarters

if TYPE_CHECKING:
    from studies.generalization import Job, Plan
    from studies.generalization_worlds import Data

SIZES = ("people", "wordings", "practice", "known", "budget", "batch", "points")
"""What of a plan decides a cell's result."""


def restore(
    results: Mapping[str, Any], jobs: Iterable[Job], work: Path, data_of: Callable[[Plan, int], Data]
) -> list[str]:
    """Write under `work` what committed results say of these jobs and `work` does not have yet.

    A result that was reached with other sizes or tuned settings is left out, and so is a cell that has changed since.

    Args:
        data_of: the material of a plan's world.

    Returns:
        The names of the jobs that were restored.
    """
    runs = {(run["cell"], run["world"]): run for run in results["runs"]}
    restored = []
    for job in jobs:
        run = runs.get((job.cell.name, job.world))
        file = work / f"{job.name}.json"
        if run is None or file.exists() or not is_same(results, job):
            continue
        work.mkdir(parents=True, exist_ok=True)
        write_sealed(file, {"job": job.identity, **expanded(run, data_of(job.plan, job.world))})
        restored.append(job.name)
    return restored


def is_same(results: Mapping[str, Any], job: Job) -> bool:
    """Whether a result of this name would be reached again by this job."""
    sizes = job.plan.model_dump(mode="json")
    tuned = job.tuned.model_dump(mode="json")
    defined = results.get("definitions", {}).get(job.cell.name)
    return (
        all(results["plan"][name] == sizes[name] for name in SIZES)
        and results["chosen"].get(job.cell.tuned_as) == tuned
        and defined in (None, job.cell.model_dump(mode="json"))
    )


def expanded(run: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """The inverse of `compact`: a row a fact again."""
    first, others = unquarters(run["first"]), unquarters(run["others"])
    return {
        **{name: value for name, value in run.items() if name not in ("cell", "world", "first", "others", "known")},
        "questions": [
            {"fact": fact.id, "subject": fact.subject, "relation": fact.relation, "first": one, "others": other}
            for fact, one, other in zip(data.questions, first, others, strict=True)
        ],
        "known": [
            {"fact": fact.id, "subject": fact.subject, "p_greedy": share}
            for fact, share in zip(data.known, unquarters(run["known"]), strict=True)
        ],
    }
