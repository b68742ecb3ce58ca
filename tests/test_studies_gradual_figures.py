"""Figures of the study of gradual learning, reckoned by hand on made-up runs of a handful of facts."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.gradual import best_published
from studies.gradual_figures import (
    arm_figures,
    at_reading,
    by_base,
    compared,
    curve,
    figures,
    flow,
    highly_known,
    not_guessed,
    perplexity,
    read,
    start_figures,
)
from studies.gradual_pooled import Measured, over, relative, rounded

SEEDS = (1, 2, 3)


def look(taught: str, held_back: str, **more: Any) -> dict[str, Any]:
    end = {"made_up": "01-0", "nll": 10.0, "nll_tokens": 5}
    return {"taught": taught, "taught_of": 4, "held_back": held_back, "held_back_of": 2, **end, **more}


def placed(*looks: dict[str, Any], stage: str = "stage 1") -> list[dict[str, Any]]:
    """The base, then an epoch each."""
    return [dict(looks[0]), *({**one, "stage": stage, "epoch": epoch} for epoch, one in enumerate(looks[1:], start=1))]


STEEP = placed(look("0000", "2222"), look("0400", "2202"), look("0444", "2002"), look("4444", "0000"))
"""Acquired 0, 25, 75, 100 %; lost 0, 25, 50, 100 points."""

GENTLE = placed(look("0000", "2222"), look("0400", "2222"), look("0444", "2221"), look("4444", "2220"))
"""The same acquired; lost 0, 0, 12.5, 25 points."""


def start_row(seed: int = 1, base: str = "people", **more: Any) -> dict[str, Any]:
    row = {
        "job": {"before": {"base": base, "split": "test", "seed": seed, "sizes": {}}},
        **look("0000", "aa55", held_back_of=10, made_up="0000"),
        "fitted": "a500",
        "fitted_of": 10,
        "category": "HMWU",
        "guessed": "1000",
        "untaught": "2000",
        "untaught_of": 4,
        "groups": {"target": [0, 0, 1, 2], "held_back": [3, 4, 5, 6], "untaught": [7, 7, 8, 9]},
        "categories": {"held_back": "HHMM", "untaught": "MWUU"},
    }
    return {**row, **more}


def run_row(arm: str, seed: int = 1, looks: Any = STEEP, base: str = "people", **more: Any) -> dict[str, Any]:
    end = {
        **look("4210", "a550", held_back_of=10, made_up="11-0"),
        "fitted": "aa50",
        "fitted_of": 10,
        "category": "HHMU",
        "guessed": "1000",
        "untaught": "4200",
        "untaught_of": 4,
        "quick": looks[-1],
        **more.pop("end", {}),
    }
    flops = more.pop("flops", (9.0, 3.0))
    row = {
        "job": {"arm": {"name": arm}, "base": base, "split": "test", "seed": seed},
        "curve": [{**one, "flops": 2.0 * place} for place, one in enumerate(looks)],
        "end": end,
        "trained": "0100",
        "probed": [],
        "cost": {"training": {"flops": flops[0]}, "deciding": {"flops": flops[1]}},
        "stages": [{"stage": "stage 1"}],
        "notes": [],
        "seconds": 10.0,
    }
    return {**row, **more}


def measured(*rows: dict[str, Any], best: float = 1.0, seeds: Any = SEEDS, **starts: Any) -> Measured:
    return by_base([*(start_row(seed, **starts) for seed in seeds), *rows], {"people": best})["people"]


def of_one(*rows: dict[str, Any]) -> tuple[Measured, dict[str, Any]]:
    base = measured(*(rows or (run_row("sft"),)), seeds=(1,))
    return base, arm_figures(base, base.arms["sft"])


class TestOneArm:
    def test_shares_at_the_end(self) -> None:
        _, found = of_one()
        assert found["acquired"].value == pytest.approx(7 / 16)
        assert found["highly_known"].value == 0.5
        assert found["lost"].value == pytest.approx((30 - 20) / 40), "aa55 before, a550 at the end"
        assert found["made_up"].value == pytest.approx(2 / 3) and found["made_up"].n == 3, "one has no score"
        assert (found["flops"], found["deciding"], found["seconds"]) == (12.0, 3.0, 10.0)

    def test_what_is_known_of_the_base_is_told_once(self) -> None:
        base, _ = of_one()
        found = start_figures(base)
        assert (found["acquired"].value, found["highly_known"].value, found["made_up"].value) == (0, 0.25, 0)
        assert found["categories"] == dict.fromkeys("HMWU", 1) and found["held_back"] == 4

    def test_perplexity_is_a_multiple_with_the_doubt_of_few_seeds(self) -> None:
        rows = [run_row("sft", seed, end={"nll": 5 * (2 + gain)}) for seed, gain in ((1, 0.1), (2, 0.3))]
        base = measured(*rows)
        found = perplexity(base, base.arms["sft"])
        assert found.value == pytest.approx(math.exp(0.2))
        assert (math.log(found.low or 0), math.log(found.high or 0)) == pytest.approx((0.2 - 1.271, 0.2 + 1.271))
        assert perplexity(base, {1: rows[0]}).low is None

    def test_taught_facts_by_what_they_started_as_and_whether_they_were_trained(self) -> None:
        found = of_one()[1]["by_category"]
        assert {letter: list(parts) for letter, parts in found.items()} == {
            "H": ["untrained"], "M": ["trained"], "W": ["untrained"], "U": ["untrained"]
        }  # fmt: skip
        half = found["M"]["trained"]["worded"]
        assert (half.before, half.after, half.value) == pytest.approx((0.5, 1.0, 0.5))
        weak = found["W"]["untrained"]
        assert weak["worded"].value == pytest.approx(0.5) and weak["reworded"].value == pytest.approx(0.25)
        assert found["U"]["untrained"]["reworded"].value == 0

    def test_facts_that_rose_without_being_trained_on(self) -> None:
        found = of_one()[1]["lifted"]
        assert (found.value, found.n) == (0.5, 2), "of WeaklyKnown and Unknown one became MaybeKnown"
        assert of_one(run_row("sft", trained="0110"))[1]["lifted"].value == 0
        assert of_one(run_row("sft", trained="0111"))[1]["lifted"].value is None

    def test_facts_that_are_never_taught_by_test_category(self) -> None:
        found = of_one()[1]["tested"]
        assert {name: one.value for name, one in found.items()} == pytest.approx(
            {"HighlyKnown": 0.75, "MaybeKnown, known": 0.25, "MaybeKnown, not known": 1.0, "WeaklyKnown": 0.5,
             "Unknown": 0.0}
        )  # fmt: skip
        assert [one.before for one in found.values()] == pytest.approx([1.0, 0.5, 0.5, 0.0, 0.0])

    def test_known_facts_are_kept_where_half_of_the_answers_are_still_right(self) -> None:
        found = of_one()[1]["kept"]
        assert {letters: one.value for letters, one in found.items()} == {"HM": 0.75, "H": 1.0, "M": 0.5}
        worse = of_one(run_row("sft", end={"held_back": "a450"}))[1]["kept"]
        assert (worse["HM"].value, worse["H"].value) == (0.5, 0.5)

    def test_forgetting_is_read_in_the_seeds_that_reach_the_reading(self) -> None:
        rows = [run_row("sft", 1), run_row("sft", 2, GENTLE), run_row("sft", 3, STEEP[:3])]
        base = measured(*rows)
        half = read(base, base.arms["sft"], 0.5)
        assert half["value"] == pytest.approx((0.375 + 0.0625 + 0.375) / 3) and half["reached"] == [1, 2, 3]
        late = read(base, base.arms["sft"], 0.9)
        assert late["value"] == pytest.approx((0.8 + 0.2) / 2)
        assert (late["reached"], late["missing"]) == ([1, 2], [3])
        never = read(base, {3: base.arms["sft"][3]}, 0.9)
        assert never["value"] is None and never["missing"] == [3]

    def test_a_curve_is_the_mean_of_points_that_all_seeds_have(self) -> None:
        found = curve([STEEP, GENTLE])
        assert [point["acquired"] for point in found] == [0, 0.25, 0.75, 1]
        assert [point["lost"] for point in found] == pytest.approx([0, 0.125, 0.3125, 0.625])

    def test_a_curve_ends_with_the_models_that_were_handed_on(self) -> None:
        found = curve([STEEP, GENTLE[:3]])
        assert [point["acquired"] for point in found] == [0, 0.25, 0.75, (1 + 0.75) / 2]
        two = [*STEEP[:2], *placed(*STEEP[1:], stage="stage 2")[1:]]
        assert [point["acquired"] for point in curve([two, STEEP])] == [0, 0.25, 1], "a stage's epochs are its own"

    def test_what_the_base_has_before_is_no_reading(self) -> None:
        looks = placed(look("4400", "2222"), look("4440", "2202"), look("4444", "2002"))
        base = measured(run_row("sft", 1, looks), run_row("sft, KL", 1, looks), seeds=(1,))
        runs = base.arms["sft"]
        assert [read(base, runs, share)["void"] for share in (0.5, 0.75, 0.9)] == [True, False, False]
        assert compared(base, runs, base.arms["sft, KL"])["readings"]["0.5"]["void"]

    def test_the_flow_goes_from_look_to_look(self) -> None:
        probed = [{"after": "before", "category": "HMWU"}, {"after": "stage 1", "category": "HHMU"}]
        base = measured(run_row("gradual", 1, probed=probed), run_row("gradual", 2))
        steps = flow(base, base.arms["gradual"])
        assert [(step["from"], step["to"], step["seeds"]) for step in steps] == [
            ("before", "end", 1), ("before", "stage 1", 1), ("stage 1", "end", 1)
        ]  # fmt: skip
        assert steps[1]["counts"]["W"] == {"H": 0, "M": 1, "W": 0, "U": 0}
        assert steps[2]["counts"]["H"]["H"] == 2
        assert all(sum(sum(row.values()) for row in step["counts"].values()) == 4 for step in steps)

    def test_a_share_of_few_facts_has_no_interval_beyond_none_and_all(self) -> None:
        marks = {1: "1110", 2: "0100", 3: "1111"}
        runs = {seed: run_row("sft", seed, end={"made_up": own}) for seed, own in marks.items()}
        base = measured(*runs.values())
        found = arm_figures(base, runs)["made_up"]
        wide = over(base, runs, "untaught", lambda _, run: [float(mark) for mark in run["end"]["made_up"]])
        assert wide.high is not None and wide.high > 1, "as the resampling has it"
        assert found.value == pytest.approx(8 / 12) and found.low is not None and found.low >= 0 and found.high == 1

    def test_a_subject_of_several_seeds_is_one(self) -> None:
        base = measured(*(run_row("sft", seed) for seed in SEEDS))
        found = arm_figures(base, base.arms["sft"])["lost"]
        assert (found.n, found.clusters) == (12, 4)


# ------------------------------------------------------------------------ two arms


def pair(first: Any = GENTLE, second: Any = STEEP, seeds: Any = SEEDS, **more: Any) -> Measured:
    rows = [run_row("new", seed, first, **more) for seed in seeds] + [run_row("old", seed, second) for seed in seeds]
    wide = {"held_back": list(range(100, 140)), "target": [0, 0, 1, 2], "untaught": [7, 7, 8, 9]}
    return measured(*rows, seeds=seeds, groups=wide)


def wider(looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ten times as many known facts, so that there is something to resample."""
    return [{**one, "held_back": one["held_back"] * 10} for one in looks]


