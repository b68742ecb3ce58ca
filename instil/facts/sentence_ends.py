"""Whether a sentence ends between two words: one rule for all rooms."""

from __future__ import annotations

import re
from typing import Final


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


NEVER: Final = _listed(
    "mr mrs ms mx dr st prof rev hon gen col capt lt sgt cmdr gov sen rep pres fr messrs mt ft vs cf eg e.g ie i.e viz "
    "approx ca née nr nos vol vols pp p ch fig figs eq ed eds op cit resp incl trans repr est dept bzw z.b u.a"
)
"""Words that a full stop follows without ending a sentence; lower case, without that full stop."""

BEFORE_A_CAPITAL: Final = _listed(
    "inc ltd co corp bros jr sr ph.d m.d b.a m.a etc al no sec ave blvd rd jan feb mar apr jun jul aug sep sept oct "
    "nov dec mon tue wed thu fri sat sun a.m p.m usw"
)
"""Those that end a sentence as often as not: they do so before a capital letter."""

TERMINAL: Final = ".!?…。！？؟۔।॥"
CLOSING: Final = "\"'”’»›)]}」』】*_`"
OPENING: Final = "\"'“‘«‹„‚([{¿¡「『【*_`"

_INITIALS: Final = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")


def ends_sentence(word: str, following: str) -> bool:
    """Whether a sentence ends between two neighbouring words."""
    bare = word.rstrip(CLOSING)
    if not bare or bare[-1] not in TERMINAL:
        return False
    first = following.lstrip(OPENING)[:1]
    if first.islower():
        return False
    if not bare.endswith(".") or bare.endswith(".."):
        return True
    stem = bare[:-1].lstrip(OPENING).casefold()
    if stem in BEFORE_A_CAPITAL:
        return first.isupper()
    return stem not in NEVER and not _INITIALS.fullmatch(stem)
