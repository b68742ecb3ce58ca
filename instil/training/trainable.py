"""Which weights are trained: all, some by name, or adapters; and the proof that the others did not move."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.errors import InputError, RunFailed
from instil.model.neurons import Neurons
from instil.training.config import LoraSettings, OsfSettings, TrainConfig


@dataclass
class Trainee:
    """A model made ready for training.

    Attributes:
        model: what is called: the model itself, or its `peft` wrapper.
        trained: the parameters that the optimiser gets, by name, tied ones once.
        frozen: a checksum of every other parameter, by name.
        setup_flops: operations that making it ready took (the decompositions of OSF).
    """

    model: nn.Module
    trained: dict[str, nn.Parameter]
    frozen: dict[str, tuple[int, int]]
    setup_flops: float = 0.0

    @property
    def size(self) -> int:
        return sum(parameter.numel() for parameter in self.trained.values())

    def check_frozen(self) -> None:
        """Raises:
        RunFailed: a parameter that was not to be trained has changed.
        """
        now = {name: checksum(p) for name, p in self.model.named_parameters() if name in self.frozen}
        if changed := [name for name, sum_ in self.frozen.items() if now.get(name) != sum_]:
            raise RunFailed(f"training changed weights that were frozen: {some(changed)}")


@contextmanager
def trainee(model: Any, config: TrainConfig) -> Iterator[Trainee]:
    """Make `model` ready; afterwards adapters are merged or removed, and `requires_grad` is as it was.

    Trained weights are fp32 (masters of the mixed-precision forward pass). Full training turns the whole model into
    fp32; adapters leave the frozen weights at the precision they have.
    """
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    if config.adapter is not None:
        if any(isinstance(part, Neurons) for part in model.modules()):
            raise InputError("adapters would leave the added neurons without values", field="adapter", found="neurons")
        wrapped, setup = _attach(model, config.adapter, config.seed)
        try:
            yield replace(_ready(wrapped), setup_flops=setup)
        finally:
            if any(mark in name for name, _ in model.named_parameters() for mark in ("lora_", "osf_svd_params")):
                wrapped.unload()
            _restore(model, wanted)
        return
    model.float()
    if (patterns := patterns_of(model, config)) is not None:
        only(model, patterns)
    else:
        model.requires_grad_(True)
    for part in model.modules():
        if isinstance(part, Neurons):
            part.train_values()
    try:
        yield _ready(model)
    finally:
        _restore(model, wanted)


def _ready(model: nn.Module) -> Trainee:
    parameters = dict(model.named_parameters())
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    frozen = {name: checksum(parameter) for name, parameter in parameters.items() if not parameter.requires_grad}
    return Trainee(model, trained, frozen)


def _restore(model: nn.Module, wanted: Mapping[str, bool]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(wanted.get(name, True))
        parameter.grad = None


def only(model: nn.Module, patterns: Sequence[str]) -> None:
    """Train only the parameters whose names match one of `patterns`.

    Raises:
        InputError: a pattern matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                "no parameter has this name", field="parameters", found=pattern, expected=f"such as {some(names)}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def patterns_of(model: Any, config: TrainConfig) -> Sequence[str] | None:
    """Names of the parameters that are trained, or patterns of them; None: all."""
    return config.parameters if config.late_mlp is None else late_mlps(model, config.late_mlp)


MLP = re.compile(r"(^|\.)(mlp|ffn|ff|feed_forward|feedforward|fc1|fc2|moe|block_sparse_moe)\.")
"""How the families of transformers call what stands beside attention in a layer."""


def late_mlps(model: Any, share: float) -> list[str]:
    """The parameters of the MLPs of the last `share` of the layers, rounded up, by name.

    Raises:
        InputError: the model has no layers in a list, or one of these has no part that is called as an MLP is.
    """
    depth = int(model.config.num_hidden_layers)
    lists = (name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == depth)
    home = next(lists, None)
    names = [name for name, _ in model.named_parameters()]
    found: list[str] = []
    for number in range(depth - math.ceil(share * depth), depth):
        start = f"{home}.{number}."
        own = [name for name in names if name.startswith(start) and MLP.search(name[len(start) :])]
        if not own:
            raise InputError(
                f"no MLP was found in layer {number}", field="late_mlp", found=some(names), expected="train.parameters"
            )
        found += own
    return found


def _attach(model: Any, settings: LoraSettings | OsfSettings, seed: int) -> tuple[Any, float]:
    """The model with adapters in it, and the operations that this took."""
    if isinstance(settings, OsfSettings):
        return attach_osf(model, settings)
    return attach_lora(model, settings, seed), 0.0


