"""The probability of a fact's tokens behind a text: against one pass a context, in every family and tokenizer."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.errors import InputError
from instil.model import LanguageModel
from instil.probe.contexts import (
    NO_ROOM,
    STRADDLES,
    Context,
    prepare_contexts,
    score_context,
    score_contexts,
    spelled_by_beginnings,
)
from tests.models import FAMILIES, tiny_model, tiny_tokenizer

TEXT = (
    "Ada Lovelace was a mathematician, born in London in 1817, who died in Paris.\nThe physicist Niels Bohr moved "
    "from Copenhagen to Göttingen and wrote about numbers, stars and machines. “Emmy Noether” was a logician."
)
FACTS = ("mathematician", "London", "1817", "Paris", "Niels Bohr", "Göttingen", "stars", "logician")
KINDS = ("byte", "modern", "metaspace")


def model_of(family: str, kind: str = "byte", **more: object) -> LanguageModel:
    return LanguageModel.of(*tiny_model(family, kind=kind, **more), name=family)  # type: ignore[arg-type]


def contexts_of(text: str, name: str, facts: tuple[str, ...] = FACTS) -> list[Context]:
    return [
        Context(f"{name}{fact}", fact, name, "as written", text[: text.index(fact)], fact, text.partition(fact)[2])
        for fact in facts
    ]


def many_contexts() -> list[Context]:
    first, _, rest = TEXT.partition("\n")
    return [
        *contexts_of(TEXT, "whole"),
        *contexts_of(f"{rest} {first}", "turned"),
        *contexts_of(rest, "alone", ("Niels Bohr", "Göttingen", "logician")),
    ]


@pytest.mark.parametrize(
    ("family", "kind"), [*((family, "byte") for family in FAMILIES), ("llama", "modern"), ("qwen3", "metaspace")]
)
def test_together_as_one_by_one(family: str, kind: str) -> None:
    model = model_of(family, kind, sharpness=4.0)
    prepared = prepare_contexts(model, many_contexts())
    scores = score_contexts(model, prepared, batch_tokens=150)
    assert len(scores) >= 15
    assert len(prepared.rows) < len(scores) / 3  # texts, not contexts, are computed
    for score in scores:
        alone = score_context(model, score.context)
        assert score.log_probability == pytest.approx(alone.log_probability, abs=2e-4)
        assert (score.greedy_right, score.tokens, score.cut) == (alone.greedy_right, alone.tokens, alone.cut)
        assert 0 < score.probability <= score.per_token < 1


def test_only_what_the_model_would_write_is_greedy_right() -> None:
    import torch

    model = model_of("llama", sharpness=4.0)
    tried = 0
    for place in (found.start() for found in re.finditer(" ", TEXT)):
        ids = torch.tensor([model.prompts.text_ids(TEXT[:place])[:-1]])
        written = model.prompts.decode(model.model.generate(ids, max_new_tokens=1, do_sample=False)[0, -1:].tolist())
        if written.startswith(" ") and written[1:].isalpha() and len(written) > 3:
            tried += 1
            facts = [written[1:], "London", "Paris"]
            scores = score_contexts(model, [Context(one, one, "d", "k", TEXT[: place + 1], one) for one in facts])
            assert [score.greedy_right for score in scores] == [True, False, False]
    assert tried >= 2


def test_order_changes_no_bit_and_batches_only_rounding() -> None:
    model = model_of("gpt2")
    contexts = many_contexts()
    once = {score.context.id: score for score in score_contexts(model, contexts)}
    shuffled = random.Random(0).sample(contexts, len(contexts))
    again = score_contexts(model, shuffled)
    assert [score.context for score in again] == shuffled
    assert all(once[score.context.id] == score for score in again)
    for batch_tokens in (1, 64, 400):
        for score in score_contexts(model, contexts, batch_tokens=batch_tokens):
            assert score.log_probability == pytest.approx(once[score.context.id].log_probability, abs=1e-4)


def test_probabilities_of_all_first_tokens_sum_to_one() -> None:
    """What a fact of one token gets is its share of everything that could come."""
    model = model_of("llama")
    vocabulary = model.tokenizer.get_vocab()
    facts = [token[1:] for token in vocabulary if token.startswith("Ġ") and token[1:].isalpha()]
    scores = score_contexts(model, [Context(one, one, "d", "k", "Ada was born in ", one) for one in facts])
    single = [score.probability for score in scores if score.tokens == 1]
    assert len(single) > 20
    assert 0 < math.fsum(single) < 1


def test_a_long_context_loses_its_beginning_and_says_so() -> None:
    model = model_of("llama", positions=64)
    long, short = contexts_of(f"{TEXT} " * 3 + "Kurt Gödel died in Vienna.", "long", ("Vienna",)) + contexts_of(
        TEXT, "short", ("London",)
    )
    prepared = prepare_contexts(model, [long, short])
    assert prepared.shortened == 1
    score, untouched = score_contexts(model, prepared)
    assert score.cut > 0
    assert untouched.cut == 0
    assert score.log_probability == pytest.approx(score_context(model, long).log_probability, abs=1e-4)
    kept = model.prompts.text_ids(long.before + long.fact)[1 + score.cut : -1]
    assert len(kept) == 63  # and the start token
    tail = replace(long, before=model.prompts.decode(kept[: -score.tokens]) + " ")
    assert score_context(model, tail).log_probability == pytest.approx(score.log_probability, abs=1e-4)
    shorter = prepare_contexts(model, [long, short], most_tokens=20)
    assert [place.cut > 0 for place in shorter.places] == [True, False]


def test_what_cannot_be_scored_is_left_out_with_its_reason() -> None:
    model = model_of("llama", positions=16)
    inside = Context("inside", "1", "d", "k", "Ada was born in Lon", "don")
    goes_on = Context("goes on", "1", "d", "k", "Ada was born in ", "Lon", "don and Paris")
    long = Context("long", "1", "d", "k", "Ada said ", "born in London " * 5 + "too")
    fits = Context("fits", "1", "d", "k", "Ada was born in ", "London")
    prepared = prepare_contexts(model, [inside, goes_on, long, fits])
    assert prepared.left_out == (("inside", STRADDLES), ("goes on", STRADDLES), ("long", NO_ROOM))
    assert [score.context.id for score in score_contexts(model, prepared)] == ["fits"]
    for one_by_one in (lambda: score_context(model, inside), lambda: score_contexts(model, [fits, inside])):
        with pytest.raises(InputError, match="a token of the tokenizer"):
            one_by_one()
    with pytest.raises(InputError, match="two contexts have one id"):
        prepare_contexts(model, [fits, fits])
    with pytest.raises(ValueError, match="not a fact's text"):
        Context("1", "1", "d", "k", "in", " London")


def test_prepared_contexts_are_refused_by_another_model() -> None:
    prepared = prepare_contexts(model_of("llama"), contexts_of(TEXT, "d"))
    assert score_contexts(model_of("gpt2"), prepared)  # the same tokenizer: prepared once, asked of many models
    with pytest.raises(InputError, match="another tokenizer"):
        score_contexts(model_of("llama", "modern"), prepared)
    with pytest.raises(InputError, match="a longer window"):
        score_contexts(model_of("llama", positions=64), prepared)


WORDS = st.lists(
    st.sampled_from(["Ada", "born in", "London.", "“Paris”", "1817,", "Göttingen", "(was", "Q:", "x", "日本", "é"]),
    min_size=1,
    max_size=8,
)
WHITE = st.sampled_from([" ", "  ", "\n", " \n", "\t", ""])


class _Spelling:
    """As much of a model as finding tokens takes."""

    def __init__(self, kind: str) -> None:
        from instil.model.prompts import Prompts, PromptStyle

        self.prompts = Prompts(tiny_tokenizer(kind), PromptStyle.BASE)
        self.tokenizer = self.prompts.tokenizer
        self.context_window = 512


SPELLINGS = {kind: _Spelling(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    before=WORDS,
    gap=WHITE,
    fact=st.one_of(WORDS.map(" ".join), st.text(min_size=1, max_size=9)),
    after=st.text(max_size=5),
)
def test_the_tokens_of_a_fact_are_its_own(kind: str, before: list[str], gap: str, fact: str, after: str) -> None:
    """They say the fact and nothing else, stand where the continuous text has them, and both ways find the same."""
    if not fact.strip() or "\ufffd" in fact or "▁" in fact + after:
        return
    lm = SPELLINGS[kind]
    context = Context("1", "1", "d", "k", " ".join(before) + gap, fact.strip(), after)
    prepared = prepare_contexts(lm, [context])  # type: ignore[arg-type]
    found = spelled_by_beginnings(lm.prompts, context)
    if not len(prepared):
        assert prepared.left_out == (("1", STRADDLES),)
        return
    place, row = prepared.places[0], prepared.rows[0]
    assert lm.prompts.decode(row[place.start : place.end]).strip() == context.fact
    whole = lm.prompts.text_ids(context.before + context.fact + context.after)
    assert whole[: len(row)] == row
    if found is not None:
        begin = len(lm.prompts.text_ids("")) - 1
        assert (place.start, place.end) == (begin + found[1], begin + found[2])


def test_training_on_a_document_makes_it_likelier_as_written() -> None:
    import torch

    model = model_of("llama")
    _, _, rest = TEXT.partition("\n")
    written, elsewhere = (
        contexts_of(TEXT, "written", ("London", "Göttingen")),
        contexts_of("Nobody knew of London. " + rest, "other", ("London",)),
    )
    prepared = prepare_contexts(model, [*written, *elsewhere])
    before = score_contexts(model, prepared)
    ids = torch.tensor([model.prompts.text_ids(TEXT)])
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=1e-2)
    for _ in range(25):
        model.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = score_contexts(model, prepared)
    assert all(now.probability > 0.5 > was.probability for now, was in zip(after[:2], before[:2], strict=True))
    assert all(now.greedy_right for now in after[:2])
    assert after[2].probability < after[0].probability  # and elsewhere it is less likely: that is what is measured


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_cannot_tell_places_gives_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", kind)
    told = prepare_contexts(model, many_contexts())
    monkeypatch.setattr(type(model.tokenizer), "is_fast", property(lambda tokenizer: False))
    assert model.prompts.text_offsets(["Ada"])[0][1] is None
    again = prepare_contexts(model, many_contexts())
    assert (again.rows, again.places, again.left_out) == (told.rows, told.places, told.left_out)
