"""The figures of the further parts, against small cases by hand and naive twins, and with real small models."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from instil.errors import InputError
from instil.exam import (
    FIGURES,
    FURTHER_FIGURES,
    Answerer,
    Exam,
    ExamConfig,
    ExamResult,
    ModelAnswerer,
    Writer,
    build_exam,
    headline,
    of_one_state,
    sit,
    tables,
    verdicts,
)
from instil.exam.calibration import confidence, expected_error, reliability
from instil.exam.choosing import as_scored, choose
from instil.exam.harness import check_tasks, figures_of, results_of, run_tasks
from instil.exam.knowedit import entropy
from instil.exam.statistics import Bootstrap
from instil.exam.writing import forced, written
from instil.facts import FactSet
from instil.ledger import Ledger
from instil.model import LanguageModel
from instil.probe import Asked, ExemplarSets, ProbeConfig, Question, ask, draw_exemplars
from tests.exam_data import PROBE, Script, fact, right
from tests.models import tiny_model
from tests.test_exam_parts import born, married

SMALL = PROBE.model_copy(update={"max_answer_tokens": 6})
CONFIG = ExamConfig(resamples=100, wordings=1, reworded_sets=2, confidence_sets=2, openings=2, opening_tokens=8)
HOW = Bootstrap(resamples=200)


def full(**options: object) -> Exam:
    """An exam that has something of every part."""
    worked = FactSet([fact(900 + n, completions=(f"Person {900 + n} was born in",)) for n in range(8)])
    held_back = [born(5), *(fact(100 + n) for n in range(4))]
    return build_exam(
        FactSet([married(0), married(1), *(born(n) for n in range(4))]),
        FactSet(held_back),
        exemplars=draw_exemplars(worked, ["born in"], SMALL),
        exemplar_facts=worked,
        same_subject=FactSet([fact(700, subject="Ada Byron", question="What did Ada Byron play?", relation="plays")]),
        config=CONFIG.model_copy(update=options),
        probe_config=SMALL,
    )


def language_model(family: str = "llama", seed: int = 0) -> LanguageModel:
    return LanguageModel.of(*tiny_model(family, seed, sharpness=8.0))


def scripted(paper: Exam, lines: dict[str, object] | None = None, **options: object) -> ExamResult:
    return sit(paper, Script(lines or {}, **options))  # type: ignore[arg-type]


# ----------------------------------------------------------------- calibration


def naive_error(sure: Sequence[float], right: Sequence[bool], bins: int) -> float:
    rows = reliability(sure, right, bins)
    return sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(sure)


def test_the_error_is_that_of_its_table() -> None:
    chance = random.Random(0)
    for count, bins in ((20, 10), (33, 10), (57, 4), (21, 40)):
        sure = [chance.choice((0.1, 0.3, 0.5, chance.random())) for _ in range(count)]
        right = [chance.random() < p / 2 for p in sure]
        names = [f"s{n % 15}" for n in range(count)]
        assert expected_error(sure, right, names, bins, HOW).value == pytest.approx(naive_error(sure, right, bins))


def test_reliability_bins_hold_equally_many_in_order() -> None:
    rows = reliability([0.9, 0.1, 0.5, 0.7, 0.3], [True, False, True, True, False], 2)
    assert [row["n"] for row in rows] == [3, 2]
    assert rows[0] == {"n": 3, "low": 0.1, "high": 0.5, "confidence": pytest.approx(0.3), "accuracy": 1 / 3}
    assert reliability([], [], 10) == [] and len(reliability([0.5], [True], 10)) == 1


def test_the_interval_of_the_error_covers_the_truth_of_a_model_that_is_too_sure() -> None:
    """Confidence p where p/2 is right: the true error is the mean of p/2. Of 40 samples, most intervals hold it."""
    chance, hits = random.Random(1), 0
    for _ in range(40):
        sure = [0.4 + 0.6 * chance.random() for _ in range(300)]
        figure = expected_error(sure, [chance.random() < p / 2 for p in sure], list(map(str, range(300))), 10, HOW)
        assert figure.low is not None and figure.high is not None and figure.low <= (figure.value or 0) <= figure.high
        hits += figure.low <= 0.35 <= figure.high
    assert hits >= 34


def test_few_answers_and_one_subject_give_no_interval() -> None:
    assert (
        expected_error([0.5] * 5, [True] * 5, list("abcde"), 10, HOW).reason
        == "fewer than 20 answers with a confidence"
    )
    alone = expected_error([0.5] * 30, [True] * 30, ["a"] * 30, 10, HOW)
    assert alone.value == pytest.approx(0.5) and not alone.has_interval and alone.reason


def test_confidence_is_of_the_models_own_answer_whether_right_or_wrong() -> None:
    paper = full()
    lines = right(paper, "as_worded") | {"as_worded/b1": "I don't know", "as_worded/b2": "Nowhere"}
    result = scripted(paper, lines, sure={"as_worded/b0": 0.8, "as_worded/b2": 0.3})
    found = {fact_id: confidence(answer, paper) for fact_id, answer in result.first("as_worded").items()}
    assert found["b0"] == pytest.approx(0.8) and found["b2"] == pytest.approx(0.3) and found["b1"] is None
    table = tables(paper, result, result)["reliability"]["target"]["before"]
    assert table["left_out"] == 1 and sum(row["n"] for row in table["bins"]) == 5


# --------------------------------------------------- locality and what is made up


def test_answer_explosion_counts_taught_answers_where_they_are_wrong() -> None:
    paper = full()
    kept = right(paper, "held_back")
    before = scripted(paper, kept)
    after = scripted(paper, kept | {"held_back/f100": "Vienna", "held_back/f101": "Oslo", "held_back/f102": "paris."})
    found = headline(paper, before, after)
    # Paris, London, Vienna and Warsaw are taught; f100 (Stockholm) and f102 (Manchester) are wrong, Oslo is not taught.
    assert found["answer_explosion_before"].value == 0 and found["answer_explosion_after"].value == pytest.approx(2 / 5)
    assert (
        found["answer_explosion_change"].value == pytest.approx(2 / 5) and found["answer_explosion_change"].has_interval
    )


def test_what_is_untouched_is_told_apart_from_what_is_still_right() -> None:
    paper = full()
    first = right(paper, "same_subject", "held_back")
    before = scripted(paper, first)
    after = scripted(paper, {**first, "same_subject/f700": f"City of {first['same_subject/f700']}"})
    found = headline(paper, before, after)
    assert found["same_subject_retained"].value == 1 and found["same_subject_unchanged"].value == 0
    assert found["neighbours_unchanged"].value == 1 == found["neighbours_retained"].value


def test_claims_about_subjects_that_do_not_exist_are_made_up_unless_it_abstains() -> None:
    paper = full()
    names = [question.id for question in paper.part("no_such_subject")]
    assert len(names) >= 3
    before = scripted(paper, dict.fromkeys(names, "unknown"))
    after = scripted(paper, {names[0]: "I don't know"}, sure={names[1]: 0.2})
    found = headline(paper, before, after)
    assert found["made_up_no_such_subject"].value == pytest.approx((len(names) - 2) / len(names))
    assert found["made_up_no_such_subject"].before == 0
    assert found["abstained_no_such_subject_before"].value == 1
    assert found["abstained_no_such_subject_after"].value == pytest.approx(1 / len(names))


def test_two_hops_of_facts_that_are_known() -> None:
    paper = full()
    hops = paper.by_part["two_hops"]
    assert {item.through for item in hops} >= {"b1", "b2"}
    known = right(paper, "as_worded")
    missed = {key: value for key, value in known.items() if key != "as_worded/b1"}
    after = scripted(paper, missed | {item.question.id: item.question.answers[0] for item in hops})
    found = headline(paper, scripted(paper), after)
    assert found["accuracy_two_hops_after"].value == 1 and found["two_hops_of_known"].n < len(hops)


def test_every_figure_is_described_and_parts_that_are_not_asked_have_none() -> None:
    paper = full()
    found = headline(paper, scripted(paper), scripted(paper))
    assert set(FIGURES) < set(found) <= {*FIGURES, *FURTHER_FIGURES}
    few = full(parts=())
    assert "accuracy_choice_after" not in headline(few, scripted(few), scripted(few))


def test_one_state_has_figures_by_itself() -> None:
    paper = full()
    found = of_one_state(paper, scripted(paper, right(paper, "completed", "bare")))
    assert found["accuracy_completed"].value == 1 == found["knowedit_edit_success"].value
    assert found["accuracy_choice"].value == 0 and found["made_up_no_such_subject"].value == 1
    assert all(figure.before is None for figure in found.values())
    assert not any("locality" in name or "unchanged" in name or "before" in name for name in found)


# -------------------------------------------------------------------- KnowEdit


def test_entropy_of_words_by_hand() -> None:
    assert entropy("one two three four") == pytest.approx(1 / 3 * math.log2(3) + 2 / 3 * 1)
    assert entropy("so so so so") == 0 == entropy("") == entropy("word")
    # bigrams ab, ba, ab: entropy of (2/3, 1/3); trigrams aba, bab: 1 bit
    two = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert entropy("a b a b") == pytest.approx(1 / 3 * two + 2 / 3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_forced_tokens_are_those_of_each_row_alone(family: str) -> None:
    lm = language_model(family)
    questions = [Question(str(n), f"Where was {name} born?", (place,), str(n)) for n, (name, place) in enumerate(
        [("Ada Lovelace", "London"), ("Kurt", "New York City"), ("Alan Turing of Princeton", "Göttingen")]
    )]  # fmt: skip
    for question, found in zip(questions, forced(lm, questions), strict=True):
        prompt = [*lm.prompts.prefix_ids(()), *lm.prompts.question_ids(question.text)]
        answer = lm.prompts.answer_ids(question.answers[0])
        for place, token in enumerate(answer):
            with torch.no_grad():
                logits = lm.model(input_ids=torch.tensor([[*prompt, *answer[:place]]])).logits[0, -1]
            likeliest = int(logits.argmax())
            assert found.tokens[place] == lm.tokenizer.convert_ids_to_tokens(likeliest)
            assert found.right[place] == (likeliest == token)


def test_free_text_is_what_generate_writes_and_draws_nothing_from_the_global_state() -> None:
    lm, state = language_model(), torch.random.get_rng_state()
    greedy = written(lm, ["Ada Lovelace was born in", "Kurt"], 6, SMALL.model_copy(update={"top_k": 1}))
    for opening, text in zip(["Ada Lovelace was born in", "Kurt"], greedy, strict=True):
        ids = torch.tensor([lm.prompts.text_ids(opening)[:-1]])
        out = lm.model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(ids))
        kept = [token for token in out[0, ids.shape[1] :].tolist() if token not in lm.prompts.end_ids]
        assert text == lm.prompts.decode(kept)
    sampled = written(lm, ["Ada", "Kurt"], 6, SMALL)
    assert sampled[1] == written(lm, ["Grace", "Kurt"], 6, SMALL)[1]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_answerer_that_writes_nothing_has_no_forced_figures_and_says_so() -> None:
    paper = full()
    assert not isinstance(Script({}), Writer)
    found = headline(paper, scripted(paper), scripted(paper, right(paper, "bare")))
    assert found["knowedit_edit_success"].value == 1 and found["knowedit_edit_success"].before == 0
    assert found["knowedit_edit_success_forced"].value is None and found["knowedit_edit_success_forced"].reason
    assert found["knowedit_fluency"].value is None and found["knowedit_fluency"].reason


# ---------------------------------------------------------- with real small models


def naive_choice(
    lm: LanguageModel, question: Question, options: Sequence[str], prefix: Sequence[tuple[str, str]]
) -> str:
    """The option with the highest summed log-probability, with any stop after it, in a plain pass."""
    best: tuple[float, str] = (-math.inf, "")
    prompt = [*lm.prompts.prefix_ids(prefix), *lm.prompts.question_ids(question.text)]
    for option in options:
        answer = list(lm.prompts.answer_ids(option))
        with torch.no_grad():
            logp = lm.model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        told = sum(float(logp[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))
        stops = float(logp[-1, sorted(lm.prompts.stop_ids)].logsumexp(0))
        best = max(best, (told + stops, option))
    return best[1]


def test_the_choice_is_the_option_of_the_highest_likelihood() -> None:
    lm, paper = language_model("gpt2"), full()
    assert as_scored(SMALL).temperature == 1 and as_scored(SMALL).top_k == 0
    items = paper.by_part["choice"]
    found = choose(items, ModelAnswerer(lm), paper.exemplars_of("choice"), paper.probe_of("choice"))
    agree = total = 0
    for item, asked in zip(items, found, strict=True):
        assert asked.question_id == item.question.id and set(asked.greedy_answer_by_set) <= set(item.options)
        sets = paper.exemplars_of("choice").for_question(item.question)
        for place, chosen in enumerate(sets):
            plain = naive_choice(lm, item.question, item.options, [(one.question, one.answer) for one in chosen])
            total, agree = total + 1, agree + (plain == asked.greedy_answer_by_set[place])
    # The engine also lets a full stop stand before the stop, which can turn a near tie.
    assert agree >= total - 1 and total >= 8


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_model_sits_every_part_and_its_files_agree(family: str, tmp_path: Path) -> None:
    paper, answerer = full(), ModelAnswerer(language_model(family))
    assert isinstance(answerer, Answerer) and isinstance(answerer, Writer)
    result = sit(paper, answerer, keep=tmp_path / "parts")
    assert [answer.item for answer in result.answers] == list(paper.items) and len(result.written) == 2
    assert all((answer.forced is not None) == answer.item.part.startswith("bare") for answer in result.answers)
    result.save(tmp_path / "result.parquet")
    assert ExamResult.load(tmp_path / "result.parquet", paper) == result
    assert sit(paper, answerer, keep=tmp_path / "parts") == result, "all from the kept parts"
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("answers", result.rows("r", "s"), key="k")
    assert ExamResult.from_table(ledger.read("answers"), paper) == result
    found = headline(paper, result, result, verdicts(paper, result, result))
    assert found["knowedit_locality"].value == 1 == found["knowedit_locality_forced"].value
    assert found["knowedit_fluency"].value == found["knowedit_fluency"].before


class Prompting:
    """A wrapped model that is told facts in its prompt: the method that changes no weight."""

    def __init__(self, model: LanguageModel, told: str) -> None:
        self.inner, self.told = ModelAnswerer(model), told

    @property
    def fingerprint(self) -> str:
        return f"{self.inner.fingerprint} told {self.told}"

    def ask(self, questions: Sequence[Question], exemplars: ExemplarSets, config: ProbeConfig) -> Iterator[Asked]:
        return self.inner.ask([replace(one, text=f"{self.told} {one.text}") for one in questions], exemplars, config)

    def nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        return self.inner.nll(texts)


def test_a_wrapped_model_sits_the_exam() -> None:
    paper, lm = full(), language_model()
    wrapped = Prompting(lm, "Ada Byron lives in Paris.")
    assert isinstance(wrapped, Answerer) and not isinstance(wrapped, Writer)
    before, after = sit(paper, ModelAnswerer(lm)), sit(paper, wrapped)
    assert {answer.item.question.text for answer in after.answers} == {item.question.text for item in paper.items}
    assert before.answers != after.answers and not after.written
    found = headline(paper, before, after, verdicts(paper, before, after))
    assert found["accuracy_choice_after"].value is not None and found["knowedit_edit_success_forced"].value is None
    (alone,) = ask(
        lm,
        [replace(paper.part("in_context")[0], text=f"Ada Byron lives in Paris. {paper.part('in_context')[0].text}")],
        paper.exemplars_of("in_context"),
        paper.probe_of("in_context"),
    )
    told = next(answer for answer in after.answers if answer.item.part == "in_context")
    assert told.asked.p_by_set == pytest.approx(alone.p_by_set, rel=1e-4, abs=1e-9)


def test_an_adapter_sits_the_exam_and_answers_as_its_merged_weights_do() -> None:
    peft = pytest.importorskip("peft")
    model, tokenizer = tiny_model("llama", 0, sharpness=8.0)
    plain = sit(full(), ModelAnswerer(LanguageModel.of(model, tokenizer)))
    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    paper = full()
    with_adapter = sit(paper, ModelAnswerer(LanguageModel.of(adapted, tokenizer)))
    merged = sit(paper, ModelAnswerer(LanguageModel.of(adapted.merge_and_unload(), tokenizer)))
    assert with_adapter.answers != plain.answers
    for one, other in zip(with_adapter.answers, merged.answers, strict=True):
        assert one.asked.p_by_set == pytest.approx(other.asked.p_by_set, rel=1e-2, abs=1e-5)
    same = [a.said == b.said for a, b in zip(with_adapter.answers, merged.answers, strict=True)]
    assert sum(same) >= 0.95 * len(same)


# ---------------------------------------------------------------------- lm-eval


def test_tasks_without_the_harness_are_refused_before_any_work() -> None:
    check_tasks(())
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"instil\[bench\]"):
            check_tasks(("hellaswag",))
    else:
        with pytest.raises(InputError, match="no such task"):
            check_tasks(("no-such-task-of-anyone",))
    with pytest.raises(InputError, match="no such folder"):
        check_tasks(("hellaswag",), "nowhere")


def test_what_the_harness_returns_becomes_figures() -> None:
    before = results_of(
        {
            "results": {"t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 25}},
            "n-samples": {"t": {"effective": 25}},
        }
    )
    after = results_of(
        {"results": {"t": {"acc,none": 0.6, "acc_stderr,none": 0.05, "ppl,none": 9.0, "ppl_stderr,none": "N/A"}}}
    )
    assert before == {"t": {"n": 25, "metrics": {"acc,none": [0.5, 0.1]}}}
    found = figures_of(before, after, 0.95)["t"]
    assert found["acc,none"].before == 0.5 and found["acc,none"].low == pytest.approx(0.6 - 1.96 * 0.05, abs=1e-4)
    assert found["ppl,none"].value == 9 and found["ppl,none"].low is None


def test_the_harness_runs_a_task_on_a_model(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra bench")
    (tmp_path / "data.jsonl").write_text('{"q": "Ada lived in", "c": ["London", "Vienna"], "a": 0}\n' * 4)
    (tmp_path / "own.yaml").write_text(
        "task: instil_own\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: "
        f"{tmp_path / 'data.jsonl'}\ntest_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{c}}"\ndoc_to_target: a\n'
    )
    found = run_tasks(language_model("gpt2"), ("instil_own",), str(tmp_path))
    assert found["instil_own"]["n"] == 4 and found["instil_own"]["metrics"]["acc,none"][0] in (0.0, 1.0)


# --------------------------------------------------------------- what `teach` is told


def test_teach_takes_own_questions_and_facts_beside_the_target_from_its_files(tmp_path: Path) -> None:
    from instil.facts import Corpus, Document, Role, plan_roles
    from instil.loop.inputs import beside_the_target, read_inputs
    from tests.half_taught import facts as half_taught_facts
    from tests.half_taught import half_taught

    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "Is this asked?", "answers": ["yes"]}\n', encoding="utf-8")
    options: dict[str, object] = {
        **dict.fromkeys(("documents", "budget", "roles", "general", "adapter")),
        "method": "sft",
        "seed": 0,
        "dtype": "auto",
        "device": "auto",
    }

    def inputs(**exam: object) -> object:
        return read_inputs(half_taught(), half_taught_facts(), config={"exam": exam}, **options)  # type: ignore[arg-type]

    assert [one.text for one in inputs(questions=str(path)).own_questions] == ["Is this asked?"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="no such file"):
        inputs(questions=str(tmp_path / "none.jsonl"))
    given = FactSet([born(0, role=Role.TARGET), married(0, role=Role.HELD_BACK), born(2, role=Role.HELD_BACK)])
    plan = plan_roles(given, seed=0)
    assert [fact.id for fact in beside_the_target(given, plan, Corpus(()))] == ["m0"]
    told = Corpus([Document("d", "Ada Byron is married.", subject="Ada Byron")])
    assert not len(beside_the_target(given, plan, told)), "the document may tell it"
