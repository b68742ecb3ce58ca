"""The probe's arithmetic and bookkeeping: categories, answer trees, exemplar sets, the mastery map, intervals."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.answers import is_correct
from instil.errors import InputError
from instil.facts import Fact, FactSet
from instil.probe import (
    Category,
    ExemplarSets,
    Mastery,
    MasteryMap,
    ProbeConfig,
    Question,
    any_of,
    categorise,
    draw_exemplars,
)
from instil.probe.asking import batches
from instil.probe.intervals import share, wilson
from instil.probe.judging import form, is_right
from instil.probe.questions import without_subject
from instil.probe.rows import ROOT, Answers, Row, Tree

SEQUENCES = st.lists(st.lists(st.integers(0, 5), max_size=6).map(tuple), max_size=8)
SHARES = st.floats(0, 1)


@given(SHARES, SHARES)
def test_categories_cover_every_case_once(p_greedy: float, p_any: float) -> None:
    category = categorise(p_greedy, p_any)
    expected = (
        Category.HIGHLY_KNOWN
        if p_greedy == 1
        else Category.MAYBE_KNOWN
        if p_greedy > 0
        else Category.UNKNOWN
        if p_any < 0.5
        else Category.WEAKLY_KNOWN
    )
    assert category is expected


@given(SHARES, SHARES, SHARES)
def test_more_right_answers_never_lower_the_category(p_greedy: float, one: float, other: float) -> None:
    assert categorise(p_greedy, max(one, other)).rank >= categorise(p_greedy, min(one, other)).rank
    assert categorise(max(one, other), 0.4).rank >= categorise(min(one, other), 0.4).rank


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_not_a_probability_has_no_category(value: float) -> None:
    with pytest.raises(ValueError, match="not a probability"):
        categorise(value, 0.5)
    with pytest.raises(ValueError, match="not a probability"):
        categorise(0.5, value)


def test_ranks_go_from_unknown_to_highly_known() -> None:
    assert [category.rank for category in Category] == [3, 2, 1, 0]


@given(st.lists(st.floats(0, 1), max_size=10), st.integers(0, 64))
def test_any_of_is_one_minus_the_product_of_misses(probabilities: list[float], samples: int) -> None:
    product = math.prod((1 - p) ** samples for p in probabilities)
    assert any_of(probabilities, samples) == pytest.approx(1 - product, abs=1e-12)


def test_any_of_keeps_what_is_small() -> None:
    assert any_of([1e-20] * 10, 16) == pytest.approx(1.6e-18, rel=1e-12)
    assert any_of([1e-20, 1.0], 16) == 1.0


@given(SEQUENCES)
def test_a_tree_holds_each_sequence_once_and_no_shared_token_twice(sequences: list[tuple[int, ...]]) -> None:
    tree, ends = Tree.of(sequences)
    spelled = [tuple(tree.tokens[node] for node in tree.path(end)) for end in ends]
    assert spelled == sequences
    beginnings = {sequence[: length + 1] for sequence in sequences for length in range(len(sequence))}
    assert len(tree) == len(beginnings)
    assert all(parent < node for node, parent in enumerate(tree.parents))
    assert list(tree.depths) == [len(tree.path(node)) for node in range(len(tree))]
    assert {node for node in range(len(tree)) if node not in tree.parents} == set(tree.leaves)
    assert len(set(ends)) == len(set(sequences))


@given(SEQUENCES, st.sets(st.integers(0, 5), max_size=2))
def test_answers_end_at_once_or_behind_one_full_stop(sequences: list[tuple[int, ...]], stops: set[int]) -> None:
    full_stop = 9
    answers = Answers.of(sequences, [(full_stop,)], frozenset(stops))
    spelled = {tuple(answers.tree.tokens[node] for node in answers.tree.path(end)) for end in answers.ends}
    possible = {sequence for sequence in sequences if sequence and not stops & set(sequence)}
    assert spelled == possible | {(*sequence, full_stop) for sequence in possible}
    assert ROOT not in answers.ends
    assert answers.longest == 1 + max((len(sequence) for sequence in spelled), default=0)


def test_an_answer_that_ends_in_a_full_stop_gets_no_second_one() -> None:
    answers = Answers.of([(1, 9)], [(9,), (7, 8)], frozenset())
    spelled = {tuple(answers.tree.tokens[node] for node in answers.tree.path(end)) for end in answers.ends}
    assert spelled == {(1, 9), (1, 9, 7, 8)}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 5)), max_size=40),
    st.integers(1, 60),
    st.sampled_from([1, 1 << 21, 1 << 23]),
)
def test_batches_hold_every_row_once_and_keep_their_limits(
    shapes: list[tuple[int, int, int]], limit: int, vocabulary: int
) -> None:
    trees = [Tree.of([tuple(range(nodes))])[0] for _, _, nodes in shapes]
    rows = [
        (index, Row((prefix,), (0,) * asked, tree))
        for index, ((prefix, asked, _), tree) in enumerate(zip(shapes, trees, strict=True))
    ]
    found = list(batches(rows, lambda pair: pair[1], limit, vocabulary))
    assert sorted(index for batch in found for index, _ in batch) == list(range(len(rows)))
    for batch in found:
        assert len(batch) == 1 or sum(len(row.question) for _, row in batch) <= limit
        assert len(batch) == 1 or len(batch) * vocabulary <= 1 << 25
        groups = [row.prefix for _, row in batch]
        assert sum(one != other for one, other in pairwise(groups)) == len(set(groups)) - 1


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=3))
def test_judging_is_the_one_definition_of_a_correct_answer(text: str, answers: list[str]) -> None:
    forms = frozenset(filter(None, map(form, answers)))
    assert is_right(text, forms) == is_correct(text, answers)


def _facts(count: int, relation: str | None = "r") -> FactSet:
    return FactSet(Fact(f"{relation}-{i}", f"Who is {i}?", (f"answer {i}",), relation=relation) for i in range(count))


def test_enough_exemplars_make_disjoint_sets() -> None:
    found = draw_exemplars(_facts(50), ["r"], ProbeConfig())
    drawn = [exemplar.fact_id for chosen in found.of("r") for exemplar in chosen]
    assert len(drawn) == len(set(drawn)) == 40
    assert found.warnings == ()


def test_few_exemplars_make_distinct_sets_and_a_warning() -> None:
    found = draw_exemplars(_facts(8), ["r"], ProbeConfig())
    sets = {frozenset(exemplar.fact_id for exemplar in chosen) for chosen in found.of("r")}
    assert len(sets) == 10
    assert all(len(chosen) == 4 for chosen in sets)
    assert len(found.warnings) == 1
    assert "8 exemplars" in found.warnings[0]


def test_too_few_exemplars_fall_back_to_all_relations() -> None:
    facts = FactSet([*_facts(2, "rare"), *_facts(50, "common")])
    found = draw_exemplars(facts, ["rare", "common"], ProbeConfig())
    assert {exemplar.fact_id.split("-")[0] for chosen in found.of("rare") for exemplar in chosen} == {
        "rare",
        "common",
    } - (set() if any(e.fact_id.startswith("rare") for chosen in found.of("rare") for e in chosen) else {"rare"})
    assert any("relation rare" in line and "all relations" in line for line in found.warnings)
    assert not any("relation common" in line for line in found.warnings)


def test_a_relation_that_was_not_foreseen_gets_the_general_sets() -> None:
    found = draw_exemplars(_facts(50), ["r"], ProbeConfig())
    assert found.of("unheard of") == found.of(None) == found.sets[""]


def test_without_exemplars_questions_are_asked_bare_and_that_is_said() -> None:
    found = draw_exemplars(FactSet(()), ["r"], ProbeConfig())
    assert set(found.of("r")) == {()}
    assert any("without exemplars" in line for line in found.warnings)


def test_exemplar_sets_depend_on_the_seed_and_on_nothing_else() -> None:
    facts = _facts(60)
    shuffled = FactSet(sorted(facts, key=lambda fact: fact.question[::-1]))
    one = draw_exemplars(facts, ["r"], ProbeConfig())
    assert one == draw_exemplars(shuffled, ["r", "other"], ProbeConfig()).__class__({**one.sets}, one.warnings)
    assert one.of("r") == draw_exemplars(shuffled, ["other", "r"], ProbeConfig()).of("r")
    assert one.of("r") != draw_exemplars(facts, ["r"], ProbeConfig(seed=1)).of("r")


def test_exemplar_sets_come_back_from_their_dictionary() -> None:
    sets = draw_exemplars(_facts(8), ["r"], ProbeConfig())
    again = ExemplarSets.from_dict(sets.to_dict())
    assert again == sets
    assert again.fingerprint == sets.fingerprint
    assert sets.first(3).fingerprint != sets.fingerprint


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5))
def test_a_question_never_stands_in_its_own_prompt(count: int, shots: int, sets: int) -> None:
    facts = _facts(count)
    drawn = draw_exemplars(facts, ["r"], ProbeConfig(shots=shots, exemplar_sets=sets))
    for fact in facts:
        chosen = drawn.for_question(Question("q", fact.question, fact.answers, fact.id, "r"))
        assert len(chosen) == sets
        for one in chosen:
            assert fact.id not in {exemplar.fact_id for exemplar in one}
            assert len(one) == len(set(one))
        everyone = {exemplar for one in (*drawn.of("r"), *drawn.of(None)) for exemplar in one}
        others = {exemplar for exemplar in everyone if exemplar.fact_id != fact.id}
        assert all(len(one) == min(shots, len(others)) for one in chosen)
        assert chosen == drawn.for_question(Question("q", fact.question, fact.answers, fact.id, "r"))


def test_the_subject_is_withheld_only_where_it_stands() -> None:
    question = Question("q", "Where was Ada born?", ("London",), "f", subject="Ada")
    assert without_subject(question) == "Where was it born?"
    assert without_subject(Question("q", "Where was Ada born?", ("London",), "f", subject="Alan")) is None
    assert without_subject(Question("q", "Where was Ada born?", ("London",), "f")) is None


def _mastery(fact_id: str, category: Category, relation: str | None = None, p_prior: float | None = None) -> Mastery:
    p_greedy = {3: 1.0, 2: 0.5, 1: 0.0, 0: 0.0}[category.rank]
    return Mastery(
        fact_id, relation, "q", "a", category, p_greedy, 0.25, 0.5, p_prior, True, "g", (True, False), (0.5, 0.0),
        ("g", "h"), (False, True),
    )  # fmt: skip


def _map(**categories: Category) -> MasteryMap:
    return MasteryMap(_mastery(fact_id, category) for fact_id, category in categories.items())


def test_a_mastery_map_survives_its_file(tmp_path: Path) -> None:
    mastery = MasteryMap(
        _mastery(f"f{rank}", category, "r" if rank else None, rank / 3 or None)
        for rank, category in enumerate(Category)
    )
    mastery.save(tmp_path / "mastery.parquet")
    assert MasteryMap.load(tmp_path / "mastery.parquet") == mastery
    assert mastery.to_pandas()["category"].tolist() == [str(category) for category in Category]


def test_a_changed_byte_of_a_mastery_map_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mastery.parquet"
    mastery = MasteryMap(_mastery(f"f{rank}", category, "r") for rank, category in enumerate(Category))
    mastery.save(path)
    whole, found = path.read_bytes(), 0
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            assert MasteryMap.load(path) == mastery, place
        except InputError as fault:
            assert "mastery.parquet" in str(fault)
            found += 1
    assert found > len(whole) / 5 / 4


@pytest.mark.parametrize("content", [None, b"not parquet"])
def test_what_is_not_a_mastery_map_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mastery.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError):
        MasteryMap.load(path)


def test_rose_to_needs_a_rise_and_the_category() -> None:
    high, maybe, weak, unknown = Category
    before = _map(a=maybe, b=unknown, c=weak, d=high, e=unknown)
    after = _map(a=high, b=weak, c=maybe, d=high, e=maybe, f=high)
    assert after.rose_to(maybe, since=before) == {"a", "c", "e"}
    assert after.rose_to(high, since=before) == {"a"}
    assert after.rose_to(unknown, since=before) == {"a", "b", "c", "e"}


def test_counts_and_choices_agree() -> None:
    mastery = MasteryMap([_mastery("a", Category.UNKNOWN, "x"), _mastery("b", Category.MAYBE_KNOWN, "y")])
    assert mastery.where("Unknown", Category.HIGHLY_KNOWN) == {"a"}
    assert sum(mastery.counts().values()) == 2
    assert list(mastery.by_relation()) == ["x", "y"]
    assert mastery.by_relation()["y"][Category.MAYBE_KNOWN] == 1
    assert len(mastery.plot().data) == 4


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_independent_values_get_wilsons_interval(values: list[bool]) -> None:
    found = share([float(value) for value in values], range(len(values)))
    low, high = wilson(found.value, len(values) if not 0 < found.value < 1 else len(values) - 1)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_facts_of_one_subject_count_less_than_facts_of_many() -> None:
    values = [1.0] * 30 + [0.0] * 30
    alone = share(values, range(60))
    together = share(values, [place // 10 for place in range(60)])
    assert together.clusters == 6
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_config_refuses_what_it_does_not_know() -> None:
    wrong = ({"temperature": 0}, {"temperature": math.inf}, {"top_p": 0}, {"shots": -1}, {"engine": "x"}, {"shot": 4})
    for bad in wrong:
        with pytest.raises(ValueError, match=next(iter(bad))):
            ProbeConfig(**bad)


def test_the_probe_room_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, instil.probe, instil.model; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
