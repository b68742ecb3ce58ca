"""`instil.answers.is_correct` for many texts against answers that are normalised once."""

from __future__ import annotations

from functools import lru_cache

from instil.answers import normalise

form = lru_cache(maxsize=1 << 16)(normalise)
"""`normalise`, remembered: the same answers and exemplars are compared again and again."""


def is_right(text: str, forms: frozenset[str]) -> bool:
    """Whether `text` is one of the answers that `forms` holds in their normal form."""
    said = form(text)
    return bool(said) and said in forms
