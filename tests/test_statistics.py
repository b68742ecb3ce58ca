"""Intervals: right coverage on known distributions, honest where there is nothing to resample."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.exam import statistics as stats
from instil.exam.statistics import Bootstrap, Figure, crossed, in_words, mean, paired_difference, perplexity, share

QUICK = Bootstrap(resamples=2000)


def clustered_binomial(rng: np.random.Generator, groups: int, rate: float) -> tuple[list[bool], list[int]]:
    """Facts of `groups` subjects, one to five each; each subject has a rate of its own around `rate`."""
    rates, sizes = rng.beta(2 * rate, 2 * (1 - rate), groups), rng.integers(1, 6, groups)
    labels = [group for group in range(groups) for _ in range(sizes[group])]
    return [bool(rng.random() < rates[group]) for group in labels], labels


@pytest.mark.parametrize(("groups", "rate"), [(40, 0.5), (100, 0.2)])
def test_clustered_intervals_cover_the_truth_about_95_times_in_100(groups: int, rate: float) -> None:
    rounds, covered = 300, 0
    for seed in range(rounds):
        values, labels = clustered_binomial(np.random.default_rng(seed), groups, rate)
        figure = share(values, labels, Bootstrap(resamples=1000, seed=seed))
        assert figure.low is not None and figure.high is not None
        covered += figure.low <= rate <= figure.high
    assert 0.91 <= covered / rounds <= 0.985  # 95 % ± 3 binomial standard errors, a little wider for few clusters


def test_ignoring_clusters_would_cover_too_seldom() -> None:
    rounds, covered = 200, 0
    for seed in range(rounds):
        values, _ = clustered_binomial(np.random.default_rng(seed), 40, 0.5)
        figure = share(values, range(len(values)), Bootstrap(resamples=500, seed=seed))
        assert figure.low is not None and figure.high is not None
        covered += figure.low <= 0.5 <= figure.high
    assert covered / rounds < 0.9


def test_crossed_intervals_cover_seed_noise_that_subject_intervals_miss() -> None:
    rounds, both, subjects_only = 150, 0, 0
    for round_ in range(rounds):
        rng = np.random.default_rng(round_)
        seeds, groups = 8, 60
        values_SC = (
            rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.5, (1, groups)) + rng.normal(0, 0.2, (seeds, groups))
        )
        labels = list(range(groups)) * seeds
        runs = [seed for seed in range(seeds) for _ in range(groups)]
        how = Bootstrap(resamples=500, seed=round_)
        wide, narrow = crossed(values_SC.ravel(), labels, runs, how), mean(values_SC.ravel(), labels, how)
        assert wide.low is not None and wide.high is not None and narrow.low is not None and narrow.high is not None
        both += wide.low <= 0 <= wide.high
        subjects_only += narrow.low <= 0 <= narrow.high
    assert 0.87 <= both / rounds <= 0.99
    assert subjects_only / rounds < both / rounds - 0.1


def test_the_interval_is_that_of_theory_for_many_independent_facts() -> None:
    values = np.arange(1000) < 300
    figure = share(values, range(1000), Bootstrap(method="percentile"))
    assert figure.value == 0.3 and figure.low is not None and figure.high is not None
    error = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert figure.low == pytest.approx(0.3 - error, abs=0.003)
    assert figure.high == pytest.approx(0.3 + error, abs=0.003)


def test_bca_is_the_published_interval_of_a_published_example() -> None:
    """Efron & Tibshirani 1993, spatial test data, variance: BCa 90 % is [115.8, 259.6], percentile [100.8, 233.9].

    Our figure is a ratio of sums, so the variance is taken around the fixed mean; the ends then agree within a tenth.
    """
    a = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]
    squares = [(value - np.mean(a)) ** 2 for value in a]
    found = mean(squares, range(26), Bootstrap(level=0.9))
    plain = mean(squares, range(26), Bootstrap(level=0.9, method="percentile"))
    assert found.low == pytest.approx(115.8, rel=0.1) and found.high == pytest.approx(259.6, rel=0.1)
    assert plain.low == pytest.approx(100.8, rel=0.1) and plain.high == pytest.approx(233.9, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(
    cells=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=30, max_size=60), seed=st.integers(0, 99)
)
def test_drawing_kinds_of_clusters_equals_drawing_clusters_one_by_one(cells: list[tuple[int, int]], seed: int) -> None:
    """The fast path and its naive twin, within the noise of 4,000 resamples."""
    totals, counts = (np.array(column, dtype=float) for column in zip(*cells, strict=True))
    rng = np.random.default_rng(seed)
    fast = stats.cluster_draws(np.tile(totals, 3), np.tile(counts, 3), 4000, rng)
    slow = np.array(
        [
            np.tile(totals, 3)[drawn].sum() / np.tile(counts, 3)[drawn].sum()
            for drawn in rng.integers(0, 3 * len(cells), (4000, 3 * len(cells)))
        ]
    )
    error = slow.std() / math.sqrt(4000)
    assert fast.mean() == pytest.approx(slow.mean(), abs=6 * error + 1e-12)
    assert fast.std() == pytest.approx(slow.std(), rel=0.12, abs=1e-12)


def test_ten_thousand_resamples_of_two_thousand_facts_take_under_two_seconds() -> None:
    rng = np.random.default_rng(0)
    begin = time.process_time()
    share(rng.random(2000) < 0.4, range(2000))
    mean(rng.random(2000), range(2000))
    assert time.process_time() - begin < 2 * 2


def test_the_same_data_and_seed_give_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    values, labels = rng.random(50), rng.integers(0, 20, 50).tolist()
    assert mean(values, labels) == mean(values, labels)
    assert mean(values, labels) != mean(values, labels, Bootstrap(seed=1))


def test_nothing_to_measure_has_no_value_but_a_reason() -> None:
    figure = share([], [])
    assert figure.value is None and figure.low is None and figure.n == 0 and figure.reason == "nothing to measure"
    assert "reason" in figure.to_dict() and "before" not in figure.to_dict()
    assert perplexity([0.0], [0], ["a"]).value is None
    assert crossed([], [], []).value is None


def test_one_subject_gives_no_interval() -> None:
    figure = share([True, False, True], ["x"] * 3)
    assert figure.value == pytest.approx(2 / 3) and not figure.has_interval
    assert figure.reason == "one subject only: no interval"
    assert not share([True, True], ["x"] * 2).has_interval


def test_no_hit_in_n_gets_the_exact_bound_and_not_a_width_of_zero() -> None:
    figure = share([False] * 30, [number // 2 for number in range(30)])
    assert (figure.value, figure.low) == (0.0, 0.0)
    assert figure.high == pytest.approx(1 - 0.025 ** (1 / 15))  # Clopper-Pearson, 0 of 15
    assert figure.reason is not None and "exact binomial" in figure.reason
    assert figure.complement().low == pytest.approx(0.025 ** (1 / 15)) and figure.complement().high == 1.0
    assert share([True] * 30, [number // 2 for number in range(30)]).low == pytest.approx(0.025 ** (1 / 15))


def test_equal_values_get_no_interval() -> None:
    figure = paired_difference([0.5] * 9, [0.5] * 9, range(9))
    assert figure.value == 0.0 and not figure.has_interval
    assert figure.reason == "all values are equal: resampling shows no spread"
    assert not share([0.1 + 0.2, 0.3] * 5, range(10)).has_interval


def test_one_seed_falls_back_to_subjects_and_says_so() -> None:
    figure = crossed([0.0, 1.0, 1.0, 0.0], range(4), ["s"] * 4)
    assert figure.has_interval and figure.reason == "one seed: the interval is over subjects only"


def test_pairing_shows_what_two_separate_intervals_hide() -> None:
    rng = np.random.default_rng(3)
    ability = rng.random(300)
    first, second = ability > 0.42, ability > 0.5
    alone = [share(values, range(300), QUICK) for values in (first, second)]
    difference = paired_difference(first, second, range(300), QUICK)
    assert alone[0].low is not None and alone[1].high is not None and alone[0].low < alone[1].high
    assert difference.low is not None and difference.low > 0
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0], ["a", "b"])


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        mean([float("nan"), 1.0], ["a", "b"])
    with pytest.raises(ValueError, match="clusters"):
        mean([1.0, 2.0], ["a"])


def test_perplexity_is_that_of_all_tokens_together() -> None:
    figure = perplexity([20.0, 90.0, 33.0], [10, 30, 11], range(3), QUICK)
    assert figure.value == pytest.approx(math.exp(143 / 51))
    assert figure.low is not None and figure.high is not None and figure.low < figure.value < figure.high


@settings(max_examples=40, deadline=None)
@given(
    facts=st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60),
    method=st.sampled_from(["bca", "percentile"]),
)
def test_intervals_of_shares_hold_their_value_and_stay_in_bounds(facts: list[tuple[bool, int]], method: str) -> None:
    values, labels = zip(*facts, strict=True)
    figure = share(values, labels, Bootstrap(resamples=400, method=method))  # type: ignore[arg-type]
    assert figure.value == pytest.approx(sum(values) / len(values))
    assert figure.n == len(values) and figure.clusters == len(set(labels))
    if figure.low is None or figure.high is None:
        assert figure.reason
    else:
        assert 0 <= figure.low <= figure.high <= 1


def test_sentences() -> None:
    a, b = Figure(0.912, 0.88, 0.94, 340, 200), Figure(0.88, 0.85, 0.91, 340, 200)

    def say(name: str, difference: Figure, first: Figure = a, second: Figure = b) -> str:
        return in_words(name, first, second, difference, ("gradual", "sft"))

    assert say("retained", Figure(0.032, 0.011, 0.053, 340, 200)) == (
        "Retained: 91.2 % for gradual, 88.0 % for sft; gradual is higher by 1.1 to 5.3 points (n = 340)."
    )
    assert say("made_up", Figure(-0.03, -0.05, -0.01, 340, 200)).endswith(
        "gradual is lower by 1.0 to 5.0 points (n = 340)."
    )
    assert "within noise: no difference (-1.0 to 4.0 points" in say("retained", Figure(0.02, -0.01, 0.04, 340, 200))
    assert "within noise" in say("retained", Figure(0.02, 0.0, 0.04, 340, 200))
    assert say(
        "perplexity_after", Figure(2.0, 1.0, 3.0, 9, 9), Figure(12.0, 11, 13, 9, 9), Figure(10.0, 9, 11, 9, 9)
    ) == ("Perplexity after: 12.00 for gradual, 10.00 for sft; gradual is higher by 1.00 to 3.00 (n = 9).")
    assert "cannot be compared (nothing to measure)" in say("retained", share([], []), share([], []))
    assert "has no interval (all values" in say("retained", paired_difference([1, 1], [1, 1], "ab"))
