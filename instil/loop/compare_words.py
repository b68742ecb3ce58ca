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
    sentences = [_best(arms, summary["pairs"], measure) for measure in ("learned", "lost")]
    return {"title": sentences[0], "sentences": sentences, "equal": equal}


def _lowered(sentences: Sequence[str], arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every sentence but the first begins small, unless it begins with an arm's name."""
    names = tuple(arm["name"] for arm in arms)
    return [
        sentence if place == 0 or sentence.startswith(names) else sentence[:1].lower() + sentence[1:]
        for place, sentence in enumerate(sentences)
    ]


def _best(arms: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], measure: str) -> str:
    """The arm with the best value, whom it is shown to beat, and against whom nothing can be shown."""
    known = [arm for arm in arms if arm["figures"][measure]["value"] is not None]
    most = measure == "learned"
    if not known:
        what = "No target fact was unknown" if most else "No held-back fact was known"
        return f"{what} before, so nothing can be said of what was {measure} (n = 0)."
    best = sorted(known, key=lambda arm: float(arm["figures"][measure]["value"]), reverse=most)[0]
    beaten: list[str] = []
    others: list[str] = []
    for pair in pairs:
        if pair["measure"] == measure and best["name"] in (pair["first"], pair["second"]):
            other = pair["second"] if pair["first"] == best["name"] else pair["first"]
            (beaten if pair["shown"] else others).append(other)
    figure = best["figures"][measure]
    share = f"{100 * figure['value']:.0f} % of {figure['n']:,} {'new' if most else 'known'} facts"
    if not beaten:
        what = "new facts learned" if most else "known facts lost"
        return f"In {what}, no difference can be shown between {best['name']} ({share}) and {_listed(others)}."
    claim = f"{best['name']} {measure} {share}, {'more' if most else 'fewer'} than {_listed(beaten)}"
    return claim + (f"; against {_listed(others)} no difference can be shown." if others else ".")


def equal_compute(summary: Mapping[str, Any]) -> list[str]:
    """Which arms ended before the budget because their method was done, and which went over it."""
    early: list[str] = []
    over: list[str] = []
    for arm in summary["arms"]:
        shares = {run["seed"]: (run["ended"], run["of_budget"]) for run in arm["runs"]}
        above = [share for ended, share in shares.values() if ended == "over the budget"]
        below = [share for ended, share in shares.values() if ended == "when the method was done"]
        if above:
            over.append(f"{arm['name']} ({100 * max(above):.0f} %)")
        elif below:
            some = "" if len(below) == len(shares) else f" in {len(below)} of {len(shares)} runs"
            early.append(f"{arm['name']} ({100 * min(below):.0f} %{some})")
    lines = []
    if over:
        lines.append(
            f"Spent more than the budget, since what a method decides by is charged before it trains: {_listed(over)}. "
            "Shown, but compared with none."
        )
    if early:
        least = "" if len(summary["seeds"]) == 1 else ", at least"
        lines.append(f"Ended early, since the method was done, at this share of the budget{least}: {_listed(early)}.")
    return lines


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
