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

from instil.model.modes import evaluating

if TYPE_CHECKING:
    from torch import Tensor

NAME = "instil_shared_prefix"

KeyValue = tuple["Tensor", "Tensor"]
QueryKeyValue = tuple["Tensor", "Tensor", "Tensor"]


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
        visible_RTK: which own keys each token attends to; R is 1 where that is the same for all rows.
        query_RT: positions of the tokens.
        key_RK: positions of the own keys.
        kept: own keys that come before those of this pass, from an earlier one.
    """

    prefix: Prefix | None
    tokens: slice
    pad_RT: Tensor
    unpad_N: Tensor
    visible_RTK: Tensor
    query_RT: Tensor
    key_RK: Tensor
    kept: Kept | None = None
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)
    _heads: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def padded(self, part_NHD: Tensor, groups: int) -> Tensor:
        """Packed tokens by head and row, shape (G, R, E, T, D), where `groups` is G and each has E of the H heads."""
        (rows, places), (heads, width) = self.pad_RT.shape, part_NHD.shape[1:]
        found = part_NHD[self.tokens].reshape(-1, width).index_select(0, self._of_heads(heads, groups)[0])
        return found.view(groups, rows, heads // groups, places, width)

    def packed(self, part_GRETD: Tensor, out_NHD: Tensor) -> None:
        """The inverse: write what was computed by head and row to its packed tokens."""
        groups, _, each, _, width = part_GRETD.shape
        places = self._of_heads(groups * each, groups)[1]
        torch.index_select(part_GRETD.reshape(-1, width), 0, places, out=out_NHD[self.tokens].view(-1, width))

    def _of_heads(self, heads: int, groups: int) -> tuple[Tensor, Tensor]:
        """Where to find, counting the heads of all packed tokens, what `padded` gives, and the inverse.

        One selection that also brings the heads to the front takes a quarter of the time of one and a permuted copy.
        """
        if (heads, groups) not in self._heads:
            (rows, places), device = self.pad_RT.shape, self.pad_RT.device
            head_GE = torch.arange(heads, device=device).view(groups, -1)
            there = self.pad_RT[None, :, None, :] * heads + head_GE[:, None, :, None]
            row_N, place_N = self.unpad_N // places, self.unpad_N % places
            group_H, each_H = head_GE.flatten() // (heads // groups), head_GE.flatten() % (heads // groups)
            back = (group_H * rows + row_N[:, None]) * (heads // groups) + each_H
            self._heads[heads, groups] = there.reshape(-1), (back * places + place_N[:, None]).reshape(-1)
        return self._heads[heads, groups]

    def own(self, layer: int, key_NGD: Tensor, value_NGD: Tensor) -> KeyValue:
        """Own keys and values, shape (G, R, K, D)."""
        groups = key_NGD.shape[1]
        key, value = self.padded(key_NGD, groups).squeeze(2), self.padded(value_NGD, groups).squeeze(2)
        if self.kept is None:
            return key, value
        before = self.kept.of(layer)
        return torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask of shape (R, 1, T, K) for the own keys; with a sliding window (R, 1, T, P + K) for all keys."""
        if (window, dtype) not in self._masks:
            length = 0 if self.prefix is None or window is None else self.prefix.length
            rows, places, _ = self.visible_RTK.shape
            before_RTP = torch.ones(rows, places, length, dtype=torch.bool, device=self.visible_RTK.device)
            visible_RTX = torch.cat([before_RTP, self.visible_RTK], dim=-1)
            if window is not None:
                before = torch.arange(length, device=self.key_RK.device).expand(rows, -1)
                keys_RX = torch.cat([before, self.key_RK[:rows]], dim=-1)
                visible_RTX = visible_RTX & (self.query_RT[:rows, :, None] - keys_RX[:, None, :] < window)
            # The lowest number, not minus infinity: a row of filler may see nothing and must not become NaN.
            mask = torch.zeros(visible_RTX.shape, dtype=dtype, device=visible_RTX.device)
            mask.masked_fill_(~visible_RTX, torch.finfo(dtype).min)
            self._masks[window, dtype] = mask[:, None]
        return self._masks[window, dtype]


