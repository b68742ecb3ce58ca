"""What questions behind one prefix begin with alike is computed with the prefix, once for all of them.

Questions of one relation differ in their subjects only: "Q: Where was" stands before every one of them, and is a third
of their tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from instil.probe.rows import Ids, Row


class Leads:
    """How much of each question goes to its prefix, for rows that will be computed together or one after the other.

    Which tokens are computed, and behind which, stays the same; only what is shared differs.
    """

    def __init__(self, rows: Iterable[tuple[Ids, Ids]]) -> None:
        """Take all pairs of a prefix and a question that will be asked."""
        questions: dict[Ids, dict[Ids, None]] = {}
        for prefix, question in rows:
            questions.setdefault(prefix, {})[question] = None
        found: dict[tuple[int, tuple[Ids, ...]], Mapping[Ids, int]] = {}
        self._by_prefix: dict[Ids, Mapping[Ids, int]] = {}
        for prefix, some in questions.items():
            # The exemplar sets of one relation are asked the same questions.
            key = (len(prefix), tuple(some))
            if key not in found:
                found[key] = lead_lengths(sorted(some), len(prefix))
            self._by_prefix[prefix] = found[key]

    def __call__(self, row: Row) -> Row:
        """The same row, with the beginning of its question behind its prefix."""
        lead = self._by_prefix[row.prefix][row.question]
        return replace(row, prefix=row.prefix + row.question[:lead], question=row.question[lead:])


def lead_lengths(questions: Sequence[Ids], prefix: int) -> dict[Ids, int]:
    """How many tokens of each question to compute with its prefix.

    Questions that go on alike get a longer lead where that saves more tokens than a prefix of their own costs.

    Args:
        questions: sorted, each once.
        prefix: how many tokens the prefix has.
    """
    if len(questions) < 2:
        return dict.fromkeys(questions, 0)
    common = _alike(questions)
    found = dict.fromkeys(questions, common)
    for _, group in groupby(questions, key=lambda question: question[common]):
        some = list(group)
        longer = _alike(some)
        if (longer - common) * len(some) > prefix + longer:
            found |= lead_lengths(some, prefix)
    return found


def _alike(questions: Sequence[Ids]) -> int:
    """Tokens that sorted questions begin with alike; their last token is never counted, since it is scored."""
    first, last = questions[0], questions[-1]
    most = min(map(len, questions)) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)
