"""Documents alone, divided into roles, with the items that an exam asks of them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from instil.errors import InputError
from instil.exam.cloze.elsewhere import elsewhere
from instil.exam.cloze.making import Cloze, Fits, clozes_of, rarity, reframed
from instil.exam.config import CLOZE_KINDS, ClozeConfig, ExamConfig
from instil.facts import Corpus, Document, Fact, FactSet, Role
from instil.facts.splitting import split_corpus
from instil.facts.together import Together
from instil.files import fingerprint
from instil.words import words

RELATIONS: Final = {f"cloze: {kind}": kind for kind in CLOZE_KINDS}
"""Relations of the facts that items are; worked items and the other options of a choice are of the same kind."""

EXEMPLAR_DOCUMENTS, EXEMPLARS_EACH = 8, 16
"""Documents that are reserved for worked items at most, and items that each of them gives at most."""

FEWEST_TO_DIVIDE: Final = 3
"""With fewer documents or passages than this, all are taught."""

TRIED: Final = 3
"""Items made for each that is asked: some are refused when the other documents are looked at."""

UNTAUGHT: Final = {
    Role.HELD_BACK: "held back: asked before and after, never taught",
    Role.EXEMPLAR: "reserved for worked items, never taught",
    Role.DEVELOPMENT: "for development, never taught",
}

PARTS: Final = ("choice",)
"""Of the exam's further parts, what can be asked of cloze items; the others need facts."""

EXAMINED: Final = (Role.TARGET, *UNTAUGHT)

LACKING: Final = {
    Role.EXEMPLAR: "items are asked without worked ones before them",
    Role.HELD_BACK: "what is forgotten or made up about other documents is not measured",
}


@dataclass(frozen=True)
class ClozePlan:
    """What a lesson of documents alone teaches and asks.

    Attributes:
        facts: the items, as facts with roles: the question is the document's own words up to the answer, the one
            paraphrase asks the same about the whole sentence.
        taught: the documents that may be taught: all, or all passages, that are neither held back nor reserved.
        left_out: documents that are not taught, and items that could not be asked, as (what, reason).
        counts: plain numbers for a summary.
    """

    facts: FactSet
    taught: Corpus
    left_out: tuple[tuple[str, str], ...]
    counts: Mapping[str, Any]


def is_cloze(relation: str | None) -> bool:
    """Whether a fact of this relation is an item made from a document."""
    return relation in RELATIONS


def asked_of_items(config: ExamConfig) -> tuple[ExamConfig, tuple[tuple[str, str], ...]]:
    """The settings with the parts that can be asked of cloze items, and the others, as (what, reason)."""
    others = [part.replace("_", " ") for part in config.parts if part not in PARTS]
    note = (("exam parts: " + ", ".join(others), "asked of facts only, not of cloze items"),) if others else ()
    return config.model_copy(update={"parts": tuple(part for part in config.parts if part in PARTS)}), note


def plan_clozes(
    corpus: Corpus,
    *,
    seed: int,
    config: ClozeConfig | None = None,
    fits: Fits = lambda question, answers: True,
) -> ClozePlan:
    """Divide documents into roles, and make the items of an exam from their text; the same for the same seed.

    A document that has a role keeps it. Documents of one subject, and copies, stay together. Where there are fewer than
    `fewest_documents`, all are divided into passages first, which then have the roles.

    Args:
        fits: whether a question with these answers is short enough for the model, worked items before it included.

    Raises:
        InputError: no document yields an item.
    """
    config = config or ClozeConfig()
    units, groups = _units(corpus, config)
    roles = _roles(units, groups, config, seed)
    refused: Counter[str] = Counter()
    found = _found(units, roles, config, seed, fits, refused)
    kept = _kept(found, units, roles, refused)
    chosen = _drawn(kept, roles, config, seed, refused)
    facts = FactSet(_fact(cloze, units.by_id[cloze.document], groups[cloze.document], roles) for cloze in chosen)
    if not len(facts.with_role(Role.TARGET)):
        raise InputError(
            "the documents hold no sentence from which an item can be made",
            field="--documents",
            found=f"{len(units)} texts",
            expected="running text with sentences of at least eight words, or a file of facts",
        )
    return ClozePlan(
        facts=facts,
        taught=units.where(lambda unit: roles[unit.id] not in UNTAUGHT),
        left_out=tuple(_left_out(units, roles, refused, facts)),
        counts=_counts(corpus, units, roles, refused, facts),
    )


