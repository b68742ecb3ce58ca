"""EntityQuestions (Sciavolino et al., 2021): `question`, `answers`, and in some copies `id`, `relation`, `subject`.

The original files carry neither relation nor subject: the relation is in the file's name ("P19.train.json"), the
subject is what the relation's one question template leaves over. Both are recovered, where they are missing, from the
templates beside the file or from the published ones below.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from instil.facts.layouts import own
from instil.facts.layouts.fields import Row, Source
from instil.facts.layouts.templates import Templates
from instil.facts.types import Fact

FIELDS = frozenset(("id", "relation", "subject", "question", "answers"))
_RELATION = re.compile(r"P\d+")

PUBLISHED = Templates(
    {
        "P17": ("Which country is [X] located in?",),
        "P19": ("Where was [X] born?",),
        "P20": ("Where did [X] die?",),
        "P26": ("Who is [X] married to?",),
        "P36": ("What is the capital of [X]?",),
        "P40": ("Who is [X]'s child?",),
        "P50": ("Who is the author of [X]?",),
        "P69": ("Where was [X] educated?",),
        "P106": ("What kind of work does [X] do?",),
        "P112": ("Who founded [X]?",),
        "P127": ("Who owns [X]?",),
        "P131": ("Where is [X] located?",),
        "P136": ("What type of music does [X] play?",),
        "P159": ("Where is the headquarter of [X]?",),
        "P170": ("Who was [X] created by?",),
        "P175": ("Who performed [X]?",),
        "P176": ("Which company is [X] produced by?",),
        "P264": ("What music label is [X] represented by?",),
        "P276": ("Where is [X] located?",),
        "P407": ("Which language was [X] written in?",),
        "P413": ("What position does [X] play?",),
        "P495": ("Which country was [X] created in?",),
        "P740": ("Where was [X] founded?",),
        "P800": ("What is [X] famous for?",),
    }
)


def recognises(row: Row) -> bool:
    if not ("question" in row and "answers" in row and row.keys() <= FIELDS):
        return False
    relation = row.get("relation")
    return "id" not in row or (isinstance(relation, str) and _RELATION.fullmatch(relation) is not None)


def facts(row: Row, source: Source) -> tuple[Fact]:
    (fact,) = own.facts(row, source)
    return (fact,) if fact.subject is not None and fact.relation is not None else (recovered(fact, source),)


def recovered(fact: Fact, source: Source) -> Fact:
    """The fact with the relation and subject that its question shows, where they can be told."""
    relation = fact.relation or relation_of_file(source.name)
    found = (source.templates if source.templates.by_relation else PUBLISHED).recover(fact.question, relation)
    return replace(
        fact, relation=relation or (found[0] if found else None), subject=fact.subject or (found[1] if found else None)
    )


def relation_of_file(name: str) -> str | None:
    """ "P19" of "…/P19.train.json"."""
    first = Path(name).name.split(".")[0]
    return first if _RELATION.fullmatch(first) else None
