"""The one definition of a correct answer: what is made equal before two answers are compared, and what is not.

Made equal: Unicode forms (NFKC), upper and lower case, runs of white space, typographic and plain quotes and dashes,
invisible marks, quotes and punctuation around the answer, brackets that enclose all of it, a bullet before it, a
leading English article, a final full stop. Kept: punctuation inside ("u.s.a"), signs that carry meaning at an end
("c++", "c#", "-5", ".net"), accents, and every script.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
"""Soft hyphen, zero-width spaces, direction marks. Joiners (U+200C, U+200D) stay: Persian and Indic need them."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_PLAIN = str.maketrans(
    dict.fromkeys("‘’‚‛ʼʹ′＇`´", "'") | dict.fromkeys("“”„‟″＂«»", '"') | dict.fromkeys("‐‑‒–—―−﹣－", "-")
)
_LEAD = re.compile(r"""(?:[\s"'‹›「」『』*_,;:!?¿¡…]+|[-•·▪]+\s|(?:an?|the)\s(?=\S))+""")
_TAIL = frozenset(" \"'‹›「」『』*_.,;:!?…。、，！？；：｡､।۔؟،")
_PAIRS = {"(": ")", "[": "]", "{": "}", "（": "）", "【": "】", "〈": "〉", "《": "》"}


def normalise(text: str) -> str:
    """The form in which answers are compared; applying it twice changes nothing.

    Text of punctuation alone ("!!!", the band) is kept as it is; only white space, controls and invisible marks
    normalise to the empty string.
    """
    if text.isascii() and text.isprintable():
        plain = " ".join(text.replace("`", "'").lower().split())
    else:
        plain = _any_script(text)
    return _core(plain) or plain


def is_correct(text: str, answers: Iterable[str]) -> bool:
    """Whether `text` equals any of `answers` after `normalise`. Empty text is never right."""
    said = normalise(text)
    return bool(said) and any(said == normalise(answer) for answer in answers)


def _any_script(text: str) -> str:
    """What `normalise` does before it looks at the ends, for any text; the short way for ASCII must equal it."""
    return _one_form(_CONTROLS.sub(" ", _INVISIBLE.sub("", text)))


def _one_form(text: str) -> str:
    """NFKC, casefolded, plain quotes and dashes, single spaces; repeated since one step can undo another's form."""
    while True:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_PLAIN)).casefold())
        folded = " ".join(folded.split())
        if folded == text:
            return text
        text = folded


def _core(text: str) -> str:
    """`text` without what stands around it. Works on two indices, so that hostile nesting costs only its length."""
    start, end = 0, len(text)
    while True:
        before = (start, end)
        while start < end and text[end - 1] in _TAIL:
            end -= 1
        if lead := _LEAD.match(text, start, end):
            start = lead.end()
        if start < end and _enclosed(text, start, end):
            start, end = start + 1, end - 1
        if (start, end) == before:
            return text[start:end]


def _enclosed(text: str, start: int, end: int) -> bool:
    opening = text[start]
    closing = _PAIRS.get(opening)
    if closing is None or text[end - 1] != closing or end - start < 3:
        return False
    inside = (start + 1, end - 1)
    return text.find(opening, *inside) < 0 and text.find(closing, *inside) < 0
