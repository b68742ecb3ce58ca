"""What a lesson goes on from: the state of the ledger that its starting model is, and what lessons before it taught."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from instil.exam import Ruling
from instil.exam.leaks import Wordings
from instil.facts import Fact, FactSet, Role
from instil.probe import ExemplarSets, draw_exemplars
from instil.words import words

if TYPE_CHECKING:
    from instil.ledger import Ledger
    from instil.loop.inputs import Inputs

Row = Mapping[str, Any]

TAUGHT: Final = (Ruling.LEARNED, Ruling.LEARNED_AS_WORDED, Ruling.UPDATED, Ruling.KEPT)
"""Verdicts after which a fact that was to be taught counts as taught."""

ASKED_NOW: Final = {
    Role.EXEMPLAR: "it is an exemplar of this lesson",
    Role.HELD_BACK: "it is asked as a held-back fact of this lesson",
    Role.DEVELOPMENT: "it is asked as a development fact of this lesson",
}


@dataclass(frozen=True)
class Earlier:
    """Where a lesson stands in its ledger.

    Attributes:
        state: the id of the state that the starting model is; None when the ledger has no such state.
        runs: the lessons that led to that state, the oldest first.
        facts: what they taught, to be asked again.
        left_out: what they taught and is not asked again, as (what, reason).
        others: how many runs the ledger holds besides this one.
    """

    state: str | None
    runs: tuple[str, ...]
    facts: FactSet
    left_out: tuple[tuple[str, str], ...]
    others: int


def earlier_lessons(ledger: Ledger, inputs: Inputs, run_id: str) -> Earlier:
    """Find the starting model among the states of the ledger, by the fingerprint of its weights, and what was taught.

    Facts whose subject is taught or may be replayed now are left out, and so are those that this lesson's exam asks
    anyway, whose wording stands in a document taught now, and (by lot, with the exam's seed) those beyond
    `exam.earlier`.

    Raises:
        InputError: the ledger is damaged.
    """
    states = {row["state_id"]: row for row in ledger.read("states").to_pylist() if row["run_id"] != run_id}
    others = sum(run["run_id"] != run_id for run in ledger.runs())
    start = _state_of(states.values(), inputs.model.fingerprint)
    if start is None:
        return Earlier(None, (), FactSet(()), (), others)
    runs = _lineage(states, start)
    left_out: list[tuple[str, str]] = []
    facts = _asked_again(_taught(ledger, runs), inputs, left_out)
    return Earlier(start, runs, FactSet(facts), tuple(left_out), others)


def exemplars_for(inputs: Inputs, facts: FactSet) -> ExemplarSets:
    """The lesson's exemplar sets, with some for relations that only facts of earlier lessons have.

    Each relation's are drawn by themselves, so the others are what they were.
    """
    drawn = {fact.relation or "" for fact in facts} - set(inputs.exemplars.sets)
    if not drawn:
        return inputs.exemplars
    more = draw_exemplars(inputs.roles[Role.EXEMPLAR], sorted(drawn), inputs.probe)
    warnings = tuple(dict.fromkeys((*inputs.exemplars.warnings, *more.warnings)))
    return ExemplarSets({**more.sets, **inputs.exemplars.sets}, warnings)


def _state_of(states: Any, fingerprint: str) -> str | None:
    """The first state with these weights; a lesson's last stage has those of the state after it, which is meant."""
    same = [row for row in states if row["fingerprint"] == fingerprint]
    same.sort(key=lambda row: row["label"] != "after")
    return str(same[0]["state_id"]) if same else None


def _lineage(states: Mapping[str, Row], start: str) -> tuple[str, ...]:
    """The runs that trained on the way to a state, the oldest first. Their starts and returns trained nothing."""
    runs: dict[str, None] = {}
    here: str | None = start
    seen: set[str] = set()
    while here is not None and here in states and here not in seen:
        seen.add(here)
        row = states[here]
        if row["label"] not in ("before", "undo"):
            runs.setdefault(row["run_id"])
        here = row["parent_id"]
    return tuple(reversed(runs))


def _taught(ledger: Ledger, runs: Sequence[str]) -> list[tuple[str, Fact]]:
    """What these runs taught, as (run, fact), each wording once; the last lesson that it was a target of decides."""
    found: dict[str, tuple[str, Fact] | None] = {}
    for run in runs:
        rows = ledger.read("verdicts", columns=["fact_id", "verdict"], run_id=run, role="target").to_pylist()
        verdicts = {row["fact_id"]: row["verdict"] for row in rows}
        columns = ["fact_id", "question", "answers", "subject", "relation"]
        asked = ledger.read("answers", columns=columns, run_id=run, purpose="exam", part="as_worded").to_pylist()
        for row in asked:
            if row["fact_id"] in verdicts:
                taught = verdicts[row["fact_id"]] in TAUGHT
                found[row["question"]] = (run, _fact(row)) if taught else None
    return [pair for pair in found.values() if pair is not None]


def _fact(row: Row) -> Fact:
    return Fact(
        id=row["fact_id"],
        question=row["question"],
        answers=tuple(row["answers"]),
        subject=row["subject"],
        relation=row["relation"],
    )


def _asked_again(taught: Sequence[tuple[str, Fact]], inputs: Inputs, left_out: list[tuple[str, str]]) -> Iterator[Fact]:
    now = _Now(inputs, [fact.question for _, fact in taught])
    usable: list[tuple[str, Fact]] = []
    for run, fact in taught:
        reason = now.why_not(fact)
        if reason is None:
            usable.append((run, fact))
        else:
            left_out.append((f"fact {fact.id} of an earlier lesson", reason))
    most = inputs.exam.earlier
    if len(usable) > most:
        left_out.append((f"{len(usable) - most} facts of earlier lessons", "more than the exam asks for"))
        chosen = sorted(random.Random(inputs.exam.seed).sample(range(len(usable)), most))
        usable = [usable[place] for place in chosen]
    # Ids are unique in a file of facts, not in all files that were ever taught from.
    used = {fact.id for facts in inputs.roles.values() for fact in facts}
    for run, fact in usable:
        named = fact if fact.id not in used else replace(fact, id=f"{fact.id}@{run}")
        used.add(named.id)
        yield named


class _Now:
    """What this lesson teaches and asks, and so need or must not be asked as what an earlier one taught."""

    def __init__(self, inputs: Inputs, questions: Sequence[str]) -> None:
        roles = inputs.roles
        self._taught = _subjects(roles[Role.TARGET]) | {doc.subject for doc in inputs.documents} - {None}
        self._practised = _subjects(roles[Role.PRACTICE]) | _subjects(roles[Role.KNOWN])
        self._asked = {words(fact.question): role for role in ASKED_NOW for fact in roles[role]}
        guard = Wordings(questions)
        self._written = {words(wording) for text in inputs.texts for wording in guard.in_text(text)}

    def why_not(self, fact: Fact) -> str | None:
        """Why a fact of an earlier lesson is not asked again; None when it is."""
        if fact.subject is not None and fact.subject in self._taught:
            return f"its subject, {fact.subject!r}, is taught again now"
        if fact.subject is not None and fact.subject in self._practised:
            return f"its subject, {fact.subject!r}, is practised or replayed now"
        if words(fact.question) in self._written:
            return "its question stands in a document that is taught now"
        role = self._asked.get(words(fact.question))
        return None if role is None else ASKED_NOW[role]


def _subjects(facts: FactSet) -> set[str | None]:
    return {fact.subject for fact in facts} - {None}
