"""Two processes over gloo, replicated (DDP) and sharded (FSDP2), take the sharpness-aware step that one takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training import SharpnessConfig
from instil.training.batches import MicroBatch, Reading, collate, share_of_loss
from instil.training.group import leave_group
from instil.training.packing import deal, pack
from instil.training.sharpness.sharpener import Sharpener
from instil.training.sharpness.step import Kept, Moment, sharpness_aware_step
from instil.training.sharpness.tensors import norm, product
from tests.models import tiny_model
from tests.test_training_ranks import free_port
from tests.training_data import made_up, settings, trained, weights

STEPS = 2
TABLE: dict[str, dict[str, Any]] = {
    "sam": {},
    "asam": {"kind": "asam", "rho": 2.0},
    "momentum": {"kind": "momentum"},
    "looksam": {"kind": "looksam", "every": 2},
    "functional": {"kind": "functional"},
    "random": {"kind": "random"},
    "norms": {"perturb": "norms"},
    "some": {"perturb": ("*mlp*",)},
    "each": {"scope": "micro_batch"},
    "part": {"share": 0.5, "rho": 0.0},  # with a move, a rank's rows would not be those of one process
    "functional part": {"kind": "functional", "share": 0.5, "rho": 0.0},
}
RUNS: dict[str, dict[str, Any]] = {
    "sam": {"rho": 0.1},
    "looksam": {"kind": "looksam", "rho": 0.1, "every": 2},
    "momentum": {"kind": "momentum", "rho": 0.1},
}


def config_of(name: str) -> SharpnessConfig:
    return SharpnessConfig(**({"rho": 0.3} | TABLE[name]))


def window(rank: int, ranks: int, seed: int) -> list[MicroBatch]:
    examples = made_up(9, seed=seed)
    lengths = [len(example) for example in examples]
    rows = pack(range(9), lengths, [example.key for example in examples], 64)
    total = sum(example.targets for example in examples)
    if ranks == 1:  # the micro-batches of both ranks, by number
        both = zip(*(deal(rows, lengths, 64, one, 2).micro_batches for one in (0, 1)), strict=True)
        parts = [first + second for first, second in both]
    else:
        parts = list(deal(rows, lengths, 64, rank, ranks).micro_batches)
    return [collate(part, examples, total_weight=total, pad_id=2) for part in parts]


def stepped(model: nn.Module, name: str, rank: int, ranks: int, whole: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Gradients after each of two steps, the loss of all ranks, and what was measured of the moves."""

    def loss(model: nn.Module, batch: MicroBatch) -> Tensor:
        return ranks * share_of_loss(model, batch, Reading())

    def momentum(parameter: nn.Parameter) -> Tensor:
        return parameter.detach() + 0.01  # as good a direction as any, and sharded as the weights are

    kept, found = Kept(), []
    quiet = model.no_sync if hasattr(model, "no_sync") else _sharded_quiet(model)
    before = [whole(p.detach()).clone() for p in model.parameters()]
    for number in range(STEPS):
        model.zero_grad(set_to_none=True)
        moment = Moment(number, seed=1, momentum=momentum)
        batches = window(rank, ranks, seed=number)
        assert len(batches) > 1
        value = sharpness_aware_step(
            model, batches, loss, quiet=quiet, config=config_of(name), moment=moment, kept=kept
        )
        found.append([whole(p.grad).clone() for p in model.parameters() if p.grad is not None])
    after = [whole(p.detach()) for p in model.parameters()]
    assert kept.realised is not None
    return {
        "gradients": found,
        "loss": float(value) / ranks,
        "measured": vars(kept.realised),
        "restored": all(torch.equal(one, other) for one, other in zip(before, after, strict=True)),
    }


def _sharded_quiet(model: nn.Module) -> Any:
    from contextlib import contextmanager, nullcontext

    if not hasattr(model, "set_requires_gradient_sync"):
        return nullcontext

    @contextmanager
    def quiet() -> Any:
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    return quiet


