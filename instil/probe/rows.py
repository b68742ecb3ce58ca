"""What is computed for one question behind one prefix: the question, then every listed answer as a tree of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ids = tuple[int, ...]
ROOT = -1
"""The node before the first answer token: the end of the question."""


@dataclass(frozen=True)
class Tree:
    """Token sequences with shared beginnings merged, so that no token is computed and no sequence counted twice.

    Attributes:
        tokens: one a node, parents before children.
        parents: the node before each node; `ROOT` behind the question.
    """

    tokens: Ids
    parents: Ids

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def of(sequences: Iterable[Sequence[int]]) -> tuple[Tree, tuple[int, ...]]:
        """The tree of these sequences, and the node at which each of them ends (`ROOT` for an empty one)."""
        children: dict[tuple[int, int], int] = {}
        tokens: list[int] = []
        parents: list[int] = []
        ends = []
        for sequence in sequences:
            node = ROOT
            for token in sequence:
                if (node, token) not in children:
                    children[node, token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                node = children[node, token]
            ends.append(node)
        return Tree(tuple(tokens), tuple(parents)), tuple(ends)

    def grown(self, sequence: Sequence[int]) -> Tree:
        """With one more sequence; the nodes that there were keep their numbers."""
        children, tokens, parents, node = self.children, list(self.tokens), list(self.parents), ROOT
        for token in sequence:
            following = children.get((node, token)) if node < len(self) else None
            if following is None:
                following = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = following
        return self if len(tokens) == len(self) else Tree(tuple(tokens), tuple(parents))

    @cached_property
    def children(self) -> dict[tuple[int, int], int]:
        """(node, token) to the node that follows."""
        return {edge: node for node, edge in enumerate(zip(self.parents, self.tokens, strict=True))}

    @cached_property
    def depths(self) -> Ids:
        """Tokens from the end of the question up to and with each node."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent == ROOT else depths[parent] + 1)
        return tuple(depths)

    def path(self, node: int) -> Ids:
        """The nodes from the question's end to `node`, with it."""
        nodes: list[int] = []
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return tuple(reversed(nodes))

    @cached_property
    def leaves(self) -> Ids:
        return tuple(sorted(set(range(len(self))) - set(self.parents)))

    @cached_property
    def columns(self) -> NDArray[numpy.int64]:
        """Tokens, parents, and for each node the first node on its path: shape (3, nodes)."""
        firsts: list[int] = []
        for node, parent in enumerate(self.parents):
            firsts.append(node if parent == ROOT else firsts[parent])
        return numpy.array([self.tokens, self.parents, firsts], dtype=numpy.int64)


@dataclass(frozen=True)
class Row:
    """One question behind one prefix. Scored are the question's last token and then the nodes of the tree.

    Attributes:
        tree: what may stand behind the question; only branches that can come are computed.
        guessed: nodes at the tree's end that are there only to be followed: answers that greedy decoding gave behind
            other prefixes. How likely they are is not asked.
    """

    prefix: Ids
    question: Ids
    tree: Tree
    guessed: int = 0

    def __len__(self) -> int:
        """Tokens to be computed at most, without the prefix."""
        return len(self.question) + len(self.tree)


@dataclass(frozen=True)
class Answers:
    """The listed answers of one question as a tree.

    Attributes:
        ends: nodes at which a listed answer is complete, so that a stop token there ends it: behind its last token,
            and behind one tail (a full stop) more.
        longest: tokens of the longest sequence, with its stop.
        sequences: what is spelled at the ends, each once.
    """

    tree: Tree
    ends: frozenset[int]
    longest: int
    sequences: tuple[Ids, ...]

    @staticmethod
    def of(answers: Iterable[Ids], tails: Iterable[Ids], stops: frozenset[int]) -> Answers:
        """The tree of `answers`; a sequence that holds a stop token cannot be generated whole and is left out."""
        listed = [ids for ids in dict.fromkeys(answers) if ids and not stops.intersection(ids)]
        tailed = [(*ids, *tail) for ids in listed for tail in tails if ids[-len(tail) :] != tail]
        sequences = listed + [ids for ids in tailed if not stops.intersection(ids)]
        tree, ends = Tree.of(sequences)
        longest = 1 + max((len(ids) for ids in sequences), default=0)
        return Answers(tree, frozenset(ends), longest, tuple(dict.fromkeys(sequences)))
