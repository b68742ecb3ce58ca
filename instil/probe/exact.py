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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from instil.probe.decoding import WAITING, Decoder, Greedy
from instil.probe.judging import is_right
from instil.probe.memory import LOGITS, Limits
from instil.probe.rows import ROOT, Ids, Row
from instil.probe.runner import Runner
from instil.probe.sampling import Sampling
from instil.probe.walking import TreeScores, Walk, score_trees

if TYPE_CHECKING:
    from instil.model import LanguageModel, Prompts
    from instil.probe.config import ProbeConfig

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
class Sum:
    """Sets of answers to one question whose probabilities are asked for.

    Attributes:
        row: with the answers of all sets as its tree.
        ends: for each set, the nodes at which one of its answers is complete.
    """

    row: Row
    ends: tuple[frozenset[int], ...]


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


@dataclass(eq=False)
class Answered:
    """One job whose tree is walked. It has its outcome once its greedy answer is decoded to its end."""

    job: Job
    scores: TreeScores
    path: Greedy

    @property
    def finished(self) -> bool:
        return self.path.finished


class ExactEngine:
    """Answers batches of jobs by teacher forcing."""

    def __init__(self, lm: LanguageModel, runner: Runner, config: ProbeConfig, limits: Limits | None = None) -> None:
        self._prompts: Prompts = lm.prompts
        self._runner = runner
        self._sampling = Sampling.of(config)
        self._decode = config.decode
        self._decoder = Decoder(lm.prompts.stop_ids)
        self._limits = limits or Limits(config.batch_tokens, LOGITS)

    def answer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One outcome a job."""
        answered, _ = self.compute(jobs, ())
        self.finish()
        return [self.outcome(one) for one in answered]

    def probabilities(self, sums: Sequence[Sum]) -> list[list[float]]:
        """For each of them, the probability of each of its sets of ends."""
        return self.compute((), sums)[1]

    def compute(self, jobs: Sequence[Job], sums: Sequence[Sum]) -> tuple[list[Answered], list[list[float]]]:
        """Answer jobs and compute sums in one batch. A few long answers may stay unfinished until a later one."""
        rows = [job.row for job in jobs] + [one.row for one in sums]
        if not rows:
            return [], []
        rank = {prefix: number for number, prefix in enumerate(dict.fromkeys(row.prefix for row in rows))}
        order = sorted(range(len(rows)), key=lambda index: rank[rows[index].prefix])
        place = {index: number for number, index in enumerate(order)}
        walk = Walk(
            self._sampling,
            self._prompts.stop_ids,
            followed=frozenset(place[index] for index in range(len(jobs))),
            further=self._decode,
        )
        scored = self._runner.score([rows[index] for index in order], keep=self._decode)
        by_place = score_trees(scored, [rows[index] for index in order], walk, self._limits)
        scores = [by_place[place[index]] for index in range(len(rows))]
        answered = [Answered(job, tree, self._follow(job, tree)) for job, tree in zip(jobs, scores, strict=False)]
        if self._decode:
            left = sorted((place[index], one.path) for index, one in enumerate(answered) if not one.finished)
            self._decoder.begin(scored, left)
            self._decoder.run(WAITING)
        sets = zip(scores[len(jobs) :], sums, strict=True)
        return answered, [[tree.probability(ends) for ends in one.ends] for tree, one in sets]

    def finish(self) -> None:
        """Decode what is left to its end."""
        if self._decode:
            self._decoder.run()

    def _follow(self, job: Job, scores: TreeScores) -> Greedy:
        """Walk the tree by the likeliest tokens until one stops the answer or leaves the tree.

        Decoding then goes on from there, so that in low precision it cannot contradict the teacher-forced pass.
        """
        node, tree = ROOT, scores.tree
        tokens: list[int] = []
        while len(tokens) < job.limit:
            token = scores.greedy[node + 1]
            if token < 0:
                raise RuntimeError("greedy decoding came to a node that was not computed")
            if token in self._prompts.stop_ids:
                return Greedy(job.limit, tree.path(node), tokens, stopped=True)
            tokens.append(token)
            child = tree.children.get((node, token))
            if child is None:
                break
            node = child
        return Greedy(job.limit, tree.path(node), tokens)

    def outcome(self, one: Answered) -> Outcome:
        """Of a job whose answer is finished; without decoding, of any."""
        job, path = one.job, one.path
        text = self._prompts.answer_text(path.tokens) + ("" if self._decode or path.stopped else CUT)
        listed = path.stopped and len(path.nodes) == len(path.tokens) and (path.nodes or (ROOT,))[-1] in job.ends
        return Outcome(
            p=one.scores.probability(job.ends),
            right=listed or (path.stopped and is_right(text, job.forms)),
            text=text,
            tokens=tuple(path.tokens),
        )
