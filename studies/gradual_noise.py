"""The noise floor of the study of gradual learning: how many facts change category when nothing is trained.

    python -m studies.gradual_noise               both bases; most of the time goes into sampling EntityQuestions facts
    python -m studies.gradual_noise --small       a few facts of one base, to see that it works; results under runs/

The paper counts facts that rose after a stage that did not train on them. Its reviewers asked how many would have risen
anyway. So the base is asked twice, on the test split's facts that may be taught, in four ways:

| asked again | what differs |
|---|---|
| exact, same sets | the order of the facts and the size of batches, which must change nothing |
| exact, other sets | the exemplars of the ten prompts |
| sampled, same sets | the sixteen samples a prompt: the paper's way |
| sampled, other sets | both |

Several draws of each. `shares` and `changed` say the same of a model before and after training, such as the arm that
trains on HighlyKnown facts only. Every probe is kept under --work, and an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import instil
from instil.exam import Figure, crossed
from instil.exam.statistics import share
from instil.facts import FactSet
from instil.files import read_sealed, write_json
from instil.loop.hardware import commit, hardware
from instil.model import LanguageModel
from instil.probe import Category, MasteryMap, ProbeConfig, draw_exemplars, probe
from studies.generalization import one_thread
from studies.gradual_bases import BASES, ONCE, BaseName, base_of

RESULTS = Path(__file__).parent / "results" / "gradual_noise.json"
WORK = Path("runs") / "gradual_noise"

LETTERS = "".join(category[0] for category in Category)
"""One for each category, the best known first: HMWU."""

Table = dict[str, dict[str, int]]
"""Facts by their category before, then by that after."""


# ------------------------------------------------------------ before and after


def changed(before: str, after: str) -> Table:
    """How many facts went from each category to each.

    Args:
        before: a letter a fact: H, M, W or U.
        after: likewise, of the same facts.

    Raises:
        ValueError: the two are not of one length, or have other letters.

    >>> changed("UUWM", "UWWH")["U"]
    {'H': 0, 'M': 0, 'W': 1, 'U': 1}
    """
    if other := {*before, *after} - {*LETTERS}:
        raise ValueError(f"not a category: {sorted(other)}")
    table = {start: dict.fromkeys(LETTERS, 0) for start in LETTERS}
    for start, end in zip(before, after, strict=True):
        table[start][end] += 1
    return table


def rank(letter: str) -> int:
    """0 for Unknown to 3 for HighlyKnown."""
    return len(LETTERS) - 1 - LETTERS.index(letter)


MOVES: dict[str, Callable[[int, int], bool | None]] = {
    "changed": lambda before, after: after != before,
    "rose": lambda before, after: after > before and after >= rank("M"),
    "lifted": lambda before, after: after >= rank("M") if before < rank("M") else None,
    "fell": lambda before, after: after < before,
}
"""What may be said of a fact by its ranks before and after; None where it is not among those of which it is said.

