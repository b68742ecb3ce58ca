"""`train` end to end: determinism, resume, early stop, budget, faults."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError, RunFailed
from instil.training import Budget, Example, Meter
from instil.training import checkpoints as saving
from instil.training.batches import Reading, collate, share_of_loss
from tests.training_data import (
    Killed,
    assert_same_weights,
    improving_until,
    killed_at,
    learner,
    made_up,
    nll,
    settings,
    trained,
    weights,
    without_time,
)


def test_it_learns_what_it_is_given(tmp_path: Path) -> None:
    examples, points = made_up(24), []
    lm = learner()
    result = trained(tmp_path, settings(epochs=12, log_every=5), lm=lm, examples=examples, log=points.append)
    assert nll(lm, examples) < 0.5 * nll(learner(), examples)
    assert (result.epochs, result.steps, result.ended_by, result.packed) == (12, 36, "epochs", True)
    assert result.tokens == 12 * sum(map(len, examples)) <= result.computed_tokens
    assert result.target_tokens == 12 * sum(example.targets for example in examples)
    assert result.model is lm and not lm.model.training and lm.model.config.use_cache
    assert not result.notes
    assert tuple(points) == result.points
    assert [point["step"] for point in points][:4] == [3, 5, 6, 9]  # each epoch's end, and every fifth step
    assert points[-1].keys() == {"epoch", "step", "tokens", "flops", "seconds", "loss", "learning_rate"}
    assert points[-1]["epoch"] == 12 and points[-1]["tokens"] == result.tokens
    assert points[-1]["flops"] == result.cost["training"]["flops"] > 0
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(("betas", "epsilon"), [((0.9, 0.999), 1e-8), ((0.5, 0.9), 1e-2)])
def test_a_hand_written_loop_gives_the_same_weights(betas: tuple[float, float], epsilon: float, tmp_path: Path) -> None:
    """The naive twin: AdamW with clipping over the same windows, one example at a time."""
    from instil.training.packing import epoch_windows

    examples, lm, twin = made_up(20), learner(), learner()
    config = settings(epochs=2, schedule="linear", warmup_ratio=0.25, betas=betas, epsilon=epsilon)
    trained(tmp_path, config, lm=lm, examples=examples)
    optimiser = torch.optim.AdamW(twin.model.parameters(), lr=1e-3, weight_decay=0.0, betas=betas, eps=epsilon)
    twin.model.train()
    steps, step = 6, 0
    for epoch in range(2):
        for window in epoch_windows([len(e) for e in examples], seed=0, epoch=epoch, batch_size=8):
            total = sum(examples[index].targets for index in window)
            for index in window:
                batch = collate([(0,)], [examples[index]], total_weight=total, pad_id=2)
                share_of_loss(twin.model, batch, Reading(head_only=False)).backward()
            torch.nn.utils.clip_grad_norm_(twin.model.parameters(), 1.0)
            warmup = 2
            rate = step / warmup if step < warmup else (steps - step) / (steps - warmup)
            optimiser.param_groups[0]["lr"] = 1e-3 * rate
            optimiser.step()
            optimiser.zero_grad()
            step += 1
    expected = weights(twin)
    for name, weight in weights(lm).items():
        # Adam divides by the gradient's size, so rounding of tiny gradients is not tiny: a tenth of one step.
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first = trained(tmp_path / "a", settings())
    again = trained(tmp_path / "b", settings())
    other = trained(tmp_path / "c", settings(seed=1))
    assert_same_weights(again.model, first.model)
    assert without_time(again) == without_time(first)
    assert not torch.equal(weights(other.model)["lm_head.weight"], weights(first.model)["lm_head.weight"])


def test_micro_batches_and_packing_change_nothing_but_rounding(tmp_path: Path) -> None:
    """Invariant 2, over whole runs: packed, padded and finely split runs end at the same weights."""
    whole = trained(tmp_path / "a", settings())
    split = trained(tmp_path / "b", settings(micro_tokens=64, row_length=64))
    padded = trained(tmp_path / "c", settings(packing=False))
    assert not padded.packed and not padded.notes
    for other in (split, padded):
        for name, weight in weights(whole.model).items():
            torch.testing.assert_close(weights(other.model)[name], weight, rtol=1e-3, atol=1e-4)


def test_the_callers_random_states_are_left_alone(tmp_path: Path) -> None:
    random.seed(5)
    torch.manual_seed(5)
    expected = (random.Random(5).random(), torch.rand(1, generator=torch.Generator().manual_seed(5)))
    trained(tmp_path, settings(epochs=1))
    assert (random.random(), torch.rand(1)) == expected


@pytest.mark.parametrize("at", [1, 2, 4, 5, 7, 9])
def test_invariant_2_resumed_equals_uninterrupted(tmp_path: Path, at: int) -> None:
    """Killed in any of nine steps (three an epoch, a checkpoint every second step and at epochs' ends)."""
    config = settings(save_every=2, schedule="cosine", warmup_ratio=0.2)
    dropping = {"resid_pdrop": 0.1, "embd_pdrop": 0.1}  # dropout, so that random states matter
    whole = trained(tmp_path / "whole", config, lm=learner("gpt2", **dropping))
    meter = Meter()
    meter.add({"training": {"flops": 7.0, "tokens": 0, "seconds": 0.0}})  # an earlier stage
    with pytest.raises(Killed):
        trained(
            tmp_path / "cut",
            config,
            lm=learner("gpt2", **dropping),
            step=killed_at(at),
            meter=Meter.from_dict(meter.to_dict()),
        )
    saved = saving.latest(tmp_path / "cut")
    assert (saved is None) == (at < 3)
    resumed = trained(tmp_path / "cut", config, lm=learner("gpt2", **dropping), meter=meter)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)
    assert meter.total == 7.0 + whole.cost["training"]["flops"]


