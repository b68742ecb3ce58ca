"""The benchmark of sharpness-aware steps runs and counts what it says it counts; its figures are no test."""

from __future__ import annotations

import pytest

from benchmarks.sharpness import ADAMW, VARIANTS, Bench, Plan, judged, page, part
from instil.model import LanguageModel
from instil.training import SharpnessConfig
from tests.models import tiny_model
from tests.training_data import made_up

PLAN = Plan(rounds=2, steps=2, micro_tokens=64)


def test_every_variant_takes_its_turns_and_stands_in_the_page() -> None:
    lm = LanguageModel.of(*tiny_model("llama"))
    bench, lines = Bench(lm, made_up(12), PLAN, 6), list[str]()
    found = part(bench, PLAN, lines.append)
    assert len(lines) == 2 and set(found["steps_a_second"]) == {ADAMW, *VARIANTS}
    rows = {row["variant"]: row for row in found["rows"]}
    assert rows["sam"]["operations"] == 2 and rows["momentum"]["operations"] == 1
    assert all(row["time"]["n"] == 2 and row["time"]["value"] > 0 for row in rows.values())
    machine = {"processor": "one", "threads": 1, "torch": "2"}
    result = {"parts": [{"load": "made up", **found}], "hardware": machine, "warnings": ["others worked"]}
    result |= {"model": "tiny", "parameters": 1e4, "commit": "abc", "started": "2026-01-01T00:00", "quick": True}
    text = page(result)
    assert all(f"| {name} |" in text for name in VARIANTS)
    assert "**others worked.**" in text and "short form" in text


def test_a_bar_is_surely_met_where_the_whole_interval_is_below_it() -> None:
    assert judged("sam", {"value": 2.0, "low": 1.9, "high": 2.05}) == ("2.05×", "met")
    assert judged("sam", {"value": 2.0, "low": 1.9, "high": 2.06}) == ("2.05×", "met, not surely")
    assert judged("sam", {"value": 2.1, "low": 1.9, "high": 2.2}) == ("2.05×", "**not met**")
    assert judged("asam", {"value": 9.0, "low": 9.0, "high": 9.0}) == ("–", "–")


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_a_plan_holds_a_whole_period_of_every_variant(settings: dict[str, object]) -> None:
    config = SharpnessConfig(**settings)  # type: ignore[arg-type]
    assert Plan().steps % config.interval == 0