@dataclass(eq=False)
class Plan:
    """What one forward pass over whole rows attends to.

    Attributes:
        segments: in the order of their tokens.
        memory: filled with each segment's own keys and values by layer, shape (G, R, K, D), when `keep` is set.
        reach: the longest distance that occurs, so that wider sliding windows are not masked at all.
    """

    segments: Sequence[Segment]
    keep: bool = False
    memory: dict[tuple[int, int], KeyValue] = field(default_factory=dict)
    reach: int = 0

    def attend(self, layer: int, own: QueryKeyValue, scale: float, softcap: float | None, window: int | None) -> Tensor:
        """Shape (N, H, D)."""
        query_NHD, key_NGD, value_NGD = own
        out_NHD = query_NHD.new_empty(query_NHD.shape)
        out_NHD[self.segments[-1].tokens.stop :] = 0  # filler
        for number, segment in enumerate(self.segments):
            held = segment.own(layer, key_NGD, value_NGD)
            if self.keep:
                self.memory[number, layer] = held
            before = None if segment.prefix is None else segment.prefix.layers[layer]
            mask = segment.mask(window, query_NHD.dtype)
            query_GRETD = segment.padded(query_NHD, key_NGD.shape[1]).mul_(scale)
            segment.packed(_attend(query_GRETD, before, held, mask, softcap), out_NHD)
        return out_NHD

    @property
    def pairs(self) -> int:
        """Pairs of tokens whose attention is computed, filler included."""
        return sum(
            segment.pad_RT.numel()
            * (segment.visible_RTK.shape[2] + (0 if segment.prefix is None else segment.prefix.length))
            for segment in self.segments
        )


@dataclass(eq=False)
class Kept:
    """Some rows of a segment of an earlier pass, whose own keys and values go on being attended to.

    Attributes:
        plan: of the earlier pass, which kept them.
        number: of the segment there.
        rows_R: which of its rows.
    """

    plan: Plan
    number: int
    rows_R: Tensor

    def of(self, layer: int) -> KeyValue:
        """Shape (G, R, K, D)."""
        key, value = self.plan.memory[self.number, layer]
        return key.index_select(1, self.rows_R), value.index_select(1, self.rows_R)


@dataclass(eq=False)
class Held:
    """What a pass over one more token of each row attends to: the row's prefix, and its own tokens in a buffer.

    The own keys of all rows are in one product, those of a prefix in one for all of its rows, and one softmax serves
    all; unused places of the buffer are masked and not cut off, since cutting would copy the buffer.

    Attributes:
        groups: rows that stand together and share a prefix, by their number.
        layers: for each layer, own keys and values of shape (G, R, K, D); `slot` is free.
        slot: the place in the buffer where this pass's token of each row goes.
        visible_RK: which places of the buffer each row attends to, `slot` included.
        key_RK: positions of the tokens in the buffer.
        query_R: positions of this pass's tokens.
    """

    groups: Sequence[tuple[Prefix | None, int]]
    layers: dict[int, KeyValue]
    slot: int
    visible_RK: Tensor
    key_RK: Tensor
    query_R: Tensor
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    @property
    def reach(self) -> int:
        return int(self.query_R.max())

    @property
    def pairs(self) -> int:
        return self.visible_RK.numel() + sum(prefix.length * count for prefix, count in self.groups if prefix)

    @property
    def longest(self) -> int:
        """Tokens of the longest prefix."""
        return max((prefix.length for prefix, _ in self.groups if prefix), default=0)

    def spans(self) -> Iterator[tuple[Prefix, slice]]:
        """Each prefix with its rows."""
        start = 0
        for prefix, count in self.groups:
            if prefix is not None:
                yield prefix, slice(start, start + count)
            start += count

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask of shape (R, 1, X) for the keys of the prefix, as long as the longest, and the buffer."""
        if (window, dtype) not in self._masks:
            rows, longest = self.visible_RK.shape[0], self.longest
            before_RP = torch.zeros(rows, longest, dtype=torch.bool, device=self.visible_RK.device)
            for prefix, span in self.spans():
                before_RP[span, : prefix.length] = True
            visible_RX = torch.cat([before_RP, self.visible_RK], dim=-1)
            if window is not None:
                before = torch.arange(longest, device=self.key_RK.device).expand(rows, -1)
                keys_RX = torch.cat([before, self.key_RK], dim=-1)
                visible_RX &= self.query_R[:, None] - keys_RX < window
            mask = torch.zeros(visible_RX.shape, dtype=dtype, device=visible_RX.device)
            self._masks[window, dtype] = mask.masked_fill_(~visible_RX, torch.finfo(dtype).min)[:, None]
        return self._masks[window, dtype]

    def attend(self, layer: int, own: QueryKeyValue, scale: float, softcap: float | None, window: int | None) -> Tensor:
        """Shape (N, H, D); tokens behind the last row are filler."""
        rows, longest = self.visible_RK.shape[0], self.longest
        query_RHD, key_RGD, value_RGD = (part[:rows] for part in own)
        keys_GRKD, values_GRKD = self.layers[layer]
        keys_GRKD[:, :, self.slot] = key_RGD.transpose(0, 1)
        values_GRKD[:, :, self.slot] = value_RGD.transpose(0, 1)
        (heads, width), groups = query_RHD.shape[1:], keys_GRKD.shape[0]
        query_GRED = (query_RHD * scale).view(rows, groups, heads // groups, width).permute(1, 0, 2, 3).contiguous()
        scores = query_GRED.new_zeros(*query_GRED.shape[:3], longest + keys_GRKD.shape[2])
        scores[..., longest:] = torch.matmul(query_GRED, keys_GRKD.transpose(-1, -2))
        for prefix, span in self.spans():
            part = query_GRED[:, span].reshape(groups, -1, width)
            found = torch.matmul(part, prefix.layers[layer][0].transpose(-1, -2))
            scores[:, span, :, : prefix.length] = found.view(groups, -1, heads // groups, prefix.length)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores += self.mask(window, scores.dtype)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        out_GRED = torch.matmul(weights[..., longest:], values_GRKD)
        for prefix, span in self.spans():
            part = weights[:, span, :, : prefix.length].reshape(groups, -1, prefix.length)
            found = torch.matmul(part, prefix.layers[layer][1])
            out_GRED[:, span] += found.view(groups, -1, heads // groups, width)
        out_NHD = torch.empty_like(own[0])
        out_NHD[:rows] = out_GRED.permute(1, 0, 2, 3).reshape(rows, heads, width)
        out_NHD[rows:] = 0
        return out_NHD


_active: list[Plan | Held] = []


@contextmanager
def attending(model: Any, plan: Plan | Held) -> Iterator[None]:
    """Run `model` by `plan`: evaluation mode, our attention; both are put back, whatever happens."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    _active.append(plan)
    try:
        with evaluating(model):
            yield
    finally:
        _active.pop()
        model.set_attn_implementation(before)


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
    plan = _active[-1]
    window = sliding_window if sliding_window is not None and plan.reach >= sliding_window else None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query_NHD, key_NGD, value_NGD = (part[0].transpose(0, 1) for part in (query, key, value))
    out_NHD = plan.attend(module.layer_idx, (query_NHD, key_NGD, value_NGD), scale, softcap, window)
    # For the cost meter, which sees only one long row and would take its square.
    module.attended_pairs = plan.pairs
    return out_NHD[None], None


