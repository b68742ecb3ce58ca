"""What counts as a right answer."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.answers import _any_script, _core, is_correct, normalise

SAME = [
    ("Paris", "paris"),
    ("Paris.", "Paris"),
    ('"Paris"', "Paris"),
    ("“Paris”", "Paris"),
    ("«Paris»", "Paris"),
    ("「東京」", "東京"),
    ("東京。", "東京"),
    ("  New\u00a0 York\t", "New York"),
    ("The Hague", "Hague"),
    ('The "Beatles"', "beatles"),
    ("**Paris**", "Paris"),
    ("- Paris", "Paris"),
    ("(Paris)", "Paris"),
    ("O’Brien", "O'Brien"),
    ("1914–1918", "1914-1918"),
    ("STRASSE", "straße"),
    ("\ufb01ction", "fiction"),
    ("cafe\u0301", "café"),
    ("\u200fירושלים\u200e", "ירושלים"),
    ("Yahoo!", "Yahoo"),
    ("U.S.A.", "u.s.a"),
    ("ﷲ", "الله"),
]
DIFFERENT = [
    ("Paris", "Paris Hilton"),
    ("C", "C++"),
    ("C", "C#"),
    ("5", "-5"),
    ("NET", ".NET"),
    ("5", ".5"),
    ("Malmo", "Malmö"),
    ("Paris", "Paris (Texas)"),
    ("A-", "A"),
    ("the", "a"),
    ("कि", "की"),
    ("می‌خواهم", "میخواهم"),
]


@pytest.mark.parametrize(("said", "listed"), SAME)
def test_made_equal(said: str, listed: str) -> None:
    assert is_correct(said, [listed])
    assert is_correct(listed, ["something else", said])


@pytest.mark.parametrize(("said", "listed"), DIFFERENT)
def test_kept_apart(said: str, listed: str) -> None:
    assert not is_correct(said, [listed])


@pytest.mark.parametrize("empty", ["", " ", "\n\t", "\u200b", "\ufeff", "\x00", "\u00a0"])
def test_empty_is_never_right(empty: str) -> None:
    assert not is_correct(empty, ["", " ", empty, "Paris"])


def test_no_answers_no_right_answer() -> None:
    assert not is_correct("Paris", [])


@pytest.mark.parametrize("name", ["!!!", "?", "...", "'", "The The", "the", "A", "(", "()", "-"])
def test_short_and_odd_names_equal_themselves_only(name: str) -> None:
    assert is_correct(name, [name])
    assert not is_correct("Paris", [name])


def test_a_name_of_articles_keeps_its_last_word() -> None:
    assert normalise("The The") == "the"
    assert normalise("A") == "a"


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(alphabet=" \"'*_-(){}[]（）.,!?aAnthe\u0301\u0345İßﬁ\u200bΐ´`′", max_size=12))
def test_normalising_twice_changes_nothing_for_awkward_text(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_equals_the_long_one(text: str) -> None:
    assert normalise(text) == (_core(_any_script(text)) or _any_script(text))


@given(st.text(min_size=1))
def test_right_exactly_when_something_is_left(text: str) -> None:
    assert is_correct(text, [text]) == bool(normalise(text))


@given(st.text(alphabet=st.characters(categories=("Lo", "Lu", "Ll", "Nd")), min_size=1))
def test_letters_and_digits_of_every_script_survive(text: str) -> None:
    kept = "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum())
    assert "".join(char for char in normalise(text) if char.isalnum()) or not kept


@given(st.text(), st.text())
def test_equality_is_symmetric(one: str, other: str) -> None:
    assert is_correct(one, [other]) == is_correct(other, [one])


@pytest.mark.parametrize("piece", ["the ", '"', "(", "the (", "([", "- ", "…"])
def test_hostile_nesting_costs_no_more_than_its_length(piece: str) -> None:
    started = time.perf_counter()
    normalise(piece * (300_000 // len(piece)) + "x" + ")" * 1000)
    assert time.perf_counter() - started < 5
