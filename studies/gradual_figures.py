"""From the runs of the study of gradual learning to its figures: shares with intervals, readings, paired differences.

Runs come as `gradual_runs.jsonl.gz` keeps them, digits and letters a fact; figures hold no facts. Intervals are of
95 %; seeds and subjects are both resampled, and a subject that several seeds drew is one. Every share is of 0 to 1,
every difference in such shares; operations are counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from instil.exam import Figure
from instil.exam.statistics import DEFAULT
from studies.generalization_figures import verdict
from studies.gradual_measure import (
    READINGS,
    UNSCORED,
    Look,
    Place,
    acquired,
    at,
    fitted_right,
    forgetting_difference,
    held_back_right,
    lost,
    lost_by_fact,
    mean,
    place_of,
    taught_right,
    untaught_right,
)
from studies.gradual_pooled import (
    HOW,
    Measured,
    Run,
    Seeds,
    Value,
    change,
    over,
    paired,
    plain,
    pooled,
    relative,
    rounded,
    share_of,
    where,
)

LETTERS = "HMWU"
KNOWN = 0.5
CLAIM = 0.24
"""How many more taught facts are HighlyKnown after two stages than after one, relatively, by the paper."""

BAR = 0.5
"""Of the other arm's forgetting, the most that an arm may have to pass."""

SAME_COMPUTE = 1.01
"""Two arms that end at one budget differ by less than a step's operations: so much more is no more."""

TESTED: dict[str, tuple[str, str]] = {
    "HighlyKnown": ("held_back", "H"),
    "MaybeKnown, known": ("held_back", "M"),
    "MaybeKnown, not known": ("untaught", "M"),
    "WeaklyKnown": ("untaught", "W"),
    "Unknown": ("untaught", "U"),
}
"""Test categories: facts that are never taught, by their part and what the base knew of them. Those of the known part
and the others are drawn in different shares, so MaybeKnown facts, some of which are known, stay apart."""

STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Ends of the interval of 95 % of Student's t, for 1 to 9 degrees of freedom."""


def figures(
    rows: Iterable[Run], best: Mapping[str, float], against: Mapping[str, str], stages: str
) -> dict[str, dict[str, Any]]:
    """All figures, by base.

    Args:
        rows: runs, and what was measured before them.
        best: by base, the final acquisition of the arm that acquires most.
        against: by base, the arm that all others are compared with at equal acquisition.
        stages: the arm with the paper's two stages, whose HighlyKnown facts are compared with those of all others.
    """
    return {base: of_base(found, against[base], stages) for base, found in by_base(rows, best).items()}


def by_base(rows: Iterable[Run], best: Mapping[str, float]) -> dict[str, Measured]:
    """Runs sorted by base, arm and seed.

    Raises:
        ValueError: two runs of one arm and seed, a run whose seed was not measured before, or a measurement that does
            not have its facts' subjects.
    """
    before: dict[str, dict[int, Run]] = {}
    arms: dict[str, dict[str, dict[int, Run]]] = {}
    for row in rows:
        job = row["job"]
        of = job.get("before") or job
        place = before.setdefault(of["base"], {})
        if "before" in job and "groups" not in row:
            raise ValueError(f"measured by an earlier version, without subjects: measure again {job['before']}")
        if "before" not in job:
            place = arms.setdefault(of["base"], {}).setdefault(job["arm"]["name"], {})
        if of["seed"] in place:
            raise ValueError(f"two runs of one arm and seed: {job}")
        place[of["seed"]] = row
    for base, of_arms in arms.items():
        if unseen := {seed for runs in of_arms.values() for seed in runs} - set(before.get(base, ())):
            raise ValueError(f"nothing was measured before teaching on {base} with seeds {sorted(unseen)}")
    return {base: Measured(seeds, arms.get(base, {}), best[base]) for base, seeds in before.items()}


def of_base(base: Measured, against: str, stages: str) -> dict[str, Any]:
    other, two = base.arms.get(against), base.arms.get(stages)
    return {
        "seeds": sorted(base.before),
        "best": base.best,
        "before": rounded(start_figures(base)),
        "arms": {name: rounded(arm_figures(base, runs)) for name, runs in base.arms.items()},
        "against": against if other else None,
        "paired": {name: rounded(compared(base, runs, other)) for name, runs in base.arms.items() if name != against}
        if other
        else {},
        "stages": stages if two else None,
        "highly_known": {
            name: rounded(highly_known(base, two, runs)) for name, runs in base.arms.items() if name != stages
        }
        if two
        else {},
    }


# ------------------------------------------------------------------------ one arm


