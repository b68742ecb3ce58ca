"""Where a text tells a fact: in one sentence, behind its subject, and not before it as well."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from instil.facts.sentences import Span, is_heading, paragraphs, sentences

NOT_THERE: Final = "the answer does not stand in the text"
NO_SENTENCE: Final = "the answer stands first in a heading, or in two sentences"
BACKWARDS: Final = "the sentence names its subject only after the answer"
NAMELESS: Final = "nothing names the subject before the answer"

_SPACELESS: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class Told:
    """Where a text tells a fact, in characters.

    Attributes:
        start: of the answer.
        end: behind it.
        sentence: where its sentence begins.
    """

    start: int
    end: int
    sentence: int


def spelled(answer: str) -> re.Pattern[str]:
    """Finds an answer as whole words, whatever white space stands between them."""
    words = answer.split()
    opening = r"(?<!\w)" if _has_edge(answer[0]) else ""
    closing = r"(?!\w)" if _has_edge(answer[-1]) else ""
    return re.compile(opening + r"\s+".join(map(re.escape, words)) + closing)


def locate(text: str, answer: str, subject: str | None, about: bool) -> Told | str:
    """Where a text tells a fact, or why it does not.

    Only the first occurrence of the answer counts: behind it, the answer could be copied.

    Args:
        subject: its name; None where the text's own subject is meant.
        about: whether the whole text is known to be about the subject, so that a pronoun is enough.
    """
    found = spelled(answer).search(text)
    if found is None:
        return NOT_THERE
    start, end = found.span()
    around = next(((first, last) for first, last in sentence_spans(text) if first <= start and end <= last), None)
    if around is None:
        return NO_SENTENCE
    if subject is not None:
        name = spelled(subject)
        if name.search(text, around[0], start) is None:
            if name.search(text, end, around[1]) is not None:
                return BACKWARDS
            if not about and name.search(text, 0, start) is None:
                return NAMELESS
    return Told(start, end, around[0])


@lru_cache(maxsize=32)
def sentence_spans(text: str) -> tuple[Span, ...]:
    """All sentences of running text: headings are none."""
    return tuple(
        span
        for start, end in paragraphs(text)
        if not is_heading(text[start:end])
        for span in sentences(text, start, end)
    )


def _has_edge(mark: str) -> bool:
    """Whether a word that begins or ends with this mark is parted from its neighbours."""
    return re.match(r"\w", mark) is not None and _SPACELESS.match(mark) is None
