"""Formats do no harm: the words of a document can be had back exactly, from any format and any composition."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.augment import FORMATS, Formatted, Level, Recipe, Sheet, copy_of, format_text, prove, recover, words
from instil.augment.formats import Format, written_words
from instil.errors import RunFailed
from instil.facts import Document
from instil.facts.sentence_ends import ends_sentence
from tests.augment_data import ADA, BEN, EDGES, hard_documents, hard_texts

NAMES = list(FORMATS)
recipes = st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True).map("+".join)


def formatted(document: Document, name: str, seed: int = 0) -> Formatted:
    return copy_of(document, Recipe.parse(name), copy=1, seed=seed).formatted


def assert_no_harm(document: Document, done: Formatted) -> None:
    """The inverse, and what can be said without trusting the record."""
    wanted = document.text.split()
    assert done.recover() == wanted
    assert wanted == words(document.text)
    # Without the record: the words stand in the text, in order and apart, ...
    place = 0
    for word in wanted:
        place = done.text.find(word, place) + len(word)
        assert place >= len(word), f"{word!r} is missing"
    # ... and no character came or went but those of the record, none of which is white space.
    put_in = "".join(done.marks)
    ours = sorted(put_in + "".join(wanted))
    assert sorted(character for character in done.text if not character.isspace()) == ours
    assert not any(character.isspace() for character in put_in)


def assert_nothing_told(document: Document, done: Formatted) -> None:
    """What was put in holds no word but those of the closed lists, numbers of items, and the title's."""
    title = set(re.findall(r"\w+", (document.title or "").lower()))
    for word in re.findall(r"[^\W_]+", " ".join(done.marks).lower()):
        assert word in written_words() or word.isdecimal() or any(word in part or part in word for part in title), word


def test_there_are_at_least_twelve_and_each_says_what_it_does() -> None:
    assert len(FORMATS) >= 12
    for name, one in FORMATS.items():
        assert one.name == name == name.lower()
        assert one.about and "\n" not in one.about and len(one.about) < 100
    assert {one.level for one in FORMATS.values()} == set(Level)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(document=hard_documents(), seed=st.integers(0, 50))
def test_the_words_come_back_exactly(name: str, document: Document, seed: int) -> None:
    done = formatted(document, name, seed)
    assert_no_harm(document, done)
    assert_nothing_told(document, done)


@settings(max_examples=300)
@given(document=hard_documents(), name=recipes, seed=st.integers(0, 50))
def test_the_words_come_back_from_composed_formats(document: Document, name: str, seed: int) -> None:
    done = formatted(document, name, seed)
    assert_no_harm(document, done)
    assert_nothing_told(document, done)


@pytest.mark.parametrize("text", EDGES)
def test_every_format_and_variant_takes_every_edge(text: str) -> None:
    for title, name, seed in itertools.product((None, "A title", text), NAMES, range(12)):
        document = Document("x", text, title)
        assert_no_harm(document, formatted(document, name, seed))


@settings(max_examples=200)
@given(document=hard_documents(), name=recipes)
def test_unicode_normalisation_joins_no_mark_with_a_word(document: Document, name: str) -> None:
    """Tokenizers that normalise (NFC) must not turn `>` and a combining stroke into another character."""
    done = formatted(document, name)
    edges = sorted({0, len(done.text), *itertools.chain(*done.inserted)})
    pieces = [done.text[start:end] for start, end in itertools.pairwise(edges)]
    inserted = {start for start, _ in done.inserted}
    joined = "".join(unicodedata.normalize("NFC", piece) for piece in pieces)
    whole = unicodedata.normalize("NFC", done.text)
    # A title may begin with a combining character: that is between two marks, and no word's.
    if not any(unicodedata.combining(done.text[start]) for start in inserted):
        assert whole == joined


@pytest.mark.parametrize("name", NAMES)
def test_every_format_changes_an_ordinary_document(name: str) -> None:
    long = replace(ADA, text=" ".join(5 * [ADA.text.replace("\n\n", " ")]))
    for seed in range(8):
        assert formatted(long, name, seed).text != long.text


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("lines", "wrapped", "spacing")])
def test_a_document_of_one_word_gets_its_format_too(name: str) -> None:
    assert formatted(Document("x", "word"), name).text != "word"


def test_a_document_without_words_stays_as_it_is() -> None:
    for name, text in itertools.product(NAMES, ("", " \n ")):
        assert formatted(Document("x", text, "A title"), name) == Formatted(text, ())


