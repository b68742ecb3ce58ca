"""Attention of many short rows to the prefixes that they share, and to their own tokens.

The model is run on one row that holds the tokens of all rows one after the other, nothing padded; only here are rows
told apart. Keys and values of a prefix exist once and are attended to by all of its rows in one matrix product. They
are never copied for a row, which is what makes an ordinary cache slow (3 to 5 % of the matrix product rate).

The function is registered with transformers under `NAME`. What it is to do stands in the plan that is active.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface

if TYPE_CHECKING:
    from torch import Tensor

NAME = "instil_shared_prefix"

KeyValue = tuple["Tensor", "Tensor"]


@dataclass(eq=False)
class Prefix:
    """Keys and values of one prefix.

    Attributes:
        length: tokens.
        layers: for each layer, keys and values of shape (G key-value heads, P, D).
    """

    length: int
    layers: dict[int, KeyValue] = field(default_factory=dict)


@dataclass(eq=False)
class Segment:
    """Rows that stand next to each other and share a prefix.

    Attributes:
        prefix: None for rows without one.
        tokens: where the rows' tokens are in the packed row.
        pad_RT: for each row and place the packed token, counted from the segment's first; filler repeats the first.
        unpad_N: the inverse: for each packed token its place in the flattened (R, T).
        visible_RTK: which own keys each token attends to.
        query_RT: positions of the tokens.
        key_RK: positions of the own keys.
    """

    prefix: Prefix | None
    tokens: slice
    pad_RT: Tensor
    unpad_N: Tensor
    visible_RTK: Tensor
    query_RT: Tensor
    key_RK: Tensor
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask of shape (R, 1, T, K) for the own keys; with a sliding window (R, 1, T, P + K) for all keys."""
        if (window, dtype) not in self._masks:
            length = 0 if self.prefix is None or window is None else self.prefix.length
            rows, places, _ = self.visible_RTK.shape
            before_RTP = torch.ones(rows, places, length, dtype=torch.bool, device=self.visible_RTK.device)
            visible_RTX = torch.cat([before_RTP, self.visible_RTK], dim=-1)
            if window is not None:
                before = torch.arange(length, device=self.key_RK.device).expand(rows, -1)
                keys_RX = torch.cat([before, self.key_RK], dim=-1)
                visible_RTX = visible_RTX & (self.query_RT[:, :, None] - keys_RX[:, None, :] < window)
            # The lowest number, not minus infinity: a row of filler may see nothing and must not become NaN.
            mask = torch.zeros(visible_RTX.shape, dtype=dtype, device=visible_RTX.device)
            mask.masked_fill_(~visible_RTX, torch.finfo(dtype).min)
            self._masks[window, dtype] = mask[:, None]
        return self._masks[window, dtype]


@dataclass(eq=False)
class Plan:
    """What one forward pass attends to.

    Attributes:
        segments: in the order of their tokens.
        memory: filled with each segment's own keys and values by layer, shape (G, R, K, D), when `keep` is set.
        held: keys and values of tokens computed before, by segment and layer: (G, R, K, D), with `slot` free.
        slot: the place in `held` where this pass's single token of each row goes.
        window: the longest distance that occurs, so that wider sliding windows are not masked at all.
    """

    segments: Sequence[Segment]
    keep: bool = False
    memory: dict[tuple[int, int], KeyValue] = field(default_factory=dict)
    held: dict[tuple[int, int], KeyValue] | None = None
    slot: int = 0
    reach: int = 0


_active: list[Plan] = []


@contextmanager
def attending(model: Any, plan: Plan) -> Iterator[None]:
    """Run `model` by `plan`: evaluation mode, our attention; both are put back, whatever happens."""
    before, training = model.config._attn_implementation, model.training
    model.eval()
    model.set_attn_implementation(NAME)
    _active.append(plan)
    try:
        yield
    finally:
        _active.pop()
        model.set_attn_implementation(before)
        model.train(training)


