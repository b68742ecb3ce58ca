"""Our own ways of asking the same requests."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.probe_setup import Requests
from benchmarks.probe_timing import Rate, timed
from instil.probe import ProbeConfig, ask
from instil.probe.asking import batches
from instil.probe.exact import ExactEngine
from instil.probe.runner import choose_runner
from instil.training.meter import Meter

WITHOUT_DECODING = "without prior and decoding"
OURS = ("full", "without prior", WITHOUT_DECODING, "sampled engine")


def config_of(variant: str, base: ProbeConfig) -> ProbeConfig:
    changes: dict[str, dict[str, Any]] = {
        "full": {},
        "without prior": {"prior": False},
        WITHOUT_DECODING: {"prior": False},
        "sampled engine": {"prior": False, "engine": "sampled"},
    }
    chosen = changes[variant]
    if variant == WITHOUT_DECODING and "decode" in ProbeConfig.model_fields:
        chosen = {**chosen, "decode": False}
    return base.model_copy(update=chosen)


def ours(variant: str, requests: Requests) -> int:
    """Ask all questions, from text to figures: what a user waits for, without loading the model. Returns the facts."""
    config = config_of(variant, requests.config)
    if variant == WITHOUT_DECODING and "decode" not in ProbeConfig.model_fields:
        return scored_only(requests)
    return len(list(ask(requests.lm, requests.questions, requests.sets, config)))


def scored_only(requests: Requests) -> int:
    """As `ask` without priors and without decoding, for versions that have no such setting."""
    lm, config = requests.lm, requests.config
    jobs = Requests(lm, requests.material, requests.config).jobs
    runner = choose_runner(lm, max((job.row for job in jobs), key=lambda row: len(row.prefix) + len(row)))
    engine = ExactEngine(lm, runner, config)
    for batch in batches(jobs, lambda job: job.row, config.batch_tokens, lm.model.config.vocab_size):
        engine.probabilities([job.row for job in batch], [[job.ends] for job in batch])
    return requests.facts


def counted(variant: str, requests: Requests) -> dict[str, float]:
    """What the compute meter finds that we compute, padding and the check of the runner with it."""
    meter = Meter()
    with meter.counting(requests.lm.model, "deciding"):
        facts = ours(variant, requests)
    spent = meter.to_dict()["deciding"]
    return {"facts": facts, "operations": spent["flops"], "tokens": spent["tokens"]}


def our_rate(variant: str, requests: Requests) -> Rate:
    return timed(partial(ours, variant, requests))
