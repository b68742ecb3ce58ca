"""The agreement study's two engines on one model's questions, and what the samples of each prompt came to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from instil.facts import FactSet
from instil.probe import Asked, ProbeConfig, ask, draw_exemplars, questions_of

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.probe.exact import Job
    from instil.probe.rows import Ids


class Plan(BaseModel):
    """Sizes and settings; all models share them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    facts: int = Field(default=200, ge=2, description="facts asked of each model")
    calibrated: int = Field(default=80, ge=1, description="of these, drawn to be sampled heavily whatever they are")
    few: int = Field(default=16, ge=1, description="samples a prompt of the published protocol")
    few_runs: tuple[int, ...] = Field(default=(1, 2, 3), description="seeds of independent runs with so many samples")
    first: int = Field(default=300, ge=1, description="samples a prompt that find the facts near the boundary")
    many: int = Field(default=2000, ge=1, description="samples a prompt of what is taken for the truth there")
    surely: float = Field(default=3.29, description="standard errors from the boundary at which `first` samples do")
    seed: int = Field(default=0, description="of the facts drawn, the exemplar sets and the samples of `first`")
    dtype: str = Field(default="float32", description="so that engines are compared and not roundings")
    batch_tokens: int = Field(default=2048, description="of the sampled engine; each token may become many answers")
    probe: dict[str, Any] = Field(default={}, description="settings of the probe that are not the protocol's")


@dataclass(frozen=True)
class Counts:
    """What the samples of one prompt came to.

    Attributes:
        samples: drawn.
        listed: on sequences that the exact engine lists.
        spelled: the same, with other spellings listed too.
        right: on right answers, however written.
        greedy: whether the greedy answer is right.
    """

    samples: int
    listed: int
    spelled: int
    right: int
    greedy: bool


@dataclass
class Bench:
    """One model, its questions and exemplar sets, and both engines on them."""

    lm: LanguageModel
    facts: FactSet
    exemplars: FactSet
    plan: Plan
    unlisted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from instil.probe.preparing import Preparer

        self.config = ProbeConfig(**{"seed": self.plan.seed, "prior": False, **self.plan.probe})
        self.questions = questions_of(self.facts)
        self.sets = draw_exemplars(self.exemplars, self.facts.by_relation, self.config)
        prepare = Preparer(self.lm, self.sets, self.config)
        self.prepared = {question.fact_id: prepare(question) for question in self.questions}
        self.others = {name: self._others(name) for name in self.prepared}

    def _others(self, fact_id: str) -> dict[Ids, str]:
        from instil.probe.spellings import other_spellings

        one = self.prepared[fact_id]
        return other_spellings(self.lm.prompts, one.question.answers, one.forms, one.limit)

    def timed(self, name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 2)
        return result

    def exact(self, **changes: Any) -> dict[str, Asked]:
        config = self.config.model_copy(update=changes)
        return {one.fact_id: one for one in ask(self.lm, self.questions, self.sets, config)}

    def exact_again(self) -> dict[str, Asked]:
        """In the other order and other batches: nothing may depend on either."""
        config = self.config.model_copy(update={"batch_tokens": 1 + self.config.batch_tokens // 3})
        return {one.fact_id: one for one in ask(self.lm, self.questions[::-1], self.sets, config)}

    def by_kind(self) -> dict[str, float]:
        """Mean probability over facts and prompts of what each kind of other spelling adds: exact, not sampled."""
        from instil.probe.asking import batches
        from instil.probe.exact import ExactEngine, Sum
        from instil.probe.rows import Row, Tree
        from instil.probe.shared_runner import SharedRunner
        from instil.probe.spellings import KINDS

        engine = ExactEngine(self.lm, SharedRunner(self.lm), self.config)
        work: list[Sum] = []
        for name, one in self.prepared.items():
            tree, ends = Tree.of(self.others[name])
            kinds = list(self.others[name].values())
            sets = tuple(
                frozenset(end for end, found in zip(ends, kinds, strict=True) if found == kind) for kind in KINDS
            )
            work += [Sum(Row(prefix, one.question_ids, tree), sets) for prefix in one.prefixes]
        totals: Counter[str] = Counter()
        for batch in batches(work, lambda one: one.row, self.config.batch_tokens, self._vocabulary):
            for values in engine.probabilities(batch):
                totals.update(dict(zip(KINDS, values, strict=True)))
        return {kind: totals[kind] / len(work) for kind in KINDS}

    @property
    def _vocabulary(self) -> int:
        return int(self.lm.model.config.get_text_config().vocab_size)

    def sampled(self, fact_ids: Iterable[str], samples: int, seed: int) -> dict[str, list[Counts]]:
        """For each fact the counts of each of its prompts, from one independent run of the sampled engine."""
        from instil.probe.asking import batches
        from instil.probe.sampled import SampledEngine
        from instil.probe.shared_runner import SharedRunner

        config = self.config.model_copy(update={"samples": samples, "seed": seed})
        engine = SampledEngine(self.lm, SharedRunner(self.lm), config)
        jobs = [(name, place, job) for name in fact_ids for place, job in enumerate(self.prepared[name].jobs())]
        found: dict[tuple[str, int], Counts] = {}
        for batch in batches(jobs, lambda item: item[2].row, self.plan.batch_tokens, self._vocabulary):
            for (name, place, job), endings in zip(batch, engine.endings([job for *_, job in batch]), strict=True):
                found[name, place] = self._counts(name, job, endings, samples)
        return {name: [found[name, place] for place in range(len(self.prepared[name].prefixes))] for name in fact_ids}

    def _counts(self, name: str, job: Job, endings: Iterable[Any], samples: int) -> Counts:
        from instil.probe.judging import is_right

        listed, others = set(self.prepared[name].answers.sequences), self.others[name]
        counts = Counts(samples, 0, 0, 0, greedy=False)
        for ending in endings:
            text = self.lm.prompts.answer_text(ending.tokens)
            if not ending.stopped or not is_right(text, job.forms):
                continue
            own, other = ending.tokens in listed, ending.tokens in others
            counts = replace(
                counts,
                listed=counts.listed + ending.count * own,
                spelled=counts.spelled + ending.count * (own or other),
                right=counts.right + ending.count,
                greedy=counts.greedy or ending.greedy,
            )
            if not own and ending.count:
                tokens = "|".join(self.lm.tokenizer.convert_ids_to_tokens(list(ending.tokens)))
                self.unlisted[text, tokens, others.get(ending.tokens, "not listed even then")] += ending.count
        return counts
