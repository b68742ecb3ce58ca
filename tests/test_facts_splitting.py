"""Long documents in pieces: never a character lost, never too long, cut where a reader would cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from instil.errors import InputError
from instil.facts import Document
from instil.facts.sentences import is_heading, paragraphs, sentences
from instil.facts.splitting import split_corpus, split_document, split_text, words_in

PROSE = st.lists(
    st.sampled_from(
        ["Dr. A. B. Smith came. ", "Ende!", "word ", "\n\n", "\n", "# Heading\n", "東京。", "x" * 30, "\t", " "]
    )
)
TEXTS = st.text(max_size=200) | PROSE.map("".join)


@given(TEXTS, st.integers(1, 20))
@example("", 1)
@example("\n\n \n", 1)
@example("a\n\n# b\n\nc", 2)
def test_pieces_are_the_text_and_fit(text: str, most: int) -> None:
    for measure in (words_in, len):
        pieces = split_text(text, most, measure)
        assert "".join(pieces) == text
        assert all(measure(piece) <= most for piece in pieces)


@given(TEXTS)
def test_spans_are_in_order_and_hold_all_but_white_space(text: str) -> None:
    for spans in (list(paragraphs(text)), list(sentences(text))):
        assert all(start < end for start, end in spans)
        assert all(first[1] <= second[0] for first, second in pairwise(spans))
        assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())


def test_sentences_end_where_people_end_them() -> None:
    text = (
        "Dr. J. K. Smith paid $3.50 to St. Mary's, e.g. in May. “Why?” he asked. It was No. 7 of the U.S. team! "
        "東京。大阪。 The last (of all.) End"
    )
    assert [text[start:end] for start, end in sentences(text)] == [
        "Dr. J. K. Smith paid $3.50 to St. Mary's, e.g. in May.", "“Why?” he asked.", "It was No. 7 of the U.S. team!",
        "東京。", "大阪。", "The last (of all.)", "End",
    ]  # fmt: skip


def test_headings() -> None:
    assert all(map(is_heading, ("# Title.", "Early life", "2 Methods")))
    assert not any(map(is_heading, ("It ends.", "- an item", "a | b", "a\nb", "one two " * 10)))


def test_pieces_begin_with_headings() -> None:
    end = "Later life\n\nDied " + "later " * 8 + "on."
    text = f"Intro one two three four five six.\n\nEarly life\n\nBorn here and there.\n\n{end}"
    assert split_text(text, 12) == [
        "Intro one two three four five six.\n\n",
        "Early life\n\nBorn here and there.\n\n",
        end,
    ]


def test_a_long_text_is_measured_in_few_passes() -> None:
    measured = 0

    def measure(text: str) -> int:
        nonlocal measured
        measured += len(text)
        return words_in(text)

    text = "One two three four five. " * 20_000
    pieces = split_text(text, 100, measure)
    assert "".join(pieces) == text and len(pieces) == 1_000
    assert measured < 30 * len(text)


def test_pieces_of_a_document_know_where_they_are_from() -> None:
    whole = Document("a/b.txt", "One two.\n\nThree four.", "T", "S", metadata={"pages": 2})
    first, second = split_document(whole, 2)
    assert (first.id, first.title, first.subject, first.text) == ("a/b.txt#1", "T", "S", "One two.\n\n")
    assert second.metadata == {"pages": 2, "part_of": "a/b.txt", "part": 2, "parts": 2}
    assert split_document(whole, 4) == [whole]
    with pytest.raises(InputError, match="the id of another"):
        split_corpus([whole, Document("a/b.txt#2", "x")], 2)
    with pytest.raises(ValueError, match="at most 0"):
        split_text("x", 0)