def test_invariant_2_resumed_equals_uninterrupted_where_a_budget_sets_the_pace(tmp_path: Path) -> None:
    free = trained(tmp_path / "free", settings(epochs=4))
    budget, config = Budget(flops=free.cost["training"]["flops"]), settings(epochs=400, save_every=2, schedule="linear")
    whole = trained(tmp_path / "whole", config, budget=budget)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, budget=budget, step=killed_at(7))
    assert saving.latest(tmp_path / "cut") is not None
    resumed = trained(tmp_path / "cut", config, budget=budget)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)


def test_killed_twice_and_in_the_middle_of_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(save_every=1)
    whole = trained(tmp_path / "whole", config)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, step=killed_at(3))
    publish, calls = saving.publish, 0

    def dying(folder: Path, name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        publish(folder, name)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(saving, "publish", dying)
        trained(tmp_path / "cut", config)
    assert saving.draft_folder(tmp_path / "cut").exists()
    resumed = trained(tmp_path / "cut", config)
    assert_same_weights(resumed.model, whole.model)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = trained(tmp_path, settings())
    meter = Meter()
    again = trained(tmp_path, settings(), step=killed_at(1), meter=meter)
    assert_same_weights(again.model, first.model)
    assert again.to_dict() == first.to_dict()
    assert meter.total == first.cost["training"]["flops"]
    fresh = trained(tmp_path, settings(), resume=False)
    assert_same_weights(fresh.model, first.model)


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "a", settings(epochs=1))
    for changed in ({"config": settings(epochs=2)}, {"lm": learner(seed=3)}, {"examples": made_up(23)}):
        with pytest.raises(InputError, match="another training run"):
            trained(tmp_path / "a", **({"config": settings(epochs=1)} | changed))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "novel.txt").write_text("words")
    with pytest.raises(InputError, match="not empty"):
        trained(tmp_path / "b", settings())
    assert (tmp_path / "b" / "novel.txt").read_text() == "words"


