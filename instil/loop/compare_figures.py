"""From the runs' ledgers to the figures of a comparison: shares with intervals, paired differences, who stands where.

*Learned*: of the target facts that were not known before, the share known afterwards in more than half of the wordings
that were never trained on. *Lost*: of the held-back facts that were known before, the share not known afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instil.answers import is_correct
from instil.exam import is_abstention
from instil.exam import statistics as st
from instil.exam.comparing import Compared, corrected, difference, enough_resamples, learned_words, lost_words
from instil.exam.verdicts import CONFIDENT
from instil.files import read_sealed
from instil.ledger import Ledger
from instil.loop.compare_plan import Plan, Trial, by_arm
from instil.loop.compare_words import headline
from instil.loop.hardware import commit, hardware
from instil.loop.summary import about_call
from instil.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from instil.exam import Exam
    from instil.loop.folder import RunFolder

Done = Mapping[tuple[str, int], Path]
"""Finished runs by arm and seed."""

MEASURES: Final = {
    "learned": "target facts not known before: share known after in more than half of the wordings never trained on",
    "learned_as_worded": "target facts not known before: share known after, in the wording that was taught",
    "lost": "held-back facts known before: share no longer known",
    "corrupted": "held-back facts known before: share now answered with another fact's answer",
    "made_up": "held-back facts not known before: share now answered wrongly, with no abstention and with a "
    "probability of at least one half",
}
"""What is counted, fact by fact. Where no target fact has another wording, "learned" is as worded, and says so."""

TESTED: Final = ("learned", "lost")
COPIED: Final = (
    *("fact_id", "subject", "relation", "role", "verdict", "category_before", "category_after", "p_greedy_before"),
    *("p_greedy_after", "p_sampled_before", "p_sampled_after", "reworded_known_before", "reworded_known_after"),
    *("answer_before", "answer_after"),
)
KNOWN_BEFORE: Final = ("kept", "forgotten", "corrupted")
KNOWN_AFTER: Final = ("kept", "learned", "learned as worded", "updated")

OVER: Final = 0.05
"""Share of the budget by which a run may exceed it and still count as equal; a step and a half may always."""


def rows_of(plan: Plan, done: Done) -> pa.Table:
    """A row a fact, arm and seed. The columns of `MEASURES` are empty for facts that the measure is not about."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for trial in plan.trials:
        if (path := done.get((trial.arm.name, trial.seed))) is not None:
            claims = _false_claims(path, plan)
            rows += [
                {**_row(trial, verdict), "made_up": claims.get(verdict["fact_id"])}
                for verdict in Ledger(path / "ledger").read("verdicts").to_pylist()
            ]
    worded = any(row["reworded_known_after"] is not None for row in rows if row["role"] == "target")
    for row in rows:
        row |= _measures(row, worded)
    text, number, truth = pa.string(), pa.float64(), pa.bool_()
    kinds = {"arm": text, "method": text, "seed": pa.int64()}
    kinds |= {name: number if name.startswith(("p_", "reworded")) else text for name in COPIED}
    kinds |= dict.fromkeys(("known_before", "known_after", *MEASURES), truth)
    return pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items())))


def _row(trial: Trial, verdict: Mapping[str, Any]) -> dict[str, Any]:
    ruling = verdict["verdict"]
    return {
        "arm": trial.arm.name,
        "method": trial.arm.method,
        "seed": trial.seed,
        **{name: verdict.get(name) for name in COPIED},
        "known_before": ruling in KNOWN_BEFORE,
        "known_after": ruling in KNOWN_AFTER,
    }


def _measures(row: Mapping[str, Any], worded: bool) -> dict[str, bool | None]:
    taught, known = row["role"] == "target", row["known_before"]
    found: dict[str, bool | None] = dict.fromkeys(MEASURES)
    found["made_up"] = row["made_up"] if row["role"] == "held_back" and not known else None
    if taught and not known:
        found["learned_as_worded"] = row["known_after"]
        share = row["reworded_known_after"]
        found["learned"] = row["known_after"] if not worded else None if share is None else share > 0.5
    if row["role"] == "held_back" and known:
        found["lost"], found["corrupted"] = not row["known_after"], row["verdict"] == "corrupted"
    return found


def _false_claims(path: Path, plan: Plan) -> dict[str, bool]:
    """Held-back fact to whether the taught model makes its answer up, as `instil.exam.made_up` rules. Facts whose wrong
    answer could not be scored, before or after, are not in it."""
    if not plan.base.exam.confidence_sets:
        return {}
    run_id = read_sealed(path / "summary.json")["run_id"]
    columns = ("fact_id", "known", "greedy_answer", "answers", "p_own")
    found: list[dict[str, bool]] = []
    for when in ("before", "after"):
        where = {"state_id": f"{run_id}:{when}", "part": "held_back", "purpose": "exam"}
        answers = Ledger(path / "ledger").read("answers", columns=columns, **where).to_pylist()
        ruled = {row["fact_id"]: _false_claim(row, plan.base.exam.abstentions) for row in answers}
        found.append({fact: ruling for fact, ruling in ruled.items() if ruling is not None})
    before, after = found
    return {fact: claim for fact, claim in after.items() if fact in before}


