"""Facts and documents, and how they are read, checked and divided into roles."""

from instil.facts.check import CheckReport, check_facts
from instil.facts.faults import Fault
from instil.facts.reading import iter_documents, iter_facts, read_documents, read_facts
from instil.facts.roles import RolePlan, locality_facts, plan_roles
from instil.facts.splitting import split_corpus, split_document, split_text
from instil.facts.types import Corpus, Document, Fact, FactSet, Role, split_by_subject

__all__ = [
    "CheckReport",
    "Corpus",
    "Document",
    "Fact",
    "FactSet",
    "Fault",
    "Role",
    "RolePlan",
    "check_facts",
    "iter_documents",
    "iter_facts",
    "locality_facts",
    "plan_roles",
    "read_documents",
    "read_facts",
    "split_by_subject",
    "split_corpus",
    "split_document",
    "split_text",
]
