"""The study of generalization on passages, and what contexts tell of it: figures by hand, and the real data."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import instil
from instil.training import question_example
from instil.worlds.embedded import demo_facts
from studies.generalization import HALF, SAM, WHOLE
from studies.generalization_contexts import across_models, area_under, within_models
from studies.generalization_figures import asked_pairs
from studies.generalization_page import contexts_page, squad_page
from studies.generalization_squad import DEVELOPMENT, PLAN, cells, difference, gain, log_probabilities, passages

needs_data = pytest.mark.skipif("INSTIL_DATA" not in os.environ, reason="needs the public data (INSTIL_DATA)")


def test_area_under_the_curve() -> None:
    assert area_under([(0.9, 1.0), (0.2, 0.0), (0.5, 1.0), (0.6, 0.0)]) == 0.75
    assert area_under([(0.5, 1.0), (0.5, 0.0)]) == 0.5
    assert area_under([(0.5, 1.0), (0.7, 0.5)]) is None


def spots(slope: float) -> list[dict[str, Any]]:
    return [
        {
            "cell": cell, "world": 1, "end": point == 3, "accuracy": 0.1 * point, "group": slope * point,
            "facts": {"group": [[0.9, 1.0], [0.1, 0.0]]},
        }
        for cell in ("a", "b", "c")
        for point in (1, 2, 3)
    ]  # fmt: skip


def test_correlation_over_models() -> None:
    found = across_models(spots(1.0), "group")
    assert found.value == pytest.approx(1.0) and (found.n, found.clusters) == (9, 3)
    assert across_models(spots(-1.0), "group").value == pytest.approx(-1.0)
    assert within_models([spot for spot in spots(1.0) if spot["end"]], "group").value == 1.0


def test_log_probabilities_are_those_of_one_question_at_a_time() -> None:
    lm = instil.load("embedded")
    facts = demo_facts().sample(5, 0)
    found = log_probabilities(lm, facts)
    for fact, value in zip(facts, found, strict=True):
        example = question_example(lm.prompts, fact)
        with torch.no_grad():
            logs_TV = torch.log_softmax(lm.model(torch.tensor([example.input_ids])).logits[0].float(), dim=-1)
        each = [float(logs_TV[place - 1, label]) for place, label in enumerate(example.labels) if label >= 0]
        assert value == pytest.approx(sum(each) / len(each), abs=0.05)  # bfloat16, in batches of another shape


def made(*values: float) -> dict[str, Any]:
    rows = [{"fact": f"f{n}", "document": f"d{n}", "log_probability": value} for n, value in enumerate(values)]
    return {"questions": rows, "untaught": rows, "nll": 1.0, "nll_tokens": 1}


def test_gains_and_differences_by_hand() -> None:
    runs = {(cell, seed): made(-1.0 - n, -2.0, -2.5) for n, cell in enumerate("ab") for seed in (1, 2)}
    start = {seed: made(-3.0, -3.0, -3.0) for seed in (1, 2)}
    assert gain(runs, start, "a", "questions").value == pytest.approx((2.0 + 1.0 + 0.5) / 3)
    assert difference(runs, "a", "b")["nats"]["value"] == pytest.approx(1 / 3)
    runs["b", 2]["questions"][0]["fact"] = "another"
    with pytest.raises(ValueError, match="other facts"):
        difference(runs, "a", "b")


@needs_data
def test_articles_are_taught_practised_or_unseen_and_never_tuned_on() -> None:
    found, tuned = passages(1, PLAN), passages(DEVELOPMENT, PLAN)
    assert len(found.documents) == PLAN.people and len(found.practice) == PLAN.practice
    parts = [found.questions, found.untaught, found.practice]
    articles = [{fact.subject for fact in part} for part in parts]
    assert not articles[0] & articles[1] and not articles[0] & articles[2] and not articles[1] & articles[2]
    of_tuning = {fact.subject for part in (tuned.questions, tuned.untaught, tuned.practice) for fact in part}
    assert not of_tuning & set().union(*articles)
    assert {fact.documents[0] for fact in found.questions} <= {document.id for document in found.documents}


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


COMMON = {
    "command": "python -m studies", "commit": "0123456789ab", "finished": "2026-11-21T00:00:00+00:00",
    "hardware": {"processor": "a processor", "torch": "2"},
}  # fmt: skip


def test_the_pages() -> None:
    groups = ("as_written", "elsewhere", "reworded")
    spot = {"cell": "plain, SAM", "world": 1, "end": True, "accuracy": 0.5, **dict.fromkeys(groups, 0.25)}
    parts = ("along_training", "at_the_end", "fact_by_fact")
    text = contexts_page({**COMMON, "spots": [spot], **{part: dict.fromkeys(groups, figure(0.7)) for part in parts}})
    assert "| plain, SAM | 0.25 | 0.25 | 0.25 | 50.0 |" in text and "0.70 (0.60 to 0.80)" in text
    cell = {
        "gain": figure(0.5), "gain_untaught": figure(0.1), "nll_change": 0.2, "flops": 6e12, "tokens": 9e4,
        "seconds": 1, "loss": 2,
    }  # fmt: skip
    text = squad_page(
        {
            **COMMON,
            "sizes": {"1": {"passages": 48, "words_a_passage": 120.0, "questions": 200, "untaught": 200}},
            "before": {"questions": -4.0, "untaught": -4.0},
            "chosen": {one.name: {"rate": 1e-3, "rho": None} for one in cells()},
            "cells": {one.name: cell for one in cells()},
            "plan": PLAN.model_copy(update={"rates": (1e-3,)}).model_dump(mode="json"),
            "differences": [
                {"first": first, "second": second, "nats": figure(0.3), "verdict": "higher"}
                for first, second in asked_pairs(("plain", "formats", "permutation"), (HALF, WHOLE, SAM))
            ],
        }
    )
    assert f"“formats, {WHOLE}” against “plain, {WHOLE}”: **higher**, +0.300 nats (+0.200 to +0.400)." in text
    assert f"{len(cells())} of {len(cells())} cells learn the taught answers best at the highest rate" in text
    assert "+0.500 (+0.400 to +0.600)" in text and text.count("0.001 |") == len(cells())
