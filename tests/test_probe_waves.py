"""What saves the probe work: wrong answers that are followed behind the next prefix, prefixes that come together, and
a softmax without its maximum. Each gives what the plain way gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import instil.probe.asking as asking
import instil.probe.attention as attention
import instil.probe.exact as exact
from instil.facts import FactSet
from instil.model import LanguageModel
from instil.model.freed import keep_freed_memory
from instil.probe import Asked, ProbeConfig, ask, questions_of
from instil.probe.exact import Sum
from instil.probe.exemplars import draw_exemplars
from instil.probe.plain_runner import PlainRunner
from instil.probe.rows import ROOT, Ids, Row, Tree
from instil.probe.shared_runner import PREFIX_BYTES, SharedRunner
from instil.probe.walking import TreeScores, score_trees
from tests.models import FAMILIES
from tests.probing import people_facts, small_lm, taught_lm

SEQUENCES = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=6)


def test_the_waves_change_nothing_but_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five exemplar sets, one a wave: a wrong answer leaves the tree once and is then a part of it."""
    lm, facts = taught_lm()
    config = ProbeConfig(exemplar_sets=5, shots=2, max_answer_tokens=8, batch_tokens=128)
    left: list[int] = []

    def counted(scored: Any, rows: Sequence[Row], *rest: Any) -> list[TreeScores]:
        trees = score_trees(scored, rows, *rest)
        left.append(sum(tree.tree is not row.tree for tree, row in zip(trees, rows, strict=True)))
        return trees

    monkeypatch.setattr(exact, "score_trees", counted)
    found = answers(lm, facts, config)
    followed, left = sum(left), []
    monkeypatch.setattr(asking, "GUESSED", 0)
    assert_same(found, answers(lm, facts, config))
    assert followed < 0.6 * sum(left)
    assert_same(found, answers(lm, facts, config, PlainRunner(lm)))


def answers(lm: LanguageModel, facts: FactSet, config: ProbeConfig, runner: Any = None) -> list[Asked]:
    sets = draw_exemplars(facts, facts.by_relation, config)
    return list(ask(lm, questions_of(facts), sets, config, runner=runner))


def assert_same(found: Sequence[Asked], expected: Sequence[Asked]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.greedy_answer_by_set == other.greedy_answer_by_set
        assert one.greedy_right_by_set == other.greedy_right_by_set
        assert one.p_by_set == pytest.approx(other.p_by_set, abs=1e-5)
        assert one.p_prior == pytest.approx(other.p_prior, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_that_never_stops_is_followed_to_its_limit_and_no_further(family: str) -> None:
    lm = small_lm(family, stops=0)
    facts = FactSet(list(people_facts())[:4])
    config = ProbeConfig(exemplar_sets=3, shots=1, max_answer_tokens=6, batch_tokens=64, prior=False)
    assert_texts(answers(lm, facts, config), answers(lm, facts, config, PlainRunner(lm)))


def assert_texts(found: Sequence[Asked], expected: Sequence[Asked]) -> None:
    assert [one.greedy_answer_by_set for one in found] == [one.greedy_answer_by_set for one in expected]


@given(SEQUENCES, st.lists(st.integers(0, 3), max_size=5))
def test_a_grown_tree_is_the_tree_of_all_with_the_old_nodes_first(sequences: list[Ids], more: Ids) -> None:
    tree, _ = Tree.of(sequences)
    grown = tree.grown(more)
    assert grown == Tree.of([*sequences, more])[0]
    assert (grown.tokens[: len(tree)], grown.parents[: len(tree)]) == (tree.tokens, tree.parents)
    node = ROOT
    for token in more:
        node = grown.children[node, token]


def test_guessed_nodes_are_not_counted() -> None:
    """Neither in the probability of the listed answers, nor in that of their stops."""
    lm, _ = taught_lm()
    tree, ends = Tree.of([(5, 6), (7,)])
    grown = tree.grown((8, 9)).grown((5, 10))
    engine = asking.ExactEngine(lm, SharedRunner(lm), ProbeConfig())
    rows = [Row((3, 4), (11, 12), tree), Row((3, 4), (11, 12), grown, guessed=len(grown) - len(tree))]
    plain, followed = engine.probabilities([Sum(row, (frozenset(ends),)) for row in rows])
    assert followed == pytest.approx(plain, abs=1e-6)
    assert rows[1].guessed == 3


def test_prefixes_to_come_are_computed_with_the_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, _ = taught_lm()
    prefixes = [tuple(range(10 * n + 3, 10 * n + 11)) for n in range(6)]
    alone, ahead, passes = SharedRunner(lm), SharedRunner(lm), []
    ahead.expect(prefixes, 24)
    computed = SharedRunner._computed

    def counted(runner: SharedRunner, some: Sequence[Ids]) -> Any:
        passes.append(len(some))
        return computed(runner, some)

    monkeypatch.setattr(SharedRunner, "_computed", counted)
    rows = [Row(prefix, (4, 5), Tree((6,), (ROOT,))) for prefix in prefixes]
    expected = [alone.score([row]).logits for row in rows]
    assert passes == [1] * 6
    passes.clear()
    for row, logits in zip(rows, expected, strict=True):
        assert torch.allclose(ahead.score([row]).logits, logits, atol=1e-5)
    assert passes == [1, 3, 2]  # the first one tells how much memory a token takes
    assert sum(map(len, prefixes)) * 8 < PREFIX_BYTES


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=6),
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=6),
    st.sampled_from([-5000.0, -100.0, 0.0, 60.0, 100.0, 5000.0]),
)
def test_softmax_in_two_steps_is_softmax(own: list[float], before: list[float], shift: float) -> None:
    """Whatever the scores, and with a key that is hidden."""
    parts = [torch.tensor([[*own, 0.0]]) + shift, torch.tensor([before]) + shift]
    parts[0][0, -1] = torch.finfo(torch.float32).min
    found, total = attention._exponentials(parts)
    expected = torch.softmax(torch.cat(parts, dim=-1), dim=-1)
    assert torch.allclose(torch.cat(found, dim=-1) / total, expected, atol=1e-6)


def test_softmax_in_half_precision_does_not_lose_small_scores() -> None:
    parts = [torch.tensor([[-15.0, -14.0]], dtype=torch.float16), torch.tensor([[-14.5]], dtype=torch.float16)]
    found, total = attention._exponentials(parts)
    expected = torch.softmax(torch.tensor([[-15.0, -14.0, -14.5]]), dim=-1)
    assert torch.allclose(torch.cat(found, dim=-1).float() / total, expected, atol=1e-3)


def test_freed_memory_is_kept_or_the_c_library_is_another() -> None:
    assert keep_freed_memory() in (True, False)
    assert keep_freed_memory() == keep_freed_memory()
