"""The kinds of question, one module each.

A kind has a `NAME` (a value of `ExamConfig.parts`), a function `items(material)` that gives what is asked, and where
its worked questions have another form than the fact's question, `exemplars(material)`. To add one: write the module,
name its part in `instil.exam.paper.PARTS` and its kind in `instil.exam.config.FurtherPart`, put both functions into
`KINDS`, and say in `instil.exam.beyond.ACCURACIES` what its accuracy measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from instil.exam.paper import Item
from instil.exam.parts import (
    choice,
    completed,
    in_context,
    knowedit,
    no_such_subject,
    reverse,
    same_subject,
    two_hops,
)
from instil.exam.parts.knowedit import openings
from instil.exam.parts.material import Material
from instil.exam.parts.own import OwnQuestion, read_questions
from instil.exam.parts.own import items as own_items
from instil.probe import ExemplarSets

__all__ = ["KINDS", "Kind", "Material", "OwnQuestion", "add_further_parts", "openings", "own_items", "read_questions"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question.

    Attributes:
        items: what is asked; may look at what earlier kinds ask, in `Material.items`.
        exemplars: part to its worked questions, where they have another form.
    """

    items: Callable[[Material], list[Item]]
    exemplars: Callable[[Material], Mapping[str, ExemplarSets]] | None = None


KINDS: Final[Mapping[str, Kind]] = {
    completed.NAME: Kind(completed.items, completed.exemplars),
    reverse.NAME: Kind(reverse.items, reverse.exemplars),
    choice.NAME: Kind(choice.items),
    choice.AS_TEXT_NAME: Kind(choice.items_as_text, choice.exemplars_as_text),
    two_hops.NAME: Kind(two_hops.items),
    in_context.NAME: Kind(in_context.items, in_context.exemplars),
    same_subject.NAME: Kind(same_subject.items),
    no_such_subject.NAME: Kind(no_such_subject.items),
    knowedit.NAME: Kind(knowedit.items),
}
"""In the order in which they are made: KnowEdit's are made from the others'."""


def add_further_parts(material: Material) -> dict[str, ExemplarSets]:
    """Put the questions of every part that the configuration names into `material.items`; returns their exemplars."""
    own: dict[str, ExemplarSets] = {}
    for name, kind in KINDS.items():
        if name not in material.config.parts:
            continue
        found = kind.items(material)
        material.items += found
        parts = {item.part for item in found}
        made = kind.exemplars(material) if kind.exemplars is not None and found else {}
        own |= {part: sets for part, sets in made.items() if part in parts}
    return own
