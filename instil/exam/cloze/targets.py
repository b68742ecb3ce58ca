"""What of a sentence is worth asking: dates, names, numbers and telling words, by how they are written.

Capitals, digits and a few hundred small English words are all that is looked at, so names and words are found in
languages that write as English does; numbers and years everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from instil.exam.config import ClozeKind

FEWEST_BEFORE: Final = 5
"""Words of the sentence that stand before what is asked: never the first ones."""

SENTENCE_WORDS: Final = (8, 55)
LONGEST_ANSWER: Final = (5, 48)
"""Words, and characters."""

SMALL: Final = frozenset(
    """
    a about above after again against all along also although always am among an and another any are around as at
    away back be became because become been before behind being below between both but by came can come could did do
    does done down due during each either else enough even ever every few first for found from full further gave get
    give given goes had half has have having he her here hers him himself his how however i if in including instead
    into is it its itself just known last later least led less let like likely made mainly make many may me might
    more most much must my named near nearly neither never new next no nor not now of off often old on once one only
    onto or other others our out over own part per perhaps put quite rather same second seen several shall she
    should since so some soon still such take taken than that the their them then there these they this those though
    three through throughout thus till to together too took toward towards two under until up upon us used using
    usually very via was way we well went were what when where whether which while who whole whom whose why will
    with within without would yet you your four five six seven eight nine ten following began begun left under
    became called according based during despite except unlike versus
    """.split()  # noqa: SIM905 - a list of so many words would be a page long
)
"""Words that hold a sentence together and say little."""

_BEFORE_SLOT: Final = frozenset(
    """
    in on at by of to from for with as into near under over the a an named called known was is were are became
    between against about around since until before after and or than
    """.split()  # noqa: SIM905 - a list of so many words would be a page long
)
_BEFORE_WORD: Final = frozenset(
    ("in", "by", "of", "from", "with", "as", "the", "a", "an", "its", "his", "her", "their")
)
_BEFORE_YEAR: Final = frozenset(
    """
    in since until till of by from after before around circa during to and between
    """.split()  # noqa: SIM905 - a list of so many words would be a page long
)
_NO_NAME: Final = frozenset(
    """
    i the a an this that these those he she it we they you his her its their in on at of
    for but and or if when while after before however although some many most one another such there here what who
    which fig figure table section chapter page no vol
    """.split()  # noqa: SIM905 - a list of so many words would be a page long
)
_BEFORE_REFERENCE: Final = frozenset(
    """
    figure fig fig. table section chapter page pages p. pp. no. no vol. vol isbn item line
    """.split()  # noqa: SIM905 - a list of so many words would be a page long
)
MONTH: Final = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_CAP = r"[^\W\d_a-zà-öø-ÿ][\w’']*(?:-\w+)*"
_LINK = (
    r"(?:of the|of|de la|de|von der|von|van der|van|der|den|del|della|di|da|la|le|du|des|el|al|bin|ibn|for the|für|y|&)"
)
_DATE = re.compile(
    rf"(?:\d{{1,2}} {MONTH}(?: \d{{4}})?|{MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:, \d{{4}})?|{MONTH},? \d{{4}})(?!\w)"
)
_YEAR = re.compile(r"(?:1[0-9]|20)\d\ds?(?!\w)(?![.,]\d)(?![-–/]\d)")
_UNIT = r"percent|per cent|million|billion|trillion|thousand"
_NUMBER = re.compile(rf"(?:[$£€¥] ?)?\d+(?:[.,]\d+)*(?: ?%|°)?(?: (?:{_UNIT}))?(?![\w/])(?![-–:]\d)")
_TITLED = r"(?:St|Ft|Mt|Dr|Mr|Mrs|Ms|Prof|Gen|Col|Capt|Lt|Sgt|Gov|Sen|Rev|Jr|Sr|[A-Z])\."
_NAME = re.compile(
    rf"(?:{_TITLED}|{_CAP})(?: (?:{_TITLED}|{_CAP})| {_LINK} {_CAP}| [IVX]+(?!\w)| \d{{1,2}}(?![\w.,]))*"
)
_WORD = re.compile(r"[^\W\d_]{5,}(?:-[^\W\d_]{3,})*")
_NOUN = re.compile(
    r".*(?:tion|sion|ment|ness|ity|ism|ist|logy|graphy|ure|ance|ence|ship|hood|dom|age|ery|or|er|um|us|al)s?$"
)
_NOT_NOUN = re.compile(r".*(?:ly|ing|ed|ous|ful|ive|able|ible|less|ish|ical|est|wards?)$")
_AFTER = re.compile(r"\s*([\w’'-]+|\S|$)")


@dataclass(frozen=True, slots=True)
class Target:
    """A part of a sentence that may be asked.

    Attributes:
        start: its first character in the sentence.
        end: behind its last.
        kind: what it is.
        score: how good a question it makes, by how it is written alone.
    """

    start: int
    end: int
    kind: ClozeKind
    score: float


def targets(sentence: str, rare: Mapping[str, float]) -> Iterator[Target]:
    """Everything in a sentence that is worth asking, none of it among its first words.

    Args:
        sentence: with single spaces, from its first word to its full stop.
        rare: small-letter word to how rare it is in the documents, from 0 to 1; words that are not in it are not asked.
    """
    length = len(sentence.split())
    if not SENTENCE_WORDS[0] <= length <= SENTENCE_WORDS[1]:
        return
    taken: list[tuple[int, int]] = []
    for kind, pattern in (("date", _DATE), ("date", _YEAR), ("name", _NAME), ("number", _NUMBER), ("word", _WORD)):
        for found in pattern.finditer(sentence):
            start, end = found.span()
            if any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            if kind != "word":
                taken.append((start, end))  # A part of it that is refused is no question either.
            if (score := _score(sentence, start, end, kind, rare, pattern is _YEAR)) is not None:
                yield Target(start, end, kind, score)  # type: ignore[arg-type]


# -------------------------------------------------------------------- private


def _score(sentence: str, start: int, end: int, kind: str, rare: Mapping[str, float], year: bool) -> float | None:
    """How good it is; None where it is no question at all."""
    before, answer = sentence[:start].split(), sentence[start:end]
    if len(before) < FEWEST_BEFORE or sentence[start - 1] != " " or _is_enclosed(sentence, start):
        return None
    if len(answer.split()) > LONGEST_ANSWER[0] or not 2 <= len(answer) <= LONGEST_ANSWER[1]:
        return None
    follows = sentence[end : end + 2]
    if follows[:1] in ("-", "–", "/", "&") or (follows[:1] in ("'", "’") and follows[1:2].isalnum()):
        return None
    last, after = before[-1].lower().strip("\"'“”‘’(),"), _next_word(sentence, end)
    closed = after is None or after.lower() in SMALL
    slot = 0.5 if last in _BEFORE_SLOT else 0.0
    far = 0.5 * min(len(before), 16) / 16
    if kind == "date":
        if year and last not in _BEFORE_YEAR:
            return None
        return 3.0 + slot + far
    if kind == "number":
        return _of_number(answer, last, after, slot + far)
    if kind == "name":
        return _of_name(answer, before[-1], closed, slot + far)
    return _of_word(answer, before[-1], follows[:1], after, rare, far)


def _of_number(answer: str, last: str, after: str | None, more: float) -> float | None:
    digits = sum(mark.isdigit() for mark in answer)
    if last in _BEFORE_REFERENCE or (digits == 1 and answer.isdigit()):
        return None
    if after is not None and re.match(rf"{MONTH}\b", after):
        return None
    return 2.0 + more + (0.3 if after is not None and after.islower() else 0.0)


def _of_word(
    answer: str, last: str, mark: str, after: str | None, rare: Mapping[str, float], far: float
) -> float | None:
    """A noun that ends what an article or a preposition begins, as far as that can be told without a grammar."""
    if answer != answer.lower() or answer in SMALL or _NOT_NOUN.fullmatch(answer) or answer not in rare:
        return None
    ends = mark in (".", ";", "!", "?") if after is None else after.lower() in SMALL - {"and", "or"}
    if not ends or last not in _BEFORE_WORD:
        return None
    return 0.6 + rare[answer] + 0.4 * bool(_NOUN.fullmatch(answer)) + far


def _of_name(answer: str, last: str, closed: bool, more: float) -> float | None:
    words = answer.split()
    alone = len(words) == 1 and words[0].endswith(".")
    if alone or words[0].lower().strip(".") in _NO_NAME or re.fullmatch(rf"{MONTH}", answer):
        return None
    if last[:1].isupper() and last.lower() not in SMALL and last[-1:].isalnum():
        return None  # The name began before.
    if last.endswith((".", ":", "“", '"')) and len(words) == 1:
        return None  # The capital is that of a sentence within the sentence.
    if any(word.endswith(("'s", "’s")) for word in words) or (len(words) == 1 and not closed):
        return None  # Somebody's something, or a name that only says which (“the Praga district”).
    adjective = 0.0 if closed else 0.6
    in_a_row = 1.0 if last.endswith(",") or last in ("and", "or", "&") else 0.0
    return 2.8 + more + (0.2 if len(words) > 1 else 0.0) - adjective - in_a_row


def _next_word(sentence: str, end: int) -> str | None:
    """The word behind it; None where a mark or the end stands there."""
    found = _AFTER.match(sentence, end)
    word = found.group(1) if found is not None else ""
    return word if sentence[end : end + 1] == " " and word[:1].isalnum() else None


def _is_enclosed(sentence: str, start: int) -> bool:
    """Whether it stands within brackets or quotation marks, where the sentence does not lead to it."""
    pairs = (("(", ")"), ("[", "]"), ("“", "”"), ("«", "»"))
    opened = any(sentence.count(one, 0, start) > sentence.count(other, 0, start) for one, other in pairs)
    return opened or sentence.count('"', 0, start) % 2 == 1
