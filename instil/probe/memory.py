"""What to do when memory runs out, and how much of it was used."""

from __future__ import annotations

import gc
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
)


LOGITS = 1 << 25
"""Logits that one pass may give."""


@dataclass(frozen=True)
class Limits:
    """What one batch may hold, first of questions and then of their answers' trees.

    Attributes:
        tokens: tokens computed at once, prefixes not counted.
        logits: logits given at once.
    """

    tokens: int
    logits: int

    def halved(self, tokens: int, logits: int) -> Limits:
        """Half of these limits, or of what a batch of so many tokens and logits used of them."""
        return Limits(max(1, min(self.tokens, tokens) // 2), max(1, min(self.logits, logits) // 2))

    def within(self, other: Limits) -> Limits:
        """What both allow."""
        return Limits(min(self.tokens, other.tokens), min(self.logits, other.logits))


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether a forward pass failed because there was no memory for it, on a GPU or off it."""
    import torch

    if isinstance(fault, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(sign in str(fault).lower() for sign in _SIGNS)


def release() -> None:
    """Give back what nobody refers to any more. Not to be called while a fault is handled: its frames hold tensors."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_mb() -> float:
    """Most memory that this process ever held, in MB of 2**20 bytes.

    `getrusage` would count what the parent held before the fork, so it is asked only where there is no /proc.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        found = next((line.split()[1] for line in lines if line.startswith("VmHWM")), None)
        if found is not None:
            return int(found) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
