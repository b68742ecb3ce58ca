"""The sampled engine: the published protocol, one greedy answer and `samples` sampled ones a prompt.

It is the audit of the exact engine. Samples of one prompt that begin alike are computed once: a beginning is kept with
the number of samples that share it, and its next tokens are drawn together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from instil.files import fingerprint
from instil.probe.exact import Job, Outcome
from instil.probe.judging import is_right
from instil.probe.rows import Ids, Row, Tree
from instil.probe.sampling import Sampling, likeliest

if TYPE_CHECKING:
    from torch import Tensor

    from instil.model import LanguageModel
    from instil.probe.config import ProbeConfig
    from instil.probe.runner import Runner


@dataclass(frozen=True)
class Ending:
    """How some of the answers to one job came out.

    Attributes:
        tokens: of the answer, without its stop.
        count: samples that are this answer; 0 for a greedy answer that was never sampled.
        greedy: whether the greedy answer is this one.
        stopped: False when the limit was reached before a stop token.
    """

    tokens: Ids
    count: int
    greedy: bool
    stopped: bool


@dataclass(frozen=True)
class _Beginning:
    """What some answers of one job have in common so far.

    Attributes:
        count: samples that begin so.
        greedy: whether the greedy answer does.
        slot: its row in the session.
    """

    job: int
    tokens: Ids
    count: int
    greedy: bool
    slot: int


class SampledEngine:
    """Answers batches of jobs by sampling. Every job has a random stream of its own: batches do not matter."""

    def __init__(self, lm: LanguageModel, runner: Runner, config: ProbeConfig) -> None:
        self._prompts = lm.prompts
        self._runner = runner
        self._sampling = Sampling.of(config)
        self._samples = config.samples
        self._seed = config.seed

    def answer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One outcome a job. Jobs with one prefix stand together."""
        return [self._outcome(job, found) for job, found in zip(jobs, self.endings(jobs), strict=True)]

    def endings(self, jobs: Sequence[Job]) -> list[list[Ending]]:
        """For each job its distinct answers; their counts add up to `samples`. Jobs with one prefix stand together."""
        scored = self._runner.score([Row(job.row.prefix, job.row.question, Tree((), ())) for job in jobs])
        streams = [self._stream(job) for job in jobs]
        ended: list[list[Ending]] = [[] for _ in jobs]
        live = [_Beginning(index, (), self._samples, True, index) for index in range(len(jobs))]
        live = self._grown(live, scored.logits, streams, jobs, ended)
        if live:
            session = scored.resume([(one.job, ()) for one in live])
        while live:
            logits = session.step([one.tokens[-1] for one in live])
            live = self._grown([replace(one, slot=slot) for slot, one in enumerate(live)], logits, streams, jobs, ended)
            if live:
                session.select([one.slot for one in live])
        return ended

    def _stream(self, job: Job) -> torch.Generator:
        seed = int(fingerprint([str(self._seed), job.key]), 16) >> 1
        return torch.Generator().manual_seed(seed)

    def _grown(
        self,
        live: Sequence[_Beginning],
        logits_BV: Tensor,
        streams: Sequence[torch.Generator],
        jobs: Sequence[Job],
        ended: list[list[Ending]],
    ) -> list[_Beginning]:
        """Draw the next token of every sample; what stops, or has reached its limit, goes to `ended`."""
        probabilities_BV = self._sampling.log_probabilities(logits_BV).exp().cpu()
        grown = []
        for one, chances_V, top in zip(live, probabilities_BV, likeliest(logits_BV), strict=True):
            drawn: Counter[int] = Counter()
            if one.count:
                draws = torch.multinomial(chances_V, one.count, replacement=True, generator=streams[one.job])
                drawn.update(draws.tolist())
            for token in sorted({*drawn, top} if one.greedy else drawn):
                greedy = one.greedy and token == top
                if token in self._prompts.stop_ids:
                    ended[one.job].append(Ending(one.tokens, drawn[token], greedy, stopped=True))
                    continue
                longer = replace(one, tokens=(*one.tokens, token), count=drawn[token], greedy=greedy)
                if len(longer.tokens) < jobs[one.job].limit:
                    grown.append(longer)
                else:
                    ended[one.job].append(Ending(longer.tokens, longer.count, greedy, stopped=False))
        return grown

    def _outcome(self, job: Job, ended: Sequence[Ending]) -> Outcome:
        """An answer that never stopped is not right."""
        texts = [(one, self._prompts.answer_text(one.tokens)) for one in ended]
        right = [one for one, text in texts if one.stopped and is_right(text, job.forms)]
        return Outcome(
            p=sum(one.count for one in right) / self._samples,
            right=any(one.greedy for one in right),
            text=next(text for one, text in texts if one.greedy),
        )
