"""What a run ends with, where that is not the last weights: their average over the last updates, or a mixture with the
weights that it started from.

Single updates are noisy, the more so where new facts and what holds the old ones pull apart; their average is not. And
what is learned beyond need survives a smaller update, while answers that were hardly surer than others come back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from instil.training.config import TrainConfig

FILE = "average.safetensors"
"""In a checkpoint: the average so far."""


class Ending:
    """The weights that a run hands on, made of those in training.

    With `average` β the mean m of the weights after each update, one update ago counting β times as much as now
    (exponential moving average; Polyak and Juditsky 1992, Morales-Brotons et al. 2024, arXiv 2411.18704). The starting
    weights are no part of it, so that a short run is not held back. With `mix` α the run ends with
    w₀ + α (m − w₀), w₀ the weights that it started from (WiSE-FT; Wortsman et al. 2022, arXiv 2109.01903). Whoever
    looks at the model between epochs sees what it would end with.

    Args:
        trained: the parameters as training finds them, by name.
    """

    def __init__(self, config: TrainConfig, trained: Mapping[str, nn.Parameter]) -> None:
        self.decay, self.mix, self.trained = config.average, config.mix, trained
        self._start = self._copies() if self.mix is not None else {}
        self._mean = self._copies() if self.decay is not None else {}

    @property
    def is_last(self) -> bool:
        """Whether it is simply the last weights."""
        return self.decay is None and self.mix is None

    def moved(self, step: int) -> None:
        """To be told of every update.

        Args:
            step: its number, from 1.
        """
        if self.decay is not None:
            share = (1 - self.decay) / (1 - self.decay**step)
            with torch.no_grad():
                for name, weight in self.trained.items():
                    self._mean[name].lerp_(weight, share)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model as it would end here; afterwards it is in training again."""
        if self.is_last:
            yield
            return
        kept = self._copies()
        self.settle()
        try:
            yield
        finally:
            self._put(kept)

    def settle(self) -> None:
        """Make the weights in training those that the run ends with."""
        if self.decay is not None:
            self._put(self._mean)
        if self.mix is not None:
            with torch.no_grad():
                for name, weight in self.trained.items():
                    weight.copy_(torch.lerp(self._start[name], weight, self.mix))

    def save(self, checkpoint: Path) -> None:
        from instil.training.checkpoints import save_weights

        if self.decay is not None:
            save_weights(self._mean, checkpoint / FILE)

    def load(self, checkpoint: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            RunFailed: it cannot be read.
        """
        from instil.training.checkpoints import read_weights

        if self.decay is not None:
            for name, mean in read_weights(checkpoint / FILE).items():
                self._mean[name].copy_(mean)

    def _copies(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.trained.items()}

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(weights[name])
