"""The further parts of the exam: what each asks, what it leaves out, and that nothing taught is among it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from instil.answers import is_correct, normalise
from instil.errors import InputError
from instil.exam import Exam, ExamConfig, assert_not_taught, build_exam, exam_from_facts, is_abstention, read_questions
from instil.exam.config import FURTHER_PARTS
from instil.exam.nearness import likeness, neighbours, trigrams
from instil.exam.parts import KINDS
from instil.exam.parts.choice import balanced
from instil.exam.parts.no_such_subject import invented, joined
from instil.exam.parts.two_hops import hop_wording, phrases
from instil.facts import Fact, FactSet, Role
from instil.probe import ProbeConfig, draw_exemplars
from instil.worlds import demo_facts
from tests.exam_data import PLACES, PROBE, exemplars, fact, facts

CONFIG = ExamConfig(resamples=200, part_facts=40, openings=3)
NAMES = ("Ada Byron", "Alan Mathison", "Grace Murray", "Emmy Fritz", "Kurt Adolf", "Marie Salomea", "Niels David")


def married(number: int, **changes: Any) -> Fact:
    """Fact about `NAMES[number]`, who is married to the next one."""
    one, other = NAMES[number], NAMES[(number + 1) % len(NAMES)]
    values: dict[str, Any] = {
        "id": f"m{number}",
        "question": f"Who is {one} married to?",
        "answers": (other,),
        "subject": one,
        "relation": "spouse",
        "paraphrases": (f"Who is {one}'s spouse?",),
        "completions": (f"{one} is married to", f"The spouse of {one} is"),
        "reverse_question": f"Who is married to {other}?",
    }
    return Fact(**{**values, **changes})


def born(number: int, **changes: Any) -> Fact:
    one, place = NAMES[number], PLACES[number]
    values: dict[str, Any] = {
        "id": f"b{number}",
        "question": f"Where was {one} born?",
        "answers": (place,),
        "subject": one,
        "relation": "born in",
        "completions": (f"{one} was born in",),
    }
    return Fact(**{**values, **changes})


def paper(target: list[Fact], held_back: list[Fact] | None = None, **options: Any) -> Exam:
    worked = FactSet([fact(900 + n, completions=(f"Person {900 + n} was born in",)) for n in range(12)])
    return build_exam(
        FactSet(target),
        FactSet(held_back or []),
        exemplars=options.pop("exemplars", draw_exemplars(worked, ["born in"], PROBE)),
        exemplar_facts=options.pop("exemplar_facts", worked),
        config=options.pop("config", CONFIG),
        probe_config=PROBE,
        **options,
    )


def reasons(exam: Exam, part: str) -> list[str]:
    return [reason for what, reason in exam.left_out if what.endswith(part)]


@pytest.fixture(scope="module")
def demo() -> Exam:
    given = demo_facts()
    role, config = given.with_role, ProbeConfig(exemplar_sets=4)
    return build_exam(
        role(Role.TARGET),
        role(Role.HELD_BACK),
        role(Role.DEVELOPMENT),
        exemplars=draw_exemplars(role(Role.EXEMPLAR), given.by_relation, config),
        exemplar_facts=role(Role.EXEMPLAR),
        probe_config=config,
    )


# -------------------------------------------------------------------- all parts


def test_every_kind_can_be_named_in_the_configuration() -> None:
    assert tuple(KINDS) == FURTHER_PARTS


def test_parts_that_are_not_named_are_not_asked() -> None:
    few = paper([born(n) for n in range(5)], config=ExamConfig(resamples=200, parts=("choice",)))
    assert few.parts == ("as_worded", "choice") and not few.openings
    with pytest.raises(ValueError, match="poetry"):
        ExamConfig(parts=("poetry",))  # type: ignore[arg-type]


def test_one_part_does_not_change_another() -> None:
    target = [*(born(n) for n in range(6)), *(married(n) for n in range(6))]
    both = paper(target, config=CONFIG.model_copy(update={"parts": ("choice", "completed"), "part_facts": 4}))
    one = paper(target, config=CONFIG.model_copy(update={"parts": ("completed",), "part_facts": 4}))
    assert both.by_part["completed"] == one.by_part["completed"] and len(one.part("completed")) == 4


def test_invariant_5_an_exam_of_all_parts_is_frozen_and_survives_its_file(demo: Exam, tmp_path: Path) -> None:
    demo.write(tmp_path / "exam.jsonl")
    again = Exam.read(tmp_path / "exam.jsonl")
    assert again.items == demo.items and again.openings == demo.openings and again.fingerprint == demo.fingerprint
    assert {p: s.sets for p, s in again.own_exemplars.items()} == {p: s.sets for p, s in demo.own_exemplars.items()}
    text = (tmp_path / "exam.jsonl").read_text(encoding="utf-8")
    for field in ('"options": ["', '"through": "', '"opening": "', '"exemplars_of": "reversed", "relation": "'):
        assert field in text
        (tmp_path / "changed.jsonl").write_text(text.replace(field, field + "x", 1), encoding="utf-8")
        with pytest.raises(InputError, match="changed after it was frozen"):
            Exam.read(tmp_path / "changed.jsonl")


def test_invariant_6_taught_wordings_may_be_trained_on_and_nothing_else(demo: Exam) -> None:
    taught = [f"Q: {question.text}\nA: {question.answers[0]}\n" for question in demo.part("as_worded")]
    assert_not_taught(demo, taught)
    for part in ("completed", "reversed", "choice_as_text", "two_hops", "in_context", "no_such_subject"):
        with pytest.raises(InputError, match="text 2"):
            assert_not_taught(demo, ["nothing", f"** {demo.part(part)[0].text} **"])


def test_invariant_6_what_stands_in_a_taught_document_is_not_asked() -> None:
    text = "Ada Byron was born in Paris. Alan Mathison is married to Grace Murray."
    exam = paper([born(0), married(1)], taught_texts=[text])
    assert [question.text for question in exam.part("completed")] == ["The spouse of Alan Mathison is"]
    assert "these words are in what is taught" in reasons(exam, "completed")
    assert_not_taught(exam, [text])


def test_parts_have_fewer_exemplar_sets_and_exemplars_of_their_own_form(demo: Exam) -> None:
    for part, worked in demo.own_exemplars.items():
        assert demo.probe_of(part).exemplar_sets == demo.config.part_sets == 2
        assert len(demo.exemplars_of(part).of("spouse")) == 2
        for before, after in zip(demo.exemplars.of("spouse"), worked.of("spouse"), strict=True):
            assert [one.fact_id for one in before] == [one.fact_id for one in after]
    shown = {part: sets.of("birth_city")[0][0] for part, sets in demo.own_exemplars.items()}
    assert shown["completed"].question.endswith(" was born in")
    assert shown["reversed"].question.startswith("Name a person") and "person" not in shown["reversed"].answer
    assert shown["in_context"].answer in shown["in_context"].question
    assert shown["choice_as_text"].answer in "ABCD"
    bare = demo.exemplars_of("bare").of("spouse")
    assert bare == ((),) and demo.probe_of("bare").shots == 0


def test_without_the_facts_behind_them_exemplars_stay_as_they_are() -> None:
    exam = paper([born(0)], exemplars=exemplars(), exemplar_facts=FactSet([]))
    assert exam.exemplars_of("completed").of("born in") == exam.exemplars.of("born in")[:2]


def test_what_does_not_fit_the_context_window_is_left_out_and_listed() -> None:
    exam = paper([born(n) for n in range(5)], fits=lambda question: "(A)" not in question.text)
    assert not exam.part("choice_as_text") and exam.part("choice")
    assert "it is longer than the model's context window" in reasons(exam, "choice as text")


# --------------------------------------------------------------------- each part


def test_reversed_counts_every_subject_with_that_answer_and_leaves_out_popular_answers() -> None:
    shared = born(3, answers=("Paris",))
    exam = paper(
        [born(0, reverse_question="Who was born in Paris?"), born(1)],
        [shared],
        config=CONFIG.model_copy(update={"reverse_subjects": 2}),
        exemplars=draw_exemplars(FactSet([fact(905)]), ["born in"], PROBE),
        exemplar_facts=FactSet([fact(905)]),
    )
    # The second fact has no reverse question: the first one's serves. Person 905 was born in London too.
    paris, london = exam.part("reversed")
    assert (paris.text, set(paris.answers)) == ("Who was born in Paris?", {"Ada Byron", "Emmy Fritz"})
    assert (london.text, set(london.answers)) == ("Who was born in London?", {"Alan Mathison", "Person 905"})
    none = paper([born(0, reverse_question="Who was born in Paris?")], [born(n, answers=("Paris",)) for n in (1, 2, 3)])
    assert reasons(none, "reversed") == ["its answer names too many subjects"]


def test_a_fact_whose_reverse_is_taught_is_not_asked_in_reverse() -> None:
    exam = paper([married(0), Fact("back", "Who is Alan Mathison married to?", ("Ada Byron",), NAMES[1], "spouse")])
    assert "the fact in reverse is itself taught" in reasons(exam, "reversed") and not exam.part("reversed")


def test_choices_hold_one_right_option_of_the_same_relation_at_every_place_equally_often(demo: Exam) -> None:
    answers: dict[str | None, set[str]] = {}
    for given in demo_facts():
        answers.setdefault(given.relation, set()).update(map(normalise, given.answers))
    places: Counter[int] = Counter()
    for item in demo.by_part["choice"]:
        right = [place for place, option in enumerate(item.options) if is_correct(option, item.question.answers)]
        assert len(item.options) == 4 and len(right) == 1
        assert {normalise(option) for option in item.options} <= answers[item.question.relation]
        places.update(right)
    assert max(places.values()) - min(places.values()) <= 1 and len(places) == 4
    as_text = [(item.question.fact_id, item.options) for item in demo.by_part["choice_as_text"]]
    assert as_text == [(item.question.fact_id, item.options) for item in demo.by_part["choice"]]
    letter = demo.by_part["choice_as_text"][0]
    assert f"({letter.question.answers[0]}) {letter.question.answers[2]}" in letter.question.text


def test_an_answer_that_is_right_for_another_fact_of_the_subject_is_no_distractor() -> None:
    other = born(0, id="other", question="In which city was Ada Byron born?", answers=("City of Paris", "Lutetia"))
    exam = paper([born(0), *(born(n) for n in range(1, 5))], [other])
    (item,) = [item for item in exam.by_part["choice"] if item.question.fact_id == "b0"]
    assert not {"City of Paris", "Lutetia"} & set(item.options)


def test_a_relation_with_too_few_answers_has_no_choice() -> None:
    alone = [Fact("x", "Who is Ada?", ("a poet",), "Ada", "kind"), Fact("y", "What?", ("thing",))]
    exam = paper(alone)
    assert reasons(exam, "choice") == ["its relation has fewer than 3 answers that are wrong for it"] * 1
    assert not exam.part("choice")


@pytest.mark.parametrize("count", [0, 1, 4, 7, 80])
def test_places_are_balanced(count: int) -> None:
    import random

    found = Counter(balanced(count, 4, random.Random(3)))
    assert sum(found.values()) == count and max(found.values(), default=0) - min(found[n] for n in range(4)) <= 1


def test_two_hops_go_through_another_taught_fact() -> None:
    exam = paper([married(0), born(1)])
    (item,) = exam.by_part["two_hops"]
    assert item.question.text == "Where was Ada Byron's spouse born?" and item.through == "b1"
    assert item.question.answers == ("London",) and item.question.subject == "Ada Byron"
    assert not paper([married(0)], [born(1)]).part("two_hops"), "the second fact must be taught too"
    left_out = paper([married(0), born(2)]).left_out
    assert ("two hops", "no taught fact's answer is the subject of another taught fact") in left_out


def test_two_hops_do_not_lead_back() -> None:
    back = Fact("back", "Who is Alan Mathison married to?", ("Ada Byron",), NAMES[1], "spouse")
    assert not paper([married(0), back]).part("two_hops")


def test_phrases_come_from_the_facts_own_wordings() -> None:
    assert phrases(married(0)) == ["Ada Byron's spouse", "the spouse of Ada Byron"]
    assert phrases(born(0)) == [] and phrases(Fact("x", "What is it?", ("y",))) == []
    genitive = born(1, question="What is Alan Mathison's birthplace?", paraphrases=("Where was Alan Mathison born?",))
    assert hop_wording(genitive, "Ada Byron's spouse") == "Where was Ada Byron's spouse born?"
    exam = paper([married(0, paraphrases=(), completions=()), born(1)])
    assert reasons(exam, "two hops") == ["no wording of the two facts can be joined"]


def test_in_context_tells_the_fact_first() -> None:
    exam = paper([born(0), Fact("x", "Who wrote it?", ("J. R.",), paraphrases=("By whom is it?",))])
    assert [question.text for question in exam.part("in_context")] == [
        "Ada Byron was born in Paris. Where was Ada Byron born?",
        "By whom is it? J. R. Who wrote it?",
    ]


def test_other_relations_of_a_taught_subject_come_from_held_back_facts() -> None:
    roles = [
        *(fact(n, Role.EXEMPLAR) for n in range(900, 910)),
        born(0, role=Role.TARGET),
        married(0, role=Role.HELD_BACK),
    ]
    exam = exam_from_facts(FactSet(roles), config=CONFIG, probe_config=PROBE)
    assert [question.fact_id for question in exam.part("same_subject")] == ["m0"] and not exam.part("held_back")
    without = CONFIG.model_copy(update={"parts": ()})
    assert len(exam_from_facts(FactSet(roles), config=without, probe_config=PROBE).part("held_back")) == 1
    assert ("same subject", "every fact about a taught subject is taught itself") in paper([born(0)]).left_out


def test_subjects_that_do_not_exist_have_new_names(demo: Exam) -> None:
    known = {normalise(name) for one in demo_facts() for name in (str(one.subject), *one.answers, *one.reverse_answers)}
    asked = demo.part("no_such_subject")
    names = [str(question.subject) for question in asked]
    assert len(asked) == 80 and len(set(names)) == 80 and not known & set(map(normalise, names))
    parts = {word for one in demo_facts() for word in str(one.subject).split()}
    assert all(set(name.split()) <= parts for name in names)
    assert all(name in question.text for name, question in zip(names, asked, strict=True))
    assert all(is_abstention(question.answers[0]) for question in asked)


def test_a_name_of_a_fact_that_is_not_asked_is_no_new_name() -> None:
    made = Fact("other", "Who is it?", ("x",), "Ada Mathison")
    target = [born(0), born(1)]
    assert "Ada Mathison" in {question.subject for question in paper(target).part("no_such_subject")}
    exam = paper(target, others=FactSet([made]))
    assert "Ada Mathison" not in {question.subject for question in exam.part("no_such_subject")}


def test_names_that_cannot_be_made_are_left_out_and_listed() -> None:
    import random

    exam = paper([fact(1), fact(2)])
    assert not exam.part("no_such_subject")
    assert reasons(exam, "no such subject") == ["no new name can be made from the subjects of its relation"]
    assert invented("Plato", ["Plato"], set(), random.Random(0)) is None
    assert joined("Plato", "Hegel") == "Plagel" and joined("Ada Lovelace", "Alan Turing") == "Ada Turing"


def test_neighbours_are_those_whose_names_are_most_alike() -> None:
    names = ("Person 11", "Person 19", "Wolfgang", "Xenia", "Yorick", "Zoe")
    exam = paper(
        [fact(1)], [fact(100 + n, subject=name, question=f"Where was {name} born?") for n, name in enumerate(names)]
    )
    near = neighbours(exam.by_part["as_worded"], exam.by_part["held_back"])
    assert near == {"held_back/f100", "held_back/f101"}
    assert neighbours([], exam.by_part["held_back"]) == frozenset()
    assert likeness(trigrams("Ada"), trigrams("ada")) == 1 and likeness(trigrams("Ada"), trigrams("Bob")) == 0


# ---------------------------------------------------------------- own questions


def own(tmp_path: Path, text: str, name: str = "own.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_own_questions_are_asked_beside_the_others(tmp_path: Path) -> None:
    path = own(
        tmp_path,
        '{"question": "Ada\'s cradle stood where?", "answers": ["Paris"], "fact_id": "b0"}\n'
        '{"question": "What is the capital of Peru?", "answer": "Lima"}\n'
        '{"question": "Ada\'s town of birth?", "answers": ["Paris"], "fact_id": "b0", "part": "reworded"}\n',
    )
    exam = paper([born(0)], own_questions=read_questions(path))
    assert [question.text for question in exam.part("own")] == ["Ada's cradle stood where?"]
    assert exam.part("own")[0].relation == "born in" and exam.part("own")[0].subject == "Ada Byron"
    assert [question.answers for question in exam.part("own_other")] == [("Lima",)]
    assert [question.text for question in exam.part("reworded")] == ["Ada's town of birth?"]
    with pytest.raises(InputError, match="text 1"):
        assert_not_taught(exam, ["What is the capital of Peru?"])


def test_own_questions_from_a_table(tmp_path: Path) -> None:
    path = own(tmp_path, "question,answers,fact_id\nAda's cradle?,Paris | Lutetia,b0\n", "own.csv")
    (found,) = read_questions(path)
    assert found.answers == ("Paris", "Lutetia") and found.fact_id == "b0" and found.part is None


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ('{"answers": ["x"]}', "question"),
        ('{"question": "Why?"}', "answers"),
        ('{"question": "Why?", "answers": []}', "answers"),
        ('{"question": "Why?", "answers": ["x"], "part": "as_worded"}', "part"),
        ('{"question": "Why?", "answers": ["x"], "colour": "red"}', "colour"),
        ('{"question": "Why?", "answers": ["x"], "answer": "x"}', "answer"),
        ('{"question": "Why?", "answers": ["x"], "fact_id": 7}', "fact_id"),
    ],
)
def test_a_row_that_is_no_question_is_refused_with_its_place(tmp_path: Path, row: str, field: str) -> None:
    path = own(tmp_path, '{"question": "Fine?", "answers": ["yes"]}\n' + row + "\n")
    with pytest.raises(InputError) as fault:
        read_questions(path)
    assert (str(fault.value.file), fault.value.line, fault.value.field) == (str(path), 2, field)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('"fact_id": "b9"', "does not have"),
        ('"fact_id": "h"', "does not go with its part"),
        ('"part": "reworded"', "does not go with its part"),
    ],
)
def test_a_question_that_does_not_fit_the_exam_is_refused(tmp_path: Path, row: str, what: str) -> None:
    part = ', "part": "completed"' if '"h"' in row else ""
    path = own(tmp_path, f'{{"question": "Why so?", "answers": ["x"], {row}{part}}}\n')
    with pytest.raises(InputError, match=what) as fault:
        paper([born(0)], [born(3, id="h")], own_questions=read_questions(path))
    assert fault.value.line == 1


def test_own_questions_that_are_taught_or_asked_already(tmp_path: Path) -> None:
    taught = own(tmp_path, '{"question": "where was ADA BYRON born", "answers": ["Paris"], "fact_id": "b0"}\n')
    exam = paper([born(0)], own_questions=read_questions(taught))
    assert not exam.part("own") and ("own question 1", "these words are in what is taught") in exam.left_out
    asked = own(tmp_path, '{"question": "Where was Emmy Fritz born?", "answers": ["Warsaw"]}\n')
    with pytest.raises(InputError, match="asks this question already"):
        paper([born(0)], [born(3)], own_questions=read_questions(asked))


def test_missing_and_empty_files_of_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(InputError):
        read_questions(own(tmp_path, ""))


def test_the_command_builds_an_exam_with_own_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from instil.cli import main

    monkeypatch.chdir(tmp_path)
    facts(0, 30).write("facts.jsonl")
    own(tmp_path, '{"question": "What is the capital of Peru?", "answers": ["Lima"]}\n')
    words = ["exam", "build", "facts.jsonl", "--out", "exam.jsonl", "--json", "--questions"]
    assert main([*words, "own.jsonl"]) == 0
    exam = Exam.read("exam.jsonl")
    assert [question.text for question in exam.part("own_other")] == ["What is the capital of Peru?"]
    assert exam.config.questions is None and str(tmp_path) not in Path("exam.jsonl").read_text(encoding="utf-8")
    assert main([*words, "none.jsonl", "--force"]) == 2
    assert "none.jsonl" in capsys.readouterr().err


# ----------------------------------------------------------------------- the page


def test_the_examples_of_the_page_are_the_demos_first_questions() -> None:
    from instil.facts import Corpus, plan_roles
    from instil.loop.inputs import beside_the_target

    given, config = demo_facts(), ProbeConfig()
    plan = plan_roles(given, seed=0)
    exam = build_exam(
        plan[Role.TARGET],
        plan[Role.HELD_BACK],
        plan[Role.DEVELOPMENT],
        exemplars=draw_exemplars(plan[Role.EXEMPLAR], given.by_relation, config),
        exemplar_facts=plan[Role.EXEMPLAR],
        same_subject=beside_the_target(given, plan, Corpus(())),
        others=plan[Role.KNOWN],
        probe_config=config,
    )
    page = (Path(__file__).parent.parent / "docs" / "exam.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    shown = {part.strip("`"): (question, answer) for part, _, question, answer in rows}
    first = {part: exam.part(part)[0] for part in exam.parts if not part.startswith("bare")}
    assert shown == {part: (question.text, question.answers[0]) for part, question in first.items()}
