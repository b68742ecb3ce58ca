"""`Lesson.reweighed` and `Lesson.start_over`: attention by mastery, and a stage from the model that was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError, RunFailed
from instil.facts import FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson, Rule
from instil.probe import MasteryMap, ProbeConfig, draw_exemplars
from instil.training import Budget, Meter, Progress
from tests.half_taught import documents, facts, half_taught
from tests.training_data import Killed, assert_same_weights, settings, weights

PROBE = ProbeConfig(exemplar_sets=3, shots=2, prior=False)
CONFIG = settings(learning_rate=2e-3, batch_size=6)
GIVEN = facts()
TARGET, KNOWN = GIVEN.with_role(Role.TARGET), GIVEN.with_role(Role.KNOWN)


def lesson(folder: Path, **more: Any) -> Lesson:
    roles = Roles(TARGET, GIVEN.with_role(Role.PRACTICE), KNOWN, GIVEN.with_role(Role.DEVELOPMENT))
    settled = {"budget": Budget(), "meter": Meter(), "seed": 0, "record": lambda table, rows, key: None}
    return Lesson(
        half_taught(),
        roles,
        draw_exemplars(GIVEN.with_role(Role.EXEMPLAR), GIVEN.by_relation, PROBE),
        folder=folder,
        run_id="weighed",
        probe_config=PROBE,
        **(settled | more),
    )


def unlearned(mastery: MasteryMap) -> dict[str, float]:
    """What is not yet likely, the more the less likely it is."""
    return {row.fact_id: 1 - row.p_sampled for row in mastery if row.p_sampled < 0.5}


class Maps:
    """A rule, and the maps that it was given."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.seen = rule, list[MasteryMap]()

    def __call__(self, mastery: MasteryMap) -> Mapping[str, float]:
        self.seen.append(mastery)
        return self.rule(mastery)


