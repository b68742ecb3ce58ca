"""Questions that a model asks itself: on the embedded model, which has read many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import instil
from instil.errors import InputError
from instil.facts import FactSet, Role
from instil.lesson import Lesson, Roles
from instil.model import LanguageModel
from instil.probe import ExemplarSets, ProbeConfig, Recalled, recall
from instil.probe.recalling import read
from instil.training import Budget, Meter
from instil.worlds.embedded import embedded_world

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

    found = recall(lm, 30, behind=behind, allowed=lambda question: not question.startswith("W"))
    assert shown[0] == 0 and found and not any(one.question.startswith("W") for one in found)


def test_a_model_that_repeats_itself_gives_fewer(lm: LanguageModel) -> None:
    assert recall(lm, 5, allowed=lambda question: False) == []
    assert recall(lm, 5, max_tokens=3) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" Who?\nA: Ada\nQ: And", Recalled("Who?", "Ada")),
        (" Who?\nA: Ada", None),
        (" Who?\nA:\nQ: Next?\nA: B\n", None),
        (" Who?", None),
        ("\nA: Ada\n", None),
        (" One\ntwo?\nA: Ada\n", None),
    ],
)
def test_what_is_read_of_a_text(text: str, found: Recalled | None) -> None:
    assert read(text, "\nA:", "\n") == found


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
    found = lesson(lm, tmp_path, meter, target).recalled(60)
    assert len(found) > 20 and {fact.role for fact in found} == {Role.KNOWN}
    assert not any("born" in fact.question or str(subject) in fact.question for fact in found)
    spent = meter.to_dict()["teacher"]["flops"]
    assert spent > 0
    again = Meter()
    assert list(lesson(lm, tmp_path, again, target).recalled(60)) == list(found), "a finished verb answers from disk"
    assert again.to_dict()["teacher"]["flops"] == spent
