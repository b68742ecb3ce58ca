"""`probe`: a mastery map of facts, written as it grows and resumed where it stopped, by one process or several."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.facts import Fact, FactSet
from instil.files import alone_in, sweep
from instil.probe.asking import BLOCK, Asker, ask
from instil.probe.config import PROTOCOL, ProbeConfig
from instil.probe.exemplars import ExemplarSets, exemplar_sets
from instil.probe.figures import Figures, summary
from instil.probe.mastery import Mastery, MasteryMap
from instil.probe.mastery_rows import table_of
from instil.probe.memory import LOGITS, Limits, peak_memory_mb
from instil.probe.questions import Question, questions_of
from instil.probe.ranks import Meeting, Ranks
from instil.probe.shards import Halving, Shards

if TYPE_CHECKING:
    from instil.model import LanguageModel

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def probe(
    lm: LanguageModel,
    facts: FactSet,
    exemplars: FactSet | ExemplarSets | None = None,
    config: ProbeConfig = PROTOCOL,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    meter: Any = None,
    progress: Progress | None = None,
    checking: Progress | None = None,
    ranks: Ranks | None = None,
) -> MasteryMap:
    """Ask every fact and say how well it is known.

    Args:
        exemplars: exemplar sets, or the facts to draw them from. By default the facts of role exemplar, and where there
            are none, all: a fact never stands in its own prompt.
        out: a new or empty folder for `mastery.parquet` and `summary.json`. Parts are written there on the way, and
            the map that is returned leaves its rows in the file. Without it all rows are held in memory.
        resume: go on with an unfinished probe in `out`; a finished one is returned as it is.
        meter: counts the operations under the purpose "deciding".
        progress: is told (facts done, facts in all).
        checking: is told the same while the questions are checked, before anything is computed.
        ranks: with `out`, which of how many processes this one is; each computes a share, and all return the whole.
            By default what `torchrun` or `accelerate launch` say, so every one of their processes must call.

    Raises:
        InputError: there are no facts; a question is longer than the context window; `out` holds another run, or was
            made from another model, other facts, exemplars or settings. Nothing is left behind then.
        RunFailed: there is no memory for a single question; another process failed.
    """
    if not len(facts):
        raise InputError("there is nothing to probe", expected="at least one fact")
    sets = exemplar_sets(facts, exemplars, config)
    for line in sets.warnings:
        warnings.warn(line, stacklevel=2)
    tell, check = _rising(progress), checking or _nobody
    if out is None:
        return MasteryMap(_rows(lm, facts, sets, config, meter, tell), warnings=sets.warnings)
    return _Run(lm, facts, sets, config, Path(out), meter, tell, check, ranks or Ranks.here()).to_the_end(resume)


def _nobody(done: int, total: int) -> None:
    return None


def _rising(progress: Progress | None) -> Progress:
    """Tells only what is more than was told before."""
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done > told and progress is not None:
            told = done
            progress(done, total)

    return tell


def _rows(
    lm: LanguageModel, facts: FactSet, sets: ExemplarSets, config: ProbeConfig, meter: Any, progress: Progress
) -> Iterator[Mastery]:
    questions = questions_of(facts)
    asked = ask(lm, questions, sets, config, meter=meter, progress=progress)
    for question, answer in zip(questions, asked, strict=True):
        yield Mastery.of(question, answer)


@dataclass(frozen=True)
class _Run:
    """A probe that keeps its parts in a folder. Rank 0 begins and ends it; each rank computes a share of the parts."""

    lm: LanguageModel
    facts: FactSet
    sets: ExemplarSets
    config: ProbeConfig
    out: Path
    meter: Any
    progress: Progress
    checking: Progress
    ranks: Ranks

    def to_the_end(self, resume: bool) -> MasteryMap:
        started = datetime.now(UTC)
        with Meeting(self.out, self.ranks) as meeting, alone_in(self.out) if self.ranks.first else nullcontext():
            task = meeting.agree(lambda: self._begin(resume))
            if not task["finished"]:
                begin = time.perf_counter()
                self._compute(task, meeting)
                computed = sum(map(self._size, task["missing"]))
                meeting.conclude(self._complete, lambda: self._finish(started, time.perf_counter() - begin, computed))
        return MasteryMap.open(self._shards.map, warnings=self.sets.warnings)

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.out, BLOCK)

    @cached_property
    def _asker(self) -> Asker:
        return Asker(self.lm, self.sets, self.config, meter=self.meter)

    @cached_property
    def _plan(self) -> dict[str, Any]:
        """What the rows depend on."""
        return {
            "model": self.lm.fingerprint,
            "facts": self.facts.fingerprint,
            "exemplars": self.sets.fingerprint,
            "config": self.config.model_dump(mode="json"),
            "facts_in_a_part": BLOCK,
        }

    def _batches(self) -> dict[str, Any]:
        """What their rounding depends on besides. Settles how rows are computed."""
        import torch

        # Always the first facts, whichever part is computed first: every process and every resume settles alike.
        if not self._asker.way:
            self._asker.settle(self._asker.prepared(self._questions(0)))
        return {
            "way": self._asker.way,
            "batch_tokens": self.config.batch_tokens,
            "batch_logits": LOGITS,
            "device": self.lm.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def _begin(self, resume: bool) -> dict[str, Any]:
        """What there is to do, with the folder ready for it. Raises InputError before anything is written."""
        state = self._shards.state(self._plan, resume)
        if state == "new":
            self._asker.check(map(_question, self.facts), lambda done: self.checking(done, len(self.facts)))
            self._shards.begin(self._plan, self._batches())
        sweep(self.out)
        if state == "finished":
            self._shards.refuse_changed()
            self._shards.clear()
            return {"finished": True, "plan": self._plan}
        return {
            "finished": False,
            "plan": self._plan,
            "batches": self._shards.batches(),
            "missing": self._shards.missing(len(self.facts)),
            "halved": [halving.to_dict() for halving in self._shards.halvings()],
        }

    def _compute(self, task: Mapping[str, Any], meeting: Meeting) -> None:
        """Write this rank's share of what is missing. Each part's bits are the same, whoever computes it."""
        self._refuse_to_differ(task["plan"], task["batches"])
        halved = [Halving(**one) for one in task["halved"]]
        self._complete()
        for start in task["missing"][self.ranks.rank :: self.ranks.world]:
            meeting.check()
            self._part(start, halved)

    def _refuse_to_differ(self, plan: Mapping[str, Any], batches: Mapping[str, Any]) -> None:
        if other := [name for name in self._plan if plan[name] != self._plan[name]]:
            raise InputError(f"rank {self.ranks.rank} has other input than rank 0", found=f"other {', '.join(other)}")
        here = self._batches()
        if here["way"] != batches["way"]:
            raise InputError(
                "the rows that are there were computed another way", found=batches["way"], expected=here["way"]
            )
        if other := [f"{name} {batches[name]}, now {here[name]}" for name in here if here[name] != batches[name]]:
            log.warning("rows computed elsewhere may differ by rounding (%s)", "; ".join(other))

    def _part(self, start: int, halved: list[Halving]) -> None:
        def note(limits: Limits, why: str) -> None:
            halving = Halving(start, limits.tokens, limits.logits, self.ranks.rank, why)
            self._shards.note(halving)
            halved.append(halving)

        asker, questions = self._asker, self._questions(start)
        asker.on_halved = note
        for halving in halved:
            if halving.from_fact <= start:
                asker.limits = asker.limits.within(halving.limits)
        before = sum(map(self._size, self._shards.done()))

        def tell(share: float) -> None:
            if self.ranks.first:
                # The part counts as done when it is written.
                self.progress(before + min(int(share * len(questions)), len(questions) - 1), len(self.facts))

        answers = asker.answer(asker.prepared(questions), tell)
        self._shards.write(start, table_of(map(Mastery.of, questions, answers)))
        self._complete()

    def _complete(self) -> bool:
        """Whether all parts are there, of all ranks; rank 0 tells how many facts they hold."""
        done = sum(map(self._size, self._shards.done()))
        if self.ranks.first:
            self.progress(done, len(self.facts))
        return done == len(self.facts)

    def _size(self, start: int) -> int:
        return min(BLOCK, len(self.facts) - start)

    def _questions(self, start: int) -> list[Question]:
        return questions_of(self.facts[start : start + BLOCK])

    def _finish(self, started: datetime, seconds: float, computed: int) -> None:
        figures = Figures(len(self.facts), self.config.samples)
        batches = {**self._shards.batches(), "halved": [one.to_dict() for one in self._shards.halvings()]}
        self._shards.join(
            len(self.facts),
            lambda start: [fact.id for fact in self.facts[start : start + BLOCK]],
            lambda start, table: figures.add(table, self.facts[start : start + BLOCK]),
        )
        cost = {
            "seconds": seconds,
            "facts_computed": computed,
            "facts_per_second": computed / max(seconds, 1e-9),
            "ranks": self.ranks.world,
            "peak_memory_mb": round(peak_memory_mb(), 1),
        }
        described = summary(
            self.lm,
            self.facts,
            figures,
            self._plan,
            batches=batches,
            warnings=self.sets.warnings,
            cost=cost,
            started=started,
        )
        self._shards.finish(described)
        self._shards.clear()


def _question(fact: Fact) -> Question:
    return questions_of([fact])[0]
