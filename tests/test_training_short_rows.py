"""The attention of short rows beside plain attention in fp64: values, gradients, and which keys are looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from instil.training import short_rows
from instil.training.short_rows import pieces_of, short_rows_attention, visible_everywhere


def seen_by(lengths: list[list[int]], window: int | None = None) -> Tensor:
    """Rows of packed examples with these lengths: each token sees its own example up to itself."""
    masks = []
    for row in lengths:
        example_T = torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row))
        place_T = torch.arange(len(example_T))
        back_TT = place_T[:, None] - place_T
        seen_TT = (example_T[:, None] == example_T) & (back_TT >= 0)
        masks.append(seen_TT if window is None else seen_TT & (back_TT < window))
    return torch.stack(masks)[:, None]


def plain(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float) -> Tensor:
    each = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(each, dim=1) for part in (key, value))
    scores = (query @ key.transpose(2, 3) * scale).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


def parts(rows: int, heads: int, groups: int, length: int, width: int = 16) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(rows, length, count, width, generator=draw) for count in (heads, groups, groups)]
    # The values that bfloat16 has, so that only what is computed is rounded.
    return [part.bfloat16().float().transpose(1, 2).requires_grad_() for part in made]


@pytest.mark.parametrize("heads, groups", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(
    "lengths, window",
    [([[7, 5], [12]], None), ([[300], [40, 260], [130, 128, 42]], None), ([[260], [130, 130]], 20), ([[1], [1]], None)],
)
def test_equals_plain_attention_forward_and_backward(
    heads: int, groups: int, lengths: list[list[int]], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_rows, "PIECE", 20_000)
    seen = seen_by(lengths, window)
    given_, exact = (
        parts(len(lengths), heads, groups, seen.shape[-1]),
        parts(len(lengths), heads, groups, seen.shape[-1]),
    )
    found, _ = short_rows_attention(None, *given_, seen, scaling=0.3)
    expected = plain(*(part.double() for part in exact), seen, 0.3)
    assert found.shape == expected.shape and found.is_contiguous()
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    found.backward(slope)
    expected.backward(slope.double())
    assert (found - expected).norm() < 0.01 * expected.norm()
    for one, other in zip(given_, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() < 0.02 * other.grad.norm() + 1e-3


@given(st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_pieces_hold_every_key_that_is_seen_and_each_query_once(lengths: list[list[int]], heads: int) -> None:
    longest = max(map(sum, lengths))
    seen = seen_by([[*row, longest - sum(row)] if sum(row) < longest else row for row in lengths])
    looked_at = torch.zeros(seen.shape, dtype=torch.int)
    queries = torch.zeros(seen.shape[0], longest, dtype=torch.int)
    for of_rows, of_queries, of_keys in pieces_of(seen, heads):
        looked_at[of_rows, :, of_queries, of_keys] += 1
        queries[of_rows, of_queries] += 1
    assert bool((queries == 1).all())
    assert bool((looked_at[seen] == 1).all())


def test_keys_of_other_examples_are_not_looked_at() -> None:
    """Two examples of a block each: half of the square, and not the triangle of the row."""
    seen = seen_by([[short_rows.BLOCK, short_rows.BLOCK]])
    scores = sum((q.stop - q.start) * (k.stop - k.start) for _, q, k in pieces_of(seen, 1))
    assert scores == 2 * short_rows.BLOCK**2


@pytest.mark.parametrize("peculiar", [{"dropout": 0.5}, {"s_aux": torch.zeros(4)}])
def test_what_it_cannot_do_is_left_to_torch(peculiar: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def kernel(*_: Any, **options: Any) -> tuple[Tensor, None]:
        asked.append(options)
        return torch.zeros(()), None

    monkeypatch.setattr(short_rows, "sdpa_attention_forward", kernel)
    short_rows_attention(SimpleNamespace(), *parts(1, 4, 4, 6), seen_by([[6]]), scaling=0.25, **peculiar)
    assert len(asked) == 1 and asked[0]["scaling"] == 0.25
    assert all(asked[0][name] is value for name, value in peculiar.items())


def test_the_mask_is_there_even_where_a_plain_causal_one_would_do() -> None:
    mask = visible_everywhere(batch_size=2, q_length=4, kv_length=4, allow_is_causal_skip=True)
    assert mask is not None and torch.equal(mask, seen_by([[4], [4]]))
