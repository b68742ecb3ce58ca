"""Verdicts and figures: the seven, each with its evidence, and numbers that follow from the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.errors import InputError
from instil.exam import (
    DOCUMENT_FIGURES,
    FIGURES,
    FURTHER_FIGURES,
    Exam,
    ExamConfig,
    ExamResult,
    Ruling,
    Verdict,
    by_category,
    counts,
    headline,
    sit,
    transition_matrix,
    verdicts,
)
from instil.exam.verdicts import CONFIDENT
from instil.ledger import Ledger, column_names
from instil.probe import Category
from tests.exam_data import PLACES, QUICK, Script, exam, right

Lines = dict[str, str | Sequence[str]]


def judged(before: Script, after: Script, paper: Exam | None = None, **options: int) -> dict[str, Verdict]:
    paper = paper or exam(**options)
    return {found.fact_id: found for found in verdicts(paper, sit(paper, before), sit(paper, after))}


def reworded(number: int, known: int, asked: int = 3) -> Lines:
    """Of a fact's other wordings, the first `known` are answered rightly."""
    return {f"reworded/{wording}/f{number}": PLACES[number % 8] for wording in range(1, asked + 1) if wording <= known}


def test_kept() -> None:
    lines = {"as_worded/f0": "Paris", "held_back/f100": "Stockholm"}
    found = judged(Script(lines), Script(lines))
    assert found["f0"].verdict == found["f100"].verdict == Ruling.KEPT
    assert found["f0"].evidence == "Right with 4 of 4 exemplar sets before, 4 of 4 after. Known before and after."
    assert found["f0"].role == "target" and found["f100"].role == "held_back"


def test_half_of_the_exemplar_sets_is_known_and_less_is_not() -> None:
    half, less = ["Paris", "Paris", "x", "y"], ["Paris", "x", "y", "z"]
    found = judged(Script({"as_worded/f0": half}), Script({"as_worded/f0": half}))
    assert found["f0"].verdict == Ruling.KEPT
    found = judged(Script({"as_worded/f0": half}), Script({"as_worded/f0": less}))
    assert found["f0"].verdict == Ruling.FORGOTTEN


def test_forgotten_says_what_it_says_now() -> None:
    found = judged(Script({"held_back/f100": "Stockholm"}), Script({"held_back/f100": "Atlantis"}))["f100"]
    assert found.verdict == Ruling.FORGOTTEN and "now says “Atlantis”" in found.evidence
    silent = judged(Script({"held_back/f100": "Stockholm"}), Script({"held_back/f100": ""}))["f100"]
    assert silent.verdict == Ruling.FORGOTTEN and "now says nothing" in silent.evidence


def test_corrupted_names_the_fact_whose_answer_it_is() -> None:
    found = judged(Script({"held_back/f100": "Stockholm"}), Script({"held_back/f100": "city of paris."}))["f100"]
    assert found.verdict == Ruling.CORRUPTED
    assert "“city of paris.”, the answer to fact f0, which was taught" in found.evidence


def test_corrupted_prefers_taught_facts_but_takes_any_of_the_exam() -> None:
    lines = Script({"as_worded/f0": "Paris"}), Script({"as_worded/f0": "Copenhagen"})
    found = judged(*lines, held_back=4, development=8)["f0"]
    assert found.verdict == Ruling.CORRUPTED
    assert "the answer to fact f103, which is in the exam, and to 1 more of its relation." in found.evidence


def test_answers_of_other_relations_and_own_aliases_do_not_corrupt() -> None:
    from instil.exam import build_exam
    from instil.facts import FactSet
    from tests.exam_data import PROBE, exemplars, fact

    other = fact(1, relation="died in", question="Where did Person 1 die?", answers=("Rome",))
    paper = build_exam(FactSet([fact(0), other]), exemplars=exemplars(), config=QUICK, probe_config=PROBE)
    assert judged(Script(right(paper)), Script({"as_worded/f0": "Rome"}), paper)["f0"].verdict == Ruling.FORGOTTEN
    wavering = ["Paris", "x", "y", "z"]  # says "Paris" as often as anything, and first
    assert judged(Script(right(paper)), Script({"as_worded/f0": wavering}), paper)["f0"].verdict == Ruling.FORGOTTEN


