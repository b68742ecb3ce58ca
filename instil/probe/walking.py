"""Walk the answer trees of a batch, and compute only those branches that can matter.

The question's end says which first tokens a sample can come to. Behind one that top-k or top-p cuts off there is
nothing to compute, and most answers that a model does not know are cut off at their first token. A branch that no
sample comes to is only computed where greedy decoding goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy
import torch

from instil.probe.rows import ROOT, Row, Tree
from instil.probe.sampling import Sampling, likeliest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from instil.probe.memory import Limits
    from instil.probe.runner import Scored

    Whole = NDArray[numpy.int64]
    Floats = NDArray[numpy.float64]


@dataclass
class TreeScores:
    """Figures of one row; index 0 is the question's end, index n + 1 is node n.

    Attributes:
        tree: that of the row; where greedy decoding leaves it at once, with that token as one node more.
        greedy: the likeliest token at each place; -1 where nothing was computed.
        reach: log-probability that a sample passes each place; -inf for guessed nodes, of which it is not asked.
        stop: log-probability that it stops there, having come there; -inf where it cannot come.
    """

    tree: Tree
    greedy: list[int]
    reach: list[float]
    stop: list[float]

    def probability(self, ends: Iterable[int]) -> float:
        """That a sample ends at one of these nodes. Nodes are distinct sequences, so nothing is counted twice."""
        return min(1.0, math.fsum(math.exp(self.reach[end + 1] + self.stop[end + 1]) for end in ends))


@dataclass(frozen=True)
class Walk:
    """How trees are walked.

    Attributes:
        followed: rows whose branch that greedy decoding takes is computed, whether a sample comes there or not.
        further: and where there is no such branch, its first token, since decoding goes on from it.
    """

    sampling: Sampling
    stop_ids: frozenset[int]
    followed: frozenset[int] = frozenset()
    further: bool = False


def score_trees(scored: Scored, rows: Sequence[Row], walk: Walk, limits: Limits) -> list[TreeScores]:
    """The figures of all trees of a batch whose questions are computed."""
    greedy = numpy.array(likeliest(scored.logits))
    trees = [row.tree for row in rows]
    guessed = [row.guessed for row in rows]
    if walk.further:
        for index in walk.followed:
            token = int(greedy[index])
            if token not in walk.stop_ids and (ROOT, token) not in trees[index].children:
                trees[index] = trees[index].grown((token,))
                guessed[index] += 1
    forest = _Forest.of(trees, guessed)
    figures = _Figures.at_the_roots(forest, scored.logits, greedy, walk)
    for part in forest.parts(figures.kept(walk.followed), limits, scored.logits.shape[1]):
        figures.fill(part, scored.behind(part.trees), walk)
    return figures.by_row(trees)


@dataclass(frozen=True)
class _Forest:
    """All places of all trees, numbered one after the other: of each row the question's end, then its nodes.

    Attributes:
        starts: where each row's places start, and where the last one's end, shape (R + 1).
        rows: the row of each node, shape (N); so are the following.
        places: of each node; `parents` and `firsts`: of the node before it, and of the first one on its path.
        tokens: of each node.
        guessed: whether it is only there to be followed.
    """

    starts: Whole
    rows: Whole
    places: Whole
    parents: Whole
    firsts: Whole
    tokens: Whole
    guessed: NDArray[numpy.bool_]

    @staticmethod
    def of(trees: Sequence[Tree], guessed: Sequence[int]) -> _Forest:
        sizes = numpy.array([len(tree) for tree in trees])
        starts = numpy.concatenate([[0], numpy.cumsum(sizes + 1)])
        tokens, parents, firsts = numpy.concatenate([tree.columns for tree in trees], axis=1)
        rows = numpy.repeat(numpy.arange(len(trees)), sizes)
        zero = starts[rows] + 1
        places = numpy.arange(len(rows)) + rows + 1
        listed = (sizes - numpy.array(guessed))[rows]
        return _Forest(starts, rows, places, zero + parents, zero + firsts, tokens, places - zero >= listed)

    def parts(self, kept: NDArray[numpy.bool_], limits: Limits, vocabulary: int) -> Iterator[_Part]:
        """The kept nodes, rows in order, in parts within the limits; a row over them is a part of its own."""
        nodes = numpy.flatnonzero(kept)
        rows, counts = numpy.unique(self.rows[nodes], return_counts=True)
        most = max(1, min(limits.tokens, limits.logits // vocabulary))
        start = first = done = 0
        for index, count in enumerate([*counts.tolist(), most + 1]):
            if done + count > most and done:
                yield _Part.of(self, nodes[start : start + done], rows[first:index], counts[first:index])
                start, first, done = start + done, index, 0
            done += count


@dataclass(frozen=True)
class _Part:
    """Some nodes of a forest, whole rows, that are computed at once.

    Attributes:
        nodes: ascending.
        trees: of the nodes of each row.
    """

    nodes: Whole
    trees: dict[int, Tree]

    @staticmethod
    def of(forest: _Forest, nodes: Whole, rows: Whole, counts: Whole) -> _Part:
        ends = numpy.cumsum(counts)
        numbers = numpy.arange(len(nodes)) - numpy.repeat(ends - counts, counts)
        number_at = numpy.full(forest.starts[-1], ROOT)
        number_at[forest.places[nodes]] = numbers
        tokens, parents = forest.tokens[nodes].tolist(), number_at[forest.parents[nodes]].tolist()
        spans = pairwise([0, *ends.tolist()])
        return _Part(
            nodes,
            {
                row: Tree(tuple(tokens[start:end]), tuple(parents[start:end]))
                for row, (start, end) in zip(rows.tolist(), spans, strict=True)
            },
        )


@dataclass(frozen=True)
class _Figures:
    """What is known of each place of a forest."""

    forest: _Forest
    greedy: Whole
    reach: Floats
    stop: Floats

    @staticmethod
    def at_the_roots(forest: _Forest, logits_RV: Tensor, greedy: Whole, walk: Walk) -> _Figures:
        places = int(forest.starts[-1])
        found = _Figures(forest, numpy.full(places, -1), *numpy.full((2, places), -math.inf))
        roots = forest.starts[:-1]
        found.greedy[roots], found.reach[roots] = greedy, 0.0
        found._walk(roots, numpy.flatnonzero(~forest.guessed), logits_RV, None, walk)
        return found

    def kept(self, followed: frozenset[int]) -> NDArray[numpy.bool_]:
        """Nodes behind a first token that a sample can come to, or, in some rows, that greedy decoding takes."""
        forest = self.forest
        first_tokens = forest.tokens[forest.firsts - forest.rows - 1]
        taken = first_tokens == self.greedy[forest.starts[forest.rows]]
        taken &= numpy.isin(forest.rows, numpy.array(sorted(followed), dtype=numpy.int64), kind="table")
        return taken | ~forest.guessed & (self.reach[forest.firsts] > -math.inf)

    def fill(self, part: _Part, logits_SV: Tensor, walk: Walk) -> None:
        """From the logits behind the nodes of a part."""
        forest, places = self.forest, self.forest.places[part.nodes]
        self.greedy[places] = likeliest(logits_SV)
        listed = part.nodes[~forest.guessed[part.nodes]]
        level = places[(forest.parents[part.nodes] == forest.starts[forest.rows[part.nodes]])]
        level = level[self.reach[level] > -math.inf]
        while len(level):
            rows_N = torch.from_numpy(numpy.searchsorted(places, level)).to(logits_SV.device)
            level = self._walk(level, listed, logits_SV, rows_N, walk)

    def _walk(self, level: Whole, nodes: Whole, logits_NV: Tensor, rows_N: Tensor | None, walk: Walk) -> Whole:
        """One step on from the places of a level to those of some nodes: the next level, where a sample can come to.

        Args:
            level: ascending.
            rows_N: where the level's logits are; all in order when left out.
        """
        forest, device = self.forest, logits_NV.device
        edges = nodes[numpy.isin(forest.parents[nodes], level, kind="table")]
        edges = edges[numpy.argsort(forest.parents[edges], kind="stable")]
        parents, children = forest.parents[edges], forest.places[edges]
        edges_P, stop_N = walk.sampling.score(
            logits_NV,
            torch.from_numpy(numpy.searchsorted(level, parents)).to(device),
            torch.from_numpy(forest.tokens[edges]).to(device),
            torch.tensor(sorted(walk.stop_ids), device=device),
            rows_N,
        )
        self.stop[level] = stop_N.double().cpu().numpy()
        self.reach[children] = self.reach[parents] + edges_P.double().cpu().numpy()
        return numpy.sort(children[self.reach[children] > -math.inf])

    def by_row(self, trees: Sequence[Tree]) -> list[TreeScores]:
        greedy, reach, stop = self.greedy.tolist(), self.reach.tolist(), self.stop.tolist()
        spans = (slice(start, end) for start, end in pairwise(self.forest.starts.tolist()))
        return [
            TreeScores(tree, greedy[span], reach[span], stop[span]) for tree, span in zip(trees, spans, strict=True)
        ]