def test_facts_are_probed_before_each_epoch_and_it_is_charged_as_deciding(tmp_path: Path) -> None:
    rule, taught = Maps(unlearned), lesson(tmp_path)
    start = taught.probe(TARGET)
    spent = taught.meter.flops["deciding"]
    result = taught.train(TARGET, stage="only", config=CONFIG, weigh=taught.reweighed(TARGET, rule))
    assert (result.steps, result.ended_by) == (3 * -(-len(TARGET) // 6), "epochs")
    assert [[row.fact_id for row in seen] for seen in rule.seen] == [[fact.id for fact in TARGET]] * 3
    for quick, whole in zip(rule.seen[0], start, strict=True):
        assert len(quick.p_by_set) == 2 and quick.p_prior is None
        assert quick.p_by_set == pytest.approx(whole.p_by_set[:2], rel=1e-4)
    first, last = rule.seen[0], rule.seen[2]
    assert sum(last.by_id[fact].p_sampled for fact in unlearned(first)) > sum(
        first.by_id[fact].p_sampled for fact in unlearned(first)
    )
    assert taught.meter.flops["deciding"] - spent == result.cost["deciding"]["flops"] > 0
    # Three looks with two of three sets, without writing out wrong answers, cost less than three whole probes.
    assert result.cost["deciding"]["flops"] < 3 * spent


def test_a_resumed_stage_is_weighed_like_the_undisturbed_one(tmp_path: Path) -> None:
    def taught(folder: Path, rule: Rule, **more: Any) -> Any:
        one = lesson(folder, **more)
        one.train(TARGET + KNOWN, stage="only", config=CONFIG, weigh=one.reweighed(TARGET, rule))
        return one.taught()

    def cut_off(what: str, done: int, total: int | None) -> None:
        if "epoch 2" in what:
            raise Killed

    whole, again = Maps(unlearned), Maps(unlearned)
    expected = taught(tmp_path / "whole", whole)
    with pytest.raises(Killed):
        taught(tmp_path / "cut", unlearned, tell=cut_off)
    resumed = taught(tmp_path / "cut", again)
    assert_same_weights(resumed, expected)
    assert 0 < len(again.seen) < len(whole.seen) and again.seen[-1] == whole.seen[-1]


def test_a_fact_that_the_rule_leaves_out_rests_and_others_keep_weight_one(tmp_path: Path) -> None:
    one = lesson(tmp_path)
    keys = tuple(fact.id for fact in TARGET + KNOWN) + tuple(document.id for document in documents())
    learned, named = [fact.id for fact in TARGET[:7]], KNOWN[0].id

    def rule(mastery: MasteryMap) -> dict[str, float]:
        return {row.fact_id: 3.0 for row in mastery if row.fact_id not in learned} | {named: 0.5}

    found = one.reweighed(TARGET, rule)(Progress(0, 0, 0.0, 0, 0.0, 0.0, None, keys=keys))
    assert {key: found.get(key, 0.0) for key in keys} == {
        key: 0.0 if key in learned else 0.5 if key == named else 3.0 if key in TARGET.by_id else 1.0 for key in keys
    }


def test_a_resting_fact_is_as_if_it_were_another(tmp_path: Path) -> None:
    """Facts and documents in one stage: what rests is read by nobody."""

    def taught(folder: Path, resting: FactSet) -> Any:
        one = lesson(folder)
        weigh = one.reweighed(TARGET, lambda mastery: {fact.id: 2.0 for fact in learning})
        one.train(learning + resting, documents=documents(), stage="only", config=CONFIG, weigh=weigh)
        return one.taught()

    learning = FactSet(TARGET[8:])
    first, other = FactSet(TARGET[:4]), FactSet(TARGET[4:8])
    assert_same_weights(taught(tmp_path / "a", first), taught(tmp_path / "b", other))


def test_a_stage_ends_when_all_is_learned(tmp_path: Path) -> None:
    states: list[Mapping[str, Any]] = []

    def record(table: str, rows: Any, key: str) -> None:
        states.extend(rows if table == "states" else ())

    one = lesson(tmp_path, record=record)
    result = one.train(TARGET, stage="only", config=CONFIG, weigh=one.reweighed(TARGET, lambda _: {}))
    assert (result.steps, result.ended_by, one.stages) == (0, "weights", ("only",))
    assert states[0]["fingerprint"] == half_taught().fingerprint
    assert_same_weights(one.taught(), half_taught())


def test_what_cannot_be_weighed_is_refused(tmp_path: Path) -> None:
    one = lesson(tmp_path)
    with pytest.raises(InputError, match="nothing to weigh"):
        one.reweighed(FactSet(()), unlearned)
    with pytest.raises(InputError, match="field sets, found 0, expected at least 1"):
        one.reweighed(TARGET, unlearned, sets=0)
    everything = one.reweighed(TARGET, lambda mastery: {row.fact_id: 1.0 for row in mastery})
    with pytest.raises(InputError, match="not trained on"):
        one.train(FactSet(TARGET[:5]), stage="some", config=CONFIG, weigh=everything)


# ---- starting over ----


def test_a_stage_after_starting_over_is_one_of_a_fresh_lesson(tmp_path: Path) -> None:
    states: list[Mapping[str, Any]] = []

    def record(table: str, rows: Any, key: str) -> None:
        states.extend(rows if table == "states" else ())

    def both(folder: Path, **more: Any) -> Lesson:
        one = lesson(folder, **more)
        one.train(FactSet(TARGET[:8]), stage="stage 1", config=CONFIG)
        one.start_over()
        one.train(TARGET, stage="stage 2", config=CONFIG)
        return one

    def cut_off(what: str, done: int, total: int | None) -> None:
        if what.startswith("stage 2: epoch 2"):
            raise Killed

    fresh = lesson(tmp_path / "fresh")
    fresh.train(TARGET, stage="stage 2", config=CONFIG)
    whole = both(tmp_path / "whole", record=record)
    assert_same_weights(whole.taught(), fresh.taught())
    assert [(row["label"], row["parent_id"], row["order"]) for row in states] == [
        ("stage 1", "weighed:before", 1),
        ("stage 2", "weighed:before", 2),
    ]
    assert states[0]["fingerprint"] != states[1]["fingerprint"]
    with pytest.raises(Killed):
        both(tmp_path / "cut", tell=cut_off)
    assert_same_weights(both(tmp_path / "cut").taught(), fresh.taught())


def test_a_probe_after_starting_over_asks_the_model_that_was_given(tmp_path: Path) -> None:
    answers: list[Mapping[str, Any]] = []

    def record(table: str, rows: Any, key: str) -> None:
        answers.extend(rows if table == "answers" else ())

    one = lesson(tmp_path, record=record)
    before = one.probe(TARGET)
    one.train(TARGET, stage="stage 1", config=CONFIG)
    taught = weights(one.taught())
    assert one.probe(TARGET) != before
    one.start_over()
    assert one.probe(TARGET) == before
    assert {row["state_id"] for row in answers[-len(TARGET) :]} == {"weighed:before"}
    with pytest.raises(RunFailed, match="without training"):
        one.taught()
    one.train(TARGET, stage="stage 2", config=CONFIG)
    assert all(torch.equal(weight, taught[name]) for name, weight in weights(one.taught()).items())
