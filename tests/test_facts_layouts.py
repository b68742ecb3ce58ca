"""The public layouts, from small samples in their own shape and from the real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError
from instil.facts import Fact, iter_facts, locality_facts, read_documents, read_facts
from instil.facts.layouts import LAYOUTS, Templates, by_name, recognise
from instil.facts.layouts.entityquestions import PUBLISHED

SAMPLES: dict[str, tuple[str, Any]] = {
    "instil": ("instil", {"id": "1", "question": "Who?", "answers": ["A"], "paraphrases": ["Which?"]}),
    "instil, one answer": ("instil", {"question": "Who?", "answer": "A"}),
    "EntityQuestions": ("entityquestions", {"question": "Where was Ada born?", "answers": ["London"]}),
    "EntityQuestions, enriched": (
        "entityquestions",
        {"id": "P19-0", "relation": "P19", "subject": "Ada", "question": "Where was Ada born?", "answers": ["London"]},
    ),
    "PopQA": (
        "popqa",
        {
            "id": 4, "subj": "George", "prop": "occupation", "obj": "politician", "subj_id": 1, "s_pop": 142,
            "o_aliases": '["pol"]', "question": "What is George's occupation?",
            "possible_answers": '["politician", "polit."]',
        },
    ),
    "CounterFact": (
        "counterfact",
        {
            "case_id": 0, "pararel_idx": 2796,
            "requested_rewrite": {
                "prompt": "The mother tongue of {} is", "relation_id": "P103",
                "target_new": {"str": "English", "id": "Q1860"}, "target_true": {"str": "French", "id": "Q150"},
                "subject": "Danielle Darrieux",
            },
            "paraphrase_prompts": ["Danielle Darrieux, a native"],
            "neighborhood_prompts": ["Michel Rocard is a native speaker of", "The native language of Raymond Barre is"],
            "attribute_prompts": [], "generation_prompts": ["Danielle Darrieux's mother tongue is"],
        },
    ),
    "CounterFact, flattened": (
        "counterfact",
        {
            "case_id": 0, "prompt": "The mother tongue of Danielle Darrieux is", "target_new": "English",
            "subject": "Danielle Darrieux", "ground_truth": "French", "rephrase_prompt": "Danielle Darrieux, a native",
            "locality_prompt": "Michel Rocard is a native speaker of", "locality_ground_truth": "French",
        },
    ),
    "zsRE": (
        "zsre",
        {
            "subject": "Watts Humphrey", "src": "What university did Watts Humphrey attend?", "pred": "Trinity College",
            "rephrase": "What university did Watts Humphrey take part in?", "alt": "University of Michigan",
            "answers": ["Illinois Institute of Technology"], "loc": "nq question: who played desmond in lost",
            "loc_ans": "Nicolas Cage", "cond": "Trinity College >> University of Michigan",
        },
    ),
    "SQuAD, published": (
        "squad",
        {
            "version": "1.1",
            "data": [{
                "title": "Ada", "paragraphs": [{
                    "context": "Ada was born in London.",
                    "qas": [{"id": "q1", "question": "Where?", "answers": [{"text": "London", "answer_start": 1}] * 2}],
                }],
            }],
        },
    ),
    "SQuAD, rows": (
        "squad",
        {
            "id": "q1", "title": "Ada", "context": "Ada was born in London.", "question": "Where?",
            "answers": {"text": ["London", "London"], "answer_start": [16, 16]},
        },
    ),
    "SQuAD, passages": (
        "squad",
        {
            "id": "p", "title": "Ada", "text": "Ada was born in London.",
            "questions": [{"question": "Where?", "answers": ["London"]}, {"question": "Who?", "answers": ["Ada"]}],
        },
    ),
    "triples": ("triples", {"subject": "Ada", "relation": "P19", "object": "London"}),
    "triples of LAMA": ("triples", {"sub_label": "Ada", "predicate_id": "P19", "obj_label": "London"}),
    "triples, head and tail": ("triples", {"head": "Ada", "relation": "P19", "tail": "London"}),
}  # fmt: skip


def put(folder: Path, *rows: Any, name: str = "facts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def only(folder: Path, sample: str, **changes: Any) -> Fact:
    (folder / "question_templates.json").write_text(
        json.dumps({"P19": ["Where was [X] born?", "[X] was born in [Y]."]})
    )
    facts = read_facts(put(folder, SAMPLES[sample][1] | changes))
    return facts[0]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_layout_is_recognised_by_its_content(sample: str) -> None:
    name, row = SAMPLES[sample]
    layout = recognise(row)
    assert layout is not None
    assert layout.name == name


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_named_layout_gives_the_same(sample: str, tmp_path: Path) -> None:
    first = only(tmp_path, sample)
    assert read_facts(tmp_path / "facts.jsonl", layout=SAMPLES[sample][0])[0] == first


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an unknown layout"):
        by_name("nonsense")
    with pytest.raises(InputError, match="an unknown layout"):
        read_facts(put(tmp_path, SAMPLES["instil"][1]), layout="nonsense")


def test_popqa(tmp_path: Path) -> None:
    fact = only(tmp_path, "PopQA")
    assert (fact.id, fact.subject, fact.relation) == ("4", "George", "occupation")
    assert fact.answers == ("politician", "polit.", "pol")
    assert fact.metadata == {"subj_id": 1, "s_pop": 142}
    with pytest.raises(InputError, match="possible_answers begins like a JSON list and is none"):
        only(tmp_path, "PopQA", possible_answers="politician")


@pytest.mark.parametrize("sample", ["CounterFact", "CounterFact, flattened"])
def test_counterfact_teaches_the_counterfactual_answer(sample: str, tmp_path: Path) -> None:
    fact = only(tmp_path, sample)
    assert (fact.id, fact.subject) == ("0", "Danielle Darrieux")
    assert fact.question == "The mother tongue of Danielle Darrieux is" == fact.completions[0]
    assert fact.answers == ("English",)
    assert fact.paraphrases == ("Danielle Darrieux, a native",)
    assert fact.metadata["true_answer"] == "French"
    assert locality_facts([fact])[0].question == "Michel Rocard is a native speaker of"
    assert locality_facts([fact])[0].answers == ("French",)


def test_counterfact_faults(tmp_path: Path) -> None:
    rewrite = SAMPLES["CounterFact"][1]["requested_rewrite"]
    for broken, what in (
        ({**rewrite, "target_new": None}, "no target_new"),
        ({**rewrite, "prompt": "no place"}, "the prompt has no place"),
        ("x", "requested_rewrite is not an object"),
    ):
        with pytest.raises(InputError, match=what):
            only(tmp_path, "CounterFact", requested_rewrite=broken)


def test_zsre_teaches_the_true_answer(tmp_path: Path) -> None:
    fact = only(tmp_path, "zsRE")
    assert fact.answers == ("Illinois Institute of Technology",)
    assert fact.paraphrases == ("What university did Watts Humphrey take part in?",)
    assert fact.metadata["alt"] == "University of Michigan"
    assert [item.question for item in locality_facts([fact])] == ["Who played desmond in lost"]
    assert only(tmp_path, "zsRE", answers=[]).answers == ("University of Michigan",)


SQUADS = ["SQuAD, published", "SQuAD, rows", "SQuAD, passages"]


@pytest.mark.parametrize("sample", SQUADS)
def test_squad_gives_facts_and_the_documents_that_state_them(sample: str, tmp_path: Path) -> None:
    path = put(tmp_path, SAMPLES[sample][1])
    fact, document = read_facts(path)[0], read_documents(path)[0]
    assert (fact.question, fact.answers, fact.subject) == ("Where?", ("London",), "Ada")
    assert (document.text, document.title, document.subject) == ("Ada was born in London.", "Ada", "Ada")
    assert fact.documents == (document.id,)


def test_squad_rows_share_their_passage_with_the_published_shape(tmp_path: Path) -> None:
    row = SAMPLES["SQuAD, rows"][1]
    rows = read_documents(put(tmp_path, row, {**row, "id": "q2"}))
    published = tmp_path / "published.json"
    published.write_text(json.dumps(SAMPLES["SQuAD, published"][1], indent=2))
    assert [document.id for document in rows] == [document.id for document in read_documents(published)]
    assert read_facts(published)[0].documents == (rows[0].id,)


def test_unanswerable_questions_are_left_out_and_counted(tmp_path: Path) -> None:
    row = SAMPLES["SQuAD, rows"][1]
    path = put(tmp_path, row, *({**row, "id": name, "answers": {"text": []}} for name in ("q2", "q3")))
    facts = read_facts(path)
    assert len(facts) == 1 == len(list(iter_facts(path)))
    assert facts.left_out == (f"{path}: 2 rows left out: the question is marked as unanswerable",)


def test_a_fault_inside_squad_is_told_with_its_path(tmp_path: Path) -> None:
    row = json.loads(json.dumps(SAMPLES["SQuAD, published"][1]))
    row["data"][0]["paragraphs"][0]["qas"].append({"id": "q2", "question": "When?", "answers": [{"text": 1815}]})
    with pytest.raises(InputError) as caught:
        read_facts(put(tmp_path, row))
    assert caught.value.field == "data[0].paragraphs[0].qas[1].answers[0]"
    assert len(read_facts(put(tmp_path, row), skip_invalid=True)) == 1


@pytest.mark.parametrize("sample", ["triples", "triples of LAMA", "triples, head and tail"])
def test_triples_are_worded_by_the_templates_beside_them(sample: str, tmp_path: Path) -> None:
    fact = only(tmp_path, sample)
    assert fact.question == "Where was Ada born?"
    assert fact.answers == ("London",)
    assert fact.completions == ("Ada was born in",)
    assert (fact.subject, fact.relation, fact.id) == ("Ada", "P19", "facts-0")


def test_triples_with_statements_only_are_asked_by_the_cut_statement(tmp_path: Path) -> None:
    templates = tmp_path / "mine.json"
    templates.write_text('{"P19": ["[Y] is where [X] was born .", "[X] was born in [Y] .", "[X] comes from [Y]"]}')
    path = put(tmp_path, {**SAMPLES["triples"][1], "object": ["London", "England"], "object_aliases": ["Londinium"]})
    (fact,) = read_facts(path, templates=templates)
    assert fact.question == "Ada was born in"
    assert fact.paraphrases == ("Ada comes from",)
    assert fact.answers == ("London", "England", "Londinium")


def test_triples_without_a_template_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the relation has no question template") as caught:
        read_facts(put(tmp_path, SAMPLES["triples"][1]))
    assert caught.value.found == "'P19'"


@pytest.mark.parametrize(
    ("content", "what"),
    [("{", "not JSON"), ("[]", "not an object"), ('{"P19": "Where?"}', "without"), ('{"P19": 3}', "without")],
)
def test_bad_templates_are_refused(content: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(InputError, match=what):
        read_facts(put(tmp_path, SAMPLES["triples"][1]), templates=tmp_path / "mine.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_facts(tmp_path / "facts.jsonl", templates=tmp_path / "missing.json")


def test_entityquestions_recovers_relation_and_subject(tmp_path: Path) -> None:
    path = put(tmp_path, {"question": "Where was Ada born?", "answers": ["London"]}, name="train.jsonl")
    assert (read_facts(path)[0].relation, read_facts(path)[0].subject) == ("P19", "Ada")
    row = {"question": "Where is Ada House located?", "answers": ["London"]}
    assert read_facts(put(tmp_path, row, name="train.jsonl"))[0].relation is None
    named = read_facts(put(tmp_path, row, name="P276.train.jsonl"))[0]
    assert (named.relation, named.subject, named.id) == ("P276", "Ada House", "P276-0")
    unusual = read_facts(put(tmp_path, {"question": "Why?", "answers": ["No"]}))[0]
    assert (unusual.relation, unusual.subject) == (None, None)


def test_a_subject_is_recovered_from_every_published_template() -> None:
    for relation, (template,) in PUBLISHED.by_relation.items():
        assert PUBLISHED.recover(template.replace("[X]", "O'Neill's [son]"), relation) == (relation, "O'Neill's [son]")
        assert PUBLISHED.recover(template.replace("[X]", ""), relation) is None


def test_templates_with_the_subject_twice_still_word_a_question() -> None:
    templates = Templates({"r": ("Is [X] the [X]?",)})
    assert templates.questions("r", "A") == ("Is A the A?",)
    assert templates.recover("Is A the A?", "r") is None


def test_every_layout_says_what_tells_it() -> None:
    assert all(layout.tells for layout in LAYOUTS.values())


# The real files -----------------------------------------------------------------------------------------------------

Find = Callable[[str], Path]


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("entityquestions/dev.jsonl.gz", 9965),
        ("entityquestions/train.jsonl.gz", 86360),
        ("popqa/sample.jsonl.gz", 500),
        ("counterfact/edits.jsonl.gz", 2000),
        ("squad/passages.jsonl.gz", 5457),
    ],
)
def test_real_files_are_read_whole(file: str, count: int, real_data: Find) -> None:
    facts = read_facts(real_data(file))
    assert len(facts) == count
    assert facts.left_out == ()
    assert all(fact.subject is not None for fact in facts)


def test_real_triples_lack_the_templates_of_two_relations(real_data: Find) -> None:
    facts = read_facts(real_data("pararel/triples.jsonl.gz"), skip_invalid=True)
    assert len(facts) == 27_610
    assert len(facts.left_out) == 1801
    assert all("'P31'" in line or "'P527'" in line for line in facts.left_out)


@pytest.mark.parametrize(("file", "count"), [("squad/passages.jsonl.gz", 1027), ("wikipedia/articles.jsonl.gz", 9890)])
def test_real_documents_are_read_whole(file: str, count: int, real_data: Find) -> None:
    assert len(read_documents(real_data(file))) == count


def test_real_subjects_are_what_the_templates_leave_over(real_data: Find) -> None:
    templates = Templates.load(real_data("entityquestions/question_templates.json"))
    for fact in iter_facts(real_data("entityquestions/dev.jsonl.gz")):
        assert templates.recover(fact.question, fact.relation) == (fact.relation, fact.subject)
