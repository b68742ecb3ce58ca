"""SQuAD (Rajpurkar et al., 2016 and 2018) in three shapes; each gives facts and the passages that state them.

* as published: one object, `data` → `paragraphs` → `qas`;
* as rows: `title`, `context`, `question`, `answers` = {"text": [...]};
* as passages: `id`, `title`, `text`, `questions` = [{"question", "answers"}].

The subject of a fact is its article's title, so that no article is split between roles. Questions that SQuAD 2 marks as
unanswerable are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from instil.facts.faults import Fault, InvalidRow, kind
from instil.facts.layouts import fields
from instil.facts.layouts.fields import Row, Source
from instil.facts.types import Document, Fact
from instil.files import fingerprint

ROW_FIELDS = frozenset(("id", "title", "context", "question", "answers", "is_impossible", "plausible_answers"))
PASSAGE_FIELDS = frozenset(("id", "title", "text", "questions"))


def recognises(row: Row) -> bool:
    return (
        ("data" in row and "question" not in row)
        or ("questions" in row and "text" in row)
        or ("context" in row and "question" in row and "answers" in row)
    )


def facts(row: Row, source: Source) -> Sequence[Fact | Fault]:
    if "data" in row:
        return list(_published(row, source, _paragraph_facts))
    if "questions" in row:
        return list(_passage_facts(row, source))
    title, context = fields.optional_text(row, "title"), fields.text(row, "context")
    return (_question(row, title, _document_id(title, context), fields.identifier(row, "id", source)),)


def documents(row: Row, source: Source) -> Sequence[Document | Fault]:
    if "data" in row:
        return list(_published(row, source, _paragraph_document))
    title = fields.optional_text(row, "title")
    if "questions" in row:
        name, text = fields.identifier(row, "id", source), fields.text(row, "text")
        return (Document(name, text, title, title, metadata=fields.extras(row, PASSAGE_FIELDS)),)
    context = fields.text(row, "context")
    name = _document_id(title, context)
    if name in source.passages:
        return ()
    source.passages.add(name)
    return (Document(name, context, title, title),)


def _document_id(title: str | None, context: str) -> str:
    """The same for the same passage, whichever shape it is read from."""
    return f"{title or 'passage'}#{fingerprint((title or '', context))}"


def _question(row: Row, title: str | None, document: str, name: str) -> Fact:
    if row.get("is_impossible"):
        raise InvalidRow("the question is marked as unanswerable", field="is_impossible", benign=True)
    return Fact(
        id=name,
        question=fields.text(row, "question"),
        answers=_answers(row),
        subject=title,
        documents=(document,),
    )


def _answers(row: Row) -> tuple[str, ...]:
    """The answers in any of SQuAD's three ways: [{"text": …}], {"text": [...]}, or plain texts."""
    value = row.get("answers")
    if isinstance(value, dict):
        value = value.get("text")
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = [item.get("text") for item in value]
    if isinstance(row.get("answers"), dict) and value == []:
        raise InvalidRow("the question is marked as unanswerable", field="answers", benign=True)
    listed = fields.text_list(value, "answers") if value is not None else ()
    if not listed:
        raise InvalidRow("no answers", field="answers", found=kind(row.get("answers")), expected=fields.LIST_OF_TEXTS)
    return fields.unique(listed)


def _passage_facts(row: Row, source: Source) -> Iterator[Fact | Fault]:
    name, title = fields.identifier(row, "id", source), fields.optional_text(row, "title")
    fields.text(row, "text")
    for number, question in enumerate(_objects(row, "questions")):
        try:
            own_id = fields.identifier(question, "id", source) if "id" in question else f"{name}-{number}"
            yield _question(question, title, name, own_id)
        except InvalidRow as fault:
            yield fault.at(source.name, None, f"questions[{number}]")


def _published(
    row: Row, source: Source, each: Callable[[Row, str | None, Source, str], Iterator[Any]]
) -> Iterator[Any]:
    """What `each` makes of every paragraph of the published nested object, faults with their path."""
    for number, article in enumerate(_objects(row, "data")):
        title = fields.optional_text(article, "title")
        for part, paragraph in enumerate(_objects(article, "paragraphs")):
            path = f"data[{number}].paragraphs[{part}]"
            try:
                yield from each(paragraph, title, source, path)
            except InvalidRow as fault:
                yield fault.at(source.name, None, path)


def _paragraph_facts(paragraph: Row, title: str | None, source: Source, path: str) -> Iterator[Fact | Fault]:
    document = _document_id(title, fields.text(paragraph, "context"))
    for number, question in enumerate(_objects(paragraph, "qas")):
        try:
            yield _question(question, title, document, question.get("id") or f"{document}-{number}")
        except InvalidRow as fault:
            yield fault.at(source.name, None, f"{path}.qas[{number}]")


def _paragraph_document(paragraph: Row, title: str | None, source: Source, path: str) -> Iterator[Document]:
    context = fields.text(paragraph, "context")
    yield Document(_document_id(title, context), context, title, title)


def _objects(row: Row, name: str) -> list[dict[str, Any]]:
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidRow(
            f"{name} is not a list of objects", field=name, found=kind(value), expected="a list of objects"
        )
    return value
