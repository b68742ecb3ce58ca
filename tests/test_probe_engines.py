"""The engines against each other and against transformers: every fast path has its naive twin here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from instil.errors import InputError
from instil.facts import Fact, FactSet
from instil.model import LanguageModel
from instil.probe import Asked, ProbeConfig, Question, ask, next_token_nll, questions_of
from instil.probe.attention import NAME
from instil.probe.exact import CUT, ExactEngine, Job, Sum
from instil.probe.plain_runner import PlainRunner
from instil.probe.rows import Answers, Row, Tree
from instil.probe.runner import choose_runner
from instil.probe.shared_runner import SharedRunner
from tests.models import FAMILIES
from tests.probing import all_logits, frequent, generated, path_to, people_facts, small_lm, taught_lm, two_sets

PREFIXES = (
    (("Where was Ada Lovelace born?", "London"), ("What is the occupation of Alan Turing?", "logician")),
    (("Where was Marie Curie born?", "Warsaw"),),
    (),
)
QUESTIONS = ("Where was Niels Bohr born?", "Who?", "What is the occupation of Emmy Noether, who was born in Göttingen?")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def rows_of(lm: LanguageModel) -> list[Row]:
    """Every question behind every prefix, with answers that share beginnings."""
    prompts = lm.prompts
    listed = [prompts.answer_ids(answer) for answer in ("New York City", "New York", "Newton", "London")]
    tree, _ = Tree.of(listed)
    return [
        Row(prompts.prefix_ids(exemplars), prompts.question_ids(question), tree)
        for exemplars in PREFIXES
        for question in QUESTIONS
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_invariant_1_cached_equals_uncached(family: str) -> None:
    """fp32, 1e-5: scored places, then twelve tokens more, with rows doubled and dropped on the way."""
    lm = small_lm(family, sharpness=1.0)
    rows = rows_of(lm)
    shared, plain = SharedRunner(lm).score(rows), PlainRunner(lm).score(rows)
    torch.testing.assert_close(all_logits(shared, rows), all_logits(plain, rows), atol=1e-5, rtol=1e-5)
    places = [(0, ()), (1, path_to(rows[1], 2)), (3, ()), (3, path_to(rows[3], 0)), (8, ())]
    fast, slow = shared.resume(places), plain.resume(places)
    for step in range(12):
        tokens = [(7 * step + 31 * place) % 500 for place in range(5)]
        torch.testing.assert_close(fast.step(tokens), slow.step(tokens), atol=1e-5, rtol=1e-5)
        if step == 1:
            chosen = [0, 0, 1, 3, 4]
            fast.select(chosen)
            slow.select(chosen)


@pytest.mark.parametrize("family", FAMILIES)
def test_invariant_1_packed_equals_padded(family: str) -> None:
    """Rows of very different lengths packed into one row give what each gives alone in the plain model (fp32, 1e-5)."""
    lm = small_lm(family, sharpness=1.0)
    rows = rows_of(lm)
    logits = all_logits(SharedRunner(lm).score(rows), rows)
    start = 0
    for row in rows:
        for node in range(-1, len(row.tree)):
            alone = lm.model(input_ids=torch.tensor([[*row.prefix, *row.question, *path_to(row, node)]])).logits[0, -1]
            torch.testing.assert_close(logits[start + 1 + node], alone, atol=1e-5, rtol=1e-5)
        start += 1 + len(row.tree)


def exact_job(lm: LanguageModel, question: str, answers: Sequence[tuple[int, ...]], limit: int = 8) -> Job:
    prompts = lm.prompts
    listed = Answers.of(answers, prompts.tails, prompts.stop_ids)
    row = Row(prompts.prefix_ids(PREFIXES[0]), prompts.question_ids(question), listed.tree)
    return Job(row, listed.ends, frozenset(), limit)


SCHEMES: dict[str, dict[str, Any]] = {
    "the protocol": {"temperature": 0.5, "top_k": 40},
    "top-k 3": {"temperature": 1.0, "top_k": 3},
    "top-p": {"temperature": 0.8, "top_k": 0, "top_p": 0.7},
    "both": {"temperature": 0.7, "top_k": 6, "top_p": 0.9},
    "whole": {"temperature": 1.0, "top_k": 0},
}


# The schemes differ in nothing that depends on the family: all families by the protocol, all schemes on two families.
CASES = [(family, "the protocol") for family in FAMILIES] + [
    (family, scheme) for family in ("llama", "gpt2") for scheme in SCHEMES if scheme != "the protocol"
]


@pytest.mark.parametrize(("family", "scheme"), CASES)
def test_invariant_1_exact_equals_sampled(family: str, scheme: str) -> None:
    """The exact probability is the frequency in 1,500 samples by `generate`, within 5 standard errors for each of three
    prompts; the answers listed are the two likeliest and every third of the others. The chance of a false alarm is
    below one in a hundred thousand over all cases."""
    lm, settings, count, limit = small_lm(family, 1), SCHEMES[scheme], 1500, 6
    sampling = {"do_sample": True, "top_k": 0, **settings}
    config = ProbeConfig(**settings)
    engine = ExactEngine(lm, SharedRunner(lm), config)
    torch.manual_seed(7)
    seen_mass = 0.0
    for question in QUESTIONS:
        job = exact_job(lm, question, [])
        prompt = (*job.row.prefix, *job.row.question)
        known = frequent(generated(lm, prompt, 300, limit, **sampling), 400)
        listed = [*known[:2], *known[2::3]]
        job = exact_job(lm, question, listed)
        p = engine.probabilities([Sum(job.row, (job.ends,))])[0][0]
        # A full stop may stand behind an answer, but all that is generated must fit into the limit.
        right = {*listed, *((*ids, stop) for ids in listed for stop in lm.prompts.full_stop_ids)}
        hits = sum(ids in right for ids in generated(lm, prompt, count, limit + 1, **sampling))
        error = math.sqrt(max(p * (1 - p), 1 / count) / count)
        assert abs(hits / count - p) < 5 * error, (question, hits / count, p)
        seen_mass += p
    assert seen_mass > 0.05, "the test has seen nothing"


def test_exact_equals_the_sampled_engine_on_a_model_that_knows_something() -> None:
    """2,000 samples a prompt. The sampled engine also finds other tokenisations of the listed answers, so the exact
    probability may be below it, by no more than 0.01 here, and above only within 4 standard errors."""
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    exact = list(ask(lm, questions_of(facts), sets, config))
    sampled = list(ask(lm, questions_of(facts), sets, config.model_copy(update={"engine": "sampled", "samples": 2000})))
    for one, other in zip(exact, sampled, strict=True):
        assert one.greedy_answer_by_set == other.greedy_answer_by_set
        assert one.greedy_right_by_set == other.greedy_right_by_set
        assert one.p_prior == pytest.approx(other.p_prior, abs=1e-6)
        for p, share in zip(one.p_by_set, other.p_by_set, strict=True):
            error = 4 * math.sqrt(max(p * (1 - p), 1e-3) / 2000)
            assert -error < share - p < error + 0.01
    assert {str(row.category) for row in exact} == {"HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown"}


@pytest.mark.parametrize("family", FAMILIES)
def test_alias_sets_score_as_each_answer_alone(family: str) -> None:
    """The probability of a set is the sum over its distinct sequences, however many beginnings they share (1e-6)."""
    lm = small_lm(family, 2)
    engine = ExactEngine(lm, SharedRunner(lm), ProbeConfig(temperature=1.0, top_k=0))
    torch.manual_seed(0)
    job = exact_job(lm, QUESTIONS[0], [])
    found = frequent(generated(lm, (*job.row.prefix, *job.row.question), 200, 6, do_sample=True, top_k=0), 6)
    listed = [*found, *(ids[:1] for ids in found), *(ids + ids[:1] for ids in found), *found]
    whole = exact_job(lm, QUESTIONS[0], listed)
    together = engine.probabilities([Sum(whole.row, (whole.ends,))])[0][0]
    jobs = [exact_job(lm, QUESTIONS[0], [ids]) for ids in dict.fromkeys(listed)]
    # Each alone also counts itself with a full stop; a sequence that is another's with a full stop must count once.
    distinct = {
        tuple(job.row.tree.tokens[node] for node in job.row.tree.path(end)): (job, end)
        for job in jobs
        for end in job.ends
    }
    alone = [engine.probabilities([Sum(job.row, (frozenset({end}),))])[0][0] for job, end in distinct.values()]
    assert together == pytest.approx(sum(alone), rel=1e-5)
    assert together > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_generate(family: str) -> None:
    """Followed through the tree, decoded, and cut at the limit: always `generate(do_sample=False)`."""
    lm = small_lm(family, 3)
    engine, limit = ExactEngine(lm, SharedRunner(lm), ProbeConfig()), 7
    prompts = [(*job.row.prefix, *job.row.question) for job in (exact_job(lm, question, []) for question in QUESTIONS)]
    greedy = [generated(lm, prompt, 1, limit, do_sample=False) for prompt in prompts]
    jobs = []
    for question, found in zip(QUESTIONS, greedy, strict=True):
        # Listed: nothing; the greedy answer; its beginning; its beginning and something else.
        path = (found or [(5, 6, 7)])[0]
        other = (*path[:1], 9)
        jobs += [exact_job(lm, question, listed, limit) for listed in ([], [path], [path[:1]], [other, path[:2]])]
    outcomes = engine.answer(jobs)
    for index, outcome in enumerate(outcomes):
        prompt, found = prompts[index // 4], greedy[index // 4]
        longest = lm.model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=limit, pad_token_id=2,
                                    eos_token_id=sorted(lm.prompts.stop_ids))[0, len(prompt):].tolist()  # fmt: skip
        assert outcome.text == lm.prompts.answer_text(longest)
        listed = {tuple(jobs[index].row.tree.tokens[n] for n in jobs[index].row.tree.path(e)) for e in jobs[index].ends}
        assert outcome.right == (bool(found) and found[0] in listed)


def test_a_right_answer_in_another_spelling_counts() -> None:
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    fact = facts.by_id["born-0"]
    spelled = replace(fact, answers=("  the LONDON!",))
    listed, other = (next(iter(ask(lm, questions_of([one]), sets, config))) for one in (fact, spelled))
    assert listed.greedy_answer_by_set == other.greedy_answer_by_set
    assert other.greedy_right_by_set == listed.greedy_right_by_set == (True, True, True)
    assert other.p_sampled < listed.p_sampled


def close(one: Sequence[Asked], other: Sequence[Asked], tolerance: float) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.question_id == b.question_id
        assert a.greedy_answer_by_set == b.greedy_answer_by_set
        assert a.greedy_right_by_set == b.greedy_right_by_set
        assert a.category is b.category
        assert a.p_by_set == pytest.approx(b.p_by_set, abs=tolerance)
        assert (a.p_prior, a.gold_in_prompt) == (pytest.approx(b.p_prior, abs=tolerance), b.gold_in_prompt)


def test_without_decoding_only_the_texts_of_wrong_answers_are_missing() -> None:
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    whole = list(ask(lm, questions_of(facts), sets, config))
    short = list(ask(lm, questions_of(facts), sets, config.model_copy(update={"decode": False})))
    cut = 0
    for a, b in zip(whole, short, strict=True):
        assert (a.p_by_set, a.p_prior) == (b.p_by_set, b.p_prior)
        for text, part, right in zip(
            a.greedy_answer_by_set, b.greedy_answer_by_set, a.greedy_right_by_set, strict=True
        ):
            assert part == text or (part.endswith(CUT) and text.startswith(part.removesuffix(CUT)) and not right)
            cut += part != text
        assert a.greedy_right_by_set == b.greedy_right_by_set
    assert cut


@pytest.mark.parametrize("engine", ["exact", "sampled"])
def test_any_batch_size_and_any_order_give_the_same(engine: str) -> None:
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    config = config.model_copy(update={"engine": engine})
    questions = questions_of(facts)
    once = list(ask(lm, questions, sets, config))
    for tokens in (64, 300):
        close(once, list(ask(lm, questions, sets, config.model_copy(update={"batch_tokens": tokens}))), 1e-5)
    backwards = list(ask(lm, questions[::-1], sets, config))
    close(once, backwards[::-1], 1e-5)
    close(once, list(ask(lm, questions, sets, config, runner=PlainRunner(lm))), 1e-5)
    close(once[3:4], list(ask(lm, questions[3:4], sets, config)), 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_invariant_1_bf16_within_a_stated_bound_of_fp32(family: str) -> None:
    """bf16 rounds at 2^-9: on random models of two layers with logits of spread 1, log-probabilities of the shared pass
    stay within 0.15 of fp32, and no further from it than 1.5 times the plain bf16 pass (plus 0.02)."""
    lm = small_lm(family, sharpness=1.0)
    rows = rows_of(lm)
    exact = all_logits(PlainRunner(lm).score(rows), rows).log_softmax(-1)
    low = lm.at(torch.bfloat16)
    plain = all_logits(PlainRunner(low).score(rows), rows).float().log_softmax(-1)
    shared = all_logits(SharedRunner(low).score(rows), rows).float().log_softmax(-1)
    assert (shared - exact).abs().max() < 0.15
    assert (shared - exact).abs().max() < 1.5 * (plain - exact).abs().max() + 0.02


def test_invariant_1_category_flips_in_bf16_are_counted() -> None:
    """Of 16 facts asked of a model taught in fp32, at most 2 change category in bf16, none by more than one rank; the
    decoded answers of the bf16 pass never contradict its teacher-forced ones."""
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    low = lm.at(torch.bfloat16)
    high = list(ask(lm, questions_of(facts), sets, config))
    found = list(ask(low, questions_of(facts), sets, config))
    flips = [abs(a.category.rank - b.category.rank) for a, b in zip(high, found, strict=True)]
    assert sum(map(bool, flips)) <= 2
    assert max(flips) <= 1
    for one, fact in zip(found, facts, strict=True):
        for right, text in zip(one.greedy_right_by_set, one.greedy_answer_by_set, strict=True):
            assert right == (text.rstrip(".") in fact.answers)


def test_the_prior_is_the_answer_without_the_subject() -> None:
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    asked = {one.fact_id: one for one in ask(lm, questions_of(facts), sets, config)}
    for fact_id in ("born-0", "job-3"):
        fact = facts.by_id[fact_id]
        withheld = Question("w", fact.question.replace(str(fact.subject), "it"), fact.answers, fact_id, fact.relation)
        assert asked[fact_id].p_prior == pytest.approx(next(ask(lm, [withheld], sets, config)).p_sampled, abs=1e-6)
    bare = [replace(question, subject=None) for question in questions_of(facts)[:2]]
    assert [one.p_prior for one in ask(lm, bare, sets, config)] == [None, None]
    without = config.model_copy(update={"prior": False})
    assert [one.p_prior for one in ask(lm, questions_of(facts)[:2], sets, without)] == [None, None]


def test_gold_in_prompt_says_which_prompts_show_the_answer() -> None:
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    for question, one in zip(questions_of(facts), ask(lm, questions_of(facts), sets, config), strict=True):
        shown = tuple(
            any(exemplar.answer in question.answers for exemplar in chosen) for chosen in sets.for_question(question)
        )
        assert one.gold_in_prompt_by_set == shown
        assert one.gold_in_prompt == any(shown)


def test_chat_models_are_asked_in_their_template() -> None:
    from tests.models import tiny_model

    model, tokenizer = tiny_model("qwen3", 1, chat=True)
    lm = LanguageModel.of(model, tokenizer)
    facts = people_facts(4)
    sets, config = two_sets(facts)
    assert lm.style == "chat"
    close(
        list(ask(lm, questions_of(facts), sets, config)),
        list(ask(lm, questions_of(facts), sets, config, runner=PlainRunner(lm))),
        1e-5,
    )


def test_long_answers_are_never_cut_by_the_limit() -> None:
    lm = small_lm("llama", 1, stops=0)
    fact = Fact("long", "Who?", ("Ada Lovelace of London, mathematician, writer and teacher " * 3,))
    config = ProbeConfig(exemplar_sets=1, shots=0, max_answer_tokens=2)
    sets, _ = two_sets(FactSet([fact]), 1, 0)
    one = next(ask(lm, questions_of([fact]), sets, config))
    other = next(ask(lm, questions_of([fact]), sets, config, runner=PlainRunner(lm)))
    assert one.p_by_set == pytest.approx(other.p_by_set)


def test_a_question_longer_than_the_context_window_is_refused_by_name() -> None:
    lm = small_lm("gpt2", stops=0, positions=64)
    facts = FactSet([Fact("short", "Who?", ("Ada",)), Fact("endless", "Who " * 70 + "?", ("Ada",))])
    sets, config = two_sets(facts, 1, 0)
    with pytest.raises(InputError, match=r"longer than the context window.*endless"):
        ask(lm, questions_of(facts), sets, config)


def test_decoding_ends_at_the_context_window() -> None:
    lm = small_lm("gpt2", stops=1, positions=40)
    fact = Fact("f", "Where was Ada Lovelace born, who wrote about numbers?", ("London",))
    sets, _ = two_sets(FactSet([fact]), 1, 0)
    config = ProbeConfig(exemplar_sets=1, shots=0, max_answer_tokens=200)
    one = next(ask(lm, questions_of([fact]), sets, config))
    other = next(ask(lm, questions_of([fact]), sets, config, runner=PlainRunner(lm)))
    assert one.greedy_answer == other.greedy_answer
    assert len(lm.prompts.answer_ids(one.greedy_answer)) > 0


def test_a_model_that_the_fast_way_cannot_serve_is_probed_the_plain_way(caplog: pytest.LogCaptureFixture) -> None:
    lm = small_lm("llama")
    row = rows_of(lm)[0]
    assert choose_runner(lm, row).name == "shared prefix"
    for layer in lm.model.model.layers:
        layer.self_attn.layer_idx = 0
    assert choose_runner(lm, row).name == "plain"
    assert "slow way" in caplog.text


def test_rounding_alone_does_not_make_a_probe_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a model that was trained hard, where bfloat16 rounds by more than is common."""
    monkeypatch.setattr("instil.probe.runner.AGREES_LOW", 0.0)
    lm = small_lm("llama").at(torch.bfloat16)
    row = rows_of(lm)[0]
    assert choose_runner(lm, row).name == "shared prefix"
    with monkeypatch.context() as strict:  # a way that is far off in 16 bits alone
        strict.setattr("instil.probe.runner.AS_NEAR", 0.0)
        strict.setattr("instil.probe.runner.NEAR", 0.0)
        assert choose_runner(lm, row).name == "plain"
    for layer in lm.model.model.layers:
        layer.self_attn.layer_idx = 0
    assert choose_runner(lm, row).name == "plain"


