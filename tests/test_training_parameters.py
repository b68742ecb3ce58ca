"""Which weights a run trains: those asked for by name or by place, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError
from instil.training.trainable import late_mlps
from tests.models import FAMILIES, tiny_model
from tests.training_data import (
    learner,
    settings,
    trained,
    weights,
)


def test_only_the_parameters_asked_for_are_trained(tmp_path: Path) -> None:
    before = weights(learner())
    result = trained(tmp_path, settings(parameters=("*.layers.1.mlp.*", "lm_head.weight")))
    changed = {name for name, weight in weights(result.model).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".layers.1.mlp." in name or name == "lm_head.weight"}
    assert result.trained_parameters == sum(before[name].numel() for name in changed)
    assert all(parameter.requires_grad for parameter in result.model.model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_late_mlps_are_those_of_the_last_layers(family: str) -> None:
    model, _ = tiny_model(family)
    depth = model.config.num_hidden_layers
    names = [name for name, _ in model.named_parameters()]
    late, every = late_mlps(model, 0.5), late_mlps(model, 1.0)
    assert every == [name for name in names if ".mlp." in name] and len(set(every)) == len(every)
    assert late == every[len(every) // depth * (depth // 2) :]
    assert late_mlps(model, 0.01) == every[-(len(every) // depth) :], "one layer at least"
    layers = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
    layers[depth - 2].mixer = layers[depth - 2].mlp
    del layers[depth - 2].mlp
    with pytest.raises(InputError, match=f"no MLP was found in layer {depth - 2}"):
        late_mlps(model, 1.0)
    model.config.num_hidden_layers = depth + 1
    with pytest.raises(InputError, match=f"no MLP was found in layer {depth}"):
        late_mlps(model, 0.1)


def test_only_late_mlps_are_trained(tmp_path: Path) -> None:
    before = weights(learner())
    result = trained(tmp_path, settings(late_mlp=0.5))
    changed = {name for name, weight in weights(result.model).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".layers.1.mlp." in name}


def test_a_parameter_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no parameter has this name.*\*\.layers\.7\.\*"):
        trained(tmp_path, settings(parameters=("*.layers.0.*", "*.layers.7.*")))


def test_a_parameter_that_the_loss_does_not_reach_is_an_error(tmp_path: Path) -> None:
    def with_a_stray(lm: Any) -> Any:
        lm.model.model.stray = torch.nn.Linear(3, 3)
        return lm

    with pytest.raises(InputError, match=r"the loss does not reach.*stray"):
        trained(tmp_path / "a", settings(parameters=("*.stray.*",)), lm=with_a_stray(learner()))
    with pytest.raises(InputError, match=r"the loss does not reach.*stray"):
        trained(tmp_path / "b", settings(parameters=("*.stray.*", "lm_head*")), lm=with_a_stray(learner()))
    result = trained(tmp_path / "c", settings(), lm=with_a_stray(learner()))
    assert result.notes == ("the loss never reached model.stray.bias, model.stray.weight",)
