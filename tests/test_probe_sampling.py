"""One sampled token: its probability is that of transformers' own sampling, ties and truncation included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from instil.probe.sampling import Sampling

VOCABULARY = 30
SETTINGS = [
    Sampling(),
    Sampling(0.5, 40),
    Sampling(0.5, 5),
    Sampling(0.7, 1),
    Sampling(1.3, 0, 0.8),
    Sampling(0.5, 8, 0.9),
    Sampling(2.0, 29, 0.05),
    Sampling(0.3, 30, 1.0),
]


def warped(sampling: Sampling, logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities by the classes that `generate` uses, in its order."""
    warpers = LogitsProcessorList()
    if sampling.temperature != 1:
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers(torch.zeros(len(logits), 1, dtype=torch.long), logits.float()).log_softmax(-1)


def logits_of(seed: int, ties: bool, dtype: torch.dtype, rows: int = 12) -> torch.Tensor:
    values = torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    return (values.round() if ties else values).to(dtype)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_distribution_is_that_of_generate(sampling: Sampling, ties: bool, dtype: torch.dtype) -> None:
    logits = logits_of(0, ties, dtype)
    torch.testing.assert_close(sampling.log_probabilities(logits), warped(sampling, logits))


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(SETTINGS), st.sets(st.integers(0, VOCABULARY - 1)))
def test_chosen_tokens_and_the_stop_set_have_the_plain_ways_probability(
    seed: int, ties: bool, sampling: Sampling, stops: set[int]
) -> None:
    logits = logits_of(seed, ties, torch.bfloat16)
    places = torch.arange(len(logits)).repeat_interleave(3)
    tokens = torch.randint(VOCABULARY, places.shape, generator=torch.Generator().manual_seed(seed))
    stop_ids = torch.tensor(sorted(stops | {0}))
    chosen, stopped = sampling.score(logits, places, tokens, stop_ids)
    whole = warped(sampling, logits)
    torch.testing.assert_close(chosen, whole[places, tokens])
    torch.testing.assert_close(stopped, whole[:, stop_ids].logsumexp(-1))


def test_long_batches_are_cut_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instil.probe.sampling._CHUNK", 5 * VOCABULARY)
    logits = logits_of(1, True, torch.float32, rows=23)
    places = torch.tensor([0, 0, 4, 5, 5, 9, 10, 22, 22])
    tokens = torch.arange(len(places))
    stops = torch.tensor([3, 7])
    chosen, stopped = Sampling(0.5, 5).score(logits, places, tokens, stops)
    whole = warped(Sampling(0.5, 5), logits)
    torch.testing.assert_close(chosen, whole[places, tokens])
    torch.testing.assert_close(stopped, whole[:, stops].logsumexp(-1))
