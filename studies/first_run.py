"""The first run on real input: a base that knows EntityQuestions facts is probed, then taught by `sft` and `gradual`.

    python -m studies.first_run --out studies/results/first_run.json         everything, about twenty minutes on 2 cores
    python -m studies.first_run --out runs/small.json --small                a few minutes, to see that it works
    python -m studies.first_run --page                                       docs/results/first-run.md from the JSON

It needs the public data (INSTIL_DATA), since the facts are not copied into the project. An interrupted run goes on
where it stopped when it is started again with the same options.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

import instil
from instil.exam.statistics import Figure, crossed, share
from instil.facts import Fact, FactSet, Role
from instil.files import write_json
from instil.ledger import Ledger
from instil.loop import TeachResult
from instil.loop.hardware import commit, hardware
from instil.probe import Category, MasteryMap, ProbeConfig, probe
from studies.entityquestions import World, build_world, describe
from studies.entityquestions_text import paragraphs

HERE = Path(__file__).parent
BASE = HERE / "bases" / "entityquestions"
RESULTS = HERE / "results" / "first_run.json"
CATEGORIES = tuple(str(category) for category in Category)


class Arm(BaseModel):
    """One way to teach, with the facts it gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="how the tables call it")
    method: str = Field(description="a method of Instil")
    settings: dict[str, Any] = Field(description="of the method, beside the training settings that all arms share")
    category: str | None = Field(default=None, description="only target facts of this category; None: as they come")


ARMS = (
    Arm(name="sft", method="sft", settings={}),
    Arm(name="sft, early stop", method="sft", settings={"early_stop": True}),
    Arm(name="gradual", method="gradual", settings={}),
    Arm(name="sft on MaybeKnown", method="sft", settings={}, category="MaybeKnown"),
    Arm(name="sft on Unknown", method="sft", settings={}, category="Unknown"),
)