def test_learned_needs_more_than_half_of_the_other_wordings() -> None:
    for known, ruling in ((0, "learned as worded"), (1, "learned as worded"), (2, "learned"), (3, "learned")):
        after = Script({"as_worded/f0": "Paris", **reworded(0, known)})
        found = judged(Script({"as_worded/f0": ["w", "x", "y", "z"]}), after)["f0"]
        assert str(found.verdict) == ruling, known
        assert found.reworded_known_before == 0 and found.reworded_known_after == pytest.approx(known / 3)
    assert "Known after in 100% of its other wordings." in found.evidence


def test_of_a_fact_from_a_document_every_wording_counts_since_none_was_trained_on() -> None:
    paper, unsure = exam(), Script({"as_worded/f0": ["w", "x", "y", "z"]})
    for known, ruling in ((0, "learned as worded"), (1, "learned as worded"), (2, "learned"), (3, "learned")):
        after = Script({"as_worded/f0": "Paris", **reworded(0, known)})
        found = verdicts(paper, sit(paper, unsure), sit(paper, after), from_documents={"f0"})[0]
        assert str(found.verdict) == ruling, known
        assert f"Known after in {(known + 1) / 4:.0%} of all wordings asked." in found.evidence
    alone = exam(config=ExamConfig(wordings=0))
    found = verdicts(alone, sit(alone, unsure), sit(alone, Script({"as_worded/f0": "Paris"})), {"f0"})[0]
    assert found.verdict == Ruling.LEARNED


def test_figures_of_documents_are_of_the_facts_that_they_tell() -> None:
    paper = exam()
    before, after = Script({"as_worded/f1": "London"}), Script({"as_worded/f0": "Paris", "as_worded/f2": "Vienna"})
    found = headline(paper, sit(paper, before), sit(paper, after), from_documents={"f0", "f1", "f3"})
    assert set(found) - {*FIGURES, *FURTHER_FIGURES} == set(DOCUMENT_FIGURES)
    acquired = found["acquired_from_documents"]
    assert (acquired.value, acquired.n) == (0.5, 2)
    values = [found[f"accuracy_documents_{when}"].value for when in ("before", "after", "change")]
    assert values == pytest.approx([1 / 3, 1 / 3, 0])


def test_a_fact_without_other_wordings_is_learned_as_worded_and_the_evidence_says_why() -> None:
    paper = exam(config=ExamConfig(wordings=0))
    found = judged(Script({}, confidence=0.1), Script({"as_worded/f0": "Paris"}), paper)["f0"]
    assert found.verdict == Ruling.LEARNED_AS_WORDED and found.reworded_known_after is None
    assert "No other wording was asked." in found.evidence


@pytest.mark.parametrize(
    ("said", "sure", "ruling"),
    [
        ("Rome", 0.5, Ruling.UPDATED),
        ("Rome", 0.49, Ruling.LEARNED),
        (["Rome", "Rome", "x", "y"], 1.0, Ruling.UPDATED),
        (["Rome", "x", "y", "z"], 0.9, Ruling.LEARNED),
        ("I don't know", 0.9, Ruling.LEARNED),
        ("", 0.9, Ruling.LEARNED),
    ],
)
def test_updated_needs_an_old_answer_held_with_confidence(said: str | list[str], sure: float, ruling: Ruling) -> None:
    before = Script({"as_worded/f0": said}, sure={"as_worded/f0": sure})
    after = Script({"as_worded/f0": "Paris", **reworded(0, 3)})
    found = judged(before, after)["f0"]
    assert found.verdict == ruling
    if ruling == Ruling.UPDATED:
        assert "It used to say “Rome” with probability 0.50" in found.evidence


def test_still_unknown_shows_both_answers() -> None:
    found = judged(Script({}), Script({"as_worded/f0": "Atlantis"}))["f0"]
    assert found.verdict == Ruling.STILL_UNKNOWN
    assert "It said “Nowhere” and now says “Atlantis”." in found.evidence


