"""Does the probability of a fact's tokens in paraphrased contexts tell whether a question about the fact is answered?

    python -m studies.generalization_contexts     after `python -m studies.generalization`, whose models it reads
    python -m studies.generalization_contexts --page     docs/results/contexts.md from the JSON

The diagnosis of Zhu et al. (2025, arXiv 2503.03705), over cells and along their training. Contexts are of three groups:
the document *as written*; the fact's sentence *elsewhere* (in other formats and orders, and alone); and *reworded*, in
a wording of the world that no cell was trained on, and in completions. None needs a question.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from instil.exam.contexts import ContextConfig, contexts_of_facts
from instil.exam.statistics import Figure
from instil.files import read_sealed, write_json, write_sealed
from instil.loop.hardware import commit, hardware
from studies.generalization import TUNING, WORK, Job, Plan, Tuned, data_of, main_cells, one_thread
from studies.generalization_figures import right

RESULTS = Path(__file__).parent / "results" / "generalization_contexts.json"
CONTEXTS = ContextConfig(formats=("html", "shuffling"), first_paraphrase=4)
"""Of the five further wordings of a biography, the paraphrase cells train on the first four."""

GROUPS = ("as_written", "elsewhere", "reworded")
DRAWS = 10_000
Spot = Mapping[str, Any]
"""One model, somewhere along its training: cell, world, accuracy, and the mean probability by group."""


def spots_of(job: Job, work: Path) -> list[dict[str, Any]]:
    """All models that were kept of a run: along the curve, and at its end."""
    import instil
    from instil.probe.contexts import prepare_contexts, score_contexts

    kept = work / "contexts" / f"{job.name}.json"
    if kept.exists():
        return list(read_sealed(kept)["spots"])
    run, found = read_sealed(work / f"{job.name}.json"), data_of(job.plan, job.world)
    contexts = contexts_of_facts(found.questions, found.documents, CONTEXTS)
    prepared, spots = None, []
    for number, point in enumerate([*run["curve"], None], start=1):
        lm = instil.load(work / "models" / job.name / (f"point-{number}" if point else "end"))
        prepared = prepared or prepare_contexts(lm, contexts)
        by_fact = means(score_contexts(lm, prepared))
        spot = {
            "cell": job.cell.name,
            "world": job.world,
            "flops": point["flops"] if point else run["flops"],
            "end": point is None,
            "accuracy": point["accuracy"] if point else share([row["first"] for row in run["questions"]]),
            **{group: share([fact[group] for fact in by_fact.values() if group in fact]) for group in GROUPS},
        }
        if point is None:
            answered = {row["fact"]: right(row) for row in run["questions"]}
            spot["facts"] = {
                group: [[fact[group], answered[name]] for name, fact in by_fact.items() if group in fact]
                for group in GROUPS
            }
        spots.append(spot)
    kept.parent.mkdir(exist_ok=True)
    write_sealed(kept, {"spots": spots})
    return spots


def means(scores: Iterable[Any]) -> dict[str, dict[str, float]]:
    """Fact to group to the mean over its contexts of the tokens' geometric mean probability."""
    from instil.exam.contexts import group_of

    found: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        groups = found.setdefault(score.context.item, {})
        groups.setdefault(group_of(score.context.kind), []).append(score.per_token)
    return {name: {group: share(values) for group, values in groups.items()} for name, groups in found.items()}


def share(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# ------------------------------------------------------------------ correlation


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def across_models(spots: Sequence[Spot], group: str) -> Figure:
    """Spearman's correlation of probability and accuracy over models; runs (a cell in a world) are resampled whole."""
    import numpy as np

    runs: dict[tuple[str, int], list[Spot]] = {}
    for spot in spots:
        runs.setdefault((spot["cell"], spot["world"]), []).append(spot)
    whole, rng = list(runs.values()), np.random.default_rng(0)

    def of(chosen: Sequence[Sequence[Spot]]) -> float:
        flat = [spot for run in chosen for spot in run]
        return rank_correlation([spot[group] for spot in flat], [spot["accuracy"] for spot in flat])

    draws = [of([whole[place] for place in rng.integers(0, len(whole), len(whole))]) for _ in range(DRAWS // 10)]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Figure(of(whole), float(low), float(high), len(spots), len(whole))


def within_models(ends: Sequence[Spot], group: str) -> Figure:
    """How often, of a fact that is answered and one that is not, the former has the higher probability (area under the
    curve); the mean over models, which are resampled."""
    import numpy as np

    values = [area for spot in ends if (area := area_under(spot["facts"][group])) is not None]
    rng = np.random.default_rng(0)
    draws = np.mean(np.array(values)[rng.integers(0, len(values), (DRAWS, len(values)))], axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Figure(share(values), float(low), float(high), sum(len(spot["facts"][group]) for spot in ends), len(values))


def area_under(pairs: Sequence[Sequence[float]]) -> float | None:
    """Of (probability, share of right answers); a fact is answered where at least half of the answers are right. Ties
    count half; None where all facts are on one side.

    >>> area_under([(0.9, 1.0), (0.2, 0.0), (0.5, 1.0), (0.6, 0.0)])
    0.75
    """
    yes = [probability for probability, answers in pairs if answers >= 0.5]
    no = [probability for probability, answers in pairs if answers < 0.5]
    if not yes or not no:
        return None
    won = sum((one > other) + 0.5 * (one == other) for one in yes for other in no)
    return won / (len(yes) * len(no))


# -------------------------------------------------------------------- reporting


def study(plan: Plan, work: Path, workers: int) -> dict[str, Any]:
    chosen = {name: Tuned(**found) for name, found in json.loads(TUNING.read_text(encoding="utf-8"))["chosen"].items()}
    jobs = [
        Job(cell=cell, tuned=chosen[cell.name], world=world, plan=plan)
        for world in plan.kept_worlds
        for cell in main_cells()
    ]
    spots: list[dict[str, Any]] = []
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as pool:
        for job, found in zip(jobs, pool.map(spots_of, jobs, [work] * len(jobs)), strict=True):
            print(job.name, file=sys.stderr, flush=True)
            spots += found
    ends = [spot for spot in spots if spot["end"]]
    return {
        "command": "python -m studies.generalization_contexts",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "plan": plan.model_dump(mode="json"),
        "contexts": CONTEXTS.model_dump(mode="json"),
        "along_training": {group: across_models(spots, group).to_dict() for group in GROUPS},
        "at_the_end": {group: across_models(ends, group).to_dict() for group in GROUPS},
        "fact_by_fact": {group: within_models(ends, group).to_dict() for group in GROUPS},
        "spots": [{name: value for name, value in spot.items() if name != "facts"} for spot in spots],
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--page", action="store_true", help="write the page from the JSON, run nothing")
    parser.add_argument("--work", type=Path, default=WORK, help="where the study of generalization kept its models")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    given = parser.parse_args(words)
    if given.page:
        from studies.generalization_page import write_contexts_page

        write_contexts_page(json.loads(given.out.read_text(encoding="utf-8")))
    else:
        write_json(given.out, study(Plan(), given.work, given.workers))


if __name__ == "__main__":
    main()
