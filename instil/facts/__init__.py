"""Facts, documents, and how they are read."""

from instil.facts.types import Corpus, Document, Fact, FactSet, Role, split_by_subject

__all__ = ["Corpus", "Document", "Fact", "FactSet", "Role", "split_by_subject"]
