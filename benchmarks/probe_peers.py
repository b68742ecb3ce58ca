"""What the probe is compared with, each doing the same requests as well as it can."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.probe_setup import Requests, linear_layers
from benchmarks.probe_timing import finished
from instil.model import LanguageModel
from instil.probe.rows import Ids

# ------------------------------------------------------------- transformers' generate


def generate(requests: Requests, prompts: Sequence[Ids], batch: int) -> int:
    """The published protocol: one greedy answer and `samples` sampled ones for each prompt. Returns prompts done.

    Prompts of like length stand together, left padded. Every stop token is an end token, so generating ends as early
    as it can.
    """
    lm, config = requests.lm, requests.config
    ordered = sorted(prompts, key=len)
    for start in range(0, len(ordered), batch):
        ids, mask = left_padded(ordered[start : start + batch], lm)
        options: dict[str, Any] = {
            "attention_mask": mask,
            "max_new_tokens": config.max_answer_tokens,
            "eos_token_id": sorted(lm.prompts.stop_ids),
            "pad_token_id": pad_id(lm),
        }
        sampling = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
        model: Any = lm.model
        with torch.inference_mode():
            greedy = model.generate(ids, do_sample=False, **options)
            sampled = model.generate(ids, do_sample=True, num_return_sequences=config.samples, **sampling, **options)
        for sequence in (*greedy[:, ids.shape[1] :].tolist(), *sampled[:, ids.shape[1] :].tolist()):
            lm.prompts.answer_text(sequence)
    return len(ordered)


def left_padded(prompts: Sequence[Ids], lm: LanguageModel) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = [[pad_id(lm)] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=lm.device), torch.tensor(mask, device=lm.device)


def pad_id(lm: LanguageModel) -> int:
    tokenizer = lm.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


# ------------------------------------------------------------- lm-eval's loglikelihood


class Harness:
    """lm-eval's Hugging Face model around the same weights. Raises ImportError when lm-eval is not installed."""

    def __init__(self, lm: LanguageModel) -> None:
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        self.version = str(getattr(lm_eval, "__version__", "unknown"))
        self._model: Any = HFLM(
            pretrained=lm.model, tokenizer=lm.tokenizer, device=str(lm.device), batch_size=1, backend="causal"
        )

    def loglikelihood(self, requests: Sequence[tuple[Ids, Ids]], batch: int) -> list[tuple[float, bool]]:
        """For each (context, continuation) its log-probability, and whether greedy decoding gives it.

        The token ids are handed over ready, so that both sides score the same ones and its tokenising is not charged.
        """
        self._model.batch_size_per_gpu = batch
        texts = [("", "")] * len(requests)
        ready = [(text, list(context), list(after)) for text, (context, after) in zip(texts, requests, strict=True)]
        found: list[tuple[float, bool]] = self._model._loglikelihood_tokens(ready, disable_tqdm=True)
        return found


# ------------------------------------------------------------- a plain forward pass


class PlainForward:
    """The model's own forward pass over dense rows of the lengths that the probe computes, with nothing to share.

    Rows are sorted by length and cut into batches, each computed at its mean length, so that no batch is padded; the
    prefixes are rows too, once each. Logits are computed at as many places as the probe scores. A row does not attend
    to a prefix, which is to this contestant's advantage.
    """

    def __init__(self, requests: Requests, batch_tokens: int) -> None:
        self._model: Any = requests.lm.model
        vocabulary = self._model.config.vocab_size
        device, chance = requests.lm.device, torch.Generator().manual_seed(0)
        rows = [(len(row), 1 + len(row.tree)) for row in requests.needed]
        prefixes = [(len(prefix), 0) for prefix in requests.prefixes]
        self._batches: list[tuple[torch.Tensor, int]] = []
        for group in (*dense(rows, batch_tokens), *dense(prefixes, batch_tokens)):
            length = max(1, round(sum(row for row, _ in group) / len(group)))
            ids = torch.randint(0, vocabulary, (len(group), length), generator=chance)
            self._batches.append((ids.to(device), sum(scored for _, scored in group)))
        self.tokens = sum(ids.numel() for ids, _ in self._batches)

    def __call__(self) -> int:
        """One pass; the tokens computed."""
        base, head = self._model.base_model, self._model.get_output_embeddings()
        with torch.inference_mode():
            for ids_RT, scored in self._batches:
                hidden_RTD = base(input_ids=ids_RT, use_cache=False).last_hidden_state
                if scored:
                    head(hidden_RTD.flatten(0, 1)[-scored:])
        return self.tokens


