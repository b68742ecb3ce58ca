"""Questions that a model asks itself: on the embedded model, which has read many."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import instil
import instil.probe
from instil.errors import InputError
from instil.facts import Document, FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.model import LanguageModel
from instil.probe import ExemplarSets, ProbeConfig, Recalled, naming, next_token_nll, recall, recalling, recite
from instil.probe.recalling import read
from instil.training import Budget, Meter, TrainConfig, document_examples, train
from instil.worlds.embedded import embedded_world
from tests.half_taught import TOWNS
from tests.models import FAMILIES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return instil.load("embedded")


def test_it_asks_different_whole_questions_and_leaves_everything_as_it_was(lm: LanguageModel) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    lm.model.train()
    found = recall(lm, 40, seed=1)
    assert lm.model.training
    lm.model.eval()
    assert torch.equal(torch.rand(1), expected)
    assert len(found) == 40 == len({one.question for one in found})
    assert all(one.question and one.answer and "\n" not in one.question + one.answer for one in found)
    assert sum(one.question.endswith("?") for one in found) > 20
    assert recall(lm, 40, seed=1) == found and recall(lm, 40, seed=2) != found
    taught = {fact.question for fact in embedded_world().facts}
    assert sum(one.question in taught for one in found) >= 4, "what it was told of is what it asks about"


def test_worked_questions_lead_it_and_some_questions_are_not_allowed(lm: LanguageModel) -> None:
    worked = [("Where was Ada born?", "London"), ("Where was Alan born?", "London")]
    shown: list[int] = []

    def behind(number: int) -> list[tuple[str, str]]:
        shown.append(number)
        return worked

    found = recall(lm, 30, behind=behind, allowed=lambda text: not text.startswith("W"))
    assert shown[0] == 0 and found and not any(one.question.startswith("W") for one in found)
    answer = found[0].answer
    fewer = recall(lm, 30, behind=behind, allowed=lambda text: answer not in text)
    assert fewer and not any(answer in one.answer for one in fewer), "an answer can be a name that must not be said"


def test_a_model_that_repeats_itself_gives_fewer(lm: LanguageModel) -> None:
    assert recall(lm, 5, allowed=lambda question: False) == []
    assert recall(lm, 5, max_tokens=3) == []


def test_a_chat_model_asks_in_a_turn_of_its_own(tmp_path: Path) -> None:
    model, tokenizer = tiny_model("qwen3", chat=True)
    chatting = LanguageModel.of(model, tokenizer, name="chatting")
    told = {f"Where was person {number} born?": town for number, town in enumerate(TOWNS)}
    turns = [Document(question, f"<|user|>\n{question}</s>\n<|assistant|>\n{town}") for question, town in told.items()]
    examples = [one for turn in turns for one in document_examples(chatting.prompts, turn, 128)]
    train(chatting, examples, TrainConfig(epochs=150, learning_rate=5e-3, save_every="never"), out=tmp_path / "run")
    found = {one.question: one.answer for one in recall(chatting, 6, max_tokens=48)}
    assert len(found) == 6 and sum(told.get(question) == answer for question, answer in found.items()) >= 5
    assert {one.question for one in recall(chatting, 6, behind=lambda number: list(told.items())[:2], max_tokens=48)}
    assert recall(chatting, 3, max_tokens=2) == []


def test_it_writes_texts_as_those_that_it_has_read(lm: LanguageModel) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    told = recite(lm, 20, seed=1)
    assert torch.equal(torch.rand(1), expected)
    found = [one.text for one in told]
    assert len(found) == 20 == len(set(found)) and all(text == text.strip() != "" for text in found)
    assert not any(mark in text for text in found for mark in (lm.tokenizer.bos_token, lm.tokenizer.eos_token))
    assert recite(lm, 20, seed=1) == told != recite(lm, 20, seed=2)
    assert all(one.ended for one in told) and not any(one.ended for one in recite(lm, 20, max_tokens=4))
    bits = [sum(nll for nll, _ in next_token_nll(lm, texts)) for texts in (found, [text[::-1] for text in found])]
    assert bits[0] < bits[1] / 2, "it knows what it wrote"
    named = {str(fact.subject) for fact in embedded_world().facts}
    assert any(naming(named)(text) for text in found)
    assert recite(lm, 5, allowed=lambda text: False) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_writes_something(family: str) -> None:
    model, tokenizer = tiny_model(family)
    assert len(recite(LanguageModel.of(model, tokenizer, name=family), 2, max_tokens=8)) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" Who?\nA: Ada\nQ: And", [Recalled("Who?", "Ada")]),
        (" Who?\nA: Ada\nQ: Where?\nA: Rome\n", [Recalled("Who?", "Ada"), Recalled("Where?", "Rome")]),
        (" Who?\nA: Ada\nQ: Where?\nA: Rome", [Recalled("Who?", "Ada")]),
        (" Who?\nA: Ada\nA text.\nQ: Where?\nA: Rome\n", [Recalled("Who?", "Ada")]),
        (" Who?\nA: Ada", []),
        (" Who?\nA:\nQ: Next?\nA: B\n", []),
        (" Who?", []),
        ("\nA: Ada\n", []),
        (" One\ntwo?\nA: Ada\n", []),
    ],
)
def test_what_is_read_of_a_text(text: str, found: list[Recalled]) -> None:
    assert list(read(text, "Q:", "\nA:", "\n")) == found


def test_several_questions_of_a_text_are_read(lm: LanguageModel) -> None:
    short, long = (len(list(recalling._sampled(lm, (), 1.0, tokens, "0"))) for tokens in (32, 128))
    assert 0 < short < 2 * recalling.BATCH < long


class Refusing:
    """A guard that remembers what it was asked, and refuses questions about births."""

    def __call__(self, texts: Any) -> None:
        if any("born" in text for text in texts):
            raise InputError("what is only asked would be trained on")


def lesson(lm: LanguageModel, folder: Path, meter: Meter, target: FactSet) -> Lesson:
    return Lesson(
        lm,
        Roles(target=target),
        ExemplarSets({"": ((),)}),
        folder=folder,
        run_id="r",
        probe_config=ProbeConfig(exemplar_sets=1, shots=0),
        budget=Budget(),
        meter=meter,
        seed=4,
        record=lambda table, rows, key: None,
        guard=Refusing(),
    )


def test_a_lesson_leaves_out_what_is_asked_and_what_is_taught_and_keeps_what_it_found(
    lm: LanguageModel, tmp_path: Path
) -> None:
    free = recall(lm, 60, seed=4)
    named = next(one.question for one in free if "born" not in one.question)
    world = embedded_world().facts
    subject = next(fact.subject for fact in world if fact.subject and fact.subject in named)
    target = world.where(lambda fact: fact.subject == subject).assign(Role.TARGET)
    meter = Meter()
    whole = lesson(lm, tmp_path, meter, target)
    found = whole.recalled(60)
    assert not whole.notes
    assert len(found) > 20 and {fact.role for fact in found} == {Role.KNOWN}
    assert not any("born" in fact.question or str(subject) in fact.question for fact in found)
    spent = meter.to_dict()["teacher"]["flops"]
    assert spent > 0
    again = Meter()
    assert list(lesson(lm, tmp_path, again, target).recalled(60)) == list(found), "a finished verb answers from disk"
    assert again.to_dict()["teacher"]["flops"] == spent


def test_a_lesson_says_that_it_found_fewer(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "TRIES", 1)
    monkeypatch.setattr(instil.probe, "recall", partial(recall, max_tokens=24), raising=False)
    for _ in range(2):  # the second one answers from disk
        short = lesson(lm, tmp_path, Meter(), embedded_world().facts[:1].assign(Role.TARGET))
        found = short.recalled(64)
        assert 0 < len(found) < 64
        assert [f"asked itself {len(found)} of 64 questions" in note for note in short.notes] == [True]


def test_a_lesson_recites_nothing_of_what_it_teaches(lm: LanguageModel, tmp_path: Path) -> None:
    free = recite(lm, 40, seed=4)
    world = embedded_world().facts
    subject = next(str(one.subject) for one in world if one.subject and naming([one.subject])(free[0].text))
    target = world.where(lambda fact: fact.subject == subject).assign(Role.TARGET)
    meter, again = Meter(), Meter()
    found = lesson(lm, tmp_path, meter, target).recited(40)
    assert 20 < len(found) <= 40 and not any(subject in one.text or "born" in one.text for one in found)
    assert meter.to_dict()["teacher"]["flops"] > 0
    assert list(lesson(lm, tmp_path, again, target).recited(40)) == list(found), "a finished verb answers from disk"
    assert again.to_dict() == meter.to_dict()
    short = lesson(lm, tmp_path / "short", Meter(), target)
    short._guard = refusing_all
    assert len(short.recited(3)) == 0 and "wrote 0 of 3 texts" in short.notes[0]


def refusing_all(texts: Any) -> None:
    raise InputError("nothing may be trained on")


def test_replay_that_is_short_of_facts_is_said(lm: LanguageModel, tmp_path: Path) -> None:
    facts = embedded_world().facts[:5].assign(Role.TARGET)
    given = lesson(lm, tmp_path, Meter(), facts)
    assert len(given.drawn(facts, 3)) == 3 and not given.notes
    assert len(given.drawn(facts, 9)) == 5
    assert given.notes == ("5 of 9 facts replayed: no more are mastered",)


def test_names_are_found_in_any_script_and_no_name_is_in_no_text() -> None:
    assert naming(["北京"])("他去了北京。") and not naming(["北京"])("他去了北方。")
    assert not naming(["", "?!"])("Where was Ada born?")