def start_figures(base: Measured) -> dict[str, Any]:
    """The base as it is."""
    own = {seed: {"end": before} for seed, before in base.before.items()}
    return {
        "acquired": share_of(base, own, "target", reworded_at_end),
        "highly_known": share_of(base, own, "target", highly_known_at_end),
        "made_up": share_of(base, own, "untaught", made_up_at_end),
        "held_back": mean([len(before["held_back"]) for before in base.before.values()]),
        "untaught": mean([len(before["untaught"]) for before in base.before.values()]),
        "categories": {
            letter: mean([before["category"].count(letter) for before in base.before.values()]) for letter in LETTERS
        },
    }


def arm_figures(base: Measured, runs: Seeds) -> dict[str, Any]:
    """What is told of one arm."""
    return {
        "seeds": sorted(runs),
        "acquired": share_of(base, runs, "target", reworded_at_end),
        "highly_known": share_of(base, runs, "target", highly_known_at_end),
        "lost": over(base, runs, "held_back", lost_at_end),
        "made_up": share_of(base, runs, "untaught", made_up_at_end),
        "perplexity": perplexity(base, runs),
        "flops": mean([operations(run) for run in runs.values()]),
        "deciding": mean([operations(run, "deciding") for run in runs.values()]),
        "seconds": mean([run["seconds"] for run in runs.values()]),
        "stages": [[stage["stage"] for stage in run["stages"]] for run in runs.values()],
        "curve": curve([run["curve"] for run in runs.values()]),
        "readings": {f"{share:g}": read(base, runs, share) for share in READINGS},
        "by_category": by_category(base, runs),
        "lifted": share_of(base, runs, "target", lifted),
        "tested": {name: tested(base, runs, *which) for name, which in TESTED.items()},
        "kept": {letter: share_of(base, runs, "held_back", kept(letter)) for letter in ("HM", "H", "M")},
        "flow": flow(base, runs),
    }


def reworded_at_end(_: Run, run: Run) -> list[float]:
    return taught_right(run["end"])


def highly_known_at_end(_: Run, run: Run) -> list[float]:
    return [float(letter == "H") for letter in run["end"]["category"]]


def lost_at_end(before: Run, run: Run) -> list[float]:
    sides = zip(held_back_right(before), held_back_right(run["end"]), strict=True)
    return [was - now for was, now in sides]


def made_up_at_end(_: Run, run: Run) -> list[float | None]:
    return [None if mark == UNSCORED else float(mark) for mark in run["end"]["made_up"]]


def lifted(before: Run, run: Run) -> list[float | None]:
    """Of taught facts that were WeaklyKnown or Unknown, and that no stage trained on: whether they rose above that."""
    letters = zip(before["category"], run["end"]["category"], run["trained"], strict=True)
    return [float(now in "HM") if was in "WU" and trained == "0" else None for was, now, trained in letters]


def kept(letters: str) -> Value:
    """Of the held-back known facts that started in these categories: whether half of the answers are still right."""

    def value(before: Run, run: Run) -> list[float | None]:
        rows = zip(held_back_right(before), held_back_right(run["end"]), before["categories"]["held_back"], strict=True)
        return [float(now >= KNOWN) if was >= KNOWN and letter in letters else None for was, now, letter in rows]

    return value


def perplexity(base: Measured, runs: Seeds) -> Figure:
    """Of general text, as a multiple of the base's. The texts are the same in all seeds: the interval is over seeds."""
    logs = [
        run["end"]["nll"] / run["end"]["nll_tokens"] - base.before[seed]["nll"] / base.before[seed]["nll_tokens"]
        for seed, run in runs.items()
    ]
    value, count = mean(logs), len(logs)
    if not 1 < count <= len(STUDENT) + 1:
        return Figure(math.exp(value), None, None, count, count, "one seed" if count == 1 else "too many seeds")
    spread = math.sqrt(sum((one - value) ** 2 for one in logs) / (count - 1) / count) * STUDENT[count - 2]
    low, high = math.exp(value - spread), math.exp(value + spread)
    return Figure(math.exp(value), low, high, count, count, "Student's t over seeds")


def operations(run: Run, purpose: str | None = None) -> float:
    return float(sum(cost["flops"] for name, cost in run["cost"].items() if purpose in (None, name)))


def curve(curves: Sequence[Sequence[Look]]) -> list[dict[str, float]]:
    """The mean over seeds of each point that all of them have, by stage and epoch; the base first, then in order, with
    the models that were handed on last."""
    by_place = [{(look.get("stage"), look.get("epoch")): look for look in looks} for looks in curves]
    common = [place for place in by_place[0] if all(place in looks for looks in by_place)]
    points = [[looks[place] for looks in by_place] for place in common]
    ends = [looks[-1] for looks in curves]
    return [
        {
            "acquired": mean([acquired(look) for look in looks]),
            "lost": mean([lost(first[0], look) for first, look in zip(curves, looks, strict=True)]),
            "flops": mean([look.get("flops", 0.0) for look in looks]),
        }
        for looks in [*points, *([] if points[-1:] == [ends] else [ends])]
    ]


