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
    _Card("acquired", "New facts learned", "facts it did not know that it now answers, as they were taught"),
    _Card("acquired_reworded", "Learned in other words", "the same facts, asked in wordings never trained on"),
    _Card("retained", "Old knowledge kept", "facts it knew and was not taught that it still answers"),
    _Card("made_up", "Made up", "facts never taught nor known, answered wrongly and with confidence"),
    _Card("accuracy_target", "Right on taught facts", "every taught fact, whether known before or not"),
    _Card("perplexity", "Perplexity of general text", "lower is better; text about other things", "text", False),
)


def paired_figures(headline: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The summary's figures, with each `name_before` and `name_after` also as one figure `name` that holds both."""
    figures = {str(name): dict(figure) for name, figure in headline.items() if isinstance(figure, Mapping)}
    for name, after in list(figures.items()):
        stem = name.removesuffix("_after")
        before = figures.get(f"{stem}_before")
        if stem == name or stem in figures or before is None:
            continue
        figures[stem] = after | {"before": before.get("value"), "after": after.get("value")}
    return figures


def cards(figures: words.Figures) -> list[dict[str, Any]]:
    """What each card shows; a figure that the exam did not give has no card."""
    return [_card(card, figures[card.figure]) for card in _CARDS if _has_value(figures.get(card.figure))]


def _has_value(figure: Mapping[str, Any] | None) -> bool:
    return figure is not None and figure.get("value") is not None


def _card(card: _Card, figure: Mapping[str, Any]) -> dict[str, Any]:
    say = words.percent if card.share else words.number
    low, high, before = figure.get("low"), figure.get("high"), figure.get("before")
    has_interval = low is not None and high is not None
    return {
        "name": card.figure,
        "label": card.label,
        "meaning": card.meaning,
        "value": say(figure["value"]),
        "before": None if before is None else say(before),
        "change": words.change(figure),
        "interval": words.interval(low, high, share=card.share) if low is not None and high is not None else None,
        "n": _counted(card, figure),
        "range": _range(card, figure) if has_interval else None,
    }


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
