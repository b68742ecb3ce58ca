"""The data that a lesson is given, by the part it plays."""

from __future__ import annotations

from dataclasses import dataclass, field

from instil.errors import InputError
from instil.facts.document_roles import documents_of
from instil.facts.types import Corpus, FactSet, Role


@dataclass(frozen=True)
class Roles:
    """The data of a lesson, disjoint by subject. Held-back facts, general text and the questions about target documents
    are for the exam, so not here."""

    target: FactSet = field(default_factory=lambda: FactSet(()))
    practice: FactSet = field(default_factory=lambda: FactSet(()))
    known: FactSet = field(default_factory=lambda: FactSet(()))
    development: FactSet = field(default_factory=lambda: FactSet(()))
    documents: Corpus = field(default_factory=lambda: Corpus(()))
    practice_documents: Corpus = field(default_factory=lambda: Corpus(()))

    def check_disjoint(self) -> None:
        """Raises `InputError` when a subject stands in two roles, or a question is about a document to be taught: what
        is measured would have been trained on."""
        homes: dict[str, str] = {}
        for role in (Role.TARGET, Role.PRACTICE, Role.KNOWN, Role.DEVELOPMENT):
            facts: FactSet = getattr(self, role.value)
            if told := documents_of(facts, self.documents):
                fact, documents = next(iter(told.items()))
                raise InputError(
                    "questions about documents to be taught are for the exam only",
                    field="role",
                    found=f"{role} fact {fact!r}, about document {documents[0]!r}",
                    expected="no fact of the lesson tied to a target document",
                )
            for subject in facts.subjects:
                if homes.setdefault(subject, role.value) != role.value:
                    raise InputError(
                        "one subject has facts in two roles",
                        field="role",
                        found=f"{subject!r} in {homes[subject]} and {role.value}",
                        expected="roles that share no subject",
                    )
