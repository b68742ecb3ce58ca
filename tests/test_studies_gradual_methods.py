"""The controls of the study of gradual learning, each through a real lesson on a tiny real model."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from instil.errors import InputError
from instil.facts import Corpus, FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.lesson import Lesson
from instil.methods import get
from instil.methods.mentor.method import in_wordings
from instil.model import LanguageModel
from instil.probe import Category, Mastery, MasteryMap, ProbeConfig, draw_exemplars
from instil.training import Budget, Meter, TrainConfig
from studies.gradual import Plan
from studies.gradual_arms import control_arms
from studies.gradual_methods import (
    STUDY_METHODS,
    Staged,
    as_many,
    attention,
    behind_others,
    method_of,
    pages_of,
    resting,
    sheets,
    stand_ins,
    started,
)
from studies.gradual_run import settings_of
from studies.gradual_search import CANDIDATES, PLAN, jobs_of, told
from tests.half_taught import facts, half_taught
from tests.training_data import assert_same_weights

pytestmark = pytest.mark.usefixtures("one_thread")

PROBE = ProbeConfig(exemplar_sets=4, shots=2, decode=False, prior=False)
TRAIN = {"epochs": 3, "learning_rate": 2e-3, "batch_size": 8, "save_every": "never"}


class Taught:
    """A lesson taught by one method, and what it saw.

    Attributes:
        trained: the ids of the facts of each stage, by its name.
        category: of every target fact, as the first probe of the target facts found it.
        flops: by purpose.
        steps: of all stages.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        everything = facts()
        self.meter = Meter()
        self.texts: list[list[str]] = []
        self.points: list[Any] = []
        self.answers: list[Any] = []
        roles = (Role.TARGET, Role.PRACTICE, Role.KNOWN, Role.DEVELOPMENT)
        self.lesson = Lesson(
            half_taught(),
            Roles(*(everything.with_role(role) for role in roles)),
            draw_exemplars(everything.with_role(Role.EXEMPLAR), everything.by_relation, PROBE),
            folder=folder / name,
            run_id=name,
            probe_config=PROBE,
            budget=Budget(),
            meter=self.meter,
            seed=0,
            record=self.record,
            guard=lambda texts: self.texts.append(list(texts)),
        )
        method = method_of(name)
        self.notes = method.teach(self.lesson, method.settings({"train": TRAIN, **settings}))
        self.model: LanguageModel = self.lesson.taught()

    def record(self, table: str, rows: Any, key: str) -> None:
        self.points += rows if table == "stages" else []
        self.answers += rows if table == "answers" else []

    @property
    def trained(self) -> dict[str, list[str]]:
        by_question = {fact.question: fact.id for fact in facts()}
        stages = zip(self.lesson.stages, self.texts, strict=True)
        return {stage: [by_question[text] for text in texts] for stage, texts in stages}

    @property
    def category(self) -> dict[str, Category]:
        found: dict[str, Category] = {}
        for row in self.answers:
            found.setdefault(row["question_id"], Category(row["category"]))
        return found

    @property
    def flops(self) -> dict[str, float]:
        return {purpose: cost["flops"] for purpose, cost in self.meter.to_dict().items() if cost["flops"]}


TARGET = [fact.id for fact in facts().with_role(Role.TARGET)]
KNOWN = {fact.id for fact in facts().with_role(Role.KNOWN)}


def targets(ids: list[str]) -> list[str]:
    return [fact_id for fact_id in ids if fact_id not in KNOWN]


WAYS = ("risen", "random")
RISING = {"early_stop": False, "risen_to": "WeaklyKnown", "train": {**TRAIN, "learning_rate": 8e-3}}
"""Settings under which several facts rise."""
AT_RANDOM = {**RISING, "joining": "random"}


def joined_by(run: Taught) -> set[str]:
    """The target facts that stage 2 trains on and stage 1 does not."""
    return set(targets(run.trained["stage 2"])) - set(run.trained["stage 1"])


def told_of_random(run: Taught) -> list[str]:
    return [note for note in run.notes if "random" in note]


