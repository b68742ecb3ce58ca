"""`ask`: the one entry by which the probe and the exam put questions to a model."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from instil.errors import RunFailed
from instil.probe.categories import any_of, categorise
from instil.probe.config import PROTOCOL, ProbeConfig
from instil.probe.exact import Answered, ExactEngine, Job, Outcome
from instil.probe.leads import Leads
from instil.probe.memory import LOGITS, Limits, is_out_of_memory, release
from instil.probe.preparing import Prepared, Preparer, PriorRow, prior_rows
from instil.probe.questions import Asked, Question
from instil.probe.rows import Ids, Row, Tree
from instil.probe.runner import Runner, choose_runner
from instil.probe.sampled import SampledEngine

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.probe.exemplars import ExemplarSets

log = logging.getLogger(__name__)

BLOCK = 1024
"""Questions whose rows are sorted together. Bounds the memory; answers come a block at a time, in order."""

GUESSED = 32
"""Tokens of wrong answers, decoded behind other prefixes, from which on no more are followed behind the next one."""

Place = tuple[int, int]
"""A question of a block, and which of its exemplar sets."""

Item = tuple[Place, Job] | PriorRow
"""What has a row."""

Halved = Callable[[Limits, str], None]
"""Is told what a batch may hold from now on, and what the machine said."""

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
        One `Asked` a question, in the order of `questions`, a block at a time. Only one block is ever prepared.

    Raises:
        InputError: a question is longer than the context window, or has no usable answer. Raised before anything is
            computed.
        RunFailed: there is no memory for a single question.
    """
    asker = Asker(lm, exemplars, config, meter=meter, runner=runner)
    if len(questions) > BLOCK:
        asker.check(questions)
    first = asker.prepared(questions[:BLOCK])
    return _ask(asker, first, questions, progress or (lambda done, total: None))


def _ask(
    asker: Asker, block: Sequence[Prepared], questions: Sequence[Question], progress: Callable[[int, int], None]
) -> Iterator[Asked]:
    if not block:
        return
    asker.settle(block)
    done, total = 0, len(questions)
    while block:
        answers = asker.answer(block, partial(_report, progress, done, len(block), total))
        done += len(block)
        progress(done, total)
        yield from answers
        block = asker.prepared(questions[done : done + BLOCK])


def _report(progress: Callable[[int, int], None], done: int, block: int, total: int, share: float) -> None:
    progress(done + int(share * block), total)


class Asker:
    """Answers blocks of questions. A block's answers depend on the block, the limits and the way, and on nothing else:
    whatever was computed before, in this process or another, the bits are the same.

    Attributes:
        limits: what one batch may hold. Lowered when memory runs out, and never raised again.
        on_halved: is told when they are lowered, before anything is computed under the lower ones.
        way: the name of the runner, once it is settled.
    """

    def __init__(
        self,
        lm: LanguageModel,
        exemplars: ExemplarSets,
        config: ProbeConfig,
        *,
        meter: Any = None,
        runner: Runner | None = None,
    ) -> None:
        self._lm, self._config, self._meter = lm, config, meter
        self._prepare = Preparer(lm, exemplars, config)
        self._given = runner
        self._chosen: Callable[[], Runner] | None = None if runner is None else lambda: runner
        self.limits = Limits(config.batch_tokens, LOGITS)
        self.on_halved: Halved = lambda limits, why: None
        self.way = "" if runner is None else runner.name

    def check(self, questions: Iterable[Question], progress: Callable[[int], None] = lambda done: None) -> None:
        """Prepare every question, keeping none.

        Raises:
            InputError: a question is longer than the context window, or has no usable answer.
        """
        for number, question in enumerate(questions, start=1):
            self._prepare(question)
            if number % BLOCK == 0:
                progress(number)

    def prepared(self, questions: Iterable[Question]) -> list[Prepared]:
        return [self._prepare(question) for question in questions]

    def settle(self, block: Sequence[Prepared]) -> None:
        """Choose how rows are computed, by trying the longest row of a block."""
        if self._chosen is not None:
            return
        row = max((job.row for one in block for job in one.jobs()), key=_cost)
        try:
            kind, self.way = _kind(choose_runner(self._lm, row))
        except Exception as fault:
            if is_out_of_memory(fault):
                raise _no_memory(len(row.prefix) + len(row)) from fault
            raise
        self._chosen = lambda: kind(self._lm)

    def answer(self, block: Sequence[Prepared], progress: Callable[[float], None] = lambda share: None) -> list[Asked]:
        """The answers to one block, in order. Out of memory, the block is begun again with smaller batches.

        Args:
            progress: is told the share of the block that is done; it never falls.

        Raises:
            RunFailed: there is no memory for a single question.
        """
        assert self._chosen is not None, "settle first"
        best = 0.0

        def tell(share: float) -> None:
            nonlocal best
            best = max(best, share)
            progress(best)

        while True:
            # A runner of its own for each block: what it kept from an earlier one would change the rounding.
            work = _Block(self._lm, self._chosen(), block, self._config, self.limits, tell)
            try:
                # The meter must not count what the caller does with the model between two answers.
                with (
                    contextlib.nullcontext()
                    if self._meter is None
                    else self._meter.counting(self._lm.model, "deciding")
                ):
                    return work.answers()
            except Exception as fault:
                if not (work.batch and is_out_of_memory(fault)):
                    raise
                if len(work.batch) == 1:
                    raise _no_memory(sum(map(_cost, work.batch))) from fault
                why = (str(fault).strip() or type(fault).__name__).splitlines()[0]
            self._halve(work.batch, why)
            del work
            release()

    def _halve(self, batch: Sequence[Row], why: str) -> None:
        asked = sum(len(row.question) for row in batch)
        self.limits = self.limits.halved(asked, len(batch) * _vocabulary(self._lm))
        log.warning("out of memory: batches of at most %d tokens from here on (%s)", self.limits.tokens, why)
        self.on_halved(self.limits, why)


