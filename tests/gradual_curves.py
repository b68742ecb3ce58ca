"""Curves of the study of gradual learning, made by hand."""

from __future__ import annotations

from typing import Any


def look(taught: str, held_back: str, **more: Any) -> dict[str, Any]:
    end = {"made_up": "01-", "nll": 10.0, "nll_tokens": 5}
    return {"taught": taught, "taught_of": 4, "held_back": held_back, "held_back_of": 2, **end, **more}


CURVE = [look("0000", "2222"), look("0400", "2202"), look("0444", "2002"), look("4444", "0000")]
"""Acquired 0, 25, 75, 100 %; lost 0, 25, 50, 100 points."""
