"""The arms of a comparison: a method with settings, by a name that says what it is.

sft                            a method as it is
sft+replay                     with an addition: replay, kl, lora, osf, sam; several may be added
gradual:replay_ratio=0.5       with a setting of its own; more follow behind further colons
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from instil.errors import InputError
from instil.methods import NAMES

ADDITIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "replay": {"replay_ratio": 0.2},
    "kl": {"kl_weight": 1.0},
    "lora": {"train": {"adapter": {"kind": "lora"}}},
    "osf": {"train": {"adapter": {"kind": "osf"}}},
    "sam": {"train": {"sharpness": {"kind": "sam"}}},
}
"""What `+name` adds to a method's settings. Replay is as much as `gradual` replays by default."""

RATES: Final[Mapping[str, float]] = {"lora": 10.0}
"""Low-rank adapters learn at about ten times the rate that suits all weights; a comparison at one rate would decide
the matter beforehand. Applied to the common learning rate unless the arm sets its own."""

PUBLISHED: Final = (
    "sft",
    "sft+replay",
    "sft+kl",
    "sft+lora",
    "sft+osf",
    "gradual",
    "cpt",
    "cpt_sft",
    "mixed",
    "pit",
    "generalize",
)
"""The published comparison arms."""


@dataclass(frozen=True)
class Arm:
    """One way to teach, compared with others.

    Attributes:
        name: what tables and pictures call it; unique in a comparison.
        method: the method's name.
        additions: keys of `ADDITIONS`.
        own: settings of this arm, which win over the additions' and the common ones.
    """

    name: str
    method: str
    additions: tuple[str, ...] = ()
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name as a folder: letters, digits and `+ - . = _` only, and no dot in front: ".." is another folder."""
        return re.sub(r"[^A-Za-z0-9+.=_-]|^\.", "_", self.name)

    def settings(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """The method's settings: the common ones, then the additions', then the arm's own."""
        merged = deepcopy(dict(common))
        for addition in self.additions:
            merged = overlaid(merged, ADDITIONS[addition])
        for addition in self.additions:
            if addition in RATES and "learning_rate" not in self.own.get("train", {}):
                train = merged.setdefault("train", {})
                train["learning_rate"] = RATES[addition] * float(train.get("learning_rate", _default_rate()))
        return overlaid(merged, self.own)


def read_arms(methods: str | Sequence[str | Arm] | None, file: str | Path | None = None) -> tuple[Arm, ...]:
    """The arms by their names, from the command line's list, a file, or both.

    Args:
        methods: names separated by commas, or a sequence of names and arms.
        file: YAML, a mapping from the arm's name to its settings, with `method` (which may have additions) among them;
            an arm without settings is called by its method.

    Raises:
        InputError: an arm is unknown or named twice, there are fewer than two, or the file is wrong.
    """
    listed = _split(methods) if isinstance(methods, str) else list(methods or ())
    arms = [arm if isinstance(arm, Arm) else parse_arm(arm.strip()) for arm in listed if arm]
    if file is not None:
        arms += _from_file(Path(file))
    seen: dict[str, str] = {}
    for arm in arms:
        if not arm.name.isprintable() or len(arm.name) > 200:
            raise InputError(
                "the name of an arm has control characters or is too long",
                field="--methods",
                found=ascii(arm.name)[:80],
                expected="at most 200 printable characters",
            )
        if arm.folder.lower() in seen:
            raise InputError(
                "two arms have one name", field="--methods", found=f"{seen[arm.folder.lower()]}, {arm.name}"
            )
        seen[arm.folder.lower()] = arm.name
    if len(arms) < 2:
        raise InputError(
            "a comparison needs two arms or more",
            field="--methods",
            found=", ".join(arm.name for arm in arms) or "none",
            expected=f"such as {','.join(PUBLISHED[:2])}",
        )
    return tuple(arms)


def parse_arm(text: str) -> Arm:
    """One arm from its name, see the module's text.

    Raises:
        InputError: the method, an addition or a setting is none.
    """
    import yaml

    called, *given = text.split(":")
    method, additions = _called(called)
    own: dict[str, Any] = {}
    for setting in given:
        key, found, value = setting.partition("=")
        if not found or not key.strip("."):
            raise InputError(
                "an arm's setting without a value", field="--methods", found=text, expected="name:key=value"
            )
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError("an arm's setting cannot be read", field="--methods", found=text) from None
        own = overlaid(own, _nested(key.strip(), read))
    return Arm(text, method, additions, own)


def _split(names: str) -> list[str]:
    """At the commas that stand outside of brackets, which belong to a setting's value."""
    return [part for part in re.split(r",(?![^\[{(]*[\]})])", names) if part.strip()]


def _from_file(file: Path) -> list[Arm]:
    from instil.loop.inputs import read_config

    arms = []
    for name, given in read_config(file).items():
        if given is not None and not isinstance(given, Mapping):
            raise InputError("an arm's settings must be a mapping", file=file, field=str(name), found=str(given)[:80])
        own = dict(given or {})
        called = own.pop("method", name)
        if not isinstance(name, str) or not isinstance(called, str) or not name.strip():
            raise InputError("an arm needs a name and a method", file=file, field=str(name), found=str(called)[:80])
        method, additions = _called(called)
        arms.append(Arm(name, method, additions, own))
    return arms


def _called(name: str) -> tuple[str, tuple[str, ...]]:
    method, *additions = name.strip().split("+")
    if method not in NAMES:
        raise InputError("there is no such method", field="--methods", found=repr(name), expected=" | ".join(NAMES))
    for addition in additions:
        if addition not in ADDITIONS:
            expected = " | ".join(f"+{known}" for known in ADDITIONS)
            raise InputError("there is no such addition", field="--methods", found=repr(name), expected=expected)
    return method, tuple(additions)


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings as one; where both have a value `above` wins, and mappings are joined in turn."""
    joined = deepcopy(dict(below))
    for key, value in above.items():
        held = joined.get(key)
        joined[key] = overlaid(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return joined


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _default_rate() -> float:
    from instil.training import TrainConfig

    return TrainConfig().learning_rate
