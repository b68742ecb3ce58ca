"""The search for a method that forgets less: ingredients alone and together, on development subjects only.

    python -m studies.gradual_search                      every candidate that was not run yet, then the table
    python -m studies.gradual_search --only "warm" pull   candidates whose name has one of these words
    python -m studies.gradual_search --names "KL 10"      the candidates of these names
    python -m studies.gradual_search --as-tuned           with as many facts as settings are tuned on
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
from studies.gradual import WORK, Job, Plan, final_acquisition, made_of, summary, work_through
from studies.gradual_bases import BASES, SIZES, BaseName, Sizes
from studies.gradual_candidates import CANDIDATES
from studies.gradual_kept import RUNS, collect, rows_of
from studies.gradual_measure import READINGS
from studies.gradual_run import Arm, Tuned

Row = Mapping[str, Any]
"""A run, as it is kept."""

PREFIX = "candidate: "

PLAN = Plan(
    sizes={
        "people": SIZES["people"],
        "entityquestions": {
            "development": Sizes(target=400, development=100, replay=300, held_back=1000, untaught=300),
            "test": SIZES["entityquestions"]["test"],
        },
    }
)
"""Fewer facts than settings are tuned on: many candidates, quickly."""

RATES = (3e-5, 1e-4, 3e-4)


def jobs_of(
    names: Iterable[str], bases: Sequence[BaseName], rates: Sequence[float], seed: int, plan: Plan
) -> list[Job]:
    return [
        Job(
            arm=Arm(name=f"{PREFIX}{name}", method="candidate", settings=CANDIDATES[name]),
            tuned=Tuned(rate=rate), base=base, split="development", seed=seed, plan=plan,
        )
        for base in bases
        for name in names
        for rate in rates
    ]  # fmt: skip


def kept_rows(file: Path = RUNS) -> list[Row]:
    """The candidates' runs that are committed, of the bases as they are now. A fact more or less that is asked changes
    what is seen of a candidate by less than noise, so the version of the draw may be an earlier one."""

    def undrawn(of: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in of.items() if name != "drawn"}

    now = {base: undrawn(made_of(base)) for base in BASES}
    return [
        row
        for row in rows_of(file)
        if (job := row["job"]).get("arm", {}).get("name", "").startswith(PREFIX)
        and (job["split"], undrawn(job["of"])) == ("development", now[job["base"]])
    ]


def told(rows: Iterable[Row]) -> dict[str, str]:
    """By base and number of facts taught, a table with a line a run: forgetting at the readings, then the ends; the
    least forgetting at 90 % first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        job = row["job"]
        found.setdefault(f"{job['base']}, {job['plan']['sizes']['target']} facts taught", []).append(row)
    return {base: told_of(here) for base, here in found.items()}


def told_of(rows: Sequence[Row]) -> str:
    best = max(final_acquisition(dict(row)) for row in rows)
    found = [(row["job"], summary(dict(row), best)) for row in rows]

    def order(one: tuple[Mapping[str, Any], dict[str, Any]]) -> list[Any]:
        reads = [1.0 if read is None else read for read in reversed(one[1]["readings"].values())]
        return [*reads, -one[1]["acquired"], one[0]["arm"]["name"]]

    lines = [
        (
            job["arm"]["name"].removeprefix(PREFIX),
            f"{job['tuned']['rate']:g}",
            *("–" if one is None else f"{100 * one:.1f}" for one in row["readings"].values()),
            *(f"{100 * row[name]:.1f}" for name in ("acquired", "lost")),
            f"{row['perplexity']:.1f}",
            f"{row['flops'] / 1e12:.1f}",
        )
        for job, row in sorted(found, key=order)
    ]
    heads = ("candidate", "rate", *(f"at {100 * share:.0f} % ({100 * share * best:.1f} %)" for share in READINGS))
    return table((*heads, "acquired", "lost", "perplexity", "TFLOP"), lines)


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", help="candidates whose name has one of these words")
    parser.add_argument("--names", nargs="+", choices=CANDIDATES, metavar="NAME", help="candidates of these names")
    parser.add_argument("--as-tuned", action="store_true", help="with as many facts as settings are tuned on")
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
    rows = kept_rows()
    if not given.table:
        names = [name for name in CANDIDATES if name in (given.names or ()) or any(word in name for word in only)]
        jobs = jobs_of(names, given.bases, given.rates, given.seed, Plan() if given.as_tuned else PLAN)
        rows = work_through(jobs, given.work, given.workers, tell)
        tell(f"{collect(given.work)} rows in {RUNS}")
    for base, lines in told(rows).items():
        print(f"{base}\n\n{lines}")


if __name__ == "__main__":
    main()
