"""Starting points by the size of a model. Each says what it rests on; none of them was tuned by Instil at its size,
but for the smallest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from instil.errors import InputError

AUTO: Final = "auto"

_NOT_MEASURED = "not measured by Instil at this size"
_MEMORY = "gradient checkpointing: arithmetic, 16 bytes a weight for weights, gradients and AdamW leave little for more"


@dataclass(frozen=True)
class Preset:
    """Settings of `train` for models of about one size.

    Attributes:
        name: what `--preset` calls it.
        most_parameters: the largest model that `auto` chooses it for.
        train: the settings; what the user gives comes first.
        rests_on: why these, and whether that was measured here.
    """

    name: str
    most_parameters: float
    train: Mapping[str, Any]
    rests_on: str

    def under(self, train: Mapping[str, Any]) -> dict[str, Any]:
        """The user's settings of `train`, with the preset's where the user gave none."""
        mine = dict(self.train)
        if train.get("batch_size") is not None or train.get("batch_tokens") is not None:
            mine.pop("batch_size", None)
            mine.pop("batch_tokens", None)
        if train.get("adapter") is not None:
            mine["learning_rate"] = 10 * mine["learning_rate"]
        return {**mine, **train}

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "train": dict(self.train), "rests_on": self.rests_on}

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.train.items())
        return f"preset {self.name}: {settings} ({self.rests_on})"


def _preset(name: str, most: float, rate: float, tokens: int, rests_on: str, *, recompute: bool = False) -> Preset:
    train = {
        "learning_rate": rate,
        "batch_tokens": tokens,
        "precision": "auto",
        "gradient_checkpointing": recompute,
    }
    return Preset(name, most, train, rests_on)


_DEFAULT_RATE = "the rate is the default of transformers' Trainer; the batch is about 40 short questions"
_TUNED_RATE = "the rate at which Alpaca and Llama 2 (2307.09288) were tuned at 7 B, taken for smaller models too"
_LOW_RATE = "half the rate at which Alpaca and Llama 2 (2307.09288) were tuned at 7 B, since facts are few and repeated"

PRESETS: Final = (
    Preset(
        "tiny",
        5e7,
        {"learning_rate": 1e-4, "batch_size": 16, "precision": "auto", "gradient_checkpointing": False},
        "the settings of the demo, tried at 5.9 M parameters",
    ),
    _preset("0.1b", 3e8, 5e-5, 1024, f"{_DEFAULT_RATE}; {_NOT_MEASURED}"),
    _preset("0.6b", 1e9, 2e-5, 1024, f"{_TUNED_RATE}; {_NOT_MEASURED}"),
    _preset("1.7b", 2.5e9, 2e-5, 1024, f"{_TUNED_RATE}; {_NOT_MEASURED}"),
    _preset("4b", 5e9, 1e-5, 2048, f"{_LOW_RATE}; {_MEMORY}; {_NOT_MEASURED}", recompute=True),
    _preset("8b", 1.5e10, 1e-5, 2048, f"{_LOW_RATE}; {_MEMORY}; {_NOT_MEASURED}", recompute=True),
)


def named(name: str) -> Preset | None:
    """The preset of this name; None for "auto", which needs the model's size.

    Raises:
        InputError: there is none.
    """
    if name == AUTO:
        return None
    found = next((preset for preset in PRESETS if preset.name == name.lower()), None)
    if found is None:
        raise InputError(
            "there is no such preset",
            field="--preset",
            found=repr(name),
            expected=" | ".join((AUTO, *(preset.name for preset in PRESETS))),
        )
    return found


def for_size(parameters: int) -> Preset:
    """The preset for a model of so many parameters.

    Raises:
        InputError: it is larger than any preset is for.
    """
    found = next((preset for preset in PRESETS if parameters <= preset.most_parameters), None)
    if found is None:
        raise InputError(
            "there is no preset for a model of this size",
            field="--preset",
            found=f"{parameters:,} parameters",
            expected=f"at most {PRESETS[-1].most_parameters:,.0f}, or settings of your own",
        )
    return found
