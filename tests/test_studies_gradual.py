"""The study of gradual learning: its material, its figures against ones made by hand, an arm on a tiny real model."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.answers import is_correct
from instil.errors import InputError
from instil.exam.abstention import is_abstention
from instil.facts import Fact, FactSet, Role
from instil.model import LanguageModel
from instil.probe import Category, ExemplarSets, Mastery, ProbeConfig, ask, draw_exemplars, probe, questions_of
from instil.training import Progress, TrainConfig, question_example, train
from studies.gradual_arms import GRADUAL
from studies.gradual_bases import SPLITS, Base, Material, Sizes, Split, Wordings, base_of, drawn, take, wordings_of
from studies.gradual_figures import figures
from studies.gradual_guard import unmentioned
from studies.gradual_measure import (
    FULL,
    QUICK,
    TURNS,
    Place,
    acquired,
    at,
    forgetting_difference,
    held_back_right,
    lost,
    made_up_answers,
    made_up_share,
    perplexity,
    place_of,
    quick,
    reading,
    shares,
)
from studies.gradual_run import Arm, Tuned, as_saved, before, run
from tests.gradual_curves import CURVE, look
from tests.half_taught import facts, half_taught

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = Sizes(target=120, development=24, replay=40, held_back=150, untaught=60, general=5)
PROBE = ProbeConfig(exemplar_sets=4, shots=2, decode=False, prior=False)


def row(fact: Any, p_greedy: float, category: Category) -> Mastery:
    return Mastery(fact.id, fact.relation, fact.question, fact.answers[0], category, p_greedy, 0, 0, None, False, "")


def as_told(base: Base) -> dict[str, Mastery]:
    """Mastery by how often a fact was told; no model is asked."""
    found = {}
    for fact in base.asked_once:
        told = fact.metadata.get("exposures", 0) if fact.metadata.get("rival") is None else 2
        category = Category.HIGHLY_KNOWN if told >= 16 else Category.MAYBE_KNOWN if told >= 4 else Category.UNKNOWN
        found[fact.id] = row(fact, {3: 1.0, 2: 0.6, 0: 0.0}[category.rank], category)
    return found


@cache
def of_people(split: Split, seed: int) -> Material:
    base = base_of("people")
    return drawn(base, split, seed, as_told(base), SIZES)


PARTS = ("target", "replay", "development", "held_back", "untaught")


class TestMaterial:
    @pytest.mark.parametrize("split", ["development", "test"])
    def test_parts_share_no_subject_nor_a_married_couple(self, split: Split) -> None:
        found, groups = of_people(split, 1), base_of("people").groups
        homes = [{groups[fact.id] for fact in getattr(found, part)} for part in ("target", "replay", "development")]
        asked = {groups[fact.id] for part in ("held_back", "untaught") for fact in getattr(found, part)}
        assert sum(map(len, homes)) == len(set().union(*homes))
        assert not asked & set().union(*homes)
        assert {part: len(getattr(found, part)) for part in PARTS} | {"replay": 40} == {
            part: getattr(SIZES, part) for part in PARTS
        }
        assert 40 <= len(found.replay) < 60, "whole subjects"
        found.roles.check_disjoint()

    def test_splits_share_no_subject(self) -> None:
        base = base_of("people")
        homes = [
            {base.groups[fact.id] for part in (base.taught, base.beside) for fact in part[split]}
            for split in ("development", "test")
        ]
        assert not homes[0] & homes[1] and len(homes[1]) > 2 * len(homes[0])
        exemplars = base.exemplars.subjects
        assert not exemplars & {str(fact.subject) for fact in base.asked_once}

    def test_what_is_held_back_is_known_and_what_is_never_taught_is_not(self) -> None:
        found, mastery = of_people("test", 1), as_told(base_of("people"))
        assert all(mastery[fact.id].known for fact in found.held_back)
        assert not any(mastery[fact.id].known for fact in found.untaught)
        assert all(found.mastery[fact.id] is Category.HIGHLY_KNOWN for fact in found.replay)
        assert {found.mastery[fact.id] for fact in found.target} == {*Category} - {Category.WEAKLY_KNOWN}
        assert sum(found.described()["target"].values()) == SIZES.target

    def test_seeds_draw_other_facts_and_the_same_seed_the_same(self) -> None:
        base = base_of("people")
        again = drawn(base, "test", 1, as_told(base), SIZES)
        assert again.target.fingerprint == of_people("test", 1).target.fingerprint
        assert again.held_back.fingerprint == of_people("test", 1).held_back.fingerprint
        assert len(again.target.subjects & of_people("test", 2).target.subjects) < len(again.target.subjects) / 2

    def test_a_subject_has_one_number_in_all_seeds_and_a_married_couple_one_between_them(self) -> None:
        groups = base_of("people").groups
        numbers: dict[str, set[int]] = {}
        for found in (of_people("test", 1), of_people("test", 2), of_people("development", 1)):
            assert {fact.id for part in PARTS for fact in getattr(found, part)} == set(found.groups)
            for fact_id, number in found.groups.items():
                numbers.setdefault(groups[fact_id], set()).add(number)
        assert all(len(own) == 1 for own in numbers.values())
        assert len(set().union(*numbers.values())) == len(numbers)

    def test_wordings_that_are_only_asked_are_out_of_a_lessons_reach(self) -> None:
        found = of_people("test", 1)
        for fact in found.target:
            wordings = found.wordings[fact.id]
            assert (wordings.trained, wordings.free) == (fact.question, fact.paraphrases)
            assert len(wordings.asked) == 2 and not {*wordings.free, wordings.trained} & {*wordings.asked}
            found.guard([fact.question, *fact.paraphrases])
            with pytest.raises(InputError, match="only asked"):
                found.guard([fact.question, wordings.asked[0]])
        with pytest.raises(InputError, match="only asked"):
            found.guard([found.held_back[0].question])
        for part in (found.held_back, found.untaught):
            person = next(fact for fact in part if fact.cluster in found.teachable)
            with pytest.raises(InputError, match="held-back subject"):
                found.guard([f"Do you know ({person.subject}) by any chance?"])
        place = next(fact for fact in found.held_back if fact.cluster not in found.teachable)
        found.guard([f"Who was born in {place.subject}?"])
        with pytest.raises(InputError, match="held-back subject"):
            found.guard([f"It was {place.answers[0].upper()}, like all of {place.subject}."])

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("Whom did Elizabeth of York marry?", {"queen"}),
            ("Who was the greatest Elizabethan?", set()),
            ("Who was born in Oslo?", set()),
            ("Is Oslo, in Norway, cold?", {"city"}),
        ],
    )
    def test_a_fact_of_a_subject_that_something_taught_names_is_not_asked(self, text: str, named: set[str]) -> None:
        queen = Fact("queen", "Who is Elizabeth's child?", ("Edward",), subject="Elizabeth")
        city = Fact("city", "Where is Oslo?", ("Norway",), subject="Oslo")
        left = unmentioned([queen, city], ["Where was Ada born?", text], {"Elizabeth", "Ada"})
        assert {fact.id for fact in left} == {"queen", "city"} - named

    def test_a_split_that_is_too_small_is_refused(self) -> None:
        base = base_of("people")
        with pytest.raises(InputError, match="too few"):
            drawn(base, "test", 0, as_told(base), Sizes(target=10**6))

    def test_groups_are_taken_whole_but_for_the_last(self) -> None:
        given = facts()
        groups = {"a": given[:3], "b": given[3:6], "c": given[6:9]}
        assert [fact.id for fact in take(iter("cab"), groups, 5)] == ["f6", "f7", "f8", "f0", "f1"]

    def test_entityquestions_keeps_what_was_never_looked_at_for_the_test(self, real_data: Any) -> None:
        real_data("entityquestions/train.jsonl.gz")
        base = base_of("entityquestions")
        splits = {split: {fact.metadata["split"] for fact in base.taught[split]} for split in SPLITS}
        assert splits == {"development": {"target", "known"}, "test": {"test", "held_back"}}
        found = [drawn(base, split, 0, as_told(base), SIZES) for split in SPLITS]
        homes = [{base.groups[fact.id] for part in PARTS for fact in getattr(one, part)} for one in found]
        assert not homes[0] & homes[1]
        assert all(len(found[0].wordings[fact.id].asked) == 2 for fact in found[0].target)


# --------------------------------------------------------------------- figures


class TestFigures:
    def test_a_fact_counts_with_its_share_of_right_answers(self) -> None:
        assert shares("0124", 4) == [0.0, 0.25, 0.5, 1.0]
        assert shares("05a", 10) == [0.0, 0.5, 1.0]
        assert acquired(look("0123", "2")) == pytest.approx(6 / 16)
        assert [acquired(point) for point in CURVE] == [0, 0.25, 0.75, 1.0]
        assert [lost(CURVE[0], point) for point in CURVE] == [0, 0.25, 0.5, 1.0]
        assert made_up_share(CURVE[0]) == 0.5, "one of the three could not be scored"
        assert made_up_share(look("0", "0", made_up="--")) is None
        assert perplexity(CURVE[0]) == pytest.approx(math.exp(2))

    @pytest.mark.parametrize(
        ("level", "place", "forgotten"),
        [
            (0.25, Place(0, 1.0), 0.25),
            (0.5, Place(1, 0.5), 0.375),
            (0.9, Place(2, 0.6), 0.8),
            (0.0, Place(0, 0.0), 0.0),
        ],
    )
    def test_a_reading_lies_between_two_points(self, level: float, place: Place, forgotten: float) -> None:
        found = place_of(CURVE, level)
        assert found is not None
        assert (found.left, found.share) == (place.left, pytest.approx(place.share))
        assert reading(CURVE, level / 0.8, 0.8) == pytest.approx(forgotten)

    def test_a_reading_that_is_never_reached_is_none(self) -> None:
        assert reading(CURVE[:3], 0.9, 1.0) is None
        assert reading(CURVE[:3], 0.75, 1.0) == pytest.approx(0.5)

    def test_the_first_time_counts(self) -> None:
        falling = [*CURVE[:3], look("0400", "2222"), look("4444", "2222")]
        assert reading(falling, 0.5, 1.0) == reading(CURVE, 0.5, 1.0)

    def test_values_of_facts_are_between_those_of_two_points(self) -> None:
        assert at(CURVE, Place(0, 0.25), held_back_right) == [1, 1, 0.75, 1]
        assert at(CURVE, Place(3, 0.0), held_back_right) == [0, 0, 0, 0]

    def test_arms_are_compared_fact_by_fact_where_both_have_acquired_the_same(self) -> None:
        kept = [CURVE[0], look("0400", "2222"), look("0444", "2221"), look("4444", "2220")]
        subjects = {seed: ["a", "b", "c", "d"] for seed in (1, 2, 3)}
        curves, others = dict.fromkeys((1, 2, 3), CURVE), {1: kept, 2: kept, 3: kept[:2]}
        found = forgetting_difference(curves, others, subjects, 0.5, 1.0)
        assert found.seeds == (1, 2) and found.missing == (3,)
        assert found.figure is not None and found.figure.n == 8 and found.figure.clusters == 4
        assert found.figure.value == pytest.approx(0.375 - 0.0625)
        same = forgetting_difference(curves, curves, subjects, 0.5, 1.0).figure
        assert same is not None and same.value == 0
        none = forgetting_difference(curves, {1: kept[:1]}, subjects, 0.5, 1.0)
        assert none.figure is None and none.missing == (1,)


# ----------------------------------------------------------- on a tiny real model


@cache
def tiny() -> Material:
    """The half-taught model's facts; their only paraphrase is never trained on."""
    given = facts()
    exemplars = given.with_role(Role.EXEMPLAR)
    sets = draw_exemplars(exemplars, given.by_relation, PROBE)
    found = probe(half_taught(), given, sets, PROBE).by_id
    held = given.with_role(Role.HELD_BACK)

    def plain(part: FactSet) -> FactSet:
        return FactSet(replace(fact, paraphrases=()) for fact in part)

    return Material(
        name="people",
        split="test",
        seed=0,
        base="half taught",
        target=plain(given.with_role(Role.TARGET)),
        replay=plain(given.with_role(Role.KNOWN)),
        development=plain(given.with_role(Role.DEVELOPMENT)),
        held_back=plain(held.where(lambda fact: found[fact.id].known)),
        untaught=plain(held.where(lambda fact: not found[fact.id].known)),
        exemplars=exemplars,
        general=("Ada Lovelace was a mathematician.", "Alan Turing moved from Paris to Warsaw."),
        wordings={fact.id: wordings_of(fact) for fact in given},
        mastery={fact.id: found[fact.id].category for fact in given},
        groups={fact.id: number for number, fact in enumerate(given)},
        teachable=frozenset(fact.cluster for fact in given),
    )


