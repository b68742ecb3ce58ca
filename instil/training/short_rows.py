"""Attention for training on a CPU in bfloat16: matrix products over pieces of the scores that stay in its cache.

The fused kernel of torch is slow there, above all backward; the plain one of transformers writes every score several
times to memory, in fp32. Here only the probabilities are kept, in bfloat16, and keys that no query of a block may see
are left out: those behind it, and in packed rows those of other examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "instil_short_rows"

BLOCK = 128
"""Queries that are looked at together."""

PIECE = 1 << 20
"""Scores that are looked at together, about."""

Piece = tuple[slice, slice, slice]
"""Rows, queries, and the keys that some of these queries see."""


def short_rows_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of `query` (B, H, T, D) to `key` and `value` (B, G, T, D), the masks being (B, 1, T, T) and true where
    a key is seen; shape (B, T, H, D), and no weights. What it cannot do is left to torch's kernel."""
    peculiar = dropout or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None
    if peculiar or attention_mask is None or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    lower = (part.to(torch.bfloat16, memory_format=torch.contiguous_format) for part in (query, key, value))
    return _Attention.apply(*lower, attention_mask, scale), None


def visible_everywhere(*args: Any, **kwargs: Any) -> Tensor | None:
    """The mask as torch's kernel wants it, but never left out: the pieces are made from it."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


class _Attention(torch.autograd.Function):
    """Letters: G key-value heads, E queries of each, t queries and k keys of a piece of n rows."""

    @staticmethod
    def forward(
        ctx: Any, query_BHTD: Tensor, key_BGTD: Tensor, value_BGTD: Tensor, seen_B1TT: Tensor, scale: float
    ) -> Tensor:
        rows, heads, length, width = query_BHTD.shape
        pieces = list(pieces_of(seen_B1TT, heads))
        hidden_B1TT = ~seen_B1TT
        out_BTHD = query_BHTD.new_empty(rows, length, heads, width)
        kept = []
        for piece in pieces:
            of_rows, of_queries, of_keys = piece
            query, key, value = _taken(query_BHTD, key_BGTD, value_BGTD, piece)
            scores = torch.bmm(query, key.transpose(1, 2)).float().view(-1, heads, *_shape(piece))
            scores.mul_(scale).masked_fill_(
                hidden_B1TT[of_rows, :, of_queries, of_keys], torch.finfo(torch.float32).min
            )
            weights = scores.softmax(-1).to(query.dtype).view(len(query), -1, key.shape[1])
            found = torch.bmm(weights, value).view(-1, heads, _shape(piece)[0], width)
            out_BTHD[of_rows, of_queries] = found.transpose(1, 2)
            kept.append(weights)
        ctx.save_for_backward(query_BHTD, key_BGTD, value_BGTD, *kept)
        ctx.pieces, ctx.scale = pieces, scale
        return out_BTHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """With the weights p = softmax(s), o = p v: ds = p (dp - Σ p dp), dp = do vᵀ."""
        query_BHTD, key_BGTD, value_BGTD, *kept = ctx.saved_tensors
        gradient_BHTD = gradients[0].to(query_BHTD.dtype).transpose(1, 2).contiguous()
        of_query = torch.empty_like(query_BHTD)
        # Several blocks of queries add to the same keys.
        of_key, of_value = (torch.zeros(part.shape, dtype=torch.float32) for part in (key_BGTD, value_BGTD))
        for piece, weights in zip(ctx.pieces, kept, strict=True):
            query, key, value = _taken(query_BHTD, key_BGTD, value_BGTD, piece)
            gradient = _queries(gradient_BHTD, piece, len(query))
            of_rows, of_queries, of_keys = piece
            into = of_value[of_rows, :, of_keys]
            into += torch.bmm(weights.transpose(1, 2), gradient).view(into.shape)
            slope, p = torch.bmm(gradient, value.transpose(1, 2)).float(), weights.float()
            slope.mul_(p)
            slope.sub_(p.mul_(slope.sum(-1, keepdim=True))).mul_(ctx.scale)
            lower = slope.to(query.dtype)
            place = of_query[of_rows, :, of_queries]
            place.copy_(torch.bmm(lower, key).view(place.shape))
            into = of_key[of_rows, :, of_keys]
            into += torch.bmm(lower.transpose(1, 2), query).view(into.shape)
        return of_query, of_key.to(key_BGTD.dtype), of_value.to(value_BGTD.dtype), None, None


def pieces_of(seen_B1TT: Tensor, heads: int) -> Iterator[Piece]:
    """Blocks of queries, of as many rows as fit a piece; of the keys those from the first to the last one seen."""
    rows, _, length, _ = seen_B1TT.shape
    for start in range(0, length, BLOCK):
        of_queries = slice(start, min(start + BLOCK, length))
        seen_BT = seen_B1TT[:, 0, of_queries].any(1)
        together = max(1, PIECE // (heads * (of_queries.stop - start) * of_queries.stop))
        for row in range(0, rows, together):
            of_rows = slice(row, min(row + together, rows))
            seen = seen_BT[of_rows].any(0).nonzero()
            yield of_rows, of_queries, slice(int(seen[0]), int(seen[-1]) + 1)


def _shape(piece: Piece) -> tuple[int, int]:
    """Queries and keys."""
    _, of_queries, of_keys = piece
    return of_queries.stop - of_queries.start, of_keys.stop - of_keys.start


def _taken(query_BHTD: Tensor, key_BGTD: Tensor, value_BGTD: Tensor, piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes (nG, Et, D), and (nG, k, D) twice."""
    of_rows, _, of_keys = piece
    key, value = (part[of_rows, :, of_keys].flatten(0, 1) for part in (key_BGTD, value_BGTD))
    return _queries(query_BHTD, piece, len(key)), key, value


def _queries(part_BHTD: Tensor, piece: Piece, groups: int) -> Tensor:
    of_rows, of_queries, _ = piece
    return part_BHTD[of_rows, :, of_queries].reshape(groups, -1, part_BHTD.shape[-1])


AttentionInterface.register(NAME, short_rows_attention)
AttentionMaskInterface.register(NAME, visible_everywhere)