class TestStages:
    def test_the_defaults_are_gradual_itself(self, tmp_path: Path) -> None:
        own, published = Taught(tmp_path, "staged", {}), Taught(tmp_path, "gradual", {})
        assert_same_weights(own.model, published.model)
        assert own.trained == published.trained and own.flops == published.flops

    def test_random_facts_are_as_many_and_began_alike(self, tmp_path: Path) -> None:
        rose, other = Taught(tmp_path / "rose", "staged", RISING), Taught(tmp_path / "other", "staged", AT_RANDOM)
        assert rose.trained["stage 1"] == other.trained["stage 1"]
        joined, drawn = joined_by(rose), joined_by(other)
        assert len(joined) >= 3 and not joined & drawn and not told_of_random(other)
        begun = [Counter(other.category[fact_id] for fact_id in ids) for ids in (joined, drawn)]
        assert begun[0] == begun[1]
        replays = [set(run.trained["stage 2"]) & KNOWN for run in (rose, other)]
        assert replays[0] == replays[1] != set()
        assert rose.flops["deciding"] == other.flops["deciding"]

    def test_where_random_facts_are_too_few_those_that_rose_fill_up_and_a_note_says_so(self, tmp_path: Path) -> None:
        # Only five facts are left, all weakly known, and most of them rise.
        few = {"start_categories": ["HighlyKnown", "MaybeKnown", "Unknown"], "train": {**TRAIN, "learning_rate": 1e-3}}
        rose, other = (Taught(tmp_path / name, "staged", {**RISING, **few, "joining": name}) for name in WAYS)
        joined, drawn = joined_by(rose), joined_by(other)
        filled = len(joined & drawn)
        assert len(joined) == len(drawn) > filled > 0
        (note,) = told_of_random(other)
        assert note.startswith(f"stage 2: {filled} of {len(drawn)} random facts")

    def test_a_stage_from_the_base_knows_nothing_of_the_stage_before(self, tmp_path: Path) -> None:
        rose = Taught(tmp_path / "rose", "staged", {"early_stop": False})
        over = Taught(tmp_path / "over", "staged", {"early_stop": False, "from_base": True})
        assert over.trained == rose.trained, "on the same facts"
        alone = Taught(tmp_path / "alone", "staged", {"early_stop": False, "stages": 1})
        lesson = alone.lesson
        lesson.start_over()
        stage_2 = facts().only(set(rose.trained["stage 2"]))
        in_order = FactSet(stage_2.by_id[fact_id] for fact_id in rose.trained["stage 2"])
        lesson.train(in_order, stage="by hand", config=TrainConfig(**TRAIN))
        assert_same_weights(over.model, lesson.taught())
        assert over.model.fingerprint != rose.model.fingerprint

    def test_what_has_risen_since_joins_a_third_stage(self, tmp_path: Path) -> None:
        found = Taught(tmp_path, "staged", {**RISING, "stages": 3})
        assert list(found.trained) == ["stage 1", "stage 2", "stage 3"]
        one, two, three = (set(targets(ids)) for ids in found.trained.values())
        assert one < two <= three
        assert {found.category[fact_id] for fact_id in one} == {Category.MAYBE_KNOWN}

    def test_two_rounds_on_all_facts_ask_nothing(self, tmp_path: Path) -> None:
        plain = {"start_categories": [], "joining": "nothing", "replay_ratio": 0.0, "early_stop": False}
        found = Taught(tmp_path, "staged", plain)
        assert found.trained == {"stage 1": TARGET, "stage 2": TARGET}
        assert set(found.flops) == {"training"}
        first, second = (
            next(point["loss"] for point in found.points if point["stage"] == stage) for stage in found.trained
        )
        assert second < first, "the second goes on from the first's end"
        again = Taught(tmp_path / "again", "staged", {**plain, "from_base": True})
        once = Taught(tmp_path / "once", "sft", {})
        assert_same_weights(again.model, once.model)

    def test_two_rounds_replay_as_many_as_gradual_whatever_the_first_round_cost(self, tmp_path: Path) -> None:
        given = {"start_categories": [], "joining": "nothing", "early_stop": False}
        found = Taught(tmp_path / "start", "staged", {**given, "replay_from": "start"})
        assert found.trained["stage 1"] == TARGET == targets(found.trained["stage 2"])
        half_known = sum(found.category[fact_id] is Category.MAYBE_KNOWN for fact_id in TARGET)
        mastered = {fact_id for fact_id in KNOWN if found.category[fact_id] is Category.HIGHLY_KNOWN}
        replay = set(found.trained["stage 2"]) - set(TARGET)
        assert replay <= mastered and len(replay) == min(round(0.2 * half_known), len(mastered)) > 0
        now = Taught(tmp_path / "now", "staged", given)
        left = len(set(now.trained["stage 2"]) - set(TARGET))
        assert left < round(0.2 * half_known)
        assert now.notes == (f"stage 2: {left} of {round(0.2 * half_known)} facts replayed: no more are mastered",)

    def test_replay_alone_follows_the_first_stage(self, tmp_path: Path) -> None:
        found = Taught(tmp_path, "staged", {"joining": "nothing", "replay_alone": True, "replay_ratio": 1.0})
        assert set(found.trained["stage 1"]) < set(TARGET)
        assert set() < set(found.trained["stage 2"]) <= KNOWN

    def test_a_category_without_facts_is_refused(self) -> None:
        config = Staged(start_categories=(Category.WEAKLY_KNOWN,))
        found = MasteryMap([Mastery("f0", "born", "?", "!", Category.UNKNOWN, 0, 0, 0, None, False, "")])
        with pytest.raises(InputError, match="stage 1"):
            started(facts()[:1], found, config)


