"""The cards of the headline: one figure each, with its interval, its n, and whether it moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instil.report import words


@dataclass(frozen=True)
class _Card:
    figure: str
    label: str
    meaning: str
    counted: str = "fact"
    share: bool = True


_CARDS = (
    _Card("acquired", "New facts learned", "facts it did not know and was taught: known now, as they were worded"),
    _Card("acquired_reworded", "Learned in other words", "the same facts, known in most wordings never trained on"),
    _Card(
        "acquired_from_documents",
        "Learned from documents",
        "facts that a taught document tells; no question trained on",
    ),
    _Card("retained", "Old knowledge kept", "facts it knew and was not taught: still known"),
    _Card("earlier_retained", "Earlier lessons kept", "facts that earlier lessons taught and it knew: still known"),
    _Card("made_up", "Made up", "facts never taught nor known: answered wrongly, with confidence"),
    _Card("accuracy_target", "Right on taught facts", "right answers over all prompts; known before or not"),
    _Card("perplexity", "Perplexity of general text", "lower is better; text about other things", "text", False),
)


def paired_figures(headline: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The summary's figures, with each `name_before` and `name_after` also as one figure `name` that holds both.

    Where the exam gives the interval of the change (`name_change`, or `name_ratio` of the later to the earlier value),
    it becomes the figure's `difference`: {"low", "high"}.
    """
    figures = {str(name): dict(figure) for name, figure in headline.items() if isinstance(figure, Mapping)}
    for name, after in list(figures.items()):
        stem = name.removesuffix("_after")
        before = figures.get(f"{stem}_before")
        if stem == name or stem in figures or before is None:
            continue
        figures[stem] = after | {"before": before.get("value"), "after": after.get("value")}
        if difference := _difference(figures, stem):
            figures[stem]["difference"] = difference
    return figures


def _difference(figures: words.Figures, stem: str) -> dict[str, float] | None:
    change, ratio = figures.get(f"{stem}_change", {}), figures.get(f"{stem}_ratio", {})
    if _has_interval(change):
        return {"low": change["low"], "high": change["high"]}
    before = figures[stem].get("before")
    if _has_interval(ratio) and before is not None:
        return {"low": before * (ratio["low"] - 1), "high": before * (ratio["high"] - 1)}
    return None


def _has_interval(figure: Mapping[str, Any]) -> bool:
    return figure.get("low") is not None and figure.get("high") is not None


def cards(figures: words.Figures, noun: str = "fact") -> list[dict[str, Any]]:
    """What each card shows; a figure that the exam does not have gets no card, one that it could not give says why.

    Args:
        noun: what is counted: facts, or the items that stand in their place.
    """
    made = [_card(card, figures[card.figure]) for card in _CARDS if card.figure in figures]
    told = ("label", "meaning", "n", "reason")
    return [card | {name: words.told_of(noun, card[name]) for name in told if card[name]} for card in made]


def _card(card: _Card, figure: Mapping[str, Any]) -> dict[str, Any]:
    say = words.percent if card.share else words.number
    value, before = figure.get("value"), figure.get("before")
    measured = value is not None and _has_interval(figure)
    return {
        "name": card.figure,
        "label": card.label,
        "meaning": card.meaning,
        "value": None if value is None else say(value),
        "before": None if before is None or value is None else say(before),
        "change": words.change(figure),
        "interval": words.interval(figure["low"], figure["high"], share=card.share) if measured else None,
        "moved": _moved(card, figure) if measured else None,
        "n": _counted(card, figure),
        "reason": figure.get("reason"),
        "range": _range(card, figure) if measured else None,
    }


def _moved(card: _Card, figure: Mapping[str, Any]) -> str | None:
    """The interval of the change itself, which is narrower than that of what came after: the same facts were asked."""
    if not (difference := figure.get("difference")):
        return None
    if not card.share:
        return " to ".join(("+" if end > 0 else "") + words.number(end) for end in difference.values())
    return f"{100 * difference['low']:+.0f} to {100 * difference['high']:+.0f} points"


def _counted(card: _Card, figure: Mapping[str, Any]) -> str:
    if not figure.get("n"):
        return ""
    text = words.plural(int(figure["n"]), card.counted)
    clusters = figure.get("clusters")
    return f"{text} about {words.plural(int(clusters), 'subject')}" if clusters and card.counted == "fact" else text


def _range(card: _Card, figure: Mapping[str, Any]) -> dict[str, float | None]:
    """Places on the card's scale, in percent of its width; shares run from 0 to 100 %, other figures from 0."""
    top = 1.0 if card.share else 1.15 * max(figure["high"], figure["value"], figure.get("before") or 0) or 1.0
    places = {name: figure.get(name) for name in ("low", "high", "value", "before")}
    return {name: None if place is None else round(100 * place / top, 2) for name, place in places.items()}
