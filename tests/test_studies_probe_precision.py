"""The study of precision: its counts against figures made by hand, and a whole run at toy size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError
from instil.probe import Asked, Category, any_of, ask, categorise
from studies.probe_precision import RESULTS, RUNS, Bench, Plan, leads, measure
from studies.probe_precision_compared import (
    Answers,
    changes_less,
    compared,
    further_off,
    near_the_rule,
    right_in,
    sizes,
)
from tests.probing import people_facts, small_lm, taught_lm

pytestmark = pytest.mark.usefixtures("one_thread")


def asked(name: str, p: Sequence[float], right: Sequence[bool], prior: float | None = 0.1) -> Asked:
    greedy, p_any = sum(right) / len(right), any_of(p, 16)
    return Asked(
        question_id=name,
        fact_id=name,
        category=categorise(greedy, p_any),
        p_greedy=greedy,
        p_sampled=sum(p) / len(p),
        p_any=p_any,
        p_prior=prior,
        gold_in_prompt=False,
        greedy_answer="a",
        greedy_right_by_set=tuple(right),
        p_by_set=tuple(p),
        greedy_answer_by_set=tuple("right" if one else "wrong" for one in right),
        gold_in_prompt_by_set=(False,) * len(p),
    )


HALF = 1 - 0.5 ** (1 / 32)
"""Of each of two prompts, with which a right sample among 16 is as likely as not."""
BEFORE: Answers = {
    (0, "a"): asked("a", (0.9, 0.9), (True, True)),
    (0, "b"): asked("b", (0.6, 0.1), (True, False)),
    (1, "a"): asked("a", (HALF + 1e-3, HALF), (False, False), None),
    (1, "c"): asked("c", (0.0, 0.0), (False, False)),
}
AFTER: Answers = {
    (0, "a"): asked("a", (0.9, 0.4), (True, False), 0.3),
    (0, "b"): asked("b", (0.6, 0.1), (True, False)),
    (1, "a"): asked("a", (HALF - 1e-3, HALF), (False, False), None),
    (1, "c"): asked("c", (0.0, 0.0), (False, False)),
}
CLUSTER = {key: key[1] for key in BEFORE}


def test_changes_are_counted_by_prompt_and_by_fact() -> None:
    found = compared(BEFORE, AFTER, CLUSTER)
    assert (found["facts"], found["prompts"]) == (4, 8)
    assert found["p"]["max"] == pytest.approx(0.5)
    assert found["p"]["median"] == 0
    assert found["p_prior"] == pytest.approx(
        {"n": 3, "mean": 0.2 / 3, "median": 0, "p95": 0.18, "p99": 0.196, "max": 0.2}
    )
    assert (found["greedy"]["count"], found["greedy"]["value"], found["greedy"]["clusters"]) == (1, 1 / 8, 3)
    assert found["greedy_text"]["count"] == 1
    assert (found["category"]["count"], found["category_by_seed"]) == (2, {"0": 1, "1": 1})
    assert found["moves"] == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert found["most_ranks"] == 1
    assert found["known_change"]["value"] == 0
    assert [one["fact"] for one in found["moved"]] == ["a", "a"]
    assert found["moved"][0]["right_prompts"] == [2, 1]
    assert found["p_sampled_change"]["value"] == pytest.approx((-0.25 - 0.001) / 4)


def test_the_smaller_run_decides_which_facts_and_must_be_part_of_the_larger() -> None:
    part = {(0, "b"): AFTER[0, "b"]}
    assert compared(BEFORE, part, CLUSTER)["facts"] == compared(part, BEFORE, CLUSTER)["facts"] == 1
    with pytest.raises(KeyError):
        compared(BEFORE, {(2, "b"): AFTER[0, "b"]}, {**CLUSTER, (2, "b"): "b"})


def test_prompts_that_are_not_the_same_are_not_compared() -> None:
    found = compared(BEFORE, AFTER, CLUSTER, same_prompts=False)
    assert not found.keys() & {"p", "greedy", "greedy_text", "prompts"}
    assert found["category"]["count"] == 2


def test_facts_that_moved_are_placed_by_what_the_rule_looks_at() -> None:
    found = near_the_rule(BEFORE, AFTER)
    distance = abs(BEFORE[1, "a"].p_any - 0.5)
    assert 0.005 < distance < 0.05
    assert found["distance_of_moved"]["max"] == pytest.approx(distance)
    assert sum(row["moved"] for row in found["by_distance"]) == 1
    assert sum(row["facts"] for row in found["by_distance"]) == 2
    rows = {row["right_in"]: (row["facts"], row["moved"]) for row in found["by_right_prompts"]}
    assert rows == {"none": (2, 0), "one": (0, 0), "some": (0, 0), "all but one": (1, 0), "all": (1, 1)}
    assert found["right_prompts_changed_of_moved"]["max"] == 1
    ten = [right_in(asked("x", [0.0] * 10, [True] * right + [False] * (10 - right))) for right in (0, 1, 5, 9, 10)]
    assert ten == ["none", "one", "some", "all but one", "all"]
    assert [right_in(asked("x", [0.0], [right])) for right in (False, True)] == ["none", "all"]


def test_two_kinds_of_change_are_compared_fact_by_fact() -> None:
    found = changes_less((BEFORE, AFTER), (BEFORE, BEFORE), CLUSTER)
    assert (found["value"], found["n"]) == (0.5, 4)
    off = further_off(BEFORE, AFTER, BEFORE, CLUSTER)
    assert (off["value"], off["n"]) == (pytest.approx(0.502 / 8), 8)
    assert sizes([]) == {"n": 0}


def test_leads_are_those_of_a_plain_greedy_walk() -> None:
    lm = small_lm("llama", 3)
    prompts = [lm.prompts.question_ids(text) for text in ("Who?", "Who!", "Where was Ada Lovelace born?")]
    stops, limit = sorted(lm.prompts.stop_ids), 5
    expected = []
    for prompt in prompts:
        ids, least = list(prompt), float("inf")
        for _ in range(limit):
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0, -1].detach()
            stop = float(logits[stops].max())
            others = logits.clone()
            others[stops] = -torch.inf
            first, second = (float(value) for value in others.topk(2).values)
            least = min(least, stop - first if stop > first else first - max(stop, second))
            if stop > first:
                break
            ids.append(int(others.argmax()))
        expected.append(least)
    assert leads(lm, prompts, limit, rows=2) == pytest.approx(expected, abs=1e-4)


SETTINGS = {"exemplar_sets": 3, "shots": 2, "max_answer_tokens": 8}
PLAN = Plan(facts=5, seeds=(0, 1, 2), reference=2, batch_tokens=64, probe=SETTINGS)


def bench(plan: Plan = PLAN) -> Bench:
    lm, facts = taught_lm()
    return Bench(replace(lm, name="embedded"), facts, people_facts(), plan)


@pytest.fixture(scope="module")
def toy() -> dict[str, Any]:
    torch.set_num_threads(1)
    return measure(bench(), tell=lambda line: None)


def test_invariant_1_holds_in_a_whole_run(toy: dict[str, Any]) -> None:
    pairs = toy["pairs"]
    assert toy["exact"]
    for name, facts in (("plain", 6), ("batches", 15)):
        assert pairs[name]["facts"] == facts
        assert pairs[name]["prompts"] == 3 * facts
        assert pairs[name]["p"]["max"] < 1e-5
        assert pairs[name]["category"]["count"] == pairs[name]["greedy_text"]["count"] == 0
    assert 1e-5 < pairs["precision"]["p"]["max"] < 0.2, "bf16 computed as fp32 would differ by nothing"
    assert pairs["exemplars"]["p_sampled"]["max"] > 0.01
    assert 0 < toy["exemplars_in_common"] < 1
    assert not toy["weights_are_bfloat16"]
    assert toy["seconds"].keys() == {*RUNS, "leads of greedy answers"}
    assert sum(toy["facts"]["categories"].values()) == toy["facts"]["n"] == 15
    for pair in pairs.values():
        assert sum(map(sum, pair["moves"])) == pair["facts"]
    counts = [sum(row) for row in pairs["precision"]["moves"]]
    assert counts == [toy["facts"]["categories"][category] for category in Category]
    near = toy["near"]
    moved = sum(row["moved"] for rows in ("by_distance", "by_right_prompts") for row in near[rows])
    assert moved == pairs["precision"]["category"]["count"]
    assert sum(row["facts"] for row in near["by_right_prompts"]) == 15
    assert near["leads"]["changed"]["n"] == pairs["precision"]["greedy"]["count"]
    assert near["leads"]["usual"]["n"] == 6 * 3


def test_what_is_not_exact_is_called_so() -> None:
    plan = PLAN.model_copy(update={"within": 0.0, "seeds": (0,)})
    assert not measure(bench(plan), tell=lambda line: None)["exact"]


def test_each_run_differs_from_the_others_in_what_it_says_and_asks_the_same_facts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is compared must not be a run with itself: that would always agree."""
    seen: list[tuple[Any, ...]] = []

    def spy(lm: Any, questions: Any, sets: Any, config: Any, runner: Any) -> Any:
        seen.append((lm.dtype, [one.id for one in questions], sets.fingerprint, config.batch_tokens, runner.name))
        return ask(lm, questions, sets, config, runner=runner)

    monkeypatch.setattr("studies.probe_precision.ask", spy)
    one = bench(PLAN.model_copy(update={"seeds": (0,)}))
    answers = {name: one.answers(run) for name, run in RUNS.items()}
    calls = dict(zip(RUNS, seen, strict=True))
    high, order, sets, tokens, way = calls["fp32"]
    assert (high, tokens, way) == (torch.float32, 4096, "shared prefix")
    assert calls["bf16"] == (torch.bfloat16, order, sets, tokens, way)
    for name in ("fp32", "bf16"):
        again, plain = calls[f"{name}, other batches"], calls[f"{name}, plain"]
        assert sorted(again[1]) == sorted(order) != again[1]
        assert (again[0], again[2], again[3]) == (calls[name][0], sets, 64)
        assert (plain[0], plain[2], plain[4]) == (calls[name][0], sets, "plain")
        assert list(answers[f"{name}, other batches"]) == list(answers[name]) == list(one.cluster)
    other = calls["fp32, other exemplars"]
    assert (other[:2], other[3:]) == (calls["fp32"][:2], calls["fp32"][3:])
    assert other[2] != sets
    with pytest.raises(InputError, match="begins in float32"):
        Bench(one.low, one.facts, one.exemplars, PLAN)


