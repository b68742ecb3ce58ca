"""Whole training runs with sharpness-aware steps: one table of settings, each of which trains, resumes, repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError
from instil.training import Budget, KLToStart, SharpnessConfig, plain_step
from instil.training import checkpoints as saving
from instil.training.batches import Reading, collate, share_of_loss
from instil.training.packing import epoch_windows
from tests.training_data import (
    Killed,
    assert_same_weights,
    killed_at,
    learner,
    made_up,
    nll,
    settings,
    trained,
    weights,
    without_time,
)

TABLE: dict[str, dict[str, Any]] = {
    "sam": {"rho": 0.1},
    "sam on some": {"rho": 0.1, "perturb": ("*mlp*",)},
    "sam for each micro-batch": {"rho": 0.1, "scope": "micro_batch"},
    "asam": {"kind": "asam", "rho": 1.0},
    "momentum": {"kind": "momentum", "rho": 0.1},
    "looksam": {"kind": "looksam", "rho": 0.1, "every": 3},
    "functional": {"kind": "functional", "rho": 0.1},
    "random": {"kind": "random", "rho": 0.1},
    "every third step": {"rho": 0.1, "every": 3},
    "late": {"rho": 0.1, "start": 0.5},
    "part of the rows": {"rho": 0.1, "share": 0.5},
    "part of the micro-batches": {"rho": 0.1, "share": 0.5, "share_of": "micro_batches"},
    "norm layers": {"rho": 0.1, "perturb": "norms"},
    "functional, late, norms, part, every second": {
        "kind": "functional", "rho": 0.1, "start": 0.3, "perturb": "norms", "share": 0.5, "every": 2,
    },
}  # fmt: skip


def sharp(sharpness: dict[str, Any], **changes: Any) -> Any:
    # Micro-batches of 64 tokens make several of a window; a checkpoint every second step and at epochs' ends.
    base = {"sharpness": SharpnessConfig(**sharpness), "micro_tokens": 64, "row_length": 32, "save_every": 2}
    return settings(**(base | changes))


def dropping() -> Any:
    return learner("gpt2", resid_pdrop=0.1, embd_pdrop=0.1)


def killed_after(step: int) -> Any:
    """A listener that dies when it hears of a step, before a checkpoint of it is written."""

    def listen(point: dict[str, float]) -> None:
        if point["step"] == step:
            raise Killed

    return listen


@pytest.mark.parametrize("name", TABLE)
def test_every_setting_trains_resumes_and_repeats(tmp_path: Path, name: str) -> None:
    config = sharp(TABLE[name], log_every=1)
    plain = trained(tmp_path / "plain", settings(micro_tokens=64, row_length=32), lm=dropping())
    whole = trained(tmp_path / "whole", config, lm=dropping())
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, lm=dropping(), log=killed_after(6))
    assert checkpoints_in(tmp_path / "cut")
    resumed = trained(tmp_path / "cut", config, lm=dropping())
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)
    assert whole.steps == plain.steps == 9
    assert nll(whole.model, made_up(24)) < nll(dropping(), made_up(24))
    moved = any(not torch.equal(weights(whole.model)[key], w) for key, w in weights(plain.model).items())
    assert moved
    ratio = whole.cost["training"]["flops"] / plain.cost["training"]["flops"]
    assert ratio == pytest.approx(config.sharpness.cost_multiple, rel=0.3)
    last = whole.points[-1]
    assert last["move_cosine"] > 0.99 and last["move_norm"] == pytest.approx(last["move_intended"], rel=0.01)


def test_what_a_budget_has_begun_goes_on_where_it_was(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", settings(micro_tokens=64, row_length=32, epochs=4))
    budget = Budget(flops=plain.cost["training"]["flops"])
    config = sharp({"kind": "looksam", "rho": 0.1, "every": 2, "start": 0.3}, log_every=1, epochs=400)
    whole = trained(tmp_path / "whole", config, budget=budget)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, budget=budget, log=killed_after(8))
    resumed = trained(tmp_path / "cut", config, budget=budget)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)
    assert any("move_norm" in point for point in whole.points), "it began"
    assert "move_norm" not in whole.points[0], "but not at once"


def checkpoints_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


def test_looksam_resumes_with_what_it_kept_and_not_without(tmp_path: Path) -> None:
    config = sharp(TABLE["looksam"], log_every=1, epochs=2)
    whole = trained(tmp_path / "whole", config)
    for step, loses in ((5, False), (6, True)):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            trained(folder, config, log=killed_after(5))
        (checkpoint,) = checkpoints_in(folder)
        kept = checkpoint / "sharpness.safetensors"
        assert kept.is_file() and checkpoint.name == "checkpoint-4"
        if loses:
            halved = {name: 0.5 * part for name, part in saving.read_weights(kept).items()}
            saving.save_weights(halved, kept)
            saving.publish(folder, republished(folder, checkpoint))
        resumed = trained(folder, config)
        same = all(torch.equal(weights(resumed.model)[name], w) for name, w in weights(whole.model).items())
        assert same != loses


def republished(folder: Path, checkpoint: Path) -> str:
    """Put a checkpoint back where drafts are, to be sealed again."""
    draft = saving.draft_folder(folder) / checkpoint.name
    draft.parent.mkdir()
    checkpoint.rename(draft)
    (draft / saving.SEAL).unlink()
    return checkpoint.name


@pytest.mark.parametrize("kind", ["sam", "looksam", "functional", "momentum"])
def test_invariant_2_rho_zero_is_adamw_bit_for_bit(tmp_path: Path, kind: str) -> None:
    plain = trained(tmp_path / "plain", settings(micro_tokens=64), lm=dropping())
    none = sharp({"kind": kind, "rho": 0.0}, row_length=256)
    found = trained(tmp_path / "none", none, lm=dropping())
    assert_same_weights(found.model, plain.model)
    assert (found.loss, found.steps) == (plain.loss, plain.steps)


def test_a_hand_written_loop_gives_the_same_weights_and_only_the_last_gradient_is_clipped(tmp_path: Path) -> None:
    """The naive twin: one example at a time, one tensor at a time, the ascent's gradient as it is."""
    examples, lm, twin = made_up(20), learner(), learner()
    rho, limit = 0.5, 0.3
    config = settings(epochs=2, max_grad_norm=limit, sharpness=SharpnessConfig(rho=rho))
    trained(tmp_path, config, lm=lm, examples=examples)
    model = twin.model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    clipped = []
    for epoch in range(2):
        for window in epoch_windows([len(e) for e in examples], seed=0, epoch=epoch, batch_size=8):
            total = sum(examples[index].targets for index in window)

            def backward(window: Any = window, total: int = total) -> None:
                optimiser.zero_grad()
                for index in window:
                    batch = collate([(0,)], [examples[index]], total_weight=total, pad_id=2)
                    share_of_loss(model, batch, Reading(head_only=False)).backward()

            backward()
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            before = [p.detach().clone() for p in model.parameters()]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(rho * parameter.grad / norm)
            backward()
            with torch.no_grad():
                for parameter, old in zip(model.parameters(), before, strict=True):
                    parameter.copy_(old)
            clipped.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)) > limit)
            optimiser.step()
    assert all(clipped)
    for name, weight in weights(lm).items():
        # Adam divides by the gradient's size, so rounding of tiny gradients is not tiny: a tenth of one step.
        torch.testing.assert_close(weight, weights(twin)[name], rtol=1e-3, atol=1e-4)


