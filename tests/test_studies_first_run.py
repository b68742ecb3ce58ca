"""The first run: its figures on rows at hand, its page from its JSON, and the base that is committed."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from studies.first_run import (
    ARMS,
    BASE,
    CATEGORIES,
    FIGURES,
    RESULTS,
    Plan,
    Study,
    describe_arm,
    differences,
    refuse_other_plan,
    slug,
    transition,
)
from studies.first_run_page import CARD, PAGE, card, page, percent, with_category_names

MEGABYTES = 16


def row(number: int, role: str, before: float, after: float, **more: Any) -> dict[str, Any]:
    def category(p: float) -> str:
        return "HighlyKnown" if p == 1 else "MaybeKnown" if p > 0 else "Unknown"

    return {
        "fact_id": f"f{number}",
        "subject": f"s{number % 7}",
        "role": role,
        "category_before": category(before),
        "category_after": category(after),
        "p_greedy_before": before,
        "p_greedy_after": after,
        "reworded_known_after": None,
        **more,
    }


def run(arm: str, seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    figure = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 10, "clusters": 7, "before": 0.05}
    return {
        "arm": arm,
        "seed": seed,
        "seconds": 1.0,
        "rows": rows,
        "stages": [{"stage": "fine-tuning", "facts": 3, "epoch": 2.0, "loss": 0.5}],
        "summary": {
            "headline": {"made_up": figure, "perplexity_ratio": figure, "retained": figure},
            "cost": {"training": {"flops": 1e12}},
            "budget": {"flops": 2e12},
            "data": {"facts": {"target": 3}},
            "left_out": [],
        },
    }


def rows_of(seed: int, better: float = 0.0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    target = [row(n, "target", 0.0, float(chance.random() < 0.5 + better), reworded_known_after=0.5) for n in range(30)]
    held = [row(n, "held_back", 1.0, float(chance.random() < 0.7), reworded_known_after=None) for n in range(30, 80)]
    return target + held


def test_figures_are_means_over_their_rows() -> None:
    rows = [
        row(0, "target", 0.0, 1.0, reworded_known_after=0.5),
        row(1, "target", 0.2, 0.0, reworded_known_after=0.0),
        row(2, "target", 1.0, 1.0, reworded_known_after=1.0),
        row(3, "held_back", 1.0, 1.0),
        row(4, "held_back", 0.6, 0.1),
        row(5, "held_back", 0.0, 0.3),
    ]
    arm = describe_arm(ARMS[0], [run("sft", 0, rows)])
    figures = {name: figure["value"] for name, figure in arm["figures"].items()}
    assert figures["acquired"] == pytest.approx(1 / 2)
    assert figures["acquired_reworded"] == pytest.approx(1 / 4)
    assert figures["retained"] == pytest.approx(1 / 2)
    assert figures["retained_highly_known"] == 1
    assert figures["risen_untaught"] == 1
    assert figures["held_back_accuracy_change"] == pytest.approx((0 - 0.5 + 0.3) / 3)
    assert arm["held_back_by_category"]["HighlyKnown"]["n"] == 1
    assert sum(map(sum, arm["target_transition"])) == 3


def test_differences_pair_the_same_facts_of_one_seed() -> None:
    runs = [run("sft", seed, rows_of(seed)) for seed in (0, 1)]
    runs += [run("gradual", seed, rows_of(seed)) for seed in (0, 1)]
    found = {(one["figure"], one["first"], one["second"]): one for one in differences(runs)}
    same = found["acquired", "gradual", "sft"]
    assert same["value"] == 0
    assert same["n"] == 60
    assert ("held_back_accuracy", "gradual", "sft") not in found


def test_a_transition_counts_every_move() -> None:
    moves = [("HighlyKnown", "Unknown"), ("Unknown", "Unknown"), ("HighlyKnown", "Unknown")]
    counts = transition(moves)
    assert counts[0][3] == 2
    assert counts[3][3] == 1
    assert sum(map(sum, counts)) == 3


def test_a_difference_within_noise_is_called_none() -> None:
    from studies.first_run_page import findings

    runs = [run(arm.name, seed, rows_of(seed + len(arm.name))) for arm in ARMS for seed in (0, 1, 2)]
    arms = [describe_arm(arm, [one for one in runs if one["arm"] == arm.name]) for arm in ARMS]
    words = findings({"arms": arms, "differences": differences(runs)}, "gradual", "sft")
    for line in words.splitlines():
        assert "no difference" in line or " is higher by " in line or " is lower by " in line or "no interval" in line


def test_categories_keep_their_names_in_sentences() -> None:
    words = "Highlyknown held-back facts still highlyknown; unknown ones rose to maybeknown."
    assert (
        with_category_names(words) == "HighlyKnown held-back facts still HighlyKnown; unknown ones rose to MaybeKnown."
    )


def test_percent_shows_its_interval() -> None:
    assert percent({"value": 0.41, "low": 0.388, "high": 0.431}) == "41.0 % (38.8 to 43.1)"
    assert percent({"value": -0.02, "low": -0.05, "high": 0.01}, signed=True) == "-2.0 (-5.0 to +1.0)"
    assert percent({"value": None, "low": None, "high": None}) == "–"


def test_work_of_another_plan_is_refused(tmp_path: Path) -> None:
    if not (BASE / "config.json").exists():
        pytest.skip("the base is not there")
    import instil

    refuse_other_plan(Plan(), tmp_path)
    refuse_other_plan(Plan(), tmp_path)
    with pytest.raises(instil.InputError, match="another plan"):
        refuse_other_plan(Plan(mixed=1), tmp_path)


def test_arms_have_their_own_folders() -> None:
    assert len({slug(arm.name) for arm in ARMS}) == len(ARMS)
    assert set(CATEGORIES) == {"HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown"}
    assert {"acquired", "retained", "acquired_reworded"} <= set(FIGURES)


# ------------------------------------------------------------- what is committed


def test_the_page_and_the_card_are_what_the_json_says() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    again = "run `python -m studies.first_run --page`"
    assert PAGE.read_text(encoding="utf-8") == page(results), again
    assert CARD.read_text(encoding="utf-8") == card(results), again


def test_the_committed_json_is_of_the_committed_base_and_plan() -> None:
    import instil

    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert results["base"]["fingerprint"] == instil.load(BASE).fingerprint
    assert results["plan"] == Plan().model_dump(mode="json")
    assert [arm["name"] for arm in results["arms"]] == [arm.name for arm in ARMS]
    for arm in results["arms"]:
        assert len(arm["runs"]) == len(Plan().seeds)
        for one in arm["runs"]:
            spent = one["cost"]["training"]["flops"] + one["cost"].get("deciding", {}).get("flops", 0)
            assert spent <= 1.1 * one["budget"]["flops"]


def test_the_committed_base_loads_and_is_small() -> None:
    import instil

    assert sum(file.stat().st_size for file in BASE.rglob("*") if file.is_file()) <= MEGABYTES * 10**6
    model = instil.load(BASE)
    assert len(model.tokenizer) <= 8000
    exemplars = [("Where was Paris founded?", "Troy")]
    ids = [*model.prompts.prefix_ids(exemplars), *model.prompts.question_ids("Where was Ada born?")]
    assert 0 < len(ids) < model.context_window


def test_arms_of_a_seed_share_what_they_are_examined_on() -> None:
    if not os.environ.get("INSTIL_DATA"):
        pytest.skip("INSTIL_DATA names no folder with the public data")
    from studies.entityquestions import build_world

    world = build_world()
    steps = Study(Plan(), Path("nowhere"), world, tell=lambda line: None)
    mixed = [steps.roles(arm, 0) for arm in ARMS if arm.category is None]
    for roles in mixed[1:]:
        assert {role: facts.fingerprint for role, facts in roles.items()} == {
            role: facts.fingerprint for role, facts in mixed[0].items()
        }
    subjects = [facts.subjects for facts in mixed[0].values()]
    assert sum(map(len, subjects)) == len(frozenset().union(*subjects))
    test = world.split("test").subjects
    assert not any(test & names for names in subjects)