def _false_claim(row: Mapping[str, Any], abstentions: Sequence[str]) -> bool | None:
    """None when it cannot be told."""
    if row["known"] or is_correct(row["greedy_answer"], row["answers"]):
        return False
    if is_abstention(row["greedy_answer"], tuple(abstentions)):
        return False
    return None if row["p_own"] is None else bool(row["p_own"] >= CONFIDENT)


def summarise(
    plan: Plan,
    exam: Exam,
    folder: RunFolder,
    rows: pa.Table,
    done: Done,
    failures: Sequence[Mapping[str, Any]],
    command: str | None,
) -> dict[str, Any]:
    """The content of `summary.json`, plain values only."""
    frame, how, inputs = rows.to_pandas(), plan.base.exam.bootstrap, plan.base
    frame["cluster"] = frame["subject"].where(frame["subject"].notna(), frame["fact_id"])
    arms = [_arm(group, plan, frame, done, failures) for _, group in by_arm(plan.trials)]
    pairs = compare_pairs(frame, [arm["name"] for arm in arms if arm["compared"]], how)
    worded = bool(frame.loc[frame["role"] == "target", "reworded_known_after"].notna().any())
    summary = {
        "kind": "comparison",
        "version": __version__,
        "command": command,
        "seed": inputs.seed,
        "seeds": list(plan.seeds),
        **about_call(inputs, exam),
        "config": {"probe": inputs.probe.model_dump(mode="json"), "exam": inputs.exam.model_dump(mode="json")},
        "measures": dict(MEASURES),
        "learned_in": "other wordings" if worded else "the wording taught, since no target fact has another",
        "budget": {"flops": plan.budget, "given": plan.budget_given},
        "exam_before": read_sealed(folder.work / "before" / "cost.json"),
        "level": how.level,
        "arms": arms,
        "pairs": pairs,
        "family": {
            "correction": "Holm",
            "size": max((pair["family"] for pair in pairs), default=0),
            "what": "every pair of arms, in what was learned and in what was lost",
        },
        "pareto": pareto(arms),
        "failures": [dict(failure) for failure in failures],
        "left_out": [{"what": what, "reason": reason} for what, reason in (*inputs.left_out, *exam.left_out)],
        "hardware": hardware(),
        "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return summary | {"headline": headline(summary)}


# ----------------------------------------------------------------------- arms


def _arm(
    group: Sequence[Trial], plan: Plan, frame: pd.DataFrame, done: Done, failures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    first, how = group[0], plan.base.exam.bootstrap
    name = first.arm.name
    own = frame[frame["arm"] == name]
    paths = {trial.seed: done[name, trial.seed] for trial in group if (name, trial.seed) in done}
    summaries = {seed: read_sealed(path / "summary.json") for seed, path in paths.items()}
    runs = [_run(plan, seed, paths[seed], told, own) for seed, told in summaries.items()]
    over = [run["seed"] for run in runs if run["ended"] == "over the budget"]
    reason = "no run of it was finished" if not runs else "it spent more than the budget" if over else None
    return {
        "name": name,
        "method": first.arm.method,
        "settings": first.inputs.settings.model_dump(mode="json"),
        "compared": reason is None,
        "reason": reason,
        "runs": runs,
        "failed": [failure["seed"] for failure in failures if failure["arm"] == name],
        "figures": {measure: over_seeds(own, measure, how).to_dict() for measure in MEASURES} if runs else {},
        "spent": _mean([run["spent"] for run in runs]),
        "seconds": _mean([run["seconds"] for run in runs]),
        "cost": _costs([told["cost"] for told in summaries.values()]),
        "headline": _headlines([told["headline"] for told in summaries.values()]),
        "by_category": _by_category(own),
    }


def _run(plan: Plan, seed: int, path: Path, told: Mapping[str, Any], own: pd.DataFrame) -> dict[str, Any]:
    spent, mine = float(told["budget"]["spent"]), own[own["seed"] == seed]
    return {
        "seed": seed,
        "run_id": told["run_id"],
        "folder": "/".join(path.parts[-3:]),
        "spent": spent,
        "of_budget": spent / plan.budget,
        "ended": _ended(spent, plan.budget, _one_step(path)),
        "seconds": sum(cost["seconds"] for purpose, cost in told["cost"].items() if purpose != "exam"),
        **{measure: _share(mine, measure) for measure in MEASURES},
    }


def _ended(spent: float, budget: float, one_step: float) -> str:
    if spent > budget + max(OVER * budget, 1.5 * one_step):
        return "over the budget"
    return "at the budget" if spent >= budget else "when the method was done"


def _one_step(path: Path) -> float:
    """Operations of one optimiser step, on average over all stages."""
    last: dict[str, tuple[int, float]] = {}
    for row in Ledger(path / "ledger").read("stages").to_pylist():
        step, flops = last.get(row["stage"], (0, 0.0))
        last[row["stage"]] = max(step, int(row["step"])), max(flops, float(row["flops"] or 0.0))
    steps = sum(step for step, _ in last.values())
    return sum(flops for _, flops in last.values()) / steps if steps else 0.0


def over_seeds(own: pd.DataFrame, measure: str, how: st.Bootstrap) -> st.Figure:
    """The share of an arm's facts, over all of its seeds, seeds and subjects resampled; `n` counts each fact once."""
    asked = own[own[measure].notna()]
    values, clusters = asked[measure].astype(float).tolist(), asked["cluster"].tolist()
    facts = int(asked["fact_id"].nunique())
    if not values:
        return st.Figure(None, None, None, 0, 0, f"no fact to measure: {MEASURES[measure]}")
    if len(set(values)) == 1 or asked["seed"].nunique() == 1:
        return replace(st.share(values, clusters, how), n=facts)
    found = replace(st.crossed(values, clusters, asked["seed"].tolist(), how), n=facts)
    low = None if found.low is None else max(0.0, found.low)
    high = None if found.high is None else min(1.0, found.high)
    return replace(found, low=low, high=high)


def _share(own: pd.DataFrame, measure: str) -> float | None:
    asked = own[measure].dropna()
    return float(asked.astype(float).mean()) if len(asked) else None


def _by_category(own: pd.DataFrame) -> list[dict[str, Any]]:
    """Target facts by their mastery before: how many, and their mean share of right answers before and after."""
    target, rows = own[own["role"] == "target"], []
    for category, group in target.groupby("category_before", sort=False):
        before, after = (float(group[f"p_greedy_{when}"].mean()) for when in ("before", "after"))
        rows.append(
            {
                "category": str(category),
                "n": int(group["fact_id"].nunique()),
                "before_accuracy": before,
                "after_accuracy": after,
                "learned": _share(group, "learned"),
            }
        )
    return rows


def _costs(costs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the runs, by purpose."""
    purposes = dict.fromkeys(purpose for cost in costs for purpose in cost)
    units = ("flops", "tokens", "seconds")
    return {
        purpose: {unit: sum(cost.get(purpose, {}).get(unit, 0.0) for cost in costs) / len(costs) for unit in units}
        for purpose in purposes
    }


def _headlines(told: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every headline figure of the runs, by name: its mean over the seeds, and each seed's."""
    named = [{name: one for name, one in figures.items() if isinstance(one, Mapping)} for figures in told]
    found = {}
    for name in dict.fromkeys(name for figures in named for name in figures):
        values = [figures.get(name, {}).get("value") for figures in named]
        given = [value for value in values if isinstance(value, int | float)]
        found[name] = {
            "mean": _mean(given),
            "by_seed": values,
            "n": max(figures.get(name, {}).get("n", 0) for figures in named),
        }
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# ---------------------------------------------------------------------- pairs


def compare_pairs(frame: pd.DataFrame, names: Sequence[str], how: st.Bootstrap) -> list[dict[str, Any]]:
    """Every pair of arms in every tested measure, corrected together, each with its sentence."""
    keys = [(first, second, measure) for first, second in combinations(names, 2) for measure in TESTED]
    how = enough_resamples(len(keys), how)
    family = {key: _difference(frame, *key, how) for key in keys}
    found = corrected(family, how.level)
    return [
        {"first": key[0], "second": key[1], "measure": key[2]}
        | found[key].to_dict(how.level)
        | {"sentence": _sentence(found[key], *key)}
        for key in keys
    ]


def _difference(frame: pd.DataFrame, first: str, second: str, measure: str, how: st.Bootstrap) -> Any:
    asked = frame[frame[measure].notna()]
    one, other = (asked[asked["arm"] == name].set_index(["seed", "fact_id"]) for name in (first, second))
    both = one.index.intersection(other.index)
    one, other = one.loc[both], other.loc[both]
    return difference(
        one[measure].astype(float).tolist(),
        other[measure].astype(float).tolist(),
        both.get_level_values("fact_id").tolist(),
        one["cluster"].tolist(),
        both.get_level_values("seed").tolist(),
        how,
    )


def _sentence(found: Compared, first: str, second: str, measure: str) -> str:
    words = (learned_words if measure == "learned" else lost_words)(found, first, second)
    words = words if words.startswith(first) else words[:1].upper() + words[1:]
    return f"{words}{' (one seed only)' if found.difference.seeds == 1 else ''}."


def pareto(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arms that no other beats in both, by their values alone: from the one that loses least to the one that learns
    most. What lies within noise of each other is told by the pairs."""
    points = {
        arm["name"]: (arm["figures"]["learned"]["value"], arm["figures"]["lost"]["value"])
        for arm in arms
        if arm["compared"]
    }
    points = {name: point for name, point in points.items() if None not in point}

    def beaten(name: str) -> bool:
        learned, lost = points[name]
        return any(other[0] >= learned and other[1] <= lost and other != (learned, lost) for other in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: (points[name][1], points[name][0]))
