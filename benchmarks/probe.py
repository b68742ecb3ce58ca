"""How fast the probe is, beside its peers: ratios taken in one run on the same facts, prompts, precision and model.

    python -m benchmarks.probe                          everything, about 40 minutes on 2 cores
    python -m benchmarks.probe --quick                  a tiny model and few facts, to see that it works
    python -m benchmarks.probe --only forward --only matmul --models 60m
    python -m benchmarks.probe --add                    only what the JSON does not hold yet, after an interruption
    python -m benchmarks.probe --profile --models 60m   where our time goes
    python -m benchmarks.probe --page                   docs/results/probe-speed.md from the JSON

Facts are EntityQuestions' where INSTIL_DATA names a folder with the public data, else the demo's. Contestants take
turns within a round, and a ratio is of one round; the figure is the median over rounds with a 95 % interval. The
60-million model is the EntityQuestions base with zeros around its weights: it answers, and stops, as a trained model
does, and every one of its matrix products has the size that is stated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

if not __package__:  # Started as a file: the project's folder is not on the path then.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.probe_ours import OURS, WITHOUT_DECODING, counted, our_rate, ours
from benchmarks.probe_page import write_page
from benchmarks.probe_peers import Harness, MatrixProducts, PlainForward, SquareForward, generate
from benchmarks.probe_setup import SIZES, Material, Requests, about_model, load_model, shots_for
from benchmarks.probe_timing import BUSY, Rate, best_of, interleave, ratio, timed, watched_load
from instil.files import write_json
from instil.loop.hardware import commit, hardware
from instil.model import LanguageModel
from instil.model.loading import multiplies_bfloat16
from instil.probe import ProbeConfig

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "probe.json"
Tell = Callable[[str], None]
Part = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: each gives one ratio.
        slow_rounds: the same for the parts with a slow contestant.
        relations: of the facts for comparisons with what is about as fast as we are.
        each: facts of each relation.
        harness: facts of each of two relations that lm-eval gets.
        generated: facts of each relation that `generate` gets.
        search: facts with which a peer's best batch size is sought.
        sets: exemplar sets, each of which makes a prompt of a fact.
        seed: draws facts and exemplars.
    """

    rounds: int = 5
    slow_rounds: int = 3
    relations: int = 6
    each: int = 60
    harness: int = 32
    generated: int = 4
    search: int = 4
    sets: int = 10
    seed: int = 0

    @property
    def most(self) -> int:
        """Facts of a relation that any part needs."""
        return max(self.each, self.harness, self.generated, self.search)


PLANS = {"embedded": Plan(each=160, harness=64, generated=12, search=8)}
"""The embedded model is some eight times as fast as one of 60 million, and gets so many more facts."""
QUICK = Plan(rounds=2, slow_rounds=2, relations=2, each=4, harness=2, generated=1, search=1, sets=3)


# ---------------------------------------------------------------------- the parts


@dataclass(frozen=True)
class Bench:
    """One model and the facts it is asked."""

    name: str
    lm: LanguageModel
    material: Material
    plan: Plan
    config: ProbeConfig
    tell: Tell

    @cached_property
    def many(self) -> Requests:
        return self.few(self.plan.relations, self.plan.each)

    def few(self, relations: int, each: int, config: ProbeConfig | None = None) -> Requests:
        return Requests(self.lm, self.material.part(relations, each), config or self.config)

    def run(self, contestants: Mapping[str, Rate], rounds: int) -> dict[str, Any]:
        rates = interleave(contestants, rounds, self.tell)
        return {name: {"median": statistics.median(found), "rounds": found} for name, found in rates.items()}


def against(
    rates: Mapping[str, Any], our: str, their: str, *, name: str, scale: float = 1.0, bar: float | None = None
) -> dict[str, Any]:
    """One row of the table; `scale` turns our unit into theirs."""
    found = ratio([scale * rate for rate in rates[our]["rounds"]], rates[their]["rounds"])
    met = None if bar is None else found["value"] >= bar
    return {"row": name, "ours": our, "against": their, **found, "bar": bar, "met": met}