class TestTwoArms:
    def bar(self, share: float = 0.5, first: Any = GENTLE, second: Any = STEEP, **more: Any) -> dict[str, Any]:
        base = pair(wider(first), wider(second), **more)
        return at_reading(base, base.arms["new"], base.arms["old"], share)

    def test_half_the_forgetting_for_sure_and_for_no_more_passes(self) -> None:
        found = self.bar()
        assert found["forgotten"] == pytest.approx([0.0625, 0.375])
        assert found["difference"]["value"] == pytest.approx(-0.3125) and found["verdict"] == "lower"
        assert found["made_up"]["value"] == 0 and found["made_up"]["n"] == 9, "one of four has no score"
        assert found["passes"] is True

    @pytest.mark.parametrize(
        ("part", "more"),
        [
            ("no_more_compute", {"flops": (10.0, 3.0)}),
            ("no_more_made_up", {"first": [{**one, "made_up": "1111"} for one in GENTLE]}),
            ("half", {"first": [{**one, "held_back": here} for one, here in
                                zip(STEEP, ("2222", "2202", "2012", "0000"), strict=True)]}),
        ],
    )  # fmt: skip
    def test_each_part_of_the_bar_can_fail_alone(self, part: str, more: dict[str, Any]) -> None:
        second = [{**one, "made_up": "0000"} for one in STEEP]
        found = self.bar(second=second, **{"first": [{**one, "made_up": "0000"} for one in GENTLE], **more})
        failed = [name for name in ("half", "sure", "no_more_compute", "no_more_made_up", "reached") if not found[name]]
        assert part in failed and found["passes"] is False
        assert part == "half" or failed == [part]

    def test_a_reading_that_is_never_reached_does_not_pass(self) -> None:
        found = self.bar(0.9, first=GENTLE[:3])
        never = {"missing": [1, 2, 3], "never": [1, 2, 3]}
        assert found == {"difference": None, **never, "void": False, "passes": False}
        base = pair(wider(GENTLE), wider(STEEP))
        short = {**base.arms["new"], 3: run_row("new", 3, wider(GENTLE[:3]))}
        once = at_reading(base, short, base.arms["old"], 0.9)
        assert once["never"] == once["missing"] == [3] and not once["reached"] and not once["passes"]
        other = at_reading(base, base.arms["old"], short, 0.9)
        assert other["missing"] == [3] and other["reached"], "it is the other arm that does not reach it"

    def test_a_little_more_compute_than_the_same_budget_is_the_same(self) -> None:
        assert self.bar(flops=(9.1, 3.0))["no_more_compute"]
        assert not self.bar(flops=(9.2, 3.0))["no_more_compute"]

    def test_arms_are_compared_in_the_seeds_that_both_have(self) -> None:
        base = measured(*(run_row("new", seed, GENTLE, end={"taught": "4444"}) for seed in SEEDS), run_row("old", 2))
        found = compared(base, base.arms["new"], base.arms["old"])
        assert found["seeds"] == [2] and found["flops"] == [12.0, 12.0]
        assert found["acquired"]["value"] == pytest.approx(9 / 16)
        nothing = compared(base, base.arms["new"], {})
        assert nothing["acquired"]["value"] is None and nothing["flops"] is None and not nothing["passes"]

    def test_highly_known_facts_with_and_without_guesses(self) -> None:
        two = {seed: run_row("gradual", seed, end={"category": "HHHU"}) for seed in SEEDS}
        one = {seed: run_row("one", seed, end={"category": "HHMU", "guessed": "1100"}) for seed in SEEDS}
        found = highly_known(measured(), two, one)
        assert found["all"]["points"]["value"] == pytest.approx(0.25)
        assert found["all"]["shares"] == [0.75, 0.5]
        assert found["all"]["relative"]["value"] == pytest.approx(0.5)
        assert not_guessed(start_row(), two[1], one[1]) == [0, 0, 1, 1]
        assert found["not_guessed"]["shares"] == [0.5, 0.0] and found["not_guessed"]["relative"] is None
        assert found["flops"] == [12.0, 12.0]

    def test_nothing_is_claimed_of_two_equal_arms(self) -> None:
        runs = {seed: run_row("one", seed) for seed in SEEDS}
        found = highly_known(measured(), runs, runs)["all"]
        assert found["verdict"] == "no difference" and found["relative"] == {"value": 0, "low": None, "high": None}

    @settings(max_examples=5, deadline=None)
    @given(st.integers(0, 1000))
    def test_a_relative_gain_is_as_sure_as_the_bootstrap_of_the_ratio(self, seed: int) -> None:
        import numpy as np

        chance = random.Random(seed)
        number = 400
        letters = ["".join(chance.choice("HMU") for _ in range(number)) for _ in range(2)]
        layout = {part: list(range(number)) for part in ("target", "held_back", "untaught")}
        base = Measured({1: {"groups": layout}}, {}, 1.0)
        arms = [{1: {"end": {"category": each}}} for each in letters]
        found = relative(base, *arms, lambda _, run: [float(one == "H") for one in run["end"]["category"]])
        above, below = (np.array([float(one == "H") for one in each]) for each in letters)
        drawn = np.random.default_rng(0).integers(0, number, (4000, number))
        low, high = np.quantile(above[drawn].sum(1) / below[drawn].sum(1) - 1, [0.025, 0.975])
        assert found is not None and found["value"] == pytest.approx(above.sum() / below.sum() - 1)
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.15 * (high - low))


