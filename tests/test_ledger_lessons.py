"""Two lessons on one model and one ledger: what the second loses of the first, and the way back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import instil
from instil.cli import main
from instil.errors import InputError
from instil.exam import Exam, assert_not_taught
from instil.exam.paper import FIRST_WORDINGS
from instil.facts import Corpus, Document, Fact, FactSet, Role
from instil.files import fingerprint_file
from instil.ledger import Ledger, diff
from instil.loop import TeachResult, teach
from instil.loop.earlier import Earlier, earlier_lessons, exemplars_for
from instil.loop.inputs import read_inputs
from instil.loop.states import KEEP, states_kept
from instil.model import LanguageModel, load, save
from tests.half_taught import TOWNS, half_taught
from tests.models import tiny_model

CONFIG: dict[str, Any] = {
    "train": {"epochs": 10, "learning_rate": 4e-3, "save_seconds": 0},
    "probe": {"exemplar_sets": 2, "shots": 1, "prior": False},
    "exam": {"wordings": 1, "confidence_sets": 0, "resamples": 200},
}


def fact(number: int, role: Role, name: str, **changes: Any) -> Fact:
    person = f"person {number}"
    question = f"Where was {person} born?"
    return Fact(name, question, (TOWNS[number * 7 % 8],), subject=person, relation="born", role=role, **changes)


def lesson(start: int, *more: Fact, step: int = 3) -> FactSet:
    """Ten facts to be taught and some besides; ids repeat from lesson to lesson, as they do from file to file."""
    roles = [Role.TARGET] * 10 + [Role.HELD_BACK] * 4 + [Role.EXEMPLAR] * 3
    return FactSet([*(fact(start + step * place, role, f"f{place}") for place, role in enumerate(roles)), *more])


FIRST = lesson(90)
TWICE = fact(90, Role.TARGET, "again")
HELD = fact(93, Role.HELD_BACK, "held")
SECOND = lesson(240, TWICE, HELD)


class Lessons(NamedTuple):
    base: Path
    first: TeachResult
    second: TeachResult

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.first.out / "ledger")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    home = tmp_path_factory.mktemp("lessons")
    base = save(half_taught(), home / "base")
    options: dict[str, Any] = {"method": "sft", "config": CONFIG, "general": ()}
    first = teach(base, FIRST, out=home / "first", keep_states="all", **options)
    shutil.rmtree(shutil.copytree(home / "first", home / "alone") / "states")
    second = teach(first.out / "model", SECOND, out=home / "second", ledger=home / "first" / "ledger", **options)
    assert isinstance(first, TeachResult) and isinstance(second, TeachResult)
    return Lessons(base, first, second)


def inputs_of(model: Path | LanguageModel, facts: FactSet, documents: Corpus | None = None, **exam: Any) -> Any:
    config = {**CONFIG, "exam": {**CONFIG["exam"], **exam}}
    named: dict[str, Any] = {"seed": 0, "roles": None, "general": (), "adapter": None, "dtype": "auto"}
    return read_inputs(
        model, facts, method="sft", documents=documents, config=config, budget=None, device="auto", **named
    )


def found(lessons: Lessons, facts: FactSet, documents: Corpus | None = None, **exam: Any) -> Earlier:
    return earlier_lessons(lessons.ledger, inputs_of(lessons.second.out / "model", facts, documents, **exam), "third")


def taught_by(lessons: Lessons, which: TeachResult) -> dict[str, str]:
    """Question to verdict, of the facts that a lesson taught."""
    rows = lessons.ledger.read("verdicts", run_id=which.summary["run_id"], role="target").to_pylist()
    taught = ("learned", "learned as worded", "updated", "kept")
    return {row["question"]: row["verdict"] for row in rows if row["verdict"] in taught}


# ----------------------------------------------------------- the second lesson


def test_the_start_is_recognised_and_the_states_linked(lessons: Lessons) -> None:
    first, second = (run.summary["run_id"] for run in (lessons.first, lessons.second))
    states = {row["state_id"]: row for row in lessons.ledger.read("states").to_pylist()}
    assert states[f"{first}:before"]["parent_id"] is None
    assert states[f"{second}:before"]["parent_id"] == f"{first}:after"
    assert states[f"{second}:before"]["fingerprint"] == states[f"{first}:after"]["fingerprint"]
    assert lessons.first.summary["earlier"] is None
    assert lessons.second.summary["earlier"]["state"] == f"{first}:after"
    assert lessons.second.summary["earlier"]["runs"] == [first]
    assert lessons.ledger.verify().ok


def test_what_the_first_lesson_taught_is_asked_again(lessons: Lessons) -> None:
    exam = Exam.read(lessons.second.out / "exam.jsonl")
    asked = {question.text: question for question in exam.part("earlier")}
    assert len(asked) >= 5
    assert set(asked) == set(taught_by(lessons, lessons.first)) - {TWICE.question, HELD.question}
    answers = {fact.question: fact.answers for fact in FIRST}
    assert all(question.answers == answers[text] for text, question in asked.items())
    first = [item.question for item in exam.items if item.part in FIRST_WORDINGS]
    assert len({question.fact_id for question in first}) == len({question.text for question in first})
    assert Exam.read(lessons.second.out / "exam.jsonl").fingerprint == exam.fingerprint


def test_every_fact_asked_again_has_a_verdict_and_the_share_is_theirs(lessons: Lessons) -> None:
    run = lessons.second.summary["run_id"]
    rows = lessons.ledger.read("verdicts", run_id=run, role="earlier").to_pylist()
    asked = lessons.ledger.read("answers", run_id=run, part="earlier", purpose="exam").to_pylist()
    assert len(asked) == 2 * len(rows) == 2 * lessons.second.summary["earlier"]["facts"]
    known = {
        when: {row["fact_id"] for row in asked if row["known"] and row["state_id"] == f"{run}:{when}"}
        for when in ("before", "after")
    }
    figure = lessons.second.summary["headline"]["earlier_retained"]
    assert figure["n"] == len(known["before"]) > 0
    assert figure["value"] == pytest.approx(len(known["before"] & known["after"]) / len(known["before"]))
    assert figure["low"] <= figure["value"] <= figure["high"]
    counts = lessons.second.summary["earlier"]["verdicts"]
    assert sum(counts.values()) == len(rows)
    assert counts["kept"] == len(known["before"] & known["after"])
    assert counts["forgotten"] + counts["corrupted"] == len(known["before"] - known["after"]) > 0
    assert sum(lessons.second.summary["verdicts"].values()) == 11 + 5, "the lesson's own facts, apart from those"
    assert "earlier_retained" not in lessons.first.summary["headline"]


def test_subjects_taught_again_are_left_out_and_listed(lessons: Lessons) -> None:
    told = {row["what"]: row["reason"] for row in lessons.second.summary["left_out"]}
    taught = taught_by(lessons, lessons.first)
    assert (TWICE.question in taught) == ("fact f0 of an earlier lesson" in told)
    assert (HELD.question in taught) == ("fact f1 of an earlier lesson" in told)
    reasons = " ".join(told.values())
    assert "'person 90', is taught again now" in reasons and "asked as a held-back fact" in reasons


def test_the_loss_is_printed_and_reported(lessons: Lessons, capsys: pytest.CaptureFixture[str]) -> None:
    from instil.cli.showing import show_taught
    from instil.cli.terminal import Terminal

    show_taught(Terminal(), lessons.second)
    shown = " ".join(capsys.readouterr().out.split())
    figure = lessons.second.summary["headline"]["earlier_retained"]
    assert f"Of {figure['n']} facts that 1 earlier lesson taught and the model knew" in shown
    assert "kept of earlier lessons" in shown
    page = lessons.second.report.read_text()
    assert 'id="card-earlier_retained"' in page and "Earlier lessons, before" in page
    assert 'id="card-earlier_retained"' not in lessons.first.report.read_text()


def test_a_diff_of_the_two_lessons_tells_the_same_loss(lessons: Lessons) -> None:
    first, second = (run.summary["run_id"] for run in (lessons.first, lessons.second))
    seen = diff(lessons.ledger, f"{first}:after", f"{second}:after")
    verdicts = {fact.question: fact for fact in seen.facts if fact.verdict_b in ("forgotten", "corrupted")}
    assert verdicts and all(fact.known_a and not fact.known_b for fact in verdicts.values())


def test_nothing_of_the_earlier_part_may_be_trained_on(lessons: Lessons) -> None:
    exam = Exam.read(lessons.second.out / "exam.jsonl")
    wording = exam.part("earlier")[0].text
    with pytest.raises(InputError, match="stands in the training data"):
        assert_not_taught(exam, ["A text.", f"Somebody asked: {wording.upper()}"])


# ------------------------------------------------ what counts as earlier lessons


def test_a_third_lesson_asks_again_what_both_taught(lessons: Lessons) -> None:
    earlier = found(lessons, lesson(400))
    assert earlier.runs == tuple(run.summary["run_id"] for run in (lessons.first, lessons.second))
    both = {**taught_by(lessons, lessons.first), **taught_by(lessons, lessons.second)}
    assert {fact.question for fact in earlier.facts} == set(both)
    assert len({fact.id for fact in (*earlier.facts, *lesson(400))}) == len(earlier.facts) + len(lesson(400))


def test_another_model_on_the_same_ledger_is_not_linked(lessons: Lessons) -> None:
    model, tokenizer = tiny_model("llama", seed=5)
    other = inputs_of(LanguageModel.of(model, tokenizer), lesson(400))
    earlier = earlier_lessons(lessons.ledger, other, "third")
    assert (earlier.state, earlier.runs, len(earlier.facts), earlier.others) == (None, (), 0, 2)


def test_the_base_itself_is_a_state_that_nothing_was_taught_before(lessons: Lessons) -> None:
    earlier = earlier_lessons(lessons.ledger, inputs_of(lessons.base, lesson(400)), "third")
    assert earlier.state == f"{lessons.first.summary['run_id']}:before"
    assert (earlier.runs, len(earlier.facts)) == ((), 0)


def test_a_lesson_does_not_go_on_from_itself(lessons: Lessons) -> None:
    own = lessons.first.summary["run_id"]
    inputs = inputs_of(lessons.base, FIRST)
    alone = Ledger(lessons.base.parent / "alone" / "ledger")
    assert earlier_lessons(alone, inputs, own).state is None
    assert earlier_lessons(alone, inputs, "another").state == f"{own}:before"
    assert earlier_lessons(Ledger(lessons.base.parent / "none yet"), inputs, own).others == 0


def test_documents_taught_now_take_their_facts_out(lessons: Lessons) -> None:
    every = found(lessons, lesson(400)).facts
    by_subject, by_wording = every[0], every[1]
    told = Corpus(
        [
            Document("d1", "Nothing in particular.", subject=by_subject.subject),
            Document("d2", f"Q: {by_wording.question} A: I forgot."),
        ]
    )
    earlier = found(lessons, lesson(400), told)
    assert {fact.id for fact in every} - {fact.id for fact in earlier.facts} == {by_subject.id, by_wording.id}
    reasons = [reason for _, reason in earlier.left_out]
    assert any("taught again now" in reason for reason in reasons)
    assert any("stands in a document" in reason for reason in reasons)


def test_no_more_are_asked_than_the_exam_allows_and_the_rest_is_listed(lessons: Lessons) -> None:
    every = found(lessons, lesson(400)).facts
    some = found(lessons, lesson(400), earlier=3)
    assert len(some.facts) == 3 and {fact.question for fact in some.facts} < {fact.question for fact in every}
    assert (f"{len(every) - 3} facts of earlier lessons", "more than the exam asks for") in some.left_out
    assert len(found(lessons, lesson(400), earlier=0).facts) == 0


def test_replayed_facts_are_not_asked_as_earlier_ones(lessons: Lessons) -> None:
    every = found(lessons, lesson(400)).facts
    replayed = dataclasses.replace(every[0], id="replayed", role=Role.KNOWN)
    earlier = found(lessons, lesson(400, replayed))
    assert {fact.question for fact in every} - {fact.question for fact in earlier.facts} == {every[0].question}
    assert any("practised or replayed" in reason for _, reason in earlier.left_out)


def test_relations_that_only_earlier_facts_have_get_exemplars_and_a_word_about_it(lessons: Lessons) -> None:
    inputs = inputs_of(lessons.base, FIRST)
    other = dataclasses.replace(FIRST[0], id="other", relation="died")
    drawn = exemplars_for(inputs, FactSet([FIRST[0], other]))
    assert {key: drawn.sets[key] for key in inputs.exemplars.sets} == dict(inputs.exemplars.sets)
    assert len(drawn.of("died")) == CONFIG["probe"]["exemplar_sets"]
    assert any("relation died" in line for line in set(drawn.warnings) - set(inputs.exemplars.warnings))
    assert exemplars_for(inputs, FIRST) is inputs.exemplars


# -------------------------------------------------------------- states and undo


def test_kept_states_load_with_plain_transformers_and_are_those_of_the_ledger(lessons: Lessons) -> None:
    from transformers import AutoModelForCausalLM

    kept = sorted(path.name for path in (lessons.first.out / "states").iterdir())
    assert kept == ["0-before", "1-fine-tuning"]
    assert not (lessons.second.out / "states").exists(), "only the taught model, by default"
    run = lessons.first.summary["run_id"]
    for row in lessons.ledger.read("states", run_id=run).to_pylist():
        if row["label"] == "undo":
            continue
        place = lessons.ledger.folder / row["path"]
        AutoModelForCausalLM.from_pretrained(place)
        assert load(place, dtype="float32").fingerprint == row["fingerprint"]


def test_undo_returns_to_the_start_where_it_was(lessons: Lessons) -> None:
    before = {path: fingerprint_file(path) for path in lessons.second.out.rglob("*") if path.is_file()}
    done = instil.undo(lessons.second.out)
    assert done.out == lessons.second.out / "undone" / "before"
    first, second = (run.summary for run in (lessons.first, lessons.second))
    assert (done.to, done.fingerprint) == (f"{second['run_id']}:before", second["model"]["fingerprint"])
    assert done.model.fingerprint == first["model"]["fingerprint_after"]
    (row,) = lessons.ledger.read("states", state_id=done.state).to_pylist()
    assert (row["label"], row["parent_id"], row["fingerprint"]) == ("undo", done.to, done.fingerprint)
    assert (lessons.ledger.folder / row["path"]).resolve() == done.out.resolve()
    assert all(fingerprint_file(path) == mark for path, mark in before.items()), "nothing is changed or deleted"
    again = instil.undo(lessons.second.out)
    assert (again.state, again.out) == (done.state, done.out)
    assert lessons.ledger.read("states", state_id=done.state).num_rows == 1


def test_a_lesson_from_an_undone_state_goes_on_from_the_state_returned_to(lessons: Lessons, tmp_path: Path) -> None:
    done = instil.undo(lessons.second.out, to="before", out=tmp_path / "back")
    earlier = earlier_lessons(lessons.ledger, inputs_of(done.out, lesson(400)), "third")
    assert earlier.runs == (lessons.first.summary["run_id"],)


@pytest.mark.parametrize("label", ["before", "fine-tuning", "after"])
def test_undo_to_any_state_that_was_kept(lessons: Lessons, tmp_path: Path, label: str) -> None:
    run = lessons.first.summary["run_id"]
    done = instil.undo(lessons.first.out, to=label, out=tmp_path / "out")
    (row,) = lessons.ledger.read("states", run_id=run, label=label).to_pylist()
    assert done.fingerprint == row["fingerprint"] == load(tmp_path / "out", dtype="float32").fingerprint
    assert instil.undo(lessons.second.out, to=f"{run}:{label}", out=tmp_path / "by id").fingerprint == done.fingerprint


def test_a_start_that_was_changed_since_is_not_taken_for_it(lessons: Lessons, tmp_path: Path) -> None:
    shutil.copytree(lessons.base.parent / "alone", tmp_path / "first")
    source = Path(lessons.first.summary["model"]["source"])
    shutil.move(source, tmp_path / "away")
    try:
        with pytest.raises(InputError, match=r"cannot be found again.*no such model folder"):
            instil.undo(tmp_path / "first")
        model, tokenizer = tiny_model("llama", seed=5)
        save(LanguageModel.of(model, tokenizer), source)
        with pytest.raises(InputError, match="its weights are others now"):
            instil.undo(tmp_path / "first")
        assert not (tmp_path / "first" / "undone" / "before").exists()
    finally:
        shutil.rmtree(source, ignore_errors=True)
        shutil.move(tmp_path / "away", source)
    assert instil.undo(tmp_path / "first").source == str(source)


def test_undo_says_what_it_did_and_refuses_what_it_cannot(
    lessons: Lessons, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(lessons.first.out), str(tmp_path / "out")
    assert main(["undo", run, "--out", out]) == 0
    assert "Nothing was deleted" in capsys.readouterr().out
    assert main(["undo", run, "--out", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == out
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    wrong = {
        ("undo", run, "--out", str(tmp_path / "full")): "holds something",
        ("undo", run, "--to", "stage 9", "--out", str(tmp_path / "new")): "no such state",
        ("undo", str(tmp_path / "full")): "no ledger",
        ("undo", run, "--to", "after", "--out", out): "holds something",
    }
    for words, said in wrong.items():
        assert main([*words]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_the_size_of_what_is_kept_is_said_before(
    lessons: Lessons, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = inputs_of(lessons.base, FIRST)
    assert [states_kept(inputs, keep) for keep in KEEP] == [1, 2, 3]
    weights = (lessons.base / "model.safetensors").stat().st_size
    kept = []
    for keep in KEEP:
        out = tmp_path / "new"
        plan = teach(lessons.base, FIRST, out=out, method="sft", config=CONFIG, dry_run=True, keep_states=keep)
        assert not isinstance(plan, TeachResult)
        kept.append(plan.kept_bytes)
    assert kept[0] > weights
    assert [more - kept[0] for more in kept] == pytest.approx([0, weights, 2 * weights], rel=0.2)
    asked = {"model": lessons.second.out / "model", "facts": lesson(400), "method": "sft", "config": CONFIG, "out": out}
    apart, linked = (teach(**asked, dry_run=True, ledger=ledger) for ledger in (None, lessons.ledger.folder))
    assert linked.exam_flops > apart.exam_flops, "what earlier lessons taught is asked besides"
    FIRST.write(tmp_path / "facts.jsonl")
    words = ["teach", str(lessons.base), str(tmp_path / "facts.jsonl"), "--method", "sft", "--out", str(out)]
    assert main([*words, "--keep-states", "all", "--dry-run"]) == 0
    assert "the states kept" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--keep-states", "everything"]) == 2
    assert "after | stages | all" in capsys.readouterr().err
    assert not out.exists()