def attach_lora(model: Any, settings: LoraSettings, seed: int) -> Any:
    """Put fresh adapters (in fp32, drawn from `seed`) into the model and freeze all else.

    Raises:
        InputError: `peft` is not installed, or a target or layer does not exist.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise _no_peft() from error
    _check_targets(model, settings.targets)
    depth = int(model.config.num_hidden_layers)
    for layer in settings.layers or ():
        if not 0 <= layer < depth:
            raise InputError(
                "the model has no such layer", field="adapter.layers", found=str(layer), expected=f"0 to {depth - 1}"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = _wrapped(
            model,
            LoraConfig(
                r=settings.r,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=list(settings.targets) if settings.targets else "all-linear",
                layers_to_transform=list(settings.layers) if settings.layers is not None else None,
                fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
                task_type="CAUSAL_LM",
            ),
        )
    _check_adapted(wrapped, settings.targets, settings.layers)
    return wrapped


def attach_osf(model: Any, settings: OsfSettings) -> tuple[Any, float]:
    """Divide the weight matrices by their singular values, and free the directions of the smaller ones (in fp32).

    Nothing is drawn: the same weights give the same start.

    Returns:
        The wrapped model, and the operations of the decompositions: 6 m n² + 20 n³ for an m x n matrix, m >= n (Golub
        and Van Loan, Matrix Computations, 4th ed., section 8.6, thin U and V by way of R).

    Raises:
        InputError: `peft` is not installed or too old, a target does not exist, or the model's layers are none that
            OSF can divide.
    """
    try:
        from peft import OSFConfig
    except ImportError as error:
        raise _no_peft("osf needs peft 0.18 or newer: pip install -U 'instil[peft]'") from error
    _check_targets(model, settings.targets)
    if any(type(module).__name__ == "Conv1D" for module in model.modules()):
        raise InputError(
            "OSF divides linear layers only, and this model has layers of another kind",
            field="adapter.kind",
            found="Conv1D",
            expected="lora, or another model",
        )
    targets = list(settings.targets) if settings.targets else "all-linear"
    # The adapter's description asks for a kind of task, and has none of its own for wrapped models.
    wrapped = _wrapped(
        model, OSFConfig(effective_rank=settings.preserved, target_modules=targets, task_type="CAUSAL_LM")
    )
    divided = [module for module in wrapped.modules() if hasattr(module, "osf_svd_params")]
    for module in divided:  # in the weights' own precision until now; trained weights are fp32
        module.osf_svd_params.float()
        for kept in (module._osf_U_low_init, module._osf_S_low_init, module._osf_V_low_init):
            kept.float()
        for kept in (module._osf_U_high, module._osf_V_high):
            kept.float()
    _check_adapted(wrapped, settings.targets, None)
    sizes = [sorted(module.get_base_layer().weight.shape) for module in divided]
    return wrapped, float(sum(6 * large * small**2 + 20 * small**3 for small, large in sizes))


def _wrapped(model: Any, adapter: Any) -> Any:
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="`is_gradient_checkpointing`"
        )  # peft's call, none of the user's doing
        return get_peft_model(model, adapter)


def _no_peft(what: str = "adapters need the package peft: pip install 'instil[peft]'") -> InputError:
    return InputError(what, field="adapter", found="not installed")


def _check_targets(model: nn.Module, targets: Sequence[str] | None) -> None:
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _adaptable(module)}
    for target in targets or ():
        if target not in linear:
            raise InputError(
                "the model has no linear layer of this name", field="adapter.targets", found=target,
                expected=", ".join(sorted(linear)),
            )  # fmt: skip


def _check_adapted(wrapped: Any, targets: Sequence[str] | None, layers: Sequence[int] | None) -> None:
    adapted = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    missing = [
        target
        for target in targets or ()
        if not any(f".{target}.{mark}_" in name for name in adapted for mark in ("lora", "osf"))
    ]
    missing += [f"layer {n}" for n in layers or () if not any(f".{n}." in name for name in adapted)]
    if missing or not adapted:
        wrapped.unload()
        raise InputError("asked to adapt what got no adapter", field="adapter", found=some(missing or ["nothing"]))


def _adaptable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def merge(wrapped: Any, keep: Path | None) -> None:
    """Fold the adapters into the weights they adapt; with `keep`, also save the adapter by itself."""
    if keep is not None:
        # Without this, peft asks the hub whether the vocabulary has changed.
        wrapped.save_pretrained(str(keep), save_embedding_layers=False)
    wrapped.merge_and_unload(safe_merge=True)


def checksum(tensor: Tensor) -> tuple[int, int]:
    """Two sums over the bits of a tensor, the second weighted by place; any change of a weight changes them."""
    bits = tensor.detach().contiguous().flatten().view(torch.uint8)
    plain, placed, size = 0, 0, 1 << 24
    for start in range(0, bits.numel(), size):
        part = bits[start : start + size].to(torch.int64)
        place = torch.arange(start + 1, start + 1 + part.numel(), device=part.device) % 65_521
        plain += int(part.sum())
        placed += int((part * place).sum())
    return plain, placed


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
