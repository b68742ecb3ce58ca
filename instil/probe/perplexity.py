"""How well a model predicts plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from instil.model.modes import evaluating

if TYPE_CHECKING:
    from instil.model import LanguageModel

LOGITS = 1 << 25
"""Logits that one batch may give."""


def next_token_nll(lm: LanguageModel, texts: Sequence[str], batch_tokens: int = 4096) -> list[tuple[float, int]]:
    """For each text the summed negative log-likelihood of its tokens in nats, and their number.

    Counted are all tokens but the first, the end token with them. A text longer than the context window is computed in
    windows; each begins with the last token of the one before, so that every token is predicted exactly once.
    """
    pieces = [(index, piece) for index, text in enumerate(texts) for piece in _windows(lm, text)]
    pieces.sort(key=lambda pair: len(pair[1]))
    budget = max(1, min(batch_tokens, LOGITS // lm.model.config.get_text_config().vocab_size))
    sums, tokens = [0.0] * len(texts), [0] * len(texts)
    batch: list[tuple[int, Sequence[int]]] = []
    for pair in pieces:
        if batch and (len(batch) + 1) * len(pair[1]) > budget:
            _add(lm, batch, sums, tokens)
            batch = []
        batch.append(pair)
    if batch:
        _add(lm, batch, sums, tokens)
    return list(zip(sums, tokens, strict=True))


def _windows(lm: LanguageModel, text: str) -> list[tuple[int, ...]]:
    ids, width = lm.prompts.text_ids(text), lm.context_window
    return [ids[start : start + width] for start in range(0, max(1, len(ids) - 1), width - 1)]


def _add(lm: LanguageModel, batch: Sequence[tuple[int, Sequence[int]]], sums: list[float], tokens: list[int]) -> None:
    model: Any = lm.model
    longest = max(len(ids) for _, ids in batch)
    inputs = torch.zeros(len(batch), longest, dtype=torch.long)
    targets = torch.full((len(batch), longest), -100)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for place, (_, ids) in enumerate(batch):
        inputs[place, : len(ids)] = torch.tensor(ids)
        targets[place, : len(ids) - 1] = torch.tensor(ids[1:])
        mask[place, : len(ids)] = 1
    with evaluating(model), torch.no_grad():
        logits = model(input_ids=inputs.to(lm.device), attention_mask=mask.to(lm.device), use_cache=False).logits
    for place, (index, ids) in enumerate(batch):
        loss = cross_entropy(logits[place].float(), targets[place].to(lm.device), reduction="sum")
        sums[index] += float(loss)
        tokens[index] += len(ids) - 1
