"""The plain way to compute rows: every sequence by itself, from its first token on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from instil.model.modes import evaluating
from instil.probe.rows import Ids, Row, Tree

if TYPE_CHECKING:
    from instil.model import LanguageModel


class PlainRunner:
    """Every sequence by itself, from its first token, without a cache; padded on the right."""

    name = "plain"

    def __init__(self, lm: LanguageModel, batch_tokens: int = 4096) -> None:
        self._lm = lm
        self._batch_tokens = batch_tokens

    def expect(self, prefixes: Sequence[Ids], tokens: int) -> None:
        """Nothing is kept."""

    def score(self, rows: Sequence[Row], keep: bool = True) -> PlainScored:
        asked = [(*row.prefix, *row.question) for row in rows]
        return PlainScored(self, asked, self.last(asked))

    def last(self, sequences: Sequence[Ids]) -> Tensor:
        """Logits behind each sequence, shape (R, V)."""
        return torch.cat(self.behind(sequences, [len(sequence) - 1 for sequence in sequences]))

    def behind(self, sequences: Sequence[Ids], firsts: Sequence[int]) -> list[Tensor]:
        """For each sequence the logits from its first wanted token on, shape (T, V)."""
        found = dict(self._forward(sequences, firsts))
        return [found[index] for index in range(len(sequences))]

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
            with evaluating(model), torch.no_grad():
                logits = model(
                    input_ids=ids.to(self._lm.device),
                    attention_mask=mask.to(self._lm.device),
                    logits_to_keep=longest - first,
                    use_cache=False,
                ).logits
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
    asked: Sequence[Ids]
    logits: Tensor

    def behind(self, trees: Mapping[int, Tree]) -> Tensor:
        sequences, firsts, places = [], [], []
        start = 0
        for row, tree in trees.items():
            for leaf in tree.leaves:
                path = tree.path(leaf)
                sequences.append((*self.asked[row], *(tree.tokens[node] for node in path)))
                firsts.append(len(self.asked[row]))
                places.append([start + node for node in path])
            start += len(tree)
        logits_SV = self.logits.new_empty(start, self.logits.shape[1])
        for nodes, found_TV in zip(places, self.runner.behind(sequences, firsts), strict=True):
            logits_SV[nodes] = found_TV
        return logits_SV

    def resume(self, places: Sequence[tuple[int, Ids]]) -> PlainSession:
        return PlainSession(self.runner, [(*self.asked[row], *tokens) for row, tokens in places])


@dataclass
class PlainSession:
    runner: PlainRunner
    sequences: list[Ids]

    def step(self, tokens: Sequence[int]) -> Tensor:
        self.sequences = [(*ids, token) for ids, token in zip(self.sequences, tokens, strict=True)]
        return self.runner.last(self.sequences)

    def select(self, rows: Sequence[int]) -> None:
        self.sequences = [self.sequences[index] for index in rows]

    def join(self, other: PlainSession) -> None:
        self.sequences = [*self.sequences, *other.sequences]
