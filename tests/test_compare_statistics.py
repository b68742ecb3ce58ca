"""Differences between runs: right on known distributions, p-values those of the intervals, honest sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.exam.comparing import (
    Compared,
    Difference,
    corrected,
    difference,
    enough_resamples,
    holm,
    learned_words,
    lost_words,
)
from instil.exam.statistics import Bootstrap, crossed, mean, paired_difference, share

QUICK = Bootstrap(resamples=1500)


def two_runs(
    rng: np.random.Generator, *, seeds: int, subjects: int, effect: float = 0.0, of_seed: float = 0.05
) -> Difference:
    """Two runs that know about half of the facts: subjects differ, seeds differ, answers are yes or no."""
    ability_C = rng.normal(0, 0.2, subjects)
    facts = [(subject, fact) for subject in range(subjects) for fact in range(1 + subject % 3)]
    rows = []
    for seed in range(seeds):
        luck = rng.normal(0, of_seed, 2)
        for subject, fact in facts:
            chances = np.clip(0.5 + ability_C[subject] + luck + (effect / 2, -effect / 2), 0, 1)
            first, second = rng.random(2) < chances
            rows.append((float(first), float(second), (subject, fact), subject, seed))
    return difference(*map(list, zip(*rows, strict=True)), how=QUICK)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(("seeds", "of_seed"), [(1, 0.0), (3, 0.0), (3, 0.08), (5, 0.08)])
def test_intervals_of_differences_cover_the_truth_about_95_times_in_100(seeds: int, of_seed: float) -> None:
    rounds, covered = 200, 0
    for round_ in range(rounds):
        found = two_runs(np.random.default_rng(round_), seeds=seeds, subjects=40, of_seed=of_seed)
        low, high = found.interval(0.95) or (1.0, 0.0)
        covered += low <= 0 <= high
    assert covered / rounds >= 0.91  # 95 % less 2.6 binomial standard errors; crossing seeds errs on the wide side


def test_three_seeds_are_not_taken_for_many() -> None:
    """The t interval over seed means is exact when seeds are all that varies; plain resampling covers too seldom."""
    rounds, covered, plain = 200, 0, 0
    for round_ in range(rounds):
        rng = np.random.default_rng(round_)
        values_SC = rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 0.01, (3, 30))
        labels, runs = list(range(30)) * 3, [seed for seed in range(3) for _ in range(30)]
        figure = crossed(values_SC.ravel(), labels, runs, QUICK)
        assert figure.low is not None and figure.high is not None
        covered += figure.low <= 0 <= figure.high
        means = np.array([rng.choice(values_SC.mean(1), 3).mean() for _ in range(300)])
        plain += np.quantile(means, 0.025) <= 0 <= np.quantile(means, 0.975)
    assert 0.9 <= covered / rounds <= 0.99
    assert plain / rounds < 0.85


def test_the_widening_is_students_t() -> None:
    from scipy import stats as scipy

    values_S = np.array([0.1, 0.2, 0.6, 0.35])
    values_SC = values_S[:, None] + np.tile([1e-4, -1e-4], 20)[None]
    runs = [seed for seed in range(4) for _ in range(40)]
    figure = crossed(values_SC.ravel(), list(range(40)) * 4, runs, Bootstrap(resamples=100_000))
    low, high = scipy.t.interval(0.95, 3, values_S.mean(), values_S.std(ddof=1) / 2)
    # Four seeds have few different resamples, so the draws are only about normal.
    assert figure.low == pytest.approx(low, abs=0.05) and figure.high == pytest.approx(high, abs=0.05)


def test_many_seeds_and_subjects_give_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    values_SC = rng.normal(0.1, 0.2, (40, 1)) + rng.normal(0, 0.5, (1, 300)) + rng.normal(0, 0.1, (40, 300))
    runs = [seed for seed in range(40) for _ in range(300)]
    labels = list(range(300)) * 40
    found = difference(values_SC.ravel(), np.zeros(12_000), labels, labels, runs, Bootstrap(resamples=8000))  # type: ignore[arg-type]
    error = math.sqrt(values_SC.mean(1).var(ddof=1) / 40 + values_SC.mean(0).var(ddof=1) / 300)
    low, high = found.interval(0.95) or (0.0, 0.0)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_p_of_one_seed_is_that_of_the_paired_t_test() -> None:
    from scipy import stats as scipy

    rng = np.random.default_rng(1)
    for effect in (0.0, 0.02, 0.05):
        first, second = rng.normal(effect, 0.3, 400), rng.normal(0, 0.3, 400)
        found = difference(first, second, range(400), range(400), [0] * 400, Bootstrap(resamples=20_000))  # type: ignore[arg-type]
        assert found.p == pytest.approx(scipy.ttest_rel(first, second).pvalue, abs=0.02)


def test_one_seed_has_the_interval_of_a_paired_difference() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.random(80) < 0.6, rng.random(80) < 0.5
    labels = [number // 2 for number in range(80)]
    found = difference(first.tolist(), second.tolist(), range(80), labels, [7] * 80, QUICK)
    plain = paired_difference(first.tolist(), second.tolist(), labels, QUICK)
    assert found.interval(0.95) == pytest.approx((plain.low, plain.high))
    assert found.figure().value == pytest.approx(plain.value)


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.sampled_from([-1.0, 0.0, 0.0, 1.0]), min_size=3, max_size=40),
    seeds=st.integers(1, 3),
    level=st.floats(0.5, 0.99),
)
def test_the_p_value_is_that_of_the_interval_at_every_level(gaps: list[float], seeds: int, level: float) -> None:
    """p < 1 - level exactly when the interval at `level` leaves out zero."""
    number = len(gaps)
    values = (gaps * seeds)[: number * seeds]
    runs = [seed for seed in range(seeds) for _ in range(number)]
    values = [value if (place % 7 or not runs[place]) else -value for place, value in enumerate(values)]
    labels = list(range(number)) * seeds
    found = difference(values, [0.0] * len(values), labels, labels, runs, Bootstrap(resamples=400))
    ends = found.interval(level)
    if found.p is None or ends is None or abs(found.p - (1 - level)) < 1e-6 or found.p < 3 / 400:
        return
    assert (found.p < 1 - level) == (ends[0] > 0 or ends[1] < 0)


def test_holm_is_the_published_procedure() -> None:
    """Equal to the closed test with Bonferroni at every intersection, tried out in full."""
    from itertools import combinations

    rng = np.random.default_rng(3)
    for _ in range(30):
        p = rng.random(5) ** 3
        adjusted = holm(p.tolist())
        for one in range(5):
            sets = [rest for size in range(1, 6) for rest in combinations(range(5), size) if one in rest]
            assert adjusted[one] == pytest.approx(max(min(1.0, len(s) * min(p[list(s)])) for s in sets))
    assert holm([]) == []


def test_holm_keeps_the_error_of_a_whole_family() -> None:
    rounds, any_claim, any_plain = 120, 0, 0
    for round_ in range(rounds):
        rng = np.random.default_rng(1000 + round_)
        family = {name: two_runs(rng, seeds=3, subjects=30) for name in range(6)}
        found = corrected(family)
        any_claim += any(one.shown for one in found.values())
        any_plain += any((one.p or 1) < 0.05 for one in found.values())
    assert any_claim / rounds <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / rounds)
    assert any_plain > any_claim  # without the correction there are more claims, all of them wrong


def test_real_differences_are_found() -> None:
    rounds = [
        two_runs(np.random.default_rng(seed), seeds=3, subjects=60, effect=0.3, of_seed=0.02) for seed in range(20)
    ]
    assert sum(found.p is not None and found.p < 0.05 for found in rounds) >= 17


def test_what_is_claimed_has_no_zero_in_its_interval_and_the_rest_has() -> None:
    family = {
        effect: two_runs(np.random.default_rng(seed), seeds=3, subjects=50, effect=effect)
        for seed, effect in enumerate((0.0, 0.05, 0.1, 0.2, 0.3, 0.5))
    }
    found = corrected(family)
    assert {one.shown for one in found.values()} == {True, False}
    for one in found.values():
        assert one.low is not None and one.high is not None and one.p_holm is not None and one.p is not None
        assert one.shown == (one.low > 0 or one.high < 0) == (one.p_holm < 0.05)
        assert one.p_holm >= one.p and one.level >= 0.95 and one.family == 6


def test_every_subject_alike_is_a_sign_test() -> None:
    from scipy import stats as scipy

    found = difference([1.0] * 8, [0.0] * 8, range(8), range(8), [0] * 8)
    assert found.p == pytest.approx(scipy.binomtest(8, 8).pvalue)
    assert (found.interval(0.95) or (0,))[0] > 0 and (found.interval(0.999) or (0,))[0] < 0
    none = difference([1.0, 0.0] * 4, [1.0, 0.0] * 4, range(8), range(8), [0] * 8)
    assert (none.value, none.p, none.interval()) == (0.0, 1.0, None)
    assert "no difference can be shown (none at any of 8 facts)" in learned_words(corrected({0: none})[0], "A", "B")


def test_too_little_to_compare_says_so() -> None:
    nothing = difference([], [], [], [], [])
    assert nothing.value is None and nothing.p is None and corrected({0: nothing})[0].family == 0
    assert "nothing can be said (nothing to compare)" in lost_words(corrected({0: nothing})[0], "A", "B")
    one = difference([1.0, 0.0], [0.0, 0.0], range(2), ["x", "x"], [0, 0])
    assert one.p is None and "no interval can be given (one subject only" in learned_words(
        corrected({0: one})[0], "A", "B"
    )
    with pytest.raises(ValueError, match="zip"):
        difference([1.0], [], [1], [1], [1])


def test_the_same_data_give_the_same_answer() -> None:
    first, second = (two_runs(np.random.default_rng(5), seeds=3, subjects=20) for _ in range(2))
    assert first.p == second.p and first.interval(0.9) == second.interval(0.9)


def test_a_large_family_gets_enough_resamples() -> None:
    assert enough_resamples(1, QUICK).resamples == QUICK.resamples
    assert enough_resamples(42).resamples >= 20 / (0.05 / 84)


def test_sentences_have_numbers_and_n() -> None:
    gap = Difference(0.075, 500, 400, 3)

    def say(low: float, high: float, shown: bool) -> tuple[str, str]:
        found = Compared(gap, 0.01, 0.02, 0.98, low, high, shown, 4)
        return learned_words(found, "A", "B"), lost_words(found, "A", "B")

    assert say(0.062, 0.088, True) == (
        "A learned 31 to 44 more facts of 500 than B",
        "A lost 31 to 44 more known facts of 500 than B",
    )
    assert say(-0.088, -0.062, True)[0] == "A learned 31 to 44 fewer facts of 500 than B"
    assert say(-0.01, 0.02, False) == (
        "no difference can be shown in what A and B learned (A: 5 fewer to 10 more of 500 facts)",
        "no difference can be shown in what A and B lost of what was known (A: 5 fewer to 10 more of 500 facts)",
    )
    assert say(0.0006, 0.01, True)[0] == "A learned 0.3 to 5 more facts of 500 than B"


def test_a_share_over_seeds_of_one_seed_is_the_share() -> None:
    values, labels = [True, False, True, True, False] * 6, [number // 3 for number in range(30)]
    one, plain = crossed(values, labels, ["s"] * 30, QUICK), mean(values, labels, QUICK)
    assert (one.value, one.low, one.high) == (plain.value, plain.low, plain.high)
    assert share(values, labels, QUICK).value == one.value
