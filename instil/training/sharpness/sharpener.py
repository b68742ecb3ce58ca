"""A sharpness-aware step tied to a training run: when it stands where, what it logs, what a checkpoint holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training.sharpness.directions import moved_names
from instil.training.sharpness.moving import Realised
from instil.training.sharpness.settings import SharpnessConfig
from instil.training.sharpness.step import Kept, Moment, sharpness_aware_step
from instil.training.step import Step


class Sharpener:
    """The sharpness-aware steps of one run.

    Attributes:
        kept: what stays from step to step, looksam's direction among it.

    Raises:
        InputError: no trained weight is among those to be moved.
    """

    def __init__(self, config: SharpnessConfig, model: nn.Module, *, seed: int, autocast: torch.dtype | None) -> None:
        moved_names(model, config)
        self.config, self.seed, self.autocast = config, seed, autocast
        self.kept = Kept()
        self._begun: int | None = None
        self._warned = False

    def at(self, step: int, progress: float, optimizer: Any) -> Step:
        """The step function for step number `step` (from 0), when `progress` of the run, from 0 to 1, is over."""
        if self._begun is None and self.config.begins(progress):
            self._begun = step

        def momentum(parameter: nn.Parameter) -> Tensor | None:
            mean = optimizer.state.get(parameter, {}).get("exp_avg")
            return mean if isinstance(mean, Tensor) else None

        moment = Moment(step, self._begun, self.seed, momentum, self.autocast)
        return partial(sharpness_aware_step, config=self.config, moment=moment, kept=self.kept)

    @staticmethod
    def check_wrapping(model: nn.Module, *, deepspeed: bool) -> None:
        """Refuse shardings under which a rank cannot know the norm of the gradient.

        Raises:
            InputError: the model is sharded by DeepSpeed or by the first version of FSDP.
        """
        from torch.distributed.fsdp import FullyShardedDataParallel

        first = any(isinstance(module, FullyShardedDataParallel) for module in model.modules())
        if deepspeed or first:
            raise InputError(
                "sharpness-aware steps need weights and gradients that say how they are sharded",
                field="train.sharpness",
                found="DeepSpeed" if deepspeed else "FSDP version 1",
                expected="one process, DDP, or FSDP version 2",
            )

    # ---- what is told ----

    def figures(self) -> dict[str, float]:
        """The last move that was compared, for the learning curve."""
        found = self.kept.realised
        if found is None:
            return {}
        return {
            "move_norm": found.norm,
            "move_intended": found.intended,
            "move_cosine": found.cosine,
        }

    def warning(self, step: int) -> str | None:
        """Once a run: that a move is mostly rounding."""
        found = self.kept.realised
        if self._warned or found is None or not found.is_mostly_rounding:
            return None
        self._warned = True
        seen = f" as {str(self.autocast).split('.')[1]}, which the forward pass reads," if self.autocast else ""
        return (
            f"sharpness: the move of the weights is mostly rounding from step {step} on:{seen} its length is "
            f"{found.norm:.3g} instead of {found.intended:.3g}, its cosine to what was intended {found.cosine:.2f}; "
            "give a larger rho or precision fp32"
        )

    # ---- what a checkpoint holds ----

    def remembered(self) -> dict[str, Any]:
        found = self.kept.realised
        realised = None if found is None else asdict(found)
        return {"warned": self._warned, "begun": self._begun, "realised": realised}

    def recall(self, plain: Mapping[str, Any]) -> None:
        found = plain.get("realised")
        self._warned, self._begun = bool(plain.get("warned")), plain.get("begun")
        self.kept.realised = None if found is None else Realised(**found)

    def save(self, folder: Path, rank: int, *, sharded: bool) -> None:
        """Write looksam's direction, if there is one; of sharded weights each rank its part."""
        if self.kept.direction and (sharded or rank == 0):
            from instil.training.checkpoints import save_weights

            save_weights(self.kept.direction, self.file(folder, rank, sharded=sharded))

    def load(self, folder: Path, rank: int, model: nn.Module, *, sharded: bool) -> None:
        """Read back what `save` wrote.

        Raises:
            RunFailed: it cannot be read.
        """
        file = self.file(folder, rank, sharded=sharded)
        if file.is_file():
            from instil.training.checkpoints import read_weights

            device = next(model.parameters()).device
            self.kept.direction = {name: part.to(device) for name, part in read_weights(file).items()}

    @staticmethod
    def file(folder: Path, rank: int, *, sharded: bool) -> Path:
        return folder / (f"sharpness-{rank}.safetensors" if sharded else "sharpness.safetensors")
