"""Which number format the forward pass uses."""

from __future__ import annotations

import torch

from instil.errors import InputError


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where asked for, or ("auto") where the hardware multiplies it; None means plain fp32.

    Raises:
        InputError: bf16 was asked for on a device that has none.
    """
    if precision == "fp32":
        return None
    if device.type == "cpu":
        return torch.bfloat16 if precision == "bf16" or _cpu_multiplies_bf16() else None
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        if precision == "bf16":
            raise InputError("this GPU has no bfloat16", field="precision", found="bf16", expected="fp32")
        return None
    return torch.bfloat16 if precision == "bf16" else None


def _cpu_multiplies_bf16() -> bool:
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