`rose` is what `gradual` adds in stage 2: a higher category, MaybeKnown at least. `lifted` is the paper's effect: of the
facts that were WeaklyKnown or Unknown, which stage 1 does not train on, those that are MaybeKnown or HighlyKnown after.
"""


@dataclass(frozen=True)
class Twice:
    """Some facts before and after.

    Attributes:
        before: a letter a fact.
        after: likewise.
        groups: what keeps facts together, such as their subject.
    """

    before: str
    after: str
    groups: Sequence[str]


def shares(draws: Mapping[int, Twice]) -> dict[str, Figure]:
    """The share of the facts that made each of `MOVES`, with its interval: draws and subjects are resampled.

    Args:
        draws: by the seed of the draw, or of the run. They need not have the same facts.
    """
    return {name: figure(draws, made) for name, made in MOVES.items()}


def figure(draws: Mapping[int, Twice], made: Callable[[int, int], bool | None]) -> Figure:
    rows = [
        (float(answer), group, seed)
        for seed, one in draws.items()
        for before, after, group in zip(one.before, one.after, one.groups, strict=True)
        if (answer := made(rank(before), rank(after))) is not None
    ]
    if not rows:
        return Figure(None, None, None, 0, 0, "nothing to measure")
    values, groups, seeds = zip(*rows, strict=True)
    if len(set(values)) == 1:
        return share(values, groups)
    found = crossed(values, groups, seeds)
    if found.low is None or found.high is None:
        return found
    # Few draws are allowed for by stretching the resamples, which can take a share below 0 or above 1.
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def added(tables: Iterable[Table]) -> Table:
    """The sums of several tables."""
    found = list(tables)
    return {start: {end: sum(one[start][end] for one in found) for end in LETTERS} for start in LETTERS}


# ---------------------------------------------------------------------- asking


@dataclass(frozen=True)
class Asking:
    """One probe of the base.

    Attributes:
        engine: of the probe.
        sets: seed of the exemplar sets; 0 for those of the study.
        samples: seed of the samples.
        turned: seed of another order of the facts, in smaller batches; 0 for the plain one.
    """

    engine: Literal["exact", "sampled"]
    sets: int = 0
    samples: int = 0
    turned: int = 0

    @property
    def name(self) -> str:
        return f"{self.engine}-sets{self.sets}-samples{self.samples}-turned{self.turned}"


def pairs(draws: Sequence[int]) -> dict[str, dict[int, tuple[Asking, Asking]]]:
    """The probes to compare, by way and draw."""
    exact, sampled = Asking("exact"), Asking("sampled")
    return {
        "exact, same sets": {draw: (exact, Asking("exact", turned=draw)) for draw in draws},
        "exact, other sets": {draw: (exact, Asking("exact", sets=draw)) for draw in draws},
        "sampled, same sets": {draw: (sampled, Asking("sampled", samples=draw)) for draw in draws},
        "sampled, other sets": {draw: (sampled, Asking("sampled", sets=draw, samples=draw)) for draw in draws},
    }


def ask_again(
    lm: LanguageModel, facts: FactSet, exemplars: FactSet, one: Asking, out: Path, config: ProbeConfig = ONCE
) -> str:
    """The facts' categories, a letter each, in their order; kept in the folder `out`."""
    sets = draw_exemplars(exemplars, facts.by_relation, config.model_copy(update={"seed": one.sets}))
    more: dict[str, Any] = {"engine": one.engine, "seed": one.samples}
    asked = facts
    if one.turned:
        order = list(facts)
        random.Random(f"turned {one.turned}").shuffle(order)
        asked, more["batch_tokens"] = FactSet(order), max(64, config.batch_tokens // (1 + one.turned))
    if not (out / "summary.json").exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of relations with few exemplars: they are in the results
            probe(lm, asked, sets, config.model_copy(update=more), out=out, resume=True)
    found = MasteryMap.load(out / "mastery.parquet")
    return "".join(found.category_of(fact.id)[0] for fact in facts)


# --------------------------------------------------------------------- the study


class Plan(BaseModel):
    """Sizes that all bases share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bases: tuple[BaseName, ...] = Field(default=BASES, description="what is asked")
    facts: int = Field(default=1500, ge=1, description="facts asked exactly")
    sampled_facts: int = Field(default=1500, ge=1, description="of these, facts asked by sampling")
    draws: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1, description="seeds of what is drawn anew; not 0")
    seed: int = Field(default=0, description="of the facts drawn from the split")


SMALL = Plan(bases=("people",), facts=60, sampled_facts=30, draws=(1, 2))


def facts_of(name: BaseName, plan: Plan, engine: str) -> FactSet:
    """Test facts that may be taught; those that are sampled are some of those that are asked exactly."""
    found = base_of(name).taught["test"].sample(plan.facts, plan.seed)
    return found if engine == "exact" else found.sample(plan.sampled_facts, plan.seed)


def askings(plan: Plan) -> list[Asking]:
    return list(dict.fromkeys(one for way in pairs(plan.draws).values() for pair in way.values() for one in pair))


def asked(job: tuple[BaseName, Asking], plan: Plan, work: Path) -> dict[str, Any]:
    """The letters of one probe of one base, and what it cost."""
    name, one = job
    base, facts = base_of(name), facts_of(name, plan, one.engine)
    lm = instil.load(base.load)
    out = work / f"{name}-{lm.fingerprint}-{facts.fingerprint}-{one.name}"
    letters = ask_again(lm, facts, base.exemplars, one, out)
    return {"letters": letters, "model": lm.fingerprint, "cost": read_sealed(out / "summary.json")["cost"]}


def study(plan: Plan, work: Path, workers: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Everything that the JSON holds."""
    jobs = [(base, one) for base in plan.bases for one in askings(plan)]
    found: dict[tuple[BaseName, Asking], dict[str, Any]] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as pool:
        results = pool.map(partial(asked, plan=plan, work=work), jobs)
        for (base, one), result in zip(jobs, results, strict=True):
            found[base, one] = result
            tell(f"{len(found)}/{len(jobs)} {base}, {one.name}: {result['cost']['seconds']:.0f} s")
    return {
        "command": "python -m studies.gradual_noise",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "plan": plan.model_dump(mode="json"),
        "bases": {base: described(base, plan, {one: found[base, one] for one in askings(plan)}) for base in plan.bases},
    }


def described(name: BaseName, plan: Plan, found: Mapping[Asking, Mapping[str, Any]]) -> dict[str, Any]:
    """One base's figures."""
    base, exact = base_of(name), facts_of(name, plan, "exact")
    groups = {
        engine: [base.groups[fact.id] for fact in facts_of(name, plan, engine)] for engine in ("exact", "sampled")
    }
    return {
        "model": found[Asking("exact")]["model"],
        "facts": {"fingerprint": exact.fingerprint, "few_exemplars": few_exemplars(exact, base.exemplars)},
        "probes": [
            {**asdict(one), "categories": result["letters"], "cost": result["cost"]} for one, result in found.items()
        ],
        "ways": {
            way: compared(
                {
                    draw: Twice(found[one]["letters"], found[other]["letters"], groups[one.engine])
                    for draw, (one, other) in of_way.items()
                }
            )
            for way, of_way in pairs(plan.draws).items()
        },
    }


def compared(draws: Mapping[int, Twice]) -> dict[str, Any]:
    """One way's tables, by draw and in all, and its figures."""
    tables = {draw: changed(one.before, one.after) for draw, one in draws.items()}
    first = next(iter(draws.values()))
    return {
        "facts": len(first.before),
        "subjects": len(set(first.groups)),
        "draws": list(draws),
        "table": added(tables.values()),
        "by_draw": {str(draw): table for draw, table in tables.items()},
        "shares": {name: one.to_dict() for name, one in shares(draws).items()},
    }


def few_exemplars(facts: FactSet, exemplars: FactSet) -> list[str]:
    """Relations whose other sets have exemplars in common with the study's: of them the noise is understated."""
    return list(draw_exemplars(exemplars, facts.by_relation, ONCE).warnings)


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="the JSON (default: the committed one)")
    parser.add_argument("--bases", nargs="+", choices=BASES, help="these bases only")
    parser.add_argument("--facts", type=int, help="facts asked exactly")
    parser.add_argument("--sampled-facts", type=int, help="of these, facts asked by sampling")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished probes are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--small", action="store_true", help="a few facts of one base, results under --work")
    given = parser.parse_args(None if words is None else list(words))
    chosen = {"bases": given.bases, "facts": given.facts, "sampled_facts": given.sampled_facts}
    plan = Plan(**{**(SMALL if given.small else Plan()).model_dump(), **{k: v for k, v in chosen.items() if v}})

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    out = given.out or (given.work / "small.json" if given.small else RESULTS)
    write_json(out, study(plan, given.work, given.workers, tell))


if __name__ == "__main__":
    main()
