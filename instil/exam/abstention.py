"""Whether an answer is an admission of not knowing. Such an answer is not right, and it is not made up either."""

from __future__ import annotations

import re
from collections.abc import Iterable

from instil.answers import normalise

_SENTENCE = re.compile(
    r"""
    (?: (?:sorry|well|hm+|oh)\W+ )?
    (?: i(?:'m|\ am)?\ (?:really\ |just\ |honestly\ )?
        (?: do\ not\ know | don't\ know | dont\ know | (?:do\ not|don't)\ have\ (?:that|this|any|enough)\ information
          | have\ no\ idea | not\ (?:sure|certain|aware) | unsure | can(?:not|'t)\ (?:answer|say|tell|know|find)
          | unable\ to\ (?:answer|say|tell) )
      | (?:it|this|that)(?:\ is|'s)\ (?:unknown|uncertain|unclear|not\ (?:known|certain|clear))
      | there\ is\ no\ (?:information|answer|data|record|such)
      | no\ (?:information|data|records?)\ (?:is\ |are\ )?(?:available|found|known|about|on)
      | (?:nobody|no\ one)\ knows
      | no\ such\ (?:person|place|thing|work|organi[sz]ation)
      | \S+(?:\ \S+){0,7}\ (?:does\ not|doesn't|do\ not|don't)\ exist
    )
    \b.*
    """,
    re.VERBOSE,
)
"""Openings of a sentence that says so; anything may follow."""

_WHOLE = re.compile(
    r"(?:unknown|not known|uncertain|unclear|unsure|not sure|no idea|no answer|none known|n/a|idk|dunno"
    r"|not available|no information|no data)(?:[,.;:!(-].*)?"
)
"""Words that say so when they are all of the answer: "unknown" does, "Unknown Pleasures" is a title."""


def is_abstention(text: str, phrases: Iterable[str] = ()) -> bool:
    """Whether `text` says that the answer is not known; an empty answer does.

    Args:
        text: an answer.
        phrases: further wordings, in other languages say; an answer that begins with one abstains.

    >>> is_abstention("I don't know."), is_abstention("Unknown"), is_abstention("Unknown Pleasures")
    (True, True, False)
    """
    said = normalise(text)
    if not said or any(_begins_with(said, own) for own in map(normalise, phrases) if own):
        return True
    return bool(_SENTENCE.fullmatch(said) or _WHOLE.fullmatch(said))


def _begins_with(said: str, own: str) -> bool:
    return said.startswith(own) and not said[len(own) : len(own) + 1].isalnum()
