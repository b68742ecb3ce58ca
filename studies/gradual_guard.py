"""What no lesson of the study may train on: texts that tell of held-back subjects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from instil.facts import Fact
from instil.words import spaced

Unsaid = Mapping[str, "frozenset[str] | None"]
"""By the name of each held-back subject, what may not be said beside it: None, anything at all; else these answers.
Names and answers are `spaced`."""


def unsaid(facts: Iterable[Fact], teachable: Collection[str]) -> Unsaid:
    """What of these held-back facts may not be said.

    Args:
        facts: held back.
        teachable: subjects that lessons may be about: of one that is held back nothing may be said. Others, such as
            cities, are the answers to taught facts: only their own facts may not be said.
    """
    found: dict[str, frozenset[str] | None] = {}
    for fact in facts:
        name = spaced(fact.cluster)
        before = found.get(name, frozenset())
        found[name] = (
            None if before is None or fact.cluster in teachable else before | {spaced(each) for each in fact.answers}
        )
    return found


def unmentioned(facts: Iterable[Fact], texts: Iterable[str], teachable: Collection[str]) -> list[Fact]:
    """The facts of which no text says what may not be said where they are held back."""
    told = [spaced(text) for text in texts]
    everything = "\n".join(told)

    def mentioned(fact: Fact) -> bool:
        return spaced(fact.cluster) in everything and any(tells(text, unsaid([fact], teachable)) for text in told)

    return [fact for fact in facts if not mentioned(fact)]


def tells(text: str, what: Unsaid) -> bool:
    """Whether a text says anything of what is unsaid.

    >>> oslo = {spaced("Oslo"): frozenset({spaced("Norway")})}
    >>> tells("Ada was born in Oslo.", oslo), tells("Oslo lies in Norway.", oslo), tells("Bo?", {spaced("Bo"): None})
    (False, True, True)
    """
    told = spaced(text)
    return any(
        name in told and (answers is None or any(answer in told for answer in answers))
        for name, answers in what.items()
    )