class SquareForward:
    """A plain forward pass over `rows` rows of `length` tokens, logits for none, as a figure to know the machine by."""

    def __init__(self, lm: LanguageModel, rows: int = 32, length: int = 64, times: int = 8) -> None:
        self._model: Any = lm.model
        self._ids = torch.randint(0, lm.model.config.vocab_size, (rows, length), device=lm.device)
        self._times = times

    def __call__(self) -> int:
        with torch.inference_mode():
            for _ in range(self._times):
                self._model.base_model(input_ids=self._ids, use_cache=False)
        return self._times * self._ids.numel()


FEWEST_ROWS = 32


def dense(rows: Sequence[tuple[int, int]], batch_tokens: int) -> Iterator[list[tuple[int, int]]]:
    """Rows of like length, `batch_tokens` tokens or 32 rows at a time, whichever is more; the last ones join in."""
    batch: list[tuple[int, int]] = []
    batches: list[list[tuple[int, int]]] = []
    for row in sorted(rows):
        batch.append(row)
        if len(batch) >= FEWEST_ROWS and sum(length for length, _ in batch) >= batch_tokens:
            batches.append(batch)
            batch = []
    if batch and batches and len(batch) < FEWEST_ROWS:
        batches[-1] += batch
    elif batch:
        batches.append(batch)
    yield from batches


# ------------------------------------------------------------- the machine's matrix products

ROWS = 2048
SQUARE = 2048


def matmul_shapes(lm: LanguageModel) -> list[tuple[int, int, int]]:
    """(rows, in, out) of 2,048 tokens through each of the model's matrices, and of a square product."""
    head = lm.model.get_output_embeddings()
    layers = [*linear_layers(lm), *([] if head is None else [head])]
    found = dict.fromkeys((ROWS, layer.weight.shape[1], layer.weight.shape[0]) for layer in layers)
    return [*found, (SQUARE, SQUARE, SQUARE)]


class MatrixProducts:
    """The rate of `torch.matmul`: for each shape the best of several tries, and of all shapes the best."""

    def __init__(self, lm: LanguageModel, tries: int = 5, seconds: float = 0.05) -> None:
        self._factors = {
            (rows, inner, outer): (
                torch.randn(rows, inner, dtype=lm.dtype, device=lm.device),
                # As a linear layer holds it: transposed in memory.
                torch.randn(outer, inner, dtype=lm.dtype, device=lm.device).t(),
            )
            for rows, inner, outer in matmul_shapes(lm)
        }
        self._tries, self._seconds = tries, seconds
        self.by_shape: dict[str, float] = {}

    def __call__(self) -> float:
        """The best rate over all shapes, operations per second."""
        rates = {shape: self._rate(shape) for shape in self._factors}
        for shape, rate in rates.items():
            name = " x ".join(map(str, shape))
            self.by_shape[name] = max(rate, self.by_shape.get(name, 0.0))
        return max(rates.values())

    def _rate(self, shape: tuple[int, int, int]) -> float:
        left, right = self._factors[shape]
        once = 2.0 * shape[0] * shape[1] * shape[2]
        with torch.inference_mode():
            torch.matmul(left, right)
            return max(once * repeated(lambda: torch.matmul(left, right), self._seconds) for _ in range(self._tries))


def repeated(work: Callable[[], Any], seconds: float) -> float:
    """How often a second `work` can be done, watched for at least `seconds`."""
    begin, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < seconds:
        work()
        finished()
        count += 1
    return count / spent
