"""The result of a comparison in plain words: what a reader is told first. No claim without n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """{"title": one sentence, "sentences": [...], "equal": how equal the compute was}."""
    arms = [arm for arm in summary["arms"] if arm["compared"]]
    equal = equal_compute(summary)
    if len(arms) < 2:
        return {"title": "There are not two arms that can be compared.", "sentences": [], "equal": equal}
    if len(arms) == 2:
        sentences = [pair["sentence"] for pair in summary["pairs"]]
        title = "; ".join(sentence.removesuffix(".") for sentence in _lowered(sentences, arms)) + "."
        return {"title": title, "sentences": sentences, "equal": equal}
    learned, lost = (_best(arms, summary["pairs"], measure) for measure in ("learned", "lost"))
    return {"title": learned or lost or "Nothing could be measured.", "sentences": [s for s in (learned, lost) if s],
            "equal": equal}  # fmt: skip


def _lowered(sentences: Sequence[str], arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every sentence but the first begins small, unless it begins with an arm's name."""
    names = tuple(arm["name"] for arm in arms)
    return [
        sentence if place == 0 or sentence.startswith(names) else sentence[:1].lower() + sentence[1:]
        for place, sentence in enumerate(sentences)
    ]


def _best(arms: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], measure: str) -> str | None:
    """The arm with the best value, whom it is shown to beat, and against whom nothing can be shown."""
    known = [arm for arm in arms if arm["figures"][measure]["value"] is not None]
    if not known:
        return None
    most = measure == "learned"
    best = sorted(known, key=lambda arm: arm["figures"][measure]["value"], reverse=most)[0]
    figure = best["figures"][measure]
    beaten, open_ = [], []
    for pair in pairs:
        if pair["measure"] == measure and best["name"] in (pair["first"], pair["second"]):
            other = pair["second"] if pair["first"] == best["name"] else pair["first"]
            (beaten if pair["shown"] else open_).append(other)
    n = f"{figure['n']:,}"
    verb, kind = ("learned", f"{n} new facts") if most else ("lost", f"{n} known facts")
    claim = f"{best['name']} {verb} {100 * figure['value']:.0f} % of {kind}"
    if beaten:
        claim += f", {'more' if most else 'fewer'} than {_listed(beaten)}"
        return claim + (f"; against {_listed(open_)} no difference can be shown." if open_ else ".")
    return f"{claim}, the {'most' if most else 'fewest'}, but against {_listed(open_)} no difference can be shown."


def equal_compute(summary: Mapping[str, Any]) -> list[str]:
    """Which arms ended before the budget because their method was done, and which went over it."""
    lines = []
    for arm in summary["arms"]:
        early = [run for run in arm["runs"] if run["ended"] == "when the method was done"]
        over = [run for run in arm["runs"] if run["ended"] == "over the budget"]
        if over:
            most = max(run["of_budget"] for run in over)
            lines.append(
                f"{arm['name']} spent up to {100 * most:.0f} % of the budget (what it decides by is charged before it "
                "trains): it is shown, and compared with none."
            )
        elif early:
            least = min(run["of_budget"] for run in early)
            runs = "" if len(early) == len(arm["runs"]) else f" in {len(early)} of {len(arm['runs'])} runs"
            lines.append(
                f"{arm['name']} ended early{runs}, since its method was done: it spent {100 * least:.0f} % of the budget"
                f"{' or more' if len(early) > 1 else ''}."
            )
    return lines


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
