"""The one loop: facts, probe, teach, the same frozen exam, verdicts, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.loop.run import TeachResult, teach
    from instil.loop.undoing import Undone, undo

__all__ = ["TeachResult", "Undone", "teach", "undo"]

_HOME = {"TeachResult": "run", "Undone": "undoing", "teach": "run", "undo": "undoing"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"instil.loop.{_HOME[name]}"), name)
    raise AttributeError(name)