# ---- budget ----


def test_the_budget_ends_the_run_at_the_step_that_reaches_it(tmp_path: Path) -> None:
    free = trained(tmp_path / "free", settings(log_every=1))
    steps = [point["flops"] for point in free.points]
    for limit, expected in ((steps[4], 5), (steps[4] + 1, 6), (1.0, 1)):
        meter = Meter()
        result = trained(tmp_path / f"{limit}", settings(log_every=1), budget=Budget(flops=limit), meter=meter)
        assert (result.steps, result.ended_by) == (expected, "budget")
        assert limit <= meter.total == steps[expected - 1]
    assert result.epochs == 0 and result.loss > 0
    spent = Meter.from_dict({"deciding": {"flops": steps[4], "tokens": 0, "seconds": 0.0}})
    assert trained(tmp_path / "spent", settings(), budget=Budget(flops=steps[4]), meter=spent).steps == 1
    assert trained(tmp_path / "time", settings(), budget=Budget(seconds=1e-6)).steps == 1


@pytest.mark.parametrize(("schedule", "half"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)])
def test_a_rate_that_falls_reaches_its_end_with_the_budget(tmp_path: Path, schedule: str, half: float) -> None:
    """Not with the planned epochs, of which a budget may leave most undone."""
    free = trained(tmp_path / "free", settings(epochs=4, log_every=1, schedule=schedule))
    many = settings(epochs=400, log_every=1, schedule=schedule)
    limit = free.cost["training"]["flops"]
    meter = Meter()
    meter.add({"training": {"flops": 3 * limit, "tokens": 0, "seconds": 0.0}})  # an earlier stage, before this budget
    result = trained(tmp_path / "budget", many, budget=Budget(flops=4 * limit), meter=meter)
    rates = [point["learning_rate"] / 1e-3 for point in result.points]
    assert result.ended_by == "budget" and result.steps == free.steps
    assert rates == pytest.approx([point["learning_rate"] / 1e-3 for point in free.points], abs=0.05)
    assert rates[0] == 1.0 and rates[len(rates) // 2] == pytest.approx(half, abs=0.1)


def test_a_budget_that_is_never_reached_leaves_the_schedule_as_it_is(tmp_path: Path) -> None:
    config = settings(epochs=3, log_every=1, schedule="linear", warmup_ratio=0.2)
    free, rich = trained(tmp_path / "free", config), trained(tmp_path / "rich", config, budget=Budget(flops=1e15))
    assert_same_weights(free.model, rich.model)


def test_a_share_of_the_run_is_one_of_the_budget_where_that_ends_it(tmp_path: Path) -> None:
    free = trained(tmp_path / "free", settings(epochs=4))
    sharp = {"kind": "sam", "start": 0.5, "check_every": 1}
    config = settings(epochs=400, log_every=1, sharpness=sharp)
    result = trained(tmp_path / "late", config, budget=Budget(flops=free.cost["training"]["flops"]))
    began = next(point["flops"] for point in result.points if "move_norm" in point)
    assert began / result.cost["training"]["flops"] == pytest.approx(0.5, abs=0.2)
    assert result.steps < free.steps, "the second half costs two a step"


def test_a_resumed_run_keeps_to_its_budget(tmp_path: Path) -> None:
    free = trained(tmp_path / "free", settings(log_every=1))
    budget = Budget(flops=free.points[4]["flops"])
    config = settings(save_every=1)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, budget=budget, step=killed_at(4))
    result = trained(tmp_path / "cut", config, budget=budget)
    assert (result.steps, result.ended_by) == (5, "budget")


# ---- bad input ----


def test_an_empty_training_set_is_an_error(tmp_path: Path) -> None:
    silent = Example((1, 2), (-100, -100), "silent")
    for examples in ([], [silent, *made_up(1), silent]):
        with pytest.raises(InputError, match=r"nothing to train on|2 of 3 examples have no token to learn.*silent"):
            trained(tmp_path / "out", settings(), examples=examples)
    assert not (tmp_path / "out").exists()


