"""Muon: the update of a weight matrix is made orthogonal, so that it goes equally far in every direction; what is no
matrix between hidden states is trained by AdamW.

AdamW's update of a matrix has a few large directions, which every text needs, and the rare ones, in which single facts
lie, are small. With all alike, more is learned for the same change of what was there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

if TYPE_CHECKING:
    from transformers import TrainingArguments

STEPS = 5
COEFFICIENTS = (3.4445, -4.775, 2.0315)


class Muon(AdamW):
    """Muon for matrices, AdamW for all else, as one optimiser: torch's own takes matrices alone.

    Of a matrix the update is lr · 0.2 · √max(rows, columns) · U Vᵀ, with U S Vᵀ the momentum's (Nesterov)
    singular value decomposition, nearly (`orthogonal`). By that factor it is as long as AdamW's usually are, so that
    the same learning rates suit both. Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the factor from Liu et
    al. 2025 (arXiv 2502.16982, section 2.2); that rare facts gain most: Wang et al. 2025 (arXiv 2509.26030).

    Args:
        matrices: two-dimensional parameters.
        others: groups of parameters for AdamW, as torch takes them.
        lr: for both.
        weight_decay: of the matrices, decoupled.
        betas: AdamW's; the first is the matrices' momentum as well.
        adamw: AdamW's further settings.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        **adamw: Any,
    ) -> None:
        groups = [{"params": matrices, "weight_decay": weight_decay, "orthogonal": True}]
        groups += [{**group, "orthogonal": False} for group in others]
        super().__init__([group for group in groups if group["params"]], lr=lr, betas=betas, **adamw)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["orthogonal"]:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._move(weight, float(group["lr"]), group["weight_decay"], group["betas"][0])
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _move(self, weight: nn.Parameter, rate: float, decay: float, momentum: float) -> None:
        state = self.state[weight]
        if not state:
            # A step, as AdamW's state has one: reading back a state of both, torch looks for it.
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(weight))
        mean, gradient = state["exp_avg"], weight.grad
        assert gradient is not None
        mean.lerp_(gradient, 1 - momentum)
        update = orthogonal(gradient.lerp(mean, momentum))
        weight.mul_(1 - rate * decay)
        weight.add_(update.to(weight.dtype), alpha=-rate * 0.2 * math.sqrt(max(weight.shape)))

    @property
    def flops(self) -> float:
        """Operations of a step beyond those of AdamW, which are a few for each weight and not counted."""
        matrices = (weight for group in self.param_groups if group["orthogonal"] for weight in group["params"])
        return sum(orthogonal_flops(*weight.shape) for weight in matrices if weight.requires_grad)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix (rows, columns) with all its singular values near 1 (0.5 to 1.5, where they were not far below the
    largest), in bf16: five Newton–Schulz iterations of Jordan et al. 2024."""
    a, b, c = COEFFICIENTS
    found = matrix.bfloat16()
    tall = found.shape[0] > found.shape[1]
    found = found.T if tall else found
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if tall else found


def orthogonal_flops(rows: int, columns: int) -> float:
    """Operations of `orthogonal`.

    >>> orthogonal_flops(2, 3)
    320.0
    """
    short, long = sorted((rows, columns))
    return STEPS * (4.0 * short * short * long + 2.0 * short**3)


def muon(
    model: nn.Module, trained: Mapping[str, nn.Parameter], decayed: Collection[str], given: TrainingArguments
) -> Muon:
    """The optimiser of a run.

    Args:
        trained: what is trained, by name.
        decayed: names of the parameters that weight decay is for; all matrices between hidden states are.
        given: rates and AdamW's settings.
    """
    matrices = matrices_of(model, trained)
    rest = {name: weight for name, weight in trained.items() if name not in matrices}
    others = [
        {"params": [rest[name] for name in rest if (name in decayed) == wanted], "weight_decay": decay}
        for wanted, decay in ((True, given.weight_decay), (False, 0.0))
    ]
    return Muon(
        list(matrices.values()),
        others,
        lr=given.learning_rate,
        weight_decay=given.weight_decay,
        betas=(given.adam_beta1, given.adam_beta2),
        eps=given.adam_epsilon,
        fused=True,
    )


def matrices_of(model: nn.Module, trained: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The trained parameters that Muon takes, by name: not embeddings and the head, whose rows are tokens; nor norms,
    biases, and experts that are held in one block."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    layers = [head, *(part for part in model.modules() if isinstance(part, nn.Embedding))]
    tokens = {id(layer.weight) for layer in layers if layer is not None and hasattr(layer, "weight")}
    return {name: weight for name, weight in trained.items() if weight.ndim == 2 and id(weight) not in tokens}
