"""Forward passes over rows: the fast way, with shared prefixes, and the plain way, its naive twin.

Both give, for every row, the logits behind its question and behind each node of its answer tree, and go on from any
of these places token by token. The plain way recomputes everything from the first token on and needs nothing of the
model but its logits; it serves architectures that the fast one cannot, and the tests.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from instil.model import LanguageModel
from instil.probe.attention import Held, KeyValue, Plan, Prefix, Segment, attending
from instil.probe.memory import is_out_of_memory
from instil.probe.rows import ROOT, Ids, Row, Tree

log = logging.getLogger(__name__)
_NO_TREE = Tree((), ())

PREFIX_BYTES = 256 << 20
"""Memory that the keys and values of prefixes may take; the least recently used go first."""


ROUND_TO = 32
"""A packed row is filled up to a multiple of so many tokens: a matrix product of a new shape costs a compilation."""


class Session(Protocol):
    """Rows that are continued token by token."""

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row; the logits behind it, shape (R, V)."""

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, which may repeat, in this order; those of one prefix must stay together."""


class Scored(Protocol):
    """The logits of a batch of rows.

    Attributes:
        logits: shape (S, V), in the model's precision; the places of the first row, then of the second, and so on.
    """

    logits: Tensor

    def resume(self, places: Sequence[tuple[int, Ids]], room: int) -> Session:
        """Go on by at most `room` tokens behind places: a row and the nodes passed. Rows must not go backwards."""


class Runner(Protocol):
    """Computes rows. `name` says how, for the record."""

    name: str

    def expect(self, prefixes: Sequence[Ids], tokens: int) -> None:
        """Say which prefixes will be asked for next, in their order, and how many tokens of them to compute at once."""

    def score(self, rows: Sequence[Row], keep: bool = True) -> Scored:
        """Logits of all scored places. Rows with one prefix must stand together. `keep` allows `resume`."""


class PlainRunner:
    """Every sequence by itself, from its first token, without a cache; padded on the right."""

    name = "plain"

    def __init__(self, lm: LanguageModel, batch_tokens: int = 4096) -> None:
        self._lm = lm
        self._batch_tokens = batch_tokens

    def expect(self, prefixes: Sequence[Ids], tokens: int) -> None:
        """Nothing is kept."""

    def score(self, rows: Sequence[Row], keep: bool = True) -> PlainScored:
        sequences, places, firsts = [], [], []
        start = 0
        for row in rows:
            for leaf in row.tree.leaves or (ROOT,):
                path = row.tree.path(leaf)
                sequences.append((*row.prefix, *row.question, *(row.tree.tokens[node] for node in path)))
                firsts.append(len(row.prefix) + len(row.question) - 1)
                places.append([start, *(start + 1 + node for node in path)])
            start += row.scored
        logits: Tensor | None = None
        for index, found_TV in self._forward(sequences, firsts):
            if logits is None:
                logits = torch.empty(start, found_TV.shape[1], dtype=found_TV.dtype, device=found_TV.device)
            logits[places[index]] = found_TV
        assert logits is not None
        return PlainScored(self, rows, logits)

    def last(self, sequences: Sequence[Ids]) -> Tensor:
        """Logits behind each sequence, shape (R, V)."""
        found = dict(self._forward(sequences, [len(sequence) - 1 for sequence in sequences]))
        return torch.cat([found[index] for index in range(len(sequences))])

    def _forward(self, sequences: Sequence[Ids], firsts: Sequence[int]) -> Iterable[tuple[int, Tensor]]:
        """For each sequence its index and the logits from its first wanted token on."""
        model: Any = self._lm.model
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        for batch in _batches(order, [len(sequence) for sequence in sequences], self._batch_tokens):
            longest = max(len(sequences[index]) for index in batch)
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros(len(batch), longest, dtype=torch.long)
            for place, index in enumerate(batch):
                ids[place, : len(sequences[index])] = torch.tensor(sequences[index])
                mask[place, : len(sequences[index])] = 1
            first = min(firsts[index] for index in batch)
            training = model.training
            model.eval()
            with torch.no_grad():
                logits = model(
                    input_ids=ids.to(self._lm.device),
                    attention_mask=mask.to(self._lm.device),
                    logits_to_keep=longest - first,
                    use_cache=False,
                ).logits
            model.train(training)
            for place, index in enumerate(batch):
                yield index, logits[place, firsts[index] - first : len(sequences[index]) - first]


def _batches(order: Sequence[int], lengths: Sequence[int], budget: int) -> Iterable[list[int]]:
    """Indices in ascending order of length, cut where the padded batch would exceed `budget` tokens."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass
