"""An exam made from documents alone: what is asked, what is refused, and who may see which document."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from instil.errors import InputError
from instil.exam import ExamConfig, exam_from_documents
from instil.exam.cloze import ClozePlan, is_cloze, plan_clozes
from instil.exam.cloze.targets import targets
from instil.exam.config import ClozeConfig
from instil.facts import Corpus, Document, Role
from instil.probe import ProbeConfig
from instil.words import words

TOWNS = ("Alba", "Brinvale", "Corm", "Delft", "Este", "Fano", "Gera", "Hull", "Ivrea", "Jena")
RARE = {"lanterns": 0.9, "glass": 0.9, "brightly": 0.9}


def lives(count: int = 24) -> Corpus:
    """Short lives of people, two paragraphs each, all different."""
    return Corpus(
        Document(
            f"life-{n}",
            f"The life of person {n}\n\nThe painter called person {n} was born in the old town of {TOWNS[n % 10]} and "
            f"moved to the coast in {1800 + 3 * n}. There a guild of lamp makers number {n} took the painter in as a "
            f"member and paid some {10 + n},500 crowns for a portrait.\n\nIn later years person {n} lived by the sea "
            f"with the sculptor Ada Quill{'abcdefghij'[n % 10]}{n}, who outlived the painter, and died there on "
            f"{1 + n} March {1850 + n}.",
            title=f"Person {n}",
        )
        for n in range(count)
    )


def found(sentence: str) -> dict[str, str]:
    return {sentence[target.start : target.end]: target.kind for target in targets(sentence, RARE)}


def test_what_is_worth_asking() -> None:
    assert found("After the war the family moved from the north to Saint-Malo on 4 May 1920, and then to Paris.") == {
        "Saint-Malo": "name", "4 May 1920": "date", "Paris": "name",
    }  # fmt: skip
    assert found("The town has had a market since the middle ages and counted 12,500 people in 1887.") == {
        "12,500": "number", "1887": "date",
    }  # fmt: skip
    assert found("The oldest part of it was lit brightly for many years by a row of lanterns.") == {"lanterns": "word"}
    whole = "The prize that was given every year went to the University of New Haven, later to Dr. Ann B. Lee."
    assert list(found(whole)) == ["University of New Haven", "Dr. Ann B. Lee"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Paris in 1887 was a town of many lamps and people.",  # among the first words
        "The lamps in the old town (made by Ada Lee in 1887) were kept.",  # in brackets
        "The lamps in the old town are shown there in Figure 12 of it.",
        "The lamps of the old town were called “The Lights of Paris” by all.",
        "In the old town they all said of it at the time: He came.",
        "The lamps that are in the old town, as I said, were lit.",
    ],
)
def test_what_is_not(sentence: str) -> None:
    assert found(sentence) == {}


def test_an_item_is_the_text_up_to_the_answer_and_the_same_in_other_words() -> None:
    corpus = lives()
    plan = plan_clozes(corpus, seed=3)
    texts = {unit.id: " ".join(unit.text.split()) for unit in corpus}
    assert {is_cloze(fact.relation) for fact in plan.facts} == {True}
    for fact in plan.facts:
        document = corpus.by_id[fact.documents[0]]
        context = fact.question.removeprefix(f"{document.title}: ")
        assert f"{context} {fact.answers[0]}" in texts[document.id], "the document's own words, up to the answer"
        place = int(fact.id.rpartition("@")[2])
        assert document.text[place : place + len(fact.answers[0])] == fact.answers[0]
        assert not set(words(fact.answers[0])) & set(words(fact.question)), "the answer does not stand in the question"
        [other] = fact.paraphrases
        assert "___" in other and fact.answers[0] not in other and document.title in other
        assert " ".join(words(other)) not in " ".join(words(document.text)), "no text asks in these words"
    kinds = {str(fact.relation) for fact in plan.facts}
    assert {"cloze: date", "cloze: name", "cloze: number"} <= kinds
    dates = [fact.answers for fact in plan.facts if "March" in fact.answers[0]]
    assert dates and all(re.fullmatch(r"March \d+, \d{4}", other) for _, other in dates)


def test_documents_have_one_role_each() -> None:
    plan = plan_clozes(lives(), seed=3)
    by_role = {role: {name for fact in plan.facts.with_role(role) for name in fact.documents} for role in Role}
    taught = {document.id for document in plan.taught}
    assert by_role[Role.TARGET] <= taught
    assert by_role[Role.HELD_BACK] and by_role[Role.EXEMPLAR]
    assert not taught & (by_role[Role.HELD_BACK] | by_role[Role.EXEMPLAR])
    told = {what.removeprefix("document ") for what, _ in plan.left_out if what.startswith("document ")}
    assert told == {document.id for document in lives()} - taught, "who is not taught is named"
    most = plan.facts.where(lambda fact: fact.role is not Role.EXEMPLAR)
    assert max(len(most.where(lambda fact, name=name: name in fact.documents)) for name in taught) <= 4


def test_the_same_seed_gives_the_same_items() -> None:
    first, again, other = (plan_clozes(lives(), seed=seed) for seed in (1, 1, 2))
    assert first.facts.fingerprint == again.facts.fingerprint
    assert first.taught.fingerprint == again.taught.fingerprint
    assert (first.left_out, first.counts) == (again.left_out, again.counts)
    assert first.facts.fingerprint != other.facts.fingerprint


def test_a_role_that_was_given_is_kept() -> None:
    corpus = Corpus(replace(unit, role=Role.HELD_BACK if number < 2 else None) for number, unit in enumerate(lives()))
    plan = plan_clozes(corpus, seed=0)
    held_back = {name for fact in plan.facts.with_role(Role.HELD_BACK) for name in fact.documents}
    assert held_back <= {"life-0", "life-1"} and held_back


def test_copies_and_subjects_stay_together() -> None:
    copies = Corpus([*lives(), *(replace(unit, id=f"copy of {unit.id}") for unit in lives())])
    taught = {unit.id for unit in plan_clozes(copies, seed=0).taught}
    assert all((unit.id in taught) == (f"copy of {unit.id}" in taught) for unit in lives())
    named = Corpus(replace(unit, subject=f"s{number // 2}") for number, unit in enumerate(lives(40)))
    taught = {unit.id for unit in plan_clozes(named, seed=0).taught}
    assert all((named[n].id in taught) == (named[n + 1].id in taught) for n in range(0, 40, 2))


def refusals(plan: ClozePlan) -> dict[str, int]:
    return dict(plan.counts["refused"])


def test_a_context_with_two_answers_is_not_asked() -> None:
    line = "Every lamp of the old harbour was made by hand in the town of {}, and that is all that is known about it."
    extra = [Document(f"lamp-{town}", line.format(town)) for town in ("Alba", "Brinvale")]
    plan = plan_clozes(Corpus([*lives(), *extra]), seed=0, config=ClozeConfig(kinds=("name",)))
    assert not any("lamp of the old harbour" in fact.question for fact in plan.facts)
    assert refusals(plan)["the same words go on otherwise elsewhere in the documents"] == 2


def test_a_held_back_item_that_a_taught_document_tells_is_not_asked() -> None:
    said = "The great bell of the market hall was cast by the founder Otto Kern in a single night, as all people know."
    corpus = Corpus([*(replace(unit, role=None) for unit in lives()), Document("secret", said, role=Role.HELD_BACK)])
    config = ClozeConfig(kinds=("name",))
    [item] = plan_clozes(corpus, seed=0, config=config).facts.with_role(Role.HELD_BACK)
    assert item.answers == ("Otto Kern",)
    told = Document("told", f"A story. {said}", role=Role.TARGET)
    plan = plan_clozes(Corpus([*corpus, told]), seed=0, config=config)
    assert not len(plan.facts.with_role(Role.HELD_BACK))
    assert refusals(plan)["a document that is taught tells it as well"] == 1


def test_one_long_document_is_divided_into_passages() -> None:
    book = Document("book.txt", "\n\n".join(unit.text for unit in lives(30)), title="Lives")
    plan = plan_clozes(Corpus([book]), seed=0, config=ClozeConfig(passage_words=60))
    assert plan.counts["passages"] > 20 and plan.counts["held_back"] > 1
    assert all(unit.metadata["part_of"] == "book.txt" for unit in plan.taught)
    assert len(plan.facts.with_role(Role.TARGET)) and len(plan.facts.with_role(Role.HELD_BACK))


def test_limits() -> None:
    plan = plan_clozes(lives(40), seed=0, config=ClozeConfig(items=10, per_document=1))
    assert len(plan.facts.with_role(Role.TARGET)) == 10
    assert refusals(plan)["more than the exam asks"] > 0
    short = plan_clozes(lives(), seed=0, fits=lambda question, answers: len(question) < 170)
    assert all(len(fact.question) < 170 for fact in short.facts)
    assert any("context window" in reason for reason in refusals(short))


def test_texts_that_yield_nothing() -> None:
    with pytest.raises(InputError, match="no sentence from which an item can be made"):
        plan_clozes(Corpus([Document("a", "Too short."), Document("b", "x = {1: 2}\n\nName | Age\n")]), seed=0)
    plan = plan_clozes(Corpus([lives(1)[0]]), seed=0)
    assert len(plan.taught) == 1, "what is too short to be divided is taught whole"
    assert [what for what, _ in plan.left_out].count("warning") == 2
    chinese = Document("zh", "他出生于一座古老的城市。" * 30)
    assert len(plan_clozes(Corpus([*lives(), chinese]), seed=0).facts)


def test_an_exam_of_documents() -> None:
    small = ProbeConfig(exemplar_sets=3, shots=2)
    exam = exam_from_documents(lives(), seed=0, config=ExamConfig(), probe_config=small)
    again = exam_from_documents(lives(), seed=0, config=ExamConfig(), probe_config=small)
    assert exam.fingerprint == again.fingerprint
    assert set(exam.parts) == {"as_worded", "reworded", "choice"}
    worked = exam.exemplars_of("reworded").of("cloze: date")
    assert all("___" in exemplar.question for chosen in worked for exemplar in chosen), "worked items of the same form"
    assert all("___" not in one.question for chosen in exam.exemplars.of("cloze: date") for one in chosen)
    assert any("asked of facts only" in reason for _, reason in exam.left_out)
    for item in exam.by_part["choice"]:
        assert len(item.options) == 4 and item.question.answers[0] in item.options
