"""Methods that read documents: their stages are the paper's, and no question about a taught document is in any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import instil
from instil.errors import InputError
from instil.facts import Corpus, Document, Fact, FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.loop import teach
from instil.loop.estimate import Estimate
from instil.loop.inputs import read_inputs
from instil.loop.run import TeachResult
from instil.methods import NAMES, get
from instil.training import Arrangement, Balance, Stage, TrainConfig
from instil.training.batches import collate
from instil.training.packing import epoch_windows
from tests.half_taught import SECTIONS, half_taught, practised, practised_documents
from tests.test_training_examples import Letters

PLANNED = [name for name in NAMES if get(name).plan and "documents" in get(name).needs]
READING = [name for name in NAMES if "practice" in get(name).needs]


def question(number: int, about: str, role: Role = Role.PRACTICE) -> Fact:
    return Fact(f"q{about}{number}", f"Which {number} of {about}?", ("Bonn",), about, documents=(about,), role=role)


def roles() -> Roles:
    practice = [question(number, about) for about in "abcdef" for number in range(2)]
    return Roles(
        practice=FactSet([*practice, question(0, "z")]),
        practice_documents=Corpus(Document(about, f"All of {about}, at length.") for about in "abcdef"),
        documents=Corpus(Document(about, f"News of {about}.") for about in "xy"),
    )


def stages(name: str, **given: Any) -> list[Stage]:
    method = get(name)
    assert method.plan is not None
    return list(method.plan(roles(), method.settings(given)))


def shape(found: Sequence[Stage]) -> list[str]:
    """Each stage as the paper's tables write it."""
    return [
        " + ".join(
            word
            for word, there in (
                ("train QA", len(stage.questions)),
                ("train doc", set("abcdef") & set(stage.documents.by_id)),
                ("test doc", set("xy") & set(stage.documents.by_id)),
            )
            if there
        )
        for stage in found
    ]


TABLE_2: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "continued pre-training (1)": ("cpt", {}, ["test doc"]),
    "+instruction-tuning (2)": ("cpt_sft", {}, ["train doc + test doc", "train QA"]),
    "(w/o forget) (3)": ("cpt_sft", {"go_on_reading": True}, ["train doc + test doc", "train QA + test doc"]),
    "(w/o train doc)": ("cpt_sft", {"practice_documents": False}, ["test doc", "train QA"]),
    "mix all data (4)": ("mixed", {}, ["train QA + train doc + test doc"]),
    "PIT (QA only) (5)": ("pit", {"order": "questions-only"}, ["train QA", "test doc"]),
    "PIT (QA, docs) (6)": ("pit", {"order": "sequential"}, ["train QA", "train doc", "test doc"]),
    "PIT (7)": ("pit", {"order": "pit"}, ["train QA + train doc", "test doc"]),
    "PIT--": ("pit", {"order": "pit--"}, ["train QA + train doc", "train QA", "test doc"]),
    "PIT++ (8)": ("pit", {"order": "pit++"}, ["train QA", "train QA + train doc", "test doc"]),
}


@pytest.mark.parametrize("setting", TABLE_2)
def test_stages_are_those_of_the_paper(setting: str) -> None:
    name, given, expected = TABLE_2[setting]
    found = stages(name, **given)
    assert shape(found) == expected
    assert len({stage.name for stage in found}) == len(found)


def test_epochs_and_rates_are_the_papers_unless_set() -> None:
    first, together, target = stages("pit", train={"learning_rate": 3e-5})
    assert [stage.config.epochs for stage in (first, together, target)] == [3, 3, 10]
    assert [stage.config.learning_rate for stage in (first, together, target)] == pytest.approx([5e-6, 3e-5, 3e-5])
    reading, tuning = stages("cpt_sft", train={"learning_rate": 3e-5})
    assert (reading.config.epochs, tuning.config.epochs) == (10, 1)
    assert tuning.config.learning_rate == pytest.approx(5e-6)
    some = stages("mixed", questions_per_document=0.5)[0]
    assert len(some.questions) == 4 and len(some.documents) == 8
    assert len(stages("pit", kept_questions=5)[-1].questions) == 5


def test_orders_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="has no stage of questions with documents"):
        get("pit").settings({"order": "sequential", "arrangement": "before-grouped"})
    plan = get("pit").plan
    assert plan is not None
    bare = Roles(practice=roles().practice, documents=roles().documents)
    with pytest.raises(InputError, match="no practice document"):
        plan(bare, get("pit").settings({}))
    assert len(plan(bare, get("pit").settings({"order": "questions-only"}))) == 2