class TestStandIns:
    @given(
        st.dictionaries(st.text(max_size=3), st.sampled_from(list(Category)), max_size=40),
        st.randoms(use_true_random=False),
        st.integers(0, 99),
    )
    def test_as_many_of_each_category_and_none_that_rose_while_others_are_left(
        self, category: dict[str, Category], chance: random.Random, seed: int
    ) -> None:
        rose = frozenset(fact_id for fact_id in category if chance.random() < 0.4)
        drawn, filled = stand_ins(rose, category, random.Random(seed))
        assert Counter(map(category.get, drawn)) == Counter(map(category.get, rose))
        assert filled == len(drawn & rose)
        for one in Category:
            stayed = {fact_id for fact_id in category if category[fact_id] is one} - rose
            assert stayed <= drawn or not {fact_id for fact_id in drawn & rose if category[fact_id] is one}
        assert stand_ins(rose, dict(reversed(category.items())), random.Random(seed)) == (drawn, filled)

    def test_the_draw_is_random(self) -> None:
        category = {f"f{number}": Category.UNKNOWN for number in range(40)}
        rose = frozenset(f"f{number}" for number in range(5))
        assert len({stand_ins(rose, category, random.Random(seed))[0] for seed in range(20)}) > 10


class TestKnownFactsAlone:
    def test_as_many_steps_as_on_all_facts_and_nothing_is_taught(self, tmp_path: Path) -> None:
        found, all_facts = Taught(tmp_path, "known_only", {}), Taught(tmp_path, "sft", {})
        assert found.points[-1]["step"] == all_facts.points[-1]["step"]
        assert len(found.trained["replay"]) == len(TARGET) and set(found.trained["replay"]) <= KNOWN
        assert found.notes and f"repeated to {len(TARGET)}" in found.notes[0]

    @given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 9))
    def test_facts_repeat_evenly_and_only_where_there_are_too_few(self, own: int, wanted: int, seed: int) -> None:
        given = facts()[:own]
        found = as_many(given, wanted, seed)
        times = Counter(fact.question for fact in found)
        assert len(found) == wanted == sum(times.values())
        assert set(times) <= {fact.question for fact in given}
        assert max(times.values()) <= -(-wanted // own), "evenly"
        assert found.fingerprint == as_many(given, wanted, seed).fingerprint


class TestByProbability:
    def test_facts_in_the_balance_weigh_most(self) -> None:
        assert attention(0.5, 0.1) > attention(0.25, 0.1) == attention(0.75, 0.1) > attention(0.0, 0.1) == 0.1

    def test_target_facts_are_asked_before_each_epoch(self, tmp_path: Path) -> None:
        found, plain = Taught(tmp_path, "by_probability", {"floor": 0.01}), Taught(tmp_path, "sft", {})
        assert found.trained == {"weighed": TARGET}
        assert found.flops["deciding"] > 0
        assert found.points[-1]["step"] == plain.points[-1]["step"]
        assert found.model.fingerprint != plain.model.fingerprint

    def test_without_a_floor_facts_could_be_left_for_ever(self) -> None:
        with pytest.raises(ValidationError, match="floor"):
            STUDY_METHODS["by_probability"].settings({"floor": 0})


class TestCandidate:
    def test_with_all_ingredients_off_it_is_fine_tuning(self, tmp_path: Path) -> None:
        found, plain = Taught(tmp_path, "candidate", {}), Taught(tmp_path, "sft", {})
        assert_same_weights(found.model, plain.model)
        assert "deciding" not in found.flops

    @pytest.mark.parametrize(
        ("settings", "deciding", "teacher"),
        [
            ({"replay_ratio": 0.5}, True, False),
            ({"kl_weight": 1.0}, True, True),
            ({"softness": 0.1}, True, True),
            ({"pull": 0.01}, False, False),
            ({"rest_above": 0.5}, True, False),
            ({"wordings": 1}, False, False),
            ({"shots": 2}, True, False),
            ({"sheet": 3}, True, False),
            ({"sparing": 0.01}, True, True),
            ({"kl_weight": 0.5, "kl_per_step": 4, "recalled": 3}, True, True),
            ({"kl_weight": 0.5, "recited": 8}, False, True),
            ({"kl_weight": 0.5, "kl_per_step": 2, "paged": 3}, True, True),
            ({"softness": 0.1, "recited": 8}, False, True),
            ({"recited": 8, "retold": 0.2}, False, True),
        ],
        ids=str,
    )
    def test_each_ingredient_changes_the_weights_and_is_charged(
        self, settings: dict[str, Any], deciding: bool, teacher: bool, tmp_path: Path
    ) -> None:
        found, plain = Taught(tmp_path, "candidate", settings), Taught(tmp_path, "sft", {})
        assert found.model.fingerprint != plain.model.fingerprint
        assert ("deciding" in found.flops, "teacher" in found.flops) == (deciding, teacher)

    def test_a_page_has_so_many_questions_and_each_fact_stands_on_one(self) -> None:
        given = facts()[:7]
        pages = [page.text for page in pages_of(given, 3, seed=0)]
        assert [page.count("Q: ") for page in pages] == [3, 3, 1]
        assert sorted("".join(pages).splitlines()) == sorted(
            line for fact in given for line in (f"Q: {fact.question}", f"A: {fact.answers[0]}")
        )
        assert pages != [page.text for page in pages_of(given, 3, seed=1)]

    def test_nothing_to_hold_on_to_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Lesson, "mastered", lambda lesson: FactSet(()))
        with pytest.raises(InputError, match="no known fact"):
            Taught(tmp_path, "candidate", {"replay_ratio": 0.5})

    def test_texts_that_are_wanted_and_not_there_are_refused_or_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = Taught(tmp_path, "candidate", {"recited": 2, "retold": 1.0})
        assert few.notes == (f"2 of {len(TARGET)} recited texts retold: no more were asked for",)
        with pytest.raises(InputError, match="wrote no text"):
            Taught(tmp_path / "none", "candidate", {"retold": 0.5})
        monkeypatch.setattr(Lesson, "recited", lambda lesson, count: Corpus(()))
        with pytest.raises(InputError, match="wrote no text"):
            Taught(tmp_path / "empty", "candidate", {"kl_weight": 1.0, "recited": 5})

    def test_other_wordings_are_further_facts_that_rest_with_their_original(self) -> None:
        given = facts()[:3]
        worded = in_wordings(given, 1)
        assert [fact.id for fact in worded][:2] == ["f0", "f0, wording 1"] and len(worded) == 6
        assert worded[1].question == given[0].paraphrases[0] and worded[1].answers == given[0].answers
        rows = [
            Mastery(fact.id, None, fact.question, "", Category.UNKNOWN, 0, p, 0, None, False, "")
            for fact, p in zip(given, (0.2, 0.5, 0.9), strict=True)
        ]
        rule = resting(worded, above=0.5, weight=0.1)
        assert rule(MasteryMap(rows)) == {
            "f0": 1,
            "f0, wording 1": 1,
            "f1": 1,
            "f1, wording 1": 1,
            "f2": 0.1,
            "f2, wording 1": 0.1,
        }

    def test_a_page_holds_its_fact_among_mastered_ones(self) -> None:
        given, mastered = facts().with_role(Role.TARGET), facts().with_role(Role.KNOWN)
        pages = list(sheets(given, mastered, 4, seed=1))
        assert [page.id for page in pages] == [fact.id for fact in given]
        known = {f"Q: {fact.question}\nA: {fact.answers[0]}" for fact in mastered}
        places = set()
        for page, fact in zip(pages, given, strict=True):
            asked = page.text.rstrip("\n").split("\nQ: ")
            lines = [asked[0], *(f"Q: {line}" for line in asked[1:])]
            own = f"Q: {fact.question}\nA: {fact.answers[0]}"
            places.add(lines.index(own))
            assert len(lines) == 4 and {*lines} - {own} <= known
        assert len(places) > 1
        assert [page.text for page in sheets(given, mastered, 4, seed=1)] == [page.text for page in pages]

    def test_behind_others_a_question_reads_as_in_a_probe(self) -> None:
        lm, given = half_taught(), facts()
        mastered = given[10:12]
        (fact,) = behind_others(given[:1], mastered, 2, 0)
        orders = [[(one.question, one.answers[0]) for one in pair] for pair in (mastered, list(mastered)[::-1])]
        assert lm.prompts.prompt_text([], fact.question) in [
            lm.prompts.prompt_text(order, given[0].question) for order in orders
        ]
        assert (fact.id, fact.answers) == (given[0].id, given[0].answers)

    @pytest.mark.parametrize("name", CANDIDATES)
    def test_every_candidate_has_settings_that_are_taken(self, name: str) -> None:
        (job,) = jobs_of([name], ["people"], [1e-4], 0, Plan())
        given = settings_of(job.arm, job.tuned, epochs=3, batch=8, seed=0)
        assert method_of("candidate").settings(given).model_dump()["train"]["learning_rate"] == 1e-4