def test_no_format_escapes_what_stands_in_the_text() -> None:
    document = Document("x", 'if a < b && c > "d": <b>bold</b> &amp; done.')
    for seed in range(8):
        done = formatted(document, "html", seed)
        assert document.text in done.text


def test_a_title_that_stands_in_the_text_is_marked_and_not_told_twice() -> None:
    for seed in range(8):
        assert formatted(BEN, "html", seed).text.count("Ben") == BEN.text.count("Ben")
        assert re.match(r"<(h\d)>Ben</\1>\n", formatted(BEN, "html", seed).text)
        assert formatted(ADA, "markdown", seed).text.startswith("#")
        assert formatted(ADA, "markdown", seed).text.count("Ada Lovelace") == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quotes", '"One two." "Three four."'),
        ("bullets", "- One two.\n- Three four."),
        ("numbers", "1. One two.\n2. Three four."),
        ("html", "<h1>T</h1>\n<p>One two. Three four.</p>"),
        ("comments", "# One two.\n# Three four."),
        ("bullets+quotes", '- "One two."\n- "Three four."'),
        ("quotes+bullets", '- "One two."\n- "Three four."'),
        ("comments+bullets", "# - One two.\n# - Three four."),
        ("blockquote+heading", "> T:\n> One two. Three four."),
    ],
)
def test_what_a_format_looks_like(name: str, text: str) -> None:
    """Each of these is one of the variants."""
    document = Document("x", "One two. Three four.", "T")
    assert text in {formatted(document, name, seed).text for seed in range(1000)}


def test_formats_are_applied_from_the_inside_out_whatever_their_order() -> None:
    ordered = [one.level for one in Recipe.parse("padding+comments+html+bullets+quotes+lines").formats]
    assert ordered == sorted(ordered) and len(set(ordered)) == len(Level)


def test_line_formats_reach_every_line_and_no_blank_one() -> None:
    for seed in range(20):
        done = formatted(ADA, "blockquote+heading+lines", seed)
        lines = done.text.split("\n")
        prefix = re.match(r"\W*", lines[-1])
        assert prefix is not None
        assert all(not line or line.startswith(prefix[0][0]) for line in lines)


def test_wrapped_lines_keep_to_the_width_and_break_no_word() -> None:
    text = " ".join(f"word{'s' * (n % 7)}" for n in range(200))
    lines = formatted(Document("x", text), "wrapped").text.split("\n")
    assert len(lines) > 1 and max(map(len, lines)) <= 100
    glued = Document("x", "7\u00a0November " * 40)
    assert "7\u00a0November" in formatted(glued, "wrapped").text.split("\n")[0]


# -------------------------------------------------------------------- the proof


def _harmful(change: Callable[[Sheet], Sheet]) -> Format:
    return Format("harmful", "changes words", Level.SENTENCES, lambda sheet, rng: change(sheet))


def _with_words(sheet: Sheet, *changed: str) -> Sheet:
    return Sheet(
        changed, *(("",) * (len(changed) + 1), (" ",) * (len(changed) + 1), ("",) * (len(changed) + 1)), (), ()
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda sheet: _with_words(sheet, *sheet.words[:-1]),
        lambda sheet: _with_words(sheet, *reversed(sheet.words)),
        lambda sheet: _with_words(sheet, *(word.lower() for word in sheet.words)),
        lambda sheet: sheet.with_white([""] * len(sheet.white)),
        lambda sheet: sheet.with_white(["|"] * len(sheet.white)),
    ],
    ids=["drops a word", "turns them around", "lower case", "no space between", "a bar instead of a space"],
)
def test_a_format_that_does_harm_is_found_out(change: Callable[[Sheet], Sheet]) -> None:
    with pytest.raises(RunFailed, match="harmful changed the words of document ada"):
        format_text(ADA, [_harmful(change)], Random(0))


def test_the_proof_is_of_the_text_and_not_of_the_words_that_were_passed_along() -> None:
    with pytest.raises(RunFailed):
        prove("one two", Formatted("one (two)", ((4, 5),)), "f", "d")
    assert prove("one two", Formatted("one (two)", ((4, 5), (8, 9))), "f", "d").recover() == ["one", "two"]


