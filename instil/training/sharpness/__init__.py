"""Sharpness-aware minimization: the gradient is taken at weights that were moved a little first.

`settings` says what may be chosen, `directions` where the weights are moved to, `moving` how they get there and back,
`window` what each pass reads, `step` is the whole as one function; `sharpener` ties it to a training run.
"""

from __future__ import annotations

from instil.training.sharpness.settings import KINDS, SharpnessConfig

__all__ = ["KINDS", "SharpnessConfig"]
