"""The arms of the study of gradual learning: published ones, controls, and what the search found."""

from __future__ import annotations

from typing import Any

from instil.methods.mentor.method import RECIPES
from instil.probe import Category
from studies.gradual_run import Arm

FINE_TUNING, ONE_STAGE, GRADUAL, MENTOR = "sft", "one stage, MaybeKnown", "gradual", "mentor"
PUBLISHED = (FINE_TUNING, "sft, replay", "sft, KL", "sft, LoRA", "sft, OSF", ONE_STAGE, GRADUAL)
"""Arms from which the one to beat is taken."""


def natural_arms() -> list[Arm]:
    """All facts as they come: to the last epoch, and stopped early; then with what is commonly added."""
    return [
        Arm(name=FINE_TUNING, method="sft"),
        Arm(name="sft, early stop", method="sft", settings={"early_stop": True}, like=FINE_TUNING, once=True),
        Arm(
            name="sft, replay",
            method="sft",
            settings={"replay_ratio": 0.5},
            grid={"replay_ratio": (0.25, 0.5)},
            once=True,
        ),
        Arm(name="sft, KL", method="sft", settings={"kl_weight": 1.0}, grid={"kl_weight": (1.0, 3.0, 10.0)}, once=True),
        Arm(
            name="sft, LoRA",
            method="sft",
            settings={"train": {"adapter": {"kind": "lora"}}},
            rate_factor=5.0,
            once=True,
        ),
        Arm(
            name="sft, OSF",
            method="sft",
            settings={"train": {"adapter": {"kind": "osf"}}},
            grid={"train.adapter.preserved": (0.5, 0.9)},
            rate_factor=4.0,
            once=True,
        ),
    ]


def one_category_arms() -> list[Arm]:
    """One category of the taught facts only: to the last epoch, and stopped early."""
    found = []
    for category in Category:
        settings: dict[str, Any] = {"categories": [str(category)]}
        early = {**settings, "early_stop": True}
        one_stage = category is Category.MAYBE_KNOWN
        name = ONE_STAGE if one_stage else f"{category} only, early stop"
        like = "" if one_stage else FINE_TUNING
        found += [
            Arm(
                name=f"{category} only",
                method="sft",
                settings=settings,
                like=like or ONE_STAGE,
                epoch_factor=2,
                once=True,
            ),
            Arm(name=name, method="sft", settings=early, like=like, epoch_factor=2, once=not one_stage),
        ]
    return found


def gradual_arms() -> list[Arm]:
    """The paper's two stages."""
    return [
        Arm(name=GRADUAL, method="gradual"),
        Arm(
            name="gradual, to the last epoch", method="gradual", settings={"early_stop": False}, like=GRADUAL, once=True
        ),
        Arm(name="gradual, no replay", method="gradual", settings={"replay_ratio": 0.0}, like=GRADUAL, once=True),
    ]


def control_arms() -> list[Arm]:
    """The paper's two stages with one part changed, and what else its stages are to be compared with. Each takes the
    tuned rate of the arm that it is a control of."""

    def control(name: str, method: str, like: str, **more: Any) -> Arm:
        once, settings = more.pop("once", True), more
        return Arm(name=name, method=method, settings=settings, like=like, once=once)

    all_again = {"start_categories": [], "joining": "nothing"}
    return [
        control("gradual, random facts", "staged", GRADUAL, joining="random", once=False),
        control("gradual, stage 2 from the base", "staged", GRADUAL, from_base=True),
        control("gradual, three stages", "staged", GRADUAL, stages=3),
        control("gradual, replay only", "staged", GRADUAL, joining="nothing", replay_alone=True),
        control("two rounds", "staged", FINE_TUNING, **all_again, replay_ratio=0.0, once=False),
        control("two rounds, replay", "staged", FINE_TUNING, **all_again, replay_from="start"),
        control("nothing taught, replay only", "known_only", FINE_TUNING),
        control("weighed by p", "by_probability", FINE_TUNING),
    ]


def mentor_arms() -> list[Arm]:
    """What the search found, no more compute than the published KL term; each of its ingredients left out; and plain
    fine-tuning with one of them, its wordings or its updates."""

    def mentor(name: str, *, tuned: tuple[str, ...] = (), once: bool = True, rate: float = 16.0, passes: float = 0.25,
               **changed: Any) -> Arm:  # fmt: skip
        return Arm(
            name=name,
            method=MENTOR,
            settings={**OF_MENTOR, **changed},
            grid={"recipe": tuned} if tuned else {},
            like="" if tuned else MENTOR,
            rate_factor=rate,
            epoch_factor=passes,
            own_batch=True,
            once=once,
        )

    return [
        mentor(MENTOR, tuned=tuple(RECIPES), once=False),
        mentor("mentor, one wording", wordings=0, passes=0.5),
        mentor("mentor, held to nothing", recited=0, recalled=0, known=False),
        mentor("mentor, no neurons", tuned=("questions",), neurons=False),
        mentor("mentor, neurons alone", passes=0.5, recited=0, recalled=0, known=False, neurons=True,
               train={"parameters": ["*.added.values.weight"]}),
        mentor("mentor, all weights", train={"parameters": ["*"]}),
        mentor("mentor, AdamW", tuned=tuple(RECIPES), rate=3.0, train={"optimizer": "adamw"}),
        mentor("mentor, last weights", train={"average": None, "mix": None}),
        Arm(name="sft, two wordings", method="candidate", settings={"wordings": 1}, like=FINE_TUNING,
            epoch_factor=0.5, once=True),
        Arm(name="sft, Muon", method="sft", settings={"train": {"optimizer": "muon"}}, rate_factor=4.0, once=True),
    ]  # fmt: skip


OF_MENTOR: dict[str, Any] = {"wordings": 1}


def arms() -> list[Arm]:
    return [*natural_arms(), *one_category_arms(), *gradual_arms(), *control_arms(), *mentor_arms()]