def test_invariant_2_micro_batches_and_packing_change_nothing_but_rounding(tmp_path: Path) -> None:
    config = {"sharpness": SharpnessConfig(rho=0.1), "epochs": 2}
    whole = trained(tmp_path / "a", settings(**config))
    split = trained(tmp_path / "b", settings(**config, micro_tokens=64, row_length=64))
    padded = trained(tmp_path / "c", settings(**config, packing=False))
    for other in (split, padded):
        for name, weight in weights(whole.model).items():
            torch.testing.assert_close(weights(other.model)[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("adapter", ["lora", "osf"])
def test_only_adapters_move(tmp_path: Path, adapter: str) -> None:
    """Frozen weights are compared with their checksums at the end of a run, and adapters train."""
    config = sharp({"rho": 0.05}, adapter={"kind": adapter}, epochs=2)
    found = trained(tmp_path / "a", config)
    plain = trained(tmp_path / "b", settings(adapter={"kind": adapter}, micro_tokens=64, row_length=32, epochs=2))
    assert found.trained_parameters == plain.trained_parameters
    assert nll(found.model, made_up(24)) != nll(plain.model, made_up(24))
    with pytest.raises(InputError, match="no trained weight is to be moved"):
        trained(tmp_path / "c", sharp({"perturb": "norms"}, adapter={"kind": adapter}))


def test_an_objective_is_part_of_both_passes(tmp_path: Path) -> None:
    objective = lambda: KLToStart(made_up(5, seed=7), per_step=3, weight=5.0)  # noqa: E731
    both = trained(tmp_path / "a", sharp({"rho": 0.2}), objective=objective())
    plain = trained(tmp_path / "b", settings(micro_tokens=64, row_length=32), objective=objective())
    assert both.cost["training"]["flops"] == 2 * plain.cost["training"]["flops"]
    assert both.cost["teacher"]["flops"] == plain.cost["teacher"]["flops"]
    part = trained(tmp_path / "c", sharp({"rho": 0.2, "share": 0.5}), objective=objective())
    assert part.cost["training"]["flops"] < 1.9 * plain.cost["training"]["flops"]
    functional = trained(tmp_path / "d", sharp({"kind": "functional", "rho": 0.2}), objective=objective())
    assert functional.loss == pytest.approx(both.loss, rel=0.2)


def test_memory_that_runs_out_while_weights_are_moved_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instil.training.sharpness import step as stepping

    whole = trained(tmp_path / "whole", sharp(TABLE["sam"], micro_tokens=128))
    calls, real = 0, stepping.plain_step

    def full(*arguments: Any, **rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:  # the descent of the second step
            raise MemoryError
        return real(*arguments, **rest)

    monkeypatch.setattr(stepping, "plain_step", full)
    found = trained(tmp_path / "full", sharp(TABLE["sam"], micro_tokens=128))
    assert any("out of memory at step 2" in note for note in found.notes)
    for name, weight in weights(whole.model).items():
        torch.testing.assert_close(weights(found.model)[name], weight, rtol=1e-3, atol=1e-4)


def test_a_move_that_rounding_eats_is_said_once(tmp_path: Path) -> None:
    config = sharp({"rho": 1e-5, "check_every": 1}, precision="bf16", log_every=1)
    with pytest.raises(Killed):
        trained(tmp_path, config, log=killed_after(5))
    found = trained(tmp_path, config)
    (note,) = (note for note in found.notes if note.startswith("sharpness"))
    assert "mostly rounding from step 1 on: as bfloat16" in note and "instead of 1e-05" in note
    assert found.points[-1]["move_cosine"] < 0.9
    assert not trained(tmp_path / "fine", sharp({"rho": 1.0}, precision="bf16")).notes


def test_settings_and_a_step_function_are_not_given_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not both"):
        trained(tmp_path, sharp(TABLE["sam"]), step=killed_at(1))
    assert plain_step.__name__ == killed_at(1).__name__


def test_another_setting_is_another_run(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, sharp({"rho": 0.1}, log_every=1), log=killed_after(5))
    with pytest.raises(InputError, match="another training run"):
        trained(tmp_path, sharp({"rho": 0.2}, log_every=1))
