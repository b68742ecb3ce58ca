"""Other spellings of an answer: all are right, none counts twice, and the probability is that of an enumeration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.answers import is_correct
from instil.facts import Fact, FactSet
from instil.model import LanguageModel, Prompts, PromptStyle
from instil.probe import ProbeConfig, ask, questions_of
from instil.probe.exact import ExactEngine, Job, Sum
from instil.probe.judging import form, is_right
from instil.probe.preparing import Preparer
from instil.probe.rows import Answers, Ids
from instil.probe.sampled import SampledEngine
from instil.probe.sampling import Sampling
from instil.probe.shared_runner import SharedRunner
from instil.probe.spellings import KINDS, MOST, other_spellings, with_spellings
from tests.models import FAMILIES, tiny_tokenizer
from tests.probing import people_facts, small_lm, taught_lm, two_sets

TOKENIZERS = ("byte", "modern", "metaspace")
WRITTEN = st.text(alphabet=st.characters(codec="utf-8", include_characters=" '\"-.–’"), max_size=14)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def prompts_of(kind: str, *, chat: bool = False) -> Prompts:
    tokenizer = tiny_tokenizer(kind, chat=chat)
    return Prompts(tokenizer, PromptStyle.choose("auto", tokenizer))


def forms_of(answers: Sequence[str]) -> frozenset[str]:
    return frozenset(filter(None, map(form, answers)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TOKENIZERS), st.booleans(), st.lists(WRITTEN, min_size=1, max_size=3), st.integers(2, 40))
def test_every_other_spelling_is_right_new_and_can_be_sampled(
    kind: str, chat: bool, answers: list[str], room: int
) -> None:
    prompts = prompts_of(kind, chat=chat)
    found = other_spellings(prompts, answers, forms_of(answers), room)
    listed = Answers.of(map(prompts.answer_ids, answers), prompts.tails, prompts.stop_ids)
    for ids, what in found.items():
        assert is_correct(prompts.answer_text(ids), answers)
        assert what in KINDS
        assert ids not in listed.sequences
        assert not prompts.stop_ids.intersection(ids)
        assert len(ids) + 1 <= room
    assert len(found) <= MOST * len(answers)
    assert list(found) == list(other_spellings(prompts_of(kind, chat=chat), answers, forms_of(answers), room))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_is_listed_for_a_name(kind: str) -> None:
    prompts = prompts_of(kind)
    found = other_spellings(prompts, ["New York City"], forms_of(["New York City"]), 64)
    # "A:" stands before them: without a space, and with two, is another spelling too.
    written = {prompts.decode((*prompts.continuation_ids("A:"), *ids)) for ids in found}
    for spelled in (
        *(" new york city", " NEW YORK CITY", " new york city.", " the New York City", " The New York City."),
        *(' "New York City"', " “New York City”", " **New York City**", " (New York City)", " New York City,"),
        *("New York City", "  New York City", " New York City"),
    ):
        assert f"A:{spelled}" in written, spelled
    assert set(found.values()) == set(KINDS)


def test_an_article_can_be_left_out() -> None:
    prompts = prompts_of("byte")
    found = other_spellings(prompts, ["The Hague"], forms_of(["The Hague"]), 64)
    assert {" Hague", " the Hague"} <= set(map(prompts.decode, found))


def test_signs_that_carry_meaning_are_not_spelled_away() -> None:
    prompts = prompts_of("byte")
    for answer in ("C++", "-5", ".net"):
        found = other_spellings(prompts, [answer], forms_of([answer]), 64)
        assert found
        assert {form(prompts.answer_text(ids)) for ids in found} == {form(answer)}


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5).map(tuple), max_size=6),
       st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5).map(tuple), max_size=6))  # fmt: skip
def test_a_tree_with_other_spellings_holds_every_sequence_once(listed: list[Ids], others: list[Ids]) -> None:
    plain = Answers.of(listed, [(9,)], frozenset())
    both = with_spellings(plain, others)
    spelled = [tuple(both.tree.tokens[node] for node in both.tree.path(end)) for end in both.ends]
    assert sorted(spelled) == sorted({*plain.sequences, *others})
    assert both.tree.tokens[: len(plain.tree)] == plain.tree.tokens
    assert both.longest == plain.longest


def spelled_jobs(lm: LanguageModel, facts: FactSet, config: ProbeConfig) -> Iterator[tuple[Job, Job, tuple[Ids, ...]]]:
    """For every question and exemplar set the job as listed, the job with other spellings, and its sequences."""
    sets, _ = two_sets(facts, config.exemplar_sets, config.shots)
    plain = Preparer(lm, sets, config)
    spelled = Preparer(lm, sets, config.model_copy(update={"spellings": True}))
    for question in questions_of(facts):
        more = spelled(question)
        for one, other in zip(plain(question).jobs(), more.jobs(), strict=True):
            yield one, other, more.answers.sequences


@torch.no_grad()
def chain(lm: LanguageModel, prompt: Ids, ids: Ids, sampling: Sampling) -> float:
    """The naive twin: one plain pass over prompt and answer, token by token, and any stop behind it."""
    logits_TV = lm.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 :]
    log_TV = sampling.log_probabilities(logits_TV).double()
    steps = log_TV[torch.arange(len(ids)), torch.tensor(ids)]
    return math.exp(float(steps.sum() + log_TV[-1, sorted(lm.prompts.stop_ids)].logsumexp(-1)))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_probability_is_the_sum_over_all_spellings(family: str) -> None:
    """fp32, 1e-5 of the sum; temperature 1 and no top-k, so that every spelling has a probability to be missed."""
    lm = small_lm(family, 1, sharpness=1.0)
    config = ProbeConfig(exemplar_sets=1, shots=1, temperature=1.0, top_k=0, max_answer_tokens=64)
    facts = people_facts(2)[1:3]
    sampling, engine = Sampling.of(config), ExactEngine(lm, SharedRunner(lm), config)
    for plain, spelled, sequences in spelled_jobs(lm, facts, config):
        prompt = (*plain.row.prefix, *plain.row.question)
        twin = math.fsum(chain(lm, prompt, ids, sampling) for ids in sequences)
        p, q = (engine.probabilities([Sum(job.row, (job.ends,))])[0][0] for job in (plain, spelled))
        assert len(sequences) > len(plain.ends)
        assert q == pytest.approx(twin, rel=1e-4)
        assert p < q <= 1


@torch.no_grad()
def enumerated(lm: LanguageModel, job: Job, sampling: Sampling) -> float:
    """The probability of a right answer, by going through every answer that can be drawn."""
    prompt, total = (*job.row.prefix, *job.row.question), 0.0
    live: list[tuple[Ids, float]] = [((), 1.0)]
    while live:
        ids = torch.tensor([[*prompt, *tokens] for tokens, _ in live])
        chances = sampling.log_probabilities(lm.model(input_ids=ids).logits[:, -1]).exp().double()
        grown = []
        for (tokens, chance), row in zip(live, chances, strict=True):
            for token in row.nonzero()[:, 0].tolist():
                reached = chance * float(row[token])
                if token in lm.prompts.stop_ids:
                    total += reached * is_right(lm.prompts.answer_text(tokens), job.forms)
                elif len(tokens) + 1 < job.limit:
                    grown.append(((*tokens, token), reached))
        live = grown
    return total


def test_listed_then_spelled_then_enumerated() -> None:
    """Every answer out of three tokens a step: as listed <= with other spellings <= all that is right."""
    lm, _ = taught_lm()
    people = {"Ada Lovelace": "Chemist", "Alan Turing": "Teacher", "Marie Curie": "Writer"}
    facts = FactSet(
        Fact(name, f"What is the occupation of {name}?", (job,), relation="job") for name, job in people.items()
    )
    config = ProbeConfig(exemplar_sets=1, shots=0, temperature=1.5, top_k=3, max_answer_tokens=1)
    engine, bought = ExactEngine(lm, SharedRunner(lm), config), 0.0
    for plain, spelled, _ in spelled_jobs(lm, facts, config):
        p, q = (engine.probabilities([Sum(job.row, (job.ends,))])[0][0] for job in (plain, spelled))
        truth = enumerated(lm, plain, Sampling.of(config))
        assert p <= q + 1e-9
        assert q <= truth + 1e-6
        bought += q - p
    assert bought > 0.01, "other spellings bought nothing: the test has seen nothing"


def test_samples_fall_on_the_spelled_sequences_as_often_as_they_should() -> None:
    """4,000 samples a prompt, 5 standard errors; those on no listed sequence are never fewer than none."""
    lm, facts = taught_lm()
    config = ProbeConfig(exemplar_sets=1, shots=2, temperature=1.2, samples=4000, max_answer_tokens=8)
    engine, sampler = ExactEngine(lm, SharedRunner(lm), config), SampledEngine(lm, SharedRunner(lm), config)
    for plain, spelled, sequences in spelled_jobs(lm, facts[:6], config):
        (p,), (q,) = (engine.probabilities([Sum(job.row, (job.ends,))])[0] for job in (plain, spelled))
        found = [one for one in sampler.endings([plain])[0] if one.stopped]
        listed = {tuple(plain.row.tree.tokens[node] for node in plain.row.tree.path(end)) for end in plain.ends}
        for chance, counted in ((p, listed), (q, set(sequences))):
            hits = sum(one.count for one in found if one.tokens in counted)
            assert abs(hits / 4000 - chance) < 5 * math.sqrt(max(chance * (1 - chance), 1 / 4000) / 4000)


def test_endings_are_every_sample_once() -> None:
    lm, facts = taught_lm()
    config = ProbeConfig(exemplar_sets=1, shots=2, temperature=2.0, samples=300, max_answer_tokens=4)
    sampler = SampledEngine(lm, SharedRunner(lm), config)
    jobs = [job for job, _, _ in spelled_jobs(lm, facts[:4], config)]
    cut = 0
    for job, found, outcome in zip(jobs, sampler.endings(jobs), sampler.answer(jobs), strict=True):
        assert sum(one.count for one in found) == 300
        assert sum(one.greedy for one in found) == 1
        assert len({(one.tokens, one.stopped) for one in found}) == len(found)
        assert all(len(one.tokens) + one.stopped <= job.limit for one in found)
        right = [one for one in found if one.stopped and is_right(lm.prompts.answer_text(one.tokens), job.forms)]
        assert outcome.p == sum(one.count for one in right) / 300
        cut += sum(not one.stopped for one in found)
    assert cut, "no answer reached the limit: the test has seen nothing"


def test_only_probabilities_change_with_other_spellings() -> None:
    """And these only upwards; greedy answers, what they are worth and where decoding ends stay as they are."""
    lm, facts = taught_lm()
    sets, config = two_sets(facts)
    config = config.model_copy(update={"temperature": 1.5, "top_k": 0})
    plain = list(ask(lm, questions_of(facts), sets, config))
    spelled = list(ask(lm, questions_of(facts), sets, config.model_copy(update={"spellings": True})))
    for one, other in zip(plain, spelled, strict=True):
        assert one.greedy_answer_by_set == other.greedy_answer_by_set
        assert one.greedy_right_by_set == other.greedy_right_by_set
        assert one.gold_in_prompt_by_set == other.gold_in_prompt_by_set
        for p, q in zip(one.p_by_set, other.p_by_set, strict=True):
            assert p - 1e-6 <= q <= 1
        assert one.p_prior is not None
        assert other.p_prior is not None
        assert one.p_prior - 1e-6 <= other.p_prior <= 1
    assert any(other.p_sampled > one.p_sampled + 1e-6 for one, other in zip(plain, spelled, strict=True))


def test_another_spelling_never_makes_a_question_too_long() -> None:
    lm = small_lm("gpt2", stops=0, positions=24)
    facts = FactSet([Fact("f", "Who wrote about numbers?", ("Ada Lovelace",))])
    sets, _ = two_sets(facts, 1, 0)
    asked = Preparer(lm, sets, ProbeConfig(exemplar_sets=1, shots=0))(questions_of(facts)[0])
    more = Preparer(lm, sets, ProbeConfig(exemplar_sets=1, shots=0, spellings=True))(questions_of(facts)[0])
    assert (more.limit, more.answers.longest) == (asked.limit, asked.answers.longest)
    assert len(more.answers.sequences) > len(asked.answers.sequences)
    assert all(len(ids) + 1 <= more.limit for ids in more.answers.sequences)
