"""SliCK's regression on made-up runs whose coefficients are known."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.exam.statistics import Bootstrap
from studies.gradual_regression import OUTCOMES, Point, as_slick, fitted, points_of, regression, regressions, runs_of

QUICK = Bootstrap(resamples=400)
CATEGORY = "HHHMMMWWWW" + "U" * 10
"""Ten known facts and ten unknown ones."""

shares = st.floats(0, 0.5)


def line(intercept: float, known: float, unknown: float, count: int = 60, noise: float = 0.0) -> list[Point]:
    """Points of six runs about a plane."""
    chance = random.Random(0)
    found = []
    for number in range(count):
        a, b = chance.random() / 2, chance.random() / 2
        outcome = intercept + known * a + unknown * b + noise * chance.gauss(0, 1)
        found.append(Point(f"run {number % 6}", a, b, outcome))
    return found


def look(known: int, unknown: int, right: int, **more: Any) -> dict[str, Any]:
    """A point of a curve with so many facts fitted, of 100 held-back facts so many right."""
    digits = ["4"] * known + ["0"] * (10 - known) + ["4"] * unknown + ["0"] * (10 - unknown)
    held_back = "4" * right + "0" * (100 - right)
    made_up = {"made_up": "1" * unknown + "0" * (10 - unknown) + "-"}
    stage = {"stage": "teaching", **more}
    return {"fitted": "".join(digits), "fitted_of": 4, "held_back": held_back, "held_back_of": 4, **made_up, **stage}


def run(name: str, seed: int, counts: list[tuple[int, int]], **arm: Any) -> dict[str, Any]:
    """Of 100 held-back facts 80 are right; each known fact that is fitted adds one, each unknown one takes two."""
    curve = [look(known, unknown, 80 + known - 2 * unknown) for known, unknown in counts]
    own = {"name": name, "method": "sft", "settings": {}, "epoch_factor": 1, **arm}
    job = {"arm": own, "base": "people", "split": "test", "seed": seed, "tuned": {}, "plan": {"sizes": SIZES}}
    return {"job": job, "curve": [look(9, 9, 0), *curve], "stages": [{"stage": "teaching", "trained": "1" * 20}]}


def before(seed: int, split: str = "test") -> dict[str, Any]:
    start = {"base": "people", "split": split, "seed": seed, "sizes": SIZES}
    return {"job": {"before": start}, "category": CATEGORY if split == "test" else "U" * 20}


def study(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"runs": [{**row["job"], "acquired": 0.5} for row in rows]}


SIZES = {"target": 20}
RUNS = [
    run("sft", 1, [(5, 0), (8, 3), (10, 7), (10, 10)]),
    run("sft", 2, [(4, 0), (7, 4), (9, 8), (10, 9)]),
    run("HighlyKnown only", 1, [(6, 0), (6, 1)], settings={"categories": ["HighlyKnown"]}),
    run("gradual", 1, [(9, 0), (9, 2), (10, 3)], method="gradual"),
    run("sft, KL", 1, [(2, 2), (3, 4)], settings={"kl_weight": 1.0}),
]
KEPT = [before(1), before(1, "development"), before(2), *RUNS, run("of another plan", 1, [(0, 10)])]


class TestLeastSquares:
    @given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
    def test_a_plane_is_found_again(self, intercept: float, known: float, unknown: float) -> None:
        found = regression(line(intercept, known, unknown), Bootstrap(resamples=20))
        for figure, value in zip(
            (found.intercept, found.known, found.unknown), (intercept, known, unknown), strict=True
        ):
            assert figure.value == pytest.approx(value, abs=1e-9)
            assert (figure.low, figure.high) == pytest.approx((value, value), abs=1e-6)
        assert found.difference.value == pytest.approx(known - unknown, abs=1e-9)
        assert found.r2 is None or found.r2 == pytest.approx(1)

    def test_noise_widens_the_interval_and_lowers_what_is_explained(self) -> None:
        little, much = (regression(line(0.4, 0.1, -0.2, noise=noise), QUICK) for noise in (0.01, 0.1))
        widths = [one.unknown.high - one.unknown.low for one in (little, much)]  # type: ignore[operator]
        assert 0 < 5 * widths[0] < widths[1]
        assert little.r2 is not None and much.r2 is not None and 0 < much.r2 < little.r2 < 1
        assert little.unknown.low < -0.2 < little.unknown.high  # type: ignore[operator]
        assert (little.unknown.n, little.unknown.clusters) == (60, 6)

    def test_r2_by_hand(self) -> None:
        # Residuals 1, -1, -1, 1 about the plane are orthogonal to both shares; the plane itself has variance 5.
        corners = [(0.0, 0.0, 1), (0.0, 1.0, -1), (1.0, 0.0, -1), (1.0, 1.0, 1)]
        points = [Point(f"{n}", a, b, 4 * a + 2 * b + rest) for n, (a, b, rest) in enumerate(corners)]
        assert regression(points, QUICK).r2 == pytest.approx(5 / 6)

    def test_runs_are_resampled_whole(self) -> None:
        points = line(0.4, 0.1, -0.2, noise=0.05)
        again = [Point(one.run, one.known, one.unknown, one.outcome) for one in points for _ in range(5)]
        once, five = regression(points, QUICK), regression(again, QUICK)
        assert once.known.low == pytest.approx(five.known.low), "the same points five times say no more"
        alone = regression([Point("one", p.known, p.unknown, p.outcome) for p in points], QUICK)
        assert alone.known.low is None and alone.known.reason == "one run only: no interval"

    def test_shares_that_go_together_are_refused(self) -> None:
        together = [Point(f"{n}", n / 10, n / 5, 1.0 * n) for n in range(8)]
        with pytest.raises(ValueError, match="tell known and unknown"):
            regression(together)
        with pytest.raises(ValueError, match="0 points"):
            regression([])

    def test_resamples_that_cannot_be_solved_are_counted(self) -> None:
        sides = [Point("one", n / 5, 0.0, n / 5) for n in range(5)] + [Point("two", 0.0, n / 5, 0.0) for n in range(5)]
        found = regression(sides, QUICK)
        assert found.left_out == pytest.approx(QUICK.resamples / 2, abs=60)
        assert found.known.value == pytest.approx(1)


class TestRuns:
    def test_fitted_facts_are_shares_of_all_or_of_their_kind(self) -> None:
        right = [1.0] * 5 + [0.0] * 5 + [0.5] * 4 + [0.0] * 6
        assert fitted(right, CATEGORY, "1" * 20) == (0.25, 0.1)
        assert fitted(right, CATEGORY, "1" * 20, "kind") == (0.5, 0.2)
        with pytest.raises(ValueError, match="no share of each"):
            fitted([1.0], "H", "1", "kind")
        with pytest.raises(ValueError):
            fitted([1.0], "HH", "11")

    def test_what_was_never_trained_on_is_not_fitted(self) -> None:
        assert fitted([1.0] * 20, CATEGORY, "11" + "0" * 17 + "1") == (0.1, 0.05)

    def test_a_curve_becomes_points_without_its_start(self) -> None:
        (one, *_) = runs_of(study(RUNS), KEPT)
        found = points_of(one, CATEGORY, OUTCOMES["held back right"])
        assert len(found) == 4 and {point.run for point in found} == {"people sft 1"}
        assert (found[1].known, found[1].unknown, found[1].outcome) == (0.4, 0.15, 0.82)

    def test_only_what_was_trained_on_so_far_is_fitted(self) -> None:
        (one, *_) = runs_of(study(RUNS), KEPT)
        stages = [{"stage": "first", "trained": "1" * 5 + "0" * 15}, {"stage": "second", "trained": "1" * 20}]
        curve = [look(0, 0, 0), look(9, 9, 50, stage="first"), look(9, 9, 50, stage="second")]
        found = points_of({**one, "curve": curve, "stages": stages}, CATEGORY, OUTCOMES["held back right"])
        assert [(point.known, point.unknown) for point in found] == [(0.25, 0.0), (0.45, 0.45)]

    def test_points_that_were_not_asked_are_left_out(self) -> None:
        bare, silent = look(3, 3, 50, fitted="", fitted_of=0), look(3, 3, 50, made_up="---")
        (one, *_) = runs_of(study(RUNS), KEPT)
        given = {**one, "curve": [look(0, 0, 0), bare, silent, look(4, 1, 50)]}
        assert len(points_of(given, CATEGORY, OUTCOMES["held back right"])) == 2
        assert len(points_of(given, CATEGORY, OUTCOMES["made up"])) == 1

    def test_a_study_gives_back_what_its_runs_were_made_with(self) -> None:
        found = regressions(study(RUNS), KEPT, QUICK)["people"]
        for group in ("all arms", "plain fine-tuning"):
            for of, factor in (("taught", 2), ("kind", 1)):
                one = found[group]["held back right"][of]
                assert one["intercept"]["value"] == pytest.approx(0.8)
                assert one["known"]["value"] == pytest.approx(0.1 * factor)
                assert one["unknown"]["value"] == pytest.approx(-0.2 * factor)
                assert one["r2"] == pytest.approx(1)
        assert found["all arms"]["held back right"]["taught"]["known"]["clusters"] == 5
        assert found["plain fine-tuning"]["held back right"]["taught"]["known"]["clusters"] == 3
        assert found["all arms"]["made up"]["kind"]["unknown"]["value"] == pytest.approx(1)

    def test_runs_that_are_not_kept_are_not_passed_over(self) -> None:
        with pytest.raises(ValueError, match="not kept: people, sft, seed 2"):
            regressions(study(RUNS), [row for row in KEPT if row is not RUNS[1]], QUICK)
        with pytest.raises(ValueError, match="not kept"):
            regressions(study(RUNS), KEPT[1:], QUICK)

    def test_a_regression_that_cannot_be_made_says_why(self) -> None:
        few = [run("gradual", 1, [(1, 0)], method="gradual")]
        found = regressions(study(few), [before(1), *few], QUICK)["people"]
        assert "do not tell" in found["all arms"]["held back right"]["taught"]["reason"]
        assert "0 points" in found["plain fine-tuning"]["made up"]["kind"]["reason"]

    def test_slicks_arms_are_plain(self) -> None:
        assert [as_slick(row["job"]) for row in RUNS] == [True, True, True, False, False]
