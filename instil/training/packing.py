"""Which examples are trained together: epochs into windows (one optimiser step each), windows into rows.

A window's examples are drawn first and packed afterwards, so that the batch an optimiser step sees does not depend on
how it is packed: packed, padded, split into micro-batches or over ranks, the step is the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from instil.errors import RunFailed

Row = tuple[int, ...]


def epoch_windows(
    lengths: Sequence[int],
    *,
    seed: int,
    epoch: int,
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    phases: Sequence[int] = (),
) -> list[tuple[int, ...]]:
    """The shuffled examples of one epoch, cut into windows of nearly equal size.

    Windows hold at most `batch_size` examples, or about `batch_tokens` tokens. Their number is the same in every
    epoch, and no window is a small rest (a mean over few tokens is a noisy step).

    Args:
        lengths: tokens of each example.
        phases: of each example; lower ones come first in every epoch, and each is shuffled and cut by itself. None
            given: all are of one phase.

    Returns:
        Indices into `lengths`; every example occurs exactly once.

    Raises:
        ValueError: not exactly one of `batch_size` and `batch_tokens` is given.
    """
    if (batch_size is None) == (batch_tokens is None):
        raise ValueError("give batch_size or batch_tokens")
    named = sorted(set(phases))
    if len(named) < 2:
        return _cut(range(len(lengths)), lengths, f"{seed} epoch {epoch}", batch_size, batch_tokens)
    members: dict[int, list[int]] = {phase: [] for phase in named}
    for index, phase in enumerate(phases):
        members[phase].append(index)
    return [
        window
        for phase in named
        for window in _cut(members[phase], lengths, f"{seed} epoch {epoch} phase {phase}", batch_size, batch_tokens)
    ]


def window_sizes(examples: int, batch_size: int) -> list[int]:
    """How many examples each window of an epoch has: at most `batch_size`, and no two differ by more than one."""
    count = -(-examples // batch_size)
    cuts = [round(index * examples / count) for index in range(count + 1)]
    return [end - start for start, end in pairwise(cuts)]


def _cut(
    members: Sequence[int], lengths: Sequence[int], seed: str, batch_size: int | None, batch_tokens: int | None
) -> list[tuple[int, ...]]:
    order = list(members)
    random.Random(seed).shuffle(order)
    if batch_size is not None:
        rest = iter(order)
        return [tuple(islice(rest, size)) for size in window_sizes(len(order), batch_size)]
    assert batch_tokens is not None
    total = sum(lengths[index] for index in order)
    count = max(1, min(len(order), round(total / batch_tokens)))
    windows: list[list[int]] = [[] for _ in range(count)]
    filled = current = 0
    for place, index in enumerate(order):
        # Move on when this window has its share, or when as many examples are left as windows to fill.
        full = filled >= (current + 1) * total / count
        if windows[current] and current < count - 1 and (full or len(order) - place < count - current):
            current += 1
        windows[current].append(index)
        filled += lengths[index]
    return [tuple(window) for window in windows]


FEW, SHORTEST = 3, 64


def width(longest: int, most: int) -> int:
    """Tokens that a packed row may have: at most `most`, and no more than a few of the longest example.

    Attention is computed over whole rows, and what lies in another example is thrown away; three of the longest leave
    hardly any padding. Questions of 18 tokens in rows of 64 instead of 256: a tenth less for a step (5.9 M Llama).
    """
    return max(longest, min(most, max(SHORTEST, FEW * longest)))


def pack(indices: Sequence[int], lengths: Sequence[int], keys: Sequence[str], row_length: int) -> list[Row]:
    """Pack examples into rows of at most `row_length` tokens and nearly equal length.

    The longest example goes first, into the row that is shortest so far, so rows end up equal and little is padding.
    No row holds two examples with the same key: copies of a document packed together give perfect loss and little
    knowledge (Allen-Zhu & Li 2023, Physics of Language Models 3.1).

    Raises:
        ValueError: an example is longer than a row.
        RunFailed: see `prove_apart`, which every packing goes through.
    """
    longest_first = sorted(indices, key=lambda index: -lengths[index])
    if not longest_first:
        return []
    if lengths[longest_first[0]] > row_length:
        raise ValueError(f"an example of {lengths[longest_first[0]]} tokens does not fit in a row of {row_length}")
    copies: dict[str, int] = {}
    for index in longest_first:
        copies[keys[index]] = copies.get(keys[index], 0) + 1
    count = max(-(-sum(lengths[index] for index in longest_first) // row_length), *copies.values())
    while (rows := _balanced(longest_first, lengths, keys, row_length, count)) is None:
        count += 1
    prove_apart(rows, keys)
    return rows


def prove_apart(rows: Iterable[Row], keys: Sequence[str]) -> None:
    """That no row holds two examples with one key: two copies, formats or pieces of one document.

    Args:
        rows: indices into `keys`.

    Raises:
        RunFailed: a row holds two; nothing is trained on it.
    """
    for number, row in enumerate(rows):
        if len({keys[index] for index in row}) < len(row):
            key, times = Counter(keys[index] for index in row).most_common(1)[0]
            raise RunFailed(f"packed row {number} holds {times} examples of {key}; copies must be kept apart")


def _balanced(
    longest_first: Sequence[int], lengths: Sequence[int], keys: Sequence[str], row_length: int, count: int
) -> list[Row] | None:
    rows: list[_Filling] = [_Filling() for _ in range(count)]
    for index in longest_first:
        free = [row for row in rows if keys[index] not in row.keys and row.tokens + lengths[index] <= row_length]
        if not free:
            return None
        row = min(free, key=lambda row: row.tokens)
        row.members.append(index)
        row.keys.add(keys[index])
        row.tokens += lengths[index]
    rows = sorted((row for row in rows if row.members), key=lambda row: -row.tokens)
    return [tuple(row.members) for row in rows]


class _Filling:
    def __init__(self) -> None:
        self.members: list[int] = []
        self.keys: set[str] = set()
        self.tokens = 0


def alone(indices: Sequence[int], lengths: Sequence[int]) -> list[Row]:
    """One example a row, longest first: the layout for models that cannot keep packed examples apart."""
    return [(index,) for index in sorted(indices, key=lambda index: -lengths[index])]


@dataclass(frozen=True, slots=True)
class Share:
    """The micro-batches of one rank. All ranks have equally many; an empty one keeps collective calls in step."""

    micro_batches: tuple[tuple[Row, ...], ...]


def deal(rows: Sequence[Row], lengths: Sequence[int], micro_tokens: int, rank: int = 0, ranks: int = 1) -> Share:
    """Split rows into micro-batches of at most `micro_tokens` computed tokens (padding included), at least a row each.

    Rows come longest first, so that rows of like length share a micro-batch.
    """

    def width(row: Row) -> int:
        return sum(lengths[index] for index in row)

    hands: list[list[tuple[Row, ...]]] = []
    for one in range(ranks):
        mine: list[tuple[Row, ...]] = []
        batch: list[Row] = []
        for row in rows[one::ranks]:
            if batch and (len(batch) + 1) * width(batch[0]) > micro_tokens:
                mine.append(tuple(batch))
                batch = []
            batch.append(row)
        hands.append([*mine, tuple(batch)] if batch else mine)
    most = max(len(hand) for hand in hands)
    hand = hands[rank]
    return Share((*hand, *[()] * (most - len(hand))))