class PlainScored:
    runner: PlainRunner
    rows: Sequence[Row]
    logits: Tensor

    def resume(self, places: Sequence[tuple[int, Ids]], room: int) -> PlainSession:
        rows = [(self.rows[index], path) for index, path in places]
        return PlainSession(
            self.runner, [(*row.prefix, *row.question, *(row.tree.tokens[node] for node in path)) for row, path in rows]
        )


@dataclass
class PlainSession:
    runner: PlainRunner
    sequences: list[Ids]

    def step(self, tokens: Sequence[int]) -> Tensor:
        self.sequences = [(*ids, token) for ids, token in zip(self.sequences, tokens, strict=True)]
        return self.runner.last(self.sequences)

    def select(self, rows: Sequence[int]) -> None:
        self.sequences = [self.sequences[index] for index in rows]


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
        segments, start = [], 0
        for prefix, group in zip(prefixes, groups, strict=True):
            segments.append(_segment(group, prefix, start, self._lm.device))
            start += sum(len(row) for row in group)
        plan = Plan(segments, keep=keep, reach=_reach(segments))
        tokens = [token for row in rows for token in (*row.question, *row.tree.tokens)]
        logits = self.forward(plan, tokens, _positions(segments), _scored_places(rows))
        return SharedScored(self, rows, logits, plan)

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
        rows = [Row((), ids, _NO_TREE) for ids in prefixes]
        segment = _segment(rows, None, 0, self._lm.device)
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


def _scored_places(rows: Sequence[Row]) -> Tensor:
    places: list[int] = []
    start = 0
    for row in rows:
        places += range(start + len(row.question) - 1, start + len(row))
        start += len(row)
    return torch.tensor(places)


def _segment(rows: Sequence[Row], prefix: Prefix | None, start: int, device: torch.device) -> Segment:
    """Lay out rows that share a prefix, from packed token `start` on."""
    longest, length = max(len(row) for row in rows), 0 if prefix is None else prefix.length
    pad = numpy.zeros((len(rows), longest), dtype=numpy.int64)
    visible = numpy.zeros((len(rows), longest, longest), dtype=bool)
    positions = numpy.zeros((len(rows), longest), dtype=numpy.int64)
    triangle = numpy.tri(longest, dtype=bool)
    unpad: list[int] = []
    done = 0
    for index, row in enumerate(rows):
        asked, whole = len(row.question), len(row)
        pad[index, :whole] = numpy.arange(done, done + whole)
        unpad += range(index * longest, index * longest + whole)
        positions[index, :whole] = length + numpy.arange(whole)
        visible[index, :asked, :asked] = triangle[:asked, :asked]
        for node, parent in enumerate(row.tree.parents):
            place, before = asked + node, asked + parent if parent != ROOT else asked - 1
            visible[index, place] = visible[index, before]
            visible[index, place, place] = True
            positions[index, place] = positions[index, before] + 1
        # A place without a token sees one key, so that its softmax is a number; nobody reads it.
        visible[index, whole:, 0] = True
        done += whole
    return Segment(
        prefix=prefix,
        tokens=slice(start, start + done),
        pad_RT=torch.from_numpy(pad).to(device),
        unpad_N=torch.tensor(unpad, device=device),
        visible_RTK=torch.from_numpy(visible).to(device),
        query_RT=torch.from_numpy(positions).to(device),
        key_RK=torch.from_numpy(positions).to(device),
    )


@dataclass
class SharedScored:
    runner: SharedRunner
    rows: Sequence[Row]
    logits: Tensor
    plan: Plan

    def resume(self, places: Sequence[tuple[int, Ids]], room: int) -> SharedSession:
        return SharedSession(self, places, room)


