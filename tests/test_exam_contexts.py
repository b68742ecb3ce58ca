"""Which texts lead to a fact: what is found, what is left out and why, and the figures over their scores."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.augment import CONTROLS, FORMATS, recipes
from instil.augment.copies import copy_of
from instil.errors import InputError
from instil.exam.contexts import (
    ContextConfig,
    ContextScores,
    ContextSet,
    contexts_of_documents,
    contexts_of_facts,
    group_of,
)
from instil.exam.contexts.building import PARTED, THE_SAME, TOLD_BEFORE, TWICE
from instil.exam.contexts.locating import BACKWARDS, NAMELESS, NO_SENTENCE, NOT_THERE, Told, locate, spelled
from instil.exam.contexts.variants import MARKED, Variant, variants
from instil.exam.statistics import Bootstrap
from instil.facts import Corpus, Document, Fact
from instil.probe.contexts import Context, ContextScore
from instil.worlds import WorldConfig, generate_world
from tests.test_exam_cloze import lives

if TYPE_CHECKING:
    from collections.abc import Callable

ADA = Document(
    "ada",
    "Ada Lovelace studied numbers for many years. She was born in London on 10 December 1815. Later on, she met "
    "Charles Babbage at a party in Bath. Her notes were printed in 1843.",
    title="Ada Lovelace",
    subject="Ada Lovelace",
    metadata={
        "paraphrases": [
            "The notes of Ada Lovelace came out in 1843. It was in London that she was born.",
            "Nobody knows where. London is the place where Ada Lovelace was born.",
        ]
    },
)


def ada(id: str, answer: str, **more: object) -> Fact:
    more = {"subject": "Ada Lovelace", "documents": ("ada",)} | more
    return Fact(id, f"{id}?", (answer,), **more)  # type: ignore[arg-type]


BORN, NOTES, MET = ada("born", "London"), ada("notes", "1843"), ada("met", "Charles Babbage")


def reasons(made: ContextSet) -> dict[str, str]:
    return dict(made.left_out)


def of_kind(made: ContextSet, item: str, kind: str) -> list[Context]:
    return [one for one in made if (one.item, one.kind) == (item, kind)]


# ------------------------------------------------------------------- locating


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ada was born in London in 1815.", "Ada was born in "),
        ("Ada sang.  Ada was born in  London. She left London.", "Ada was born in  "),
        ("Ada was born in Londonderry.", NOT_THERE),
        ("A walk through London\n\nAda was born in London.", NO_SENTENCE),
        ("London is where Ada was born.", BACKWARDS),
        ("It was London where she was born. Ada said so.", NAMELESS),
        ("Ada sang. She was born in London.", "She was born in "),
    ],
)
def test_where_a_text_tells_a_fact(text: str, found: str) -> None:
    told = locate(text, "London", "Ada", about=False)
    assert (text[told.sentence : told.start] if isinstance(told, Told) else told) == found


def test_a_text_about_the_subject_may_say_she() -> None:
    text = "It was London where she was born."
    assert locate(text, "London", "Ada", about=False) == NAMELESS
    assert locate(text, "London", "Ada", about=True) == Told(7, 13, 0)
    assert locate(text, "London", None, about=False) == Told(7, 13, 0)


@pytest.mark.parametrize(
    ("answer", "text", "there"),
    [
        ("New York", "in New\n  York.", True),
        ("$5", "for $5 a day", True),
        ("C++", "wrote C++, then", True),
        ("東京", "彼は東京で生まれた。", True),
        ("York", "in Yorkshire", False),
        ("1", "in 10 days", False),
    ],
)
def test_answers_are_whole_words(answer: str, text: str, there: bool) -> None:
    assert (spelled(answer).search(text) is not None) == there


# ------------------------------------------------------------------ from facts


def test_contexts_of_facts() -> None:
    born = replace(BORN, completions=("Ada Lovelace was born in", "In London was born", "The birthplace of Ada is "))
    made = contexts_of_facts([born, NOTES, MET], Corpus([ADA]), ContextConfig(formats=("bullets", "fullname")))
    (written,) = of_kind(made, "born", "as written")
    assert written.before == "Ada Lovelace studied numbers for many years. She was born in "
    assert (written.fact, written.after[:10], written.document) == ("London", " on 10 Dec", "ada")
    assert [one.before for one in of_kind(made, "born", "sentence alone")] == ["Ada Lovelace: She was born in "]
    (bullets,) = of_kind(made, "born", "bullets")
    assert re.fullmatch(r"(\S+) Ada Lovelace studied numbers for many years\.\n\1 She was born in ", bullets.before)
    (named,) = of_kind(made, "born", "fullname")
    assert named.before.endswith("years. Ada Lovelace was born in ")
    assert [one.before for one in of_kind(made, "born", "paraphrase")] == [
        "The notes of Ada Lovelace came out in 1843. It was in "
    ]
    assert [one.before for one in of_kind(made, "born", "completion")] == [
        "Ada Lovelace was born in ", "The birthplace of Ada is ",
    ]  # fmt: skip
    assert reasons(made) == {
        "born | paraphrase 1 in ada": BACKWARDS,
        "born | completion 1": TOLD_BEFORE,
        "notes | paraphrase 1 in ada": NOT_THERE,
        "met | paraphrase 0 in ada": NOT_THERE,
        "met | paraphrase 1 in ada": NOT_THERE,
    }
    assert made.items == ("born", "notes", "met")
    assert len({one.id for one in made}) == len(made)
    assert next(one.kind for one in made if one.item == "met") == "as written"


def test_two_facts_with_one_answer_are_both_left_out() -> None:
    facts = [BORN, ada("lived", "london"), ada("city", "London on 10 December 1815"), MET]
    made = contexts_of_facts(facts, Corpus([ADA]), ContextConfig(formats=(), paraphrases=0))
    assert made.items == ("met",)
    assert reasons(made) == {
        "born in ada": TWICE, "city in ada": TWICE, "lived in ada": NOT_THERE,
    }  # fmt: skip


def test_the_documents_of_a_fact() -> None:
    """Those that it names; else those with its subject, copies left out."""
    copy = replace(ADA, id="ada#2", copy_of="ada")
    other = replace(ADA, id="other", subject="Lovelace")
    plain = ContextConfig(formats=(), alone=False, paraphrases=0)
    corpus = Corpus([ADA, copy, other])
    free = ada("free", "London", documents=())
    assert [one.id for one in contexts_of_facts([free], corpus, plain)] == ["free | as written in ada"]
    (of_copy,) = contexts_of_facts([ada("c", "London", documents=("ada#2", "gone"))], corpus, plain)
    assert of_copy.id.endswith("ada#2")
    assert of_copy.document == "ada"  # what intervals keep together
    lost = contexts_of_facts([ada("lost", "London", documents=("gone",))], corpus, plain)
    assert reasons(lost) == {"lost": "none of its documents is there"}


def test_paraphrases_that_were_trained_on_can_be_passed_over() -> None:
    document = replace(ADA, metadata={"paraphrases": [f"Ada Lovelace, life {n}. Born in London." for n in range(5)]})
    config = ContextConfig(formats=(), alone=False, first_paraphrase=2, paraphrases=2)
    made = contexts_of_facts([BORN], Corpus([document]), config)
    assert [one.id for one in made][1:] == [f"born | paraphrase {n} in ada" for n in (2, 3)]


def test_a_world_gives_contexts_of_every_fact_about_people() -> None:
    world = generate_world(WorldConfig(people=20, new_people=4, exemplar_people=4, prose_paragraphs=0))
    facts = world.facts.where(lambda fact: bool(fact.documents))
    corpus = world.paraphrased(2)
    made = contexts_of_facts(facts, corpus)
    told = {one.item for one in made if one.kind == "as written"}
    assert len(told) > 0.95 * len(facts)
    paraphrased = [one for one in made if one.kind == "paraphrase"]
    assert len(paraphrased) > 1.9 * len(told)
    for one in made:
        fact = facts.by_id[one.item]
        assert one.fact == fact.answers[0]
        assert fact.subject in one.before
        assert fact.answers[0] not in one.before
    texts = {document.id: document.text for document in corpus}
    for one in made:
        if one.kind == "as written":
            assert texts[one.document].startswith(one.before + one.fact + one.after)


# ----------------------------------------------------------------- in formats

EVERY = [*FORMATS, *(name for name in CONTROLS if name != "paraphrase"), "heading+bullets", "fullname+shuffling"]
SENTENCE = st.sampled_from(
    [
        "Ada met Dr. Smith in London.",
        "She said: “No!” and left for St. Ives.",
        "It cost $5.50, or 5 crowns…",
        "Was it so? Nobody knows.",
        "東京で生まれた。",
        "e.g. this",
        "A. B. Cale wrote\nit.",
        "Her own house stood there.",
    ]
)


@settings(max_examples=30)
@given(
    st.lists(SENTENCE, min_size=1, max_size=8), st.sampled_from([" ", "\n", "\n\n"]), st.integers(0, 5), st.randoms()
)
def test_a_mark_changes_nothing_and_follows_its_word(sentences: list[str], gap: str, seed: int, chance: object) -> None:
    """The text is that of the unmarked document, and each place begins the word that was marked."""
    document = Document("d", gap.join(sentences), title="A life", subject="Ada Cole")
    starts = [found.start() for found in re.finditer(r"\S+", document.text)]
    starts = sorted(chance.sample(starts, min(4, len(starts))))  # type: ignore[attr-defined]
    for form, recipe in zip(variants(document, starts, EVERY, seed), recipes(EVERY), strict=True):
        assert isinstance(form, Variant)
        assert form.kind == recipe.name
        assert form.text == copy_of(document, recipe, copy=1, seed=seed).document.text
        for start, place in zip(starts, form.starts, strict=True):
            word = document.text[start:].split()[0]
            if place is None:
                assert re.search(r"^\W|[.!?…。]\W*$", word) or word in ("She", "Her")
            else:
                assert form.text[place:].startswith(word)


def test_what_a_format_cannot_do_is_said() -> None:
    nobody = Document("d", "One went. Two came here.")
    assert list(variants(nobody, [0], ["fullname"], 0)) == [
        "fullname: the document says of nobody that it is about them"
    ]
    assert list(variants(replace(ADA, text="a \U000f0000"), [0], ["bullets"], 0)) == [MARKED]
    assert list(variants(ADA, [0], (), 0)) == []
    wrapped = Document("w", "For many years Ada lived alone in the far away town of New York City there.")
    config = ContextConfig(formats=("wrapped+comments", "padding", "permutation"), alone=False)
    made = contexts_of_facts([Fact("w", "?", ("New York City",), documents=("w",))], Corpus([wrapped]), config)
    assert THE_SAME in reasons(made).values()  # one sentence has no other order
    assert {one.fact for one in made} == {"New York City"}
    assert PARTED not in [one.kind for one in made]


# ------------------------------------------------------------- from documents


def test_contexts_of_documents_alone() -> None:
    corpus = lives(12)
    copies = Corpus([*corpus, replace(corpus[0], id="copy", copy_of="life-0")])
    made = contexts_of_documents(copies, ContextConfig(per_document=2))
    assert reasons(made)["copy"] == "a copy of another document"
    by_document: dict[str, set[str]] = {}
    for one in made:
        by_document.setdefault(one.document, set()).add(one.item)
        name, _, place = one.item.partition("@")
        text = corpus.by_id[name].text
        assert text[int(place) :].startswith(one.fact)
        assert spelled(one.fact).search(one.before) is None
        if one.kind == "as written":
            assert text == one.before + one.fact + text[len(one.before + one.fact) :]
    assert set(by_document) == {document.id for document in corpus}
    assert {len(items) for items in by_document.values()} <= {1, 2}
    assert {one.kind for one in made} >= {"as written", "sentence alone", "heading", "bullets", "html", "shuffling"}
    assert contexts_of_documents(copies, ContextConfig(per_document=2)) == made
    fewer = contexts_of_documents(copies, ContextConfig(per_document=2, items=5))
    assert len(fewer.items) == 5
    assert set(fewer.contexts) <= set(made.contexts)


def test_long_documents_are_divided_and_counted_as_one() -> None:
    whole = Document("book", "\n\n".join(document.text for document in lives(12)), title="Lives")
    made = contexts_of_documents(Corpus([whole]), ContextConfig(passage_words=120, per_document=1))
    assert len(made.items) > 5
    assert {one.document for one in made} == {"book"}
    assert max(len(one.before.split()) for one in made) < 140


def test_documents_that_say_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="no sentence with a fact"):
        contexts_of_documents(Corpus([Document("1", "To be. Or not.")]))


@pytest.mark.parametrize("names", [("nothing",), ("bullets", "bullets"), ("paraphrase",)])
def test_wrong_formats_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"format|paraphrase"):
        ContextConfig(formats=names)


# -------------------------------------------------------------------- figures


def score(item: str, kind: str, probability: float, right: bool, document: str = "d", tokens: int = 2) -> ContextScore:
    context = Context(f"{item} {kind} {probability}", item, document, kind, "Ada was born in ", "London")
    return ContextScore(context, tokens, 0, math.log(probability), right)


SCORED = ContextScores(
    [
        score("a", "as written", 0.8, True),
        score("a", "bullets", 0.4, True),
        score("a", "paraphrase", 0.2, True),
        score("a", "paraphrase", 0.1, False),
        score("b", "as written", 0.5, True, "e"),
        score("b", "bullets", 0.6, False, "e", tokens=1),
        score("c", "as written", 0.01, False, "f"),
        score("c", "paraphrase", 0.03, True, "f"),
    ],
    [("d in g", "a reason"), ("e in g", "a reason"), ("f", "another")],
)
QUICK = Bootstrap(resamples=200)


def test_figures_average_kinds_then_facts() -> None:
    written, other = SCORED.figures("as_written", QUICK), SCORED.figures("other", QUICK)
    assert written["probability"].value == pytest.approx((0.8 + 0.5 + 0.01) / 3)
    assert other["probability"].value == pytest.approx(((0.4 + 0.15) / 2 + 0.6 + 0.03) / 3)
    assert other["greedy_right"].value == pytest.approx(((1 + 0.5) / 2 + 0 + 1) / 3)
    logs = ((math.log(0.4) + math.log(0.2 * 0.1) / 2) / 2 / 2 + math.log(0.6) + math.log(0.03) / 2) / 3
    assert other["per_token"].value == pytest.approx(math.exp(logs))
    reworded = SCORED.figures("reworded", QUICK)["probability"]
    assert (reworded.value, reworded.n, reworded.clusters) == (pytest.approx((0.15 + 0.03) / 2), 2, 2)
    assert (reworded.low or 0) <= (reworded.value or 0) <= (reworded.high or 0)
    kinds = SCORED.by_kind(QUICK)
    assert list(kinds) == ["as written", "bullets", "paraphrase"]
    assert kinds["bullets"]["probability"].value == pytest.approx(0.5)
    with pytest.raises(InputError, match="no such group"):
        SCORED.figures("elsewhere else", QUICK)


def test_carry_over_is_of_what_is_predicted_as_written() -> None:
    carried = SCORED.carry_over("other", QUICK)
    assert carried["carry_over"].value == pytest.approx((0.75 + 0) / 2)  # c is not predicted as written
    assert carried["carry_over"].n == 2
    mass = (0.275 + 0.5 + 0.01) / (0.8 + 0.5 + 0.01)
    assert carried["probability_carried"].value == pytest.approx(mass)
    assert SCORED.carry_over("reworded", QUICK)["carry_over"].value == pytest.approx(0.5)
    none = SCORED.where(lambda one: one.context.item == "c").carry_over("other", QUICK)["carry_over"]
    assert (none.value, none.reason) == (None, "no fact is predicted as written")


def test_the_summary_has_every_figure() -> None:
    summary = SCORED.summary(QUICK)
    assert summary["counts"] == {"facts": 3, "documents": 3, "contexts": 8, "shortened": 0, "left_out": 3}
    assert summary["left_out"]["reasons"] == {"a reason": 2, "another": 1}
    assert {"probability_as_written", "probability_other", "carry_over", "carry_over_reworded"} <= set(
        summary["headline"]
    )
    assert summary["by_kind"]["bullets"]["group"] == group_of("bullets") == "elsewhere"
    only_completions = ContextScores([score("a", "completion", 0.5, True)])
    assert only_completions.summary(QUICK)["headline"]["probability_as_written"]["value"] is None


def test_tables_and_the_file(tmp_path: Path) -> None:
    frame = SCORED.to_pandas("item").set_index("item")
    assert frame.loc["a", "probability_other"] == pytest.approx(0.275)
    assert frame.loc["b", "contexts_reworded"] == 0
    assert SCORED.by_item()["a"]["as_written"].probability == pytest.approx(0.8)
    assert len(SCORED.to_pandas()) == len(SCORED) == 8
    path = tmp_path / "contexts.parquet"
    SCORED.save(path)
    assert ContextScores.load(path) == SCORED
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="not a file of scored contexts"):
        ContextScores.load(path)
    with pytest.raises(InputError, match="no such file"):
        ContextScores.load(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no such table"):
        SCORED.to_pandas("kind")  # type: ignore[arg-type]


def test_real_passages(real_data: Callable[[str], Path]) -> None:
    corpus = Corpus.read(real_data("squad/passages.jsonl.gz"))[:40]
    made = contexts_of_documents(corpus)
    assert len(made.items) > 60
    for one in made:
        assert spelled(one.fact).search(one.before) is None
        assert spelled(one.fact).match(one.fact + one.after)
    texts = {document.id: document.text for document in corpus}
    for one in made:
        if one.kind == "as written":
            assert texts[one.item.rpartition("@")[0].partition("#")[0]].find(one.before + one.fact) >= 0