def right_by_set(lm: LanguageModel, facts_asked: FactSet, sets: ExemplarSets) -> list[bool]:
    config = ProbeConfig(exemplar_sets=TURNS, decode=False, prior=False)
    (alone,) = ask(lm, questions_of(facts_asked), sets.first(TURNS), config)
    return list(alone.greedy_right_by_set)


class TestLooks:
    def test_a_look_counts_what_is_asked_one_by_one(self) -> None:
        lm, material = half_taught(), tiny()
        found = quick(lm, material)
        assert len(material.held_back) and len(material.untaught)
        assert found["taught_of"] == QUICK.taught and found["held_back_of"] == QUICK.held_back
        assert found["fitted_of"] == 1 and len(found["fitted"]) == len(material.target)
        for number, fact in list(enumerate(material.target))[:6]:
            worded = FactSet([replace(fact, question=material.wordings[fact.id].asked[0])])
            for name, facts_asked in (("taught", worded), ("fitted", FactSet([fact]))):
                by_set = right_by_set(lm, facts_asked, material.asked_sets)
                assert int(found[name][number]) == by_set[number % TURNS], "questions take turns among the sets"

    def test_taught_facts_as_worded_are_not_asked_where_settings_are_chosen(self) -> None:
        found = quick(half_taught(), replace(tiny(), split="development"))
        assert (found["fitted"], found["fitted_of"]) == ("", 0)

    def test_a_full_look_asks_with_every_set(self) -> None:
        lm, material = half_taught(), tiny()
        four = replace(FULL, taught=3, held_back=4, untaught=2)
        found = quick(lm, material, four)
        assert (found["taught_of"], found["held_back_of"]) == (3, 4)
        for number, fact in list(enumerate(material.held_back))[:4]:
            assert int(found["held_back"][number]) == sum(right_by_set(lm, FactSet([fact]), material.asked_sets))
        with pytest.raises(ValueError, match="once each"):
            quick(lm, material, replace(QUICK, taught=2))

    def test_made_up_answers_are_wrong_and_confident(self) -> None:
        lm, material = half_taught(), tiny()
        config = ProbeConfig(exemplar_sets=FULL.untaught, prior=False)
        sets = material.asked_sets.first(FULL.untaught)
        marks = made_up_answers(lm, material.untaught, material.asked_sets, FULL.untaught)
        for question, mark in zip(questions_of(material.untaught), marks, strict=True):
            (answer,) = ask(lm, [question], sets, config)
            said = answer.greedy_answer
            claims = not (answer.known or is_correct(said, question.answers) or is_abstention(said))
            own = next(ask(lm, [replace(question, answers=(said,))], sets, config)) if claims else None
            assert mark == str(int(own is not None and own.p_sampled >= 0.5))
        assert len(marks) == len(material.untaught)

    def test_facts_without_wordings_that_are_only_asked_are_refused(self) -> None:
        bare = replace(tiny(), wordings={fact.id: Wordings(fact.question, (), ()) for fact in facts()})
        with pytest.raises(ValueError, match="only asked"):
            quick(half_taught(), bare)

    @pytest.mark.parametrize("adapter", [None, {"kind": "lora", "r": 4}, {"kind": "osf"}])
    def test_a_model_in_training_is_seen_as_it_will_be_saved(self, tmp_path: Path, adapter: Any) -> None:
        if adapter:
            pytest.importorskip("peft")
        base, lm = half_taught(), half_taught()
        seen: list[LanguageModel] = []

        def watch(progress: Progress) -> None:
            seen.append(as_saved(progress.model, base))

        config = TrainConfig(epochs=2, learning_rate=2e-3, batch_size=8, adapter=adapter, save_every="never")
        examples = [question_example(lm.prompts, fact) for fact in tiny().target]
        train(lm, examples, config, out=tmp_path, watch=watch)
        merged, weights = dict(lm.model.named_parameters()), dict(seen[-1].model.named_parameters())
        assert weights.keys() == merged.keys()
        for name, weight in weights.items():
            assert torch.allclose(weight, merged[name], atol=1e-6), name
        assert seen[0].fingerprint != seen[1].fingerprint != base.fingerprint