# -------------------------------------------------------------------- private


def _units(corpus: Corpus, config: ClozeConfig) -> tuple[Corpus, dict[str, str]]:
    """The documents, or their passages, and the group of each: what must have one role."""
    groups = _groups(corpus, by_subject=True)
    if len(set(groups.values())) >= config.fewest_documents:
        return corpus, groups
    units = split_corpus(corpus, config.passage_words)
    return units, _groups(units, by_subject=False)


def _groups(units: Corpus, *, by_subject: bool) -> dict[str, str]:
    """Id to group. Copies, word for word, are one group with whatever they are copies of."""
    together = Together()
    for unit in units:
        own = f"subject {unit.subject}" if by_subject and unit.subject is not None else f"id {unit.id}"
        together.tie(f"text {fingerprint([' '.join(words(unit.text))])}", own)
        together.tie(f"id {unit.id}", own)
    return {unit.id: together.root(f"id {unit.id}").partition(" ")[2] for unit in units}


def _roles(units: Corpus, groups: Mapping[str, str], config: ClozeConfig, seed: int) -> dict[str, Role]:
    """Id to role: as given, else drawn by group. A group that was given several roles has the one that is taught."""
    given: dict[str, list[Role]] = defaultdict(list)
    for unit in units:
        if unit.role is not None:
            given[groups[unit.id]].append(unit.role)
    role_of = {group: Role.TARGET if Role.TARGET in roles else roles[0] for group, roles in given.items()}
    free = sorted(set(groups.values()) - role_of.keys())
    random.Random(f"{seed}:documents").shuffle(free)
    exemplars = held_back = 0
    if len(free) >= FEWEST_TO_DIVIDE:
        if Role.EXEMPLAR not in role_of.values() and config.exemplar_share:
            exemplars = min(max(1, round(config.exemplar_share * len(free))), EXEMPLAR_DOCUMENTS)
        if Role.HELD_BACK not in role_of.values() and config.held_back_share:
            held_back = min(max(1, round(config.held_back_share * len(free))), len(free) - exemplars - 1)
    role_of |= dict.fromkeys(free, Role.TARGET)
    role_of |= dict.fromkeys(free[:exemplars], Role.EXEMPLAR)
    role_of |= dict.fromkeys(free[exemplars : exemplars + held_back], Role.HELD_BACK)
    return {unit.id: role_of[groups[unit.id]] for unit in units}


def _found(
    units: Corpus, roles: Mapping[str, Role], config: ClozeConfig, seed: int, fits: Fits, refused: Counter[str]
) -> list[Cloze]:
    rare = rarity(units)
    found: list[Cloze] = []
    for unit in units:
        if roles[unit.id] in EXAMINED:
            clozes, reasons = clozes_of(unit, config, rare, TRIED * _most(roles[unit.id], config), seed, fits)
            found += clozes
            refused.update(reasons)
    return found


def _most(role: Role, config: ClozeConfig) -> int:
    return EXEMPLARS_EACH if role is Role.EXEMPLAR else config.per_document


