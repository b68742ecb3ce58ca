"""The questions behind KnowEdit's figures, asked as its authors ask: without worked questions.

KnowEdit (Zhang et al. 2024, "A Comprehensive Study of Knowledge Editing for Large Language Models", arXiv 2401.01286,
section on evaluation) measures *edit success* on the edit's own question and its rephrasings, *portability* on what
follows from it (another name of the subject, reversal, a further hop), *locality* on what it must not touch, and
*fluency* on generated text. Rephrasings are a figure of their own here, named generalization as in EasyEdit.
"""

from __future__ import annotations

from dataclasses import replace

from instil.exam.nearness import neighbours
from instil.exam.paper import (
    AS_WORDED,
    BARE,
    BARE_LOCALITY,
    BARE_PORTABLE,
    BARE_REWORDED,
    HELD_BACK,
    REVERSED,
    REWORDED,
    SAME_SUBJECT,
    TWO_HOPS,
    Item,
)
from instil.exam.parts.material import Material

NAME = "knowedit"


def items(material: Material) -> list[Item]:
    asked = {fact.id for fact in material.drawn("knowedit", material.target)}
    of_part = {part: [item for item in material.items if item.part == part] for part in _SOURCES}
    first_wording: dict[str, Item] = {}
    for item in of_part[REWORDED]:
        first_wording.setdefault(item.question.fact_id, item)
    near = neighbours(of_part[AS_WORDED], of_part[HELD_BACK])
    untouched = [item for item in of_part[HELD_BACK] if item.question.id in near] + of_part[SAME_SUBJECT]
    return [
        *(_bare(BARE, item) for item in of_part[AS_WORDED] if item.question.fact_id in asked),
        *(_bare(BARE_REWORDED, item) for fact_id, item in first_wording.items() if fact_id in asked),
        *(_bare(BARE_PORTABLE, item) for item in (*of_part[REVERSED], *of_part[TWO_HOPS])),
        *(_bare(BARE_LOCALITY, item) for item in untouched[: material.config.part_facts]),
    ]


_SOURCES = (AS_WORDED, REWORDED, REVERSED, TWO_HOPS, HELD_BACK, SAME_SUBJECT)


def openings(material: Material) -> tuple[str, ...]:
    """Beginnings of statements about taught subjects, which the model goes on with; the subject where there is none."""
    chance = material.chance("openings")
    told = dict.fromkeys(
        fact.completions[0] if fact.completions else fact.subject
        for fact in material.target
        if fact.completions or fact.subject is not None
    )
    texts = [text for text in told if text is not None]
    count = min(material.config.openings, len(texts))
    return tuple(texts[place] for place in sorted(chance.sample(range(len(texts)), count)))


def _bare(part: str, item: Item) -> Item:
    return replace(item, part=part, question=replace(item.question, id=f"{part}/{item.question.id}"))
