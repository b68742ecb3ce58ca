"""A fact set as a task of lm-eval: what is written, what is marked, and that the harness gives our greedy answers."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instil.answers import is_correct, normalise
from instil.cli import main
from instil.errors import InputError
from instil.facts import Fact, FactSet
from instil.files import fingerprint_file
from instil.model import LanguageModel, load, save
from instil.probe import ProbeConfig, probe
from instil.probe.harness import OTHER_LIMIT, OTHER_TOKENS, export, harness_ids, scoring_source, task_name
from tests.models import tiny_model
from tests.probing import people_facts, taught_lm

CONFIG = ProbeConfig(exemplar_sets=3, shots=2, max_answer_tokens=12, prior=False)

pytestmark = [
    pytest.mark.filterwarnings("ignore:relation"),
    pytest.mark.filterwarnings("ignore:3 exemplar sets"),
    pytest.mark.filterwarnings("ignore:facts without a relation"),
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _documents(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "docs.jsonl").read_text(encoding="utf-8").split("\n") if line]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("shipped") / "utils.py"
    path.write_text(scoring_source(), encoding="utf-8")
    return _module(path)


def test_an_export_is_one_document_a_prompt_and_says_what_it_holds(tmp_path: Path) -> None:
    lm, facts = taught_lm()
    done = export(lm, facts, config=CONFIG, out=tmp_path / "task", name="People, 2!")
    assert done.task == "instil_people_2"
    assert (done.facts, done.prompts, done.differ, done.limit) == (len(facts), 3 * len(facts), {}, 12)
    names = {"docs.jsonl", "utils.py", "README.md", "export.json", "instil_people_2.yaml"}
    assert {path.name for path in (tmp_path / "task").iterdir()} == names
    documents = _documents(tmp_path / "task")
    assert [(one["fact_id"], one["exemplar_set"]) for one in documents] == [
        (fact.id, number) for fact in facts for number in range(3)
    ]
    assert all(one["prompt"].startswith("<s>Q: ") and one["prompt"].endswith("\nA:") for one in documents)
    assert all(one["prompt"].count("Q: ") == 3 for one in documents)
    record = json.loads((tmp_path / "task" / "export.json").read_text())
    assert record["facts_fingerprint"] == facts.fingerprint
    assert record["prompts"] == 48


def test_the_text_of_a_prompt_gives_the_probes_ids(tmp_path: Path) -> None:
    lm, facts = taught_lm()
    export(lm, facts, config=CONFIG, out=tmp_path / "task")
    one = _documents(tmp_path / "task")[0]
    ids = harness_ids(lm.prompts.tokenizer, [one["prompt"]])[0]
    assert ids[0] == lm.tokenizer.bos_token_id
    assert lm.prompts.decode(ids) == one["prompt"]
    assert tuple(ids[-len(lm.prompts.question_ids(facts[0].question)) :]) == lm.prompts.question_ids(facts[0].question)


@pytest.mark.parametrize("kind", ["byte", "modern", "metaspace"])
@pytest.mark.parametrize("chat", [False, True])
def test_prompts_that_the_harness_tokenises_otherwise_are_marked(kind: str, chat: bool, tmp_path: Path) -> None:
    """As an answer ends with a full stop, the line break behind it becomes one token with it, in modern tokenizers."""
    model, tokenizer = tiny_model("llama", kind=kind, chat=chat)
    lm = LanguageModel.of(model, tokenizer)
    answers = ["Jr.", "Vienna", "Paris", "London", "Warsaw", "U.S.A."]
    facts = FactSet(Fact(f"f{n}", f"Where was {n} born?", (answer,)) for n, answer in enumerate(answers))
    done = export(lm, facts, config=CONFIG, out=tmp_path / "task")
    documents = _documents(tmp_path / "task")
    for one in documents:
        theirs = harness_ids(lm.prompts.tokenizer, [one["prompt"]])[0]
        asked = lm.prompts.question_ids(facts.by_id[one["fact_id"]].question)
        ours = lm.prompts.prefix_ids(_worked(one["prompt"], facts)) + asked
        assert (list(ours) != theirs) == (one["differs"] == OTHER_TOKENS)
    assert sum(done.differ.values()) == sum(bool(one["differs"]) for one in documents)
    if kind == "modern" and not chat:
        assert 0 < done.differ[OTHER_TOKENS] < len(documents)
        assert all((".\n" in one["prompt"]) == bool(one["differs"]) for one in documents)
    if kind == "byte":
        assert not done.differ


def _worked(prompt: str, facts: FactSet) -> list[tuple[str, str]]:
    """The worked questions of a prompt, in its order, found again in its text."""
    found = sorted((prompt.index(fact.question), fact) for fact in facts if fact.question in prompt)
    return [(fact.question, fact.answers[0]) for _, fact in found[:-1]]


def test_a_special_token_in_a_question_is_marked(tmp_path: Path) -> None:
    """The probe takes the text "</s>" for text, the harness for the end token."""
    lm, _ = taught_lm()
    plain = [Fact(f"f{n}", f"Where was {n} born?", ("Paris",)) for n in range(5)]
    facts = FactSet([*plain, Fact("odd", "What is </s>?", ("Paris",))])
    export(lm, facts, FactSet(plain), CONFIG, out=tmp_path / "task")
    marked = {one["fact_id"] for one in _documents(tmp_path / "task") if one["differs"] == OTHER_TOKENS}
    assert marked == {"odd"}


def test_an_answer_longer_than_the_rest_is_marked(tmp_path: Path) -> None:
    lm, facts = taught_lm()
    long = Fact("long", "What did she say?", ("one two three four five six seven eight nine ten eleven twelve",))
    done = export(lm, FactSet([*facts, long]), facts, CONFIG, out=tmp_path / "task")
    assert done.differ == {OTHER_LIMIT: 3}
    assert done.limit == 12


def test_a_prompt_that_the_harness_would_cut_is_marked(tmp_path: Path) -> None:
    lm, facts = taught_lm()
    export(lm, facts, config=CONFIG, out=tmp_path / "wide")
    sizes = [len(harness_ids(lm.tokenizer, [one["prompt"]])[0]) for one in _documents(tmp_path / "wide")]
    window = max(sizes) + 10
    tight = replace(lm, model=tiny_model("llama", positions=window)[0])
    done = export(tight, facts, config=CONFIG, out=tmp_path / "task")
    marks = [one["differs"] for one in _documents(tmp_path / "task")]
    assert all(mark or size + done.limit <= window for mark, size in zip(marks, sizes, strict=True))
    assert 0 < done.differ[OTHER_LIMIT] < len(sizes)


def test_the_task_stops_where_the_probe_does(tmp_path: Path) -> None:
    lm, facts = taught_lm()
    export(lm, facts, config=CONFIG, out=tmp_path / "task", name="t")
    text = (tmp_path / "task" / "instil_t.yaml").read_text()
    settings = yaml.safe_load(text.replace("!function", ""))
    assert settings["generation_kwargs"] == {
        "until": ["\n", "\r"],
        "max_gen_toks": 12,
        "do_sample": False,
        "temperature": 0.0,
    }
    assert settings["num_fewshot"] == 0


def test_end_tokens_that_generate_does_not_know_are_named(tmp_path: Path) -> None:
    model, tokenizer = tiny_model("llama")
    tokenizer.add_tokens(["<|turn|>"])
    model.resize_token_embeddings(len(tokenizer))
    model.config.eos_token_id = [1, len(tokenizer) - 1]
    model.generation_config.eos_token_id = 1
    export(LanguageModel.of(model, tokenizer), people_facts(), config=CONFIG, out=tmp_path / "task", name="t")
    settings = yaml.safe_load((tmp_path / "task" / "instil_t.yaml").read_text().replace("!function", ""))
    assert settings["generation_kwargs"]["eos_token_id"] == [1, len(tokenizer) - 1]
    assert "<|turn|>" in settings["generation_kwargs"]["until"]


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    lm, facts = taught_lm()
    with pytest.raises(InputError, match="nothing to export"):
        export(lm, FactSet(()), out=tmp_path / "task")
    model, tokenizer = tiny_model("llama")
    model.generation_config.eos_token_id = [1, 400]
    with pytest.raises(InputError, match="ordinary"):
        export(LanguageModel.of(model, tokenizer), facts, config=CONFIG, out=tmp_path / "task")
    assert not (tmp_path / "task").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(InputError, match="not empty"):
        export(lm, facts, config=CONFIG, out=tmp_path / "full")


@pytest.mark.parametrize(
    ("name", "task"),
    [("P19.dev", "instil_p19_dev"), ("", "instil_facts"), ("Städte*", "instil_st_dte"), ("a,b", "instil_a_b")],
)
def test_a_task_has_a_name_that_the_harness_takes(name: str, task: str) -> None:
    assert task_name(name) == task


@given(text=st.text(), answers=st.lists(st.text(), min_size=1, max_size=3))
def test_the_shipped_scoring_is_ours(shipped: ModuleType, text: str, answers: list[str]) -> None:
    assert shipped.normalise(text) == normalise(text)
    document = {"fact_id": "f", "answers": answers, "differs": ""}
    assert shipped.process_results(document, [text])["exact_match"] == ("f", float(is_correct(text, answers)))


def test_the_shipped_scores_are_put_together_by_fact(shipped: ModuleType) -> None:
    values = [("a", 1.0), ("b", 0.0), ("a", 1.0), ("b", 1.0), ("c", 0.0), ("c", 0.0)]
    assert shipped.accuracy(values) == 3 / 6
    assert shipped.known(values) == pytest.approx(2 / 3)
    assert shipped.highly_known(values) == pytest.approx(1 / 3)


def test_the_shipped_scoring_needs_no_instil(tmp_path: Path) -> None:
    assert "import instil" not in scoring_source()
    assert "from instil" not in scoring_source()


def test_the_command_writes_the_task_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm, facts = taught_lm()
    save(lm, tmp_path / "model")
    facts.write(tmp_path / "people.jsonl")
    words = ["facts", "export", str(tmp_path / "people.jsonl"), "--model", str(tmp_path / "model"), "--style", "base"]
    small = ["--set", "exemplar_sets=3", "--set", "shots=2"]
    assert main([*words, "--out", str(tmp_path / "task"), *small]) == 0
    out, _ = capsys.readouterr()
    assert "16 facts as 48 prompts of the task instil_people" in out
    assert f"--include_path {tmp_path / 'task'}" in out
    assert main([*words, "--out", str(tmp_path / "again"), *small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 48
    same = [fingerprint_file(tmp_path / folder / "docs.jsonl") for folder in ("task", "again")]
    assert same[0] == same[1]
    assert main([*words, "--out", str(tmp_path / "task"), *small]) == 2
    assert main([*words, "--out", str(tmp_path / "other"), "--to", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


def test_the_command_needs_no_weights(tmp_path: Path) -> None:
    model, tokenizer = tiny_model("llama")
    model.generation_config.eos_token_id = [1, tokenizer.bos_token_id]
    save(LanguageModel.of(model, tokenizer), tmp_path / "model")
    facts = people_facts()
    facts.write(tmp_path / "people.jsonl")
    export(load(tmp_path / "model"), facts, config=CONFIG, out=tmp_path / "whole", name="people")
    for path in (tmp_path / "model").glob("*.safetensors"):
        path.unlink()
    words = ["facts", "export", str(tmp_path / "people.jsonl"), "--model", str(tmp_path / "model")]
    settings = ["exemplar_sets=3", "shots=2", "max_answer_tokens=12", "prior=false"]
    sets = [word for one in settings for word in ("--set", one)]
    assert main([*words, *sets, "--out", str(tmp_path / "task")]) == 0
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in (tmp_path / "task").iterdir()}
    for name in names:
        assert (tmp_path / "task" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_harness_itself_gives_our_greedy_answers_fact_by_fact(batch_size: int, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (the extra `bench`)")
    from studies.harness_agreement import by_fact, run_harness

    lm, facts = taught_lm()
    expected = probe(lm, facts, config=CONFIG)
    done = export(lm, facts, config=CONFIG, out=tmp_path / "task", name="people")
    found = run_harness(lm, tmp_path / "task", done.task, batch_size)
    assert by_fact(found["samples"]) == {row.fact_id: row.greedy_right_by_set for row in expected}
    assert found["scores"]["exact_match"] == pytest.approx(sum(row.p_greedy for row in expected) / len(expected))
    assert found["scores"]["known"] == sum(row.known for row in expected) / len(expected)
    assert found["scores"]["highly_known"] == sum(row.p_greedy == 1 for row in expected) / len(expected)
    assert 0 < found["scores"]["exact_match"] < 1, "a model that is always right or wrong shows nothing"
