"""Every method through one table of settings: it trains, resumes, repeats, keeps its budget, saves what it taught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError
from instil.loop import teach
from instil.loop.run import TeachResult
from instil.methods import NAMES, get
from tests.half_taught import SECTIONS, facts, half_taught, practised, practised_documents

TRAIN: dict[str, Any] = {"epochs": 2, "learning_rate": 2e-3, "save_seconds": 0}
LORA = {**TRAIN, "adapter": {"r": 4}}
SMALL = {**TRAIN, "batch_size": 8}

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {"train": TRAIN}),
    "sft of two categories": ("sft", {"train": TRAIN, "categories": ["WeaklyKnown", "Unknown"]}),
    "sft with replay": ("sft", {"train": TRAIN, "replay_ratio": 0.5}),
    "sft with KL": ("sft", {"train": TRAIN, "kl_weight": 0.5}),
    "sft with early stop": ("sft", {"train": {**TRAIN, "epochs": 3}, "early_stop": True, "patience": 1}),
    "sft with LoRA": ("sft", {"train": LORA}),
    "sft with an OSF adapter": ("sft", {"train": {**TRAIN, "adapter": {"kind": "osf"}}}),
    "cpt": ("cpt", {"train": TRAIN}),
    "cpt, then sft": ("cpt_sft", {"train": SMALL, "go_on_reading": True}),
    "mixed": ("mixed", {"train": SMALL, "balance": "tokens"}),
    "pit, questions in front": ("pit", {"train": SMALL, "arrangement": "before-grouped", "practice_epochs": 2}),
    "generalize": ("generalize", {"train": SMALL, "copies": 2, "question_copies": 1}),
    "gradual": ("gradual", {"train": TRAIN}),
    "mentor": ("mentor", {"train": TRAIN, "recited": 12, "recalled": 4, "kl_share": 0.5}),
    "gradual with LoRA": ("gradual", {"train": LORA, "early_stop": False}),
}


class Interrupted(Exception):
    pass


def run(name: str, out: Path, **changes: Any) -> TeachResult:
    method, config = SETTINGS[name]
    reads = "documents" in get(method).needs
    taught = practised() if reads else facts()
    given = {"documents": practised_documents()} if reads else {}
    sections = {"probe": SECTIONS["probe"], "exam": {**SECTIONS["exam"], "parts": [], "openings": 0}}
    result = teach(half_taught(), taught, method=method, out=out, config={**config, **sections}, **given, **changes)
    assert isinstance(result, TeachResult)
    return result


def without_times(value: Any) -> Any:
    """A summary without what a clock or a place decides."""
    if isinstance(value, dict):
        skipped = {"seconds", "started", "finished", "ledger"}
        return {key: without_times(inner) for key, inner in value.items() if key not in skipped}
    return value


FINISHED: dict[str, TeachResult] = {}
"""Of each method, whatever order the tests come in: the fixture is made again whenever its parameter changes."""


@pytest.fixture(scope="module", params=list(SETTINGS))
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, TeachResult]:
    name: str = request.param
    if "LoRA" in name or "adapter" in name:
        pytest.importorskip("peft")
    if name not in FINISHED:
        FINISHED[name] = run(name, tmp_path_factory.mktemp("method") / "run")
    return name, FINISHED[name]


def test_invariant_7_trains_and_saves_a_loadable_result(finished: tuple[str, TeachResult]) -> None:
    name, result = finished
    assert result.summary["method"] == SETTINGS[name][0]
    assert result.summary["cost"]["training"]["flops"] > 0
    assert result.model.fingerprint != half_taught().fingerprint
    wider = name == "mentor"  # by a neuron for each subject
    assert (result.model.parameters > half_taught().parameters) is wider


MOMENTS: dict[str, Callable[[str, int, int], bool]] = {
    "in the first exam": lambda what, done, epochs: what == "exam before teaching" and done >= 60,
    "in training": lambda what, done, epochs: epochs == 2,
    "in the second exam": lambda what, done, epochs: what == "exam after teaching" and done >= 60,
}
"""By what is told, how much of it is done, and how many times the end of an epoch was told."""
ALWAYS = "in training"


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=[] if name == ALWAYS else pytest.mark.slow) for name in MOMENTS]
)
def test_invariant_7_resumed_equals_uninterrupted(
    finished: tuple[str, TeachResult], tmp_path: Path, moment: str
) -> None:
    name, whole = finished
    epochs = 0

    def cut_off(what: str, done: int, total: int | None) -> None:
        nonlocal epochs
        epochs += ": epoch" in what
        if MOMENTS[moment](what, done, epochs):
            raise Interrupted

    with pytest.raises(Interrupted):
        run(name, tmp_path / "run", progress=cut_off)
    assert not (tmp_path / "run" / "summary.json").exists()
    result = run(name, tmp_path / "run", resume=True)
    assert result.model.fingerprint == whole.model.fingerprint
    mine, theirs = without_times(dict(result.summary)), without_times(dict(whole.summary))
    if moment != ALWAYS:
        # The exam is free; what an interrupted part of it had computed is not counted.
        assert mine["cost"].pop("exam")["flops"] < theirs["cost"].pop("exam")["flops"]
    assert mine == theirs


@pytest.mark.slow  # a resumed run that equals its uninterrupted twin is one already
def test_invariant_7_is_deterministic(finished: tuple[str, TeachResult], tmp_path: Path) -> None:
    name, first = finished
    second = run(name, tmp_path / "run")
    assert second.model.fingerprint == first.model.fingerprint
    assert without_times(dict(second.summary)) == without_times(dict(first.summary))


def test_invariant_7_respects_the_budget(finished: tuple[str, TeachResult], tmp_path: Path) -> None:
    name, free = finished
    spent = free.summary["budget"]["spent"]
    # What is probed and recited comes before training, whatever it costs.
    first = sum(free.summary["cost"].get(purpose, {"flops": 0.0})["flops"] for purpose in ("deciding", "teacher"))
    budget = first + 0.4 * (spent - first)
    tight = run(name, tmp_path / "run", budget=budget)
    one_step = free.summary["cost"]["training"]["flops"] / 4
    assert tight.summary["budget"]["spent"] <= budget + one_step + first
    assert tight.summary["cost"]["training"]["flops"] < free.summary["cost"]["training"]["flops"]


def test_every_method_has_a_card_and_described_settings() -> None:
    for name in NAMES:
        method = get(name)
        assert method.summary and method.card.startswith(f"# `{name}`")
        assert all(field.description for field in method.config.model_fields.values())


def test_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match=r"sft \| gradual \| cpt \| cpt_sft \| mixed \| pit \| generalize \| mentor"):
        get("osmosis")
