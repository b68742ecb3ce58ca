"""Attention of one more token of each of many rows: to the prefix of its row, and to the row's own tokens so far.

Rows have few prefixes in common, and a product for each prefix takes longer to begin than to compute. So prefixes are
stacked, filled up to the longest one, with the rows of each beside them, filled up to the prefix that has most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from instil.probe.attention import KeyValue, Prefix, QueryKeyValue

WASTE = 4
"""How many times as many rows as there are may be computed, filler with them, before prefixes are taken one by one."""

Groups = Sequence[tuple["Prefix | None", int]]
"""Rows that stand together and share a prefix, by their number."""


@dataclass(eq=False)
class Stack:
    """Keys and values of some prefixes in one tensor.

    Attributes:
        slots: where each prefix is.
        longest: tokens of the longest one.
        layers: for each layer, keys and values of shape (G, P, L, D); zeros behind the end of a shorter prefix.
    """

    slots: Mapping[Prefix, int]
    longest: int
    layers: Mapping[int, KeyValue]

    @staticmethod
    def of(prefixes: Sequence[Prefix]) -> Stack:
        longest = max(prefix.length for prefix in prefixes)
        layers: dict[int, KeyValue] = {}
        for layer, pair in prefixes[0].layers.items():
            stacked = [part.new_zeros(part.shape[0], len(prefixes), longest, part.shape[2]) for part in pair]
            for slot, prefix in enumerate(prefixes):
                for into, part in zip(stacked, prefix.layers[layer], strict=True):
                    into[:, slot, : prefix.length] = part
            layers[layer] = (stacked[0], stacked[1])
        return Stack({prefix: slot for slot, prefix in enumerate(prefixes)}, longest, layers)

    def holds(self, prefixes: Iterable[Prefix]) -> bool:
        return all(prefix in self.slots for prefix in prefixes)


@dataclass(eq=False)
class Stacked:
    """A stack with the rows of each prefix beside it.

    Attributes:
        rows_X: which row is at each place of the flattened (prefixes, rows of one); filler repeats the first row.
        places_R: where each row is among these.
    """

    stack: Stack
    rows_X: Tensor
    places_R: Tensor

    @staticmethod
    def of(groups: Groups, device: torch.device, before: Stack | None = None) -> Stacked | None:
        """None where there is no prefix, or too much would be filler.

        Args:
            before: a stack that is there already, which is taken where it serves.
        """
        first = next((prefix for prefix, _ in groups if prefix is not None), None)
        if first is None:
            return None
        # A row without a prefix is put beside the first one; the mask keeps it from what is there.
        whole = [(prefix or first, count) for prefix, count in groups]
        counts: dict[Prefix, int] = {}
        for prefix, count in whole:
            counts[prefix] = counts.get(prefix, 0) + count
        rows, most = sum(counts.values()), max(counts.values())
        if len(counts) * most > WASTE * rows:
            return None
        if before is None or not before.holds(counts) or len(before.slots) * most > WASTE * rows:
            before = Stack.of(list(counts))
        rows_X, taken = [0] * (len(before.slots) * most), [0] * len(before.slots)
        places: list[int] = []
        for prefix, count in whole:
            slot = before.slots[prefix]
            for place in range(slot * most + taken[slot], slot * most + taken[slot] + count):
                rows_X[place] = len(places)
                places.append(place)
            taken[slot] += count
        return Stacked(before, torch.tensor(rows_X, device=device), torch.tensor(places, device=device))

    @property
    def longest(self) -> int:
        return self.stack.longest

    def scores(self, layer: int, query_GRED: Tensor) -> Tensor:
        """Of each row's query and the keys of its prefix, shape (G, R, E, L)."""
        keys_GPLD = self.stack.layers[layer][0]
        return self._products(query_GRED, keys_GPLD.transpose(-1, -2))

    def mixed(self, layer: int, weights_GREL: Tensor) -> Tensor:
        """The values of each row's prefix by their weights, shape (G, R, E, D)."""
        return self._products(weights_GREL, self.stack.layers[layer][1])

    def _products(self, by_row_GREX: Tensor, of_prefix_GPXY: Tensor) -> Tensor:
        groups, _, each, inner = by_row_GREX.shape
        prefixes = of_prefix_GPXY.shape[1]
        beside = by_row_GREX.index_select(1, self.rows_X).view(groups, prefixes, -1, inner)
        found = torch.matmul(beside, of_prefix_GPXY)
        return found.view(groups, -1, each, found.shape[-1]).index_select(1, self.places_R)


@dataclass(eq=False)
class Held:
    """What a pass over one more token of each row attends to: the row's prefix, and its own tokens in a buffer.

    The own keys of all rows are in one product and one softmax serves all; unused places of the buffer are masked and
    not cut off, since cutting would copy the buffer. The keys of prefixes are in one product for each prefix, or
    `stacked` in one for all.

    Attributes:
        groups: rows that stand together and share a prefix, by their number.
        layers: for each layer, own keys and values of shape (G, R, K, D); `slot` is free.
        slot: the place in the buffer where this pass's token of each row goes.
        visible_RK: which places of the buffer each row attends to, `slot` included.
        key_RK: positions of the tokens in the buffer.
        query_R: positions of this pass's tokens.
        stacked: the prefixes side by side; without them they are attended to one after the other.
    """

    groups: Sequence[tuple[Prefix | None, int]]
    layers: dict[int, KeyValue]
    slot: int
    visible_RK: Tensor
    key_RK: Tensor
    query_R: Tensor
    stacked: Stacked | None = None
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
        if self.stacked is not None:
            return self.stacked.longest
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
        if self.stacked is not None:
            scores[..., :longest] = self.stacked.scores(layer, query_GRED)
        else:
            for prefix, span in self.spans():
                part = query_GRED[:, span].reshape(groups, -1, width)
                found = torch.matmul(part, prefix.layers[layer][0].transpose(-1, -2))
                scores[:, span, :, : prefix.length] = found.view(groups, -1, heads // groups, prefix.length)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores += self.mask(window, scores.dtype)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        out_GRED = torch.matmul(weights[..., longest:], values_GRKD)
        if self.stacked is not None:
            out_GRED += self.stacked.mixed(layer, weights[..., :longest])
        else:
            for prefix, span in self.spans():
                part = weights[:, span, :, : prefix.length].reshape(groups, -1, prefix.length)
                found = torch.matmul(part, prefix.layers[layer][1])
                out_GRED[:, span] += found.view(groups, -1, heads // groups, width)
        out_NHD = torch.empty_like(own[0])
        out_NHD[:rows] = out_GRED.permute(1, 0, 2, 3).reshape(rows, heads, width)
        out_NHD[rows:] = 0
        return out_NHD