def _kind(runner: Runner) -> tuple[Callable[[LanguageModel], Runner], str]:
    return type(runner), runner.name


def _no_memory(tokens: int) -> RunFailed:
    return RunFailed(
        f"out of memory with a single question of {tokens:,} tokens, its exemplars with it: ask with fewer shots"
    )


class _Block:
    """One attempt at one block.

    Attributes:
        batch: the rows that are computed at the moment.
    """

    def __init__(
        self,
        lm: LanguageModel,
        runner: Runner,
        block: Sequence[Prepared],
        config: ProbeConfig,
        limits: Limits,
        progress: Callable[[float], None],
    ) -> None:
        self._lm, self._runner, self._block, self._config = lm, runner, block, config
        self._limits, self._progress = limits, progress
        self._exact = ExactEngine(lm, runner, config, limits)
        self._sampled = SampledEngine(lm, runner, config) if config.engine == "sampled" else None
        self._jobs = sum(len(one.prefixes) for one in block)
        # By place and not by id, so that two questions with one id cannot take each other's.
        self._outcomes: dict[Place, Outcome] = {}
        self._waiting: list[tuple[Place, Answered]] = []
        self._priors: dict[int, list[float]] = {}
        self._trees = [one.answers.tree for one in block]
        self._priors_of: dict[Ids, list[PriorRow]] = {}
        for prior in prior_rows(block):
            self._priors_of.setdefault(prior.sum.row.prefix, []).append(prior)
        self._led = Leads(self._asked_for())
        self.batch: Sequence[Row] = ()

    def answers(self) -> list[Asked]:
        for places in self._waves():
            jobs = [(place, self._job(place)) for place in places]
            self._runner.expect(list(dict.fromkeys(job.row.prefix for _, job in jobs)), self._limits.tokens // 2)
            self._ask(jobs, self._priors_beside(places))
        self._exact.finish()
        self._settle()
        if self._priors_of:
            raise RuntimeError(f"{len(self._priors_of)} prefixes of priors were never asked for")
        return [
            _asked(
                one,
                [self._outcomes[index, number] for number in range(len(one.prefixes))],
                self._priors.get(index),
                self._config,
            )
            for index, one in enumerate(self._block)
        ]

    def _asked_for(self) -> Iterator[tuple[Ids, Ids]]:
        """Every prefix and question of the block."""
        for one in self._block:
            for prefix in one.prefixes:
                yield prefix, one.question_ids
        for prefix, priors in self._priors_of.items():
            for prior in priors:
                yield prefix, prior.sum.row.question

    def _waves(self) -> Iterator[list[Place]]:
        """Jobs that are computed together: where answers are decoded, those of as few exemplar sets as fill a batch.

        A wrong answer that was decoded behind one prefix is often the one behind the next, and to follow it costs less
        than to decode it again: what one wave decoded, the next ones follow.
        """
        together = sets = max(len(one.prefixes) for one in self._block)
        if self._sampled is None and self._config.decode:
            one_set = sum(len(self._job((index, 0)).row.question) for index in range(len(self._block)))
            together = max(1, self._limits.tokens // one_set)
        for start in range(0, sets, together):
            yield [
                (index, number)
                for index, one in enumerate(self._block)
                for number in range(start, min(start + together, len(one.prefixes)))
            ]

    def _job(self, place: Place) -> Job:
        index, number = place
        job = self._block[index].job(number, self._trees[index])
        return replace(job, row=self._led(job.row))

    def _priors_beside(self, places: Sequence[Place]) -> list[PriorRow]:
        """Those behind the prefixes of jobs, each once in the block."""
        prefixes = dict.fromkeys(self._block[index].prefixes[number] for index, number in places)
        priors = [prior for ids in prefixes for prior in self._priors_of.pop(ids, ())]
        return [replace(prior, sum=replace(prior.sum, row=self._led(prior.sum.row))) for prior in priors]

    def _ask(self, jobs: Sequence[tuple[Place, Job]], priors: Sequence[PriorRow]) -> None:
        for batch in self._batches([*jobs, *priors]):
            asked = [item for item in batch if isinstance(item, tuple)]
            beside = [item for item in batch if isinstance(item, PriorRow)]
            if self._sampled is not None and asked:
                outcomes = self._sampled.answer([job for _, job in asked])
                self._outcomes.update(zip((place for place, _ in asked), outcomes, strict=True))
                asked = []
            answered, found = self._exact.compute([job for _, job in asked], [prior.sum for prior in beside])
            self._waiting += zip((place for place, _ in asked), answered, strict=True)
            self._settle()
            for prior, probabilities in zip(beside, found, strict=True):
                for index, probability in zip(prior.facts, probabilities, strict=True):
                    self._priors.setdefault(index, []).append(probability)
            self._progress(len(self._outcomes) / self._jobs)

    def _settle(self) -> None:
        """Take the outcomes of those that are finished."""
        waiting = []
        for place, one in self._waiting:
            if self._config.decode and not one.finished:
                waiting.append((place, one))
                continue
            outcome = self._outcomes[place] = self._exact.outcome(one)
            self._trees[place[0]] = self._grown(place[0], outcome.tokens)
        self._waiting = waiting

    def _grown(self, index: int, answer: Ids) -> Tree:
        tree = self._trees[index]
        full = len(tree) - len(self._block[index].answers.tree) >= GUESSED
        return tree if full or not self._config.decode else tree.grown(answer)

    def _batches(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        width = _vocabulary(self._lm)
        for batch in batches(items, _row_of, self._limits.tokens, width, self._limits.logits):
            self.batch = [_row_of(item) for item in batch]
            yield batch


def _row_of(item: Item) -> Row:
    return item.sum.row if isinstance(item, PriorRow) else item[1].row


def _vocabulary(lm: LanguageModel) -> int:
    return int(lm.model.config.get_text_config().vocab_size)


def batches(
    items: Sequence[T], row_of: Callable[[T], Row], tokens: int, vocabulary: int, logits: int = LOGITS
) -> Iterator[list[T]]:
    """Cut into batches whose questions have at most `tokens` tokens and `logits` logits behind them: rows of one prefix
    together, shorter ones first. How much of their trees is to be computed shows only then.

    Each item is in exactly one batch; a row that is over the limit by itself is a batch of its own.
    """
    rank = {prefix: place for place, prefix in enumerate(dict.fromkeys(row_of(item).prefix for item in items))}
    ordered = sorted(items, key=lambda item: (rank[row_of(item).prefix], len(row_of(item).question)))
    batch: list[T] = []
    size = 0
    for item in ordered:
        asked = len(row_of(item).question)
        if batch and (size + asked > tokens or (len(batch) + 1) * vocabulary > logits):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += asked
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