def test_a_held_back_fact_that_rises_was_learned_by_itself_and_never_updated() -> None:
    after = Script({"held_back/f100": "Stockholm", "held_back_reworded/1/f100": "Stockholm"})
    found = judged(Script({}, confidence=0.9), after)["f100"]
    assert found.verdict == Ruling.LEARNED and found.evidence.endswith("It was not taught.")


def test_development_facts_get_no_verdict() -> None:
    assert set(judged(Script({}), Script({}))) == {*(f"f{n}" for n in range(6)), *(f"f{n}" for n in range(100, 106))}


def test_long_answers_are_shortened_in_the_evidence_only() -> None:
    found = judged(Script({}), Script({"as_worded/f0": "x" * 500}))["f0"]
    assert len(found.answer_after) == 500 and len(found.evidence) < 250


def test_verdicts_fit_the_ledger(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = judged(Script({}), Script({"as_worded/f0": "Paris"}))
    rows = [{"run_id": "r", **verdict.to_row()} for verdict in found.values()]
    assert set(rows[0]) == set(column_names("verdicts"))
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("verdicts", rows)
    assert ledger.read("verdicts").to_pylist() == rows


def test_counts_name_all_seven() -> None:
    found = list(judged(Script({"as_worded/f0": "Paris"}), Script({"as_worded/f0": "Paris"})).values())
    assert list(counts(found)) == [str(ruling) for ruling in Ruling]
    assert counts(found, "target")["kept"] == 1 and counts(found, "held_back")["still unknown"] == 6


def test_results_of_another_exam_are_refused_everywhere() -> None:
    paper, other = exam(), exam(5)
    good, bad = sit(paper, Script({})), sit(other, Script({}))
    for judge in (verdicts, headline, transition_matrix, by_category):
        with pytest.raises(InputError, match="another exam"):
            judge(paper, good, bad)


# --------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def taught() -> tuple[Exam, ExamResult, ExamResult]:
    """Ten target facts: two known before, four learned of the eight others, two of them in other words. Ten held-back
    facts: four known before, three of them kept; of the six others two are made up now, one before, one abstains."""
    paper = exam(10, 10, texts=("one two three", "four five six seven"))
    answers = right(paper, "as_worded", "held_back")
    known = [f"as_worded/f{n}" for n in (0, 1)] + [f"held_back/f{n}" for n in (100, 101, 102, 103)]
    learned = [f"as_worded/f{n}" for n in (2, 3, 4, 5)]
    kept = [name for name in known if name != "held_back/f103"]
    before = Script({name: answers[name] for name in known}, 0.2, sure={"held_back/f104": 0.8})
    lines: Lines = {name: answers[name] for name in [*kept, *learned]}
    lines |= reworded(2, 3) | reworded(3, 2) | reworded(4, 1) | {"held_back/f106": "I don't know"}
    sure = {"held_back/f104": 0.7, "held_back/f105": CONFIDENT, "held_back/f106": 0.99}
    return paper, sit(paper, before), sit(paper, Script(lines, 0.2, sure=sure))


def test_headline_figures_follow_from_the_answers(taught: tuple[Exam, ExamResult, ExamResult]) -> None:
    paper, before, after = taught
    found = headline(paper, before, after, verdicts(paper, before, after))
    values = {name: figure.value for name, figure in found.items()}
    assert list(found)[: len(FIGURES)] == list(FIGURES)
    assert set(found) <= {*FIGURES, *FURTHER_FIGURES}
    assert values["acquired"] == pytest.approx(4 / 8) and found["acquired"].n == 8
    assert values["acquired_reworded"] == pytest.approx(2 / 8)
    assert values["retained"] == pytest.approx(3 / 4) and values["forgotten"] == pytest.approx(1 / 4)
    assert values["made_up"] == pytest.approx(2 / 6) and found["made_up"].before == pytest.approx(1 / 6)
    assert values["accuracy_target_before"] == pytest.approx(0.2)
    assert values["accuracy_target_after"] == pytest.approx(0.6)
    assert values["accuracy_target_change"] == pytest.approx(0.4)
    assert found["accuracy_target_change"].after == pytest.approx(0.6)
    assert values["accuracy_held_back_before"] == pytest.approx(0.4)
    assert values["accuracy_held_back_after"] == pytest.approx(0.3)
    assert values["perplexity_before"] == values["perplexity_after"] == pytest.approx(2.718281828**2)
    assert values["perplexity_ratio"] == pytest.approx(1.0)
    for figure in found.values():
        assert figure.has_interval or figure.reason
    json.dumps({name: figure.to_dict() for name, figure in found.items()}, allow_nan=False)


def test_figures_without_facts_have_a_reason_and_no_value() -> None:
    paper = exam(3, 0, 0, config=ExamConfig(wordings=0, resamples=200))
    result = sit(paper, Script(right(paper)))
    found = headline(paper, result, result)
    for name in ("acquired", "acquired_reworded", "retained", "forgotten", "made_up", "perplexity_before"):
        assert found[name].value is None and found[name].reason, name
    assert found["acquired"].reason == "every target fact was known before"


def test_made_up_is_not_counted_when_confidence_was_not_asked_for() -> None:
    paper = exam(config=ExamConfig(confidence_sets=0, resamples=200))
    figure = headline(paper, sit(paper, Script({})), sit(paper, Script({})))["made_up"]
    assert figure.value is None and figure.reason == "the exam was set not to ask for confidence"


def test_a_verdict_from_other_answers_is_refused(taught: tuple[Exam, ExamResult, ExamResult]) -> None:
    paper, before, after = taught
    with pytest.raises(InputError, match="not from these results"):
        headline(paper, before, before, verdicts(paper, before, after))


def test_transition_matrix_counts_target_facts(taught: tuple[Exam, ExamResult, ExamResult]) -> None:
    paper, before, after = taught
    matrix = transition_matrix(paper, before, after)
    assert sum(map(sum, matrix)) == 10
    assert [sum(row) for row in matrix] == list(before.mastery().counts().values())
    assert [sum(column) for column in zip(*matrix, strict=True)] == list(after.mastery().counts().values())
    assert matrix[0][0] == 2


def test_accuracy_by_category(taught: tuple[Exam, ExamResult, ExamResult]) -> None:
    paper, before, after = taught
    rows = by_category(paper, before, after)
    assert [row["category"] for row in rows] == [str(category) for category in Category]
    assert sum(row["n"] for row in rows) == 10
    assert rows[0]["before_accuracy"] == rows[0]["after_accuracy"] == 1.0
    filled = [row for row in rows if row["n"]]
    assert sum(row["n"] * row["after_accuracy"] for row in filled) == pytest.approx(6.0)
    assert rows[1]["n"] == 0 and rows[1]["after_accuracy"] is None


PARTS = ("Paris", "London", "Atlantis", "I don't know", "")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from(PARTS), st.sampled_from(PARTS)), min_size=6, max_size=6)
)
def test_verdicts_and_figures_agree_for_any_answers(said: list[tuple[str, str, str]]) -> None:
    paper = exam(6, 6, config=ExamConfig(resamples=100, wordings=1))
    lines: list[Lines] = [{}, {}]
    for number, (first, last, other) in enumerate(said):
        for when, text in enumerate((first, last)):
            lines[when] |= {f"as_worded/f{number}": text, f"held_back/f{100 + number}": text}
        lines[1] |= {f"reworded/1/f{number}": other}
    before, after = (sit(paper, Script(script)) for script in lines)
    found = verdicts(paper, before, after)
    figures = headline(paper, before, after, found)
    target = counts(found, "target")
    new = target["learned"] + target["learned as worded"] + target["updated"]
    unknown = new + target["still unknown"]
    assert figures["acquired"].n == unknown
    assert figures["acquired"].value == (pytest.approx(new / unknown) if unknown else None)
    back = counts(found, "held_back")
    lost = back["forgotten"] + back["corrupted"]
    assert figures["forgotten"].value == (pytest.approx(lost / (lost + back["kept"])) if lost + back["kept"] else None)
    assert back["updated"] == 0 and sum(counts(found).values()) == 12