def read(base: Measured, runs: Seeds, share: float) -> dict[str, Any]:
    """Forgetting where acquisition first reaches a share of the best arm's final one; in which seeds it does, and
    whether the base has it before anything is taught, so that there is nothing to read (`void`)."""
    places = {seed: place_of(run["curve"], share * base.best) for seed, run in runs.items()}
    found = {seed: lost_by_fact(runs[seed]["curve"], place) for seed, place in places.items() if place is not None}
    return {
        **pooled(sorted(found.items()), base, "held_back", HOW).to_dict(),
        "reached": sorted(found),
        "missing": sorted(runs.keys() - found.keys()),
        "void": is_void(runs, share * base.best),
    }


def is_void(runs: Seeds, level: float) -> bool:
    """Whether the base itself has acquired that much in some seed."""
    return any(acquired(run["curve"][0]) >= level for run in runs.values())


def by_category(base: Measured, runs: Seeds) -> dict[str, Any]:
    """Of taught facts, by what they started as and whether a stage trained on them: how much more is right, as worded
    in training and in wordings that nobody trained on. Without those of which there are none."""
    found: dict[str, Any] = {}
    for letter in LETTERS:
        for name, mark in (("trained", "1"), ("untrained", "0")):

            def chosen(before: Run, run: Run, letter: str = letter, mark: str = mark) -> list[float]:
                pairs = zip(before["category"], run["trained"], strict=True)
                return [float(pair == (letter, mark)) for pair in pairs]

            worded = change(base, runs, "target", fitted_right, chosen)
            if worded.n:
                reworded = change(base, runs, "target", taught_right, chosen)
                found.setdefault(letter, {})[name] = {"worded": worded, "reworded": reworded}
    return found


def tested(base: Measured, runs: Seeds, part: str, letter: str) -> Figure:
    """Of facts that are never taught and started in a category: the share of right answers, and that before."""
    right = held_back_right if part == "held_back" else untaught_right

    def chosen(before: Run, _: Run) -> list[float]:
        return [float(one == letter) for one in before["categories"][part]]

    found = share_of(base, runs, part, lambda before, run: where(right(run["end"]), chosen(before, run)))
    return replace(found, before=plain(base, runs, lambda before, run: where(right(before), chosen(before, run))))


def flow(base: Measured, runs: Seeds) -> list[dict[str, Any]]:
    """How many taught facts went from each category to each, between one look at all of them and the next: those that
    the method had, and the end. Sums over the seeds that have both looks."""
    counts: dict[tuple[int, str, str], Counter[tuple[str, str]]] = {}
    seeds: Counter[tuple[int, str, str]] = Counter()
    for seed, run in runs.items():
        for place, ((earlier, was), (later, now)) in enumerate(pairwise(states(base.before[seed], run))):
            step = (place, earlier, later)
            counts.setdefault(step, Counter()).update(zip(was, now, strict=True))
            seeds[step] += 1
    return [
        {
            "from": step[1],
            "to": step[2],
            "seeds": seeds[step],
            "counts": {one: {other: moved[one, other] for other in LETTERS} for one in LETTERS},
        }
        for step, moved in sorted(counts.items())
    ]


def states(before: Run, run: Run) -> list[tuple[str, str]]:
    """When all taught facts were looked at, and their letters."""
    seen = [(probe["after"], probe["category"]) for probe in run["probed"] if probe["after"] != "before"]
    return [("before", before["category"]), *seen, ("end", run["end"]["category"])]


# ------------------------------------------------------------------------ two arms


def compared(base: Measured, first: Seeds, second: Seeds) -> dict[str, Any]:
    """One arm against another: what it acquired in the end, and forgetting at equal acquisition.

    `passes` says whether it passes the bar at all readings that are not void, see `at_reading`.
    """
    seeds = sorted(first.keys() & second.keys())
    gap = paired(base, first, second, "target", reworded_at_end)
    read = {f"{share:g}": at_reading(base, first, second, share) for share in READINGS}
    counted = [one for one in read.values() if not one["void"]]
    return {
        "seeds": seeds,
        "acquired": {**gap.to_dict(), "verdict": verdict(gap)},
        "flops": [mean([operations(arm[seed]) for seed in seeds]) for arm in (first, second)] if seeds else None,
        "readings": read,
        "passes": bool(counted) and all(one["passes"] for one in counted),
    }


