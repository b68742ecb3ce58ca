"""Whether a wording occurs in a text, word for word, whatever stands around, between or in front of its words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from instil.words import words

FEWEST_WORDS = 3
"""A wording of fewer words ("Capital?") occurs by chance; it only counts as found when it is all of a line."""


class Wordings:
    """Finds which of many wordings occur in a text, in time that grows with the text and not with their number.

    Every wording is filed under its rarest word, so that a text is only compared with the few that it could hold.
    """

    def __init__(self, wordings: Iterable[str]) -> None:
        self._lines: dict[tuple[str, ...], str] = {}
        longer: dict[tuple[str, ...], str] = {}
        for wording in wordings:
            said = words(wording)
            if said:
                (longer if len(said) >= FEWEST_WORDS else self._lines).setdefault(said, wording)
        common = Counter(word for said in longer for word in set(said))
        self._by_word: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for said, wording in longer.items():
            rarest = min(said, key=lambda word: (common[word], -len(word), word))
            self._by_word[rarest].append((f" {' '.join(said)} ", wording))

    def in_text(self, text: str) -> Iterator[str]:
        """The wordings, as they were given, that occur in `text`."""
        said = words(text)
        found = set(said) & self._by_word.keys()
        if found:
            run = f" {' '.join(said)} "
            yield from (wording for word in sorted(found) for inner, wording in self._by_word[word] if inner in run)
        if self._lines:
            yield from (self._lines[line] for line in {words(line) for line in text.splitlines()} & self._lines.keys())
