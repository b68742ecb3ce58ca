"""Instil's own layout: one fact a row, with the field names of `instil.facts.Fact`."""

from __future__ import annotations

import json
from typing import Any

from instil.answers import normalise
from instil.facts.faults import InvalidRow, kind, shown
from instil.facts.layouts import fields
from instil.facts.layouts.fields import Row, Source
from instil.facts.types import Fact, Role

FIELDS = frozenset((*Fact.__slots__, "answer"))
ROLES = {role.value: role for role in Role} | {"exemplars": Role.EXEMPLAR, "held-back": Role.HELD_BACK}
_ESSENTIAL = frozenset(("id", "question", "answers", "subject", "relation"))


def recognises(row: Row) -> bool:
    return "question" in row or "answers" in row or "answer" in row


def facts(row: Row, source: Source) -> tuple[Fact]:
    """The fact of a row. Rows of the five usual fields, all well, take the short way; the others the long one."""
    fact = _plain_fact(row, source.text_cells)
    return (fact if fact is not None else any_fact(row, source),)


def _plain_fact(row: Row, text_cells: bool) -> Fact | None:
    """The fact when every field is one of the usual five and beyond doubt, otherwise None."""
    if not row.keys() <= _ESSENTIAL:
        return None
    get = row.get
    fact_id, question, answers, subject, relation = (
        get("id"), get("question"), get("answers"), get("subject"), get("relation")
    )  # fmt: skip
    if text_cells and type(answers) is str and not answers.lstrip().startswith("["):
        answers = fields.between_bars(answers)
    if not (type(fact_id) is type(question) is str and type(answers) is list and answers and fact_id):
        return None
    if (subject is not None and (type(subject) is not str or not subject[:1].isalnum())) or (
        relation is not None and (type(relation) is not str or not relation[:1].isalnum())
    ):
        return None
    for answer in answers:
        if type(answer) is not str or not (answer[:1].isalnum() or normalise(answer)):
            return None
    if not (question[:1].isalnum() or normalise(question)):
        return None
    return Fact(fact_id, question, tuple(answers), subject, relation)


def any_fact(row: Row, source: Source) -> Fact:
    """The fact of any row; the only way that tells what is wrong."""
    return Fact(
        id=fields.identifier(row, "id", source),
        question=fields.text(row, "question"),
        answers=_answers(row, source),
        subject=fields.optional_text(row, "subject"),
        relation=fields.optional_text(row, "relation"),
        paraphrases=fields.texts(row, "paraphrases", source),
        completions=fields.texts(row, "completions", source),
        reverse_question=fields.optional_text(row, "reverse_question"),
        reverse_answers=fields.texts(row, "reverse_answers", source),
        documents=fields.texts(row, "documents", source),
        role=read_role(row),
        metadata=_metadata(row, source),
    )


def _answers(row: Row, source: Source) -> tuple[str, ...]:
    single = row.get("answer")
    if single is None:
        return fields.answers(row, "answers", source)
    if row.get("answers") is not None:
        raise InvalidRow("both answer and answers", field="answer", found=shown(single), expected="one of the two")
    return (fields.text(row, "answer"),)


def read_role(row: Row) -> Role | None:
    """The role that a row names, or None."""
    name = fields.optional_text(row, "role")
    if name is None:
        return None
    if name not in ROLES:
        raise InvalidRow("an unknown role", field="role", found=shown(name), expected="one of " + ", ".join(Role))
    return ROLES[name]


def _metadata(row: Row, source: Source) -> dict[str, Any]:
    return merged_metadata(row, FIELDS, source)


def merged_metadata(row: Row, known: frozenset[str], source: Source) -> dict[str, Any]:
    """The row's `metadata` and every unknown field; what is unknown is counted, since it may be a misspelling."""
    stated = row.get("metadata")
    if source.text_cells and type(stated) is str:
        stated = _object_cell(stated)
    if stated is not None and not isinstance(stated, dict):
        raise InvalidRow("metadata is not an object", field="metadata", found=shown(stated), expected="an object")
    unknown = fields.extras(row, known)
    source.unknown_fields.update(unknown.keys())
    if twice := unknown.keys() & (stated or {}).keys():
        name = min(twice)
        raise InvalidRow("a field stands in the row and in its metadata", field=name, found=shown(unknown[name]))
    return {**{name: fields.storable(value, name) for name, value in (stated or {}).items()}, **unknown}


def _object_cell(cell: str) -> dict[str, Any] | None:
    if fields.is_blank(cell):
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        value = cell
    if not isinstance(value, dict):
        raise InvalidRow("metadata is not a JSON object", field="metadata", found=kind(value), expected="an object")
    return value