class Plan(BaseModel):
    """Sizes and settings; all arms share them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="of the facts drawn and of the order of training")
    probed: int = Field(default=3000, description="target facts probed for the base's natural shares and for the arms")
    probed_again: int = Field(default=600, description="of these, probed with other exemplars too (the noise floor)")
    mixed: int = Field(default=600, description="facts taught in the arms that take them as they come")
    one_category: int = Field(default=240, description="facts taught in the arms of one category")
    held_back: int = Field(default=600, description="facts that are never taught, asked before and after")
    known: int = Field(default=200, description="facts that `gradual` may replay once it finds them HighlyKnown")
    development: int = Field(default=120, description="facts that early stop looks at")
    general: int = Field(
        default=40, description="beginnings of Wikipedia articles that the base never saw, for perplexity"
    )
    budget_mixed: float = Field(default=8e12, description="floating-point operations for teaching, deciding included")
    budget_one_category: float = Field(default=3e12, description="the same, for the arms of one category")
    train: dict[str, Any] = Field(
        default={"epochs": 30, "learning_rate": 5e-5, "batch_size": 32, "save_every": "never"},
        description="training settings of every arm; the budget ends most arms before the last epoch",
    )
    probe: dict[str, Any] = Field(default={"seed": 0}, description="exemplars are the same in every arm and seed")
    exam: dict[str, Any] = Field(
        default={"wordings": 2, "held_back_wordings": 0, "reworded_sets": 3, "confidence_sets": 2},
        description="settings of the exam; a little less than its defaults, to keep the run short",
    )


SMALL = Plan(
    seeds=(0,),
    probed=300,
    probed_again=100,
    mixed=60,
    one_category=20,
    held_back=80,
    known=30,
    development=24,
    general=4,
    budget_mixed=6e11,
    budget_one_category=2e11,
)


# ---------------------------------------------------------------------- running


class Study:
    """The steps of the study; each is skipped when its result is on disk."""

    def __init__(self, plan: Plan, work: Path, world: World, tell: Callable[[str], None] = print) -> None:
        self.plan, self.work, self.world, self.tell = plan, work, world, tell
        self.base = instil.load(BASE)
        self.exemplars = world.split("exemplars")
        self.pool = world.split("target").sample(plan.probed, seed=0)

    def mastery(self, facts: FactSet, seed: int, name: str) -> MasteryMap:
        """A probe of the untouched base, on disk once made."""
        kept = self.work / f"{name}.parquet"
        if not kept.exists():
            self.tell(f"probing {len(facts)} facts ({name})")
            config = ProbeConfig(**{**self.plan.probe, "seed": seed})
            probe(self.base, facts, self.exemplars, config).save(kept)
        return MasteryMap.load(kept)

    def natural(self) -> MasteryMap:
        return self.mastery(self.pool, int(self.plan.probe["seed"]), "natural")

    def with_other_exemplars(self) -> MasteryMap:
        again = self.pool.sample(self.plan.probed_again, seed=0)
        return self.mastery(again, int(self.plan.probe["seed"]) + 1, "other-exemplars")

    def roles(self, arm: Arm, seed: int) -> dict[Role, FactSet]:
        """The facts of one arm and seed. Arms of one seed have the same held-back, development and known facts."""
        target, count = self.pool, self.plan.mixed
        if arm.category:
            ids = self.natural().where(arm.category)
            target, count = self.pool.where(lambda fact: fact.id in ids), self.plan.one_category
        return {
            Role.TARGET: target.sample(count, seed),
            Role.HELD_BACK: self.world.split("held_back").sample(self.plan.held_back, seed),
            Role.KNOWN: self.world.split("known").sample(self.plan.known, seed),
            Role.DEVELOPMENT: self.world.split("development").sample(self.plan.development, seed),
            Role.EXEMPLAR: self.exemplars,
        }

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """One arm with one seed: its summary and one row for each examined fact."""
        kept = self.work / f"{slug(arm.name)}-{seed}.json"
        if not kept.exists():
            self.tell(f"{arm.name}, seed {seed}")
            out = self.work / f"{slug(arm.name)}-{seed}"
            started = time.monotonic()
            result = instil.teach(
                self.base,
                method=arm.method,
                out=out,
                config={**arm.settings, "train": self.plan.train, "probe": self.plan.probe, "exam": self.plan.exam},
                budget=self.plan.budget_one_category if arm.category else self.plan.budget_mixed,
                seed=seed,
                roles=self.roles(arm, seed),
                general=[next(paragraphs(article)) for article in self.world.general[: self.plan.general]],
                resume=out.exists(),
            )
            assert isinstance(result, TeachResult)
            rows = Ledger(result.ledger).read("verdicts").to_pylist()
            stages = Ledger(result.ledger).read("stages").to_pylist()
            finished = {"seconds": round(time.monotonic() - started, 1), "summary": dict(result.summary)}
            write_json(kept, {**finished, "rows": rows, "stages": stages})
            shutil.rmtree(out)
        return {"arm": arm.name, "seed": seed, **json.loads(kept.read_text(encoding="utf-8"))}


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


# -------------------------------------------------------------------- measuring


def study(plan: Plan, work: Path, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything that the JSON holds."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    world = build_world()
    steps = Study(plan, work, world, tell)
    about = describe(world)
    natural, again = steps.natural(), steps.with_other_exemplars()
    runs = [steps.run(arm, seed) for arm in ARMS for seed in plan.seeds]
    return {
        "command": "python -m studies.first_run",
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "plan": plan.model_dump(mode="json"),
        "base": {
            "fingerprint": steps.base.fingerprint,
            "dtype": str(steps.base.dtype).removeprefix("torch."),
            "pretraining": json.loads((BASE / "pretraining.json").read_text(encoding="utf-8")),
            "world": world.config.model_dump(mode="json"),
            "about_world": {name: value for name, value in about.items() if name not in ("config", "splits")},
            "splits": about["splits"],
            **describe_base(steps.pool, natural, again),
        },
        "arms": [describe_arm(arm, [run for run in runs if run["arm"] == arm.name]) for arm in ARMS],
        "differences": differences(runs),
    }


def describe_base(pool: FactSet, natural: MasteryMap, again: MasteryMap) -> dict[str, Any]:
    """Natural shares with intervals, by relation and by exposures, and how much of them other exemplars change."""
    facts = [pool.by_id[row.fact_id] for row in natural]
    subjects = [fact.cluster for fact in facts]
    moved = [(natural.by_id[row.fact_id].category, row.category) for row in again]
    half = [row.category is Category.WEAKLY_KNOWN or row.category is Category.UNKNOWN for row in natural]
    return {
        "shares": {
            category: share([row.category == category for row in natural], subjects).to_dict()
            for category in CATEGORIES
        },
        "known": share([row.known for row in natural], subjects).to_dict(),
        "guessable": share([(row.p_prior or 0) >= 0.25 for row in natural], subjects).to_dict(),
        "gold_in_prompt": share([row.gold_in_prompt for row in natural], subjects).to_dict(),
        "not_known_at_all": share(half, subjects).to_dict(),
        "by_exposures": by_key(facts, natural, exposures_of),
        "by_relation": by_key(facts, natural, lambda fact: str(fact.relation)),
        "other_exemplars": {
            "facts": len(moved),
            "changed": share([first != second for first, second in moved], [row.fact_id for row in again]).to_dict(),
            "transition": transition(moved),
        },
    }


def exposures_of(fact: Fact) -> str:
    """Exposures of the right answer in one pass, with a mark where sources contradict."""
    right, wrong = fact.metadata["exposures"], fact.metadata["rival_exposures"]
    return "sources contradict" if wrong else f"{right}"


def by_key(facts: Sequence[Fact], mastery: MasteryMap, key: Callable[[Fact], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        groups[key(fact)].append(str(mastery.category_of(fact.id)))
    order = sorted(groups, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    return {name: {"n": len(groups[name]), **shares_of(groups[name])} for name in order}


def shares_of(categories: Sequence[str]) -> dict[str, float]:
    return {category: round(categories.count(category) / len(categories), 4) for category in CATEGORIES}


def transition(moves: Iterable[tuple[str, str]]) -> list[list[int]]:
    """Counts from (row) to (column), HighlyKnown first."""
    counts = Counter((str(first), str(second)) for first, second in moves)
    return [[counts[first, second] for second in CATEGORIES] for first in CATEGORIES]


Row = Mapping[str, Any]
"""A row of the ledger's table of verdicts."""


