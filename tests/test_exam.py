"""The exam is frozen, asks nothing that was taught, and comes back as it was written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.errors import InputError
from instil.exam import Exam, ExamConfig, ExamResult, assert_not_taught, build_exam, exam_from_facts, is_abstention, sit
from instil.exam.leaks import Wordings
from instil.facts import FactSet, Role
from instil.ledger import Ledger
from instil.probe import ProbeConfig
from instil.words import words
from tests.exam_data import PROBE, QUICK, Script, exam, exemplars, fact, facts, right

TEXTS = ("The sea is wide and the wind is cold.", "Bread is made of flour, water and salt.")


# ------------------------------------------------------------------- building


def test_parts_hold_every_fact_in_order() -> None:
    paper = exam()
    assert paper.parts == ("as_worded", "reworded", "held_back", "held_back_reworded", "development")
    counts = {part: len(paper.part(part)) for part in paper.parts}
    assert counts == {"as_worded": 6, "reworded": 18, "held_back": 6, "held_back_reworded": 6, "development": 2}
    assert [question.fact_id for question in paper.part("as_worded")] == [f"f{number}" for number in range(6)]
    assert len(paper.by_id) == len(paper) == 38


def test_other_wordings_are_asked_with_fewer_exemplar_sets() -> None:
    paper = exam(config=ExamConfig(reworded_sets=3))
    assert paper.probe_of("as_worded").exemplar_sets == 4 and paper.probe_of("reworded").exemplar_sets == 3
    assert len(paper.exemplars_of("reworded").of("born in")) == 3
    assert paper.exemplars_of("reworded").of("born in") == paper.exemplars.of("born in")[:3]


def test_wordings_before_the_first_are_left_to_training() -> None:
    paper = exam(config=ExamConfig(first_wording=2))
    assert {item.wording for item in paper.by_part["reworded"]} == {3}


def test_repeated_wordings_are_asked_once() -> None:
    target = FactSet(
        [fact(1, paraphrases=("where was person 1 born", "Birthplace of Person 1?", "Birthplace of Person 1"))]
    )
    paper = build_exam(target, exemplars=exemplars(), config=QUICK, probe_config=PROBE)
    assert [question.text for question in paper.part("reworded")] == ["Birthplace of Person 1?"]


def test_what_has_the_words_of_a_taught_question_is_left_out_and_listed() -> None:
    target = FactSet([fact(1), fact(2, paraphrases=("Where was Person 1 born?", "Born in which town, Person 2?"))])
    held_back = FactSet([fact(3, question="where was PERSON 1 born", subject="Person 3"), fact(4)])
    paper = build_exam(target, held_back, exemplars=exemplars(), config=QUICK, probe_config=PROBE)
    assert [question.fact_id for question in paper.part("held_back")] == ["f4"]
    assert {question.fact_id for question in paper.part("held_back_reworded")} == {"f4"}
    assert [question.text for question in paper.part("reworded") if question.fact_id == "f2"] == [
        "Born in which town, Person 2?"
    ]
    assert [what for what, _ in paper.left_out] == ["fact f2, reworded, wording 1", "fact f3, held back"]


def test_a_probe_that_does_not_write_out_wrong_answers_is_refused() -> None:
    with pytest.raises(InputError, match="written out"):
        exam(probe_config=PROBE.model_copy(update={"decode": False}))


def test_roles_that_overlap_are_refused() -> None:
    with pytest.raises(InputError, match="two roles"):
        build_exam(facts(0, 3), facts(2, 3), exemplars=exemplars(), probe_config=PROBE)
    with pytest.raises(InputError, match="exemplar is examined"):
        build_exam(facts(900, 3), exemplars=exemplars(), probe_config=PROBE)
    with pytest.raises(InputError, match="not as many"):
        build_exam(facts(0, 3), exemplars=exemplars(), probe_config=ProbeConfig())
    with pytest.raises(InputError, match="nothing to ask"):
        build_exam(FactSet(()), exemplars=exemplars(), probe_config=PROBE)


def test_subjects_in_two_roles_are_warned_about() -> None:
    held_back = FactSet([fact(7, subject="Person 0")])
    paper = build_exam(facts(0, 3), held_back, exemplars=exemplars(), config=QUICK, probe_config=PROBE)
    assert any("warning" in reason for _, reason in paper.left_out)


def test_an_exam_of_a_file_of_facts_reserves_exemplars_and_says_so() -> None:
    paper = exam_from_facts(facts(0, 40), config=QUICK, probe_config=PROBE)
    reserved = {what for what, reason in paper.left_out if reason == "reserved as an exemplar"}
    assert len(reserved) == 8 and len(paper.part("as_worded")) == 32
    shown = {f"fact {e.fact_id}" for sets in paper.exemplars.sets.values() for chosen in sets for e in chosen}
    assert shown <= reserved
    assert paper.fingerprint == exam_from_facts(facts(0, 40), config=QUICK, probe_config=PROBE).fingerprint


def test_an_exam_of_a_file_with_roles_follows_them() -> None:
    roles = (Role.EXEMPLAR, Role.TARGET, Role.HELD_BACK, Role.DEVELOPMENT, Role.KNOWN)
    given_roles = FactSet(one for place, role in enumerate(roles) for one in facts(10 * place, 10, role))
    paper = exam_from_facts(given_roles, config=QUICK, probe_config=PROBE)
    counts = [len(paper.part(part)) for part in ("as_worded", "held_back", "development")]
    assert counts == [10, 10, 10]
    assert sum(reason == "its role is known" for _, reason in paper.left_out) == 10


def test_general_texts_are_drawn_and_the_rest_is_counted() -> None:
    paper = exam(
        texts=[f"Text number {n}." for n in range(9)] + [" ", "Text number 0."],
        config=QUICK.model_copy(update={"general_texts": 4}),
    )
    assert len(paper.general_texts) == 4
    assert [what for what, _ in paper.left_out] == ["2 general texts", "5 general texts"]


# ------------------------------------------------------- invariant 5: frozen


def test_invariant_5_the_same_input_gives_the_same_exam() -> None:
    assert exam(texts=TEXTS).fingerprint == exam(texts=TEXTS).fingerprint


def test_invariant_5_any_change_changes_the_fingerprint() -> None:
    marks = {
        exam(texts=TEXTS).fingerprint,
        exam().fingerprint,
        exam(5).fingerprint,
        exam(texts=TEXTS[::-1]).fingerprint,
        exam(texts=TEXTS, config=ExamConfig(resamples=300)).fingerprint,
        exam(texts=TEXTS, config=ExamConfig(resamples=200, reworded_sets=2)).fingerprint,
        exam(texts=TEXTS, probe_config=ProbeConfig(exemplar_sets=4, shots=2, temperature=1.0)).fingerprint,
        exam(texts=TEXTS, exemplars=exemplars(PROBE.model_copy(update={"seed": 1}))).fingerprint,
        build_exam(facts(0, 6, answers=("Rome",)), exemplars=exemplars(), config=QUICK, probe_config=PROBE).fingerprint,
    }
    assert len(marks) == 9


def test_invariant_5_speed_settings_are_no_part_of_it() -> None:
    assert exam(probe_config=PROBE.model_copy(update={"batch_tokens": 64})).fingerprint == exam().fingerprint


def test_invariant_5_before_and_after_ask_the_same_in_the_same_order() -> None:
    paper = exam()
    before, after = Script(right(paper)), Script(right(paper))
    sit(paper, before)
    sit(paper, after)
    assert before.asked == after.asked == [item.question.id for item in paper.items]


def test_an_exam_survives_its_file(tmp_path: Path) -> None:
    paper = exam(texts=[*TEXTS, "Two\nlines and a line separator\u2028here."])
    paper.write(tmp_path / "exam.jsonl")
    again = Exam.read(tmp_path / "exam.jsonl")
    assert again.items == paper.items and again.general_texts == paper.general_texts
    assert again.exemplars.sets == paper.exemplars.sets and again.left_out == paper.left_out
    assert again.fingerprint == paper.fingerprint


@settings(max_examples=25, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
    answer=st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_any_wording_survives_the_file(tmp_path_factory: pytest.TempPathFactory, text: str, answer: str) -> None:
    target = FactSet([fact(1, question=text, answers=(answer,), paraphrases=())])
    paper = build_exam(target, exemplars=exemplars(), config=QUICK, probe_config=PROBE)
    path = tmp_path_factory.mktemp("exam") / "exam.jsonl"
    paper.write(path)
    assert Exam.read(path).items == paper.items


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Where was Person 3 born?", "Where was Person 3 wed?"),
        ('"City of Warsaw"', '"City of Wien"'),
        ('"temperature": 0.5', '"temperature": 0.7'),
        ("The sea is wide", "The sea is near"),
        ('"wording": 2', '"wording": 3'),
    ],
)
def test_invariant_5_a_changed_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "exam.jsonl"
    exam(texts=TEXTS).write(path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match="changed after it was frozen"):
        Exam.read(path)


def test_invariant_5_a_changed_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    replace(exam(2, 2, 1, texts=TEXTS[:1]), left_out=(("fact f3", "it is too long"),)).write(path)
    whole, paper = path.read_bytes(), Exam.read(path)
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 7)]) + whole[place + 1 :])
        try:
            assert Exam.read(path) == paper, place
        except InputError as fault:
            assert "exam.jsonl" in str(fault)
    path.write_bytes(whole.replace(b"too long", b"too wrong"))
    with pytest.raises(InputError, match="changed after it was frozen"):
        Exam.read(path)


def test_lines_taken_away_or_moved_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    exam().write(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    for changed in (lines[:-1], [*lines[:-2], lines[-1], lines[-2]]):
        path.write_text("\n".join(changed) + "\n", encoding="utf-8")
        with pytest.raises(InputError, match="changed after it was frozen"):
            Exam.read(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not an exam"),
        ("{}\n", "not an exam"),
        ("[]\n", "not a line"),
        ('{"exam": 2', "not JSON"),
        ('{"exam": 1}\n', "another version"),
        ('{"exam": 2}\n', "header"),
        ('{"exam": 2}\n{"part": "poetry", "wording": 0}\n', "not a line"),
        ('{"exam": 2}\n7\n', "not a line"),
        ('{"exam": 2, "config": {"wordings": -1}, "probe": {}, "left_out": [], "fingerprint": ""}\n', "header"),
    ],
)
def test_what_is_no_exam_is_refused_in_one_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "exam.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=what) as fault:
        Exam.read(path)
    assert "\n" not in str(fault.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such exam"):
        Exam.read(tmp_path / "none.jsonl")
    (tmp_path / "exam.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        Exam.read(tmp_path / "exam.jsonl")


# ---------------------------------------------- invariant 6: nothing taught


def test_invariant_6_taught_wordings_may_be_trained_on() -> None:
    paper = exam(texts=TEXTS)
    taught = [f"Q: {question.text}\nA: {question.answers[0]}\n" for question in paper.part("as_worded")]
    assert_not_taught(paper, [*taught, "Person 2 was born in Vienna.", ""])


@pytest.mark.parametrize("part", ["reworded", "held_back", "held_back_reworded", "development"])
def test_invariant_6_no_other_wording_is_trained_on(part: str) -> None:
    paper = exam(texts=TEXTS)
    question = paper.part(part)[-1].text
    for text in (
        question,
        f"Q: {question}\nA: x",
        f"** {question.upper().replace(' ', '  ')} **",
        question.rstrip("?"),
    ):
        with pytest.raises(InputError, match=r"text 2") as fault:
            assert_not_taught(paper, ["nothing here", text])
        assert question in str(fault.value)


def test_invariant_6_general_texts_are_not_trained_on() -> None:
    with pytest.raises(InputError, match="training data"):
        assert_not_taught(exam(texts=TEXTS), [f"A document. {TEXTS[1]} And more."])


def test_wordings_without_spaces_between_words_are_found() -> None:
    guard = Wordings(["太郎はどこで生まれましたか？", "हेमा का जन्म कहाँ हुआ?"])
    assert list(guard.in_text("質問：太郎はどこで生まれましたか。答え：東京")) == ["太郎はどこで生まれましたか？"]
    assert list(guard.in_text("प्रश्न: हेमा का जन्म कहाँ हुआ")) == ["हेमा का जन्म कहाँ हुआ?"]
    assert not list(guard.in_text("花子はどこで生まれましたか"))


def test_very_short_wordings_only_count_as_whole_lines() -> None:
    guard = Wordings(["Capital?"])
    assert not list(guard.in_text("Its capital grew quickly."))
    assert list(guard.in_text("What now:\ncapital\nParis")) == ["Capital?"]


@settings(max_examples=60, deadline=None)
@given(
    wordings=st.lists(st.lists(st.sampled_from("abcde"), min_size=3, max_size=5).map(" ".join), max_size=6),
    text=st.lists(st.sampled_from("abcde"), max_size=12).map(" ".join),
)
def test_finding_many_wordings_equals_looking_for_each(wordings: list[str], text: str) -> None:
    found = {words(wording) for wording in Wordings(wordings).in_text(text)}
    assert found == {words(wording) for wording in wordings if f" {wording} " in f" {text} "}


# -------------------------------------------------------------------- sitting


def test_a_result_survives_its_file_and_the_ledger(tmp_path: Path) -> None:
    paper = exam(texts=TEXTS)
    result = sit(paper, Script({**right(paper, "as_worded"), "held_back/f100": ["Paris", "Rome", "", "Rome"]}))
    result.save(tmp_path / "result.parquet")
    assert ExamResult.load(tmp_path / "result.parquet", paper) == result
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("answers", result.rows("r", "r:before", start=result), key="before")
    ledger.append("answers", sit(paper, Script({})).rows("r", "r:after", start=result), key="after")
    assert ExamResult.from_table(ledger.read("answers", state_id="r:before"), paper) == result
    rows = ledger.read("answers", state_id="r:after", part="reworded").to_pylist()
    assert {row["start_category"] for row in rows} == {"HighlyKnown"} and all(row["taught"] for row in rows)
    assert not any(ledger.read("answers", part="held_back")["taught"].to_pylist())


def test_a_result_of_another_exam_is_refused(tmp_path: Path) -> None:
    paper = exam()
    result = sit(paper, Script({}))
    result.save(tmp_path / "result.parquet")
    with pytest.raises(InputError, match="another exam"):
        ExamResult.load(tmp_path / "result.parquet", exam(5))
    with pytest.raises(InputError, match="not the answers to this exam"):
        ExamResult.from_table(result.to_table(), exam(5))
    with pytest.raises(InputError, match="no such"):
        ExamResult.load(tmp_path / "none.parquet", paper)
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="not an exam result"):
        ExamResult.load(tmp_path / "bad.parquet", paper)


def test_confidence_is_asked_for_wrong_claims_only() -> None:
    paper = exam(held_back=3)
    lines = right(paper, "reworded") | {"as_worded/f0": "Paris", "held_back/f100": "I don't know", "held_back/f101": ""}
    script = Script(lines, sure={"held_back/f102": 0.3})
    found = {answer.item.question.id: answer.p_own for answer in sit(paper, script).answers}
    assert found["as_worded/f0"] is None and found["held_back/f100"] is None and found["held_back/f101"] is None
    assert found["as_worded/f1"] == pytest.approx(0.9) and found["held_back/f102"] == pytest.approx(0.3)
    assert all(found[question.id] is None for question in paper.part("development"))
    assert script.asked.count("as_worded/f1") == 2 and script.asked.count("as_worded/f0") == 1
    quiet = Script({})
    sit(exam(config=ExamConfig(confidence_sets=0)), quiet)
    assert len(quiet.asked) == len(set(quiet.asked))


class Picky(Script):
    """Cannot score one of its own answers, as a model that said what no prompt can hold as an answer."""

    def ask(self, questions, exemplars, config):  # type: ignore[no-untyped-def]
        for question in questions:
            if question.fact_id == "f1" and question.answers == ("Nowhere",):
                raise InputError("no answer that could be generated", field="f1")
        return super().ask(questions, exemplars, config)


def test_an_answer_that_cannot_be_scored_ends_no_exam() -> None:
    found = {answer.item.question.id: answer.p_own for answer in sit(exam(), Picky({})).answers}
    assert found["as_worded/f1"] is None and found["as_worded/f2"] == pytest.approx(0.9)


class CutOff(Script):
    def ask(self, questions, exemplars, config):  # type: ignore[no-untyped-def]
        if questions[0].id.startswith("held_back/"):
            raise KeyboardInterrupt
        return super().ask(questions, exemplars, config)


def test_an_exam_that_was_cut_off_goes_on_after_its_finished_parts(tmp_path: Path) -> None:
    paper = exam(texts=TEXTS)
    lines = right(paper, "as_worded") | {"reworded/1/f0": ["Paris", "x", "y", "z"]}
    with pytest.raises(KeyboardInterrupt):
        sit(paper, CutOff(lines), keep=tmp_path)
    script = Script(lines)
    resumed = sit(paper, script, keep=tmp_path)
    assert resumed == sit(paper, Script(lines))
    assert not any(question.startswith(("as_worded", "reworded")) for question in script.asked)
    third = Script(lines)
    assert sit(paper, third, keep=tmp_path) == resumed and not third.asked and not third.scored
    other = Script({})
    other.fingerprint = "another model"
    assert sit(paper, other, keep=tmp_path) == sit(paper, Script({}))


def test_progress_is_told_to_the_end() -> None:
    paper, told = exam(texts=TEXTS), []
    sit(paper, Script({}), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 40) and told[-1] == (40, 40)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


class Silent(Script):
    def ask(self, questions, exemplars, config):  # type: ignore[no-untyped-def]
        return iter(list(super().ask(questions, exemplars, config))[1:])


def test_an_answerer_that_skips_a_question_is_refused() -> None:
    with pytest.raises(InputError, match="did not answer what was asked"):
        sit(exam(), Silent({}))


def test_the_mastery_map_of_the_taught_facts() -> None:
    paper = exam()
    mastery = sit(paper, Script(right(paper, "as_worded") | {"as_worded/f3": ["Warsaw", "x", "x", "x"]})).mastery()
    assert [str(row.category) for row in mastery] == ["HighlyKnown"] * 3 + ["MaybeKnown"] + ["HighlyKnown"] * 2
    assert mastery.by_id["f3"].greedy_answer == "x" and mastery.by_id["f3"].answer == "Warsaw"


# ------------------------------------------------------------------ abstention


ABSTENTIONS = (
    "I don't know.|i do not know|I’m not sure|Unknown|unknown.|| |No idea|N/A|Nobody knows.|This person does not exist."
    "|There is no such person|It is not known.|I cannot answer that question."
)
ANSWERS = "Paris|Unknown Pleasures|No|Ida|Knowles|The Unknown Soldier|Nobody"


@pytest.mark.parametrize("text", ABSTENTIONS.split("|"))
def test_abstentions(text: str) -> None:
    assert is_abstention(text)


@pytest.mark.parametrize("text", ANSWERS.split("|"))
def test_answers_are_no_abstentions(text: str) -> None:
    assert not is_abstention(text)


def test_abstentions_in_other_languages_can_be_given() -> None:
    assert not is_abstention("Ich weiß es nicht.")
    assert is_abstention("Ich weiß es nicht, leider", ["ich weiß es nicht", "weiß nicht"])
    assert not is_abstention("Ichenhausen", ["ich"])


def test_header_lists_what_decides_the_exam(tmp_path: Path) -> None:
    exam().write(tmp_path / "exam.jsonl")
    header = json.loads((tmp_path / "exam.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert header["config"]["reworded_sets"] == 4 and "batch_tokens" not in header["probe"]
