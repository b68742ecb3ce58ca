"""What fitted facts cost: SliCK's regression (Gekhman et al. 2024, arXiv 2405.05904, section 5) on the study's runs.

    python -m studies.gradual_regression          the coefficients, from the committed runs of the study

SliCK explains the accuracy of a fine-tuned model by how many of the facts it was taught it has fitted:

    accuracy = intercept + known · (fitted known facts / facts taught) + unknown · (fitted unknown facts / facts taught)

over checkpoints of many runs, and finds about 36.9 + 7.3 and - 8.3 points, R² 0.86. Known are its three upper
categories, WeaklyKnown among them, before teaching. Here a checkpoint is a point of a run's curve. What is explained is
the share of right answers to held-back facts, and the share of made-up answers. A fact that the run trained on is
fitted with the share of its answers that are right in the wording trained. The held-back facts, unlike SliCK's test
facts, were all known before, so that the intercept is near what was known.

Each share is of all target facts, as we read the paper (`of="taught"`), or of those of its kind (`of="kind"`): then a
coefficient is what it costs to fit all facts of that kind. All runs of a seed have the same target facts, also those
that train on some of them. Epochs of one run go together, so the interval comes from resampling runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from instil.exam import Figure
from instil.exam.statistics import DEFAULT, Bootstrap
from studies.gradual import RESULTS
from studies.gradual_kept import RUNS, key_of, rows_of
from studies.gradual_measure import Look, fitted_right, held_back_right, made_up_share, mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]

Of = Literal["taught", "kind"]
Run = Mapping[str, Any]
"""What decides a run's result, and the result: see `studies.gradual_run.run`."""

KNOWN = "HMW"
"""Letters of the categories that SliCK calls known; the other is U."""

TERMS = ("intercept", "known", "unknown")

OUTCOMES: dict[str, Callable[[Look], float | None]] = {
    "held back right": lambda look: mean(held_back_right(look)),
    "made up": made_up_share,
}


@dataclass(frozen=True)
class Point:
    """One checkpoint.

    Attributes:
        run: the arm and seed that it is of.
        known: fitted known facts, as a share.
        unknown: fitted unknown facts, as a share.
        outcome: what is to be explained.
    """

    run: str
    known: float
    unknown: float
    outcome: float


def points_of(run: Run, category: str, outcome: Callable[[Look], float | None], of: Of = "taught") -> list[Point]:
    """A run's checkpoints. The base itself, at the start of its curve, is none; a point where the target facts were not
    asked as worded, or that has no outcome, is left out.

    Args:
        category: of the target facts before, a letter each.
        outcome: what is to be explained, of a point.
        of: what the fitted facts are a share of.

    Raises:
        ValueError: the categories are of other facts.
    """
    name = f"{run['base']} {run['arm']['name']} {run['seed']}"
    found, trained = [], {stage["stage"]: stage["trained"] for stage in run["stages"]}
    for look in run["curve"][1:]:
        if look["fitted"] and (value := outcome(look)) is not None:
            known, unknown = fitted(fitted_right(look), category, trained[look["stage"]], of)
            found.append(Point(name, known, unknown, value))
    return found


def fitted(right: Sequence[float], category: str, trained: str, of: Of = "taught") -> tuple[float, float]:
    """(share of known facts that are fitted, share of unknown ones); only what was trained on can be fitted.

    Args:
        right: the share of right answers, of each target fact.
        category: of each before.
        trained: "1" for each that the run trained on, "0" for the others.

    >>> fitted([1.0, 0.5, 1.0, 1.0], "HMUW", "1111")
    (0.625, 0.25)
    >>> fitted([1.0, 0.5, 1.0, 0.0], "HMUU", "0111", of="kind")
    (0.25, 0.5)

    Raises:
        ValueError: the three are not of one length, or there is no fact of a kind that is to be the whole.
    """
    sums, counts = {"known": 0.0, "unknown": 0.0}, {"known": 0, "unknown": 0}
    for share, letter, one in zip(right, category, trained, strict=True):
        kind = "known" if letter in KNOWN else "unknown"
        sums[kind] += share * (one == "1")
        counts[kind] += 1
    wholes = counts if of == "kind" else dict.fromkeys(counts, len(right))
    if not all(wholes.values()):
        raise ValueError(f"{counts['known']} known facts and {counts['unknown']} unknown ones: no share of each")
    return sums["known"] / wholes["known"], sums["unknown"] / wholes["unknown"]


@dataclass(frozen=True)
class Regression:
    """Ordinary least squares with an intercept.

    Attributes:
        intercept: the outcome where nothing is fitted.
        known: its change as the share of fitted known facts goes from 0 to 1.
        unknown: likewise of unknown facts.
        difference: `known` less `unknown`.
        r2: share of the outcome's variance that is explained.
        left_out: resamples in which the two shares could not be told apart.
    """

    intercept: Figure
    known: Figure
    unknown: Figure
    difference: Figure
    r2: float | None
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        figures = {name: getattr(self, name).to_dict() for name in (*TERMS, "difference")}
        return {**figures, "r2": self.r2, "resamples_left_out": self.left_out}


