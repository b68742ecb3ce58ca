"""The exact engine: what greedy decoding answers, and the probability that one sample is a listed answer.

One teacher-forced pass gives both (Hayes et al., arXiv 2410.19482). The probability is exact for the listed answers as
they are tokenised here, each followed by any stop token, at once or behind one full stop. It is a lower bound of the
probability of a *correct* answer, that is of what the sampled engine estimates. What is missing:

- other strings that `instil.answers.normalise` takes for the same (case, article, quotes, punctuation, spaces);
- the same string in other tokens.

With `ProbeConfig.spellings` the likeliest of both are listed too (`instil.probe.spellings`), and the bound is closer;
what is not listed even then stays missing. How much that is, `studies/probe_agreement.py` measures. Greedy answers are
read as text, so nothing is missing there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy
import torch

from instil.probe.judging import is_right
from instil.probe.rows import ROOT, Ids, Row
from instil.probe.runner import Runner, Scored
from instil.probe.sampling import Sampling, likeliest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instil.model import LanguageModel, Prompts
    from instil.probe.config import ProbeConfig

COMPACT_BELOW = 0.7
"""Rows that are still being decoded, of those in memory, below which the finished ones are dropped."""


CUT = "…"
"""Behind the beginning of an answer that was not written out."""


@dataclass(frozen=True)
class Job:
    """One question behind one exemplar set.

    Attributes:
        row: with the listed answers as its tree.
        ends: nodes at which a listed answer is complete.
        forms: the normalised right answers.
        limit: tokens that a decoded answer may have, its stop with it.
        key: names the job, for the seed of its samples.
    """

    row: Row
    ends: frozenset[int]
    forms: frozenset[str]
    limit: int
    key: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one job came to.

    Attributes:
        p: probability that one sample is right (sampled engine: share of the samples).
        right: whether the greedy answer is right.
        text: the greedy answer.
        tokens: the same, without its stop, as far as it was written out; the sampled engine does not say.
    """

    p: float
    right: bool
    text: str
    tokens: Ids = ()


@dataclass
class TreeScores:
    """Figures of one row; index 0 is the question's end, index n + 1 is node n.

    Attributes:
        greedy: the likeliest token at each place.
        reach: log-probability that a sample passes each place; -inf for guessed nodes, of which it is not asked.
        stop: log-probability that it stops there, having come there; -inf where it cannot come.
    """

    greedy: list[int]
    reach: list[float]
    stop: list[float]

    def probability(self, ends: Iterable[int]) -> float:
        """That a sample ends at one of these nodes. Nodes are distinct sequences, so nothing is counted twice."""
        return min(1.0, math.fsum(math.exp(self.reach[end + 1] + self.stop[end + 1]) for end in ends))


def score_trees(scored: Scored, rows: Sequence[Row], sampling: Sampling, stop_ids: frozenset[int]) -> list[TreeScores]:
    """Reduce the logits of a batch to the figures of its trees.

    The trees are walked level by level, and only where a sample can come to: behind a token that top-k or top-p cuts
    off there is nothing to compute, and most wrong answers are cut off at their first token.
    """
    device = scored.logits.device
    starts = numpy.cumsum([0, *(row.scored for row in rows)])
    parents, children, tokens = _edges(rows, starts)
    order = numpy.argsort(parents, kind="stable")
    parents, children, tokens = parents[order], children[order], tokens[order]
    stops = torch.tensor(sorted(stop_ids), device=device)
    reach, stop = numpy.full((2, starts[-1]), -math.inf)
    level = starts[:-1]
    reach[level] = 0.0
    while len(level):
        edges = numpy.flatnonzero(numpy.isin(parents, level, kind="table"))
        edges_P, stop_N = sampling.score(
            scored.logits,
            torch.from_numpy(numpy.searchsorted(level, parents[edges])).to(device),
            torch.from_numpy(tokens[edges]).to(device),
            stops,
            torch.from_numpy(level).to(device),
        )
        stop[level] = stop_N.double().cpu().numpy()
        reach[children[edges]] = reach[parents[edges]] + edges_P.double().cpu().numpy()
        level = numpy.sort(children[edges][reach[children[edges]] > -math.inf])
    greedy, reached, stopped = likeliest(scored.logits), reach.tolist(), stop.tolist()
    spans = (slice(start, end) for start, end in pairwise(starts.tolist()))
    return [TreeScores(greedy[span], reached[span], stopped[span]) for span in spans]


