"""KnowEdit's figures under their own names, each by teacher forcing and by free generation, and the difference.

From Zhang et al. 2024, "A Comprehensive Study of Knowledge Editing for Large Language Models" (arXiv 2401.01286, the
section on evaluation), and EasyEdit (Wang et al. 2023, arXiv 2308.07269). *By teacher forcing*, as EasyEdit does: the
right answer is given token by token, and the figure is the share of its tokens that are the model's likeliest; for
locality, the share of places where the likeliest token is the one of the model before. *By free generation*: the model
answers by itself, and the answer is right or wrong as a whole; for locality, the same as before or not. Teacher forcing
tells the model the beginning and the length of the right answer, so it flatters (Yang et al. 2025, arXiv 2502.11177).

Here no worked question stands before the question, as in KnowEdit. Two things differ from EasyEdit: questions are
asked in the layout "Q: … A:", and portability has what can be made from the facts (reversed, two hops), no aliases.

Fluency is the weighted mean of the entropies of the words' bigrams (1/3) and trigrams (2/3), in bits, of text that the
model writes about taught subjects (ROME, Meng et al. 2022, arXiv 2202.05262, "generation entropy"; the weights are
those of its evaluation, which EasyEdit took over); words are what white space parts. It is not a share, and says
something only beside its value before teaching. KnowEdit's texts are longer, so its values are higher.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Final

from instil.answers import normalise
from instil.exam import statistics as st
from instil.exam.pairing import Pair, clusters_of, pairs_of, share_of
from instil.exam.paper import BARE, BARE_LOCALITY, BARE_PORTABLE, BARE_REWORDED, Exam
from instil.exam.sitting import Answer, ExamResult

MEASURES: Final = {
    "edit_success": BARE,
    "generalization": BARE_REWORDED,
    "portability": BARE_PORTABLE,
    "locality": BARE_LOCALITY,
}
"""KnowEdit's name to the part that it is computed from."""

_ABOUT: Final = {
    "edit_success": "taught facts as worded",
    "generalization": "taught facts in another wording",
    "portability": "taught facts in reverse and through two hops",
    "locality": "answers to untaught facts near the taught ones, the same as before",
}
KNOWEDIT: Final = {
    **{
        f"knowedit_{name}{suffix}": f"KnowEdit: {about}{how}"
        for name, about in _ABOUT.items()
        for suffix, how in (
            ("", ", by free generation, without worked questions"),
            ("_forced", ", by teacher forcing: share of tokens"),
            ("_difference", ", teacher forcing less free generation"),
        )
    },
    "knowedit_fluency": "KnowEdit: n-gram entropy of text written about taught subjects, in bits, after (and before)",
}
"""What each figure measures."""
NOT_READ: Final = "the answerer cannot be read token by token"


def knowedit(exam: Exam, before: ExamResult, after: ExamResult) -> dict[str, st.Figure]:
    """The figures of `KNOWEDIT` for which the exam has questions; the value is that after teaching."""
    how = exam.config.bootstrap
    found: dict[str, st.Figure] = {}
    for name, part in MEASURES.items():
        if exam.by_part[part]:
            pairs = pairs_of(before, after, part)
            found |= _locality(pairs, how) if part == BARE_LOCALITY else _success(name, pairs, how)
    if exam.openings:
        found["knowedit_fluency"] = _fluency(before, after, how)
    return found


def entropy(text: str) -> float:
    """Weighted mean of the entropies of bigrams (1/3) and trigrams (2/3) of the words of a text, in bits.

    >>> entropy("one two three four"), entropy("so so so so so")
    (1.1949875002403854, 0.0)
    """
    words = text.split()
    return 1 / 3 * _entropy(words, 2) + 2 / 3 * _entropy(words, 3)


# -------------------------------------------------------------------- private


def _success(name: str, pairs: list[Pair], how: st.Bootstrap) -> dict[str, st.Figure]:
    free = share_of(pairs, lambda pair: pair[1].asked.p_greedy, how, "none asked")
    free = replace(free, before=_mean([pair[0].asked.p_greedy for pair in pairs]))
    if any(answer.forced is None for pair in pairs for answer in pair):
        return _with_forced(name, free, None, None, len(pairs))
    forced = share_of(pairs, lambda pair: _forced(pair[1]), how, "none asked")
    forced = replace(forced, before=_mean([_forced(pair[0]) for pair in pairs]))
    gap = st.paired_difference(
        [_forced(pair[1]) for pair in pairs], [pair[1].asked.p_greedy for pair in pairs], clusters_of(pairs), how
    )
    return _with_forced(name, free, forced, gap, len(pairs))


def _locality(pairs: list[Pair], how: st.Bootstrap) -> dict[str, st.Figure]:
    def same(pair: Pair) -> bool:
        return normalise(pair[0].said) == normalise(pair[1].said)

    free = share_of(pairs, same, how, "none asked")
    if any(answer.forced is None for pair in pairs for answer in pair):
        return _with_forced("locality", free, None, None, len(pairs))
    forced = share_of(pairs, _same_tokens, how, "none asked")
    told = [_same_tokens(pair) for pair in pairs]
    gap = st.paired_difference(told, [float(same(pair)) for pair in pairs], clusters_of(pairs), how)
    return _with_forced("locality", free, forced, gap, len(pairs))


def _with_forced(
    name: str, free: st.Figure, forced: st.Figure | None, gap: st.Figure | None, n: int
) -> dict[str, st.Figure]:
    missing = st.Figure(None, None, None, n, 0, NOT_READ)
    return {
        f"knowedit_{name}": free,
        f"knowedit_{name}_forced": forced or missing,
        f"knowedit_{name}_difference": gap or missing,
    }


def _forced(answer: Answer) -> float:
    assert answer.forced is not None
    return sum(answer.forced.right) / len(answer.forced.right)


def _same_tokens(pair: Pair) -> float:
    first, last = pair[0].forced, pair[1].forced
    assert first is not None and last is not None
    return sum(a == b for a, b in zip(first.tokens, last.tokens, strict=True)) / len(first.tokens)


def _fluency(before: ExamResult, after: ExamResult, how: st.Bootstrap) -> st.Figure:
    if not (before.written and after.written):
        return st.Figure(None, None, None, 0, 0, "the answerer writes no free text")
    figure = st.mean([entropy(text) for text in after.written], range(len(after.written)), how)
    return replace(figure, before=_mean([entropy(text) for text in before.written]))


def _entropy(words: list[str], n: int) -> float:
    counts = Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))
    total = sum(counts.values())
    return sum(-count / total * math.log2(count / total) for count in counts.values()) if total else 0.0


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
