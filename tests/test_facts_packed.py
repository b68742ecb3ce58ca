"""Many facts in a temporary file: the same answers as from memory, and next to no memory."""

from __future__ import annotations

import copy
import json
import os
import pickle
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InputError
from instil.facts import Fact, FactSet, Role, read_facts
from instil.facts import packed as module
from instil.facts.packed import Collector, IdTable, Packed, packed
from instil.probe import ProbeConfig, draw_exemplars

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
FACTS = st.lists(
    st.builds(
        Fact,
        id=TEXTS,
        question=TEXTS,
        answers=st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
        subject=st.none() | TEXTS,
        relation=st.none() | st.sampled_from(["", "capital", "author"]),
        paraphrases=st.lists(TEXTS, max_size=2).map(tuple),
        role=st.none() | st.sampled_from(Role),
        metadata=st.dictionaries(TEXTS, st.integers() | TEXTS, max_size=2),
    ),
    unique_by=lambda fact: fact.id,
    max_size=12,
)


def both(facts: Iterable[Fact]) -> tuple[FactSet, FactSet]:
    """The facts in memory, and packed."""
    found = list(facts)
    return FactSet(found), FactSet(packed(found))


@given(FACTS, st.data())
def test_packed_facts_are_the_facts(facts: list[Fact], data: st.DataObject) -> None:
    plain, small = both(facts)
    assert small.is_packed and not plain.is_packed
    assert len(small) == len(plain)
    assert list(small) == list(plain)
    assert small.fingerprint == plain.fingerprint
    assert small.subjects == plain.subjects
    assert dict(small.by_id) == dict(plain.by_id)
    assert {key: list(some) for key, some in small.by_relation.items()} == {
        key: list(some) for key, some in plain.by_relation.items()
    }
    start, stop = data.draw(st.integers(-14, 14)), data.draw(st.integers(-14, 14))
    assert list(small[start:stop]) == list(plain[start:stop])
    assert list(small[::-2]) == list(plain[::-2])
    assert [small[number] for number in range(-len(facts), len(facts))] == [*facts, *facts]
    keep = data.draw(st.sets(st.sampled_from([fact.id for fact in facts]))) if facts else set()
    count = data.draw(st.integers(0, 14))
    for one, other in (
        (small.only(keep), plain.only(keep)),
        (small.only(keep).sample(count, 3), plain.only(keep).sample(count, 3)),
        (small.sample(count, 5), plain.sample(count, 5)),
        (small.with_role(Role.TARGET), plain.with_role(Role.TARGET)),
        (small.assign(Role.KNOWN), plain.assign(Role.KNOWN)),
        (small.in_order_of_ids(), plain.in_order_of_ids()),
    ):
        assert list(one) == list(other)
        assert dict(one.by_id) == dict(other.by_id)
        assert one.is_packed or one is plain
    more = [replace(fact, id=f"{fact.id}+") for fact in facts]
    assert list(small + more + facts) == list(plain + more + facts)


@given(FACTS)
def test_exemplars_are_drawn_alike(facts: list[Fact]) -> None:
    plain, small = both(facts)
    config = ProbeConfig(exemplar_sets=3, shots=2)
    relations = {fact.relation for fact in facts}
    assert draw_exemplars(small, relations, config) == draw_exemplars(plain, relations, config)


@given(st.lists(TEXTS, max_size=40), st.sampled_from([None, 7, 2**62]))
def test_numbers_of_ids_are_exact_even_where_all_hashes_are_one(names: list[str], key: int | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if key is not None:
            patch.setattr(module, "_key", lambda name: key)
        kept: list[str] = []
        table = IdTable(kept.__getitem__)
        for name in names:
            there = table.add(name)
            assert there == (kept.index(name) if name in kept else None)
            if there is None:
                kept.append(name)
        assert len(table) == len(kept)
        assert [table.find(name) for name in kept] == list(range(len(kept)))
        assert table.find("not there at all") is None


def test_the_table_of_ids_grows() -> None:
    names = [f"id {number}" for number in range(5000)]
    table = IdTable(names.__getitem__)
    assert all(table.add(name) is None for name in names)
    assert [table.find(name) for name in names] == list(range(5000))


def written(folder: Path, facts: Iterable[Fact]) -> Path:
    path = folder / "facts.jsonl"
    path.write_text("".join(json.dumps(fact.to_dict()) + "\n" for fact in facts), encoding="utf-8")
    return path


def numbered(count: int) -> list[Fact]:
    return [
        Fact(
            f"fact {number}", f"Who wrote book {number}?", (f"Author {number}", f"A. {number}"), f"book {number}", "by"
        )
        for number in range(count)
    ]


def test_a_long_file_is_packed_and_a_short_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACK_ABOVE", 100)
    for count in (100, 101, 250):
        facts = read_facts(written(tmp_path, numbered(count)))
        assert facts.is_packed == (count > 100)
        assert list(facts) == numbered(count)
        assert facts.by_id["fact 77"] == facts[77]
        with pytest.raises(KeyError):
            facts.by_id["fact 1000"]


@pytest.mark.parametrize("above", [100, 1])
def test_a_repeated_id_is_told_with_its_first_line(above: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACK_ABOVE", above)
    facts = numbered(9)
    path = written(tmp_path, [*facts, facts[4]])
    with pytest.raises(InputError, match=r":10: an id occurs twice.*the first stands on line 5"):
        read_facts(path)
    kept = read_facts(path, skip_invalid=True)
    assert list(kept) == facts
    assert len(kept.left_out) == 1 and "line 5" in kept.left_out[0]


def test_copies_and_other_processes_get_the_facts(tmp_path: Path) -> None:
    plain, small = both(numbered(30))
    for other in (pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert list(other) == list(plain)
    child = os.fork()
    if not child:
        os._exit(0 if list(small) == list(plain) else 1)
    assert list(small) == list(plain)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_waits_to_be_written_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 500)
    collector = Collector(above=0)
    for number, fact in enumerate(numbered(40)):
        assert collector.add(fact) is None
        assert collector.add(numbered(1)[0]) == 0
        assert collector.add(fact) == number
    assert list(collector.items()) == numbered(40)


def test_ids_that_repeat_are_refused() -> None:
    with pytest.raises(ValueError, match="repeat"):
        packed([*numbered(3), numbered(1)[0]])
    assert len(packed([])) == 0


def test_packed_facts_take_next_to_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACK_ABOVE", 100)
    count = 5000
    path = written(tmp_path, numbered(count))
    assert len(read_facts(path)) == count  # whatever is imported by the way
    tracemalloc.start()
    try:
        facts = read_facts(path)
        held, most = tracemalloc.get_traced_memory()
        names = {fact.id for fact in facts[100:200]}
        assert len(facts.only(names)) == 100
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert isinstance(facts._facts, Packed)
    assert held < 200_000 + 16 * count  # of facts as objects it would be 4 MB and more
    assert most < 1_500_000 + 80 * count  # what waits to be written
    assert after < held + 100_000
