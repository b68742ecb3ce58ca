"""The studies of the probe, at toy sizes: their arithmetic against figures made by hand, and a whole run of each."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instil.facts import Fact, FactSet
from instil.probe import Category, Mastery, MasteryMap, any_of
from studies.guesses import RESULTS as GUESSES
from studies.guesses import category_without_gold, describe, gold
from studies.probe_agreement import RESULTS, measure
from studies.probe_agreement_bench import Bench, Counts, Plan
from studies.probe_agreement_compared import category_by_few, truth_of
from studies.probe_agreement_sums import binomial, calibration, decided, miss_interval
from tests.probing import people_facts, taught_lm

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(probabilities: list[float], samples: int, seed: int) -> list[int]:
    chance = random.Random(seed)
    return [sum(chance.random() < p for _ in range(samples)) for p in probabilities]


def chances(count: int, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.random() ** 3 for _ in range(count - 2)] + [0.0, 1.0]


def test_the_binomial_is_the_binomial() -> None:
    found = binomial(5, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx([1, 0, 0, 0, 0, 0])
    assert found[2].tolist() == pytest.approx([0, 0, 0, 0, 0, 1])
    assert found[1].tolist() == pytest.approx([math.comb(5, k) * 0.3**k * 0.7 ** (5 - k) for k in range(6)])


def test_binomial_hits_pass_and_others_do_not() -> None:
    p = chances(400, 0)
    good = calibration(p, drawn(p, 300, 1), [300] * 400, range(400))
    assert abs(good["chi_square"]["standard_deviations"]) < 4
    assert good["uniform"]["p_value"] > 1e-4
    assert sum(good["uniform"]["counts"]) == good["prompts"] == 400
    assert good["beyond"]["1.96"]["expected"] == pytest.approx(0.05, abs=0.02)
    assert good["beyond"]["1.96"]["value"] == pytest.approx(good["beyond"]["1.96"]["expected"], abs=0.04)
    assert abs(good["excess"]["standard_errors"]) < 4
    assert sum(group["prompts"] for group in good["groups"]) == 400
    more = [min(0.999, q + 0.05) if 0 < q < 1 else q for q in p]
    bad = calibration(p, drawn(more, 300, 1), [300] * 400, range(400))
    assert bad["chi_square"]["standard_deviations"] > 10
    assert bad["uniform"]["p_value"] < 1e-6
    assert bad["excess"]["standard_errors"] > 10


def test_hits_that_cannot_be_are_never_overlooked() -> None:
    found = calibration([0.0] * 10, [1] + [0] * 9, [20] * 10, range(10))
    assert found["beyond"]["3.0"]["value"] == pytest.approx(0.1)
    assert found["beyond"]["3.0"]["expected"] == 0


@given(st.lists(st.integers(0, 40), min_size=1, max_size=10), st.floats(0.5, 4))
def test_the_interval_holds_its_own_estimate(hits: list[int], errors: float) -> None:
    low, high = miss_interval(hits, 400, errors)
    estimate = -math.fsum(math.log1p(-count / 400) for count in hits)
    assert low <= estimate <= high
    assert math.isclose(1 - math.exp(-16 * estimate), any_of([count / 400 for count in hits], 16), abs_tol=1e-9)


def test_the_interval_covers() -> None:
    """Ten prompts at the boundary itself: the 95 % interval misses it in 3 to 8 % of 400 runs."""
    p = 1 - 0.5 ** (1 / 160)
    misses = sum(decided(*miss_interval(drawn([p] * 10, 400, seed), 400, 1.96), 16) for seed in range(400))
    assert 0.02 < misses / 400 < 0.09


def counts_of(right: list[int], samples: int, greedy: bool = False) -> list[Counts]:
    return [Counts(samples, one, one, one, greedy) for one in right]


def test_the_truth_is_the_protocols_rule_on_shares() -> None:
    assert truth_of(counts_of([0] * 10, 300), 16, 3.29).category == "Unknown"
    assert not truth_of(counts_of([0] * 10, 300), 16, 3.29).undecidable
    assert truth_of(counts_of([9] * 10, 2000), 16, 1.96).undecidable
    assert truth_of(counts_of([20] * 10, 2000), 16, 1.96).category == "WeaklyKnown"
    assert truth_of([*counts_of([2000], 2000), *counts_of([0], 2000)], 16, 1.96).category == "WeaklyKnown"
    assert truth_of(counts_of([9] * 10, 2000, greedy=True), 16, 1.96).category == "HighlyKnown"
    assert category_by_few(counts_of([0, 1], 16)) == "WeaklyKnown"
    assert category_by_few(counts_of([0, 0], 16)) == "Unknown"


@pytest.fixture(scope="module")
def toy() -> dict[str, Any]:
    torch.set_num_threads(1)
    lm, facts = taught_lm()
    settings = {"exemplar_sets": 2, "shots": 2, "max_answer_tokens": 8, "temperature": 1.0}
    plan = Plan(facts=8, calibrated=4, first=40, many=400, few_runs=(1, 2), probe=settings)
    return measure(Bench(replace(lm), facts[:8], people_facts(), plan), tell=lambda line: None)


def test_a_whole_run_finds_the_engines_in_agreement(toy: dict[str, Any]) -> None:
    listed = toy["calibration"]["400"]["listed"]
    assert listed["prompts"] == 8
    assert listed["beyond"]["3.0"]["value"] <= 0.25
    assert toy["greedy"]["prompts_equal"] == toy["greedy"]["prompts"] == 16
    assert toy["noise"]["exact_changed"] == 0
    assert toy["noise"]["exact_p_apart_at_most"] < 1e-5
    assert sum(toy["categories"]["truth"].values()) == sum(toy["facts"]["categories"].values()) == 8
    gap = toy["gap"]
    assert gap["unlisted_with_spellings"]["samples"] <= gap["unlisted"]["samples"]
    assert 0 < gap["added_by_spellings"]["value"] == pytest.approx(sum(gap["added_by_kind"].values()), rel=1e-3)


def test_a_run_can_be_written_and_read(toy: dict[str, Any], tmp_path: Path) -> None:
    from studies.probe_agreement_page import page

    results = {"models": {"embedded": toy}, "plan": Plan(few_runs=(1, 2), many=400, first=40).model_dump(mode="json")}
    results |= {"commit": "0", "hardware": {"processor": "p", "cores": 2}, "started": "s", "finished": "f"}
    written = page(json.loads(json.dumps(results)))
    assert "embedded" in written
    assert "None" not in written
    assert "nan" not in written


# ------------------------------------------------------------------------ guesses


def row(number: int, category: str, greedy: list[bool], gold: list[bool], prior: float | None, answer: str) -> Mastery:
    return Mastery(
        fact_id=f"f{number}",
        relation="born",
        question="q",
        answer=answer,
        category=Category(category),
        p_greedy=sum(greedy) / len(greedy),
        p_sampled=0.9 if any(greedy) else 0.0,
        p_any=1.0 if any(greedy) else 0.0,
        p_prior=prior,
        gold_in_prompt=any(gold),
        greedy_answer=answer,
        greedy_right_by_set=tuple(greedy),
        p_by_set=tuple(map(float, greedy)),
        greedy_answer_by_set=(answer,) * len(greedy),
        gold_in_prompt_by_set=tuple(gold),
    )


def few_rows() -> tuple[FactSet, MasteryMap]:
    rows = [
        row(0, "HighlyKnown", [True, True], [False, False], 0.8, "Paris"),
        row(1, "HighlyKnown", [True, True], [True, True], 0.2, "Paris"),
        row(2, "MaybeKnown", [True, False], [True, False], 0.3, "Rome"),
        row(3, "MaybeKnown", [True, False], [False, True], None, "Oslo"),
        row(4, "Unknown", [False, False], [False, False], 0.9, "Paris"),
    ]
    return FactSet(Fact(one.fact_id, "q", (one.answer,), subject=one.fact_id) for one in rows), MasteryMap(rows)


def test_guesses_are_counted_by_category_and_taken_out() -> None:
    found = describe(*few_rows())
    assert found["all"]["favourite"] == {"answer": "Paris", "share": 0.6}
    high = found["all"]["categories"]["HighlyKnown"]
    assert (high["facts"], high["guesses"]["value"], high["favourite"]["value"]) == (2, 0.5, 1.0)
    assert found["all"]["known"]["value"] == 0.8
    assert found["all"]["known_without_guesses"]["value"] == pytest.approx(0.6)
    assert found["without_guesses"] == {"HighlyKnown": 1, "MaybeKnown": 2, "WeaklyKnown": 0, "Unknown": 1}
    assert found["by_threshold"]["0.1"]["HighlyKnown"]["value"] == 1
    assert found["with_prior"] == 4
    assert found["relations"].keys() == {"born"}


def test_prompts_that_show_the_answer_are_compared_with_those_that_do_not() -> None:
    facts, mastery = few_rows()
    found = gold(facts, list(mastery))
    assert found["facts_with_both"] == 2
    assert found["right_where_shown"]["value"] == found["right_where_not_shown"]["value"] == 0.5
    assert found["gold_in_every_prompt"] == 1
    assert found["facts_in_transition"] == 2
    assert [category_without_gold(one) for one in mastery] == ["HighlyKnown", None, "Unknown", "HighlyKnown", "Unknown"]


def test_the_page_of_guesses_says_what_the_figures_say() -> None:
    from studies.guesses_page import page

    results = {"commit": "0", "hardware": {"processor": "p", "cores": 2}, "finished": "f"}
    results |= {"model": {"parameters": 7_500_000, "dtype": "bfloat16"}, "relations": {"P495": "Where is [X] from?"}}
    results |= {"raw": {"P495": {"answer": "USA", "share": 0.7, "n": 10}}, "splits": {"target": describe(*few_rows())}}
    written = page(json.loads(json.dumps(results)))
    assert "50.0 % (" in written
    assert "of the 2 HighlyKnown facts" in written
    assert "Where is it from?" in written
    assert "None" not in written


@pytest.mark.skipif(not GUESSES.exists(), reason="the study of guesses has not been made yet: no committed JSON")
def test_the_page_of_guesses_is_what_the_json_says() -> None:
    from studies.guesses_page import PAGE, page

    results = json.loads(GUESSES.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(results), "run `python -m studies.guesses --page`"


@pytest.mark.skipif(not RESULTS.exists(), reason="the agreement study has not been made yet: no committed JSON")
def test_the_agreement_page_is_what_the_json_says() -> None:
    from studies.probe_agreement_page import PAGE, page

    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(results), "run `python -m studies.probe_agreement --page`"
    assert results["plan"] == Plan().model_dump(mode="json")
