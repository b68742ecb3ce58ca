"""The layouts of fact files, each recognised by the fields of its first row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from instil.errors import InputError
from instil.facts.faults import Fault
from instil.facts.layouts import counterfact, entityquestions, own, popqa, squad, triples, zsre
from instil.facts.layouts.fields import Row, Source
from instil.facts.layouts.templates import Templates
from instil.facts.types import Document, Fact


@dataclass(frozen=True)
class Layout:
    """How one kind of file is recognised and read.

    `facts` and `documents` get one row and raise `InvalidRow` (the row is none) or return a `Fault` among their results
    (a part of the row is none).
    """

    name: str
    tells: str
    recognises: Callable[[Row], bool]
    facts: Callable[[Row, Source], Sequence[Fact | Fault]]
    documents: Callable[[Row, Source], Sequence[Document | Fault]] | None = None


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("squad", "data, or text and questions, or context", squad.recognises, squad.facts, squad.documents),
        Layout("popqa", "question and possible_answers", popqa.recognises, popqa.facts),
        Layout("counterfact", "requested_rewrite, or prompt and target_new", counterfact.recognises, counterfact.facts),
        Layout("zsre", "src and answers or alt", zsre.recognises, zsre.facts),
        Layout("triples", "subject, relation and object", triples.recognises, triples.facts),
        Layout(
            "entityquestions", "question and answers, a relation like P19",
            entityquestions.recognises, entityquestions.facts,
        ),
        Layout("instil", "question and answers", own.recognises, own.facts),
    )
}  # fmt: skip
"""In the order in which they are tried: the ones with the plainest marks first, Instil's own last."""


def recognise(row: Row) -> Layout | None:
    """The layout whose marks a row bears."""
    return next((layout for layout in LAYOUTS.values() if layout.recognises(row)), None)


def by_name(name: str) -> Layout:
    """The layout of that name.

    Raises:
        InputError: there is none.
    """
    if name not in LAYOUTS:
        raise InputError("an unknown layout", field="layout", found=name, expected="one of " + ", ".join(LAYOUTS))
    return LAYOUTS[name]


__all__ = ["LAYOUTS", "Layout", "Row", "Source", "Templates", "by_name", "recognise"]
