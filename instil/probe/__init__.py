"""How well a model has mastered facts: exact scoring, decoding, sampling, categories.

The definitions are SliCK's (Gekhman et al. 2024, arXiv 2405.05904, section 2), computed exactly instead of by sampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instil.probe.categories import Category, any_of, categorise
from instil.probe.config import ProbeConfig
from instil.probe.exemplars import Exemplar, ExemplarSets, draw_exemplars, exemplar_sets
from instil.probe.guessing import could_be_guessed
from instil.probe.mastery import Mastery, MasteryMap
from instil.probe.questions import Asked, Question, questions_of

if TYPE_CHECKING:
    from instil.probe.asking import ask
    from instil.probe.perplexity import next_token_nll
    from instil.probe.recalling import Recalled, Recited, may_be_replayed, naming, recall, recite
    from instil.probe.run import probe

__all__ = [
    "Asked",
    "Category",
    "Exemplar",
    "ExemplarSets",
    "Mastery",
    "MasteryMap",
    "ProbeConfig",
    "Question",
    "Recalled",
    "Recited",
    "any_of",
    "ask",
    "categorise",
    "could_be_guessed",
    "draw_exemplars",
    "exemplar_sets",
    "may_be_replayed",
    "naming",
    "next_token_nll",
    "probe",
    "questions_of",
    "recall",
    "recite",
]

_HOMES = {
    "Recalled": "instil.probe.recalling",
    "Recited": "instil.probe.recalling",
    "ask": "instil.probe.asking",
    "next_token_nll": "instil.probe.perplexity",
    "probe": "instil.probe.run",
    "may_be_replayed": "instil.probe.recalling",
    "naming": "instil.probe.recalling",
    "recall": "instil.probe.recalling",
    "recite": "instil.probe.recalling",
}


def __getattr__(name: str) -> Any:
    # What needs torch waits until it is asked for.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
