"""Roles: as given, and otherwise by subject; never a subject or a question in two of them."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.answers import normalise
from instil.errors import InputError
from instil.facts import Fact, FactSet, Role, locality_facts, plan_roles, split_by_subject
from instil.facts.roles import RolePlan, exemplar_quota


def facts(count: int, relations: int = 2, per_subject: int = 1, start: int = 0) -> FactSet:
    return FactSet(
        Fact(f"f{n}", f"Question {n}?", (f"A{n}",), f"S{n // per_subject}", f"r{n % relations}")
        for n in range(start, start + count)
    )


def assert_sound(plan: RolePlan) -> None:
    for one, other in combinations(Role, 2):
        assert plan[one].subjects.isdisjoint(plan[other].subjects)
        questions = [{normalise(fact.question) for fact in plan[role]} for role in (one, other)]
        assert questions[0].isdisjoint(questions[1])
    assert all(fact.role is role for role in Role for fact in plan[role])
    assert len(plan.facts) == sum(plan.counts().values())


def test_shares_of_facts_without_roles() -> None:
    plan = plan_roles(facts(400), seed=1)
    assert_sound(plan)
    assert plan.counts() == {
        "target": 276, "practice": 0, "known": 0, "development": 37, "exemplar": 32, "held_back": 55
    }  # fmt: skip
    assert {relation: len(group) for relation, group in plan[Role.EXEMPLAR].by_relation.items()} == {"r0": 16, "r1": 16}
    assert (plan.left_out, plan.warnings) == ((), ())


@pytest.mark.parametrize(("size", "quota"), [(0, 0), (2, 0), (3, 1), (10, 3), (12, 4), (40, 4), (100, 10), (5000, 16)])
def test_quota_of_exemplars(size: int, quota: int) -> None:
    assert exemplar_quota(size) == quota


def test_a_subject_with_several_relations_serves_them_all() -> None:
    plan = plan_roles(facts(600, relations=6, per_subject=6), seed=0)
    assert_sound(plan)
    assert len(plan[Role.EXEMPLAR].subjects) == 10
    assert {len(group) for group in plan[Role.EXEMPLAR].by_relation.values()} == {10}


def test_a_large_subject_is_no_exemplar_where_small_ones_are_left() -> None:
    big = FactSet(Fact(f"big{n}", f"Big {n}?", ("A",), "Big", "r0") for n in range(200))
    plan = plan_roles(big + facts(30, relations=1), seed=3)
    assert "Big" not in plan[Role.EXEMPLAR].subjects
    assert len(plan[Role.EXEMPLAR]) == 16


def test_the_seed_decides_and_order_does_not() -> None:
    one = facts(100)
    again = FactSet(reversed(list(one)))
    assert plan_roles(one, seed=5)[Role.HELD_BACK].subjects == plan_roles(again, seed=5)[Role.HELD_BACK].subjects
    assert plan_roles(one, seed=5)[Role.HELD_BACK].subjects != plan_roles(one, seed=6)[Role.HELD_BACK].subjects


def test_roles_of_the_file_are_kept_and_the_missing_ones_drawn() -> None:
    held_back = facts(20, start=1000).assign(Role.HELD_BACK)
    plan = plan_roles(facts(200) + held_back, seed=0)
    assert_sound(plan)
    assert plan[Role.HELD_BACK].subjects == held_back.subjects
    assert len(plan[Role.EXEMPLAR])
    assert len(plan[Role.DEVELOPMENT])


def test_a_file_with_all_roles_is_left_as_it_is() -> None:
    plan = plan_roles(facts(20).assign(Role.TARGET) + facts(5, start=50).assign(Role.KNOWN), seed=0)
    assert plan.counts()["target"] == 20
    assert plan.counts()["known"] == 5
    assert [line.split(":")[0] for line in plan.warnings] == [
        "no fact has role exemplar", "no fact has role development", "no fact has role held_back"
    ]  # fmt: skip


def test_separate_files_give_roles_and_the_target_wins_a_shared_subject() -> None:
    known = FactSet([Fact("k1", "Other?", ("A",), "s3", "r0"), Fact("k2", "More?", ("B",), "New", "r0")])
    plan = plan_roles(facts(40), seed=0, given={Role.KNOWN: known, Role.EXEMPLAR: facts(8, start=900)})
    assert_sound(plan)
    assert [fact.id for fact in plan[Role.KNOWN]] == ["k2"]
    assert "f3" in plan[Role.TARGET].by_id
    assert plan.left_out == ("k1 (known): its subject 's3' is also in role target",)
    assert plan[Role.EXEMPLAR].subjects == facts(8, start=900).subjects


def test_a_question_shared_between_roles_is_left_out() -> None:
    held_back = FactSet([Fact("h", "question 3", ("A",), None), Fact("i", "Free?", ("A",), None)])
    plan = plan_roles(facts(10), seed=0, given={Role.HELD_BACK: held_back})
    assert_sound(plan)
    assert plan.left_out == ("h (held_back): its question 'question 3' is also in role target",)


def test_facts_asked_alike_stay_together() -> None:
    twins = FactSet(Fact(f"t{n}", f"Twin {n // 2}?", ("A",), f"S{n}", "r") for n in range(200))
    plan = plan_roles(twins, seed=0)
    assert_sound(plan)
    assert sum(plan.counts().values()) == 200


def test_facts_without_subjects_are_their_own() -> None:
    plan = plan_roles(FactSet(Fact(f"n{n}", f"Q{n}?", ("A",)) for n in range(100)), seed=0)
    assert_sound(plan)
    assert plan.counts()["exemplar"] == 10


@pytest.mark.parametrize("count", range(1, 8))
def test_few_facts_always_leave_something_to_teach(count: int) -> None:
    plan = plan_roles(facts(count, relations=1), seed=0)
    assert_sound(plan)
    assert len(plan[Role.TARGET]) > 0


def test_no_facts_but_given_ones() -> None:
    plan = plan_roles(FactSet(()), seed=0, given={Role.TARGET: facts(3)})
    assert plan.counts()["target"] == 3


def test_one_id_for_two_facts_is_refused() -> None:
    other = FactSet([Fact("f1", "Something else?", ("B",), "Else")])
    with pytest.raises(InputError, match="an id stands for two facts"):
        plan_roles(facts(3), seed=0, given={Role.HELD_BACK: other})
    with pytest.raises(InputError, match="an id stands for two facts"):
        plan_roles(facts(3), seed=0, given={Role.TARGET: other})
    same = plan_roles(facts(3).assign(Role.TARGET), seed=0, given={Role.TARGET: facts(3)})
    assert same.counts()["target"] == 3


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="shares"):
        plan_roles(facts(3), seed=0, development_share=0.5, held_back_share=0.5)


def test_locality_prompts_are_what_is_held_back() -> None:
    edits = FactSet(
        Fact(f"e{n}", f"X{n} speaks", ("B",), f"X{n}", "r",
             metadata={"locality": [{"question": f"Y{n % 30}:{k} speaks", "answers": ["C"]} for k in range(3)]})
        for n in range(50)
    )  # fmt: skip
    plan = plan_roles(edits, seed=0)
    assert_sound(plan)
    assert len(locality_facts(edits)) == 90
    assert len(plan[Role.HELD_BACK]) == len(plan[Role.TARGET])
    assert all(fact.answers == ("C",) for fact in plan[Role.HELD_BACK])
    assert any("as many are asked as facts are taught" in line for line in plan.left_out)
    given_held_back = plan_roles(edits, seed=0, given={Role.HELD_BACK: facts(5)})
    assert given_held_back[Role.HELD_BACK].subjects == facts(5).subjects


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("pqrstuvw"), st.sampled_from([None, *Role])), max_size=40
    ),
    st.integers(0, 5),
)
def test_any_facts_are_each_in_one_role_or_left_out(rows: list[tuple[str, str, Role | None]], seed: int) -> None:
    given_facts = FactSet(
        Fact(str(n), f"{question}?", ("A",), subject, role=role) for n, (subject, question, role) in enumerate(rows)
    )
    plan = plan_roles(given_facts, seed=seed)
    assert_sound(plan)
    assert len(plan.facts) + len(plan.left_out) == len(given_facts)


def test_splitting_by_subject() -> None:
    parts = split_by_subject(facts(100, per_subject=2), {Role.TARGET: 0.6, Role.HELD_BACK: 0.4}, seed=0)
    assert {role: len(part) for role, part in parts.items()} == {Role.TARGET: 60, Role.HELD_BACK: 40}
    assert parts[Role.TARGET].subjects.isdisjoint(parts[Role.HELD_BACK].subjects)
    with pytest.raises(ValueError, match="sum"):
        split_by_subject(facts(4), {Role.TARGET: 0.5}, seed=0)


def test_facts_are_a_sequence() -> None:
    one = facts(10)
    assert [fact.id for fact in one[2:4]] == ["f2", "f3"]
    assert len(one + one) == 10
    assert one.sample(3, seed=1).fingerprint == one.sample(3, seed=1).fingerprint != one.fingerprint
    assert one.sample(99, seed=1) is one
    with pytest.raises(ValueError, match="ids repeat"):
        FactSet([one[0], one[0]])