def test_the_table_of_candidates_has_the_least_forgetting_first() -> None:
    def made(*held_back: str) -> dict[str, Any]:
        end = {"taught_of": 1, "held_back_of": 1, "made_up": "0", "nll": 1.0, "nll_tokens": 1}
        taught = ("00", "01", "11")
        curve = [{"taught": one, "held_back": other, **end} for one, other in zip(taught, held_back, strict=False)]
        return {"curve": curve, "end": {"quick": curve[-1]}, "cost": {"training": {"flops": 2e12}}, "seconds": 1.0}

    jobs = jobs_of(["plain", "MLP only", "SAM"], ["people"], [1e-4], 0, PLAN)
    runs = made("1111", "1100", "0000"), made("1111", "1111"), made("1111", "1110", "1100")
    tables = told({"job": job.identity, **run} for job, run in zip(jobs, runs, strict=True))
    (of, found), sizes = *tables.items(), PLAN.sizes["people"]["development"]
    assert of == f"people, {sizes.target} facts taught"
    assert [line.split(" | ")[0] for line in found.splitlines() if "0.0001" in line] == [
        "| SAM",
        "| plain",
        "| MLP only",
    ]
    assert "| MLP only | 0.0001 | 0.0 | – | – | 50.0 | 0.0 |" in found, "it never reaches three quarters"


@pytest.mark.parametrize("arm", control_arms(), ids=lambda arm: arm.name)
def test_no_control_trains_on_what_is_only_asked(arm: Any, tmp_path: Path) -> None:
    found = Taught(tmp_path, arm.method, {**arm.settings, "train": {**TRAIN, "epochs": 1}, "patience": 1})
    assert found.trained
    for ids in found.trained.values():
        assert ids and set(ids) <= {*TARGET, *KNOWN}


def test_a_name_is_the_studys_own_or_instils() -> None:
    assert method_of("staged") is STUDY_METHODS["staged"]
    assert method_of("sft") == get("sft")
    with pytest.raises(InputError, match="no such method"):
        method_of("no such one")
    with pytest.raises(ValidationError, match="rounds"):
        method_of("staged").settings({"rounds": 3})