def was_known(row: Row) -> bool:
    return bool(row["p_greedy_before"] >= 0.5)


def is_known(row: Row) -> bool:
    return bool(row["p_greedy_after"] >= 0.5)


# A figure is the mean of a value over some of a run's rows: name -> (which rows, what value).
FIGURES: dict[str, tuple[Callable[[Row], bool], Callable[[Row], float]]] = {
    "acquired": (lambda row: row["role"] == "target" and not was_known(row), is_known),
    "acquired_reworded": (
        lambda row: row["role"] == "target" and not was_known(row) and row["reworded_known_after"] is not None,
        lambda row: row["reworded_known_after"],
    ),
    "retained": (lambda row: row["role"] == "held_back" and was_known(row), is_known),
    "retained_highly_known": (
        lambda row: row["role"] == "held_back" and row["category_before"] == "HighlyKnown",
        lambda row: row["category_after"] == "HighlyKnown",
    ),
    "held_back_accuracy": (lambda row: row["role"] == "held_back", lambda row: row["p_greedy_after"]),
    "held_back_accuracy_change": (
        lambda row: row["role"] == "held_back",
        lambda row: row["p_greedy_after"] - row["p_greedy_before"],
    ),
    "risen_untaught": (
        lambda row: row["role"] == "held_back" and row["category_before"] in ("WeaklyKnown", "Unknown"),
        lambda row: row["category_after"] in ("MaybeKnown", "HighlyKnown"),
    ),
    "target_highly_known": (lambda row: row["role"] == "target", lambda row: row["category_after"] == "HighlyKnown"),
}


