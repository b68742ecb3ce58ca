"""The one loop: facts, probe, teach, the same frozen exam, verdicts, report; and several of them side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.loop.compare_run import Comparison, compare
    from instil.loop.contexts import probe_contexts
    from instil.loop.run import TeachResult, teach
    from instil.loop.undoing import Undone, undo

_HOME = {
    "Comparison": "compare_run",
    "TeachResult": "run",
    "Undone": "undoing",
    "compare": "compare_run",
    "probe_contexts": "contexts",
    "teach": "run",
    "undo": "undoing",
}

__all__ = ["Comparison", "TeachResult", "Undone", "compare", "probe_contexts", "teach", "undo"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"instil.loop.{_HOME[name]}"), name)
    raise AttributeError(name)