def test_an_example_longer_than_the_context_window_is_refused_not_cut(tmp_path: Path) -> None:
    long = Example(tuple(range(3, 68)), (-100, *range(4, 68)), "the long one")
    with pytest.raises(InputError, match=r"the long one is longer.*65 tokens.*at most 64"):
        trained(tmp_path / "out", settings(), lm=learner(positions=64), examples=[long])
    assert not (tmp_path / "out").exists()


def test_an_example_longer_than_a_row_gets_a_row_of_its_own(tmp_path: Path) -> None:
    long = Example(tuple(range(3, 203)), (-100, *range(4, 203)), "long")
    result = trained(tmp_path, settings(epochs=1, row_length=32, micro_tokens=32), examples=[*made_up(5), long])
    assert result.tokens == sum(map(len, made_up(5))) + 200


# ---- faults ----


class Tight:
    """A device with room for so many tokens in a forward pass."""

    def __init__(self, model: Any, room: int, error: Exception) -> None:
        self.room, self.error, self.fits = room, error, 0
        model.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, _: Any, __: Any, keywords: dict[str, Any]) -> None:
        if keywords["input_ids"].numel() > self.room:
            raise self.error
        self.fits += 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(tmp_path: Path, error: Exception) -> None:
    whole = trained(tmp_path / "whole", settings())
    lm = learner()
    Tight(lm.model, 100, error)
    result = trained(tmp_path / "tight", settings(), lm=lm)
    assert result.steps == whole.steps and result.micro_tokens <= 100
    assert "out of memory at step 1: micro-batches of" in result.notes[0]
    for name, weight in weights(whole.model).items():
        torch.testing.assert_close(weights(lm)[name], weight, rtol=1e-3, atol=1e-4)


def test_memory_too_small_for_one_example_ends_the_run(tmp_path: Path) -> None:
    lm = learner()
    Tight(lm.model, 20, MemoryError())
    with pytest.raises(RunFailed, match="out of memory with a single example"):
        trained(tmp_path, settings(), lm=lm, examples=made_up(8, shortest=30))


