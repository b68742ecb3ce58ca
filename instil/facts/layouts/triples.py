"""Plain subject-relation-object triples, worded by templates: `subject`, `relation`, `object`.

The names of LAMA's T-REx (`sub_label`, `predicate_id`, `obj_label`) and `head`, `relation`, `tail` are read too.
Templates without [Y] are questions. Where a relation has statements only, those that end with the object are asked, cut
before it.
"""

from __future__ import annotations

from instil.facts.faults import InvalidRow, shown
from instil.facts.layouts import fields
from instil.facts.layouts.fields import Row, Source
from instil.facts.layouts.own import read_role
from instil.facts.types import Fact

NAMES = (("subject", "relation", "object"), ("sub_label", "predicate_id", "obj_label"), ("head", "relation", "tail"))
_OTHERS = frozenset(("id", "role", "object_aliases"))


def recognises(row: Row) -> bool:
    return _names(row) is not None and "question" not in row


def facts(row: Row, source: Source) -> tuple[Fact]:
    names = _names(row) or NAMES[0]
    subject, relation = fields.text(row, names[0]), fields.text(row, names[1])
    answers = fields.unique((*_objects(row, names[2]), *fields.texts(row, "object_aliases", source)))
    questions = source.templates.questions(relation, subject)
    completions = source.templates.completions(relation, subject)
    wordings = questions or completions
    if not wordings:
        raise InvalidRow(
            "the relation has no question template",
            field=names[1],
            found=shown(relation),
            expected="an entry in question_templates.json beside the file, or in --templates FILE",
        )
    return (
        Fact(
            id=fields.identifier(row, "id", source),
            question=wordings[0],
            answers=answers,
            subject=subject,
            relation=relation,
            paraphrases=wordings[1:],
            completions=completions,
            role=read_role(row),
            metadata=fields.extras(row, frozenset(names) | _OTHERS),
        ),
    )


def _objects(row: Row, name: str) -> tuple[str, ...]:
    """The object, or all of them where a row lists several."""
    if isinstance(row.get(name), list):
        found = fields.one_or_more(row, name)
        return found if found else (fields.text({}, name, what="no answers"),)
    return (fields.text(row, name),)


def _names(row: Row) -> tuple[str, str, str] | None:
    return next((names for names in NAMES if all(name in row for name in names)), None)
