"""What no lesson of the study may train on: texts that tell of held-back subjects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from instil.exam.leaks import words
from instil.facts import Fact

Unsaid = Mapping[str, "frozenset[str] | None"]
"""By the name of each held-back subject, what may not be said beside it: None, anything at all; else these answers."""


def unsaid(facts: Iterable[Fact], teachable: Collection[str]) -> Unsaid:
    """What of these held-back facts may not be said.

    Args:
        facts: held back.
        teachable: subjects that lessons may be about: of one that is held back nothing may be said. Others, such as
            cities, are the answers to taught facts: only their own facts may not be said.
    """
    found: dict[str, frozenset[str] | None] = {}
    for fact in facts:
        name = alone(fact.cluster)
        before = found.get(name, frozenset())
        found[name] = (
            None if before is None or fact.cluster in teachable else before | {alone(each) for each in fact.answers}
        )
    return found


def tells(text: str, what: Unsaid) -> bool:
    """Whether a text says anything of what is unsaid.

    >>> tells("Ada was born in Oslo.", {"oslo": frozenset({"norway"})})
    False
    >>> tells("Oslo lies in Norway.", {"oslo": frozenset({"norway"})}), tells("Who is Bo?", {"bo": None})
    (True, True)
    """
    told = f" {alone(text)} "

    def said(name: str) -> bool:
        return f" {name} " in told

    return any(said(name) and (answers is None or any(map(said, answers))) for name, answers in what.items())


def alone(text: str) -> str:
    """Its words, a blank between them."""
    return " ".join(words(text))