class TestAnArm:
    @pytest.fixture(scope="class")
    def start(self) -> dict[str, Any]:
        torch.set_num_threads(1)
        return before(tiny(), half_taught())

    def teach(self, start: dict[str, Any], arm: Arm, rate: float = 2e-3, **more: Any) -> dict[str, Any]:
        given = {"epochs": 3, "batch": 8, "budget": None, **more}
        return run(arm, Tuned(rate=rate), tiny(), start, base=half_taught(), **given)

    def test_from_its_start_to_the_saved_model(self, start: dict[str, Any]) -> None:
        arm = Arm(name="two stages", method="gradual", settings={"early_stop": False})
        found = self.teach(start, arm)
        curve = found["curve"]
        assert [point.get("stage") for point in curve] == [None, *["stage 1"] * 3, *["stage 2"] * 3]
        assert curve[0] == start["quick"]
        assert all(curve[n]["flops"] < curve[n + 1]["flops"] for n in range(1, len(curve) - 1))
        last = {name: curve[-1][name] for name in start["quick"]}
        assert last.items() <= found["end"]["quick"].items(), "what is seen in training is what is saved"
        assert perplexity(found["end"]["quick"]) != perplexity(start)
        assert found["end"]["taught"] != start["taught"]
        assert len(found["end"]["category"]) == len(found["end"]["fitted"]) == len(tiny().target)
        assert set(found["cost"]) == {"training", "deciding"}, "no look is charged"
        assert [stage["stage"] for stage in found["stages"]] == ["stage 1", "stage 2"]
        assert [probe["after"] for probe in found["probed"]] == ["before", "stage 1"]
        first, then = (probe["category"] for probe in found["probed"])
        halves = [was == "M" or (was in "WU" and now in "MH") for was, now in zip(first, then, strict=True)]
        assert found["trained"] == "".join(str(int(one)) for one in halves)
        assert len(found["seconds_a_look"]) == 6

    def test_the_base_says_what_figures_need_to_know_of_the_facts(self, start: dict[str, Any]) -> None:
        material = tiny()
        parts = {"target": material.target, "held_back": material.held_back, "untaught": material.untaught}
        order = [fact.id for fact in facts()]
        assert start["groups"] == {name: [order.index(fact.id) for fact in part] for name, part in parts.items()}
        assert set(start["categories"]["held_back"]) <= {*"HM"} and start["untaught_of"] == FULL.untaught
        assert len(start["untaught"]) == len(start["categories"]["untaught"]) == len(material.untaught)
        for number, fact in list(enumerate(material.untaught))[:4]:
            assert int(start["untaught"][number]) == sum(
                right_by_set(half_taught(), FactSet([fact]), material.asked_sets.first(FULL.untaught))
            )

    def test_figures_are_made_from_what_a_run_says(self, start: dict[str, Any]) -> None:
        found = self.teach(start, Arm(name="gradual", method="gradual"), epochs=1)
        where = {"base": "people", "split": "test", "seed": 0}
        rows = [{"job": {"before": where}, **start}, {"job": {"arm": {"name": "gradual"}, **where}, **found}]
        whole = figures(rows, {"people": acquired(found["end"]["quick"])}, {"people": "sft"}, GRADUAL)["people"]
        told = whole["arms"]["gradual"]
        assert told["acquired"]["value"] == pytest.approx(acquired(found["end"]), abs=1e-5)
        assert told["lost"]["value"] == pytest.approx(lost(start, found["end"]), abs=1e-5)
        assert told["acquired"]["clusters"] == len(tiny().target) and told["lost"]["n"] == len(tiny().held_back)
        assert sum(part["worded"]["n"] for parts in told["by_category"].values() for part in parts.values()) == len(
            tiny().target
        )
        assert sum(one["n"] for one in told["tested"].values()) == len(tiny().held_back) + len(tiny().untaught)
        assert [step["to"] for step in told["flow"]] == ["stage 1", "end"]
        assert told["readings"]["0.5"]["reached"] == [0] and told["flops"] > told["deciding"] > 0

    def test_what_an_early_stop_takes_back_is_no_part_of_the_curve(self, start: dict[str, Any]) -> None:
        arm = Arm(name="sft", method="sft", settings={"early_stop": True, "patience": 2})
        found = self.teach(start, arm, epochs=8)
        (stage,) = found["stages"]
        best = stage["development"].index(max(stage["development"])) + 1
        assert best < len(stage["development"]), "something was taken back"
        assert [point.get("epoch") for point in found["curve"]] == [None, *range(1, best + 1)]
        last = found["curve"][-1]
        assert {name: last[name] for name in start["quick"]}.items() <= found["end"]["quick"].items()
        assert last["flops"] == pytest.approx(sum(cost["flops"] for cost in found["cost"].values())), "it was spent"

    def test_a_stage_that_starts_from_the_base_follows_upon_it(self, start: dict[str, Any]) -> None:
        settings = {"early_stop": False, "from_base": True, "replay_ratio": 0.0}
        found = self.teach(start, Arm(name="anew", method="staged", settings=settings), epochs=2)
        assert [stage["stage"] for stage in found["stages"]] == ["stage 1", "stage 2"]
        assert [(point.get("stage"), point.get("epoch")) for point in found["curve"]] == [
            (None, None), ("stage 2", 1), ("stage 2", 2)
        ]  # fmt: skip
        assert found["curve"][1]["flops"] > found["stages"][0]["flops"]

    def test_a_control_says_what_it_could_not_do(self, start: dict[str, Any]) -> None:
        arm = Arm(name="much replay", method="staged", settings={"early_stop": False, "replay_ratio": 2.0})
        found = self.teach(start, arm, epochs=1)
        assert [point.get("stage") for point in found["curve"]] == [None, "stage 1", "stage 2"]
        wanted = 2 * found["stages"][0]["facts"]
        assert found["notes"] == [f"stage 2: 0 of {wanted} facts replayed: no more are mastered"]

    def test_a_budget_ends_the_curve_with_the_saved_model(self, start: dict[str, Any]) -> None:
        free = self.teach(start, Arm(name="sft", method="sft"))
        budget = 0.5 * sum(cost["flops"] for cost in free["cost"].values())
        found = self.teach(start, Arm(name="sft", method="sft"), budget=budget)
        assert found["curve"][-1]["epoch"] == pytest.approx(1.5, abs=0.35)
        assert [point["epoch"] for point in found["curve"][1:-1]] == [1]
        assert found["curve"][1] == {**free["curve"][1], "training_seconds": found["curve"][1]["training_seconds"]}

    def test_nothing_is_trained_that_is_only_asked(self, start: dict[str, Any]) -> None:
        leaking = replace(tiny(), target=FactSet(replace(f, question=f.question) for f in tiny().untaught))
        with pytest.raises(InputError, match="only asked"):
            run(Arm(name="sft", method="sft"), Tuned(rate=1e-3), leaking, start, epochs=1, batch=8, budget=None,
                base=half_taught())  # fmt: skip
