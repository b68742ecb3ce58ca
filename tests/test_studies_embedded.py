"""The embedded model's card: written wholly from its JSON, which is of the weights that are shipped."""

from __future__ import annotations

import copy
import json
from typing import Any

import instil
from instil.model import EMBEDDED
from instil.probe import Category
from instil.worlds.relations import PERSON_RELATIONS
from studies.embedded_card import RESULTS, SEEDS
from studies.embedded_card_page import CARD, card

COMMITTED: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))


def figure(value: float, n: int) -> dict[str, Any]:
    return {"value": value, "low": value / 2, "high": (1 + value) / 2, "n": n, "clusters": n}


def shares(n: int, highly: float) -> dict[str, Any]:
    rest = (1 - highly) / 3
    return {"n": n, **{str(one): figure(highly if one is Category.HIGHLY_KNOWN else rest, n) for one in Category}}


def made_up() -> dict[str, Any]:
    """Figures that stand in no committed result."""
    results = copy.deepcopy(COMMITTED)
    results["mastery"] = {
        "all": shares(1234, 0.25),
        "by_relation": {"employer": shares(600, 0.375), "instrument": shares(50, 0.005), "work_genre": shares(9, 0.5)},
        "by_exposures": {"000-000": shares(70, 0.125), "004-008": shares(81, 0.0625), "disputed": shares(92, 0.75)},
        "answer_in_prompt": shares(234, 0.1),
        "answer_not_in_prompt": shares(1000, 0.3),
        "guesses": {"HighlyKnown": 17, "MaybeKnown": 2, "WeaklyKnown": 3, "Unknown": 0},
    }
    results["one_biography"] |= {
        "people": 11,
        "questions": 22,
        "seeds": [5, 6],
        "config": {"epochs": 7, "learning_rate": 0.125, "batch_size": 3, "schedule": "cosine"},
        "accuracy_before": figure(0.03125, 44),
        "accuracy_after": figure(0.625, 44),
        "accuracy_after_by_seed": [figure(0.5625, 22), figure(0.6875, 22)],
        "by_relation": {"spouse": figure(0.4375, 44)},
    }
    return results | {"commit": "0123abcd", "seconds_of_probing": 987.0}


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_card_is_what_the_json_says() -> None:
    assert CARD.read_text(encoding="utf-8") == card(COMMITTED), "run `python -m studies.embedded_card --page`"


def test_every_measured_figure_of_the_card_is_the_jsons() -> None:
    text = card(made_up())
    assert "None" not in text
    assert "1,234 facts about 1,234 subjects" in text
    assert lines_of(text, "| employer |") == [
        "| employer | 600 | 37.5 % (18.8 to 68.8) "
        "| 20.8 % (10.4 to 60.4) | 20.8 % (10.4 to 60.4) | 20.8 % (10.4 to 60.4) |"
    ]
    assert lines_of(text, "| told 4-8 times | 81 | 6.2 % ")
    assert lines_of(text, "| never told | 70 | 12.5 % ")
    assert lines_of(text, "| disputed (told both ways, 48-80 times the right one) | 92 | 75.0 % ")
    assert "17 of 308 HighlyKnown facts" in text
    assert "under 1 % HighlyKnown facts: instrument, 0.5 % (0.2 to 50.2) of 50. " in text.replace("\n", " ")
    assert "22 questions about them" in text
    assert "**62.5 % (31.2 to 81.2)** of the answers are right, 3.1 % (1.6 to 51.6) before." in text
    assert "|  | seed 5 | seed 6 |" in text
    assert "| right after | 56.2 % (28.1 to 78.1) | 68.8 % (34.4 to 84.4) |" in text
    assert "| spouse | 44 | 43.8 % (21.9 to 71.9) |" in text
    assert "AdamW at 0.125 (cosine)" in text
    assert "took 987 seconds" in text and "commit `0123abcd`" in text


def test_no_relation_is_named_as_weak_when_none_is() -> None:
    results = made_up()
    results["mastery"]["by_relation"]["instrument"] = shares(50, 0.01)
    assert "under 1 % HighlyKnown facts: none. " in card(results).replace("\n", " ")


def test_the_committed_json_is_of_the_shipped_weights_and_three_seeds() -> None:
    fingerprints = {instil.load("embedded", dtype=dtype, device="cpu").fingerprint for dtype in ("bf16", "fp32")}
    assert COMMITTED["model_fingerprint"] in fingerprints
    about = json.loads((EMBEDDED / "pretraining.json").read_text(encoding="utf-8"))
    assert COMMITTED["facts_fingerprint"] == about["facts_fingerprint"]
    one = COMMITTED["one_biography"]
    assert tuple(one["seeds"]) == SEEDS and len(one["accuracy_after_by_seed"]) == len(SEEDS) >= 3
    assert set(one["by_relation"]) == {relation.name for relation in PERSON_RELATIONS}
    assert one["accuracy_after"]["n"] == one["questions"] * len(SEEDS)
