"""The words of a text, by which names and wordings are found in others whatever marks stand beside them."""

from __future__ import annotations

import re
import unicodedata

_WRITTEN_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_WRITTEN_WITHOUT_SPACES}]|[^\\W_{_WRITTEN_WITHOUT_SPACES}]+")


def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without marks, markup and spacing; a character each where none are used."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def spaced(text: str) -> str:
    """Its words with a blank around each, so that a name is found in a text by `spaced(name) in spaced(text)`.

    >>> spaced("Ada Love") in spaced('Who knew "Ada Love"?'), spaced("Ada Love") in spaced("Ada Lovelace")
    (True, False)
    """
    return " ".join(["", *words(text), ""])
