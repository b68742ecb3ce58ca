"""What is computed once for many, or not at all: beginnings of questions, branches that cannot come, parts of trees,
and answers that wait for the next batch. The plain way gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import instil.probe.exact as exact
from instil.model import LanguageModel
from instil.probe import Asked, ProbeConfig, ask, questions_of
from instil.probe.exemplars import draw_exemplars
from instil.probe.leads import Leads, lead_lengths
from instil.probe.memory import LOGITS, Limits
from instil.probe.plain_runner import PlainRunner
from instil.probe.rows import Ids, Row, Tree
from instil.probe.sampling import Sampling
from instil.probe.shared_runner import SPLIT, SharedRunner, SharedScored, SharedSession, _split
from instil.probe.walking import Walk, score_trees
from tests.models import FAMILIES
from tests.probing import frequent, generated, people_facts, small_lm

QUESTIONS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, unique=True)


@given(QUESTIONS, st.integers(0, 20))
def test_leads_leave_every_question_its_last_token_and_cost_no_token(questions: list[Ids], prefix: int) -> None:
    leads = lead_lengths(sorted(questions), prefix)
    assert leads.keys() == set(questions)
    assert all(0 <= leads[question] < len(question) for question in questions)
    before = {question[: leads[question]] for question in questions}
    with_leads = sum(prefix + len(lead) for lead in before) + sum(len(one) - leads[one] for one in questions)
    assert with_leads <= prefix + sum(map(len, questions))


def test_questions_that_begin_alike_share_it_and_other_wordings_get_a_lead_of_their_own_where_it_pays() -> None:
    first = [(1, 2, 3, 4, subject, 9) for subject in range(10, 40)]
    second = [(1, 5, 6, 7, subject, 9) for subject in range(10, 40)]
    assert set(lead_lengths(sorted(first), 50).values()) == {4}
    assert set(lead_lengths(sorted(first + second), 50).values()) == {4}
    assert set(lead_lengths(sorted(first + second), 500).values()) == {1}
    assert lead_lengths([(1, 2, 3)], 5) == {(1, 2, 3): 0}


def test_a_led_row_has_the_same_tokens() -> None:
    pairs = [((7, 8), (1, 2, 3)), ((7, 8), (1, 2, 4)), ((5,), (1, 2, 3))]
    led = Leads(pairs)
    rows = [led(Row(prefix, question, Tree((), ()))) for prefix, question in pairs]
    assert [row.prefix for row in rows] == [(7, 8, 1, 2), (7, 8, 1, 2), (5,)]
    assert [row.prefix + row.question for row in rows] == [prefix + question for prefix, question in pairs]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(0, 300))
def test_splitting_rows_by_the_size_of_their_trees_never_costs_more(sizes: list[int], keys: int) -> None:
    def cost(group: Sequence[int]) -> int:
        return SPLIT + len(group) * max(group) * (keys + max(group))

    ordered, groups = sorted(sizes), []
    rest = list(ordered)
    for count in _split(ordered, keys):
        groups.append(rest[:count])
        rest = rest[count:]
    assert not rest
    assert all(groups)
    assert sum(map(cost, groups)) <= cost(ordered)


@pytest.mark.parametrize("sampling", [Sampling(0.5, 3), Sampling(0.5, 0, 0.4), Sampling(1.0)], ids=str)
def test_pruned_trees_have_the_probability_of_whole_ones(sampling: Sampling) -> None:
    """However small the parts in which they are computed; and with much to prune, much is not computed."""
    lm, chance = small_lm("llama", 2), torch.Generator().manual_seed(1)
    trees = [Tree.of(torch.randint(3, 300, (12, 1 + index % 4), generator=chance).tolist()) for index in range(9)]
    torch.manual_seed(0)
    often = frequent(generated(lm, (5, 6, 11), 100, 6, do_sample=True, top_k=3, temperature=0.5), 3)
    trees.append(Tree.of([*often, *((*ids, other) for ids in often for other in range(20, 60))]))
    rows = [Row((5, 6), (11,) if index == 9 else (11, index), tree) for index, (tree, _) in enumerate(trees)]
    walk, ends = Walk(sampling, lm.prompts.stop_ids), [frozenset(ends) for _, ends in trees]
    whole = [plain_probability(lm, row, sampling, some) for row, some in zip(rows, ends, strict=True)]
    for limits in (Limits(4096, LOGITS), Limits(7, LOGITS), Limits(4096, 30 * len(lm.tokenizer))):
        computed: list[int] = []
        scored = SharedRunner(lm).score(rows)
        seen = watched(scored, computed)
        found = [tree.probability(some) for tree, some in zip(score_trees(seen, rows, walk, limits), ends, strict=True)]
        assert found == pytest.approx(whole, abs=1e-5)
        if sampling.top_k:
            assert 0 < sum(computed) < 0.5 * sum(len(row.tree) for row in rows)
        else:
            assert sum(computed) <= sum(len(row.tree) for row in rows)
    assert whole[-1] > 0


def plain_probability(lm: LanguageModel, row: Row, sampling: Sampling, ends: frozenset[int]) -> float:
    """Each sequence by itself, token by token."""
    total = 0.0
    for end in ends:
        answer = [row.tree.tokens[node] for node in row.tree.path(end)]
        ids = torch.tensor([[*row.prefix, *row.question, *answer]])
        logs = sampling.log_probabilities(lm.model(input_ids=ids).logits[0, -1 - len(answer) :]).double()
        passed = sum(float(logs[place, token]) for place, token in enumerate(answer))
        stop = float(logs[-1][sorted(lm.prompts.stop_ids)].logsumexp(-1))
        total += float(torch.tensor(passed + stop, dtype=torch.float64).exp())
    return total


def watched(scored: SharedScored, computed: list[int]) -> Any:
    behind = scored.behind

    def noted(trees: Any) -> torch.Tensor:
        computed.extend(map(len, trees.values()))
        return behind(trees)

    scored.behind = noted  # type: ignore[method-assign]
    return scored


@pytest.mark.parametrize("family", FAMILIES)
def test_joined_sessions_go_on_as_each_alone(family: str) -> None:
    """Of different lengths, prefixes and ages (fp32, 1e-5)."""
    lm = small_lm(family, sharpness=1.0)
    tree = Tree((7, 8, 9), (-1, 0, 0))
    rows = [Row((3, 4, 5), (6, 7), tree), Row((3, 4, 5), (8,), tree), Row((), (9, 10, 11), tree)]
    for runner in (SharedRunner(lm), PlainRunner(lm)):
        first, second = (runner.score(rows) for _ in range(2))
        first.behind({0: tree})
        second.behind({0: tree, 2: tree})
        old = first.resume([(0, (7, 8)), (1, ())])
        for tokens in ([1, 2], [3, 4]):
            old.step(tokens)
        new = second.resume([(0, ()), (2, (7,))])
        new.join(old)
        prompts = [
            [*rows[0].prefix, *rows[0].question],
            [9, 10, 11, 7],
            [3, 4, 5, 6, 7, 7, 8, 1, 3],
            [3, 4, 5, 8, 2, 4],
        ]
        for step in range(3):
            tokens = [20 + step, 30 + step, 40 + step, 50 + step]
            prompts = [[*prompt, token] for prompt, token in zip(prompts, tokens, strict=True)]
            alone = [lm.model(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in prompts]
            torch.testing.assert_close(new.step(tokens), torch.stack(alone), atol=1e-5, rtol=1e-5)


def test_answers_that_wait_for_the_next_batch_come_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some answers are short and some never stop: one session takes over from the other, none is lost or doubled."""
    lm = small_lm("llama", 1, stops=25)
    facts = people_facts()
    config = ProbeConfig(exemplar_sets=3, shots=1, max_answer_tokens=9, batch_tokens=64, prior=False)
    sets = draw_exemplars(facts, facts.by_relation, config)
    joined: list[int] = []
    join = SharedSession.join

    def counted(session: SharedSession, other: SharedSession) -> None:
        joined.append(len(other._next))
        join(session, other)

    monkeypatch.setattr(SharedSession, "join", counted)
    monkeypatch.setattr(exact, "WAITING", 3)
    waited = list(ask(lm, questions_of(facts), sets, config))
    assert joined and max(joined) <= 3
    monkeypatch.setattr(exact, "WAITING", 0)
    same(waited, list(ask(lm, questions_of(facts), sets, config)))
    same(waited, list(ask(lm, questions_of(facts), sets, config, runner=PlainRunner(lm))))


def same(found: Sequence[Asked], expected: Sequence[Asked]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.greedy_answer_by_set == other.greedy_answer_by_set
        assert one.p_by_set == pytest.approx(other.p_by_set, abs=1e-5)
