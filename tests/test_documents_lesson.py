"""A lesson of documents alone, from files to the report, with a tiny real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instil.cli import main
from instil.errors import InputError
from instil.exam import Exam
from instil.facts import Corpus, Role
from instil.loop import teach
from instil.loop.inputs import read_inputs
from tests.half_taught import facts, half_taught
from tests.test_exam_cloze import lives

CONFIG: dict[str, Any] = {
    "train": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8, "save_every": "never"},
    "probe": {"exemplar_sets": 2, "shots": 1, "max_answer_tokens": 8},
    "exam": {"resamples": 200, "general_texts": 2, "confidence_sets": 1, "cloze": {"per_document": 2, "items": 12}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lives as pages of text, Markdown and HTML."""
    folder = tmp_path_factory.mktemp("pages")
    for number, life in enumerate(lives()):
        head, _, body = life.text.partition("\n\n")
        pages = {
            ".txt": life.text,
            ".md": f"# {head}\n\n{body}",
            ".html": f"<html><title>{head}</title><h1>{head}</h1><p>{body}</p><script>x</script>",
        }
        suffix = list(pages)[number % 3]
        (folder / f"{life.id}{suffix}").write_text(pages[suffix], encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("lesson") / "run"
    return teach(half_taught(), documents=folder, method="cpt", out=out, config=CONFIG)


def test_the_exam_is_made_from_the_text_and_frozen(run: Any, folder: Path) -> None:
    exam = Exam.read(run.out / "exam.jsonl")
    assert set(exam.parts) == {"as_worded", "reworded", "held_back", "held_back_reworded", "choice"}
    taught = {item.question.subject for item in exam.by_part["as_worded"]}
    assert taught.isdisjoint(item.question.subject for item in exam.by_part["held_back"])
    again = read_again(folder)
    assert again.documents.fingerprint == run.summary["data"]["documents_fingerprint"]
    assert again.facts_fingerprint == run.summary["data"]["facts_fingerprint"]


def read_again(folder: Path, **changes: Any) -> Any:
    call: dict[str, Any] = {"method": "cpt", "documents": folder, "config": CONFIG, "budget": None, "seed": 0}
    call |= {"roles": None, "general": None, "adapter": None, "dtype": "auto", "device": "auto", **changes}
    return read_inputs(half_taught(), None, **call)


def test_the_summary_and_the_report_speak_of_cloze_items(run: Any) -> None:
    cloze = run.summary["data"]["cloze"]
    assert cloze["documents"] == 24 and cloze["passages"] is None
    assert cloze["taught"] == run.summary["data"]["documents"] == 24 - cloze["held_back"] - cloze["exemplar"]
    assert cloze["items"]["target"] == sum(run.summary["verdicts"].values()) - cloze["items"]["held_back"]
    for figure in ("acquired", "accuracy_reworded_after", "accuracy_choice_after", "made_up", "perplexity_ratio"):
        assert figure in run.summary["headline"]
    report = json.loads((run.out / "report.json").read_text(encoding="utf-8"))
    said = report["headline"]["sentence"]
    assert said.startswith(f"Taught {cloze['taught']} documents, asked in 12 cloze items of their text:")
    assert "fact" not in said + report["headline"]["scale"]
    assert any("A cloze item is" in line for line in report["headline"]["details"])
    page = (run.out / "report.html").read_text(encoding="utf-8")
    assert "New cloze items learned" in page and said in page


def test_no_method_sees_the_items(run: Any, folder: Path) -> None:
    from instil.loop.folder import RunFolder
    from instil.loop.run import Run

    inputs = read_again(folder)
    assert len(inputs.roles[Role.TARGET])
    lesson = Run.lesson.__get__(_Bare(inputs, RunFolder(run.out)))(Exam.read(run.out / "exam.jsonl"))
    assert not len(lesson.target) and not len(lesson.development)
    assert {document.id for document in lesson.documents} == {document.id for document in inputs.documents}


class _Bare:
    """What `Run.lesson` looks at, without a run."""

    def __init__(self, inputs: Any, folder: Any) -> None:
        from instil.training import Budget, Meter

        self.inputs, self.folder, self.run_id = inputs, folder, "r"
        self.budget, self.meter = Budget(flops=None), Meter()
        self.ledger, self.tell, self.keep_stage = None, None, None


def test_a_method_that_learns_from_questions_is_refused(folder: Path, tmp_path: Path) -> None:
    for method in ("sft", "gradual"):
        with pytest.raises(InputError, match="teaches facts, and there are only documents"):
            read_again(folder, method=method)


def test_facts_that_the_user_brings_are_asked_too(folder: Path) -> None:
    brought = facts().with_role(Role.HELD_BACK)
    inputs = read_again(folder, roles={Role.HELD_BACK: brought})
    assert {fact.id for fact in brought} < {fact.id for fact in inputs.roles[Role.HELD_BACK]}
    assert inputs.cloze is not None


def test_a_question_fits_with_the_worked_ones(folder: Path) -> None:
    inputs = read_again(folder, config={**CONFIG, "probe": {"exemplar_sets": 2, "shots": 4, "max_answer_tokens": 8}})
    prompts, window = inputs.model.prompts, inputs.model.context_window
    asked = [fact for group in inputs.roles.values() for fact in group]
    longest = max(len(prompts.question_ids(fact.question)) for fact in asked)
    assert 5 * longest < window


def test_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = tmp_path / "exam.jsonl"
    assert main(["exam", "build", "--documents", str(folder), "--out", str(exam), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["questions"]["as_worded"] > 20 and told["questions"]["reworded"] > 20
    assert Exam.read(exam).fingerprint == told["fingerprint"]
    facts().write(tmp_path / "facts.jsonl")
    for given in ([], [str(tmp_path / "facts.jsonl"), "--documents", str(folder)]):
        assert main(["exam", "build", *given, "--out", str(tmp_path / "other.jsonl")]) == 2
        assert "an exam is made from facts or from documents" in capsys.readouterr().err
    assert main(["teach", "embedded", "--method", "sft", "--documents", str(folder), "--out", str(tmp_path / "r")]) == 2
    assert "only documents" in capsys.readouterr().err
    rows = tmp_path / "rows.jsonl"
    Corpus(lives(3)).write(rows)
    assert main(["exam", "build", "--documents", str(rows), "--out", str(tmp_path / "rows-exam.jsonl"), "--quiet"]) == 0