def at_reading(base: Measured, first: Seeds, second: Seeds, share: float) -> dict[str, Any]:
    """Forgetting of `first` against that of `second`, fact by fact, where both have acquired the same.

    Returns:
        `difference` with its `verdict`; `forgotten` by each where both reach the reading; the seeds in which one of
        them does not (`missing`), and those in which the first does not (`never`); `made_up`, the difference in
        made-up answers at the same places; `flops` of both, to their ends, and `flops_there`; `void`, as in `read`; and
        the bar: `half` (at most `BAR` of the forgetting), `sure` (its interval excludes zero), `no_more_compute`,
        `no_more_made_up` (not shown to be more), `reached` (in all seeds), and `passes`: all of them.
    """
    level = share * base.best
    curves = [{seed: arm[seed]["curve"] for seed in sorted(first.keys() & second.keys())} for arm in (first, second)]
    subjects = {seed: list(map(str, before["groups"]["held_back"])) for seed, before in base.before.items()}
    found = forgetting_difference(curves[0], curves[1], subjects, share, base.best)
    never = [seed for seed, looks in curves[0].items() if place_of(looks, level) is None]
    there = {"missing": list(found.missing), "never": never, "void": is_void(first, level)}
    if found.figure is None:
        return {**there, "difference": None, "passes": False}
    forgotten = [mean([one for seed in found.seeds for one in lost_at(arm[seed], level)]) for arm in curves]
    made_up = pooled(made_up_gaps(curves, found.seeds, level), base, "untaught", DEFAULT)
    flops = [mean([operations(arm[seed]) for seed in found.seeds]) for arm in (first, second)]
    bar = {
        "half": forgotten[0] <= BAR * forgotten[1],
        "sure": verdict(found.figure) == "lower",
        "no_more_compute": flops[0] <= SAME_COMPUTE * flops[1],
        "no_more_made_up": verdict(made_up) in ("lower", "no difference"),
        "reached": not never,
    }
    return {
        "difference": found.figure.to_dict(),
        "verdict": verdict(found.figure),
        "forgotten": forgotten,
        **there,
        "made_up": {**made_up.to_dict(), "verdict": verdict(made_up)},
        "flops": flops,
        "flops_there": [mean([flops_at(arm[seed], level) for seed in found.seeds]) for arm in curves],
        **bar,
        "passes": all(bar.values()),
    }


def lost_at(looks: Sequence[Look], level: float) -> list[float]:
    return lost_by_fact(looks, reached(looks, level))


def flops_at(looks: Sequence[Look], level: float) -> float:
    """Operations that were spent where a level is first reached."""
    (found,) = at(looks, reached(looks, level), lambda look: [look.get("flops", 0.0)])
    return found


def reached(looks: Sequence[Look], level: float) -> Place:
    """Where acquisition first reaches a level.

    Raises:
        ValueError: it never does.
    """
    place = place_of(looks, level)
    if place is None:
        raise ValueError("a curve that never reaches the level")
    return place


def made_up_gaps(
    curves: Sequence[Mapping[int, Sequence[Look]]], seeds: Sequence[int], level: float
) -> list[tuple[int, list[float | None]]]:
    """By seed, for each fact that is never taught, how much more the first arm makes up than the second."""
    found = []
    for seed in seeds:
        looks = [arm[seed] for arm in curves]
        sides = zip(*(at(each, reached(each, level), made_up_marks) for each in looks), strict=True)
        found.append((seed, [None if math.isnan(one - other) else one - other for one, other in sides]))
    return found


def made_up_marks(look: Look) -> list[float]:
    return [math.nan if mark == UNSCORED else float(mark) for mark in look["made_up"]]


def highly_known(base: Measured, first: Seeds, second: Seeds) -> dict[str, Any]:
    """The paper's own figure: taught facts HighlyKnown after `first` against `second`, and the same without facts that
    the base or one of the two could answer without the subject."""

    def sure(before: Run, run: Run) -> list[float | None]:
        return where(highly_known_at_end(before, run), run["sure"])

    seeds = sorted(first.keys() & second.keys())
    marked = [
        {seed: {**arm[seed], "sure": not_guessed(base.before[seed], first[seed], second[seed])} for seed in seeds}
        for arm in (first, second)
    ]
    return {
        "seeds": seeds,
        "all": more(base, marked, highly_known_at_end),
        "not_guessed": more(base, marked, sure),
        "flops": [mean([operations(arm[seed]) for seed in seeds]) for arm in (first, second)] if seeds else None,
    }


def not_guessed(before: Run, *runs: Run) -> list[float]:
    marks = zip(*(look["guessed"] for look in (before, *(run["end"] for run in runs))), strict=True)
    return [float("1" not in mark) for mark in marks]


def more(base: Measured, arms: Sequence[Seeds], value: Value) -> dict[str, Any]:
    """How much more of a value the first arm has, in points and relatively."""
    points = paired(base, arms[0], arms[1], "target", value)
    return {
        "points": points.to_dict(),
        "verdict": verdict(points),
        "shares": [plain(base, arm, value) for arm in arms],
        "relative": relative(base, arms[0], arms[1], value),
    }