@pytest.mark.parametrize("arrangement", [each for each in Arrangement if each is not Arrangement.SHUFFLED])
def test_questions_stay_on_their_side_of_their_document(arrangement: Arrangement) -> None:
    """Figure 6: interleaved q d · q d · q d, grouped q q q d d d, or the other way round."""
    config, data = TrainConfig(epochs=3, batch_size=2), roles()
    stage = Stage("s", config, data.practice, data.practice_documents, arrangement)
    examples, grouped = stage.examples(Letters(), 1000), "grouped" in arrangement
    assert stage.training.epochs == (1 if grouped else 3)
    seen: dict[str, list[int]] = {}
    step = 0
    for epoch in range(stage.training.epochs):
        phases = [example.phase for example in examples]
        for window in epoch_windows([len(e) for e in examples], seed=0, epoch=epoch, phases=phases, batch_size=2):
            for index in window:
                seen.setdefault(examples[index].key, []).append(step)
            step += 1
    assert {len(steps) for steps in seen.values()} == {3} and len(seen) == 6 + 12 + 1
    for about in "abcdef":
        for number in range(2):
            questions, documents = seen[f"q{about}{number}"], seen[about]
            pairs = [(max(questions), min(documents))] if grouped else list(zip(questions, documents, strict=True))
            if grouped and arrangement is Arrangement.AFTER_GROUPED:
                pairs = [(min(questions), max(documents))]
            assert all((q < d) == ("before" in arrangement) for q, d in pairs), (questions, documents)


def test_shuffled_mixes_all_in_one_phase() -> None:
    data = roles()
    examples = Stage("s", TrainConfig(), data.practice, data.practice_documents).examples(Letters(), 1000)
    assert {example.phase for example in examples} == {0} and {example.weight for example in examples} == {1.0}
    assert sorted(example.key for example in examples) == sorted([*data.practice.by_id, *"abcdef"])


def test_balance_by_examples_is_the_mean_of_means() -> None:
    """Section 3.1: each document and each question counts alike, a document that was split as one."""
    data = roles()
    long = Corpus([*data.practice_documents, Document("long", "word " * 40)])
    stage = Stage("s", TrainConfig(row_length=64), data.practice, long, balance=Balance.EXAMPLES, question_weight=2.0)
    examples = stage.examples(Letters(), 1000)
    assert sum(example.key == "long" for example in examples) > 1
    total = sum(example.weight * example.targets for example in examples)
    batch = collate([(n,) for n in range(len(examples))], examples, total_weight=total, pad_id=0)
    losses = torch.arange(len(batch.targets_N), dtype=torch.float64) % 7
    fast = float((losses * batch.weights_N).sum())
    means: dict[str, list[float]] = {}
    start = 0
    for example in examples:
        means.setdefault(example.key, []).extend(losses[start : start + example.targets].tolist())
        start += example.targets
    weight = {key: 2.0 if key.startswith("q") else 1.0 for key in means}
    naive = sum(weight[key] * sum(found) / len(found) for key, found in means.items()) / sum(weight.values())
    assert fast == pytest.approx(naive, abs=1e-5)


def test_a_stage_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="s has nothing to train on"):
        Stage("s", TrainConfig()).examples(Letters(), 100)


def inputs(method: str, facts: FactSet | None = None, documents: Corpus | None = None, **changes: Any) -> Any:
    nothing = dict.fromkeys(("budget", "roles", "general", "adapter"))
    call = {"method": method, "seed": 0, "dtype": "auto", "device": "auto", "config": SECTIONS, **nothing, **changes}
    return read_inputs(half_taught(), facts or practised(), documents=documents or practised_documents(), **call)


@pytest.mark.parametrize("name", PLANNED)
def test_invariant_6_no_question_about_a_taught_document_is_in_any_stage(name: str) -> None:
    found = inputs(name)
    assert len(found.documents) == len(found.exam_only) > 10 < len(found.roles[Role.TARGET])
    assert found.guarded == found.exam_only
    assert len(found.practice_documents) == len(found.roles[Role.PRACTICE]) > 5
    for stage in found.method.plan(found.lesson_roles, found.settings):
        assert {fact.role for fact in stage.questions} <= {Role.PRACTICE}
        assert {document.original for document in stage.documents} <= {
            document.id for document in (*found.documents, *found.practice_documents)
        }
    assert f"{len(found.exam_only)} target questions about taught documents, in the exam only" in found.in_words()


