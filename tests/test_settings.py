"""Settings: faults are found where they were written, presets fill up, trackers are checked first and fed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError
from instil.loop import teach
from instil.loop.inputs import read_inputs
from instil.loop.presets import PRESETS, for_size, named
from instil.loop.settings import Given, gathered, read_settings
from instil.training.config import TrainConfig
from instil.training.tracking import TRACKERS, check_trackers, tracked
from tests.half_taught import SECTIONS, facts, half_taught

CALL: dict[str, Any] = {
    **dict.fromkeys(("documents", "budget", "roles", "general", "adapter")),
    "method": "sft",
    "seed": 0,
    "dtype": "auto",
    "device": "auto",
}


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


# ------------------------------------------------------------------ faults and their places


FAULTS = {
    "unknown group": ("probe:\ntrian:\n  epochs: 3\n", "trian", 2, "train, perhaps"),
    "unknown setting": ("train:\n  epochs: 3\n  learning_rat: 1e-5\n", "train.learning_rat", 3, "learning_rate"),
    "unlike any other": ("probe:\n  shots: 2\n\n  zzz: 1\n", "probe.zzz", 4, "one of engine, exemplar_sets"),
    "wrong type": ("train:\n  # slow\n  epochs: many\n", "train.epochs", 3, "valid integer"),
    "wrong choice": ("train: {schedule: steep}\n", "train.schedule", 1, "'constant', 'linear' or 'cosine'"),
    "out of range": ("train:\n  learning_rate: -1e-5\n", "train.learning_rate", 2, "greater than 0"),
    "inside a list": ("train:\n  betas:\n    - 0.9\n    - fast\n", "train.betas.1", 4, "valid number"),
    "inside a group in a group": ("train:\n  adapter:\n    r: 0\n", "train.adapter.r", 3, "greater than or equal to 1"),
    "two that exclude each other": ("train:\n  batch_size: 4\n  batch_tokens: 9\n", "train", 1, "not both"),
    "a value for a group": ("train: 5\n", "train", 1, "name: value"),
    "an unknown tracker": ("train:\n  report_to: [blackboard]\n", "train.report_to", 2, "tensorboard"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_file_line_field_found_and_expected(name: str, tmp_path: Path) -> None:
    text, field, line, expected = FAULTS[name]
    file = write(tmp_path, text)
    with pytest.raises(InputError) as refused:
        read_inputs(half_taught(), facts(), config=file, **CALL)
    fault = refused.value
    assert (fault.file, fault.line, fault.field) == (file, line, field)
    assert expected in str(fault.expected)
    assert fault.found or name == "two that exclude each other"


def test_a_fault_of_an_override_is_not_laid_to_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "train:\n  epochs: 3\n")
    with pytest.raises(InputError) as refused:
        read_inputs(half_taught(), facts(), config=gathered(file, ["train.epochs=none"]), **CALL)
    fault = refused.value
    assert (fault.file, fault.line, fault.field, fault.found) == (None, None, "train.epochs", "'none'")


def test_overrides_are_read_by_type(tmp_path: Path) -> None:
    given = gathered(write(tmp_path, "train:\n  epochs: 3\n"), ["train.learning_rate=1e-5", "train.packing=false"])
    settings = read_inputs(half_taught(), facts(), config=given, **CALL).settings
    train: TrainConfig = settings.train  # type: ignore[attr-defined]
    assert (train.epochs, train.learning_rate, train.packing) == (3, 1e-5, False)


def test_groups_that_are_off_are_turned_on_from_the_command_line() -> None:
    given = gathered(
        None, ["train.sharpness.kind=asam", "train.sharpness.rho=0.5", "train.sharpness.perturb=['*mlp*']"]
    )
    train = read_inputs(half_taught(), facts(), config=given, **CALL).settings.train  # type: ignore[attr-defined]
    assert (train.sharpness.kind, train.sharpness.rho, train.sharpness.perturb) == ("asam", 0.5, ("*mlp*",))
    given = gathered(None, ["train.sharpness.perturb=norms", "train.sharpness.every=2"])
    train = read_inputs(half_taught(), facts(), config=given, **CALL).settings.train  # type: ignore[attr-defined]
    assert (train.sharpness.kind, train.sharpness.perturb, train.sharpness.interval) == ("sam", "norms", 2)
    for wrong in ("train.sharpness.kind=sharp", "train.sharpness.radius=1", "train.sharpness.eta=0.5"):
        with pytest.raises(InputError, match="setting"):
            read_inputs(half_taught(), facts(), config=gathered(None, [wrong]), **CALL)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given twice"),
        ("train:\n  epochs: 1\n  seed: 0\n  epochs: 2\n", 4, "given twice"),
        ("1: 2\n", None, "must be text"),
        ("a: *b\n", 1, "not YAML"),
    ],
)
def test_a_file_that_says_two_things_is_refused(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read_settings(write(tmp_path, text))
    assert refused.value.line == line


def test_aliases_that_multiply_are_walked_once(tmp_path: Path) -> None:
    layers = ["a0: &a0 [1, 1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
    assert read_settings(write(tmp_path, "\n".join(layers))).line_of("a39") == 40


def test_an_empty_group_is_no_setting(tmp_path: Path) -> None:
    given = read_settings(write(tmp_path, "train:\nprobe:\n"))
    assert (given.section("train"), given.section("exam")) == ({}, {})


# ------------------------------------------------------------------ presets


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_is_a_valid_setting_and_says_what_it_rests_on(preset: Any) -> None:
    TrainConfig.model_validate(preset.train)
    assert "measured" in preset.rests_on or "tried" in preset.rests_on


def test_a_preset_yields_to_what_is_given() -> None:
    preset = named("0.6B")
    assert preset is not None
    mine = preset.under({"learning_rate": 3e-5, "batch_size": 8})
    assert (mine["learning_rate"], mine["batch_size"]) == (3e-5, 8)
    assert "batch_tokens" not in mine
    assert preset.under({"adapter": {}})["learning_rate"] == 10 * preset.train["learning_rate"]


@pytest.mark.parametrize(
    ("parameters", "name"), [(5_900_000, "tiny"), (596_000_000, "0.6b"), (1_720_000_000, "1.7b"), (8_190_000_000, "8b")]
)
def test_auto_goes_by_size(parameters: int, name: str) -> None:
    assert for_size(parameters).name == name


def test_what_has_no_preset_is_refused() -> None:
    with pytest.raises(InputError, match="no such preset"):
        named("7 bushels")
    with pytest.raises(InputError, match="no preset for a model of this size"):
        for_size(70_000_000_000)


def test_the_chosen_preset_is_said_and_in_the_plan() -> None:
    inputs = read_inputs(half_taught(), facts(), config=Given(SECTIONS), preset="auto", **CALL)
    assert inputs.plan()["preset"] == "tiny"
    assert inputs.settings.train.batch_size == 16  # type: ignore[attr-defined]
    told: list[str] = []
    teach(
        half_taught(),
        facts(),
        method="sft",
        out="nowhere",
        config=SECTIONS,
        preset="auto",
        dry_run=True,
        progress=lambda what, done, total: told.append(what),
    )
    assert any(line.startswith("preset tiny: learning_rate 0.0001") and "demo" in line for line in told)


# ------------------------------------------------------------------ trackers


def test_a_missing_tracker_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", ("a_package_that_is_not_there", "pip install wandb"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pip install wandb"):
        teach(half_taught(), facts(), method="sft", out=tmp_path / "run", config=SECTIONS, report_to=["wandb"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="no such tracker"):
        check_trackers(["blackboard"])


def test_a_tracker_s_own_folder_is_left_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("WANDB_DIR", "mine")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with tracked(tmp_path, ["tensorboard", "wandb"]):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "tensorboard")
        assert os.environ["WANDB_DIR"] == "mine"
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]


def test_tensorboard_gets_the_losses_of_the_ledger(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train = {"epochs": 1, "learning_rate": 2e-3, "log_every": 1, "save_every": "never"}
    run = teach(
        half_taught(),
        facts(),
        method="sft",
        out=tmp_path / "run",
        config={"train": train, **SECTIONS},
        report_to=["tensorboard"],
    )
    (events,) = (tmp_path / "run" / "tracking").rglob("events.out.tfevents.*")
    seen = EventAccumulator(str(events.parent)).Reload()
    losses = {event.step: event.value for event in seen.Scalars("train/loss")}
    recorded = {row["step"]: row["loss"] for row in run.curves.to_dict("records")}
    assert losses == pytest.approx(recorded, abs=1e-4) and len(losses) > 1


# ------------------------------------------------------------------ schemas for editors


def test_a_schema_takes_what_is_right_and_refuses_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from instil.cli import main

    jsonschema = pytest.importorskip("jsonschema")
    assert main(["methods", "sft", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    right = {"replay_ratio": 0.5, "train": {"learning_rate": 1e-5}, "probe": {"shots": 2}, "exam": {"wordings": 1}}
    jsonschema.validate(right, schema)
    for wrong in ({"train": {"learning_rat": 1}}, {"trian": {}}, {"probe": {"shots": "two"}}, {"train": {"epochs": 0}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert main(["methods", "--schema"]) == 2
