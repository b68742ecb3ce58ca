"""PopQA (Mallen et al., 2023): `question`, `possible_answers` as JSON text, `subj`, `prop`, `obj`, `o_aliases`."""

from __future__ import annotations

from instil.facts.layouts import fields
from instil.facts.layouts.fields import Row, Source
from instil.facts.types import Fact

FIELDS = frozenset(("id", "question", "possible_answers", "subj", "prop", "obj", "o_aliases"))


def recognises(row: Row) -> bool:
    return "possible_answers" in row and "question" in row


def facts(row: Row, source: Source) -> tuple[Fact]:
    """One fact; the object itself is the first answer, the one that is taught."""
    listed = _json_texts(row, "possible_answers")
    main = fields.optional_text(row, "obj")
    answers = fields.unique(((main,) if main else ()) + listed + _json_texts(row, "o_aliases"))
    return (
        Fact(
            id=fields.identifier(row, "id", source),
            question=fields.text(row, "question"),
            answers=fields.answers({"possible_answers": answers}, "possible_answers", source),
            subject=fields.optional_text(row, "subj"),
            relation=fields.optional_text(row, "prop"),
            metadata=fields.extras(row, FIELDS),
        ),
    )


def _json_texts(row: Row, name: str) -> tuple[str, ...]:
    """A list of texts, written as JSON text or as a list."""
    value = row.get(name)
    if value is None:
        return ()
    return fields.text_list(fields.json_list(value, name) if isinstance(value, str) else value, name)
