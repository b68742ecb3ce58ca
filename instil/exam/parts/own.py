"""The user's own questions, from a file: `question`, `answers`, and optionally `fact_id`, `relation`, `part`.

Without a part, a question about a taught fact is in `own` and any other in `own_other`. A named part takes it beside
Instil's own questions, and needs the fact that it asks about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from instil.errors import InputError
from instil.exam.leaks import Wordings
from instil.exam.paper import (
    AS_WORDED,
    COMPLETED,
    IN_CONTEXT,
    OWN,
    OWN_OTHER,
    REVERSED,
    REWORDED,
    SAME_SUBJECT,
    TWO_HOPS,
    Item,
)
from instil.exam.parts.material import Material
from instil.facts.faults import Fault, InvalidRow, shown
from instil.facts.layouts import Row, Source, fields
from instil.facts.reading import source_of
from instil.facts.records import records
from instil.probe import Question
from instil.words import words

OPEN_PARTS: Final = (OWN, OWN_OTHER, REWORDED, COMPLETED, REVERSED, TWO_HOPS, IN_CONTEXT, SAME_SUBJECT)
ABOUT_TAUGHT: Final = (REWORDED, COMPLETED, REVERSED, TWO_HOPS, IN_CONTEXT)
FIELDS: Final = frozenset(("question", "answers", "answer", "fact_id", "relation", "part"))


@dataclass(frozen=True, slots=True)
class OwnQuestion:
    """A row of the file; `file` and `line` are for messages."""

    text: str
    answers: tuple[str, ...]
    fact_id: str | None = None
    relation: str | None = None
    part: str | None = None
    file: str = ""
    line: int | None = None


def read_questions(path: str | Path) -> tuple[OwnQuestion, ...]:
    """Read questions from JSON Lines, CSV or Parquet.

    Raises:
        InputError: the file is missing or empty, or a row is not such a question; with file, line and field.
    """
    if not Path(path).is_file():
        raise InputError("no such file of questions", file=path)
    source = source_of(str(path), None)
    found: list[OwnQuestion] = []
    for record in records(source):
        if isinstance(record, Fault):
            raise record.as_error()
        line, row = record
        try:
            found.append(_question(row, source, str(path), line))
        except InvalidRow as fault:
            raise fault.at(str(path), line).as_error() from None
    if not found:
        raise InputError("the file holds no question", file=path)
    return tuple(found)


def items(material: Material, questions: Sequence[OwnQuestion]) -> list[Item]:
    """The user's questions as items. One that stands in what is taught is left out and listed.

    Raises:
        InputError: a question names a fact that the lesson does not have or that its part cannot ask about, or is there
            twice.
    """
    guard = Wordings(own.text for own in questions)
    standing = {
        words(found)
        for text in (*(fact.question for fact in material.target), *material.taught_texts)
        for found in guard.in_text(text)
    }
    there = {words(item.question.text): item.part for item in material.items}
    asked: list[Item] = []
    for number, own in enumerate(questions, 1):
        said = words(own.text)
        if said in standing or there.get(said) == AS_WORDED:
            material.left_out.append((f"own question {number}", "these words are in what is taught"))
            continue
        if said in there:
            raise InputError(
                "the exam asks this question already",
                file=own.file,
                line=own.line,
                field="question",
                found=shown(own.text),
            )
        item = _item(material, own, number)
        there[said] = item.part
        asked.append(item)
    return asked


def _item(material: Material, own: OwnQuestion, number: int) -> Item:
    taught = own.fact_id in material.target.by_id
    fact = material.everything.by_id.get(own.fact_id) if own.fact_id is not None else None
    if own.fact_id is not None and fact is None:
        raise InputError(
            "the question names a fact that the exam does not have",
            file=own.file,
            line=own.line,
            field="fact_id",
            found=shown(own.fact_id),
            expected="the id of a fact, or none",
        )
    part = own.part or (OWN if taught else OWN_OTHER)
    if (part in ABOUT_TAUGHT and not taught) or (part in (OWN_OTHER, SAME_SUBJECT) and taught):
        raise InputError(
            "the question's fact does not go with its part",
            file=own.file,
            line=own.line,
            field="part",
            found=f"part {part}, fact {own.fact_id}",
            expected="a taught fact" if part in ABOUT_TAUGHT else "a fact that is not taught, or none",
        )
    fact_id = own.fact_id if own.fact_id is not None else f"own-{number}"
    relation = own.relation if own.relation is not None else fact.relation if fact is not None else None
    subject = fact.subject if fact is not None else None
    question = Question(f"{part}/own/{number}", own.text, own.answers, fact_id, relation, subject)
    return Item(part, 0, question)


def _question(row: Row, source: Source, file: str, line: int) -> OwnQuestion:
    if unknown := sorted(set(row) - FIELDS):
        raise InvalidRow(
            "an unknown field", field=unknown[0], found=shown(row[unknown[0]]), expected=", ".join(sorted(FIELDS))
        )
    if row.get("answer") is not None and row.get("answers") is not None:
        raise InvalidRow(
            "both answer and answers", field="answer", found=shown(row["answer"]), expected="one of the two"
        )
    single = row.get("answer") is not None
    part = fields.optional_text(row, "part")
    if part is not None and part not in OPEN_PARTS:
        raise InvalidRow("an unknown part", field="part", found=shown(part), expected="one of " + ", ".join(OPEN_PARTS))
    return OwnQuestion(
        text=fields.text(row, "question"),
        answers=(fields.text(row, "answer"),) if single else fields.answers(row, "answers", source),
        fact_id=fields.optional_text(row, "fact_id"),
        relation=fields.optional_text(row, "relation"),
        part=part,
        file=file,
        line=line,
    )
