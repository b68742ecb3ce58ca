"""Where sentences and paragraphs begin. Only gaps between words are chosen, so no character can be lost.

A wrong cut costs little here: a mark then stands in the middle of a sentence, and the words stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from instil.facts.sentence_ends import CLOSING, TERMINAL, ends_sentence

SHORT_LINE: Final = 50
"""Characters: a line that is shorter, or that ends as a sentence does, was ended on purpose and not to fit a page."""

_BLANK_LINE: Final = re.compile(r"[\n\r\v\x85\u2028]\s*[\n\r\v\x85\u2028]|\u2029|\f")
_LINE_END: Final = re.compile(r"[\n\r\v\f\x85\u2028\u2029]")


def starts(words: Sequence[str], white: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the words that begin a sentence, and of those that begin a paragraph (which begin a sentence too).

    Args:
        words: n words without white space.
        white: n + 1 stretches of white space: before the first word, between the words, after the last.
    """
    if not words:
        return (), ()
    sentences, paragraphs, line = [0], [0], len(words[0])
    for index in range(1, len(words)):
        gap, previous, following = white[index], words[index - 1], words[index]
        # Most gaps are one space behind a letter: neither a line end nor the end of a sentence.
        if gap == " " and previous[-1].isalnum():
            line += 1 + len(following)
            continue
        ends_line = _LINE_END.search(gap) is not None
        if ends_line and (_blank(gap) or _ended_on_purpose(previous, following, line)):
            paragraphs.append(index)
            sentences.append(index)
        elif ends_sentence(previous, following):
            sentences.append(index)
        line = len(following) if ends_line else line + len(gap) + len(following)
    return tuple(sentences), tuple(paragraphs)


def _blank(gap: str) -> bool:
    return _BLANK_LINE.search(gap.replace("\r\n", "\n")) is not None


def _ended_on_purpose(word: str, following: str, line: int) -> bool:
    return word.rstrip(CLOSING).endswith(tuple(TERMINAL)) or (line < SHORT_LINE and not following[:1].islower())
