"""Two processes over gloo train what one does."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.training import Budget, Decision, KLToStart, Progress
from instil.training.group import leave_group
from tests.training_data import made_up, settings, trained, weights

CONFIG: dict[str, Any] = {"epochs": 4, "micro_tokens": 64, "row_length": 64, "save_every": 2}


def by_epoch(progress: Progress) -> Decision:
    return Decision(stop=progress.epoch == 3, best=progress.epoch == 2)


def by_rank(progress: Progress) -> dict[str, float]:
    """What rank 0 says is meant; no two ranks say the same."""
    asked = int(os.environ.get("RANK", "0"))
    return {key: 1.0 + (number + progress.epoch + asked) % 3 for number, key in enumerate(progress.keys) if number > 2}


def run(out: Path, parts: dict[str, Any]) -> Any:
    objective = KLToStart(made_up(5, seed=7), per_step=3) if parts["objective"] else None
    config = settings(**CONFIG, **parts["config"])
    budget = Budget(flops=parts["budget"]) if "budget" in parts else None
    weigh = by_rank if parts.get("weighed") else None
    return trained(out, config, examples=made_up(21), objective=objective, stop=by_epoch, budget=budget, weigh=weigh)


def one_rank(rank: int, port: int, out: str, parts: dict[str, Any]) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    result = run(Path(out) / "run", parts)
    plain = {"weights": weights(result.model), "steps": result.steps, "loss": result.loss, "tokens": result.tokens}
    torch.save(plain | {"best": result.best_epoch, "cost": result.cost}, f"{out}/{rank}.pt")
    del result
    leave_group()
    Path(out, f"{rank}.left").write_text("\n".join(threads()))


def threads() -> list[str]:
    """The names of this process's threads, where the system tells them."""
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo over spawn is tested on Unix")
@pytest.mark.parametrize("objective", [False, True])
@pytest.mark.parametrize("adapter", [None, {"r": 4}])
def test_invariant_2_two_ranks_equal_one(tmp_path: Path, objective: bool, adapter: Any) -> None:
    # Weights go with the objective: each case costs seconds, and the two have nothing in common.
    parts = {
        "objective": objective,
        "weighed": objective,
        "config": {"adapter": adapter, "average": 0.8 if objective else None},
    }
    alone = run(tmp_path / "alone", parts)
    torch.multiprocessing.spawn(one_rank, args=(free_port(), str(tmp_path), parts), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["steps"] == second["steps"] == alone.steps == 9
    assert first["best"] == second["best"] == alone.best_epoch == 2
    assert first["tokens"] == second["tokens"] == alone.tokens
    assert first["cost"] == second["cost"]
    # The same work, but for what is computed twice (the kept teacher) or padded otherwise.
    assert first["cost"]["training"]["flops"] == pytest.approx(alone.cost["training"]["flops"], rel=0.1)
    assert first["loss"] == pytest.approx(alone.loss, rel=1e-4)
    for name, weight in weights(alone.model).items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        # Sums over ranks round differently, and Adam divides by the gradient's size: a tenth of one step.
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_ranks_end_at_the_same_step_of_one_budget(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"objective": False, "config": {}}
    whole = run(tmp_path / "whole", parts)
    parts["budget"] = 0.6 * whole.cost["training"]["flops"]
    torch.multiprocessing.spawn(one_rank, args=(free_port(), str(tmp_path), parts), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["steps"] == second["steps"]
    assert 5 <= first["steps"] <= 7
    # One that is left when Python shuts down may end the process with SIGABRT.
    assert not [rank for rank in (0, 1) if "gloo" in (tmp_path / f"{rank}.left").read_text()]
    assert parts["budget"] <= first["cost"]["training"]["flops"] < 1.3 * parts["budget"]


@pytest.mark.slow
def test_two_ranks_make_the_same_orthogonal_updates(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"objective": False, "config": {"optimizer": "muon"}}
    alone = run(tmp_path / "alone", parts)
    torch.multiprocessing.spawn(one_rank, args=(free_port(), str(tmp_path), parts), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    # Not compared with one process: orthogonal updates, in bf16, make rounding as large as what is learned.
    for name in weights(alone.model):
        assert torch.equal(first["weights"][name], second["weights"][name]), name
    assert first["loss"] == pytest.approx(alone.loss, rel=0.02)