class TestAll:
    def rows(self) -> list[dict[str, Any]]:
        arms = ("sft", "gradual", "one stage, MaybeKnown")
        runs = [run_row(arm, seed, GENTLE if arm == "gradual" else STEEP) for arm in arms for seed in SEEDS]
        return [*(start_row(seed) for seed in SEEDS), *runs]

    def test_all_figures_are_plain_and_hold_no_facts(self) -> None:
        found = figures(self.rows(), {"people": 1.0}, {"people": "sft"}, "gradual")
        text = json.dumps(found)
        assert json.loads(text) == found and len(text) < 40_000
        people = found["people"]
        assert people["seeds"] == [1, 2, 3] and set(people["paired"]) == {"gradual", "one stage, MaybeKnown"}
        assert set(people["highly_known"]) == {"sft", "one stage, MaybeKnown"}
        assert not any(key in text for key in ('"trained": "', '"guessed"', '"category"'))

    def test_arms_that_were_not_run_are_left_out(self) -> None:
        found = figures(self.rows(), {"people": 1.0}, {"people": "sft, KL"}, "three stages")["people"]
        assert found["against"] is None and found["paired"] == {}
        assert found["stages"] is None and found["highly_known"] == {}

    def test_runs_that_do_not_belong_together_are_refused(self) -> None:
        with pytest.raises(ValueError, match="two runs"):
            by_base([*self.rows(), run_row("sft", 2)], {"people": 1.0})
        with pytest.raises(ValueError, match=r"before teaching .*\[9\]"):
            by_base([*self.rows(), run_row("sft", 9)], {"people": 1.0})
        old = {name: value for name, value in start_row(9).items() if name != "groups"}
        with pytest.raises(ValueError, match="measure again"):
            by_base([*self.rows(), old], {"people": 1.0})

    def test_the_arm_to_beat_is_chosen_on_development_subjects(self) -> None:
        tried = {
            "sft": [{"score": [0.0, -1.0]}],
            "sft, KL": [{"score": [0.2, -0.5]}, {"score": [0.1, -0.5]}],
            "gradual": [{"score": [0.1, -0.4]}],
        }
        assert best_published(tried) == "sft", "at a low rate plain fine-tuning can be the one to beat"
        del tried["sft"]
        assert best_published(tried) == "sft, KL"

    def test_small_numbers_keep_five_decimals(self) -> None:
        assert rounded({1: [0.1234567, 3, None, "a"]}) == {"1": [0.12346, 3, None, "a"]}
