"""Activations computed again in the backward pass instead of kept: less memory, a third more compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from instil.errors import InputError


@contextmanager
def recomputing(model: Any, wanted: bool) -> Iterator[None]:
    """Let `model` compute its layers again in every backward pass inside this block, if it is wanted.

    Raises:
        InputError: the model cannot.
    """
    if not wanted:
        yield
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise InputError(
            "this model cannot compute activations again",
            field="train.gradient_checkpointing",
            found=type(model).__name__,
        )
    _enable(model)
    try:
        yield
    finally:
        _disable(model)


def _enable(model: Any) -> None:
    # Of the two kinds, only this one works where the inputs need no gradient, as under adapters.
    kind = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its newer name
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kind)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kind)


def _disable(model: Any) -> None:
    if hasattr(model, "activation_checkpointing_disable"):
        model.activation_checkpointing_disable()
    else:
        model.gradient_checkpointing_disable()
