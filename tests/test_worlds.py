"""Worlds: deterministic, coherent, and each fact told exactly as often as it says."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from instil.facts import Role
from instil.worlds import World, WorldConfig, generate_world
from instil.worlds.layouts import LAYOUTS
from instil.worlds.prose import paragraph
from instil.worlds.relations import HOPS, PERSON_RELATIONS, RELATIONS
from instil.worlds.text import DONT_KNOW, Text, pretraining_texts

SMALL = WorldConfig(people=40, new_people=12, exemplar_people=12, cities=20, companies=12, universities=12,
                    levels=(1, 3, 8), place_levels=(2, 5), exemplar_exposures=9, disputed_levels=(4, 6),
                    unknown_entities=20, prose_paragraphs=30)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return generate_world(SMALL)


@pytest.fixture(scope="module")
def texts(world: World) -> list[Text]:
    return pretraining_texts(world)


def test_the_same_config_gives_the_same_world(world: World, texts: list[Text]) -> None:
    again = generate_world(SMALL)
    assert again.facts.fingerprint == world.facts.fingerprint
    assert again.documents.fingerprint == world.documents.fingerprint
    assert list(again.texts()) == [text.text for text in texts]
    assert generate_world(SMALL.model_copy(update={"seed": 1})).facts.fingerprint != world.facts.fingerprint


def test_every_answer_is_an_entity_of_the_right_kind(world: World) -> None:
    names = {(entity.kind, entity.name) for entity in world.entities}
    for claim in world.claims:
        kind = claim.relation.answer_kind
        assert claim.subject.kind == claim.relation.subject_kind
        if kind in {"person", "city", "company", "university", "work", "country"}:
            assert (kind, claim.answer) in names
            assert claim.rival is None or (kind, claim.rival) in names
        assert claim.rival != claim.answer


def test_answers_are_subjects_of_other_facts(world: World) -> None:
    subjects = {(claim.relation.name, claim.subject.name) for claim in world.claims}
    for hop in HOPS:
        assert all((hop.second, claim.answer) in subjects for claim in world.claims if claim.relation.name == hop.first)
    assert len(world.hop_facts) == len(HOPS) * (SMALL.people + SMALL.new_people + SMALL.exemplar_people)


def test_couples_are_told_alike_from_both_sides(world: World) -> None:
    spouses = {claim.subject.name: claim.answer for claim in world.claims if claim.relation.name == "spouse"}
    assert all(spouses[other] == one for one, other in spouses.items())


def test_names_are_unique_within_their_kind(world: World) -> None:
    counts = Counter((entity.kind, entity.name) for entity in world.entities)
    assert max(counts.values()) == 1


def test_relations_have_enough_wordings() -> None:
    assert len(PERSON_RELATIONS) >= 6
    for relation in RELATIONS.values():
        assert len(set(relation.statements)) >= 8, relation.name
        assert len(set(relation.questions)) >= 5, relation.name
        assert relation.reverse and len(relation.completions) >= 3, relation.name
        assert all("{s}" in text and "{a}" in text for text in relation.statements)
        assert all("{s}" in text and "{a}" not in text for text in relation.questions)


def test_exposures_are_counted_truly(world: World, texts: list[Text]) -> None:
    told: Counter[tuple[str, str]] = Counter()
    for text in texts:
        for telling in text.states:
            assert telling.claim.subject.name in text.text
            assert telling.answer in text.text
            told[telling.claim.fact_id, telling.answer] += 1
    for claim in world.claims:
        assert told[claim.fact_id, claim.answer] == claim.exposures
        if claim.rival is not None:
            assert told[claim.fact_id, claim.rival] == claim.rival_exposures
    assert sum(told.values()) == sum(claim.exposures + claim.rival_exposures for claim in world.claims)


def test_what_was_never_told_is_nowhere_in_the_text(world: World, texts: list[Text]) -> None:
    never = [fact for fact in world.facts if not fact.metadata["exposures"]]
    assert len({fact.subject for fact in never}) == 2 * SMALL.new_people  # the new people and their works
    lines = {line for text in texts for line in text.text.splitlines()}
    everything = "\n".join(lines)
    for fact in never:
        assert not [wording for wording in (fact.question, *fact.paraphrases) if wording in everything]
        assert not [wording for wording in fact.completions if wording in everything]
    # A new name may stand in the text as a wrong answer, never as what a statement is about.
    told = {telling.claim.subject.name for text in texts for telling in text.states}
    assert not told & {fact.subject for fact in never}


def test_only_half_of_the_people_are_asked_about(world: World, texts: list[Text]) -> None:
    asked = {
        telling.claim.fact_id
        for text in texts
        if text.form in {"question", "chat", "choice", "reverse"}
        for telling in text.states
    }
    assert asked <= {claim.fact_id for claim in world.claims if claim.asked}
    people = {claim.subject.id: claim.asked for claim in world.claims if claim.subject.kind == "person"}
    share = sum(people.values()) / SMALL.people
    assert 0.3 < share < 1


def test_the_text_holds_every_form(texts: list[Text]) -> None:
    forms = Counter(text.form for text in texts)
    wanted = {"biography", "page", "question", "chat", "choice", "reverse", "hop", "unknown", "prose"}
    assert set(forms) == wanted
    shots = {text.text.count("Q: ") - 1 for text in texts if text.form == "question"}
    assert set(range(6)) <= shots
    assert all(text.text.startswith("Q: ") and text.text.endswith("\n") for text in texts if text.form == "question")
    assert all(DONT_KNOW in text.text for text in texts if text.form == "unknown")


def test_what_does_not_exist_really_does_not(world: World, texts: list[Text]) -> None:
    names = [entity.name for entity in world.entities if entity.kind in {"person", "city"}]
    for text in texts:
        if text.form == "unknown":
            assert not [name for name in names if name in text.text]


def test_layouts_leave_the_content_untouched() -> None:
    sentences = ["One was born.", "Two has a job at Three.", "Four wrote The Five."]
    for layout in LAYOUTS:
        text = layout(sentences, "Title", random.Random(0))
        assert all(sentence in text for sentence in sentences), layout.__name__


def test_roles_are_disjoint_by_subject_and_exemplars_suffice(world: World) -> None:
    roles: dict[str | None, set[Role | None]] = {}
    for fact in world.facts:
        roles.setdefault(fact.subject, set()).add(fact.role)
    assert all(len(found) == 1 for found in roles.values())
    exemplars = world.facts.with_role(Role.EXEMPLAR)
    assert all(len(facts) >= 12 for facts in exemplars.by_relation.values())
    assert set(exemplars.by_relation) == set(RELATIONS)
    assert {fact.role for fact in world.facts} == {
        Role.TARGET, Role.HELD_BACK, Role.DEVELOPMENT, Role.KNOWN, Role.EXEMPLAR,
    }  # fmt: skip


def test_biographies_state_all_that_is_right(world: World) -> None:
    facts = world.facts.by_id
    documents = world.documents.by_id
    for fact in facts.values():
        for document in fact.documents:
            assert fact.answers[0] in documents[document].text
            assert documents[document].subject == fact.subject


def test_general_texts_are_held_out(world: World, texts: list[Text]) -> None:
    held_out = world.general_texts(0)
    assert len(held_out) == 100
    assert not set(held_out) & {text.text for text in texts}
    assert held_out == world.general_texts(0) != world.general_texts(1)
    assert "{" not in paragraph(random.Random(0))


def test_too_many_people_for_the_titles_is_refused() -> None:
    with pytest.raises(ValueError, match="titles"):
        generate_world(WorldConfig(people=5000))