@pytest.mark.parametrize("inserted", [((2, 1),), ((0, 2), (1, 3)), ((5, 9),), ((-1, 1),), ((1, 1),)])
def test_a_record_that_fits_no_text_is_refused(inserted: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="is no stretch"):
        recover("abcd", inserted)


def test_words_are_what_white_space_leaves_for_every_character() -> None:
    """`str.split` and the pattern by which gaps are found agree on what white space is, in all of Unicode."""
    every = "a".join(map(chr, range(sys.maxunicode + 1)))
    assert re.split(r"\s+", every.strip()) == every.split()


# ------------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. J. R. Smith, Jr. of St. Ives, left.", ["Dr. J. R. Smith, Jr. of St. Ives, left."]),
        ("It cost 3.5 million. No. 5 won, e.g. here.", ["It cost 3.5 million.", "No. 5 won, e.g. here."]),
        ("He worked for Apple Inc. She did not.", ["He worked for Apple Inc.", "She did not."]),
        ("“Go!” he said. “I will.” She went.", ["“Go!” he said.", "“I will.”", "She went."]),
        ("What?! (Really.) [1] Yes…", ["What?!", "(Really.)", "[1] Yes…"]),
        ("Born in Jan. 1900. Died in Oct. The end.", ["Born in Jan. 1900.", "Died in Oct.", "The end."]),
        ("The U.S. Army left. OK.", ["The U.S. Army left.", "OK."]),
        ("A heading\nA sentence.\n- item one\n- item two", ["A heading", "A sentence.", "- item one", "- item two"]),
        ("क्या है? वह गया। फिर", ["क्या है?", "वह गया।", "फिर"]),
        ("... and so on. ... Then", ["... and so on.", "...", "Then"]),
        (
            "This line was broken by an editor because it had become too\nlong for the page. This is the next.",
            ["This line was broken by an editor because it had become too long for the page.", "This is the next."],
        ),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    sheet = Sheet.of(text)
    assert sheet is not None
    assert [" ".join(sheet.words[start:end]) for start, end in sheet.sentences] == sentences


def test_paragraphs_are_apart_by_blank_lines_or_by_lines_that_were_ended() -> None:
    broken = "This line was broken to fit a page, since it had become much too"
    sheet = Sheet.of(f"{broken}\r\nlong. It goes on.\n \nA second one.\r\nA third.\u2029A fourth")
    assert sheet is not None
    firsts = [sheet.words[start] + " " + sheet.words[start + 1] for start, _ in sheet.paragraphs]
    assert firsts == ["This line", "A second", "A third.", "A fourth"]


@given(text=hard_texts)
def test_splitting_loses_no_character(text: str) -> None:
    sheet = Sheet.of(text)
    if sheet is None:
        assert not text.split()
        return
    assert sheet.formatted() == Formatted(text, ())
    for units in (sheet.sentences, sheet.paragraphs):
        assert [place for start, end in units for place in range(start, end)] == list(range(len(sheet.words)))
        assert all(start < end for start, end in units)


def test_a_word_without_letters_ends_nothing() -> None:
    assert not ends_sentence("”", "A")
    assert not ends_sentence("word", "A")


# --------------------------------------------------------------------- real text


def _articles(path: Path, count: int) -> list[Document]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, count)]
    return [Document(row["id"], row["text"], row["title"]) for row in rows]


def test_wikipedia_comes_back_word_for_word(real_data: Callable[[str], Path]) -> None:
    """Each article in one format by itself and in one composition, so that every format meets a dozen of them."""
    names = [*NAMES, *(f"{one}+{two}" for one, two in itertools.pairwise(NAMES))]
    articles = _articles(real_data("wikipedia/articles.jsonl.gz"), 300)
    for number, article in enumerate(articles):
        for name in (names[number % len(names)], names[(7 * number + 3) % len(names)]):
            done = formatted(article, name, number)
            assert done.recover() == article.text.split()
            assert_nothing_told(article, done)
            assert done.text != article.text


def test_wikipedia_has_sentences_of_a_likely_length(real_data: Callable[[str], Path]) -> None:
    lengths = []
    for article in _articles(real_data("wikipedia/articles.jsonl.gz"), 100):
        sheet = Sheet.of(article.text, article.title)
        assert sheet is not None
        lengths += [end - start for start, end in sheet.sentences]
    lengths.sort()
    assert 12 <= lengths[len(lengths) // 2] <= 30
    assert sum(length > 80 for length in lengths) < 0.02 * len(lengths)
