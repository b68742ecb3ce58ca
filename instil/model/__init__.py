"""Checkpoints in, checkpoints out: loading, saving, precision, tokenisation, prompts.

Above this room there is text, below it there are token ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.model.language import LanguageModel
    from instil.model.loading import EMBEDDED, load, outline, save
    from instil.model.prompts import Prompts, PromptStyle

__all__ = ["EMBEDDED", "LanguageModel", "PromptStyle", "Prompts", "load", "outline", "save"]

_HOMES = {
    "LanguageModel": "instil.model.language",
    "EMBEDDED": "instil.model.loading",
    "load": "instil.model.loading",
    "outline": "instil.model.loading",
    "save": "instil.model.loading",
    "PromptStyle": "instil.model.prompts",
    "Prompts": "instil.model.prompts",
}


def __getattr__(name: str) -> Any:
    # Torch and transformers take seconds to import, so they wait until a model is asked for.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
