"""The fast way to compute rows: many short ones in one packed row, the keys and values of each prefix computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from instil.probe.attention import Held, Kept, KeyValue, Plan, Prefix, Segment, attending
from instil.probe.rows import ROOT, Ids, Row, Tree

if TYPE_CHECKING:
    from instil.model import LanguageModel

PREFIX_BYTES = 256 << 20
"""Memory that the keys and values of prefixes may take; the least recently used go first."""

ROUND_TO = 32
"""A packed row is filled up to a multiple of so many tokens: a matrix product of a new shape costs a compilation."""


STEPS = 8
"""Tokens for which a session makes room at a time: few answers are longer, and unused room is attended to as well."""

SPLIT = 10_000
"""Pairs of tokens whose attention takes about as long as what has to be done for one more segment."""


class SharedRunner:
    """Many short rows in one packed row; keys and values of each prefix computed once."""

    name = "shared prefix"

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._prefixes: OrderedDict[Ids, Prefix] = OrderedDict()
        self._expected: dict[Ids, None] = {}
        self._together = 1 << 11

    def expect(self, prefixes: Sequence[Ids], tokens: int) -> None:
        """Prefixes are short, and a pass over few of them is slow: when one is missing, the next ones come with it."""
        self._expected, self._together = dict.fromkeys(prefixes), tokens

    def score(self, rows: Sequence[Row], keep: bool = True) -> SharedScored:
        groups = [list(group) for _, group in groupby(rows, key=lambda row: row.prefix)]
        prefixes = self._shared([group[0].prefix for group in groups])
        segments, homes, start = [], [], 0
        for number, (prefix, group) in enumerate(zip(prefixes, groups, strict=True)):
            questions = [row.question for row in group]
            segments.append(_in_sequence(questions, prefix, start, self._lm.device))
            homes += [(number, place) for place in range(len(group))]
            start += sum(map(len, questions))
        plan = Plan(segments, keep=True, reach=_reach(segments))
        tokens = [token for row in rows for token in row.question]
        last = torch.tensor([len(row.question) for row in rows]).cumsum(0) - 1
        logits = self.forward(plan, tokens, _positions(segments), last)
        return SharedScored(self, rows, logits, plan, homes, keep)

    def forward(self, plan: Plan | Held, tokens: Sequence[int], positions: Tensor, places: Tensor) -> Tensor:
        """One pass over packed tokens; logits at `places`, shape (S, V)."""
        model: Any = self._lm.model
        filler = -len(tokens) % ROUND_TO
        ids = torch.tensor([[*tokens, *[tokens[0]] * filler]], device=self._lm.device)
        positions = torch.nn.functional.pad(positions, (0, filler))
        with torch.no_grad(), attending(model, plan):
            logits: Tensor = model(
                input_ids=ids, position_ids=positions[None], logits_to_keep=places, use_cache=False
            ).logits
        return logits[0]

    def _shared(self, wanted: Sequence[Ids]) -> list[Prefix | None]:
        """The prefixes, those not at hand computed together. An empty one is None."""
        missing = self._with_expected([ids for ids in dict.fromkeys(wanted) if ids and ids not in self._prefixes])
        for part in _parts(missing, self._together):
            self._prefixes.update(zip(part, self._computed(part), strict=True))
        found = [self._prefixes[ids] if ids else None for ids in wanted]
        for ids in filter(None, wanted):
            self._prefixes.move_to_end(ids)
        self._forget(keep=len(set(filter(None, wanted))))
        return found

    def _with_expected(self, missing: list[Ids]) -> list[Ids]:
        for ids in missing:
            self._expected.pop(ids, None)
        if not missing or not self._prefixes:
            return missing
        one = next(iter(self._prefixes.values()))
        # Half of the memory, so that those that are in use need not go for those that will be.
        room = min(self._together, PREFIX_BYTES // 2 * one.length // _bytes(one)) - sum(map(len, missing))
        while self._expected and room >= len(ids := next(iter(self._expected))):
            del self._expected[ids]
            if ids and ids not in self._prefixes:
                missing.append(ids)
                room -= len(ids)
        return missing

    def _computed(self, prefixes: Sequence[Ids]) -> list[Prefix]:
        segment = _in_sequence(prefixes, None, 0, self._lm.device)
        plan = Plan([segment], keep=True, reach=_reach([segment]))
        tokens = [token for ids in prefixes for token in ids]
        # The logits behind a prefix are of no use; a single one is the fewest that every model can be asked for.
        self.forward(plan, tokens, _positions([segment]), torch.zeros(1, dtype=torch.long, device=self._lm.device))
        layers = sorted(layer for _, layer in plan.memory)
        return [
            Prefix(
                len(ids),
                {
                    layer: tuple(
                        part[:, index, : len(ids)].clone(memory_format=torch.contiguous_format)
                        for part in plan.memory[0, layer]
                    )  # type: ignore[misc]
                    for layer in layers
                },
            )
            for index, ids in enumerate(prefixes)
        ]

    def _forget(self, keep: int) -> None:
        while len(self._prefixes) > keep and sum(map(_bytes, self._prefixes.values())) > PREFIX_BYTES:
            self._prefixes.popitem(last=False)


def _parts(prefixes: Sequence[Ids], tokens: int) -> Iterable[list[Ids]]:
    """Cut where a part would have more than so many tokens."""
    part: list[Ids] = []
    for ids in prefixes:
        if part and sum(map(len, part)) + len(ids) > tokens:
            yield part
            part = []
        part.append(ids)
    if part:
        yield part


def _bytes(prefix: Prefix) -> int:
    return sum(part.numel() * part.element_size() for pair in prefix.layers.values() for part in pair)


def _reach(segments: Iterable[Segment]) -> int:
    """The longest distance from a token to a key before it."""
    return max(int(segment.query_RT.max()) for segment in segments)


def _positions(segments: Iterable[Segment]) -> Tensor:
    return torch.cat([segment.query_RT.reshape(-1)[segment.unpad_N] for segment in segments])


def _in_sequence(sequences: Sequence[Ids], prefix: Prefix | None, start: int, device: torch.device) -> Segment:
    """Lay out rows that are a plain sequence behind one prefix, from packed token `start` on."""
    lengths = numpy.array([len(ids) for ids in sequences])
    pad, unpad = _padding(lengths)
    before = 0 if prefix is None else prefix.length
    places = numpy.arange(pad.shape[1])
    positions = torch.from_numpy(before + places).to(device).expand(len(sequences), -1)
    return Segment(
        prefix=prefix,
        tokens=slice(start, start + int(lengths.sum())),
        pad_RT=torch.from_numpy(pad).to(device),
        unpad_N=torch.from_numpy(unpad).to(device),
        # Places without a token see what any place sees, so that their softmax is a number; nobody reads it.
        visible_RTK=torch.from_numpy(places[None, :, None] >= places[None, None, :]).to(device),
        query_RT=positions,
        key_RK=positions,
    )


def _branching(
    trees: Sequence[Tree], asked: Sequence[int], places: Sequence[int], earlier: Plan, number: int, start: int
) -> Segment:
    """Lay out trees behind rows of a segment of an earlier pass, from packed token `start` on.

    Args:
        asked: tokens of each question.
        places: which of the segment's rows.
    """
    segment = earlier.segments[number]
    prefix, device, questions = segment.prefix, segment.pad_RT.device, segment.pad_RT.shape[1]
    lengths = numpy.array([len(tree) for tree in trees])
    pad, unpad = _padding(lengths)
    rows, nodes = pad.shape
    visible = numpy.zeros((rows, nodes, questions + nodes), dtype=bool)
    depths = numpy.zeros((rows, nodes), dtype=numpy.int64)
    own = visible[:, :, questions:]
    for index, tree in enumerate(trees):
        visible[index, :, : asked[index]] = True
        for node, parent in enumerate(tree.parents):
            if parent != ROOT:
                own[index, node] = own[index, parent]
                depths[index, node] = depths[index, parent] + 1
            own[index, node, node] = True
    before = 0 if prefix is None else prefix.length
    query = depths + (before + numpy.array(asked))[:, None]
    question = numpy.broadcast_to(before + numpy.arange(questions), (rows, questions))
    return Segment(
        prefix=prefix,
        tokens=slice(start, start + int(lengths.sum())),
        pad_RT=torch.from_numpy(pad).to(device),
        unpad_N=torch.from_numpy(unpad).to(device),
        visible_RTK=torch.from_numpy(visible).to(device),
        query_RT=torch.from_numpy(query).to(device),
        key_RK=torch.from_numpy(numpy.concatenate([question, query], axis=1)).to(device),
        kept=Kept(earlier, number, torch.tensor(places, device=device)),
    )


def _split(sizes: Sequence[int], keys: int) -> list[int]:
    """Where to cut ascending sizes of trees that would be padded to the largest: how many to take together."""
    best, cut = SPLIT + len(sizes) * sizes[-1] * (keys + sizes[-1]), len(sizes)
    whole = best
    for count in range(1, len(sizes)):
        if sizes[count] == sizes[count - 1]:
            continue
        small, large = sizes[count - 1], sizes[-1]
        cost = 2 * SPLIT + count * small * (keys + small) + (len(sizes) - count) * large * (keys + large)
        if cost < best:
            best, cut = cost, count
    if best == whole:
        return [len(sizes)]
    return _split(sizes[:cut], keys) + _split(sizes[cut:], keys)


def _padding(lengths: Any) -> tuple[Any, Any]:
    """For rows of these lengths, where each place of a padded row is in the packed one (0 for filler), shape (R, T);
    and where each packed token is in the flattened padded ones."""
    places = numpy.arange(lengths.max())
    real = places[None] < lengths[:, None]
    first = numpy.cumsum(lengths) - lengths
    return numpy.where(real, first[:, None] + places[None], 0), numpy.flatnonzero(real)


@dataclass
class SharedScored:
    """A batch whose questions are computed, and whatever was computed behind them.

    Attributes:
        homes: for each row its segment in `plan`, and its place there.
    """

    runner: SharedRunner
    rows: Sequence[Row]
    logits: Tensor
    plan: Plan
    homes: Sequence[tuple[int, int]]
    keep: bool
    _grown: dict[int, tuple[Tree, Plan, int, int]] = field(default_factory=dict)

    def behind(self, trees: Mapping[int, Tree]) -> Tensor:
        if not trees:
            return self.logits[:0]
        segments: list[Segment] = []
        start = 0
        plan = Plan(segments, keep=self.keep)
        starts: dict[int, int] = {}
        for number, rows in self._alike(trees):
            some = [trees[row] for row in rows]
            asked, places = [len(self.rows[row].question) for row in rows], [self.homes[row][1] for row in rows]
            segment = _branching(some, asked, places, self.plan, number, start)
            for place, (row, tree) in enumerate(zip(rows, some, strict=True)):
                self._grown[row] = (tree, plan, len(segments), place)
                starts[row] = start
                start += len(tree)
            segments.append(segment)
        plan.reach = _reach(segments)
        tokens = [token for row in starts for token in trees[row].tokens]
        places_S = torch.tensor([starts[row] + node for row, tree in trees.items() for node in range(len(tree))])
        return self.runner.forward(plan, tokens, _positions(segments), places_S)

    def _alike(self, trees: Mapping[int, Tree]) -> Iterator[tuple[int, list[int]]]:
        """Rows of one segment whose trees are about as large, with the segment's number."""
        for number, group in groupby(trees, key=lambda row: self.homes[row][0]):
            segment = self.plan.segments[number]
            keys = segment.key_RK.shape[1] + (0 if segment.prefix is None else segment.prefix.length)
            rows = sorted(group, key=lambda row: len(trees[row]))
            for size in _split([len(trees[row]) for row in rows], keys):
                yield number, rows[:size]
                rows = rows[size:]

    def resume(self, places: Sequence[tuple[int, Ids]]) -> SharedSession:
        sources = [self._source(row, tokens) for row, tokens in places]
        prefixes = [self.plan.segments[self.homes[row][0]].prefix for row, _ in places]
        return SharedSession(self.runner, prefixes, sources)

    def _source(self, row: int, tokens: Ids) -> Source:
        """Where the own keys and values of a row and of a path behind it are."""
        asked = len(self.rows[row].question)
        if not tokens:
            return Source(self.plan, *self.homes[row], list(range(asked)))
        tree, plan, number, place = self._grown[row]
        first, node, nodes = self.plan.segments[self.homes[row][0]].pad_RT.shape[1], ROOT, []
        for token in tokens:
            node = tree.children[node, token]
            nodes.append(first + node)
        return Source(plan, number, place, [*range(asked), *nodes])


