"""Which document plays which part in a lesson, and so which questions are for the exam only.

A document is tied to a fact by the fact's `documents`, or by their common subject. Its part is that of the facts it is
tied to, or the one it has itself (`Document.role`):

    held_back, development, exemplar   not taught: it would give away what must not be
    target, or tied to nothing         taught; the target questions about it are asked in the exam and never trained on
    practice                           taught along with the questions about it, by methods that learn how to be asked
    known                              not taught: it is about what is replayed

The first that fits decides. A practice or replay question about a document that is taught is left out: it would be
trained on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from instil.errors import InputError
from instil.facts.types import Corpus, Document, Fact, FactSet, Role

GUARDED = (Role.HELD_BACK, Role.DEVELOPMENT, Role.EXEMPLAR)
"""What these facts say must not be taught, by a document either."""

_PRECEDENCE = (*GUARDED, Role.TARGET, Role.PRACTICE, Role.KNOWN)
_WHY_NOT = {
    **dict.fromkeys(GUARDED, "it is about a fact that is held back from teaching"),
    Role.KNOWN: "it is about a fact that is replayed",
}


@dataclass(frozen=True)
class DocumentPlan:
    """The documents of a lesson by their part, and the facts by role as they are now that documents are taught.

    Attributes:
        target: documents to be taught.
        practice: documents that come with practice questions.
        roles: facts by role, without practice and replay questions about target documents.
        exam_only: ids of the target facts that a target document tells: asked in the exam, never trained on.
        left_out: what is not used, as (what, reason).
    """

    target: Corpus
    practice: Corpus
    roles: Mapping[Role, FactSet]
    exam_only: frozenset[str]
    left_out: tuple[tuple[str, str], ...] = ()


def plan_documents(corpus: Corpus, roles: Mapping[Role, FactSet]) -> DocumentPlan:
    """Give every document its part.

    Raises:
        InputError: none of the documents is left to be taught.
    """
    tied: dict[str, set[Role]] = defaultdict(set)
    ties = {role: documents_of(facts, corpus) for role, facts in roles.items()}
    for role, found in ties.items():
        for documents in found.values():
            for document in documents:
                tied[document].add(role)
    part = {document.id: _part(document, tied[document.id]) for document in corpus}
    target = corpus.where(lambda document: part[document.id] is Role.TARGET)
    if len(corpus) and not len(target):
        found_parts = ", ".join(f"{sum(role is each for role in part.values())} {each}" for each in {*part.values()})
        raise InputError(
            "no document is left to be taught: all are about facts that are held back, practised or replayed",
            field="--documents",
            found=found_parts,
            expected="some about target facts, or about none",
        )
    left_out = [
        (f"document {document.id}", _WHY_NOT[part[document.id]]) for document in corpus if part[document.id] in _WHY_NOT
    ]

    def about_target(fact: Fact) -> bool:
        return any(document in target.by_id for document in ties.get(_role(fact), {}).get(fact.id, ()))

    now = dict(roles)
    for role in (Role.PRACTICE, Role.KNOWN):
        gone = roles[role].where(about_target)
        left_out += [(f"fact {fact.id} ({role})", "it is about a document that is taught") for fact in gone]
        now[role] = roles[role].where(lambda fact: not about_target(fact))
    return DocumentPlan(
        target=target,
        practice=corpus.where(lambda document: part[document.id] is Role.PRACTICE),
        roles=now,
        exam_only=frozenset(fact.id for fact in roles[Role.TARGET] if about_target(fact)),
        left_out=tuple(left_out),
    )


def documents_of(facts: Iterable[Fact], corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """The documents that each fact is tied to, those that it names (and copies of them) first; facts that are tied to
    none are not there."""
    of_subject: dict[str, list[str]] = defaultdict(list)
    called: dict[str, list[str]] = defaultdict(list)
    for document in corpus:
        for name in {document.id, document.original}:
            called[name].append(document.id)
        if document.subject is not None:
            of_subject[document.subject].append(document.id)
    found = {}
    for fact in facts:
        named = [document for name in fact.documents for document in called.get(name, ())]
        shared = of_subject.get(fact.subject, ()) if fact.subject is not None else ()
        if ids := tuple(dict.fromkeys((*named, *shared))):
            found[fact.id] = ids
    return found


def with_roles_of_documents(facts: Sequence[Fact], corpus: Corpus) -> list[Fact]:
    """Facts without a role take that of the document that they are tied to; the first of `_PRECEDENCE` where those
    differ."""
    if all(document.role is None for document in corpus):
        return list(facts)
    ties = documents_of(facts, corpus)

    def given(fact: Fact) -> Role | None:
        roles = {corpus.by_id[document].role for document in ties.get(fact.id, ())}
        return next((role for role in _PRECEDENCE if role in roles), None)

    return [fact if fact.role is not None else replace(fact, role=given(fact)) for fact in facts]


def _part(document: Document, tied: set[Role]) -> Role:
    parts = tied | ({document.role} if document.role is not None else set())
    return next((role for role in _PRECEDENCE if role in parts), Role.TARGET)


def _role(fact: Fact) -> Role:
    assert fact.role is not None, "facts of a role plan have roles"
    return fact.role
