"""From facts and documents to examples, windows, rows and micro-batches."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.errors import InputError
from instil.facts import Document, Fact
from instil.training import Example, TrainConfig, count_split, document_examples, question_example
from instil.training.examples import UNFINISHED
from instil.training.packing import alone, deal, epoch_windows, pack
from tests.training_data import learner


class Letters:
    """Prompts whose token ids are the characters themselves."""

    def teaching_ids(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        return [ord(c) for c in question], [ord(c) for c in answer]

    def text_ids(self, text: str) -> list[int]:
        return [ord(c) for c in text]


FACT = Fact(id="f1", question="Where?", answers=("Bonn", "Berlin"), paraphrases=("In which town?",))


def test_question_has_loss_on_the_answer_only() -> None:
    example = question_example(Letters(), FACT)
    assert "".join(map(chr, example.input_ids)) == "Where?Bonn"
    assert example.labels == (-100,) * 6 + tuple(map(ord, "Bonn"))
    assert (example.key, example.targets) == ("f1", 4)


def test_question_in_another_wording_with_another_answer() -> None:
    example = question_example(Letters(), FACT, wording="In which town?", answer="Berlin", weight=0.5)
    assert "".join(map(chr, example.input_ids)) == "In which town?Berlin"
    assert (example.weight, example.targets) == (0.5, 6)


def test_question_of_a_real_model_ends_with_its_terminator() -> None:
    lm = learner()
    example = question_example(lm.prompts, FACT)
    answer = [token for token in example.labels if token != -100]
    assert lm.tokenizer.decode(answer) == " Bonn\n"
    assert lm.tokenizer.decode(example.input_ids, skip_special_tokens=True) == "Q: Where?\nA: Bonn\n"


@given(length=st.integers(2, 200), longest=st.integers(2, 60), overlap=st.integers(1, 10))
def test_document_is_split_never_cut(length: int, longest: int, overlap: int) -> None:
    document = Document(id="d", text="".join(chr(100 + number) for number in range(length)))
    if overlap >= longest:
        with pytest.raises(ValueError, match="overlap"):
            document_examples(Letters(), document, longest, overlap=overlap)
        return
    parts = document_examples(Letters(), document, longest, overlap=overlap)
    learned = [label for part in parts for label in part.labels if label != -100]
    assert learned == [100 + number for number in range(1, length)]  # each token once, in order, but the very first
    assert all(len(part) <= longest and part.key == "d" for part in parts)
    for before, part in pairwise(parts):
        assert part.input_ids[:overlap] == before.input_ids[-overlap:]
        assert set(part.labels[:overlap]) == {-100}


def test_split_documents_are_counted() -> None:
    parts = [document_examples(Letters(), Document(id=str(n), text="x" * n), 10) for n in (5, 10, 11, 40)]
    assert count_split(parts) == {"documents": 4, "split": 2, "examples": 1 + 1 + 2 + 5}


def test_a_text_that_goes_on_has_no_end_token() -> None:
    whole, cut = (Document(id="d", text="x" * 5, metadata=more) for more in ({}, {UNFINISHED: True}))
    (ended,), (open_,) = (document_examples(Letters(), one, 10) for one in (whole, cut))
    assert open_.input_ids == ended.input_ids[:-1] and open_.labels == ended.labels[:-1]


def test_document_without_text_is_refused() -> None:
    with pytest.raises(InputError, match="document d has no text"):
        document_examples(Letters(), Document(id="d", text="x"), 10)


@pytest.mark.parametrize(
    ("ids", "labels", "weight", "message"),
    [
        ((1, 2), (-100,), 1.0, "2 input ids but 1 labels"),
        ((1, 2), (1, 2), 1.0, "first token has a label"),
        ((1, 2), (-100, 2), 0.0, "not a positive number"),
        ((1, 2), (-100, 2), float("nan"), "not a positive number"),
    ],
)
def test_impossible_examples_are_refused(
    ids: tuple[int, ...], labels: tuple[int, ...], weight: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Example(ids, labels, "k", weight)


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(lengths=LENGTHS, batch=st.integers(1, 20), epoch=st.integers(0, 3), by_tokens=st.booleans())
def test_windows_hold_every_example_once_and_are_equally_many_each_epoch(
    lengths: list[int], batch: int, epoch: int, by_tokens: bool
) -> None:
    size = {"batch_tokens": 25 * batch} if by_tokens else {"batch_size": batch}
    windows = epoch_windows(lengths, seed=1, epoch=epoch, **size)
    assert sorted(index for window in windows for index in window) == list(range(len(lengths)))
    assert all(windows)
    assert len(windows) == len(epoch_windows(lengths, seed=1, epoch=epoch + 1, **size))
    if not by_tokens:
        sizes = [len(window) for window in windows]
        assert max(sizes) <= batch and max(sizes) - min(sizes) <= 1


@given(
    lengths=LENGTHS, kinds=st.integers(1, 5), batch=st.integers(1, 20), epoch=st.integers(0, 3), by_tokens=st.booleans()
)
def test_phases_come_one_after_the_other_in_every_epoch(
    lengths: list[int], kinds: int, batch: int, epoch: int, by_tokens: bool
) -> None:
    size = {"batch_tokens": 25 * batch} if by_tokens else {"batch_size": batch}
    phases = [index * 7 % kinds for index in range(len(lengths))]
    windows = epoch_windows(lengths, seed=1, epoch=epoch, phases=phases, **size)
    assert sorted(index for window in windows for index in window) == list(range(len(lengths)))
    of_window = [{phases[index] for index in window} for window in windows]
    assert all(len(found) == 1 for found in of_window)
    assert [min(found) for found in of_window] == sorted(min(found) for found in of_window)
    assert len(windows) == len(epoch_windows(lengths, seed=1, epoch=epoch + 1, phases=phases, **size))
    alike = epoch_windows(lengths, seed=1, epoch=epoch, phases=[3] * len(lengths), **size)
    assert alike == epoch_windows(lengths, seed=1, epoch=epoch, **size)


def test_windows_by_tokens_come_close_to_what_was_asked() -> None:
    lengths = [10 + n % 30 for n in range(1000)]
    tokens = [sum(lengths[i] for i in window) for window in epoch_windows(lengths, seed=0, epoch=0, batch_tokens=1000)]
    assert all(abs(count - 1000) < 60 for count in tokens)


def test_order_changes_with_seed_and_epoch_only() -> None:
    lengths = [5] * 50
    first = epoch_windows(lengths, seed=0, epoch=0, batch_size=10)
    assert first == epoch_windows(lengths, seed=0, epoch=0, batch_size=10)
    assert first != epoch_windows(lengths, seed=0, epoch=1, batch_size=10)
    assert first != epoch_windows(lengths, seed=1, epoch=0, batch_size=10)


@given(lengths=LENGTHS, kinds=st.integers(1, 10), row_length=st.integers(50, 200))
def test_invariant_4_no_document_shares_a_packed_row_with_a_copy_of_itself(
    lengths: list[int], kinds: int, row_length: int
) -> None:
    keys = [f"document {index % kinds}" for index in range(len(lengths))]
    rows = pack(range(len(lengths)), lengths, keys, row_length)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[index] for index in row) <= row_length
        assert max(Counter(keys[index] for index in row).values()) == 1


def test_rows_are_nearly_full() -> None:
    lengths = [16 + (7 * n) % 19 for n in range(64)]
    rows = pack(range(64), lengths, [str(n) for n in range(64)], 256)
    widest = max(sum(lengths[index] for index in row) for row in rows)
    assert len(rows) * widest < 1.06 * sum(lengths)


def test_an_example_longer_than_its_row_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pack([0], [11], ["a"], 10)


@settings(deadline=None)
@given(lengths=LENGTHS, micro=st.integers(1, 400), ranks=st.integers(1, 4), packed=st.booleans())
def test_micro_batches_hold_every_row_once_over_all_ranks(
    lengths: list[int], micro: int, ranks: int, packed: bool
) -> None:
    keys = [str(index) for index in range(len(lengths))]
    rows = pack(range(len(lengths)), lengths, keys, 100) if packed else alone(range(len(lengths)), lengths)
    shares = [deal(rows, lengths, micro, rank, ranks).micro_batches for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1  # all ranks run equally many passes
    dealt = [row for share in shares for batch in share for row in batch]
    assert sorted(dealt) == sorted(rows)
    for share in shares:
        for batch in share:
            widest = max((sum(lengths[index] for index in row) for row in batch), default=0)
            assert len(batch) <= 1 or len(batch) * widest <= micro


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size or batch_tokens"):
        TrainConfig(batch_size=1, batch_tokens=10)
    for two in ({"adapter": {"r": 2}, "parameters": ("*",)}, {"parameters": ("*",), "late_mlp": 0.5}):
        with pytest.raises(ValueError, match="one of adapter, parameters and late_mlp"):
            TrainConfig.model_validate(two)
    assert TrainConfig().window == {"batch_size": 32}


def test_the_room_opens_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, instil.training; instil.training.TrainConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
