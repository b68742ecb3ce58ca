"""The exam with real small models, through the one engine that the probe uses too."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from instil.exam import Answerer, ExamConfig, ExamResult, ModelAnswerer, headline, sit, verdicts
from instil.model import LanguageModel
from instil.probe import ProbeConfig, Question, ask, questions_of
from tests.exam_data import PROBE, exam, facts
from tests.models import tiny_model

SMALL = PROBE.model_copy(update={"max_answer_tokens": 6})
SETTINGS = {"probe_config": SMALL, "config": ExamConfig(resamples=100, wordings=1, reworded_sets=2, confidence_sets=3)}
TEXTS = ("Ada Lovelace was a programmer.", "Alan Turing moved from London to Princeton.")


def language_model(family: str, seed: int = 0) -> LanguageModel:
    # A sharp output layer makes some samples likely, so that confidences are not all alike.
    return LanguageModel.of(*tiny_model(family, seed, sharpness=8.0))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_a_model_sits_the_exam_and_its_file_agrees(family: str, tmp_path: Path) -> None:
    paper, answerer = exam(3, 3, 1, texts=TEXTS, **SETTINGS), ModelAnswerer(language_model(family))
    assert isinstance(answerer, Answerer)
    result = sit(paper, answerer, keep=tmp_path / "parts")
    assert [answer.item for answer in result.answers] == list(paper.items)
    assert all(math.isfinite(text.nll) and text.tokens > 1 for text in result.texts)
    result.save(tmp_path / "result.parquet")
    assert ExamResult.load(tmp_path / "result.parquet", paper) == result
    assert sit(paper, answerer, keep=tmp_path / "parts") == result, "all from the kept parts"


def test_the_exam_gives_what_the_probe_gives() -> None:
    lm = language_model("llama")
    paper = exam(4, 0, 0, **SETTINGS)
    result = sit(paper, ModelAnswerer(lm))
    found = list(ask(lm, questions_of(facts(0, 4)), paper.exemplars, SMALL))
    for answer, asked in zip(result.first("as_worded").values(), found, strict=True):
        assert answer.asked.greedy_answer_by_set == asked.greedy_answer_by_set
        assert answer.asked.p_by_set == pytest.approx(asked.p_by_set, rel=1e-4, abs=1e-9)


def test_confidence_is_the_exact_probability_of_its_own_answer() -> None:
    lm = language_model("llama")
    paper = exam(6, 0, 0, **SETTINGS)
    scored = [answer for answer in sit(paper, ModelAnswerer(lm)).answers if answer.p_own is not None]
    assert scored
    for answer in scored:
        own = answer.item.question
        alone = Question("own", own.text, (answer.said,), own.fact_id, own.relation, own.subject)
        (asked,) = ask(lm, [alone], paper.exemplars.first(3), SMALL.model_copy(update={"exemplar_sets": 3}))
        assert answer.p_own == pytest.approx(asked.p_sampled, rel=1e-4, abs=1e-9)
        assert answer.p_own == pytest.approx(sum(asked.p_by_set) / 3)


def test_the_exam_leaves_the_model_as_it_was_and_draws_nothing() -> None:
    lm = language_model("qwen3")
    weights = {name: value.clone() for name, value in lm.model.state_dict().items()}
    state = torch.random.get_rng_state()
    sit(exam(2, 2, 0, texts=TEXTS, **SETTINGS), ModelAnswerer(lm))
    assert all(torch.equal(value, weights[name]) for name, value in lm.model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_model_twice_shows_no_change() -> None:
    paper, lm = exam(4, 4, 0, texts=TEXTS, **SETTINGS), language_model("gpt_neox")
    before, after = (sit(paper, ModelAnswerer(lm)) for _ in range(2))
    assert before == after
    found = headline(paper, before, after, verdicts(paper, before, after))
    assert found["accuracy_target_change"].value == 0 and found["perplexity_ratio"].value == pytest.approx(1.0)


def test_a_sampled_exam_is_possible_too() -> None:
    config = ProbeConfig(engine="sampled", exemplar_sets=2, shots=2, samples=3, max_answer_tokens=4)
    from tests.exam_data import exemplars

    paper = exam(2, 1, 0, probe_config=config, exemplars=exemplars(config), config=SETTINGS["config"])
    lm = language_model("llama")
    assert sit(paper, ModelAnswerer(lm)) == sit(paper, ModelAnswerer(lm))