def engines(bench: Bench) -> Part:
    """Our own ways beside each other."""
    requests = bench.many
    few = bench.few(bench.plan.relations, max(1, bench.plan.each // 8))
    spent = {name: counted(name, few) for name in OURS}
    exact = {name: our_rate(name, requests) for name in OURS[:3]}
    sampled = {"sampled engine": our_rate("sampled engine", few), "full, same facts as sampled": our_rate("full", few)}
    rates = bench.run({**exact, **sampled}, bench.plan.slow_rounds)
    rows = [
        against(rates, "full, same facts as sampled", "sampled engine", name="our sampled engine"),
        against(rates, WITHOUT_DECODING, "full", name="what decoding and priors cost"),
    ]
    return {
        "unit": "facts a second",
        "rates": rates,
        "ratios": rows,
        "requests": requests.describe(),
        "requests_sampled": few.describe(),
        "operations_by_the_meter": spent,
    }


def forward(bench: Bench) -> Part:
    """Our token rate beside a plain forward pass over the same shapes of tokens."""
    requests = bench.many
    ours(WITHOUT_DECODING, requests)
    square = SquareForward(bench.lm)
    square()
    best, tried = best_of((2048, 4096, 8192), lambda size: timed(PlainForward(requests, size)))
    peer = PlainForward(requests, best)
    scale = requests.tokens / requests.facts
    contestants = {
        WITHOUT_DECODING: our_rate(WITHOUT_DECODING, requests),
        "plain forward": timed(peer),
        "plain forward, 32 rows of 64": timed(square),
    }
    rates = bench.run(contestants, bench.plan.rounds)
    rows = [
        against(rates, WITHOUT_DECODING, "plain forward", name="plain forward pass", scale=scale, bar=0.85),
        against(
            rates, WITHOUT_DECODING, "plain forward, 32 rows of 64", name="plain forward pass, 32 × 64", scale=scale
        ),
    ]
    return {
        "unit": "ours facts, theirs tokens a second",
        "rates": rates,
        "ratios": rows,
        "our_tokens_a_second": scale * rates[WITHOUT_DECODING]["median"],
        "requests": requests.describe(),
        "peer": {"batch_tokens": best, "tokens_a_second_by_batch_tokens": tried, "tokens": peer.tokens},
    }


def matmul(bench: Bench) -> Part:
    """Our operations a second beside those of the machine's matrix product."""
    requests = bench.many
    peer = MatrixProducts(bench.lm)
    peer()
    by_meter = counted(WITHOUT_DECODING, requests)["operations"]
    # What need not be computed does not count, nor does what was not computed after all.
    scale = min(requests.flops, by_meter) / requests.facts
    contestants: dict[str, Rate] = {WITHOUT_DECODING: our_rate(WITHOUT_DECODING, requests), "matrix product": peer}
    rates = bench.run(contestants, bench.plan.rounds)
    bar = 0.5 if bench.name == "60m" else None
    row = against(rates, WITHOUT_DECODING, "matrix product", name="matrix-product rate", scale=scale, bar=bar)
    return {
        "unit": "ours facts, theirs operations a second",
        "rates": rates,
        "ratios": [row],
        "our_operations_a_second": scale * rates[WITHOUT_DECODING]["median"],
        "operations_a_fact": {"needed": requests.flops / requests.facts, "by_the_meter": by_meter / requests.facts},
        "requests": requests.describe(),
        "peer": {"best_operations_a_second_by_shape": peer.by_shape},
    }


def generating(bench: Bench) -> Part:
    """The sampled protocol by `generate`, at its best batch size, beside ours on the same facts and on all.

    The rate of `generate` does not depend on how many facts there are, and all of them would take it hours; so it gets
    some of each relation. Ours rises with their number, since facts share prefixes: it is measured on both.
    """
    plan = bench.plan
    few, many = bench.few(plan.relations, plan.generated), bench.many
    prompts = [(*job.row.prefix, *job.row.question) for job in few.jobs]
    # The first call sets things up that the others find done.
    generate(few, prompts[:1], 1)
    sizes = [size for size in (1, 4, 16, 64) if size <= len(prompts)] or [1]
    if sizes[-1] < min(64, len(prompts)):
        sizes.append(min(64, len(prompts)))
    best, tried = best_of(sizes, lambda size: timed(lambda: generate(few, prompts[: max(2, size)], size)))
    for name in OURS:
        ours(name, few)

    def theirs() -> float:
        return generate(few, prompts, best) * few.facts / len(prompts)

    contestants = {"generate": timed(theirs)}
    contestants |= {f"{name}, same facts": our_rate(name, few) for name in OURS}
    contestants |= {f"{name}, all facts": our_rate(name, many) for name in OURS[:3]}
    rates = bench.run(contestants, plan.slow_rounds)
    titles = {
        "without prior, all facts": f"`generate`, sampled protocol, {many.facts} facts",
        f"{WITHOUT_DECODING}, all facts": f"`generate`, sampled protocol, {many.facts} facts, none decoded",
        "full, all facts": f"`generate`, {many.facts} facts; ours also with priors",
        "without prior, same facts": f"`generate`, {few.facts} facts",
        "full, same facts": f"`generate`, {few.facts} facts; ours also with priors",
        f"{WITHOUT_DECODING}, same facts": f"`generate`, {few.facts} facts; none decoded",
        "sampled engine, same facts": f"`generate`, {few.facts} facts; our sampled engine",
    }
    bars = dict.fromkeys(list(titles)[:2], 100.0)
    rows = [against(rates, name, "generate", name=title, bar=bars.get(name)) for name, title in titles.items()]
    return {
        "unit": "facts a second",
        "rates": rates,
        "ratios": rows,
        "requests": few.describe(),
        "requests_more": many.describe(),
        "peer": {
            "batch_prompts": best,
            "prompts_a_second_by_batch_prompts": tried,
            "generations_a_prompt": 1 + bench.config.samples,
            "end_tokens": len(bench.lm.prompts.stop_ids),
        },
    }


LONG_PREFIX = 200
"""Tokens of the longer prefixes."""


def harness(bench: Bench) -> Part:
    """lm-eval's loglikelihood on the same requests, at the protocol's prompts and at 200-token prefixes."""
    try:
        peer = Harness(bench.lm)
    except ImportError as fault:
        return {"left_out": f"lm-eval is not installed ({fault})", "ratios": []}
    plan = bench.plan
    shots = shots_for(bench.lm, bench.few(2, plan.harness).material, bench.config, LONG_PREFIX)
    found = {
        name: compared_with_harness(bench, peer, name, bench.config.model_copy(update={"shots": count}), bar)
        for name, count, bar in (
            ("lm-eval loglikelihood", bench.config.shots, 4.0),
            (f"lm-eval loglikelihood, {LONG_PREFIX}-token prefixes", shots, 8.0),
        )
    }
    rows = [row for part in found.values() for row in part.pop("ratios")]
    return {"unit": "facts a second", "version": peer.version, "settings": found, "ratios": rows}


def compared_with_harness(bench: Bench, peer: Harness, title: str, config: ProbeConfig, bar: float) -> Part:
    plan = bench.plan
    requests, search = bench.few(2, plan.harness, config), bench.few(1, plan.search, config)
    peer.loglikelihood(search.listed[:2], 2)

    def rate_of(batch: int) -> Rate:
        return timed(lambda: len(peer.loglikelihood(search.listed, batch)))

    best, tried = best_of((4, 8, 16, 32, 64), rate_of)
    for name in OURS[:3]:
        ours(name, search)

    def theirs() -> float:
        peer.loglikelihood(requests.listed, best)
        return requests.facts

    contestants = {"lm-eval": timed(theirs), **{name: our_rate(name, requests) for name in OURS[:3]}}
    rates = bench.run(contestants, plan.slow_rounds)
    rows = [
        against(rates, WITHOUT_DECODING, "lm-eval", name=title, bar=bar),
        against(rates, "without prior", "lm-eval", name=f"{title}; ours decodes wrong answers too"),
        against(rates, "full", "lm-eval", name=f"{title}; ours decodes and has priors too"),
    ]
    return {
        "rates": rates,
        "ratios": rows,
        "requests": requests.describe(),
        "peer": {"batch": best, "requests_a_second_by_batch": tried, "requests": len(requests.listed)},
    }


PARTS: dict[str, Callable[[Bench], Part]] = {
    "engines": engines,
    "generate": generating,
    "lm-eval": harness,
    "forward": forward,
    "matmul": matmul,
}


# ---------------------------------------------------------------------- the run


def measure(arguments: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """All parts of all models; the JSON is written after each part, so that little is lost when one fails."""
    result: dict[str, Any] = {
        "command": "benchmarks.probe",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
        "load_average_before": [round(each, 2) for each in os.getloadavg()],
        "quick": arguments.quick,
        "warnings": [],
        "models": {},
        "parts": [],
    }
    if arguments.add and arguments.out.exists():
        held = json.loads(arguments.out.read_text(encoding="utf-8"))
        result = {**held, "finished": None}
        done = {part["model"] for part in held["parts"]}
        result["models"] = {name: about for name, about in held["models"].items() if name in done}
    for bench in benches(arguments, tell):
        result["models"][bench.name] = {**about_model(bench.lm), "source": source_of(bench.name)}
        there = {part["part"] for part in result["parts"] if part["model"] == bench.name}
        for name in arguments.only or PARTS:
            if name in there:
                continue
            tell(f"{bench.name}: {name}")
            with watched_load() as load:
                part = PARTS[name](bench)
            about = {"plan": asdict(bench.plan), "load": load.to_dict(), "commit": commit()}
            result["parts"].append({"part": name, "model": bench.name, **part, **about})
            if load.others is not None and load.others > BUSY:
                result["warnings"].append(f"{bench.name}, {name}: other work kept {load.others:.2f} cores busy")
            for row in part["ratios"]:
                tell(f"  {row['row']}: {row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g}), bar {row['bar']}")
            write_json(arguments.out, result)
    result["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(arguments.out, result)
    return result


def benches(arguments: argparse.Namespace, tell: Tell) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            name = Path(model).name
            plan = QUICK if arguments.quick else PLANS.get(name, Plan())
            plan = replace(plan, each=arguments.each or plan.each)
            material = Material.read(plan.relations, plan.most, plan.seed)
            lm = load_model(model, precision(arguments.dtype), arguments.work or Path(folder))
            yield Bench(name, lm, material, plan, ProbeConfig(exemplar_sets=plan.sets, seed=plan.seed), tell)


def source_of(name: str) -> str:
    """Where a model is from, without the name of a folder on this machine."""
    if name in SIZES:
        return "random weights" if name == "tiny" else "the EntityQuestions base, widened with zeros"
    return "the package" if name == "embedded" else "given by the user"


def precision(dtype: str) -> str:
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.cuda.is_available() or multiplies_bfloat16() else "float32"


def versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in ("instil", "torch", "transformers", "tokenizers", "lm_eval"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def profile(arguments: argparse.Namespace, tell: Tell) -> None:
    """Print where our time goes: torch's operations first, then our functions."""
    import cProfile
    import pstats

    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watched

    for bench in benches(arguments, tell):
        for variant in arguments.variant or (WITHOUT_DECODING, "without prior"):
            requests = bench.many
            ours(variant, requests)
            tell(f"\n=== {bench.name}, {variant}: {our_rate(variant, requests)():.2f} facts a second undisturbed\n")
            with watched(activities=[ProfilerActivity.CPU]) as seen:
                ours(variant, requests)
            tell(str(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45)))
            calls = cProfile.Profile()
            calls.runcall(ours, variant, requests)
            stats = pstats.Stats(calls)
            stats.sort_stats("tottime").print_stats(25)
            stats.sort_stats("cumulative").print_stats(r"instil|benchmarks", 30)


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="60m, tiny, embedded, or what instil.load knows; 60m and embedded")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--threads", type=int, help="of torch; its own choice by default")
    parser.add_argument("--quick", action="store_true", help="few facts and rounds, by default of a tiny model")
    parser.add_argument("--profile", action="store_true", help="print where our time goes, and write nothing")
    parser.add_argument("--variant", action="append", choices=OURS, help="what is profiled")
    parser.add_argument("--each", type=int, help="facts of each relation in the larger sets")
    parser.add_argument("--work", type=Path, help="keep the models made here in this folder")
    parser.add_argument("--page", action="store_true", help="write docs/results/probe-speed.md from the JSON, and stop")
    parser.add_argument("--add", action="store_true", help="keep the parts that the JSON holds, and measure the others")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(given)
    arguments.models = arguments.models or (["tiny"] if arguments.quick else ["60m", "embedded"])
    return arguments


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    tell = partial(print, flush=True)
    if arguments.page:
        write_page(json.loads(arguments.out.read_text(encoding="utf-8")))
        return
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.profile:
        profile(arguments, tell)
        return
    measure(arguments, tell)


if __name__ == "__main__":
    main()
