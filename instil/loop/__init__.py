"""The one loop: facts, probe, teach, the same frozen exam, verdicts, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.loop.run import TeachResult, teach

__all__ = ["TeachResult", "teach"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("instil.loop.run"), name)
    raise AttributeError(name)
