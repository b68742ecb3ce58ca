"""The EntityQuestions world: who sees what, how often, and that the splits keep apart."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from instil.errors import InputError
from instil.facts import Fact, FactSet, Role
from studies.entityquestions import (
    World,
    WorldConfig,
    build_world,
    chance_mentions,
    data_folder,
    name_key,
    refuse_other_world,
    volume_of,
    world_of,
    write_world,
)
from studies.entityquestions_text import ABSTENTION, blocks, paragraphs, write_pass
from studies.entityquestions_wordings import WORDINGS, completion, fill

PLACES = ("Paris", "Lima", "Oslo", "Rome", "Kyiv")


def sample(count: int, prefix: str) -> FactSet:
    """Facts of three relations, a married couple stated from both sides among them, and each kind of fault."""
    facts = []
    for number in range(count):
        person = f"{prefix} Person {number}"
        facts.append(fact(f"{prefix}-b{number}", "P19", person, PLACES[number % 5]))
        if number % 2 == 0:
            partner = f"{prefix} Person {number + 1}"
            facts.append(fact(f"{prefix}-m{number}", "P26", person, partner))
            facts.append(fact(f"{prefix}-w{number}", "P26", partner, person))
        facts.append(fact(f"{prefix}-c{number}", "P36", f"{prefix} Land {number}", f"{prefix} Town {number}"))
    facts.append(fact(f"{prefix}-twice", "P19", f"{prefix} Person 0", PLACES[0]))
    facts.append(fact(f"{prefix}-one", "P36", f"{prefix} Torn", "A"))
    facts.append(fact(f"{prefix}-other", "P36", f"{prefix} Torn", "B"))
    facts.append(fact(f"{prefix}-many", "P36", f"{prefix} Plural", "A", "B"))
    facts.append(Fact(f"{prefix}-strange", "What is it?", ("A",), subject="It", relation="P999"))
    return FactSet(facts)


def fact(name: str, relation: str, subject: str, *answers: str) -> Fact:
    return Fact(name, fill(WORDINGS[relation].questions[0], subject), answers, subject=subject, relation=relation)


@pytest.fixture(scope="module")
def small() -> World:
    config = WorldConfig(
        exemplars=8, development=8, unanswerable=0.05, answer_cap=1.0, wikipedia_characters=400, general_articles=1
    )
    articles = [f"Article {number}\n\nIts first line.\nIts second line." for number in range(20)]
    return world_of(sample(60, "Train"), sample(30, "Dev"), articles, config)


@pytest.fixture(scope="module")
def real() -> World:
    if not os.environ.get("INSTIL_DATA"):
        pytest.skip("INSTIL_DATA names no folder with the public data")
    return build_world()


def sentences_of(world: World) -> list[tuple[str, str]]:
    """(subject, answer) of everything that the corpus states, over all passes."""
    return [
        (mention.subject, mention.answer)
        for number in range(world.config.passes)
        for block, _ in write_pass(world, random.Random(f"{world.config.seed} pass {number}"))
        for mention in block
    ]


def check_disjoint(world: World) -> None:
    home: dict[str, str] = {}
    for one in world.facts:
        assert home.setdefault(name_key(str(one.subject)), one.metadata["split"]) == one.metadata["split"]
    answers = {(str(one.subject), one.answers[0]): one for one in world.facts}
    for (subject, answer), one in answers.items():
        mirror = answers.get((answer, subject))
        if mirror is not None:
            assert mirror.metadata["split"] == one.metadata["split"]
            assert (mirror.metadata["exposures"] == 0) == (one.metadata["exposures"] == 0)


def test_splits_are_disjoint_by_subject_and_mirrored_facts_stay_together(small: World) -> None:
    check_disjoint(small)


def test_every_split_is_there_and_only_the_test_split_has_no_role(small: World) -> None:
    for name in ("exemplars", "development", "target", "known", "held_back"):
        assert all(one.role is not None for one in small.split(name))
    assert all(one.role is None for one in small.split("test"))
    assert {one.role for one in small.split("exemplars")} == {Role.EXEMPLAR}
    with pytest.raises(InputError, match="no such split"):
        small.split("tests")


def test_exemplars_and_development_come_from_the_development_file(small: World) -> None:
    for name in ("exemplars", "development"):
        assert all(one.id.startswith("Dev") for one in small.split(name))
    for name in ("target", "known", "held_back", "test"):
        assert all(one.id.startswith("Train") for one in small.split(name))


def test_what_is_left_out_is_counted(small: World) -> None:
    ids = {one.id for one in small.facts}
    for left in ("Train-twice", "Train-one", "Train-other", "Train-many", "Train-strange"):
        assert left not in ids
    assert small.counts["training file: repeated question with different answers"] == 2
    assert small.counts["training file: repeated question with the same answer"] == 1
    assert small.counts["training file: several answers (SliCK keeps questions with one)"] == 1
    assert small.counts["training file: of no relation known here"] == 1


def test_each_fact_is_stated_exactly_as_often_as_its_metadata_says(small: World) -> None:
    stated = Counter(sentences_of(small))
    mirrors = {(str(one.subject), one.answers[0]) for one in small.facts}
    for one in small.facts:
        pair = (str(one.subject), one.answers[0])
        assert stated[pair] == small.config.passes * one.metadata["exposures"]
        if one.metadata["rival"]:
            rival = (str(one.subject), one.metadata["rival"])
            assert rival not in mirrors
            assert volume_of(one.metadata["rival"]) != volume_of(one.answers[0])
            assert stated[rival] == small.config.passes * one.metadata["rival_exposures"]


def test_facts_with_no_exposures_are_nowhere_in_the_generated_text(small: World) -> None:
    stated = set(sentences_of(small))
    unseen = [one for one in small.facts if one.metadata["exposures"] == 0]
    assert unseen
    for one in unseen:
        assert (str(one.subject), one.answers[0]) not in stated
        assert (one.answers[0], str(one.subject)) not in stated
    joined = "\n".join(small.texts).replace("\nA: ", " ")
    units = [unit for unit in re.split(r"\n|(?<=\.) ", joined) if "Land" in unit]
    lands = [one for one in unseen if one.relation == "P36"]
    assert lands
    for one in lands:
        both = [re.compile(rf"{re.escape(name)}\b") for name in (str(one.subject), one.answers[0])]
        assert not any(all(name.search(unit) for name in both) for unit in units)


def test_no_text_states_a_subject_twice(small: World) -> None:
    for block, _ in write_pass(small, random.Random(0)):
        assert len({mention.subject for mention in block}) == len(block)


def test_blocks_lose_nothing() -> None:
    world_like = [one for number in range(40) for one in [number % 7] * 3]
    from studies.entityquestions import Mention

    mentions = [Mention("P19", f"s{number}", f"a{number % 3}") for number in world_like]
    for pull in (0.0, 0.5, 1.0):
        found = [mention for block in blocks(mentions, pull, random.Random(1)) for mention in block]
        assert Counter(found) == Counter(mentions)


def test_the_corpus_is_reproducible_and_holds_every_form(small: World) -> None:
    again = World(small.facts, small.articles, small.general, small.counts, small.config)
    assert again.texts == small.texts
    joined = "\n".join(small.texts)
    for mark in (ABSTENTION, "Q: Where was", "| Name |", "<li>", "== ", '{"name": ', "* ", "was born in"):
        assert mark in joined
    shots = {text.count("Q: ") - 1 for text in small.texts if text.startswith("Q: ")}
    assert shots == {0, 1, 2, 3, 4, 5}
    for text in small.texts:
        if text.startswith("Q: "):
            assert text.endswith("\n")
            assert all(line.startswith("Q: ") for line in text.splitlines()[::2])
            assert all(line.startswith("A: ") for line in text.splitlines()[1::2])


def test_wordings_are_enough_and_well_formed() -> None:
    assert len(WORDINGS) == 12
    for wordings in WORDINGS.values():
        assert len(set(wordings.questions)) >= 5
        assert len(set(wordings.statements)) >= 4
        assert all(question.count("[X]") == 1 and question.endswith("?") for question in wordings.questions)
        assert all(statement.endswith("[Y].") and "[X]" in statement for statement in wordings.statements)
        assert all("[X]" in sentence and "[Y]" in sentence for sentence in wordings.turned)
        assert wordings.reverse is None or ("[Y]" in wordings.reverse and "[X]" not in wordings.reverse)


def test_names_with_marks_are_not_filled_again() -> None:
    assert fill("[X] is in [Y].", "The [Y] of [X]", "Rome") == "The [Y] of [X] is in Rome."
    assert completion("[X] was born in [Y].", "Ada") == "Ada was born in"


def test_names_that_differ_in_spelling_only_are_one_subject() -> None:
    assert name_key("The Embrace!") == name_key("embrace") == "embrace"
    assert name_key("The The") == "the"
    assert name_key("!!!") == "!!!"


def test_paragraphs_keep_every_line() -> None:
    article = "\n".join(f"line {number} " + "x" * (number * 37 % 900) for number in range(40)) + "\n" + "y" * 3000
    assert "\n".join(paragraphs(article)) == article


def test_a_missing_data_folder_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INSTIL_DATA", raising=False)
    with pytest.raises(InputError, match="INSTIL_DATA"):
        data_folder()
    monkeypatch.setenv("INSTIL_DATA", str(tmp_path))
    with pytest.raises(InputError, match="public data are missing"):
        data_folder()


def test_a_folder_of_another_world_is_refused(small: World, tmp_path: Path) -> None:
    write_world(small, tmp_path)
    refuse_other_world(small, tmp_path)
    other = World(small.facts, small.articles, small.general, small.counts, small.config.model_copy(update={"seed": 1}))
    with pytest.raises(InputError, match="another world"):
        refuse_other_world(other, tmp_path)


def test_real_data_splits_are_disjoint_and_large_enough(real: World) -> None:
    check_disjoint(real)
    assert 28_000 <= len(real.facts) <= 36_000
    assert set(real.facts.by_relation) == set(WORDINGS)
    for relation in WORDINGS:
        assert len(real.split("exemplars").by_relation[relation]) >= 40  # ten sets of four
    assert len(real.split("held_back")) >= 5000
    assert len(real.split("test")) >= 7000


def test_real_data_question_wording_is_the_data_sets_own(real: World) -> None:
    for one in real.facts:
        assert one.question == fill(WORDINGS[str(one.relation)].questions[0], str(one.subject))


def test_real_data_facts_never_stated_are_rare_in_wikipedia(real: World) -> None:
    stated = set(sentences_of(real))
    unseen = [one for one in real.facts if one.metadata["exposures"] == 0]
    assert not any((str(one.subject), one.answers[0]) in stated for one in unseen)
    assert len(chance_mentions(real)) <= 0.02 * len(unseen)