class SharedSession:
    """Own keys and values of all rows are in one buffer for each layer, with room for what is generated."""

    def __init__(self, scored: SharedScored, places: Sequence[tuple[int, Ids]], room: int) -> None:
        self._runner, plan, device = scored.runner, scored.plan, scored.logits.device
        homes, layers = _homes(plan.segments), sorted({layer for _, layer in plan.memory})
        self._length = max(len(scored.rows[row].question) + len(path) for row, path in places)
        self._groups: list[tuple[Prefix | None, int]] = []
        self._layers = {layer: _buffers(plan.memory[0, layer], len(places), self._length + room) for layer in layers}
        source = numpy.zeros((len(places), self._length), dtype=numpy.int64)
        visible = numpy.zeros((len(places), self._length + room), dtype=bool)
        starts = numpy.zeros(len(places), dtype=numpy.int64)
        for index, (row, path) in enumerate(places):
            number, home = homes[row]
            asked, longest = len(scored.rows[row].question), plan.segments[number].pad_RT.shape[1]
            own = asked + len(path)
            source[index, :asked] = numpy.arange(asked)
            source[index, asked:own] = asked + numpy.asarray(path, dtype=numpy.int64)
            source[index] += home * longest
            visible[index, :own] = True
            prefix = plan.segments[number].prefix
            starts[index] = 0 if prefix is None else prefix.length
        self._visible = torch.from_numpy(visible).to(device)
        self._positions = torch.from_numpy(starts[:, None] + numpy.arange(self._length + room)).to(device)
        self._next = torch.from_numpy(starts + visible.sum(axis=1)).to(device)
        self._fill(plan, [homes[row][0] for row, _ in places], torch.from_numpy(source).to(device))

    def _fill(self, plan: Plan, segments: Sequence[int], source_RL: Tensor) -> None:
        """Copy the own keys and values of each row; places that it does not have are never attended to."""
        done = 0
        for number, group in groupby(segments):
            count = len(list(group))
            rows = slice(done, done + count)
            for layer, buffers in self._layers.items():
                for buffer_GRKD, memory_GRTD in zip(buffers, plan.memory[number, layer], strict=True):
                    flat_GXD = memory_GRTD.reshape(memory_GRTD.shape[0], -1, memory_GRTD.shape[-1])
                    chosen = flat_GXD[:, source_RL[rows].reshape(-1)]
                    buffer_GRKD[:, rows, : self._length] = chosen.view(*chosen.shape[:1], count, -1, chosen.shape[-1])
            self._groups.append((plan.segments[number].prefix, count))
            done += count

    def step(self, tokens: Sequence[int]) -> Tensor:
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


def _homes(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """For each row of a batch its segment and its place in it."""
    return [(number, place) for number, segment in enumerate(segments) for place in range(segment.pad_RT.shape[0])]


def _buffers(pair: KeyValue, rows: int, length: int) -> KeyValue:
    """Zeroed, of shape (G, R, K, D)."""
    key, value = (part.new_zeros(part.shape[0], rows, length, part.shape[-1]) for part in pair)
    return key, value


AGREES = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, relative to their spread, at which the two ways of computing count as one."""
AGREES_LOW = 0.15
"""The same in 16-bit precision, where both are rounded."""


def _tried(runner: Runner, row: Row) -> Tensor:
    """Logits of the row's places, and behind one more token, which is computed from what was kept."""
    scored = runner.score([row])
    behind = scored.resume([(0, ())], room=1).step([row.question[-1]])
    return torch.cat([scored.logits, behind]).float()


def choose_runner(lm: LanguageModel, row: Row) -> Runner:
    """The fast runner, if on this row it gives what the plain one gives; else the plain one, with a warning.

    The registered attention function serves every model that calls it as Llama, GPT-2, Gemma and their kin do. Whether
    a given architecture does cannot be seen from outside, so it is tried.
    """
    shared, plain = SharedRunner(lm), PlainRunner(lm)
    expected = _tried(plain, row)
    try:
        difference = float((_tried(shared, row) - expected).abs().max() / expected.std())
    except Exception as fault:  # An unknown architecture can fail in any way; a plain pass has just worked.
        if is_out_of_memory(fault):
            raise
        reason = f"{type(fault).__name__}: {fault}"
    else:
        if difference <= AGREES.get(lm.dtype, AGREES_LOW):
            return shared
        reason = f"logits differ by {difference:.2g} of their spread"
    log.warning("%s is probed the plain, slow way (%s)", type(lm.model).__name__, reason)
    return plain