def test_a_run_can_be_written_and_read(toy: dict[str, Any]) -> None:
    from studies.probe_precision_page import page

    ran_on = {"processor": "p", "cores": 2, "accelerators": [], "torch": "2"}
    results = {"models": {"embedded": toy}, "plan": PLAN.model_dump(mode="json"), "commit": "0", "hardware": ran_on}
    results |= {"finished": "f", "probe": bench().config(0).model_dump(mode="json")}
    results = json.loads(json.dumps(results))
    written = page(results)
    assert "**fp32 is exact to 1e-5**" in written
    count = toy["pairs"]["precision"]["category"]["count"]
    assert f"bf16 moves {count} of 15 facts" in written
    assert "None" not in written
    assert "nan" not in written
    results["models"]["embedded"]["exact"] = False
    assert "**fp32 is not exact to 1e-5**" in page(results)


@pytest.mark.parametrize("name", ["page", "figures"])
@pytest.mark.skipif(not RESULTS.exists(), reason="the study of precision has not been made yet: no committed JSON")
def test_the_committed_run(name: str) -> None:
    from studies.probe_precision_page import PAGE, page

    results = json.loads(Path(RESULTS).read_text(encoding="utf-8"))
    if name == "page":
        assert PAGE.read_text(encoding="utf-8") == page(results), "run `python -m studies.probe_precision --page`"
        return
    assert results["plan"] == Plan().model_dump(mode="json")
    for one in results["models"].values():
        assert one["exact"]
        fast, plain = (one["pairs"][pair]["p"]["mean"] for pair in ("low_to_plain", "low_plain_to_plain"))
        assert fast < 2 * plain, "the fast way in bf16 is much further from fp32 than the plain way is"
