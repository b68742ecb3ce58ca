"""Added neurons: nothing changes before they are trained, folded they are a plain model, and they answer to theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BloomConfig

import instil
from instil.errors import InputError
from instil.facts import FactSet, Role
from instil.model import LanguageModel, save
from instil.model.neurons import Keys, add, folded, has_added, mlps, takes_neurons, width_of
from instil.training.keys import discriminants, end_of_subject, find_keys, groups_of, inputs_of, read
from tests.half_taught import facts, half_taught
from tests.models import FAMILIES, tiny_model, tiny_tokenizer

IDS = torch.arange(5, 25)[None]


def some_keys(lm: LanguageModel, layer: int = 1, count: int = 6, scale: float = 0.5) -> Keys:
    draw = torch.Generator().manual_seed(layer)
    hidden = int(lm.model.config.hidden_size)
    return Keys(layer, torch.randn(count, hidden, generator=draw), torch.randn(hidden, generator=draw), scale)


def give_values(lm: LanguageModel) -> None:
    draw = torch.Generator().manual_seed(3)
    for mlp, _ in mlps(lm):
        if hasattr(mlp, "added"):
            mlp.added.values.weight.data = torch.randn(mlp.added.values.weight.shape, generator=draw)


def logits(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(IDS).logits


def known_as(family: str, **changes: Any) -> LanguageModel:
    return LanguageModel.of(*tiny_model(family, **changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_change_nothing_until_they_have_values(family: str) -> None:
    lm = known_as(family)
    before = logits(lm)
    assert add(lm, some_keys(lm)) == 6
    assert torch.equal(logits(lm), before)
    give_values(lm)
    assert not torch.allclose(logits(lm), before, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_neurons_answer_as_they_did_beside_their_layer(family: str, tmp_path: Path) -> None:
    lm = known_as(family, layers=3)
    add(lm, some_keys(lm, layer=0, count=4))
    add(lm, some_keys(lm, layer=2, count=6))
    give_values(lm)
    wide = folded(lm)
    assert has_added(lm) and not has_added(wide)
    assert {width_of(*one) for one in mlps(wide)} == {width_of(*one) + 6 for one in mlps(lm)}
    torch.testing.assert_close(logits(wide), logits(lm), atol=1e-4, rtol=1e-4)
    for saved in (wide, lm):  # saving folds
        loaded = instil.load(save(saved, tmp_path / "wide"))
        assert torch.equal(logits(loaded), logits(wide))


def test_a_model_without_added_neurons_is_folded_to_itself() -> None:
    lm = known_as("llama")
    assert folded(lm) is lm


def test_a_copy_at_another_precision_keeps_its_neurons() -> None:
    lm = known_as("llama")
    add(lm, some_keys(lm))
    give_values(lm)
    half = lm.at(torch.bfloat16)
    off, plain = (float((logits(half).float() - logits(other)).abs().mean()) for other in (lm, known_as("llama")))
    assert off < 0.1 * plain


def test_a_layer_gets_neurons_once() -> None:
    lm = known_as("llama")
    add(lm, some_keys(lm))
    with pytest.raises(InputError, match="already"):
        add(lm, some_keys(lm))


def test_a_family_that_is_not_known_is_refused() -> None:
    config = BloomConfig(vocab_size=512, hidden_size=32, n_layer=2, n_head=4)
    lm = LanguageModel.of(AutoModelForCausalLM.from_config(config), tiny_tokenizer())
    assert not takes_neurons(lm)
    with pytest.raises(InputError, match="cannot be added"):
        find_keys(lm, facts(), FactSet(()))


def test_keys_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    keys = some_keys(known_as("llama"), scale=0.1 + 0.2)
    keys.save(tmp_path / "keys.safetensors")
    again = Keys.load(tmp_path / "keys.safetensors")
    assert (again.layer, again.scale) == (keys.layer, keys.scale)
    assert torch.equal(again.gates_NE, keys.gates_NE) and torch.equal(again.constant_E, keys.constant_E)


# ------------------------------------------------------------------- where they answer


def answers(lm: LanguageModel, keys: Keys, asked: FactSet) -> torch.Tensor:
    """How far each neuron's input is above zero at each question's key (questions x neurons)."""
    places = [read(lm, fact.question, fact.subject) for fact in asked]
    inputs, _ = inputs_of(lm, keys.layer, places, everywhere=False)
    return inputs.float() @ keys.gates_NE.T


def test_a_neuron_answers_to_its_subject_in_all_wordings_and_to_no_other() -> None:
    lm, taught = half_taught(), facts().with_role(Role.TARGET)
    reworded = FactSet(_asked(fact, fact.paraphrases[0]) for fact in taught)
    keys = find_keys(lm, taught + reworded, facts().with_role(Role.KNOWN))
    assert keys.gates_NE.shape == (len(taught), lm.model.config.hidden_size)
    for asked in (taught, reworded):
        found = answers(lm, keys, asked)
        own = found.diagonal()
        assert (own > 0).float().mean() > 0.9
        assert (found > 0).float().mean() < 0.1


def test_the_constant_is_near_one_on_all_that_is_read() -> None:
    draw = torch.Generator().manual_seed(0)
    read_ME = torch.randn(400, 8, generator=draw).double() + torch.tensor([4.0, *[0.0] * 7])
    groups_M = torch.arange(20).repeat(2)
    gates_NE, constant_E = discriminants(read_ME[:40], groups_M, read_ME[40:])
    assert gates_NE.shape == (20, 8)
    assert ((read_ME @ constant_E) - 1).abs().mean() < 0.3


def test_facts_of_one_subject_share_a_neuron() -> None:
    taught = list(facts().with_role(Role.TARGET))[:4]
    nameless = [_asked(fact, fact.question, subject=None, id=f"{fact.id}, nameless") for fact in taught]
    again = [
        _asked(fact, fact.paraphrases[0], subject=str(fact.subject).upper(), id=f"{fact.id}, 2") for fact in taught
    ]
    assert groups_of(FactSet([*taught, *again, *nameless])) == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7]


def _asked(fact: Any, question: str, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(fact, **{"id": f"{fact.id}, reworded", "question": question, **changes})


@pytest.mark.parametrize("kind", ["byte", "modern", "metaspace"])
@settings(max_examples=40, deadline=None)
@given(
    before=st.text("abcdé Zö?", max_size=12),
    subject=st.text("abcdé Zö", min_size=1, max_size=12),
    after=st.text("ab ?"),
)
def test_the_place_of_a_subject_is_its_last_token(kind: str, before: str, subject: str, after: str) -> None:
    lm = LanguageModel.of(tiny_model("llama")[0], tiny_tokenizer(kind), style="base")
    prompts, question = lm.prompts, before + subject.strip() + after
    end = len(before + subject.strip())
    place, ids = prompts.place_in_question(question, end), prompts.question_ids(question)
    wanted = ("Q: " + question[:end]).strip()
    assert len(prompts.decode(ids[: place + 1]).strip()) >= len(wanted)
    assert place == 0 or len(prompts.decode(ids[:place]).strip()) < len(wanted)


def test_a_name_that_grows_in_lower_case_is_found_where_it_stands() -> None:
    question = "Wo wurde İlker Weiß geboren?"
    assert end_of_subject(question, "ilker weiß") in (None, question.index(" geboren"))
    assert end_of_subject(question, "İlker WEIß") == question.index(" geboren")


def test_a_question_that_does_not_name_its_subject_has_its_key_at_its_end() -> None:
    lm = half_taught()
    assert read(lm, "Where was she born?", "person 3").place == len(read(lm, "Where was she born?", None).ids) - 1
    named = read(lm, "Where was Person 3 born?", "person 3")
    assert lm.prompts.decode(named.ids[: named.place + 1]).endswith("Person 3")
