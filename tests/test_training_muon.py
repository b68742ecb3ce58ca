"""Orthogonal updates: against torch's own Muon and a singular value decomposition, and in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from instil.errors import InputError
from instil.training import Meter
from instil.training.config import LoraSettings
from instil.training.engine import Engine
from instil.training.muon import Muon, matrices_of, orthogonal, orthogonal_flops
from tests.training_data import Killed, assert_same_weights, killed_at, learner, settings, trained, without_time


@drawn(
    rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 99), scale=st.sampled_from([1e-3, 1, 1e4])
)
def test_singular_values_become_nearly_one(rows: int, columns: int, seed: int, scale: float) -> None:
    chance = torch.Generator().manual_seed(seed)
    matrix = scale * torch.randn(rows, columns, generator=chance)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix).float()
    assert found.shape == matrix.shape
    clear = values > 0.1 * values.max()
    size = (left.T @ found @ right.T).diagonal()[clear]
    assert (size > 0.5).all() and (size < 1.5).all()


def test_nothing_stays_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5, dtype=torch.bfloat16))


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_its_operations_are_those_that_torch_counts(shape: tuple[int, int]) -> None:
    with FlopCounterMode(display=False) as counter:
        orthogonal(torch.randn(shape))
    assert counter.get_total_flops() == orthogonal_flops(*shape)


def test_matrices_move_as_with_muon_of_torch_and_the_rest_as_with_adamw() -> None:
    chance = torch.Generator().manual_seed(0)
    start = {"wide": torch.randn(4, 7, generator=chance), "tall": torch.randn(9, 3, generator=chance)}
    start |= {"norm": torch.randn(5, generator=chance)}
    own, twin = ({name: nn.Parameter(value.clone()) for name, value in start.items()} for _ in range(2))
    rest_of_own = [{"params": [own["norm"]], "weight_decay": 0.0}]
    both = Muon([own["wide"], own["tall"]], rest_of_own, lr=0.01, weight_decay=0.1, betas=(0.9, 0.999))
    matrices = torch.optim.Muon(
        [twin["wide"], twin["tall"]], lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    rest = torch.optim.AdamW([twin["norm"]], lr=0.01, weight_decay=0.0)
    for _ in range(5):
        for name in start:
            gradient = torch.randn(start[name].shape, generator=chance)
            own[name].grad, twin[name].grad = gradient.clone(), gradient.clone()
        both.step()
        matrices.step()
        rest.step()
    for name in start:
        torch.testing.assert_close(own[name], twin[name])
        assert not torch.equal(own[name], start[name])


def test_what_has_no_gradient_stays() -> None:
    weight, norm = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))
    Muon([weight], [{"params": [norm]}], lr=0.1, weight_decay=0.1, betas=(0.9, 0.999)).step()
    assert torch.equal(weight, torch.ones(2, 3)) and torch.equal(norm, torch.ones(3))


def test_embeddings_and_the_head_are_no_matrices_between_hidden_states() -> None:
    model = learner().model
    found = matrices_of(model, dict(model.named_parameters()))
    assert found and all("proj" in name for name in found)
    assert len(found) == 7 * model.config.num_hidden_layers


def test_a_run_with_it_learns_and_says_what_it_costs(tmp_path: Path) -> None:
    meters = {kind: Meter() for kind in ("adamw", "muon")}
    results = {
        kind: trained(tmp_path / kind, settings(epochs=4, optimizer=kind, learning_rate=2e-3), meter=meter)
        for kind, meter in meters.items()
    }
    muon, adamw = results["muon"], results["adamw"]
    assert muon.model.fingerprint != adamw.model.fingerprint
    assert muon.points[-1]["loss"] < 0.8 * muon.points[0]["loss"]
    model = learner().model
    matrices = matrices_of(model, dict(model.named_parameters()))
    extra = muon.steps * sum(orthogonal_flops(*weight.shape) for weight in matrices.values())
    assert meters["muon"].total == pytest.approx(meters["adamw"].total + extra)


@pytest.mark.parametrize("at", [2, 5])
def test_invariant_2_resumed_equals_uninterrupted(tmp_path: Path, at: int) -> None:
    config = settings(epochs=3, save_every=1, optimizer="muon", schedule="linear", average=0.7)
    whole = trained(tmp_path / "whole", config)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, step=killed_at(at))
    resumed = trained(tmp_path / "cut", config)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)


def test_adapters_are_matrices_too(tmp_path: Path) -> None:
    config = settings(epochs=4, optimizer="muon", adapter=LoraSettings(), learning_rate=5e-3)
    points = trained(tmp_path / "a", config).points
    assert points[-1]["loss"] < points[0]["loss"]


@pytest.mark.parametrize("given", [{"optimizer": "muon"}, {"average": 0.9}, {"mix": 0.9}])
def test_sharded_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    made = Engine.__init__

    def sharded(engine: Engine, *arguments: Any, **more: Any) -> None:
        made(engine, *arguments, **more)
        engine.is_fsdp_enabled = True

    monkeypatch.setattr(Engine, "__init__", sharded)
    with pytest.raises(InputError, match="sharded"):
        trained(tmp_path / "a", settings(**given))
