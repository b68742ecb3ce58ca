"""Other spellings of an answer that count as right, so that the exact engine can reckon with them too.

`instil.answers.normalise` makes many strings equal, and one string can be written in many tokens. A sample that is any
of them is right, but a probability is exact only for the sequences that are listed. Here the likeliest others are
named, in a fixed order and at most `MOST` for an answer. What is not named stays out of the probability.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from instil.probe.judging import is_right
from instil.probe.rows import Answers, Ids, Tree

if TYPE_CHECKING:
    from instil.model import Prompts

MOST = 40
"""Sequences that are listed for one answer beside itself, at most."""
MOST_CUTS = 10
"""Of these, other tokenisations of the same text."""

KINDS = ("punctuation", "casing", "article", "spacing", "marks", "tokens")
"""What another spelling changes, in the order in which they are listed."""

_ARTICLE = re.compile(r"(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_AFTER = (".", ",", "!", " ", ";", ":", "?")
_AROUND = ('"{}"', "'{}'", "“{}”", "**{}**", "*{}*", "({})")
_TYPED = str.maketrans({"'": "’", '"': "”", "-": "–"})
_PLAIN = str.maketrans({"’": "'", "‘": "'", "”": '"', "“": '"', "–": "-", "—": "-", "‐": "-"})


def other_spellings(prompts: Prompts, answers: Iterable[str], forms: frozenset[str], room: int) -> dict[Ids, str]:
    """Token sequences of right answers that are not the answers as listed, and what each of them changes.

    Args:
        answers: as listed.
        forms: the same, normalised. Every sequence, read as text, is one of them.
        room: tokens that an answer may have, its stop with it; longer ones cannot be sampled and are left out.

    Returns:
        Sequence to one of `KINDS`, at most `MOST` an answer; none has a stop token in it, none is listed already.
    """
    answers = tuple(answers)
    listed = Answers.of(map(prompts.answer_ids, answers), prompts.tails, prompts.stop_ids).sequences
    found: dict[Ids, str] = {}
    for answer in answers:
        left = MOST
        for ids, kind in _sequences(prompts, answer):
            known = ids in listed or ids in found
            if known or len(ids) >= room or prompts.stop_ids.intersection(ids):
                continue
            if is_right(prompts.answer_text(ids), forms):
                found[ids] = kind
                left -= 1
            if not left:
                break
    return found


def with_spellings(answers: Answers, others: Iterable[Ids]) -> Answers:
    """`answers` and the others on one tree. Their `longest` stays: other spellings never change how far is decoded."""
    sequences = tuple(dict.fromkeys((*answers.sequences, *others)))
    tree, ends = Tree.of(sequences)
    return Answers(tree, frozenset(ends), answers.longest, sequences)


def _sequences(prompts: Prompts, answer: str) -> Iterator[tuple[Ids, str]]:
    lead = prompts.layout.lead
    for after in _AFTER:
        yield prompts.answer_ids(answer + after), "punctuation"
    for kind, texts in (("casing", _cased(answer)), ("article", _with_article(answer))):
        for text in texts:
            ids = prompts.answer_ids(text)
            yield ids, kind
            for tail in prompts.tails:
                yield (*ids, *tail), kind
    for space in ("", " ", "  "):
        if space != lead:
            yield prompts.continuation_ids(space + answer), "spacing"
    for text in _marked(answer):
        yield prompts.answer_ids(text), "marks"
    for ids in islice(_cut(prompts, lead + answer), MOST_CUTS):
        yield ids, "tokens"


def _cased(answer: str) -> Sequence[str]:
    return [answer.lower(), answer[:1].upper() + answer[1:], answer.upper(), answer.title()]


def _with_article(answer: str) -> Sequence[str]:
    if article := _ARTICLE.match(answer):
        bare = answer[article.end() :]
        return [bare, bare[:1].upper() + bare[1:], article.group().lower() + bare, article.group().capitalize() + bare]
    indefinite = "an" if answer[:1].lower() in "aeiou" else "a"
    return [f"{article} {answer}" for article in ("the", "The", indefinite, indefinite.capitalize())]


def _marked(answer: str) -> Sequence[str]:
    return [answer.translate(_TYPED), answer.translate(_PLAIN), *(around.format(answer) for around in _AROUND)]


def _cut(prompts: Prompts, text: str) -> Iterator[Ids]:
    """The same text in two parts, each tokenised by itself: fewest tokens first, then the later cut."""
    whole = prompts.continuation_ids(text)
    said = prompts.decode(whole)
    cuts = [
        (*prompts.continuation_ids(text[:place]), *prompts.continuation_ids(text[place:]))
        for place in range(len(text) - 1, 0, -1)
    ]
    other = [ids for ids in dict.fromkeys(cuts) if ids != whole and prompts.decode(ids) == said]
    yield from sorted(other, key=len)