def shared_prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as the active plan says.

    Args:
        query: (1, H, N, D), the packed tokens of all rows; `key` and `value` (1, G, N, D).
        attention_mask: None, since the plan has the masks.

    Returns:
        (1, N, H, D) and no weights.
    """
    if kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention sinks")
    plan, layer = _active[-1], module.layer_idx
    window = sliding_window if sliding_window is not None and plan.reach >= sliding_window else None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query_NHD, key_NGD, value_NGD = (part[0].transpose(0, 1) for part in (query, key, value))
    out_NHD = torch.empty(query_NHD.shape, dtype=query.dtype, device=query.device)
    pairs = 0
    for number, segment in enumerate(plan.segments):
        keys, values = key_NGD[segment.tokens], value_NGD[segment.tokens]
        if plan.held is None:
            own = _padded(keys, segment), _padded(values, segment)
        else:
            own = plan.held[number, layer]
            own[0][:, :, plan.slot] = keys.transpose(0, 1)
            own[1][:, :, plan.slot] = values.transpose(0, 1)
            own = own[0][:, :, : plan.slot + 1], own[1][:, :, : plan.slot + 1]
        if plan.keep:
            plan.memory[number, layer] = own
        before = None if segment.prefix is None else segment.prefix.layers[layer]
        mask = segment.mask(window, query.dtype)
        out_NHD[segment.tokens] = _attend(query_NHD[segment.tokens], before, own, segment, mask, scale, softcap)
        pairs += segment.pad_RT.numel() * (own[0].shape[2] + (0 if segment.prefix is None else segment.prefix.length))
    out_NHD[plan.segments[-1].tokens.stop :] = 0
    # For the cost meter, which sees only one long row and would take its square.
    module.attended_pairs = pairs
    return out_NHD[None], None


def _padded(part_NGD: Tensor, segment: Segment) -> Tensor:
    """Packed tokens as (G, R, T, D)."""
    rows, places = segment.pad_RT.shape
    heads, width = part_NGD.shape[1:]
    return part_NGD.index_select(0, segment.pad_RT.reshape(-1)).view(rows, places, heads, width).permute(2, 0, 1, 3)


def _attend(
    query_NHD: Tensor,
    prefix: KeyValue | None,
    own: KeyValue,
    segment: Segment,
    mask_R1TX: Tensor,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """One segment's attention; the letters are G key-value heads, E queries of each, R rows, T places, D width."""
    key_GRKD, value_GRKD = own
    (rows, places), (heads, width) = segment.pad_RT.shape, query_NHD.shape[1:]
    groups = key_GRKD.shape[0]
    shape = (groups, rows, heads // groups, places)
    query = query_NHD.index_select(0, segment.pad_RT.reshape(-1)) * scale
    query_GRETD = query.view(rows, places, groups, heads // groups, width).permute(2, 0, 3, 1, 4).contiguous()
    by_row, flat = query_GRETD.view(groups, rows, -1, width), query_GRETD.view(groups, -1, width)
    scores = torch.matmul(by_row, key_GRKD.transpose(-1, -2)).view(*shape, -1)
    own_keys, before = scores.shape[-1], None
    if prefix is not None:
        before = torch.matmul(flat, prefix[0].transpose(-1, -2)).view(*shape, -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
        before = None if before is None else torch.tanh(before / softcap) * softcap
    if before is None or mask_R1TX.shape[-1] == own_keys:
        # Most masks hide own keys only; adding to all scores costs five times as much.
        scores += mask_R1TX
        scores = scores if before is None else torch.cat([before, scores], dim=-1)
    else:
        scores = torch.cat([before, scores], dim=-1).add_(mask_R1TX)
    # A 16-bit softmax takes twice as long on a CPU, and is computed in float32 inside anyway.
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    length = weights.shape[-1] - own_keys
    own_weights = weights[..., length:].reshape(groups, rows, shape[2] * places, -1)
    out = torch.matmul(own_weights, value_GRKD).view(groups, -1, width)
    if prefix is not None:
        out = torch.baddbmm(out, weights[..., :length].reshape(groups, -1, length), prefix[1])
    out_RTHD = out.view(*shape, width).permute(1, 3, 0, 2, 4).reshape(rows * places, heads, width)
    return out_RTHD.index_select(0, segment.unpad_N)


AttentionInterface.register(NAME, shared_prefix_attention)
