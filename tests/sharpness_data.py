"""What the tests of sharpness-aware steps share: small models and windows, and each kind's definition in fp64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.training.batches import MicroBatch, Reading, collate, share_of_loss
from instil.training.packing import deal, pack
from instil.training.sharpness import SharpnessConfig
from instil.training.sharpness.step import Moment, sharpness_aware_step
from tests.models import tiny_model
from tests.training_data import made_up

RHO, ALPHA, ETA = 0.3, 0.7, 0.01
Gradients = dict[str, Tensor]


def model_of(family: str = "llama", *, double: bool = True, **changes: Any) -> nn.Module:
    model = tiny_model(family, **changes)[0].train()
    return model.double() if double else model


def window(micro_tokens: int = 10_000, *, count: int = 8, seed: int = 0) -> list[MicroBatch]:
    examples = made_up(count, seed=seed)
    lengths = [len(example) for example in examples]
    rows = pack(range(count), lengths, [example.key for example in examples], 64)
    total = sum(example.targets for example in examples)
    hand = deal(rows, lengths, micro_tokens)
    return [collate(part, examples, total_weight=total, pad_id=2) for part in hand.micro_batches]


def exact_loss(model: nn.Module, batch: MicroBatch) -> Tensor:
    """The share of the window's loss in the precision of the weights."""
    logits_NV = model(input_ids=batch.ids_BT, position_ids=batch.positions_BT).logits.flatten(0, 1)[batch.read_N]
    losses_N = nn.functional.cross_entropy(logits_NV, batch.targets_N, reduction="none")
    return (losses_N * batch.weights_N).sum()


def fast_loss(model: nn.Module, batch: MicroBatch) -> Tensor:
    return share_of_loss(model, batch, Reading())


def weights_of(model: nn.Module) -> Gradients:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def gradients_of(model: nn.Module) -> Gradients:
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def flat(parts: Gradients) -> Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def length_of(parts: Gradients) -> float:
    return float(flat(parts).norm())


def naive_gradients(model: nn.Module, batches: Sequence[MicroBatch], move: Gradients | None = None) -> Gradients:
    """By `torch.autograd.grad` on a copy of the model whose weights have been moved."""
    twin = moved_twin(model, move or {})
    names, parameters = zip(*twin.named_parameters(), strict=True)
    loss = sum((exact_loss(twin, batch) for batch in batches), torch.zeros((), dtype=torch.float64))
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def moved_twin(model: nn.Module, move: Gradients) -> nn.Module:
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name in move:
                parameter.copy_(parameter + move[name])
    return twin


def naive_move(kind: str, model: nn.Module, g: Gradients, momentum: Gradients, config: SharpnessConfig) -> Gradients:
    """Each kind's e by its formula."""
    if kind == "asam":
        sizes = {
            name: weight.abs() + config.eta if "weight" in name else torch.ones_like(weight)
            for name, weight in weights_of(model).items()
        }
        length = length_of({name: sizes[name] * g[name] for name in g})
        return {name: config.rho * sizes[name] ** 2 * g[name] / length for name in g}
    if kind == "momentum":
        length = length_of(momentum)
        return {name: -config.rho * part / length for name, part in momentum.items()}
    length = length_of(g)
    return {name: config.rho * part / length for name, part in g.items()}


def naive_functional(model: nn.Module, batches: Sequence[MicroBatch], move: Gradients) -> Gradients:
    """J(w + e)^T dL/dF(w), F all logits of the window."""
    twin = moved_twin(model, move)
    names, parameters = zip(*twin.named_parameters(), strict=True)
    total = {name: torch.zeros_like(parameter) for name, parameter in zip(names, parameters, strict=True)}
    for batch in batches:
        inputs = {"input_ids": batch.ids_BT, "position_ids": batch.positions_BT}
        logits = model(**inputs).logits.detach().requires_grad_()
        losses_N = nn.functional.cross_entropy(logits.flatten(0, 1)[batch.read_N], batch.targets_N, reduction="none")
        (derivative,) = torch.autograd.grad((losses_N * batch.weights_N).sum(), logits)
        for name, part in zip(names, torch.autograd.grad(twin(**inputs).logits, parameters, derivative), strict=True):
            total[name] = total[name] + part
    return total


def made_up_momentum(model: nn.Module) -> Gradients:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for name, parameter in model.named_parameters()
    }


class Watched:
    """A loss that notes the weights of each pass."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, MicroBatch], Tensor] = exact_loss) -> None:
        self.model, self.loss, self.seen = model, loss, list[Gradients]()

    def __call__(self, model: nn.Module, batch: MicroBatch) -> Tensor:
        self.seen.append(weights_of(self.model))
        return self.loss(model, batch)


def step(model: nn.Module, batches: Sequence[MicroBatch], loss: Any = exact_loss, **given: Any) -> Tensor:
    config = given.pop("config", None) or SharpnessConfig(**given.pop("settings", {"kind": "sam", "rho": RHO}))
    moment = given.pop("moment", Moment())
    model.zero_grad(set_to_none=True)
    return sharpness_aware_step(model, batches, loss, config=config, moment=moment, **given)


def same(found: Gradients, expected: Gradients, rtol: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=rtol, atol=rtol * float(part.abs().max()), msg=name)
