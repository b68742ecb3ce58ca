"""Our own ways of asking the same requests."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.probe_setup import Requests
from benchmarks.probe_timing import Rate, timed
from instil.probe import ProbeConfig, ask
from instil.training.meter import Meter

WITHOUT_DECODING = "without prior and decoding"
OURS = ("full", "without prior", WITHOUT_DECODING, "sampled engine")


def config_of(variant: str, base: ProbeConfig) -> ProbeConfig:
    changes: dict[str, dict[str, Any]] = {
        "full": {},
        "without prior": {"prior": False},
        WITHOUT_DECODING: {"prior": False, "decode": False},
        "sampled engine": {"prior": False, "engine": "sampled"},
    }
    return base.model_copy(update=changes[variant])


def ours(variant: str, requests: Requests) -> int:
    """Ask all questions, from text to figures: what a user waits for, without loading the model. Returns the facts."""
    config = config_of(variant, requests.config)
    return len(list(ask(requests.lm, requests.questions, requests.sets, config)))


def counted(variant: str, requests: Requests) -> dict[str, float]:
    """What the compute meter finds that we compute, padding and the check of the runner with it."""
    meter = Meter()
    with meter.counting(requests.lm.model, "deciding"):
        facts = ours(variant, requests)
    spent = meter.to_dict()["deciding"]
    return {"facts": facts, "operations": spent["flops"], "tokens": spent["tokens"]}


def our_rate(variant: str, requests: Requests) -> Rate:
    return timed(partial(ours, variant, requests))
