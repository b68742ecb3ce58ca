"""Documents by their part in a lesson, and the questions about them: never trained on where the document is taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from instil.augment import formatted_copies
from instil.errors import InputError
from instil.exam import assert_not_taught
from instil.facts import Corpus, Document, Fact, FactSet, Role, plan_roles
from instil.facts.document_roles import documents_of, plan_documents
from instil.facts.lesson_roles import Roles
from tests.exam_data import exam


def fact(name: str, role: Role | None, subject: str | None = None, documents: tuple[str, ...] = ()) -> Fact:
    return Fact(name, f"What of {name}?", ("A",), subject, "r", documents=documents, role=role)


def by_role(*facts: Fact) -> Mapping[Role, FactSet]:
    return {role: FactSet(facts).with_role(role) for role in Role}


def corpus(*given: Document | str) -> Corpus:
    return Corpus(Document(item, f"About {item}.") if isinstance(item, str) else item for item in given)


def test_a_document_has_the_part_of_its_facts() -> None:
    roles = by_role(*(fact(str(role), role, documents=(f"d-{role}",)) for role in Role))
    found = plan_documents(corpus(*(f"d-{role}" for role in Role), "free"), roles)
    assert list(found.target.by_id) == ["d-target", "free"] and list(found.practice.by_id) == ["d-practice"]
    assert found.exam_only == {"target"}
    assert {role: list(facts) for role, facts in found.roles.items()} == {r: list(facts) for r, facts in roles.items()}
    assert {what: reason.split()[-1] for what, reason in found.left_out} == {
        "document d-known": "replayed",
        **dict.fromkeys(("document d-development", "document d-exemplar", "document d-held_back"), "teaching"),
    }


def test_documents_are_tied_by_id_and_by_subject() -> None:
    facts = [fact("a", None, "Ada"), fact("b", None, "Bob", ("2",)), fact("c", None), fact("e", None, "Eve", ("gone",))]
    given = corpus(Document("1", "x", subject="Ada"), "2", Document("3", "y", subject="Bob"))
    assert documents_of(facts, given) == {"a": ("1",), "b": ("2", "3")}


def test_a_copy_plays_the_part_of_its_original() -> None:
    original = Document("a", "Ada was born in London.")
    copies = Corpus([original, *formatted_copies([original], ["bullets"], copies=2, original=False)])
    (fact,) = FactSet([Fact("1", "Where was Ada born?", ("London",), subject="Ada", documents=("a",))])
    assert documents_of([fact], copies) == {"1": ("a", "a#copy1", "a#copy2")}


def test_questions_about_a_taught_document_are_neither_practised_nor_replayed() -> None:
    given = by_role(
        fact("t", Role.TARGET, documents=("d",)),
        fact("p", Role.PRACTICE, documents=("d",)),
        fact("k", Role.KNOWN, documents=("d",)),
        fact("q", Role.PRACTICE, documents=("e",)),
    )
    found = plan_documents(corpus("d", "e"), given)
    assert list(found.target.by_id) == ["d"] and list(found.practice.by_id) == ["e"]
    assert [f.id for f in found.roles[Role.PRACTICE]] == ["q"] and not len(found.roles[Role.KNOWN])
    assert {what for what, _ in found.left_out} == {"fact p (practice)", "fact k (known)"}


def test_no_document_to_teach_is_refused() -> None:
    with pytest.raises(InputError, match=r"no document is left to be taught.*1 practice"):
        plan_documents(corpus("d"), by_role(fact("p", Role.PRACTICE, documents=("d",))))


def test_facts_take_the_role_of_their_document() -> None:
    given = corpus(replace(corpus("p")[0], role=Role.PRACTICE), replace(corpus("t")[0], role=Role.TARGET), "free")
    facts = FactSet(fact(f"{name}{n}", None, documents=(name,)) for name in ("p", "t", "free") for n in range(3))
    plan = plan_roles(facts, seed=0, documents=given)
    assert {f.id for f in plan[Role.PRACTICE]} == {"p0", "p1", "p2"}
    assert {f.id for f in plan[Role.TARGET]} >= {"t0", "t1", "t2"}


@pytest.mark.parametrize("seed", range(5))
def test_facts_of_one_document_stay_together_and_practice_is_drawn_from_them(seed: int) -> None:
    facts = FactSet(fact(f"f{n}", None, documents=(f"d{n // 5}",)) for n in range(200))
    given = corpus(*(f"d{n}" for n in range(40)))
    apart, together = (
        plan_documents(given, plan_roles(facts, seed=seed, documents=known).roles).target for known in (corpus(), given)
    )
    assert len(together) > 2 * len(apart), "documents are not lost to facts that were drawn one by one"
    plan = plan_roles(facts, seed=seed, documents=given, practice_share=0.4)
    found = plan_documents(given, plan.roles)
    assert len({len(plan[role]) % 5 for role in Role}) == 1, "a document is in one role"
    assert 0.3 < len(plan[Role.PRACTICE]) / 200 < 0.45
    assert {f.id for f in plan[Role.TARGET]} == found.exam_only
    Roles(practice=plan[Role.PRACTICE], documents=found.target, practice_documents=found.practice).check_disjoint()


def test_a_lesson_refuses_a_question_about_a_document_that_it_teaches() -> None:
    for role in ("target", "practice", "known", "development"):
        told = FactSet([fact("f", Role(role), documents=("d",))])
        with pytest.raises(InputError, match="for the exam only"):
            Roles(documents=corpus("d"), **{role: told}).check_disjoint()


def test_invariant_6_the_wording_of_a_fact_from_a_document_is_an_exam_question_like_any_other() -> None:
    paper = exam()
    assert_not_taught(paper, ["Where was Person 0 born?"])
    assert_not_taught(paper, ["Where was Person 1 born?"], exam_only={"f0"})
    with pytest.raises(InputError, match="an exam question or text stands in the training data"):
        assert_not_taught(paper, ["It says: where was *Person 0* born?"], exam_only={"f0"})