def test_other_runtime_errors_are_not_swallowed(tmp_path: Path) -> None:
    lm = learner()
    Tight(lm.model, 100, RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        trained(tmp_path, settings(), lm=lm)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    lm = learner()
    lm.model.lm_head.weight.data[7] = float("inf")
    with pytest.raises(RunFailed, match="the loss became nan at step 1"):
        trained(tmp_path, settings(), lm=lm)


@pytest.mark.parametrize("part", ["weights", "optimiser", "result"])
def test_a_full_disk_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    config = settings()
    whole = trained(tmp_path / "whole", config)
    full = OSError(28, "No space left on device")
    calls = 0

    def second_time(real: Any, at: int = 2) -> Any:
        def write(*given: Any, **rest: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise full
            return real(*given, **rest)

        return write

    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="No space left"):
        if part == "weights":
            patch.setattr(saving, "save_weights", second_time(saving.save_weights))
        elif part == "optimiser":
            patch.setattr(torch, "save", second_time(torch.save, at=4))
        else:
            patch.setattr("instil.training.run.seal", second_time(None, at=1))
        trained(tmp_path / "cut", config)
    saved = saving.latest(tmp_path / "cut")
    assert saved is not None and saved.name == ("checkpoint-6" if part == "result" else "checkpoint-3")
    assert not saving.draft_folder(tmp_path / "cut").exists()
    resumed = trained(tmp_path / "cut", config)
    assert_same_weights(resumed.model, whole.model)


# ---- precision, checkpoints ----


def test_bf16_weights_become_fp32_masters(tmp_path: Path) -> None:
    lm = learner()
    lm.model.to(torch.bfloat16)
    result = trained(tmp_path, settings(precision="bf16", learning_rate=1e-5), lm=lm)
    assert result.autocast == "bfloat16"
    before = learner().model.to(torch.bfloat16).float()
    moved = {n: (w - dict(before.named_parameters())[n]).abs().max() for n, w in weights(lm).items()}
    assert all(weight.dtype == torch.float32 for weight in weights(lm).values())
    # Nine steps of at most 1e-5 each: bf16 weights of this size would not have moved at all.
    assert all(0 < move < 1.2e-4 for move in moved.values())


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    lm = learner(tie_word_embeddings=True)
    with pytest.raises(Killed):
        trained(tmp_path, settings(), lm=lm, step=killed_at(5))
    lm = learner(tie_word_embeddings=True)
    trained(tmp_path, settings(), lm=lm)
    assert lm.model.lm_head.weight is lm.model.model.embed_tokens.weight


def test_checkpoints_can_be_turned_off(tmp_path: Path) -> None:
    result = trained(tmp_path, settings(save_every="never"), stop=improving_until(2))
    assert result.best_epoch == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_checkpoints_keep_their_distance_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    monkeypatch.setattr(saving, "publish", lambda folder, name: published.append(name))
    trained(tmp_path / "a", settings(save_seconds=1000.0))
    assert not published
    trained(tmp_path / "b", settings(save_every=2))
    assert published == ["checkpoint-2", "checkpoint-3", "checkpoint-4", "checkpoint-6", "checkpoint-8"]


def test_it_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, settings())
    assert capfd.readouterr() == ("", "")


def test_activations_computed_again_change_nothing_but_the_cost(tmp_path: Path) -> None:
    kept, again = learner(), learner()
    plain = trained(tmp_path / "kept", settings(epochs=1), lm=kept)
    spared = trained(tmp_path / "again", settings(epochs=1, gradient_checkpointing=True), lm=again)
    for name, weight in weights(kept).items():
        assert torch.allclose(weights(again)[name], weight, atol=1e-6), name
    ratio = spared.cost["training"]["flops"] / plain.cost["training"]["flops"]
    assert 1.1 < ratio <= 4 / 3, ratio  # the layers once more, the output layer not
    assert not any(getattr(module, "gradient_checkpointing", False) for module in again.model.modules())


def test_a_model_that_cannot_recompute_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = learner()
    monkeypatch.setattr(type(lm.model), "supports_gradient_checkpointing", False)
    with pytest.raises(InputError, match="cannot compute activations again"):
        trained(tmp_path, settings(gradient_checkpointing=True), lm=lm)


# ---- damage ----


def test_best_weights_that_were_damaged_are_refused(tmp_path: Path) -> None:
    """They are read when training ends, maybe by a run that was resumed long after they were written."""
    with pytest.raises(Killed):
        trained(tmp_path, settings(epochs=4), step=killed_at(8), stop=improving_until(1))
    best = tmp_path / "best-1.safetensors"
    whole = best.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:500], b""):
        best.write_bytes(damaged)
        with pytest.raises(RunFailed, match=r"best-1\.safetensors is missing or not as it was written"):
            trained(tmp_path, settings(epochs=4), stop=improving_until(1))
    best.write_bytes(whole)
    assert trained(tmp_path, settings(epochs=4), stop=improving_until(1)).best_epoch == 1


def test_a_run_whose_name_could_not_be_written_can_be_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note that a full disk or a kill left empty would say that the folder is another run's, for ever."""
    write = Path.write_text

    def full(self: Path, text: str, **rest: Any) -> int:
        write(self, text[: len(text) // 2], **rest)
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="No space left"):
        patch.setattr(Path, "write_text", full)
        trained(tmp_path / "run", settings(epochs=1))
    assert trained(tmp_path / "run", settings(epochs=1)).epochs == 1