@dataclass(frozen=True)
class Source:
    """Own keys and values of one row: which of a segment's row, in the memory of a pass."""

    plan: Plan
    number: int
    place: int
    keys: Sequence[int]


class SharedSession:
    """Own keys and values of all rows are in one buffer for each layer, with room for what is generated."""

    def __init__(self, runner: SharedRunner, prefixes: Sequence[Prefix | None], sources: Sequence[Source]) -> None:
        self._runner, plan = runner, sources[0].plan
        self._length = max(len(source.keys) for source in sources)
        self._groups = [(prefix, len(list(group))) for prefix, group in groupby(prefixes)]
        whole = self._length + STEPS
        layers = {layer: pair for (_, layer), pair in plan.memory.items()}
        self._layers = {layer: _buffers(layers[layer], len(sources), whole) for layer in sorted(layers)}
        starts = numpy.array([0 if prefix is None else prefix.length for prefix in prefixes])
        lengths = numpy.array([len(source.keys) for source in sources])
        device = next(iter(layers.values()))[0].device
        self._visible = torch.from_numpy(numpy.arange(whole)[None] < lengths[:, None]).to(device)
        self._positions = torch.from_numpy(starts[:, None] + numpy.arange(whole)).to(device)
        self._next = torch.from_numpy(starts + lengths).to(device)
        by_segment: dict[tuple[int, int], list[int]] = {}
        for index, source in enumerate(sources):
            by_segment.setdefault((id(source.plan), source.number), []).append(index)
        for some in by_segment.values():
            self._fill(some, [sources[index] for index in some])

    def _fill(self, rows: Sequence[int], sources: Sequence[Source]) -> None:
        """Copy the own keys and values of rows of one segment; places that they lack are never attended to."""
        plan, number = sources[0].plan, sources[0].number
        own_keys = plan.segments[number].key_RK.shape[1]
        source = numpy.zeros((len(rows), self._length), dtype=numpy.int64)
        for index, one in enumerate(sources):
            source[index, : len(one.keys)] = one.keys
            source[index] += one.place * own_keys
        source_X = torch.from_numpy(source.reshape(-1)).to(self._next.device)
        rows_R = torch.tensor(rows, device=self._next.device)
        for layer, buffers in self._layers.items():
            for buffer_GRKD, memory_GRTD in zip(buffers, plan.memory[number, layer], strict=True):
                flat_GXD = memory_GRTD.reshape(memory_GRTD.shape[0], -1, memory_GRTD.shape[-1])
                chosen = flat_GXD[:, source_X].view(flat_GXD.shape[0], len(rows), self._length, -1)
                buffer_GRKD[:, rows_R, : self._length] = chosen

    def step(self, tokens: Sequence[int]) -> Tensor:
        if self._length == self._visible.shape[1]:
            self._extend(STEPS)
        self._visible[:, self._length] = True
        self._positions[:, self._length] = self._next
        held = Held(self._groups, self._layers, self._length, self._visible, self._positions, self._next)
        places = torch.arange(len(tokens), device=self._next.device)
        logits = self._runner.forward(held, tokens, self._next, places)
        self._next = self._next + 1
        self._length += 1
        return logits

    def select(self, rows: Sequence[int]) -> None:
        homes = [number for number, (_, count) in enumerate(self._groups) for _ in range(count)]
        chosen = torch.tensor(rows, device=self._positions.device)
        self._layers = {layer: (keys[:, chosen], values[:, chosen]) for layer, (keys, values) in self._layers.items()}
        self._groups = [
            (self._groups[number][0], len(list(group))) for number, group in groupby(homes[row] for row in rows)
        ]
        self._visible, self._positions = self._visible[chosen], self._positions[chosen]
        self._next = self._next[chosen]

    def _extend(self, room: int) -> None:
        """Make room for more tokens."""
        self._visible = torch.nn.functional.pad(self._visible, (0, room))
        self._positions = torch.nn.functional.pad(self._positions, (0, room))
        longer: dict[int, KeyValue] = {}
        for layer, (key, value) in self._layers.items():
            longer[layer] = (
                torch.nn.functional.pad(key, (0, 0, 0, room)),
                torch.nn.functional.pad(value, (0, 0, 0, room)),
            )
        self._layers = longer

    def join(self, other: SharedSession) -> None:
        """Rows of both go on behind the longer of the two; what either lacks before that is never attended to."""
        length, rows = max(self._length, other._length), len(self._next)
        whole, both = length + STEPS, rows + len(other._next)
        layers, visible = self._layers, self._visible.new_zeros(both, whole)
        positions = self._positions.new_zeros(both, whole)
        self._layers = {layer: _buffers(pair, both, whole) for layer, pair in layers.items()}
        for span, one, pairs in ((slice(rows), self, layers), (slice(rows, both), other, other._layers)):
            visible[span, : one._length] = one._visible[:, : one._length]
            positions[span, : one._length] = one._positions[:, : one._length]
            for layer, buffers in self._layers.items():
                for buffer_GRKD, own_GRKD in zip(buffers, pairs[layer], strict=True):
                    buffer_GRKD[:, span, : one._length] = own_GRKD[:, :, : one._length]
        self._visible, self._positions, self._length = visible, positions, length
        self._next = torch.cat([self._next, other._next])
        self._groups = [*self._groups, *other._groups]


def _buffers(pair: KeyValue, rows: int, length: int) -> KeyValue:
    """Zeroed, of shape (G, R, K, D)."""
    key, value = (part.new_zeros(part.shape[0], rows, length, part.shape[-1]) for part in pair)
    return key, value