def _kept(found: Sequence[Cloze], units: Corpus, roles: Mapping[str, Role], refused: Counter[str]) -> list[Cloze]:
    """The items that have one right answer wherever their context stands, each once, and of untaught documents those
    that no taught document tells as well."""
    taught = {unit.id for unit in units if roles[unit.id] not in UNTAUGHT}
    asked: set[tuple[str, ...]] = set()
    kept: list[Cloze] = []
    for cloze, where in zip(found, elsewhere(found, ((unit.id, unit.text) for unit in units)), strict=True):
        run = words(cloze.as_worded(units.by_id[cloze.document].title))
        if where.otherwise:
            refused["the same words go on otherwise elsewhere in the documents"] += 1
        elif cloze.document not in taught and where.told & taught:
            refused["a document that is taught tells it as well"] += 1
        elif run in asked:
            refused["another document asks the same"] += 1
        else:
            asked.add(run)
            kept.append(cloze)
    return kept


def _drawn(
    kept: Sequence[Cloze], roles: Mapping[str, Role], config: ClozeConfig, seed: int, refused: Counter[str]
) -> list[Cloze]:
    """The best of each document, and of all documents of a role as many as the exam asks, by lot."""
    by_document: dict[str, list[Cloze]] = defaultdict(list)
    for cloze in kept:
        by_document[cloze.document].append(cloze)
    by_role: dict[Role, list[Cloze]] = defaultdict(list)
    for name, clozes in by_document.items():
        best = sorted(clozes, key=lambda cloze: (-cloze.score, cloze.place))[: _most(roles[name], config)]
        by_role[roles[name]] += sorted(best, key=lambda cloze: cloze.place)
    chosen: list[Cloze] = []
    for role, clozes in by_role.items():
        if role is not Role.EXEMPLAR and len(clozes) > config.items:
            refused["more than the exam asks"] += len(clozes) - config.items
            places = random.Random(f"{seed}:{role}").sample(range(len(clozes)), config.items)
            clozes = [clozes[place] for place in sorted(places)]
        chosen += clozes
    return chosen


def _fact(cloze: Cloze, document: Document, group: str, roles: Mapping[str, Role]) -> Fact:
    return Fact(
        id=f"{cloze.document}@{cloze.place}",
        question=cloze.as_worded(document.title),
        answers=cloze.answers,
        subject=group,
        relation=f"cloze: {cloze.kind}",
        paraphrases=(reframed(cloze, document.title),),
        documents=(document.id,),
        role=roles[document.id],
    )


def _left_out(
    units: Corpus, roles: Mapping[str, Role], refused: Mapping[str, int], facts: FactSet
) -> Iterator[tuple[str, str]]:
    for unit in units:
        if roles[unit.id] in UNTAUGHT:
            yield f"document {unit.id}", UNTAUGHT[roles[unit.id]]
    asked = {name for fact in facts for name in fact.documents}
    silent = sum(unit.id not in asked for unit in units if roles[unit.id] is Role.TARGET)
    if silent:
        yield (
            f"{silent} taught {_texts(silent)}",
            "no item is asked of it" if silent == 1 else "no item is asked of them",
        )
    for reason, count in sorted(refused.items(), key=lambda one: (-one[1], one[0])):
        yield f"{count} cloze {'item' if count == 1 else 'items'}", reason
    for role, what in LACKING.items():
        if role not in roles.values():
            yield "warning", f"too few documents to keep any away: {what}"


def _texts(count: int) -> str:
    return "document or passage" if count == 1 else "documents or passages"


def _counts(
    corpus: Corpus, units: Corpus, roles: Mapping[str, Role], refused: Mapping[str, int], facts: FactSet
) -> dict[str, Any]:
    return {
        "documents": len(corpus),
        "passages": None if units is corpus else len(units),
        "taught": sum(role not in UNTAUGHT for role in roles.values()),
        **{role.value: sum(own is role for own in roles.values()) for role in (Role.HELD_BACK, Role.EXEMPLAR)},
        "items": dict(Counter(str(fact.role) for fact in facts)),
        "kinds": dict(Counter(RELATIONS[str(fact.relation)] for fact in facts)),
        "refused": dict(refused),
    }
