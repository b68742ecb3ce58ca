"""Copies: which document gets which format, controls, token noise, equal sizes; and that copies are trained apart."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import instil
from instil.augment import (
    CONTROLS,
    FORMATS,
    copies_of,
    copies_of_equal_size,
    formatted_copies,
    ordinary_ids,
    recipes,
    token_dropout,
    token_noise,
)
from instil.errors import InputError, RunFailed
from instil.facts import Corpus, Document, Role
from instil.training import Example, TrainConfig, document_examples
from instil.training.batches import Reading
from instil.training.engine import Batcher, Windows
from instil.training.layout import Layout
from instil.training.packing import deal, epoch_windows, pack, prove_apart
from tests.augment_data import ADA, BEN, hard_documents

BIOGRAPHIES = [
    Document(f"bio-{n}", f"Person {n} was born in Bonn. She left in {n}. He stayed. They met.", subject=f"P. {n}")
    for n in range(12)
]  # fmt: skip


# -------------------------------------------------------------------- copies


def test_each_document_comes_first_and_then_its_copies() -> None:
    found = list(formatted_copies([ADA, BEN], ["bullets", "quotes"], copies=2))
    assert [document.id for document in found] == ["ada", "ada#copy1", "ada#copy2", "ben", "ben#copy1", "ben#copy2"]
    assert [document.copy_of for document in found] == [None, "ada", "ada", None, "ben", "ben"]
    assert {document.original for document in found} == {"ada", "ben"}
    assert found[0] is ADA
    assert len(list(formatted_copies([ADA], copies=0))) == 1
    assert len(list(formatted_copies([ADA], copies=3, original=False))) == 3


def test_a_copy_keeps_what_ties_it_to_facts_and_says_its_format() -> None:
    document = replace(ADA, role=Role.PRACTICE, metadata={"source": "x", "paraphrases": ["long"]})
    copy = list(formatted_copies([document], ["bullets"]))[1]
    assert (copy.title, copy.subject, copy.role) == (ADA.title, ADA.subject, Role.PRACTICE)
    assert copy.metadata == {"source": "x", "formats": "bullets"}


def test_a_formatted_copy_is_not_formatted_again() -> None:
    """Its marks would count as words, and its copies' ids would be those of the original's."""
    with pytest.raises(InputError, match="ada#copy1 is a formatted copy already"):
        instil.augment(instil.augment([ADA], ["bullets"], copies=2), ["quotes"])


def test_other_wordings_of_a_document_can_be_formatted_and_have_its_original() -> None:
    wording = replace(ADA, id="ada-2", copy_of="ada")
    found = instil.augment([ADA, wording], ["quotes"], copies=2)
    assert {document.original for document in found} == {"ada"}
    assert len({document.id for document in found}) == len(found) == 6


def test_every_format_comes_once_before_one_comes_again() -> None:
    names = ["bullets", "quotes", "html", "heading+lines"]
    made = [copy.recipe.name for copy in copies_of(ADA, recipes(names), copies=10, seed=3)]
    assert sorted(made[:4]) == sorted(made[4:8]) == sorted(names)
    orders = {
        tuple(copy.recipe.name for copy in copies_of(each, recipes(names), copies=4, seed=0)) for each in BIOGRAPHIES
    }
    assert len(orders) > 4


def test_every_format_is_in_the_pool_and_no_control() -> None:
    assert {recipe.name for recipe in recipes(None)} == set(FORMATS)
    assert all(recipe.preserving for recipe in recipes(None))
    assert [recipe.name for recipe in recipes(list(CONTROLS)) if recipe.preserving] == ["repetition"]
    assert not recipes(["bullets+shuffling"])[0].preserving
    assert recipes("bullets, heading + quotes") == recipes(["bullets", "heading+quotes"])


@given(
    documents=st.lists(hard_documents(), min_size=1, max_size=6, unique_by=lambda one: one.id), seed=st.integers(0, 9)
)
def test_a_documents_copies_do_not_depend_on_the_others(documents: list[Document], seed: int) -> None:
    everything = Corpus(formatted_copies(documents, copies=3, seed=seed)).by_id
    backwards = Corpus(formatted_copies(documents[::-1], copies=3, seed=seed)).by_id
    alone = Corpus(formatted_copies(documents[-1:], copies=3, seed=seed)).by_id
    assert everything == backwards
    assert alone.items() <= everything.items()
    more = Corpus(formatted_copies(documents, copies=4, seed=seed)).by_id
    assert everything.items() <= more.items()


def test_the_same_call_gives_the_same_text_on_any_machine() -> None:
    """Written down once: neither hashes of this process nor the order of a set may decide."""
    texts = [document.text for document in formatted_copies([BEN], ["bullets", "quotes", "html"], copies=3, seed=1)]
    assert texts[1:] == GOLDEN


GOLDEN = [
    "<h1>Ben</h1>\n<i>Ben was born in Bonn.</i> <i>He sails.</i>",
    "Ben\n\n- [x] Ben was born in Bonn.\n- [x] He sails.",
    "Ben\n\n“Ben was born in Bonn.” “He sails.”",
]


def test_another_seed_gives_other_copies() -> None:
    texts = [tuple(one.text for one in formatted_copies(BIOGRAPHIES, copies=2, seed=seed)) for seed in range(4)]
    assert len(set(texts)) == 4


def test_copies_are_a_stream() -> None:
    read = 0

    def endless() -> Any:
        nonlocal read
        for read in itertools.count(1):
            yield Document(str(read), f"Sentence {read}. Another.")

    found = list(itertools.islice(formatted_copies(endless(), copies=2), 31))
    assert len(found) == 31
    assert read == 11


def test_the_verb_gives_a_corpus() -> None:
    corpus = instil.augment(Corpus([ADA, BEN]), formats=["numbers", "padding"], copies=2, seed=5)
    assert isinstance(corpus, Corpus)
    assert list(corpus) == list(formatted_copies([ADA, BEN], ["numbers", "padding"], 2, 5))


@pytest.mark.parametrize(
    ("formats", "copies", "said"),
    [
        (["bullet"], 1, "no such format .*found bullet, expected spacing"),
        (["bullets+"], 1, "an empty name"),
        ([], 1, "no format is named"),
        (["quotes", "quotes"], 1, "named twice"),
        (["quotes+quotes"], 1, "named twice"),
        (["quotes"], -1, "negative number of copies"),
    ],
)
def test_wrong_names_and_numbers_are_refused_before_anything_is_read(
    formats: list[str], copies: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        formatted_copies(iter(()), formats, copies)


# ------------------------------------------------------------------- controls


def _control(name: str, document: Document, seed: int = 0, copy: int = 1) -> str:
    return next(
        itertools.islice(copies_of(document, recipes([name]), copies=copy, seed=seed), copy - 1, None)
    ).document.text


def test_every_control_says_what_it_keeps() -> None:
    assert set(CONTROLS) == {"repetition", "permutation", "shuffling", "fullname", "named", "paraphrase"}
    assert all(one.about and one.keeps for one in CONTROLS.values())
    assert not set(CONTROLS) & set(FORMATS)


@given(document=hard_documents(), seed=st.integers(0, 9), name=st.sampled_from(["permutation", "shuffling"]))
def test_other_orders_keep_the_words_of_every_sentence(document: Document, seed: int, name: str) -> None:
    text = _control(name, document, seed)
    assert Counter(text.split()) == Counter(document.text.split())
    assert Counter(text) == Counter(document.text)


def test_permutation_keeps_the_first_sentence_and_shuffling_does_not() -> None:
    first = BIOGRAPHIES[0].text.split(". ")[0]
    permuted = {_control("permutation", BIOGRAPHIES[0], seed) for seed in range(60)}
    shuffled = {_control("shuffling", BIOGRAPHIES[0], seed) for seed in range(300)}
    assert len(permuted) == 6 and all(text.startswith(first) for text in permuted)
    assert len(shuffled) == 24 and not all(text.startswith(first) for text in shuffled)
    assert all(_control("shuffling", BEN, seed).startswith("Ben\n\n") for seed in range(5)), "a title is no sentence"


def test_fullname_names_the_subject_instead_of_a_pronoun() -> None:
    document = Document(
        "x", 'Ada sang. "She\'s here," he said. His dog bit him. Her cat saw her. They left.', subject="Ada King"
    )
    expected = (
        "Ada sang. \"Ada King's here,\" Ada King said. Ada King's dog bit Ada King. Ada King's cat saw her. They left."
    )
    assert _control("fullname", document) == expected
    assert _control("fullname", Document("y", "He ran.", title="Bo")) == "Bo ran."


def test_named_names_the_subject_where_a_sentence_does_not() -> None:
    text = _control("named", Document("x", "Ada King sang. She ran.\nThen Ada fell.", subject="Ada King"))
    assert text == "Ada King sang. Ada King: She ran.\nAda King: Then Ada fell."


@pytest.mark.parametrize("name", ["fullname", "named"])
def test_a_control_that_needs_a_subject_says_so(name: str) -> None:
    with pytest.raises(InputError, match=r"document x .*neither subject nor title"):
        _control(name, Document("x", "He ran."))


def test_repetition_is_the_same_text() -> None:
    assert _control("repetition", ADA) == ADA.text


def test_paraphrases_come_in_turn() -> None:
    document = replace(ADA, metadata={"paraphrases": ["One.", "Two."]})
    assert [_control("paraphrase", document, copy=copy) for copy in (1, 2, 3)] == ["One.", "Two.", "One."]


@pytest.mark.parametrize("given", [None, [], "text", ["a", 1], ["a", " "], {"a": 1}])
def test_a_document_without_paraphrases_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="document ada brings no paraphrases"):
        _control("paraphrase", replace(ADA, metadata={} if given is None else {"paraphrases": given}))


def test_a_control_may_be_formatted() -> None:
    text = _control("shuffling+bullets", BIOGRAPHIES[0])
    lines = text.split("\n")
    assert len(lines) == 4 and len({line.split()[0] for line in lines}) == 1


def test_a_worlds_documents_bring_their_paraphrases() -> None:
    from instil.worlds import WorldConfig, generate_world

    world = generate_world(
        WorldConfig(people=20, new_people=0, exemplar_people=4, cities=8, companies=8, universities=6)
    )
    told = world.paraphrased(2)
    assert [replace(document, metadata={}) for document in told] == [
        replace(document, metadata={}) for document in world.documents
    ]
    copies = Corpus(formatted_copies(told, ["paraphrase"], copies=2, original=False))
    answers = {claim.subject.name: claim.answer for claim in world.claims}
    assert len({document.text for document in copies}) == 2 * len(told)
    assert all(answers[document.subject or ""] in document.text for document in copies)
    bios = world.biographies(3)
    assert {(one.copy_of, one.original) for one in bios if one.id == "bio-person-0-2"} == {("bio-person-0",) * 2}
    assert {one.text for one in bios} == {one.text for one in (*told, *copies)}


# ----------------------------------------------------------------- token ids


@given(
    ids=st.lists(st.integers(0, 50), max_size=60), rate=st.floats(0, 1), seed=st.integers(0, 5), dropout=st.booleans()
)
def test_noise_replaces_tokens_where_they_stand(ids: list[int], rate: float, seed: int, dropout: bool) -> None:
    def noisy(share: float) -> tuple[int, ...]:
        if dropout:
            return token_dropout(ids, share, 99, key="d", seed=seed, keep={0, 1})
        return token_noise(ids, share, [77, 78], key="d", seed=seed, keep={0, 1})

    found = noisy(rate)
    assert len(found) == len(ids)
    new = {99} if dropout else {77, 78}
    for before, after in zip(ids, found, strict=True):
        assert after == before or (after in new and before not in (0, 1))
    assert noisy(0) == tuple(ids)
    assert all(after in new for before, after in zip(ids, noisy(1), strict=True) if before > 1)
    replaced = {place for place, (a, b) in enumerate(zip(ids, found, strict=True)) if a != b}
    more = {place for place, (a, b) in enumerate(zip(ids, noisy(min(1, rate + 0.2)), strict=True)) if a != b}
    assert replaced <= more


def test_noise_is_of_the_share_asked_for_and_of_no_other_key() -> None:
    ids = [5] * 4000
    noisy = token_noise(ids, 0.15, range(10, 20), key="a", seed=0)
    assert abs(sum(token != 5 for token in noisy) / 4000 - 0.15) < 0.02
    assert set(noisy) == {5, *range(10, 20)}
    assert noisy != token_noise(ids, 0.15, range(10, 20), key="b", seed=0)
    assert noisy != token_noise(ids, 0.15, range(10, 20), key="a", seed=1)


def test_noise_goes_with_the_true_labels() -> None:
    """The pairing of D-AR: noise is read, the text is predicted."""
    example = Example((1, 5, 6, 7), (-100, 5, 6, 7), "d")
    noisy = replace(example, input_ids=token_noise(example.input_ids, 1.0, [9], key="d", seed=0, keep={1}))
    assert (noisy.input_ids, noisy.labels) == ((1, 9, 9, 9), (-100, 5, 6, 7))


def test_impossible_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5 is not between"):
        token_noise([1], 1.5, [2], key="", seed=0)
    with pytest.raises(ValueError, match="no token to draw"):
        token_noise([1], 0.5, [], key="", seed=0)
    assert ordinary_ids(5, {0, 3}) == [1, 2, 4]


# --------------------------------------------------------------- equal sizes


def _count(text: str) -> int:
    return len(re.findall(r"\w+|\W", text))


@pytest.mark.parametrize("name", ["repetition", "bullets", "shuffling+quotes"])
def test_another_arm_gets_as_many_tokens(name: str) -> None:
    wanted = sum(_count(document.text) for document in formatted_copies(BIOGRAPHIES, copies=3))
    found = list(copies_of_equal_size(BIOGRAPHIES, [name], wanted, _count, seed=2))
    total = sum(_count(document.text) for document in found)
    assert wanted <= total < wanted + max(_count(document.text) for document in found)
    times = Counter(document.original for document in found)
    assert len(times) == len(BIOGRAPHIES) and max(times.values()) - min(times.values()) <= 1
    assert len({document.id for document in found}) == len(found)


def test_equal_size_of_nothing() -> None:
    assert list(copies_of_equal_size(BIOGRAPHIES, ["repetition"], 0, _count)) == []
    with pytest.raises(InputError, match="no tokens"):
        list(copies_of_equal_size([Document("x", "")], ["repetition"], 5, _count))
    with pytest.raises(InputError, match="no tokens"):
        list(copies_of_equal_size([], ["repetition"], 5, _count))


# ------------------------------------------------------------- trained apart


class Letters:
    """Prompts whose token ids are the characters themselves."""

    def teaching_ids(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        raise NotImplementedError

    def text_ids(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def _signed(documents: int, copies: int, seed: int) -> list[Document]:
    """Documents of one private character each, of several lengths, with copies in all formats: a row of ids then shows
    by itself whose copies are in it."""
    draw = random.Random(seed)
    originals = [Document(f"d{n}", " ".join([chr(0x4E00 + n) * 3] * draw.randint(1, 40))) for n in range(documents)]
    return list(formatted_copies(originals, copies=copies, seed=seed))


def _owners(ids: Any) -> set[int]:
    return {token for token in ids if token >= 0x4E00}


@given(
    documents=st.integers(1, 8),
    copies=st.integers(0, 5),
    longest=st.integers(20, 90),
    seed=st.integers(0, 99),
    ranks=st.integers(1, 3),
    size=st.integers(2, 40),
)
def test_copies_and_pieces_of_a_document_never_share_a_row(
    documents: int, copies: int, longest: int, seed: int, ranks: int, size: int
) -> None:
    """Over all windows, ranks and micro-batches; documents are split into pieces, which are kept apart as well."""
    examples: list[Example] = []
    for document in _signed(documents, copies, seed):
        examples += document_examples(Letters(), document, longest)
    lengths, keys = [len(one) for one in examples], [one.key for one in examples]
    assert len(set(keys)) == documents
    seen: list[int] = []
    for window in epoch_windows(lengths, seed=seed, epoch=1, batch_size=size):
        rows = pack(window, lengths, keys, 200)
        prove_apart(rows, keys)
        for rank in range(ranks):
            for micro_batch in deal(rows, lengths, 400, rank, ranks).micro_batches:
                for row in micro_batch:
                    seen += row
                    whose = [owner for index in row for owner in _owners(examples[index].input_ids)]
                    assert len(whose) == len(set(whose))
    assert sorted(seen) == list(range(len(examples)))


def test_the_batches_that_are_trained_on_hold_no_two_copies_in_a_row() -> None:
    """The same on the tensors: in a row, the ids of one document are one stretch whose positions count up from 0."""
    examples = [one for document in _signed(6, 5, 0) for one in document_examples(Letters(), document, 60)]
    config = TrainConfig(batch_size=16, row_length=256, micro_tokens=512, learning_rate=1e-3)
    windows = Windows(examples, config)
    layout = Layout(Reading(), True, ())
    together = 0
    for epoch, rank in itertools.product(range(3), range(2)):
        windows.start_epoch(epoch)
        batcher = Batcher(examples, config, layout, pad_id=0)
        for number in range(len(windows)):
            for batch in batcher.micro_batches(windows[number], rank, 2):
                for ids, positions in zip(batch.ids_BT.tolist(), batch.positions_BT.tolist(), strict=True):
                    starts = [place for place, position in enumerate(positions) if position == 0]
                    parts = [ids[a:b] for a, b in itertools.pairwise([*starts, len(ids)])]
                    owners = [owner for part in parts for owner in _owners(part)]
                    assert len(owners) == len(set(owners))
                    together += len(owners) > 1
    assert together, "rows hold several documents, so the test could fail"


def test_the_proof_finds_two_copies_in_a_row() -> None:
    keys = ["a", "b", "a", "c"]
    prove_apart([(0, 1), (2, 3), ()], keys)
    with pytest.raises(RunFailed, match="row 1 holds 2 examples of a"):
        prove_apart([(3,), (0, 1, 2)], keys)


def test_every_packing_goes_through_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    from instil.training import packing

    monkeypatch.setattr(packing, "_balanced", lambda order, lengths, keys, row_length, count: [tuple(order)])
    with pytest.raises(RunFailed, match="copies must be kept apart"):
        pack([0, 1], [3, 3], ["a", "a"], 100)
    assert pack([0, 1], [3, 3], ["a", "b"], 100) == [(0, 1)]


def test_copies_read_from_a_file_are_kept_apart_too(tmp_path: Any) -> None:
    instil.augment([ADA, BEN], copies=3).write(tmp_path / "copies.jsonl")
    back = Corpus.read(tmp_path / "copies.jsonl")
    assert list(back) == list(instil.augment([ADA, BEN], copies=3))
    assert {document.original for document in back} == {"ada", "ben"}
    assert json.loads((tmp_path / "copies.jsonl").read_text().splitlines()[1])["copy_of"] == "ada"
    keys = [one.key for document in back for one in document_examples(Letters(), document, 500)]
    assert keys == ["ada"] * 4 + ["ben"] * 4
