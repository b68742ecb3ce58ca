"""`train` with a function that weighs the examples anew for each epoch: who occurs how often, and where."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InputError
from instil.training import Decision, LoraSettings, Meter, Progress
from instil.training.batches import Reading
from instil.training.engine import Batcher, Window, Windows
from instil.training.layout import Layout
from instil.training.packing import epoch_windows
from instil.training.weighing import checked, occurrences, slots, spread
from tests.training_data import (
    Killed,
    assert_same_weights,
    killed_at,
    learner,
    made_up,
    nll,
    settings,
    trained,
    weights,
    without_time,
)

WEIGHTS = st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 0.1, 1.0, 5e-324, 1e300]), min_size=1, max_size=40)
SEEDS = st.integers(0, 2**32 - 1)


# ---- how often ----


@given(WEIGHTS.filter(any), st.integers(1, 60), SEEDS, st.integers(0, 9))
def test_places_are_given_in_proportion_to_weights(given: list[float], count: int, seed: int, epoch: int) -> None:
    places = slots(given, count, seed, epoch)
    assert len(places) == count and places == sorted(places)
    assert places == slots(given, count, seed, epoch)
    times, total = Counter(places), sum(map(Fraction, given))
    for index, weight in enumerate(given):
        share = count * Fraction(weight) / total
        assert abs(times[index] - share) < 1
        assert times[index] == share or share.denominator > 1
        assert weight > 0 or index not in times


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any), st.integers(1, 12))
def test_the_expectation_is_the_share_exactly(parts: list[int], count: int) -> None:
    total = sum(parts)
    drawn = [occurrences(parts, count, offset) for offset in range(total)]
    for index, part in enumerate(parts):
        assert Fraction(sum(times[index] for times in drawn), total) == Fraction(count * part, total)


def test_over_seeds_the_mean_is_the_share_and_fractions_are_drawn_apart() -> None:
    given, count = [0.5, 1.0, 2.5, 0.0, 1.5, 0.5], 6
    draws = [Counter(slots(given, count, seed, 0)) for seed in range(4000)]
    for index, weight in enumerate(given):
        assert sum(draw[index] for draw in draws) / len(draws) == pytest.approx(weight, abs=0.04)
    # Without a random order, the halves at both ends of the list would never be drawn alike.
    assert {(draw[0], draw[5]) for draw in draws} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("weight", [1.0, 0.1, 3.7e-5])
def test_equal_weights_give_each_example_once(weight: float) -> None:
    assert slots([weight] * 1001, 1001, seed=3, epoch=2) == list(range(1001))


def test_no_weight_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        slots([0.0, 0.0], 2, 0, 0)


# ---- where ----


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 9), SEEDS, st.integers(0, 9))
def test_no_window_has_an_example_twice_when_that_can_be_avoided(
    times: list[int], size: int, seed: int, epoch: int
) -> None:
    places = [index for index, often in enumerate(times) for _ in range(often)]
    windows = spread(places, size, seed, epoch)
    assert sorted(index for window in windows for index in window) == places
    assert windows == spread(places, size, seed, epoch)
    assert len(windows) == -(-len(places) // size)
    assert max(map(len, windows)) <= size and max(map(len, windows)) - min(map(len, windows)) <= 1
    for index, often in enumerate(times):
        fewest = often // len(windows)
        assert {window.count(index) for window in windows} <= {fewest, fewest + 1}


@given(st.integers(1, 50), st.integers(1, 9), SEEDS, st.integers(0, 9))
def test_where_nothing_repeats_the_windows_are_those_without_weights(
    count: int, size: int, seed: int, epoch: int
) -> None:
    plain = epoch_windows([1] * count, seed=seed, epoch=epoch, batch_size=size)
    assert spread(range(count), size, seed, epoch) == plain


def test_what_repeats_is_not_dealt_in_lockstep() -> None:
    """Forty examples twice each, in ten windows: every pair of windows shares about as many as chance would have."""
    windows = [set(window) for window in spread(sorted([*range(40)] * 2), 8, seed=0, epoch=0)]
    shared = [len(one & other) for number, one in enumerate(windows) for other in windows[:number]]
    assert sum(shared) == 40 and max(shared) <= 4


def test_copies_of_an_example_in_one_window_never_share_a_row() -> None:
    examples = made_up(3, longest=6)
    batcher = Batcher(examples, settings(row_length=64), Layout(Reading(), packed=True), pad_id=2)
    rows = batcher.rows(Window((0, 1, 0, 2, 0)))
    assert sorted(index for row in rows for index in row) == [0, 0, 0, 1, 2]
    assert all(len(set(row)) == len(row) for row in rows) and len(rows) == 3
    (batch,) = batcher.micro_batches(Window((0, 1, 0, 2, 0)))
    assert len(batch.targets_N) == sum(examples[index].targets for index in (0, 1, 0, 2, 0))
    assert float(batch.weights_N.sum()) == pytest.approx(1.0)


def test_the_windows_of_an_epoch_follow_its_weights() -> None:
    examples = made_up(10)
    windows = Windows(examples, settings(batch_size=4))
    plain = [windows[number] for number in range(len(windows))]
    windows.start_epoch(0, {"fact 3": 4.0, "fact 5": 1.0})
    assert len(windows) == len(plain)
    assert Counter(index for number in range(3) for index in windows[number].members) == {3: 8, 5: 2}
    windows.start_epoch(0)
    assert [windows[number] for number in range(len(windows))] == plain


# ---- runs ----


class ByTurns:
    """Weighs by what the model says and by the epoch; draws random numbers, as a probe that samples would."""

    def __init__(self, examples: list[Any]) -> None:
        self.examples, self.seen = examples, list[Progress]()

    def __call__(self, progress: Progress) -> Mapping[str, float]:
        self.seen.append(progress)
        assert not progress.model.model.training
        assert progress.keys == tuple(example.key for example in self.examples)
        torch.rand(3)
        random.random()
        own = nll(progress.model, self.examples[:4])
        return {key: own if number % 3 else 0.5 + progress.epoch for number, key in enumerate(progress.keys[2:])}


def equal(progress: Progress) -> dict[str, float]:
    torch.rand(3)
    random.random()
    return dict.fromkeys(progress.keys, 0.3)


def dropping() -> Any:
    return learner("gpt2", resid_pdrop=0.1, embd_pdrop=0.1)


def test_with_equal_weights_a_run_is_the_one_without_bit_for_bit(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", settings(), lm=dropping())
    weighed = trained(tmp_path / "weighed", settings(), lm=dropping(), weigh=equal)
    assert_same_weights(weighed.model, plain.model)
    assert without_time(weighed) == without_time(plain)


@pytest.mark.parametrize("at", [1, 2, 4, 5, 7, 9])
def test_resumed_equals_uninterrupted(tmp_path: Path, at: int) -> None:
    config, examples = settings(save_every=2), made_up(24)
    look, before, behind = ByTurns(examples), ByTurns(examples), ByTurns(examples)
    whole = trained(tmp_path / "whole", config, lm=dropping(), weigh=look)
    assert [(one.epoch, one.step) for one in look.seen] == [(0, 0), (1, 3), (2, 6)]
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, lm=dropping(), weigh=before, step=killed_at(at))
    resumed = trained(tmp_path / "cut", config, lm=dropping(), weigh=behind)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)
    # What was in force at the checkpoint is remembered, not asked for: checkpoints are behind steps 2, 3, 4, 6 and 8.
    asked = {1: [0, 1, 2], 2: [0, 1, 2], 4: [2], 5: [2], 7: [], 9: []}
    assert [one.epoch for one in behind.seen] == asked[at]


def test_it_is_asked_behind_watch_and_stop_and_not_when_the_run_ends(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def weigh(progress: Progress) -> dict[str, float]:
        told.append(("weigh", progress.epoch, len(progress.history)))
        return dict.fromkeys(progress.keys, 1.0)

    def stop(progress: Progress) -> Decision:
        told.append(("stop", progress.epoch, len(progress.history)))
        return Decision(stop=progress.epoch == 2)

    trained(tmp_path / "a", settings(), weigh=weigh, stop=stop, watch=lambda p: told.append(("watch", p.epoch, 0)))
    first = [("weigh", 0, 0), ("watch", 1, 0), ("stop", 1, 0), ("weigh", 1, 1)]
    assert told == [*first, ("watch", 2, 0), ("stop", 2, 1)]
    told.clear()
    trained(tmp_path / "b", settings(epochs=1), weigh=weigh)
    assert told == [("weigh", 0, 0)]


def test_an_example_of_weight_zero_has_no_influence(tmp_path: Path) -> None:
    examples = made_up(24)
    other = [replace(one, input_ids=one.input_ids[::-1], labels=(-100, *one.input_ids[-2::-1])) for one in examples[:5]]
    rest = {example.key: 1.0 for example in examples[5:]}
    one = trained(tmp_path / "one", settings(), examples=examples, weigh=lambda _: rest)
    same = trained(tmp_path / "same", settings(), examples=[*other, *examples[5:]], weigh=lambda _: rest)
    assert_same_weights(same.model, one.model)
    assert one.steps == 9
    seen = trained(
        tmp_path / "seen", settings(), examples=[*other, *examples[5:]], weigh=lambda _: {**rest, "fact 0": 1}
    )
    assert not torch.equal(weights(seen.model)["lm_head.weight"], weights(one.model)["lm_head.weight"])


def test_what_has_more_weight_is_learned_sooner(tmp_path: Path) -> None:
    examples = made_up(16)
    heavy = {example.key: 9.0 if number < 8 else 1.0 for number, example in enumerate(examples)}
    lm = trained(tmp_path, settings(epochs=6), examples=examples, weigh=lambda _: heavy).model
    plain = trained(tmp_path / "plain", settings(epochs=6), examples=examples).model
    assert nll(lm, examples[:8]) < nll(plain, examples[:8])
    assert nll(lm, examples[8:]) > nll(plain, examples[8:])


def test_the_run_ends_where_nothing_has_a_weight(tmp_path: Path) -> None:
    def until_two(progress: Progress) -> dict[str, float]:
        return dict.fromkeys(progress.keys, float(progress.epoch < 2))

    two = trained(tmp_path / "two", settings(epochs=2))
    result = trained(tmp_path / "a", settings(epochs=9), weigh=until_two)
    assert (result.epochs, result.steps, result.ended_by) == (2, 6, "weights")
    assert_same_weights(result.model, two.model)
    best = trained(
        tmp_path / "b", settings(epochs=9), weigh=until_two, stop=lambda p: Decision(best=p.epoch == 1, score=0.0)
    )
    assert (best.ended_by, best.best_epoch) == ("weights", 1)
    assert_same_weights(best.model, trained(tmp_path / "one", settings(epochs=1)).model)


@pytest.mark.parametrize("adapter", [None, LoraSettings(r=2)])
def test_a_run_may_end_before_it_begins(tmp_path: Path, adapter: Any) -> None:
    config = settings(adapter=adapter)
    result = trained(tmp_path, config, weigh=lambda _: {})
    assert (result.epochs, result.steps, result.loss, result.ended_by) == (0, 0, None, "weights")
    assert result.points == () and result.tokens == 0
    assert_same_weights(result.model, learner())
    again = trained(tmp_path, config, weigh=lambda _: {})
    assert again.to_dict() == result.to_dict()


def test_what_it_computes_is_charged_by_whoever_gives_it(tmp_path: Path) -> None:
    meter, examples = Meter(), made_up(24)

    def weigh(progress: Progress) -> dict[str, float]:
        nll(progress.model, examples[:3])  # uncounted: free
        with meter.counting(progress.model.model, "deciding"):
            nll(progress.model, examples[:3])
        return dict.fromkeys(progress.keys, 1.0)

    result = trained(tmp_path / "a", settings(), weigh=weigh, meter=meter)
    plain = trained(tmp_path / "b", settings())
    assert meter.flops["training"] == plain.cost["training"]["flops"]
    assert meter.flops["deciding"] == result.cost["deciding"]["flops"] > 0


# ---- refusals ----


def test_a_batch_in_tokens_and_a_fixed_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"field train\.batch_tokens, found 64, expected train\.batch_size"):
        trained(tmp_path, settings(batch_size=None, batch_tokens=64), weigh=equal)
    phased = [replace(example, phase=number % 2) for number, example in enumerate(made_up(6))]
    with pytest.raises(InputError, match="field phase, found examples of 2 phases, expected one phase"):
        trained(tmp_path, settings(), examples=phased, weigh=equal)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"fact 1": -0.5}, "fact 1: -0.5"),
        ({"fact 1": float("nan")}, "fact 1: nan"),
        ({"fact 1": float("inf")}, "fact 1: inf"),
        ({"fact 1": "much"}, "fact 1: 'much'"),
        ({"fact 1": 1.0, "fact 99": 1.0}, "fact 99"),
    ],
)
def test_wrong_weights_are_refused(tmp_path: Path, answer: Any, found: str) -> None:
    with pytest.raises(InputError) as refused:
        trained(tmp_path, settings(), weigh=lambda _: answer)
    assert (refused.value.field, refused.value.found) == ("weigh", found)
    assert refused.value.expected


def test_weights_are_kept_above_zero_and_in_the_order_of_the_keys() -> None:
    kept = checked({"c": 2, "a": 0.5, "b": 0.0}, ["a", "b", "a", "c", "d"])
    assert list(kept.items()) == [("a", 0.5), ("c", 2.0)]


def test_a_run_with_weights_is_another_run(tmp_path: Path) -> None:
    trained(tmp_path / "a", settings(epochs=1))
    with pytest.raises(InputError, match="another training run"):
        trained(tmp_path / "a", settings(epochs=1), weigh=equal)
    trained(tmp_path / "b", settings(epochs=1), weigh=equal)
    with pytest.raises(InputError, match="another training run"):
        trained(tmp_path / "b", settings(epochs=1))
    asked: list[Progress] = []
    trained(tmp_path / "b", settings(epochs=1), weigh=asked.append)
    assert not asked, "a finished run is not weighed again"
