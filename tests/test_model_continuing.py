"""Texts sampled together, against `generate`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

import instil
from instil.model import LanguageModel
from instil.model.continuing import continued, generated
from instil.training import Meter
from tests.models import FAMILIES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(family: str) -> LanguageModel:
    model, tokenizer = tiny_model(family)
    return LanguageModel.of(model, tokenizer, name=family)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_doubt_it_writes_what_generate_writes(family: str) -> None:
    lm = tiny(family)
    often: dict[str, Any] = {"temperature": 1e-6, "max_tokens": 12, "key": "a"}
    opening = list(lm.prompts.text_ids("Where was Ada born?")[:-1])
    (text,) = generated(lm, [opening], **often, ends=lm.prompts.end_ids)
    assert continued(lm, [opening] * 3, **often, ends=lm.prompts.end_ids) == [text] * 3
    ends = {text[5]}
    assert continued(lm, [opening] * 2, **often, ends=ends) == [text[: text.index(text[5]) + 1]] * 2
    others = [opening, opening[:-1]]
    assert continued(lm, others, **often, ends=ends) == generated(lm, others, **often, ends=ends)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_is_drawn_as_if_its_text_stood_alone(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, ends, drawn_from = tiny(family), range(0, 400, 3), []
    draw = torch.multinomial

    def watched(p_BV: Tensor, *arguments: Any, **more: Any) -> Tensor:
        drawn_from.append(p_BV)
        return draw(p_BV, *arguments, **more)

    monkeypatch.setattr(torch, "multinomial", watched)
    opening = list(lm.prompts.text_ids("Where was Ada born?")[:-1])
    found = continued(lm, [opening] * 16, temperature=0.7, max_tokens=10, ends=ends, key="b")
    assert len({len(ids) for ids in found}) > 2, "texts of several lengths"
    places = [0] * len(found)
    for step, p_BV in enumerate(drawn_from):
        going = [text for text, ids in enumerate(found) if len(ids) > step]
        assert len(going) == len(p_BV)
        for text, p_V in zip(going, p_BV, strict=True):
            with torch.no_grad():
                logits_V = lm.model(input_ids=torch.tensor([opening + found[text][:step]])).logits[0, -1]
            torch.testing.assert_close(p_V, (logits_V / 0.7).softmax(-1), atol=1e-5, rtol=1e-4)
            places[text] += 1
    assert places == [len(ids) for ids in found]
    assert all(token not in ends for ids in found for token in ids[:-1])


def test_it_draws_from_the_models_distribution() -> None:
    lm = instil.load("embedded")
    opening = list(lm.prompts.text_ids("Q: Where was")[:-1])
    settings: dict[str, Any] = {"temperature": 1.0, "max_tokens": 3, "ends": lm.prompts.end_ids}
    ours, theirs = (
        Counter(tuple(ids[:1]) for number in range(8) for ids in way(lm, [opening] * 64, **settings, key=str(number)))
        for way in (continued, generated)
    )
    with torch.no_grad():
        p_V = lm.model(input_ids=torch.tensor([opening])).logits[0, -1].float().softmax(-1)
    for token in p_V.topk(5).indices.tolist():
        p, drawn = float(p_V[token]), 8 * 64
        for found in (ours, theirs):
            assert abs(found[(token,)] - p * drawn) < 5 * (p * (1 - p) * drawn) ** 0.5 + 1


def test_it_computes_each_token_once() -> None:
    lm = instil.load("embedded")
    opening = list(lm.prompts.text_ids("Q: Where was")[:-1])
    meter = Meter()
    with meter.counting(lm.model, "teacher"):
        found = continued(lm, [opening] * 32, temperature=1.0, max_tokens=40, ends=lm.prompts.end_ids, key="c")
    assert meter.tokens["teacher"] == len(opening) + sum(len(ids) for ids in found) - sum(
        ids[-1] in lm.prompts.end_ids or len(ids) == 40 for ids in found
    )