def model_of() -> nn.Module:
    return tiny_model("qwen3")[0].train()


def sharded() -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    model = model_of()
    for layer in model.model.layers:  # type: ignore[union-attr]
        fully_shard(layer)
    return fully_shard(model)


def gathered(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def one_rank(rank: int, ranks: int, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    ways = {"replicated": lambda: nn.parallel.DistributedDataParallel(model_of()), "sharded": sharded}
    found = {
        f"{way} {name}": stepped(wrapped(), name, rank, ranks, gathered)
        for name in TABLE
        for way, wrapped in ways.items()
    }
    torch.save(found, f"{out}/{rank}.pt")
    leave_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo over spawn is tested on Unix")
def test_invariant_2_two_ranks_equal_one_replicated_and_sharded(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_rank, args=(2, str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name in TABLE:
        alone = stepped(model_of(), name, 0, 1, lambda tensor: tensor)
        for way in ("replicated", "sharded"):
            first, second = (found[f"{way} {name}"] for found in ranks)
            assert first["restored"] and second["restored"], (way, name)
            assert first["measured"] == second["measured"], (way, name)
            assert first["measured"] == pytest.approx(alone["measured"], rel=1e-4), (way, name)
            assert first["loss"] + second["loss"] == pytest.approx(alone["loss"], rel=1e-4), (way, name)
            for step in range(STEPS):
                trio = zip(first["gradients"][step], second["gradients"][step], alone["gradients"][step], strict=True)
                for one, other, expected in trio:
                    assert torch.equal(one, other), (way, name)
                    torch.testing.assert_close(
                        one, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()), msg=f"{way} {name}"
                    )


def training_rank(rank: int, port: int, out: str) -> None:
    import os

    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    found = {name: ran(Path(out) / name, sharpness) for name, sharpness in RUNS.items()}
    torch.save(found, f"{out}/{rank}.pt")
    leave_group()


def ran(out: Path, sharpness: dict[str, Any]) -> dict[str, Any]:
    config = settings(micro_tokens=64, row_length=64, save_every=2, sharpness=SharpnessConfig(**sharpness))
    result = trained(out, config, examples=made_up(21))
    return {"weights": weights(result.model), "loss": result.loss, "steps": result.steps, "points": result.points}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo over spawn is tested on Unix")
def test_invariant_2_two_ranks_train_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(training_rank, args=(free_port(), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, sharpness in RUNS.items():
        alone = ran(tmp_path / f"{name} alone", sharpness)
        assert first[name]["steps"] == alone["steps"] == 9
        assert first[name]["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        for key, weight in alone["weights"].items():
            assert torch.equal(first[name]["weights"][key], second[name]["weights"][key]), key
            torch.testing.assert_close(first[name]["weights"][key], weight, rtol=1e-3, atol=1e-4, msg=key)


def test_sums_over_shards_are_those_of_the_whole_and_every_rank_asks(tmp_path: Path) -> None:
    """One process as a group of its own: the sharded path, without waiting for a second one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        alone = stepped(model_of(), "sam", 0, 1, lambda tensor: tensor)
        found = stepped(sharded(), "sam", 0, 1, gathered)
        assert found["restored"] and found["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        for one, expected in zip(found["gradients"][-1], alone["gradients"][-1], strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)
        pieces = list(sharded().parameters())
        whole = torch.cat([gathered(p).detach().flatten() for p in pieces])
        assert norm(pieces) == pytest.approx(float(whole.norm()), rel=1e-6)
        assert product(pieces, pieces) == pytest.approx(float(whole @ whole), rel=1e-5)
    finally:
        torch.distributed.destroy_process_group()


def test_shardings_that_hide_the_gradient_are_refused() -> None:
    with pytest.raises(InputError, match="DeepSpeed"):
        Sharpener.check_wrapping(model_of(), deepspeed=True)
    Sharpener.check_wrapping(model_of(), deepspeed=False)
