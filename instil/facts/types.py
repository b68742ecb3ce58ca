"""Facts and documents: what is taught and what is asked about it."""

from __future__ import annotations

import json
import random
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

from instil.facts.packed import Packed, packed
from instil.files import atomic, fingerprint


class Role(StrEnum):
    """The part a fact plays in a lesson. Roles are disjoint by subject.

    `held_back` facts are never taught: known ones show what was lost (retention), unknown ones what is now made up.
    """

    TARGET = "target"
    PRACTICE = "practice"
    KNOWN = "known"
    DEVELOPMENT = "development"
    EXEMPLAR = "exemplar"
    HELD_BACK = "held_back"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know, as a question and its answers.

    Attributes:
        id: unique in its file.
        question: the wording that is taught and asked first.
        answers: every string that counts as right; the first is the one that is taught.
        subject: what the fact is about. Splits and intervals keep facts of one subject together.
        relation: the kind of fact. Exemplars come from the same relation.
        paraphrases: other wordings of `question`, never trained on unless a method is told to.
        completions: statements cut right before the answer ("X was born in"), for continued pre-training and the exam.
        reverse_question: asks for the subject, given the answer.
        reverse_answers: every right answer to it.
        documents: ids of the documents that state the fact.
        role: the part it plays in a lesson, where the file says so.
        metadata: anything else, kept and written back (for example the exposures in pre-training).
    """

    id: str
    question: str
    answers: tuple[str, ...]
    subject: str | None = None
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    reverse_question: str | None = None
    reverse_answers: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    role: Role | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """What intervals and splits keep together: the subject, or the fact itself when it has none."""
        return self.subject if self.subject is not None else self.id

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary without the fields that are empty."""
        return _filled(self)


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be learned from.

    Attributes:
        id: unique in its file.
        text: what is learned.
        title: its name, if it has one.
        subject: what it is about; ties it to facts.
        role: the part it plays in a lesson, where the file says so.
        metadata: anything else, kept and written back.
        copy_of: id of the document that this is a copy, a format or another wording of. Copies of one document never
            share a packed row.
    """

    id: str
    text: str
    title: str | None = None
    subject: str | None = None
    role: Role | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    copy_of: str | None = None

    @property
    def original(self) -> str:
        """What it has in common with its copies: the id of the document they all stem from."""
        return self.id if self.copy_of is None else self.copy_of

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary without the fields that are empty."""
        return _filled(self)


def _filled(item: Fact | Document) -> dict[str, Any]:
    return {name: value for name in item.__slots__ if (value := getattr(item, name))}


