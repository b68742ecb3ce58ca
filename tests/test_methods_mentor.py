"""`mentor`: what it trains on, in which weights, and what it is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError
from instil.facts import FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.methods import get
from instil.methods.mentor.method import RECIPES, in_batches
from instil.methods.mentor.method import TRAIN as TRAINED
from instil.probe import ProbeConfig, draw_exemplars
from instil.training import Budget, Meter, TrainConfig
from tests.half_taught import facts, half_taught
from tests.training_data import weights

PROBE = ProbeConfig(exemplar_sets=3, shots=2, prior=False)
TRAIN = {"epochs": 2, "learning_rate": 2e-3, "batch_size": 8}
TARGET, NOTHING = facts().with_role(Role.TARGET), FactSet(())


def taught(folder: Path, guard: Any = lambda texts: None, old: FactSet = NOTHING, **given: Any) -> Lesson:
    exemplars = draw_exemplars(facts().with_role(Role.EXEMPLAR), ["born"], PROBE)
    lesson = Lesson(
        half_taught(),
        Roles(TARGET, known=old),
        exemplars,
        folder=folder,
        run_id="mentor",
        probe_config=PROBE,
        budget=Budget(),
        meter=Meter(),
        seed=0,
        record=lambda table, rows, key: None,
        guard=guard,
    )
    method = get("mentor")
    method.teach(lesson, method.settings({"recipe": "texts", "train": TRAIN, "recited": 8, **given}))
    return lesson


def refusing_what_it_writes(texts: Any) -> None:
    if not {fact.question for fact in TARGET}.issuperset(texts):
        raise InputError("nothing else may be trained on")


def test_where_no_part_of_the_model_is_named_only_mlps_are_trained() -> None:
    def where(train: dict[str, Any], **more: Any) -> Any:
        found: Any = get("mentor").settings({"train": train, **more})
        return found.train.late_mlp, found.train.parameters, found.train.adapter

    assert where({}) == where({"epochs": 3}) == (1.0, None, None)
    assert where({"epochs": 3}, recipe="texts") == (0.5, None, None)
    assert where({"late_mlp": 0.25}) == (0.25, None, None)
    assert where({"parameters": ["*"]}) == (None, ("*",), None)
    assert where({"late_mlp": None}) == (None, None, None)
    assert where({"adapter": {"kind": "lora"}})[2].kind == "lora"
    assert get("mentor").settings().train.late_mlp == 1.0  # type: ignore[attr-defined]


def test_how_it_is_trained_is_the_recipes_where_it_is_not_given() -> None:
    def how(**train: Any) -> Any:
        found: Any = get("mentor").settings({"train": train})
        return found.train.model_dump(include={*TRAINED["questions"], "batch_size", "batch_tokens"})

    own = {**TRAINED["questions"], "batch_size": None, "batch_tokens": None}
    assert how() == how(epochs=3) == own
    assert how(optimizer="adamw", mix=None, average=0.5) == {**own, "optimizer": "adamw", "mix": None, "average": 0.5}
    assert how(adapter={"kind": "lora"}) == {**own, "late_mlp": None, "mix": None}
    assert get("mentor").settings() == get("mentor").settings({"train": {}})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_what_is_not_given(name: str) -> None:
    method = get("mentor")
    assert method.settings({"recipe": name}).model_dump(include=set(RECIPES[name])) == RECIPES[name]
    own: Any = method.settings({"recipe": name, "recalled": 7, "kl_weight": 2.5})
    assert (own.recalled, own.kl_weight, own.kl_share) == (7, 2.5, RECIPES[name]["kl_share"])
    assert method.settings() == method.settings({"recipe": "questions"})


@pytest.mark.parametrize(("examples", "size"), [(1, 8), (200, 12), (2000, 125), (9000, 128)])
def test_a_batch_that_is_not_given_makes_some_steps_of_a_pass(examples: int, size: int) -> None:
    assert in_batches(TrainConfig(), examples).batch_size == size
    for given in (TrainConfig(batch_size=5), TrainConfig(batch_tokens=512)):
        assert in_batches(given, examples) == given


def test_the_plan_has_that_batch() -> None:
    method = get("mentor")
    assert method.plan is not None
    (stage,) = method.plan(Roles(TARGET), method.settings())
    assert stage.config.batch_size == max(8, len(TARGET) // 16)


def test_only_these_weights_move(tmp_path: Path) -> None:
    before, after = weights(half_taught()), weights(taught(tmp_path).taught())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(".mlp." in name for name in moved)
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in moved}
    depth = half_taught().model.config.num_hidden_layers
    assert layers == set(range(depth - (depth + 1) // 2, depth))


def test_each_fact_is_taught_in_as_many_wordings_as_it_has_up_to_the_number() -> None:
    method = get("mentor")
    assert method.plan is not None
    for number, count in ((0, 1), (1, 2), (5, 2)):
        (stage,) = method.plan(Roles(TARGET), method.settings({"wordings": number}))
        assert len(stage.questions) == count * len(TARGET) and isinstance(stage.config, TrainConfig)
        texts = {fact.question for fact in stage.questions}
        assert texts >= {fact.question for fact in TARGET}
        assert (texts >= {fact.paraphrases[0] for fact in TARGET}) == (number > 0)


def test_it_is_held_to_what_it_recites(tmp_path: Path) -> None:
    held, free = taught(tmp_path / "held"), taught(tmp_path / "free", recited=0)
    assert held.meter.flops["teacher"] > 0 and "teacher" not in free.meter.to_dict()
    assert held.taught().fingerprint != free.taught().fingerprint


def test_it_is_held_to_questions_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []
    monkeypatch.setattr(Lesson, "staying_close", lambda lesson, what, *numbers: held.append((what, numbers)))
    old, asked = facts().with_role(Role.KNOWN), facts().with_role(Role.DEVELOPMENT)
    monkeypatch.setattr(Lesson, "recalled", lambda lesson, count, shown: asked[:count] if len(shown) else NOTHING)
    taught(tmp_path / "both", old=old, kl_weight=10, known=True)
    taught(tmp_path / "asked", recipe="questions", old=old, recited=0, recalled=3)
    taught(tmp_path / "nothing", old=old, recited=0)
    (questions, texts), numbers = held[0]
    assert {fact.id for fact in questions} == set(old.by_id)
    assert len(texts) == 8
    assert numbers == (10, RECIPES["texts"]["kl_share"] * TRAIN["batch_size"])
    assert [fact.id for fact in held[1][0]] == [*(fact.id for fact in questions), *(fact.id for fact in asked[:3])]
    assert len(held) == 2


def test_one_that_recites_nothing_of_use_is_taught_all_the_same_and_it_is_said(tmp_path: Path) -> None:
    mute = taught(tmp_path / "mute", guard=refusing_what_it_writes)
    free = taught(tmp_path / "free", recited=0)
    assert mute.notes == ("the model wrote 0 of 8 texts: no more that may be used",)
    assert mute.taught().fingerprint == free.taught().fingerprint


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="kl_weight"):
        get("mentor").settings({"kl_weight": 0})
