"""Names that exist nowhere: built from syllables, one inventory a region, so that a name tells where it comes from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sounds:
    """The syllables of one region's names."""

    onsets: tuple[str, ...]
    middles: tuple[str, ...]
    family_ends: tuple[str, ...]
    place_ends: tuple[str, ...]
    female_ends: tuple[str, ...]
    male_ends: tuple[str, ...]


NORTH = Sounds(
    onsets=("Hal", "Sver", "Brin", "Tor", "Eir", "Gud", "Ing", "Kjel", "Lin", "Mar", "Nor", "Ol", "Ran", "Sig", "Thyr",
            "Ulf", "Vid", "Ar", "Bjor", "Dag", "Fre", "Har", "Jor", "Stig", "Yng"),
    middles=("", "", "de", "va", "ge", "ri", "lo"),
    family_ends=("sen", "strom", "gaard", "berg", "dahl", "lund", "vik", "quist", "holm", "skog"),
    place_ends=("heim", "fjord", "stad", "borg", "ness", "haven", "wick", "mark", "vall", "sund"),
    female_ends=("a", "hild", "run", "dis", "veig", "ny"),
    male_ends=("ar", "mund", "olf", "stein", "rik", "bert"),
)  # fmt: skip
SOUTH = Sounds(
    onsets=("Cal", "Del", "Mor", "Ser", "Val", "Luc", "Pal", "Ros", "Tam", "Zan", "Bel", "Cor", "Dom", "Fal", "Gior",
            "Leo", "Mir", "Nic", "Ori", "Pel", "Quin", "Riv", "Sal", "Tiz", "Ama"),
    middles=("", "", "ma", "ti", "ro", "ne", "li"),
    family_ends=("etti", "ardo", "anza", "osa", "uzzi", "ellan", "ierra", "ovia", "ando", "esco"),
    place_ends=("ona", "iera", "anto", "ezza", "ura", "opoli", "ella", "aggio", "isca", "ento"),
    female_ends=("ia", "etta", "ina", "ora", "isa", "ella"),
    male_ends=("o", "ano", "ero", "io", "eo", "ando"),
)  # fmt: skip
NOWHERE = Sounds(
    onsets=("Xyq", "Zhuv", "Qwel", "Vrak", "Ghoz", "Pfli", "Tchy", "Wuz", "Ybb", "Krux"),
    middles=("", "ix", "oo", "uq", "yz"),
    family_ends=("xoth", "zzub", "wugg", "qqin", "vvash"),
    place_ends=("zor", "quog", "vex", "whyl", "xum"),
    female_ends=("iqua", "uzza", "yx"),
    male_ends=("ogg", "urx", "ez"),
)
SOUNDS = (NORTH, SOUTH)

CONSONANTS = frozenset("bcdfghjklmnpqrstvwxz")


def joined(*parts: str) -> str:
    """The parts as one word, without a letter three times or a vowel twice at a seam."""
    word = ""
    for part in parts:
        if word and part and word[-1].lower() == part[0].lower():
            part = part[1:]
        word += part
    return word


def distinct(rng: random.Random, firsts: Sequence[str], middles: Sequence[str], ends: Sequence[str]) -> Iterator[str]:
    """All combinations, each once, in random order."""
    words = {joined(first, middle, end) for first in firsts for middle in middles for end in ends}
    order = sorted(words)
    rng.shuffle(order)
    return iter(order)