def test_what_a_method_lacks_is_said_before_anything_runs() -> None:
    told = practised().where(lambda fact: fact.role is not Role.TARGET or int(fact.id[1:]) % 3 == 0)
    with pytest.raises(InputError, match="method sft needs questions to train on"):
        inputs("sft", told)
    unpractised = practised().where(lambda fact: fact.role is not Role.PRACTICE)
    with pytest.raises(InputError, match=r"method pit needs practice questions.*--practice-share"):
        inputs("pit", unpractised)
    with pytest.raises(InputError, match="--practice-share"):
        inputs("pit", practice_share=0.9)
    drawn = inputs("pit", practised().assign(None), practice_share=0.4)
    assert len(drawn.roles[Role.PRACTICE]) > 20 and len(drawn.practice_documents)


def test_a_question_that_stands_in_a_taught_document_is_listed() -> None:
    fact = next(fact for fact in practised().with_role(Role.TARGET) if int(fact.id[1:]) % 3 == 0)
    faq = Document("faq", f"Q: {fact.question}\nA: {fact.answers[0]}", subject=fact.subject)
    given = Corpus([*practised_documents(), faq])
    found = inputs("cpt", documents=given)
    assert found.exam_only - found.guarded == {fact.id}
    assert any(what == f"fact {fact.id}" and "stands in a taught document" in why for what, why in found.left_out)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> TeachResult:
    call = {"method": "pit", "documents": practised_documents(), "config": CONFIG}
    result = teach(half_taught(), practised(), out=tmp_path_factory.mktemp("pit") / "run", **call)
    assert isinstance(result, TeachResult)
    return result


CONFIG = {"train": {"epochs": 2, "learning_rate": 2e-3, "batch_size": 8, "save_every": "never"}, **SECTIONS}


def test_the_run_says_what_was_read_and_what_is_asked_only(read: TeachResult) -> None:
    data, figures = read.summary["data"], read.summary["headline"]
    assert data["documents"] == data["exam_only"] > 10 and data["practice_documents"] == data["facts"]["practice"] > 5
    assert figures["accuracy_documents_after"]["n"] == data["exam_only"] < figures["accuracy_target_after"]["n"]
    assert figures["acquired_from_documents"]["value"] is not None
    assert list(read.curves.stage.unique()) == [
        "practice questions",
        "practice questions with documents",
        "target documents",
    ]
    assert "Learned from documents" in read.report.read_text(encoding="utf-8")


def test_a_dry_run_reads_the_plan_that_is_followed(read: TeachResult, tmp_path: Path) -> None:
    call = {"method": "pit", "documents": practised_documents(), "config": CONFIG}
    found = teach(half_taught(), practised(), out=tmp_path / "run", dry_run=True, **call)
    assert isinstance(found, Estimate)
    assert found.training_tokens == read.curves.groupby("stage").tokens.max().sum()


def test_a_budget_is_divided_among_the_stages(read: TeachResult, tmp_path: Path) -> None:
    whole = read.summary["cost"]["training"]["flops"]
    call = {"method": "pit", "documents": practised_documents(), "config": CONFIG}
    run = teach(half_taught(), practised(), out=tmp_path / "run", budget=0.6 * whole, **call)
    assert isinstance(run, TeachResult)
    spent = [frame.groupby("stage").tokens.max() for frame in (read.curves, run.curves)]
    assert set(spent[0].index) == set(spent[1].index)
    shares = spent[1] / spent[0]
    assert shares["target documents"] > 0.45, "the last stage does not starve"
    assert shares["practice questions with documents"] < 1
    step = whole / read.curves.groupby("stage").step.max().sum()
    assert run.summary["budget"]["spent"] <= 0.6 * whole + 2 * step


def test_compare_takes_documents(tmp_path: Path) -> None:
    config = {**CONFIG, "exam": {"wordings": 1, "held_back_wordings": 0, "reworded_sets": 2, "resamples": 200}}
    call: dict[str, Any] = {"documents": practised_documents(), "config": {**config, "train": {"epochs": 1}}}
    with pytest.raises(InputError, match="arm pit needs practice"):
        none = practised().where(lambda fact: fact.role is not Role.PRACTICE)
        instil.compare(half_taught(), none, methods="cpt,pit", out=tmp_path / "none", **call)
    found = instil.compare(half_taught(), practised(), methods="cpt,mixed", seeds=1, out=tmp_path / "out", **call)
    assert [len(arm["runs"]) for arm in found.summary["arms"]] == [1, 1] and not found.failures
    assert found.summary["data"]["exam_only"] > 10
