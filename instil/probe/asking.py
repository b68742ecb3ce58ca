"""`ask`: the one entry by which the probe and the exam put questions to a model."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from instil.probe.categories import any_of, categorise
from instil.probe.config import PROTOCOL, ProbeConfig
from instil.probe.exact import ExactEngine, Outcome
from instil.probe.preparing import Prepared, Preparer, prior_rows
from instil.probe.questions import Asked, Question
from instil.probe.rows import Row
from instil.probe.runner import Runner, choose_runner
from instil.probe.sampled import SampledEngine

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.probe.exemplars import ExemplarSets

log = logging.getLogger(__name__)

BLOCK = 1024
"""Questions whose rows are sorted together. Bounds the memory; answers come a block at a time, in order."""

LOGITS = 1 << 25
"""Logits that one batch may give."""

T = TypeVar("T")


def ask(
    lm: LanguageModel,
    questions: Sequence[Question],
    exemplars: ExemplarSets,
    config: ProbeConfig = PROTOCOL,
    *,
    meter: Any = None,
    progress: Callable[[int, int], None] | None = None,
    runner: Runner | None = None,
) -> Iterator[Asked]:
    """Ask a model questions behind exemplar sets.

    Args:
        questions: with unique ids.
        exemplars: each question is asked once with every set of its relation, up to `config.exemplar_sets`.
        meter: counts the operations under the purpose "deciding"; nothing is counted without one.
        progress: is told (questions done, questions in all).
        runner: how rows are computed; by default the fast way where the model allows it, else the plain one.

    Returns:
        One `Asked` a question, in the order of `questions`, a block at a time.

    Raises:
        InputError: a question is longer than the context window, or has no usable answer. Raised before anything is
            computed.
    """
    prepare = Preparer(lm, exemplars, config)
    prepared = [prepare(question) for question in questions]
    return _ask(lm, prepared, config, meter, progress or (lambda done, total: None), runner)


def _ask(
    lm: LanguageModel,
    prepared: Sequence[Prepared],
    config: ProbeConfig,
    meter: Any,
    progress: Callable[[int, int], None],
    runner: Runner | None,
) -> Iterator[Asked]:
    if not prepared:
        return
    if runner is None:
        runner = choose_runner(lm, max((job.row for one in prepared[:BLOCK] for job in one.jobs()), key=_cost))
    done = 0
    for block in _blocks(prepared):
        # The meter must not count what the caller does with the model between two answers.
        with contextlib.nullcontext() if meter is None else meter.counting(lm.model, "deciding"):
            answers = list(
                _block(lm, runner, block, config, partial(_report, progress, done, len(block), len(prepared)))
            )
        done += len(block)
        progress(done, len(prepared))
        yield from answers


def _report(progress: Callable[[int, int], None], done: int, block: int, total: int, share: float) -> None:
    progress(done + int(share * block), total)


def _blocks(prepared: Sequence[Prepared]) -> Iterator[Sequence[Prepared]]:
    for start in range(0, len(prepared), BLOCK):
        yield prepared[start : start + BLOCK]


def _block(
    lm: LanguageModel,
    runner: Runner,
    block: Sequence[Prepared],
    config: ProbeConfig,
    progress: Callable[[float], None],
) -> Iterator[Asked]:
    exact = ExactEngine(lm, runner, config)
    engine = exact if config.engine == "exact" else SampledEngine(lm, runner, config)
    width = lm.model.config.get_text_config().vocab_size
    # Outcomes are kept by place and not by id, so that two questions with one id cannot take each other's.
    jobs = list(enumerate(job for one in block for job in one.jobs()))
    outcomes: dict[int, Outcome] = {}
    for batch in batches(jobs, lambda item: item[1].row, config.batch_tokens, width):
        answers = engine.answer([job for _, job in batch])
        outcomes.update(zip((number for number, _ in batch), answers, strict=True))
        progress(len(outcomes) / len(jobs))
    priors: dict[int, list[float]] = {}
    for rows in batches(list(prior_rows(block)), lambda prior: prior.row, config.batch_tokens, width):
        found = exact.probabilities([prior.row for prior in rows], [prior.ends for prior in rows])
        for prior, probabilities in zip(rows, found, strict=True):
            for fact, probability in zip(prior.facts, probabilities, strict=True):
                priors.setdefault(fact, []).append(probability)
    start = 0
    for index, one in enumerate(block):
        own = [outcomes[start + number] for number in range(len(one.prefixes))]
        start += len(own)
        yield _asked(one, own, priors.get(index), config)


def batches(items: Sequence[T], row_of: Callable[[T], Row], tokens: int, vocabulary: int) -> Iterator[list[T]]:
    """Cut into batches of at most `tokens` tokens: rows of one prefix together, shorter ones first.

    Each item is in exactly one batch; a row that is over the limit by itself is a batch of its own.
    """
    rank = {prefix: place for place, prefix in enumerate(dict.fromkeys(row_of(item).prefix for item in items))}
    ordered = sorted(items, key=lambda item: (rank[row_of(item).prefix], len(row_of(item))))
    batch: list[T] = []
    size = scored = 0
    for item in ordered:
        row = row_of(item)
        if batch and (size + len(row) > tokens or (scored + row.scored) * vocabulary > LOGITS):
            yield batch
            batch, size, scored = [], 0, 0
        batch.append(item)
        size, scored = size + len(row), scored + row.scored
    if batch:
        yield batch


def _cost(row: Row) -> int:
    return len(row.prefix) + len(row)


def _asked(one: Prepared, outcomes: Sequence[Outcome], priors: Sequence[float] | None, config: ProbeConfig) -> Asked:
    p_by_set = tuple(outcome.p for outcome in outcomes)
    right = tuple(outcome.right for outcome in outcomes)
    texts = tuple(outcome.text for outcome in outcomes)
    p_any = any_of(p_by_set, config.samples) if config.engine == "exact" else float(any(p_by_set))
    p_greedy = sum(right) / len(right)
    return Asked(
        question_id=one.question.id,
        fact_id=one.question.fact_id,
        category=categorise(p_greedy, p_any),
        p_greedy=p_greedy,
        p_sampled=sum(p_by_set) / len(p_by_set),
        p_any=p_any,
        p_prior=None if priors is None else sum(priors) / len(priors),
        gold_in_prompt=any(one.gold),
        greedy_answer=Counter(texts).most_common(1)[0][0],
        greedy_right_by_set=right,
        p_by_set=p_by_set,
        greedy_answer_by_set=texts,
        gold_in_prompt_by_set=one.gold,
    )
