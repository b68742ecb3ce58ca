"""Controlled worlds: facts that a base model has seen a known number of times, and the base model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.worlds.embedded import DEMO_SETTINGS, demo_facts, embedded_world
    from instil.worlds.pretrain import PretrainConfig
    from instil.worlds.world import World, WorldConfig, generate_world

__all__ = ["DEMO_SETTINGS", "PretrainConfig", "World", "WorldConfig", "demo_facts", "embedded_world", "generate_world"]

_HOME = {
    "DEMO_SETTINGS": "embedded",
    "PretrainConfig": "pretrain",
    "World": "world",
    "WorldConfig": "world",
    "generate_world": "world",
    "demo_facts": "embedded",
    "embedded_world": "embedded",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    # `pretrain` itself stays in its module: a function of that name here would be hidden by the module once imported.
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
