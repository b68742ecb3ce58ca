"""Two hops through another taught fact: "Where was Ada Lovelace's mother born?", where both facts are taught.

The first fact's answer is the second fact's subject. The wording is the second fact's own, with its subject replaced by
a phrase that the first fact's own wordings hold ("What is X's home town?", "The spouse of X is"). Where no such pair or
no such phrase exists nothing is asked, and that is listed. Portability in KnowEdit's sense (2401.01286), and multi-hop
editing as in MQuAKE (2305.14795).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from instil.answers import normalise
from instil.exam.paper import TWO_HOPS, Item
from instil.exam.parts.material import Material, answer_keys, key_of
from instil.facts import Fact
from instil.probe import Question

NAME = "two_hops"
_ASKS = re.compile(r"(?:what|who|which|whom) (?:is|was|are|were) (?P<phrase>.+?)\s*\?", re.IGNORECASE)
_STATES = re.compile(r"(?P<phrase>.+?) (?:is|was)(?: the| an?)?", re.IGNORECASE)


def items(material: Material) -> list[Item]:
    reasons: list[str] = []
    chains = list(_chains(material, reasons))
    if not chains and not reasons:
        material.left_out.append(("two hops", "no taught fact's answer is the subject of another taught fact"))
    firsts = {first.id: first for first, _, _ in chains}
    kept = {fact.id for fact in material.drawn(TWO_HOPS, list(firsts.values()))}
    material.skip(TWO_HOPS, reasons)
    return material.untaught(
        TWO_HOPS, (_item(first, second, text) for first, second, text in chains if first.id in kept)
    )


def phrases(fact: Fact) -> list[str]:
    """What the wordings of a fact call its answer: "X's spouse", "the spouse of X"; the shortest to read first."""
    if fact.subject is None:
        return []
    found: dict[str, None] = {}
    for text in (fact.question, *fact.paraphrases):
        if (match := _ASKS.fullmatch(text.strip())) is not None:
            found[match["phrase"]] = None
    for text in fact.completions:
        if (match := _STATES.fullmatch(text.strip())) is not None:
            found[match["phrase"]] = None
    return sorted({phrase for text in found if (phrase := _noun(text, fact.subject))}, key=_order(fact.subject))


def hop_wording(second: Fact, phrase: str) -> str | None:
    """The second fact's question with its subject replaced by a phrase; its first wording that names the subject."""
    if second.subject is None:
        return None
    wordings = [text for text in (second.question, *second.paraphrases) if text.count(second.subject) == 1]
    # "the spouse of X's work" may be the spouse of a work: a wording without the subject in the genitive comes first.
    wordings.sort(key=lambda text: f"{second.subject}'" in text or f"{second.subject}’" in text)
    return wordings[0].replace(second.subject, phrase) if wordings else None


def _chains(material: Material, reasons: list[str]) -> Iterator[tuple[Fact, Fact, str]]:
    by_subject: dict[str, list[Fact]] = defaultdict(list)
    for fact in material.target:
        if fact.subject is not None:
            by_subject[normalise(fact.subject)].append(fact)
    for first in material.target:
        for second in (fact for key in sorted(answer_keys(first)) for fact in by_subject.get(key, ())):
            if second.id == first.id or key_of(first) in answer_keys(second):
                continue  # The second hop would lead back to where the first began.
            text = next(filter(None, (hop_wording(second, phrase) for phrase in phrases(first))), None)
            if text is None:
                reasons.append("no wording of the two facts can be joined")
            else:
                yield first, second, text


def _item(first: Fact, second: Fact, text: str) -> Item:
    name = f"{TWO_HOPS}/{first.id}/{second.id}"
    question = Question(name, text, second.answers, first.id, second.relation, first.subject)
    return Item(TWO_HOPS, 0, question, through=second.id)


def _noun(text: str, subject: str) -> str | None:
    if text.startswith((f"{subject}'s ", f"{subject}’s ")) and text.count(subject) == 1:
        return text
    if text.lower().startswith("the ") and text.endswith(f" of {subject}"):
        return "the " + text[4:]
    return None


def _order(subject: str) -> Callable[[str], tuple[bool, int, str]]:
    return lambda phrase: (not phrase.startswith(subject), len(phrase), phrase)
