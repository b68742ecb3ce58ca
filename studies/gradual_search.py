"""The search for a method that forgets less: ingredients alone and together, on development subjects only.

    python -m studies.gradual_search                      every candidate that was not run yet, then the table
    python -m studies.gradual_search --only "warm" pull   candidates whose name has one of these words
    python -m studies.gradual_search --names "KL 10"      the candidates of these names
    python -m studies.gradual_search --table              the table of what was run, nothing is run

A candidate is one recipe with ingredients as settings, each off by default: with all of them off it is `sft`. What is
run is kept with the study's runs, so the table is also the record of what was tried and dropped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.first_run_page import table
from studies.gradual import WORK, Job, Plan, final_acquisition, summary, work_through
from studies.gradual_bases import BASES, BaseName
from studies.gradual_kept import RUNS, collect
from studies.gradual_measure import READINGS
from studies.gradual_run import Arm, Tuned

LAYERS = {"train": {"parameters": ["model.layers.*"]}}
MLP = {"train": {"parameters": ["*.mlp.*"]}}
DOWN = {"train": {"parameters": ["*.mlp.down_proj.*"]}}
ATTENTION = {"train": {"parameters": ["*.self_attn.*"]}}

EARLY = {"train": {"parameters": ["model.layers.[012].mlp.*"]}}
LATE = {"train": {"parameters": ["model.layers.[345].mlp.*"]}}


def recited(weight: float, per_step: int, texts: int = 300, **more: Any) -> dict[str, Any]:
    """KL to the start on texts that it recites."""
    return {"kl_weight": weight, "kl_per_step": per_step, "recited": texts, **more}


CANDIDATES: dict[str, dict[str, Any]] = {
    "plain": {},
    "warm-up": {"train": {"warmup_ratio": 0.1}},
    "falling rate": {"train": {"schedule": "linear"}},
    "warm-up, falling rate": {"train": {"schedule": "linear", "warmup_ratio": 0.1}},
    "batch 128": {"train": {"batch_size": 128}},
    "momentum 0.98": {"train": {"betas": [0.98, 0.999]}},
    "epsilon 1e-4": {"train": {"epsilon": 1e-4}},
    "epsilon 1e-3": {"train": {"epsilon": 1e-3}},
    "no embeddings": LAYERS,
    "MLP only": MLP,
    "down projections only": DOWN,
    "attention only": ATTENTION,
    "early MLP only": EARLY,
    "late MLP only": LATE,
    "one other wording": {"wordings": 1},
    "all free wordings": {"wordings": 9},
    "behind 2 mastered": {"shots": 2},
    "pages of 2": {"sheet": 2},
    "pages of 4": {"sheet": 4},
    "replay 0.5": {"replay_ratio": 0.5},
    "KL 1": {"kl_weight": 1.0},
    "KL 10": {"kl_weight": 10.0},
    "KL 30": {"kl_weight": 30.0},
    "KL 10 on 32": {"kl_weight": 10.0, "kl_per_step": 32},
    "KL 10 on 16, 300 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 300},
    "KL 1 on 32": {"kl_weight": 1.0, "kl_per_step": 32},
    "KL 1 on 32, 600 recalled": {"kl_weight": 1.0, "kl_per_step": 32, "recalled": 600},
    "replay 0.5, 600 recalled": {"replay_ratio": 0.5, "recalled": 600},
    "KL 1 on 16, 300 recited": {"kl_weight": 1.0, "kl_per_step": 16, "recited": 300},
    "300 recited": {"recited": 300, "retold": 1.0},
    "leave alone 0.1, 300 recited": {"softness": 0.1, "recited": 300},
    "leave alone 0.01, 300 recited": {"softness": 0.01, "recited": 300},
    "sparing 0.01, 300 recited": {"sparing": 0.01, "recited": 300},
    "leave alone 1": {"softness": 1.0},
    "leave alone 0.1": {"softness": 0.1},
    "leave alone 0.01": {"softness": 0.01},
    "leave alone 0.1, no embeddings": {"softness": 0.1, **LAYERS},
    "leave alone 0.01, no embeddings": {"softness": 0.01, **LAYERS},
    "leave alone 0.001, no embeddings": {"softness": 0.001, **LAYERS},
    "sparing 0.1": {"sparing": 0.1},
    "sparing 0.01": {"sparing": 0.01},
    "sparing 0.001": {"sparing": 0.001},
    "pull 0.001": {"pull": 0.001},
    "pull 0.01": {"pull": 0.01},
    "rest above 0.5": {"rest_above": 0.5, "rest_weight": 0.1},
    "MLP only, one other wording": {"wordings": 1, **MLP},
    "MLP only, replay 0.25": {"replay_ratio": 0.25, **MLP},
    "MLP only, KL 1 on 32": {"kl_weight": 1.0, "kl_per_step": 32, **MLP},
    "MLP only, KL 1 on 16, 300 recited": {"kl_weight": 1.0, "kl_per_step": 16, "recited": 300, **MLP},
    "MLP only, KL 10": {"kl_weight": 10.0, **MLP},
    "MLP only, KL 10 on 16, 300 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 300, **MLP},
    "MLP only, KL 10 on 16, 900 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 900, **MLP},
    "MLP only, KL 10 on 16, 300 recited, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "recited": 300,
        "wordings": 1,
        **MLP,
    },
    "MLP only, KL 3 on 32, 300 recited": {"kl_weight": 3.0, "kl_per_step": 32, "recited": 300, **MLP},
    "MLP only, 300 recited": {"recited": 300, "retold": 0.75, **MLP},
    "MLP only, leave alone 0.1": {"softness": 0.1, **MLP},
    "MLP only, leave alone 0.1, 300 recited": {"softness": 0.1, "recited": 300, **MLP},
    "last two MLPs only": {"train": {"parameters": ["model.layers.[45].mlp.*"]}},
    "last MLP only": {"train": {"parameters": ["model.layers.5.mlp.*"]}},
    "late MLP, one other wording": {"wordings": 1, **LATE},
    "late MLP, KL 10 on 16, 300 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 300, **LATE},
    "late MLP, KL 3 on 16, 300 recited, one other wording": {
        "kl_weight": 3.0,
        "kl_per_step": 16,
        "recited": 300,
        "wordings": 1,
        **LATE,
    },
    "SAM": {"train": {"sharpness": {"kind": "sam", "rho": 0.15}}},
    "late MLP, SAM": {"train": {**LATE["train"], "sharpness": {"kind": "sam", "rho": 0.15}}},
    "late MLP, KL 10 on 8, 300 recited": recited(10.0, 8, **LATE),
    "late MLP, KL 10 on 4, 300 recited": recited(10.0, 4, **LATE),
    "late MLP, KL 10 on 4, 100 recited": recited(10.0, 4, 100, **LATE),
    "late MLP, KL 3 on 8, 300 recited": recited(3.0, 8, **LATE),
    "late MLP, KL 3 on 4, 300 recited": recited(3.0, 4, **LATE),
    "late MLP, 6 epochs, one other wording": {"wordings": 1, "train": {**LATE["train"], "epochs": 6}},
    "late MLP, 6 epochs, KL 3 on 8, 300 recited, one other wording": {
        **recited(3.0, 8),
        "wordings": 1,
        "train": {**LATE["train"], "epochs": 6},
    },
    "upper half": {"train": {"late_mlp": 0.5}},
    "upper quarter": {"train": {"late_mlp": 0.25}},
    "upper half, KL 3 on 4, 100 recited": recited(3.0, 4, 100, train={"late_mlp": 0.5}),
    "upper half, 6 epochs, one other wording": {"wordings": 1, "train": {"late_mlp": 0.5, "epochs": 6}},
    **{
        f"upper half, {epochs} epochs, KL {weight:g} on 4, 100 recited, {wordings} other wordings": recited(
            weight, 4, 100, wordings=wordings, train={"late_mlp": 0.5, "epochs": epochs}
        )
        for epochs, wordings in ((6, 1), (4, 2))
        for weight in (3.0, 10.0)
    },
    "upper half, 6 epochs, KL 10 on 16, 300 recited, one other wording": recited(
        10.0, 16, wordings=1, train={"late_mlp": 0.5, "epochs": 6}
    ),
    "upper half, 6 epochs, KL 10 on 16, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "wordings": 1,
        "train": {"late_mlp": 0.5, "epochs": 6},
    },
    "upper half, 6 epochs, KL 10 on 16, 600 recalled, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "recalled": 600,
        "wordings": 1,
        "train": {"late_mlp": 0.5, "epochs": 6},
    },
    "MLP only, KL 10 on 32": {"kl_weight": 10.0, "kl_per_step": 32, **MLP},
    "KL 10 on 16": {"kl_weight": 10.0, "kl_per_step": 16},
    "KL 30 on 16": {"kl_weight": 30.0, "kl_per_step": 16},
    "KL 10 on 16, 600 recalled": {"kl_weight": 10.0, "kl_per_step": 16, "recalled": 600},
    "6 epochs, one other wording": {"wordings": 1, "train": {"epochs": 6}},
    "6 epochs, KL 10 on 16, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "wordings": 1,
        "train": {"epochs": 6},
    },
    "upper half, leave alone 0.1, 300 recited": {"softness": 0.1, "recited": 300, "train": {"late_mlp": 0.5}},
    "upper half, leave alone 0.01, 300 recited": {"softness": 0.01, "recited": 300, "train": {"late_mlp": 0.5}},
    "MLP only, leave alone 0.01, 300 recited": {"softness": 0.01, "recited": 300, **MLP},
    **{
        f"6 epochs, KL {weight:g} on {number}, 100 recited, mixed, one other wording{where}": recited(
            weight, number, 100, mixed=True, wordings=1, train={"epochs": 6, **layers}
        )
        for weight, number in ((3.0, 16), (10.0, 32), (3.0, 32))
        for where, layers in (("", {}), (", MLP only", MLP["train"]), (", upper half", {"late_mlp": 0.5}))
    },
    "late MLP, rest above 0.5": {"rest_above": 0.5, "rest_weight": 0.1, **LATE},
    "late MLP, pull 0.001": {"pull": 0.001, **LATE},
}
"""Each ingredient by itself; combinations join when their parts are known."""

RATES = (3e-5, 1e-4, 3e-4)


def jobs_of(
    names: Iterable[str], bases: Sequence[BaseName], rates: Sequence[float], seed: int, plan: Plan
) -> list[Job]:
    return [
        Job(
            arm=Arm(name=f"candidate: {name}", method="candidate", settings=CANDIDATES[name]),
            tuned=Tuned(rate=rate), base=base, split="development", seed=seed, plan=plan,
        )
        for base in bases
        for name in names
        for rate in rates
    ]  # fmt: skip


def told(found: Sequence[tuple[Job, Mapping[str, Any]]]) -> str:
    """A row a run: forgetting at the readings, then the ends; the least forgetting at 90 % first."""
    parts = []
    for base in dict.fromkeys(job.base for job, _ in found):
        here = [(job, result) for job, result in found if job.base == base]
        best = max(final_acquisition(dict(result)) for _, result in here)
        rows = [(job, summary(dict(result), best)) for job, result in here]

        def order(row: tuple[Job, dict[str, Any]]) -> list[float]:
            return [1.0 if one is None else one for one in reversed(row[1]["readings"].values())]

        lines = [
            (
                job.arm.name.removeprefix("candidate: "),
                f"{job.tuned.rate:g}",
                *("–" if one is None else f"{100 * one:.1f}" for one in row["readings"].values()),
                *(f"{100 * row[name]:.1f}" for name in ("acquired", "lost")),
                f"{row['perplexity']:.1f}",
                f"{row['flops'] / 1e12:.1f}",
            )
            for job, row in sorted(rows, key=order)
        ]
        heads = ("candidate", "rate", *(f"at {100 * share:.0f} %" for share in READINGS))
        parts.append(f"{base}, best final acquisition {100 * best:.1f} %\n\n")
        parts.append(table((*heads, "acquired", "lost", "perplexity", "TFLOP"), lines))
    return "".join(parts)


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", help="candidates whose name has one of these words")
    parser.add_argument("--names", nargs="+", choices=CANDIDATES, metavar="NAME", help="candidates of these names")
    parser.add_argument("--table", action="store_true", help="the table of what was run, nothing is run")
    parser.add_argument("--bases", nargs="+", choices=BASES, default=["people"], help="what is taught")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="learning rates")
    parser.add_argument("--seed", type=int, default=0, help="of the development facts")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished runs are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    given = parser.parse_args(None if words is None else list(words))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    only = given.only or ([] if given.names else [""])
    names = [name for name in CANDIDATES if name in (given.names or ()) or any(word in name for word in only)]
    jobs = jobs_of(names, given.bases, given.rates, given.seed, Plan(tuning_epochs=12))
    if given.table:
        from studies.gradual_kept import restore

        restore([*jobs, *(job.start for job in jobs)], given.work)
        jobs = [job for job in jobs if job.file(given.work).exists()]
    found = list(zip(jobs, work_through(jobs, given.work, given.workers, tell), strict=True))
    print(told(found))
    if not given.table:
        tell(f"{collect(given.work)} rows in {RUNS}")


if __name__ == "__main__":
    main()
