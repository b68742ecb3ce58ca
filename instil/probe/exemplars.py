"""Exemplar sets: the worked questions that stand before a question, drawn once and the same for every model state."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any, NamedTuple

from instil.facts import Fact, FactSet, Role
from instil.files import fingerprint
from instil.probe.config import PROTOCOL, ProbeConfig
from instil.probe.questions import Question

FEWEST = 10
"""With fewer exemplar sets than this, facts are mislabelled as Unknown (SliCK, appendix)."""


class Exemplar(NamedTuple):
    """A worked question."""

    question: str
    answer: str
    fact_id: str


ExemplarSet = tuple[Exemplar, ...]


@dataclass(frozen=True)
class ExemplarSets:
    """For each relation ("" for facts without one, and for relations that were not foreseen) its exemplar sets.

    Attributes:
        sets: relation to its sets; every relation has the same number of them.
        warnings: relations that have too few exemplars, in words.
    """

    sets: Mapping[str, tuple[ExemplarSet, ...]]
    warnings: tuple[str, ...] = ()

    def of(self, relation: str | None) -> tuple[ExemplarSet, ...]:
        return self.sets.get(relation or "", self.sets[""])

    def for_question(self, question: Question) -> tuple[ExemplarSet, ...]:
        """The relation's sets; where an exemplar is the question itself, another exemplar of the relation stands in.

        Without another one the set is shorter: a question never stands, answered, in its own prompt.
        """
        sets = self.of(question.relation)
        if not any(_same(exemplar, question) for chosen in sets for exemplar in chosen):
            return sets
        spare = tuple(exemplar for chosen in self.sets[""] for exemplar in chosen)
        return tuple(_without(chosen, question, sets, spare) for chosen in sets)

    def first(self, count: int) -> ExemplarSets:
        """The first `count` sets of each relation."""
        return ExemplarSets({key: sets[:count] for key, sets in self.sets.items()}, self.warnings)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint([json.dumps(self.to_dict()["sets"], ensure_ascii=False, sort_keys=True)])

    def to_dict(self) -> dict[str, Any]:
        sets = {key: [[list(exemplar) for exemplar in chosen] for chosen in sets] for key, sets in self.sets.items()}
        return {"sets": sets, "warnings": list(self.warnings)}

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> ExemplarSets:
        sets = {
            key: tuple(tuple(Exemplar(*exemplar) for exemplar in chosen) for chosen in sets)
            for key, sets in value["sets"].items()
        }
        return ExemplarSets(sets, tuple(value.get("warnings", ())))


def draw_exemplars(
    exemplar_facts: FactSet, relations: Iterable[str | None], config: ProbeConfig = PROTOCOL
) -> ExemplarSets:
    """Draw `exemplar_sets` sets of `shots` exemplars for each relation.

    A relation with enough exemplars gets disjoint sets, one with fewer gets sets that overlap but differ. A relation
    with fewer than `shots` exemplars takes them from all relations instead. Every shortage is in `.warnings`. Each
    relation is drawn by itself, so adding one does not change another, nor does the order of the facts.
    """
    everything = exemplar_facts.in_order_of_ids()
    groups: dict[str, FactSet] = {}
    for relation, own in everything.by_relation.items():
        key = relation or ""  # some facts of one file may have "" for a relation and others none
        groups[key] = (groups[key] + own).in_order_of_ids() if key in groups else own
    sets: dict[str, tuple[ExemplarSet, ...]] = {}
    warnings: list[str] = []
    asked = {relation or "" for relation in relations}
    for key in sorted(asked | {""}):
        own = groups.get(key, FactSet(()))
        pool = own if len(own) >= max(config.shots, 1) else everything
        sets[key] = _draw(pool, config, random.Random(f"{config.seed}:{key}"))
        if key in asked and config.shots:
            warnings += _shortages(key, own, pool, sets[key], config)
    if config.shots and config.exemplar_sets < FEWEST:
        warnings.append(f"{config.exemplar_sets} exemplar sets; {_MISLABELS}")
    return ExemplarSets(sets, tuple(warnings))


def exemplar_sets(
    facts: FactSet, exemplars: FactSet | ExemplarSets | None = None, config: ProbeConfig = PROTOCOL
) -> ExemplarSets:
    """The sets that a probe of `facts` asks with.

    Args:
        exemplars: exemplar sets as they are, or the facts to draw them from. By default the facts of role exemplar, and
            where there are none, all: a fact never stands in its own prompt.
    """
    if isinstance(exemplars, ExemplarSets):
        return exemplars
    pool = exemplars
    if pool is None:
        reserved = facts.with_role(Role.EXEMPLAR)
        pool = reserved if len(reserved) else facts
    return draw_exemplars(pool, facts.by_relation, config)


def _draw(pool: Sequence[Fact], config: ProbeConfig, chance: random.Random) -> tuple[ExemplarSet, ...]:
    count, shots = config.exemplar_sets, min(config.shots, len(pool))
    if shots == 0:
        return ((),) * count
    if count * shots <= len(pool):
        drawn = chance.sample(pool, count * shots)
        return tuple(_worked(drawn[start : start + shots]) for start in range(0, count * shots, shots))
    sets: list[ExemplarSet] = []
    seen: set[frozenset[str]] = set()
    while len(sets) < count:
        drawn = chance.sample(pool, shots)
        chosen = frozenset(fact.id for fact in drawn)
        # When every combination has been used, another order of one is the most that can be varied.
        if chosen not in seen or len(seen) >= comb(len(pool), shots):
            seen.add(chosen)
            sets.append(_worked(drawn))
    return tuple(sets)


def _worked(facts: Iterable[Fact]) -> ExemplarSet:
    return tuple(Exemplar(fact.question, fact.answers[0], fact.id) for fact in facts)


_MISLABELS = f"with fewer than {FEWEST}, known facts are taken for Unknown"


def _shortages(
    key: str, own: Sequence[Fact], pool: Sequence[Fact], sets: Sequence[ExemplarSet], config: ProbeConfig
) -> Iterator[str]:
    """What is wrong with one relation's exemplars, in one line: the gravest."""
    name = f"relation {key}" if key else "facts without a relation"
    distinct = len({frozenset(exemplar.fact_id for exemplar in chosen) for chosen in sets})
    count = f"{len(own)} exemplar{'' if len(own) == 1 else 's'}"
    if len(own) < config.shots:
        rest = f"exemplars of all relations ({len(pool)}) stand in" if pool else "questions are asked without exemplars"
        yield f"{name}: {count}, fewer than the {config.shots} of a prompt; {rest}"
    elif len(own) < FEWEST:
        yield f"{name}: {count}; {_MISLABELS}"
    elif distinct < min(FEWEST, config.exemplar_sets):
        yield f"{name}: {count} make only {distinct} different sets; {_MISLABELS}"


def _same(exemplar: Exemplar, question: Question) -> bool:
    return exemplar.fact_id == question.fact_id or exemplar.question == question.text


def _without(chosen: ExemplarSet, question: Question, sets: Sequence[ExemplarSet], spare: ExemplarSet) -> ExemplarSet:
    if not any(_same(exemplar, question) for exemplar in chosen):
        return chosen
    own = [exemplar for one in sets for exemplar in one]
    # Which of the relation's exemplars stands in differs from question to question; those of others come last.
    turn = int(fingerprint([question.fact_id, *(exemplar.fact_id for exemplar in chosen)]), 16) % len(own)
    others = dict.fromkeys((*own[turn:], *own[:turn], *spare))
    free = iter([exemplar for exemplar in others if exemplar not in chosen and not _same(exemplar, question)])
    kept = (next(free, None) if _same(exemplar, question) else exemplar for exemplar in chosen)
    return tuple(exemplar for exemplar in kept if exemplar is not None)
