"""The noise floor of the study of gradual learning: its tables by hand, its probes on a tiny real model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.facts import Role
from instil.probe import Category, Mastery, MasteryMap, ProbeConfig
from studies.gradual_noise import (
    LETTERS,
    Asking,
    Plan,
    Twice,
    added,
    ask_again,
    askings,
    changed,
    compared,
    pairs,
    rank,
    shares,
)
from tests.half_taught import facts, half_taught

pytestmark = pytest.mark.usefixtures("one_thread")

PROBE = ProbeConfig(exemplar_sets=4, shots=2, decode=False, prior=False)
BEFORE, AFTER = "HHMMWWUUUU", "HMMHWMUUWH"
GROUPS = list("aabbccddee")


class TestTables:
    def test_facts_are_counted_from_category_to_category(self) -> None:
        table = changed(BEFORE, AFTER)
        assert table == {
            "H": {"H": 1, "M": 1, "W": 0, "U": 0},
            "M": {"H": 1, "M": 1, "W": 0, "U": 0},
            "W": {"H": 0, "M": 1, "W": 1, "U": 0},
            "U": {"H": 1, "M": 0, "W": 1, "U": 2},
        }

    @given(st.lists(st.tuples(st.sampled_from(LETTERS), st.sampled_from(LETTERS))))
    def test_rows_and_columns_are_what_was_before_and_after(self, moves: list[tuple[str, str]]) -> None:
        before, after = ("".join(letters) for letters in zip(*moves, strict=True)) if moves else ("", "")
        table = changed(before, after)
        assert {start: sum(row.values()) for start, row in table.items()} == {one: before.count(one) for one in LETTERS}
        assert {end: sum(table[start][end] for start in LETTERS) for end in LETTERS} == {
            one: after.count(one) for one in LETTERS
        }
        assert added([table, table])["U"]["H"] == 2 * table["U"]["H"]

    @pytest.mark.parametrize(("before", "after"), [("HM", "H"), ("HX", "HM")])
    def test_what_cannot_be_compared_is_refused(self, before: str, after: str) -> None:
        with pytest.raises(ValueError, match=r"category|shorter"):
            changed(before, after)

    def test_ranks_are_those_of_the_categories(self) -> None:
        assert {category[0]: category.rank for category in Category} == {letter: rank(letter) for letter in LETTERS}

    def test_shares_by_hand(self) -> None:
        found = shares({1: Twice(BEFORE, AFTER, GROUPS)})
        values = {name: (one.value, one.n) for name, one in found.items()}
        assert values == {"changed": (0.5, 10), "rose": (0.3, 10), "lifted": (2 / 6, 6), "fell": (0.1, 10)}
        assert all(one.low is not None and one.low <= one.value <= one.high for one in found.values())

    @given(st.lists(st.tuples(st.sampled_from(list(Category)), st.sampled_from(list(Category))), min_size=1))
    def test_rose_is_what_gradual_calls_so(self, moves: list[tuple[Category, Category]]) -> None:
        maps = [
            MasteryMap(
                Mastery(f"f{number}", None, "?", "!", pair[place], 0, 0, 0, None, False, "")
                for number, pair in enumerate(moves)
            )
            for place in (0, 1)
        ]
        letters = ["".join(row.category[0] for row in one) for one in maps]
        figure = shares({0: Twice(letters[0], letters[1], [str(n) for n in range(len(moves))])})["rose"]
        assert figure.value == pytest.approx(len(maps[1].rose_to("MaybeKnown", since=maps[0])) / len(moves))

    def test_no_change_at_all_has_a_bound(self) -> None:
        found = shares({draw: Twice(BEFORE, BEFORE, GROUPS) for draw in (1, 2, 3)})
        assert found["changed"].value == 0 and found["changed"].high is not None
        assert 0 < found["changed"].high == pytest.approx(1 - 0.025 ** (1 / 5)), "five subjects, however many draws"
        assert shares({1: Twice("HM", "MH", "ab")})["lifted"].value is None

    def test_draws_are_added_and_resampled(self) -> None:
        found = compared({1: Twice(BEFORE, AFTER, GROUPS), 2: Twice(BEFORE, BEFORE, GROUPS)})
        assert found["table"]["U"] == {"H": 1, "M": 0, "W": 1, "U": 6}
        assert found["shares"]["changed"]["value"] == 0.25 and found["shares"]["changed"]["n"] == 20
        assert all(0 <= one["low"] <= one["value"] <= one["high"] <= 1 for one in found["shares"].values())
        assert (found["facts"], found["subjects"], found["draws"]) == (10, 5, [1, 2])


class TestProbes:
    def ask(self, one: Asking, folder: Path) -> str:
        exemplars = facts().with_role(Role.EXEMPLAR)
        asked = facts().where(lambda fact: fact.role is not Role.EXEMPLAR)
        return ask_again(half_taught(), asked, exemplars, one, folder / one.name, PROBE)

    def test_only_what_is_drawn_anew_changes_a_category(self, tmp_path: Path) -> None:
        found = {one: self.ask(one, tmp_path) for one in askings(Plan(draws=(1, 2)))}
        exact, sampled = Asking("exact"), Asking("sampled")
        ways = pairs((1, 2))
        assert {len(letters) for letters in found.values()} == {len(found[exact])}
        assert all(found[one] == found[other] for one, other in ways["exact, same sets"].values())
        for way in ("exact, other sets", "sampled, other sets"):
            assert any(found[one] != found[other] for one, other in ways[way].values()), way
        greedy = [letters.translate({ord("U"): "W"}) for letters in (found[exact], found[sampled])]
        assert greedy[0] == greedy[1], "the engines differ in what is sampled alone"
        for one, other in ways["sampled, same sets"].values():
            assert {*changed_pairs(found[one], found[other])} <= {"WU", "UW"}

    def test_a_finished_probe_is_not_asked_again(self, tmp_path: Path) -> None:
        first = self.ask(Asking("exact", sets=1), tmp_path)
        stamp = (tmp_path / Asking("exact", sets=1).name / "mastery.parquet").stat().st_mtime_ns
        assert self.ask(Asking("exact", sets=1), tmp_path) == first
        assert (tmp_path / Asking("exact", sets=1).name / "mastery.parquet").stat().st_mtime_ns == stamp

    def test_each_probe_is_made_once(self) -> None:
        given = askings(Plan())
        assert len(given) == len(set(given)) == len({one.name for one in given}) == 14


def changed_pairs(before: str, after: str) -> list[str]:
    return [one + other for one, other in zip(before, after, strict=True) if one != other]