def _attend(
    query_GRETD: Tensor, prefix: KeyValue | None, own: KeyValue, mask_R1TX: Tensor, softcap: float | None
) -> Tensor:
    """One segment's attention; the letters are G key-value heads, E queries of each, R rows, T places, D width."""
    key_GRKD, value_GRKD = own
    groups, rows, *_, width = query_GRETD.shape
    shape = query_GRETD.shape[:-1]
    by_row, flat = query_GRETD.view(groups, rows, -1, width), query_GRETD.view(groups, -1, width)
    parts = [torch.matmul(by_row, key_GRKD.transpose(-1, -2)).view(*shape, -1)]
    if prefix is not None:
        parts.append(torch.matmul(flat, prefix[0].transpose(-1, -2)).view(*shape, -1))
    if softcap is not None:
        parts = [torch.tanh(part / softcap) * softcap for part in parts]
    own_keys = parts[0].shape[-1]
    parts[0] += mask_R1TX[..., -own_keys:]
    if mask_R1TX.shape[-1] > own_keys:
        parts[1] += mask_R1TX[..., :-own_keys]
    (weights, *before), total_GRET1 = _exponentials(parts)
    out = torch.matmul(weights.view(groups, rows, -1, own_keys), value_GRKD).view(groups, -1, width)
    if prefix is not None:
        out = torch.baddbmm(out, before[0].view(groups, out.shape[1], -1), prefix[1])
    return (out.view(*shape, width) / total_GRET1).to(query_GRETD.dtype)


SAFE = (1e-12, 1e30)
"""Between these a sum of unshifted exponentials has lost nothing: neither to overflow nor to underflow."""


def _exponentials(parts: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Softmax over the keys of all parts, in two steps: e to each score, and their sum over all keys in float32.

    Softmax is the same whatever is subtracted from all scores of a query. On a CPU finding the greatest of them takes
    longer than all the rest in 16-bit precision, so nothing is subtracted as long as the sums show that none is needed.
    """
    # Half precision has too small a range: what is lost at its lower end does not show in a sum.
    if parts[0].device.type == "cpu" and parts[0].dtype != torch.float16:
        found = [part.exp() for part in parts]
        total = _sum(found)
        low, high = total.aminmax()
        if SAFE[0] < float(low) and float(high) < SAFE[1]:
            return found, total
    greatest = torch.stack([part.amax(dim=-1, keepdim=True) for part in parts]).amax(dim=0)
    found = [(part - greatest).exp() for part in parts]
    return found, _sum(found)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.sum(dim=-1, keepdim=True, dtype=torch.float32) for part in parts]).sum(dim=0)


AttentionInterface.register(NAME, shared_prefix_attention)
