"""From questions and exemplars to jobs: token ids, answer trees, and the refusal of what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from instil.errors import InputError
from instil.probe.exact import Job, Sum
from instil.probe.judging import form
from instil.probe.questions import Question, without_subject
from instil.probe.rows import Answers, Ids, Row, Tree
from instil.probe.spellings import other_spellings, with_spellings

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.probe.config import ProbeConfig
    from instil.probe.exemplars import ExemplarSet, ExemplarSets

PRIOR_NODES = 128
"""Answer tokens that share one question without its subject; more of them only pad its neighbours' attention."""


@dataclass(frozen=True)
class Prepared:
    """A question, ready to be computed.

    Attributes:
        prefixes: for each exemplar set.
        question_ids: the same behind every prefix.
        withheld_ids: the question without its subject, or None.
        gold: for each exemplar set, whether an exemplar has a right answer.
    """

    question: Question
    prefixes: tuple[Ids, ...]
    question_ids: Ids
    withheld_ids: Ids | None
    answers: Answers
    forms: frozenset[str]
    limit: int
    gold: tuple[bool, ...]

    def jobs(self) -> Iterator[Job]:
        return (self.job(index, self.answers.tree) for index in range(len(self.prefixes)))

    def job(self, index: int, tree: Tree) -> Job:
        """Behind one of the prefixes, with the answers' tree as it is or grown by guesses."""
        row = Row(self.prefixes[index], self.question_ids, tree, len(tree) - len(self.answers.tree))
        return Job(row, self.answers.ends, self.forms, self.limit, f"{self.question.id}:{index}")


class Preparer:
    """Prepares questions for one model, one collection of exemplar sets and one config."""

    def __init__(self, lm: LanguageModel, exemplars: ExemplarSets, config: ProbeConfig) -> None:
        self._prompts = lm.prompts
        self._window = lm.context_window
        self._exemplars = exemplars
        self._config = config
        self._prefix = lru_cache(maxsize=1 << 12)(self._prefix_ids)

    def __call__(self, question: Question) -> Prepared:
        """Raises InputError when the question has no usable answer, or is longer than the context window."""
        prompts = self._prompts
        sets = self._exemplars.for_question(question)[: self._config.exemplar_sets]
        listed = Answers.of(map(prompts.answer_ids, question.answers), prompts.tails, prompts.stop_ids)
        if not listed.ends:
            found = repr(question.answers)[:80]
            raise InputError("no answer that could be generated", field=question.fact_id, found=found)
        prefixes = tuple(map(self._prefix, sets))
        question_ids = prompts.question_ids(question.text)
        longest = max(map(len, prefixes)) + len(question_ids)
        if longest + listed.longest > self._window:
            raise InputError(
                "the question is longer than the context window",
                field=question.fact_id,
                found=f"{longest + listed.longest} tokens with exemplars and answer",
                expected=f"at most {self._window}",
            )
        withheld = without_subject(question) if self._config.prior else None
        forms = frozenset(filter(None, map(form, question.answers)))
        limit = min(max(self._config.max_answer_tokens, listed.longest), self._window - longest)
        return Prepared(
            question=question,
            prefixes=prefixes,
            question_ids=question_ids,
            withheld_ids=None if withheld is None else prompts.question_ids(withheld),
            answers=self._spelled(listed, question.answers, forms, limit),
            forms=forms,
            limit=limit,
            gold=tuple(any(form(exemplar.answer) in forms for exemplar in chosen) for chosen in sets),
        )

    def _spelled(self, listed: Answers, answers: Sequence[str], forms: frozenset[str], limit: int) -> Answers:
        if not self._config.spellings:
            return listed
        return with_spellings(listed, other_spellings(self._prompts, answers, forms, limit))

    def _prefix_ids(self, exemplars: ExemplarSet) -> Ids:
        return self._prompts.prefix_ids([(exemplar.question, exemplar.answer) for exemplar in exemplars])


@dataclass(frozen=True)
class PriorRow:
    """One question without its subject, with the answers of all facts that it would ask for.

    Attributes:
        sum: with a set of ends for each fact.
        facts: which of the prepared questions.
    """

    sum: Sum
    facts: tuple[int, ...]


def prior_rows(prepared: Sequence[Prepared]) -> Iterator[PriorRow]:
    """Facts whose questions become the same without their subjects share one row for each prefix."""
    groups: dict[tuple[Ids, Ids], list[int]] = {}
    for index, one in enumerate(prepared):
        if one.withheld_ids is not None:
            for prefix in one.prefixes:
                groups.setdefault((prefix, one.withheld_ids), []).append(index)
    merged: dict[tuple[int, ...], tuple[Tree, tuple[frozenset[int], ...]]] = {}
    for (prefix, question), facts in groups.items():
        for part in _parts(facts, prepared):
            # The same facts come once for each exemplar set of their relation.
            tree, ends = merged.get(part) or merged.setdefault(part, _merged(prepared[fact].answers for fact in part))
            yield PriorRow(Sum(Row(prefix, question, tree), ends), part)


def _merged(answers: Iterable[Answers]) -> tuple[Tree, tuple[frozenset[int], ...]]:
    """One tree of all answers, and the ends that each of them has on it."""
    sequences: list[Ids] = []
    borders = [0]
    for one in answers:
        sequences += one.sequences
        borders.append(len(sequences))
    tree, ends = Tree.of(sequences)
    return tree, tuple(frozenset(ends[start:stop]) for start, stop in pairwise(borders))


def _parts(facts: Iterable[int], prepared: Sequence[Prepared]) -> Iterator[tuple[int, ...]]:
    part: list[int] = []
    nodes = 0
    for fact in facts:
        more = len(prepared[fact].answers.tree)
        if part and nodes + more > PRIOR_NODES:
            yield tuple(part)
            part, nodes = [], 0
        part.append(fact)
        nodes += more
    if part:
        yield tuple(part)