def regression(points: Sequence[Point], how: Bootstrap = DEFAULT) -> Regression:
    """Explain the outcome by the shares of fitted facts; percentile intervals, whole runs resampled.

    Args:
        points: of any number of runs.
        how: resamples, level and seed.

    Raises:
        ValueError: the shares of known and unknown facts cannot be told apart from one another, or from the intercept.
    """
    import numpy as np

    names = list(dict.fromkeys(point.run for point in points))
    place = {name: number for number, name in enumerate(names)}
    run_N = np.array([place[point.run] for point in points], dtype=np.int64)
    x_NK = np.array([[1.0, point.known, point.unknown] for point in points]).reshape(len(points), len(TERMS))
    y_N = np.array([point.outcome for point in points])
    if not told_apart((x_NK.T @ x_NK)[None]).all():
        raise ValueError(f"{len(points)} points of {len(names)} runs do not tell known and unknown fitted facts apart")
    beta_K = np.linalg.lstsq(x_NK, y_N, rcond=None)[0]
    draws_RK, left_out = resampled(x_NK, y_N, run_N, len(names), how)
    contrast = np.array([0.0, 1.0, -1.0])

    def figure(value: float, draws_R: Floats) -> Figure:
        if len(names) < 2:
            return Figure(value, None, None, len(points), len(names), "one run only: no interval")
        low, high = np.quantile(draws_R, [(1 - how.level) / 2, (1 + how.level) / 2])
        return Figure(value, float(low), float(high), len(points), len(names))

    intercept, known, unknown = (figure(float(beta_K[k]), draws_RK[:, k]) for k in range(len(TERMS)))
    return Regression(
        intercept,
        known,
        unknown,
        difference=figure(float(beta_K @ contrast), draws_RK @ contrast),
        r2=explained(y_N, x_NK @ beta_K),
        left_out=left_out,
    )


def resampled(x_NK: Floats, y_N: Floats, run_N: Ints, runs: int, how: Bootstrap) -> tuple[Floats, int]:
    """Coefficients of each resample of runs, shape (R, K), and how many had to be left out. A run enters by the sums of
    its points, which is all that least squares needs."""
    import numpy as np

    xx_SKK, xy_SK = np.zeros((runs, len(TERMS), len(TERMS))), np.zeros((runs, len(TERMS)))
    np.add.at(xx_SKK, run_N, x_NK[:, :, None] * x_NK[:, None, :])
    np.add.at(xy_SK, run_N, x_NK * y_N[:, None])
    times_RS = np.random.default_rng(how.seed).multinomial(runs, [1 / runs] * runs, size=how.resamples)
    xx_RKK, xy_RK = np.tensordot(times_RS, xx_SKK, 1), times_RS @ xy_SK
    usable_R = told_apart(xx_RKK)
    found_RK = np.linalg.solve(xx_RKK[usable_R], xy_RK[usable_R][:, :, None])[:, :, 0]
    return found_RK, int((~usable_R).sum())


def told_apart(xx_RKK: Floats) -> NDArray[np.bool_]:
    """For each sum of squares and products whether its terms are not, up to rounding, combinations of each other."""
    import numpy as np

    with np.errstate(invalid="ignore"):  # no points at all
        return np.asarray(np.linalg.cond(xx_RKK) < 1e12)


def explained(y_N: Floats, guess_N: Floats) -> float | None:
    """R²; None where the outcome does not vary."""
    spread = float(((y_N - y_N.mean()) ** 2).sum())
    return None if spread < 1e-12 * len(y_N) else 1 - float(((y_N - guess_N) ** 2).sum()) / spread


# ---------------------------------------------------------------------- the study


def as_slick(run: Run) -> bool:
    """Plain fine-tuning on all facts or on one category, stopped early or not: SliCK's own arms."""
    return run["arm"]["method"] == "sft" and set(run["arm"]["settings"]) <= {"categories", "early_stop"}


GROUPS: dict[str, Callable[[Run], bool]] = {"all arms": lambda run: True, "plain fine-tuning": as_slick}

DECIDES = ("arm", "base", "plan", "seed", "split", "tuned")
"""What of a run decides its result."""


def regressions(study: Mapping[str, Any], rows: Iterable[Run], how: Bootstrap = DEFAULT) -> dict[str, Any]:
    """Every regression of a study, by base, group of arms, outcome and what the shares are of: its figures, or under
    `reason` why there are none.

    Args:
        study: the results, which say which runs are theirs.
        rows: all runs that are kept, and the bases as they were measured before (see `gradual_kept`).

    Raises:
        ValueError: a run of the study is not kept, or what it began with.
    """
    runs = runs_of(study, rows)
    return {
        base: {
            group: {
                name: {
                    of: described([run for run in runs if run["base"] == base and chosen(run)], outcome, of, how)
                    for of in ("taught", "kind")
                }
                for name, outcome in OUTCOMES.items()
            }
            for group, chosen in GROUPS.items()
        }
        for base in dict.fromkeys(run["base"] for run in runs)
    }


def runs_of(study: Mapping[str, Any], rows: Iterable[Run]) -> list[dict[str, Any]]:
    """The study's runs with their curves, and the target facts' categories before as `category`."""
    kept = {key_of(row["job"]): row for row in rows}
    found = []
    for one in study["runs"]:
        job = {name: one[name] for name in DECIDES}
        start = {"base": one["base"], "split": one["split"], "seed": one["seed"], "sizes": one["plan"]["sizes"]}
        run, before = kept.get(key_of(job)), kept.get(key_of({"before": start}))
        if run is None or before is None:
            raise ValueError(f"not kept: {one['base']}, {one['arm']['name']}, seed {one['seed']}")
        found.append({**job, **run, "category": before["category"]})
    return found


def described(runs: Sequence[Run], outcome: Callable[[Look], float | None], of: Of, how: Bootstrap) -> dict[str, Any]:
    try:
        points = [point for run in runs for point in points_of(run, run["category"], outcome, of)]
        return regression(points, how).to_dict()
    except ValueError as fault:
        return {"reason": str(fault)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="of the study (default: the committed ones)")
    parser.add_argument("--runs", type=Path, default=RUNS, help="that are kept (default: the committed ones)")
    given = parser.parse_args()
    study = json.loads(given.results.read_text(encoding="utf-8"))
    print(json.dumps(regressions(study, rows_of(given.runs)), indent=1))


if __name__ == "__main__":
    main()