def describe_arm(arm: Arm, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures pooled over seeds, the held-back accuracy by start category, the transition of taught facts, cost."""
    rows = [(run["seed"], row) for run in runs for row in run["rows"]]
    return {
        **arm.model_dump(mode="json"),
        "figures": {name: pooled(rows, *figure).to_dict() for name, figure in FIGURES.items()},
        "held_back_by_category": {
            category: pooled(rows, held_back_of(category), is_known).to_dict() for category in CATEGORIES
        },
        "target_transition": transition(
            (row["category_before"], row["category_after"]) for _, row in rows if row["role"] == "target"
        ),
        "runs": [
            {
                "seed": run["seed"],
                "seconds": run["seconds"],
                "headline": run["summary"]["headline"],
                "cost": run["summary"]["cost"],
                "budget": run["summary"]["budget"],
                "facts": run["summary"]["data"]["facts"],
                "left_out": run["summary"]["left_out"],
                "stages": stages_of(run["stages"]),
            }
            for run in runs
        ],
    }


def held_back_of(category: str) -> Callable[[Row], bool]:
    return lambda row: row["role"] == "held_back" and row["category_before"] == category


def pooled(rows: Sequence[tuple[int, Row]], which: Callable[[Row], bool], value: Callable[[Row], float]) -> Figure:
    """The mean over seeds and facts; seeds and subjects are both resampled for the interval."""
    chosen = [(seed, row) for seed, row in rows if which(row)]
    values = [float(value(row)) for _, row in chosen]
    return crossed(values, [subject_of(row) for _, row in chosen], [seed for seed, _ in chosen])


def subject_of(row: Row) -> str:
    return str(row["subject"] or row["fact_id"])


def stages_of(points: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each stage trained on and for how long."""
    last: dict[str, Mapping[str, Any]] = {}
    for point in points:
        last[point["stage"]] = point
    return [
        {"stage": stage, "facts": point["facts"], "epochs": point["epoch"], "loss": point["loss"]}
        for stage, point in last.items()
    ]


PAIRS = (
    ("gradual", "sft"),
    ("gradual", "sft, early stop"),
    ("sft, early stop", "sft"),
    ("sft on MaybeKnown", "sft on Unknown"),
)


def differences(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """First arm minus second, fact by fact, where both arms of one seed asked the same facts."""
    found = []
    for first, second in PAIRS:
        for name, (which, value) in FIGURES.items():
            if name == "held_back_accuracy":
                continue  # its change has the same differences
            pairs = paired(runs, first, second, which, value)
            if pairs:
                gaps, subjects, seeds = zip(*pairs, strict=True)
                found.append(
                    {"figure": name, "first": first, "second": second, **crossed(gaps, subjects, seeds).to_dict()}
                )
    return found


def paired(
    runs: Sequence[Mapping[str, Any]],
    first: str,
    second: str,
    which: Callable[[Row], bool],
    value: Callable[[Row], float],
) -> list[tuple[float, str, int]]:
    """(difference, subject, seed) for the facts that both arms examined. Before teaching, both are the same model."""
    values: dict[tuple[str, int, str], tuple[float, str]] = {}
    for run in runs:
        if run["arm"] in (first, second):
            for row in run["rows"]:
                if which(row):
                    values[run["arm"], run["seed"], row["fact_id"]] = (float(value(row)), subject_of(row))
    return [
        (one - values[second, seed, fact_id][0], subject, seed)
        for (arm, seed, fact_id), (one, subject) in values.items()
        if arm == first and (second, seed, fact_id) in values
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON (default: the committed one)")
    parser.add_argument("--work", type=Path, help="folder of unfinished work (default: runs/first_run, or -small)")
    parser.add_argument("--small", action="store_true", help="a few minutes instead of the whole study")
    parser.add_argument("--page", action="store_true", help="only write the page and the card from the JSON")
    options = parser.parse_args()
    if options.page:
        from studies.first_run_page import write_pages

        write_pages(json.loads(options.out.read_text(encoding="utf-8")))
        return
    plan = SMALL if options.small else Plan()
    work = options.work or Path("runs") / ("first_run-small" if options.small else "first_run")
    work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(plan, work)
    write_json(options.out, study(plan, work))


def refuse_other_plan(plan: Plan, work: Path) -> None:
    """Work left by another plan, or on another base, must not be mixed with this one's."""
    mark, wanted = work / "plan.json", {"plan": plan.model_dump(mode="json"), "base": instil.load(BASE).fingerprint}
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8")) != wanted:
        raise instil.InputError("the folder holds work of another plan or base", file=work, expected="--work ANOTHER")
    write_json(mark, wanted)


if __name__ == "__main__":
    main()
