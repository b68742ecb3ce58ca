"""The exact engine against the sampled one: probabilities, categories, and what neither lists.

    python -m studies.probe_agreement                              both models, under a quarter of an hour on 2 cores
    python -m studies.probe_agreement --model embedded --facts 40 --out runs/small.json
    python -m studies.probe_agreement --page                       docs/results/probe-agreement.md from the JSON

`entityquestions` needs the public data (INSTIL_DATA). What was measured on a model is kept under --work and not
measured again when the study is started again with the same plan.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import instil
from instil.facts import FactSet, Role
from instil.files import write_json
from instil.loop.hardware import commit, hardware
from instil.probe import Category
from studies.probe_agreement_bench import Bench, Plan
from studies.probe_agreement_compared import (
    agreement,
    calibrations,
    gap,
    greedy_agreement,
    greedy_of,
    nearer,
    noise,
    truths,
)

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "probe_agreement.json"
MODELS = ("embedded", "entityquestions")


def measure(bench: Bench, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything about one model that the JSON holds."""
    plan, names = bench.plan, [fact.id for fact in bench.facts]
    clusters = [fact.cluster for fact in bench.facts]
    tell(f"{bench.lm.name}: exact")
    exact = bench.timed("exact", bench.exact)
    again = bench.timed("exact, in other batches", bench.exact_again)
    spelled = bench.timed("exact with other spellings", lambda: bench.exact(spellings=True))
    kinds = bench.by_kind()
    tell(f"{bench.lm.name}: {len(plan.few_runs)} runs of {plan.few} samples")
    few = [
        bench.timed(f"{plan.few} samples, {len(plan.few_runs)} runs", lambda s=seed: bench.sampled(names, plan.few, s))
        for seed in plan.few_runs
    ]
    wrong = [name for name in names if greedy_of(few[0][name]) == 0]
    tell(f"{bench.lm.name}: {plan.first} samples of {len(wrong)} facts without a right greedy answer")
    first = bench.timed(f"{plan.first} samples", lambda: bench.sampled(wrong, plan.first, plan.seed + 98))
    truth = truths(bench, few, first)
    drawn = [fact.id for fact in bench.facts.sample(plan.calibrated, plan.seed + 1)]
    tell(f"{bench.lm.name}: {plan.many} samples of {len(drawn)} facts")
    many = bench.timed(f"{plan.many} samples", lambda: bench.sampled(drawn, plan.many, plan.seed + 97))
    return {
        "model": bench.lm.describe(),
        "facts": {
            "n": len(names),
            "subjects": len(set(clusters)),
            "fingerprint": bench.facts.fingerprint,
            "exemplars_fingerprint": bench.sets.fingerprint,
            "categories": {category: sum(one.category == category for one in exact.values()) for category in Category},
        },
        "calibration": {
            f"{plan.few}": calibrations(bench, exact, spelled, few[0], plan.seed),
            f"{plan.many}": calibrations(bench, exact, spelled, many, plan.seed),
        },
        "gap": gap(bench, exact, spelled, many, kinds),
        "greedy": greedy_agreement(exact, few[0]),
        "categories": agreement(bench, exact, spelled, few, truth),
        "nearer": nearer(bench, exact, spelled, few, many),
        "noise": noise(bench, exact, again, few),
        "seconds": bench.seconds,
    }


# ---------------------------------------------------------------------- running


def material(name: str, count: int, seed: int) -> tuple[str | Path, FactSet, FactSet]:
    """(model, facts to ask, facts to draw exemplars from) of one of `MODELS`."""
    if name == "embedded":
        from instil.worlds import embedded_world

        facts = embedded_world().facts
        asked = facts.where(lambda fact: fact.role is not Role.EXEMPLAR)
        return name, asked.sample(count, seed), facts.with_role(Role.EXEMPLAR)
    if name == "entityquestions":
        from studies.entityquestions import build_world
        from studies.first_run import BASE

        world = build_world()
        return BASE, world.split("development").sample(count, seed), world.split("exemplars")
    raise instil.InputError("no such model in this study", found=name, expected=", ".join(MODELS))


def measured(name: str, plan: Plan, work: Path, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """One model's figures, from disk where the same plan was measured on the same weights before."""
    spec, facts, exemplars = material(name, plan.facts, plan.seed)
    lm = replace(instil.load(spec, dtype=plan.dtype), name=name, source=name)
    plan_of = {"plan": plan.model_dump(mode="json"), "model": lm.fingerprint, "facts": facts.fingerprint}
    kept = work / f"{name}.json"
    if kept.exists():
        held = json.loads(kept.read_text(encoding="utf-8"))
        if held["of"] != plan_of:
            raise instil.InputError(
                "the folder holds work of another plan or model", file=kept, expected="--work OTHER"
            )
        return dict(held["result"])
    result = measure(Bench(lm, facts, exemplars, plan), tell)
    write_json(kept, {"of": plan_of, "result": result})
    return result


def study(models: Sequence[str], plan: Plan, work: Path, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything that the JSON holds."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "command": "python -m studies.probe_agreement",
        "models": {name: measured(name, plan, work, tell) for name in models},
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "plan": plan.model_dump(mode="json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, help="once for each model (default: all)")
    parser.add_argument("--facts", type=int, default=Plan().facts, help="facts asked of each model")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON (default: the committed one)")
    parser.add_argument("--work", type=Path, help="folder of unfinished work (default: runs/probe_agreement-FACTS)")
    parser.add_argument("--page", action="store_true", help="only write the page from the JSON")
    options = parser.parse_args()
    if options.page:
        from studies.probe_agreement_page import write_page

        write_page(json.loads(options.out.read_text(encoding="utf-8")))
        return
    plan = Plan(facts=options.facts, calibrated=min(Plan().calibrated, options.facts))
    work = options.work or Path("runs") / f"probe_agreement-{options.facts}"
    write_json(options.out, study(options.model or MODELS, plan, work))


if __name__ == "__main__":
    main()
