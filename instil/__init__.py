"""Instil teaches a language model new facts and proves, fact by fact, what it learned, kept, forgot and made up.

>>> import instil
>>> model = instil.load("embedded")  # doctest: +SKIP
>>> facts = instil.FactSet.read("facts.jsonl")  # doctest: +SKIP
>>> taught = instil.teach(model, facts, method="gradual", out="runs/first")  # doctest: +SKIP

Nothing heavy is imported before it is used: `import instil` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from instil.version import __version__

if TYPE_CHECKING:
    from instil.augment import augment
    from instil.errors import InputError, RunFailed
    from instil.facts import Corpus, Document, Fact, FactSet, Role
    from instil.loop import compare, probe_contexts, teach, undo
    from instil.model import load
    from instil.probe import probe
    from instil.report import report

__all__ = [
    "Corpus",
    "Document",
    "Fact",
    "FactSet",
    "InputError",
    "Role",
    "RunFailed",
    "__version__",
    "augment",
    "compare",
    "load",
    "probe",
    "probe_contexts",
    "report",
    "teach",
    "undo",
]

_HOME = {
    "Corpus": "instil.facts",
    "Document": "instil.facts",
    "Fact": "instil.facts",
    "FactSet": "instil.facts",
    "InputError": "instil.errors",
    "Role": "instil.facts",
    "RunFailed": "instil.errors",
    "augment": "instil.augment",
    "compare": "instil.loop",
    "load": "instil.model",
    "probe": "instil.probe",
    "probe_contexts": "instil.loop",
    "report": "instil.report",
    "teach": "instil.loop",
    "undo": "instil.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'instil' has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    return home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Verb(ModuleType):
    """A room that is called as its main verb: `instil.probe(...)` is `instil.probe.probe(...)`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


class _Face(ModuleType):
    """The package itself. Rooms and verbs share names, so a room becomes callable as it is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == value.__name__:
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