def _write_lines(path: str | Path, items: Iterable[Fact | Document]) -> None:
    with atomic(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for item in items:
            file.write(json.dumps(item.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")


class FactSet(Sequence[Fact]):
    """An immutable sequence of facts with unique ids.

    Many facts that were read from a file stay packed in a temporary one (`instil.facts.packed`), and so do all choices
    from them: each fact is made anew whenever it is asked for.

    Attributes:
        left_out: one line for each fact that reading dropped, with the reason (see `instil.facts.reading`).
    """

    def __init__(self, facts: Iterable[Fact], *, left_out: Sequence[str] = ()) -> None:
        self._facts: Packed[Fact] | tuple[Fact, ...] = facts if isinstance(facts, Packed) else tuple(facts)
        self.left_out: tuple[str, ...] = tuple(left_out)
        if not self.is_packed and len(self.by_id) != len(self._facts):
            raise ValueError("fact ids repeat")

    @property
    def is_packed(self) -> bool:
        """Whether its facts are not held in memory."""
        return isinstance(self._facts, Packed)

    @staticmethod
    def read(
        source: str | Path,
        *,
        layout: str | None = None,
        templates: str | Path | None = None,
        skip_invalid: bool = False,
    ) -> FactSet:
        """Read facts from a file or a Hugging Face dataset name. See `instil.facts.reading.read_facts`."""
        from instil.facts.reading import read_facts

        return read_facts(source, layout=layout, templates=templates, skip_invalid=skip_invalid)

    def write(self, path: str | Path) -> None:
        """Write plain JSONL, one fact a line, atomically."""
        _write_lines(path, self._facts)

    @overload
    def __getitem__(self, index: int) -> Fact: ...
    @overload
    def __getitem__(self, index: slice) -> FactSet: ...
    def __getitem__(self, index: int | slice) -> Fact | FactSet:
        return FactSet(self._facts[index]) if isinstance(index, slice) else self._facts[index]

    def __len__(self) -> int:
        return len(self._facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts)

    def __add__(self, other: Iterable[Fact]) -> FactSet:
        """Both, each fact once, in order of first appearance."""
        merged = {fact.id: fact for fact in (*self._facts, *other)}
        return FactSet(merged.values())

    def __repr__(self) -> str:
        return f"FactSet({len(self)} facts, {len(self.by_relation)} relations)"

    @cached_property
    def by_id(self) -> Mapping[str, Fact]:
        facts = self._facts
        return facts.by_id if isinstance(facts, Packed) else {fact.id: fact for fact in facts}

    @cached_property
    def by_relation(self) -> dict[str | None, FactSet]:
        groups: dict[str | None, array[int]] = defaultdict(partial(array, "Q"))
        for number, fact in enumerate(self._facts):
            groups[fact.relation].append(number)
        return {relation: self._chosen(numbers) for relation, numbers in groups.items()}

    @cached_property
    def subjects(self) -> frozenset[str]:
        return frozenset(fact.cluster for fact in self._facts)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any fact, and with their order."""
        return fingerprint(json.dumps(fact.to_dict(), ensure_ascii=False, sort_keys=True) for fact in self._facts)

    def _chosen(self, numbers: Iterable[int]) -> FactSet:
        """The facts with these numbers, in this order."""
        facts = self._facts
        return FactSet(facts.chosen(numbers) if isinstance(facts, Packed) else (facts[number] for number in numbers))

    def where(self, keep: Callable[[Fact], bool]) -> FactSet:
        return self._chosen(number for number, fact in enumerate(self._facts) if keep(fact))

    def in_order_of_ids(self) -> FactSet:
        names = [fact.id for fact in self._facts]
        return self._chosen(sorted(range(len(names)), key=names.__getitem__))

    def only(self, ids: Collection[str]) -> FactSet:
        """The facts with these ids, in their own order. Ids that are not here are ignored."""
        return self.where(lambda fact: fact.id in ids)

    def with_role(self, role: Role) -> FactSet:
        return self.where(lambda fact: fact.role is role)

    def assign(self, role: Role | None) -> FactSet:
        assigned = (replace(fact, role=role) for fact in self._facts)
        return FactSet(packed(assigned) if self.is_packed else assigned)

    def sample(self, count: int, seed: int) -> FactSet:
        """`count` facts (all, when there are fewer) drawn without replacement, in their original order."""
        if count >= len(self):
            return self
        return self._chosen(sorted(random.Random(seed).sample(range(len(self)), count)))


class Corpus(Sequence[Document]):
    """An immutable sequence of documents with unique ids."""

    def __init__(self, documents: Iterable[Document], *, left_out: Sequence[str] = ()) -> None:
        self._documents: tuple[Document, ...] = tuple(documents)
        self.left_out: tuple[str, ...] = tuple(left_out)
        if len(self.by_id) != len(self._documents):
            raise ValueError("document ids repeat")

    @staticmethod
    def read(source: str | Path, *, skip_invalid: bool = False) -> Corpus:
        """Read documents from a file. See `instil.facts.reading.read_documents`."""
        from instil.facts.reading import read_documents

        return read_documents(source, skip_invalid=skip_invalid)

    def write(self, path: str | Path) -> None:
        """Write plain JSONL, one document a line, atomically."""
        _write_lines(path, self._documents)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Document | Corpus:
        return Corpus(self._documents[index]) if isinstance(index, slice) else self._documents[index]

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents)

    def __add__(self, other: Iterable[Document]) -> Corpus:
        """Both, each document once, in order of first appearance."""
        merged = {document.id: document for document in (*self._documents, *other)}
        return Corpus(merged.values())

    def __repr__(self) -> str:
        return f"Corpus({len(self)} documents)"

    @cached_property
    def by_id(self) -> dict[str, Document]:
        return {document.id: document for document in self._documents}

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(json.dumps(doc.to_dict(), ensure_ascii=False, sort_keys=True) for doc in self._documents)

    def where(self, keep: Callable[[Document], bool]) -> Corpus:
        return Corpus(document for document in self._documents if keep(document))


def split_by_subject(facts: FactSet, shares: Mapping[Role, float], seed: int) -> dict[Role, FactSet]:
    """Split so that no subject has facts in two roles; shares are of subjects and must sum to 1.

    Raises:
        ValueError: the shares do not sum to 1.
    """
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"shares sum to {sum(shares.values())}, not 1")
    subjects = sorted(facts.subjects)
    random.Random(seed).shuffle(subjects)
    home: dict[str, Role] = {}
    start, reached = 0, 0.0
    for role, share in shares.items():
        reached += share
        end = round(reached * len(subjects))
        home.update(dict.fromkeys(subjects[start:end], role))
        start = end
    groups: dict[Role, list[Fact]] = {role: [] for role in shares}
    for fact in facts:
        groups[home[fact.cluster]].append(fact)
    return {role: FactSet(group).assign(role) for role, group in groups.items()}