def test_asking_leaves_the_model_as_it_was() -> None:
    lm = small_lm("llama")
    facts = people_facts(2)
    sets, config = two_sets(facts)
    before = lm.model.config._attn_implementation
    lm.model.train()
    lm.model.model.layers[0].eval()
    modes = [part.training for part in lm.model.modules()]
    answers = iter(ask(lm, questions_of(facts), sets, config))
    next(answers)
    assert [part.training for part in lm.model.modules()] == modes
    assert lm.model.config._attn_implementation == before != NAME
    assert all(parameter.grad is None for parameter in lm.model.parameters())
    assert lm.model(input_ids=torch.tensor([[1, 2, 3]])).logits.requires_grad


def test_dropout_does_not_reach_the_answers() -> None:
    lm = small_lm("gpt2", attn_pdrop=0.5, resid_pdrop=0.5)
    lm.model.train()
    facts = people_facts(2)
    sets, config = two_sets(facts)
    close(list(ask(lm, questions_of(facts), sets, config)), list(ask(lm, questions_of(facts), sets, config)), 1e-9)


def test_questions_with_one_id_keep_their_own_answers() -> None:
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    questions = questions_of(facts)
    same = [replace(question, id="same") for question in questions]
    found = [(one.fact_id, one.p_by_set) for one in ask(lm, same, sets, config)]
    assert found == [(one.fact_id, one.p_by_set) for one in ask(lm, questions, sets, config)]


def test_progress_goes_up_to_the_end() -> None:
    lm = small_lm("llama")
    facts = people_facts(4)
    sets, config = two_sets(facts)
    seen: list[tuple[int, int]] = []
    list(ask(lm, questions_of(facts), sets, config, progress=lambda done, total: seen.append((done, total))))
    assert seen == sorted(seen)
    assert seen[-1] == (8, 8)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_text_is_scored_token_by_token(family: str) -> None:
    lm = small_lm(family, positions=32)
    texts = [
        "Ada.",
        "Kurt Gödel was a logician, born in Vienna, who wrote about numbers, stars and machines. " * 2,
        "x",
    ]
    for text, (nll, count) in zip(texts, next_token_nll(lm, texts), strict=True):
        ids = lm.prompts.text_ids(text)
        expected, start = 0.0, 0
        while start < len(ids) - 1:
            window = torch.tensor([ids[start : start + 32]])
            expected += lm.model(input_ids=window, labels=window).loss.item() * (window.shape[1] - 1)
            start += 31
        assert count == len(ids) - 1
        assert nll == pytest.approx(expected, rel=1e-4)
