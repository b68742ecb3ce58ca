"""Answers before and after side by side, and the figures that come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from instil.exam import statistics as st
from instil.exam.sitting import Answer, ExamResult

Pair = tuple[Answer, Answer]


def pairs_of(before: ExamResult, after: ExamResult, part: str) -> list[Pair]:
    """Each question of a part with its answers before and after."""
    later = {answer.item.question.id: answer for answers in after.part(part).values() for answer in answers}
    return [(answer, later[answer.item.question.id]) for answer in before.answers if answer.item.part == part]


def clusters_of(pairs: Iterable[Pair]) -> list[str]:
    return [pair[0].cluster for pair in pairs]


def share_of(
    pairs: Sequence[Pair], holds: Callable[[Pair], bool | float], how: st.Bootstrap, if_none: str
) -> st.Figure:
    figure = st.share([holds(pair) for pair in pairs], clusters_of(pairs), how)
    return figure if pairs else replace(figure, reason=if_none)


def before_and_after(
    name: str, pairs: Sequence[Pair], value: Callable[[Answer], bool | float], how: st.Bootstrap, if_none: str
) -> dict[str, st.Figure]:
    """`name_before`, `name_after`, and `name_change`: the paired difference, with both values beside it."""
    first = share_of(pairs, lambda pair: value(pair[0]), how, if_none)
    last = share_of(pairs, lambda pair: value(pair[1]), how, if_none)
    earlier, later = ([float(value(pair[when])) for pair in pairs] for when in (0, 1))
    change = st.paired_difference(later, earlier, clusters_of(pairs), how)
    change = replace(change, before=first.value, after=last.value)
    if not pairs:
        change = replace(change, reason=if_none)
    return {f"{name}_before": first, f"{name}_after": last, f"{name}_change": change}