def _edges(
    rows: Sequence[Row], starts: NDArray[numpy.int64]
) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64], NDArray[numpy.int64]]:
    """For each node of all trees that is no guess, where its parent and where itself is scored, and its token."""
    sizes = numpy.array([len(row.tree) - row.guessed for row in rows])
    first = numpy.repeat(starts[:-1] + 1, sizes)
    parents, tokens = (
        numpy.fromiter(
            (value for row, size in zip(rows, sizes, strict=True) for value in getattr(row.tree, name)[:size]),
            dtype=numpy.int64,
        )
        for name in ("parents", "tokens")
    )
    places = first + numpy.arange(len(first)) - numpy.repeat(numpy.cumsum(sizes) - sizes, sizes)
    return first + parents, places, tokens


@dataclass
class _Greedy:
    """A greedy answer that left the tree and has to be decoded."""

    job: int
    nodes: Ids
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False


class ExactEngine:
    """Answers batches of jobs by teacher forcing."""

    def __init__(self, lm: LanguageModel, runner: Runner, config: ProbeConfig) -> None:
        self._prompts: Prompts = lm.prompts
        self._runner = runner
        self._sampling = Sampling.of(config)
        self._decode = config.decode

    def answer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One outcome a job. Jobs with one prefix stand together."""
        rows = [job.row for job in jobs]
        scored = self._runner.score(rows, keep=self._decode)
        scores = score_trees(scored, rows, self._sampling, self._prompts.stop_ids)
        paths = [self._follow(index, job, tree) for index, (job, tree) in enumerate(zip(jobs, scores, strict=True))]
        if self._decode:
            decode_greedily(scored, [path for path in paths if not path.stopped], jobs, self._prompts.stop_ids)
        return [self._outcome(*parts) for parts in zip(jobs, scores, paths, strict=True)]

    def probabilities(self, rows: Sequence[Row], ends: Sequence[Sequence[frozenset[int]]]) -> list[list[float]]:
        """For each row, the probability of each of several sets of ends on its tree."""
        scored = self._runner.score(rows, keep=False)
        scores = score_trees(scored, rows, self._sampling, self._prompts.stop_ids)
        return [[tree.probability(one) for one in sets] for tree, sets in zip(scores, ends, strict=True)]

    def _follow(self, index: int, job: Job, scores: TreeScores) -> _Greedy:
        """Walk the tree by the likeliest tokens until one stops the answer or leaves the tree.

        Decoding then goes on from there, so that in low precision it cannot contradict the teacher-forced pass.
        """
        node, tree = ROOT, job.row.tree
        tokens: list[int] = []
        while len(tokens) < job.limit:
            token = scores.greedy[node + 1]
            if token in self._prompts.stop_ids:
                return _Greedy(index, tree.path(node), tokens, stopped=True)
            tokens.append(token)
            child = tree.children.get((node, token))
            if child is None:
                break
            node = child
        return _Greedy(index, tree.path(node), tokens)

    def _outcome(self, job: Job, scores: TreeScores, path: _Greedy) -> Outcome:
        text = self._prompts.answer_text(path.tokens) + ("" if self._decode or path.stopped else CUT)
        listed = path.stopped and len(path.nodes) == len(path.tokens) and (path.nodes or (ROOT,))[-1] in job.ends
        return Outcome(
            p=scores.probability(job.ends),
            right=listed or (path.stopped and is_right(text, job.forms)),
            text=text,
            tokens=tuple(path.tokens),
        )


def decode_greedily(scored: Scored, paths: Sequence[_Greedy], jobs: Sequence[Job], stop_ids: frozenset[int]) -> None:
    """Extend each path by the likeliest token until a stop token or its job's limit; all at once."""
    running = [path for path in paths if len(path.tokens) < jobs[path.job].limit]
    if not running:
        return
    room = max(jobs[path.job].limit - len(path.nodes) for path in running)
    session = scored.resume([(path.job, path.nodes) for path in running], room)
    unfinished = len(running)
    while unfinished:
        if unfinished < COMPACT_BELOW * len(running):
            kept = [slot for slot, path in enumerate(running) if _goes_on(path, jobs)]
            session.select(kept)
            running = [running[slot] for slot in kept]
        following = likeliest(session.step([path.tokens[-1] for path in running]))
        for path, token in zip(running, following, strict=True):
            if not _goes_on(path, jobs):
                continue
            if token in stop_ids:
                path.stopped = True
            else:
                path.tokens.append(token)
        unfinished = sum(_goes_on(path, jobs) for path in running)


def _goes_on(path: _Greedy, jobs: Sequence[Job]) -> bool:
    return not path.stopped and len(path.tokens) < jobs[path.job].limit
