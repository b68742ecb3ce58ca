"""Which states of a model stay on disk when a lesson is done, and how much room they take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from instil.errors import InputError

if TYPE_CHECKING:
    from instil.loop.inputs import Inputs
    from instil.model import LanguageModel

AFTER: Final = "after"
STAGES: Final = "stages"
ALL: Final = "all"
KEEP: Final = {
    AFTER: "the taught model alone",
    STAGES: "the model after each stage, and the taught one",
    ALL: "the starting model, the model after each stage, and the taught one",
}
"""What can be kept, in words."""


def check_keep(keep: str) -> str:
    """Raises `InputError` unless `keep` is one of `KEEP`."""
    if keep not in KEEP:
        raise InputError(
            "there is no such choice of states to keep", field="--keep-states", found=keep, expected=" | ".join(KEEP)
        )
    return keep


@dataclass(frozen=True)
class KeptStates:
    """The folder in which a run keeps states of its model, each a checkpoint that loads with plain transformers.

    Attributes:
        folder: it holds one folder a state, "0-before", "1-stage-1", …
        keep: one of `KEEP`. The taught model is kept elsewhere, and always.
    """

    folder: Path
    keep: str

    def path(self, order: int, label: str) -> Path:
        return self.folder / f"{order}-{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')}"

    def before(self, model: LanguageModel) -> Path | None:
        """Keep the starting model, if that is wanted; where it then is."""
        return self._kept(model, 0, "before") if self.keep == ALL else None

    def stage(self, label: str, order: int, model: LanguageModel) -> Path | None:
        """Keep the model after a stage, if that is wanted; where it then is."""
        return self._kept(model, order, label) if self.keep in (STAGES, ALL) else None

    def _kept(self, model: LanguageModel, order: int, label: str) -> Path:
        from instil.model import save

        path = self.path(order, label)
        if not path.exists():  # It appears whole or not at all, so what is there was kept by the run that is resumed.
            save(model, path)
        return path


def state_bytes(inputs: Inputs) -> int:
    """Of one state on disk: its weights, at the precision of the starting model; tied ones once."""
    return sum(weight.numel() * weight.element_size() for weight in inputs.model.model.parameters())


def states_kept(inputs: Inputs, keep: str) -> int:
    """How many states stay on disk; an upper bound for a method that may end before its last stage."""
    from instil.loop.footprint import stages_of

    return 1 + (stages_of(inputs) if keep in (STAGES, ALL) else 0) + (keep == ALL)


def kept_in_words(inputs: Inputs, keep: str) -> str:
    """Which states stay on disk, and how much room they take."""
    from instil.report.words import plural, scaled

    count = states_kept(inputs, keep)
    return f"keeping {KEEP[keep]}: {plural(count, 'state')}, about {scaled(count * state_bytes(inputs), 'B')} on disk"
