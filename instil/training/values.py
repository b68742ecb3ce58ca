"""How fast the values of added neurons are trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from instil.errors import InputError
from instil.model.neurons import Neurons

MOMENTA = (0.0, 0.9)
"""AdamW's two decay rates for values: a neuron's is moved when what it answers to is in the batch, and rests else."""


def with_values_apart(optimizer: torch.optim.Optimizer, model: nn.Module, rate: float) -> None:
    """Give the values of added neurons a rate of their own, as a share of the stream that they are written into.

    Raises:
        InputError: they are sharded over processes.
    """
    found = (part.values.weight for part in model.modules() if isinstance(part, Neurons))
    values = [value for value in found if value.requires_grad]
    if not values:
        return
    if any(hasattr(value, "device_mesh") for value in values):
        raise InputError("values of added neurons cannot be sharded", field="neurons", expected="replicas (DDP)")
    own = {id(value) for value in values}
    for group in optimizer.param_groups:
        group["params"] = [weight for weight in group["params"] if id(weight) not in own]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    apart: dict[str, Any] = {"params": values, "lr": rate, "betas": MOMENTA, "weight_decay": 0.0}
    optimizer.add_param_group({**apart, "orthogonal": False})
