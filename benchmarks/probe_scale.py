"""How time and memory of `instil.probe` grow with the number of facts.

    python -m benchmarks.probe_scale [--sizes 1000 3000 10000 30000 100000] [--seeds 3] [--out FILE]
    python -m benchmarks.probe_scale --page          # only writes the table and the plot again from the JSON

Each measurement is a process of its own on the embedded model, which reads a file of facts of generated worlds in a
seeded random order, so that every part holds every relation. The result is written to a folder as `instil probe` does.
Peak memory is the most that the process ever held; what it held when facts and model were read, and nothing was probed,
stands beside it.
By default one prompt with one exemplar a fact and no prior, to reach large numbers soon; the full protocol has ten
prompts with four exemplars.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from instil.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "probe_scale.json"
PAGE = ROOT / "docs" / "probe-scale.md"
PLOT = ROOT / "docs" / "images" / "probe-scale.svg"
FACTS, EXEMPLARS = "facts.jsonl", "exemplars.jsonl"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
MILLION = 1_000_000
STEADY = 30_000

Result = Mapping[str, Any]


# ------------------------------------------------------------------ one measurement


def measure(folder: Path, count: int, seed: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Probe the `count` facts that `write_facts` wrote to a folder, in this process."""
    import instil
    from instil.facts import FactSet
    from instil.probe import ProbeConfig, probe
    from instil.probe.memory import peak_memory_mb

    facts, exemplars = FactSet.read(folder / FACTS), FactSet.read(folder / EXEMPLARS)
    lm = instil.load("embedded", device="cpu")
    read = peak_memory_mb()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "probe"
        started, processor = time.perf_counter(), time.process_time()
        probe(lm, facts, exemplars, ProbeConfig.model_validate(dict(config)), out=out)
        seconds, busy = time.perf_counter() - started, time.process_time() - processor
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        size = (out / "mastery.parquet").stat().st_size
    return {
        "facts": count,
        "seed": seed,
        "seconds": round(seconds, 3),
        "processor_seconds": round(busy, 3),
        "facts_per_second": round(count / seconds, 2),
        "computing_seconds": round(summary["cost"]["seconds"], 3),
        "read_memory_mb": round(read, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "file_mb": round(size / 2**20, 2),
        "known": summary["headline"]["known"]["value"],
        "batches": summary["batches"],
    }


def write_facts(folder: Path, count: int, seed: int) -> None:
    """Write what a measurement reads; in another process, whose memory is not measured."""
    facts, exemplars = generated_facts(count, seed)
    facts.write(folder / FACTS)
    exemplars.write(folder / EXEMPLARS)


def generated_facts(count: int, seed: int) -> tuple[Any, Any]:
    """`count` facts of as many worlds as it takes, shuffled, and the exemplar facts of the first world."""
    import random
    from dataclasses import replace

    from instil.facts import FactSet, Role
    from instil.worlds import WorldConfig, generate_world

    found: list[Any] = []
    exemplars = FactSet(())
    number = 0
    while len(found) < count:
        world = generate_world(WorldConfig(seed=100 * seed + number)).facts
        if not number:
            exemplars = world.with_role(Role.EXEMPLAR)
        told = world.where(lambda fact: fact.role is not Role.EXEMPLAR)
        found += [replace(fact, id=f"{number}/{fact.id}", role=None) for fact in told]
        number += 1
    random.Random(seed).shuffle(found)
    return FactSet(found[:count]), exemplars


# ----------------------------------------------------------------------- the campaign


def campaign(sizes: Sequence[int], seeds: int, config: Mapping[str, Any], threads: int | None) -> dict[str, Any]:
    from instil.loop.hardware import commit, hardware

    began = time.perf_counter()
    rows = []
    for seed in range(seeds):
        for size in sizes:
            rows.append(in_a_process(size, seed, config, threads))
            print(
                "{facts:>9,} facts, seed {seed}: {seconds:8.1f} s, {facts_per_second:7.1f} facts/s, "
                "{peak_memory_mb:7.0f} MB".format(**rows[-1]),
                flush=True,
            )
    return {
        "what": "instil.probe on the embedded model, one process a measurement",
        "commit": commit(),
        "hardware": hardware() | {"load_average": [round(each, 1) for each in os.getloadavg()]},
        "threads": threads,
        "config": dict(config),
        "seeds": seeds,
        "seconds": round(time.perf_counter() - began, 1),
        "measurements": rows,
        "growth": growth(rows),
    }


def in_a_process(size: int, seed: int, config: Mapping[str, Any], threads: int | None) -> dict[str, Any]:
    # As the command line sets it: oneDNN would keep a compiled kernel for each of many shapes.
    environment = {**os.environ, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        write_facts(Path(folder), size, seed)
        given = (folder, str(size), str(seed), json.dumps(dict(config)))
        words = [sys.executable, "-m", "benchmarks.probe_scale", "--one", *given]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{size} facts, seed {seed}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def growth(rows: Sequence[Result]) -> dict[str, Any]:
    """Straight lines: what one more fact costs, and what a million would take.

    Through the sizes of `STEADY` facts and more, where there are two: up to then libraries go on compiling kernels.
    """
    steady = [row for row in rows if row["facts"] >= STEADY]
    rows = steady if len({row["facts"] for row in steady}) > 1 else rows
    found: dict[str, Any] = {"from_facts": min(row["facts"] for row in rows)}
    for name in ("seconds", "read_memory_mb", "peak_memory_mb"):
        start, slope = line([row["facts"] for row in rows], [row[name] for row in rows])
        found[name] = {"start": start, "per_fact": slope, "at_a_million": start + MILLION * slope}
    sizes = sorted({row["facts"] for row in rows})
    if len(sizes) > 1:
        rate = {size: median(row["facts_per_second"] for row in rows if row["facts"] == size) for size in sizes}
        found["rate_of_the_largest_to_the_one_before"] = rate[sizes[-1]] / rate[sizes[-2]]
    return found


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Start and slope of the line of least squares."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0
    return mean_y - slope * mean_x, slope


# ------------------------------------------------------------------- table and plot


def page(result: Result) -> str:
    config, machine, grown = result["config"], result["hardware"], growth(result["measurements"])
    prior = "on" if config["prior"] else "off"
    rows = [
        (
            f"{size:,}",
            _span(result, size, "seconds", ".1f"),
            _span(result, size, "facts_per_second", ".0f"),
            _span(result, size, "read_memory_mb", ".0f"),
            _span(result, size, "peak_memory_mb", ".0f"),
        )
        for size in sorted({row["facts"] for row in result["measurements"]})
    ]
    head = ("facts", "seconds", "facts a second", "MB once facts and model are read", "MB at the peak")
    memory, seconds, read = grown["peak_memory_mb"], grown["seconds"], grown["read_memory_mb"]
    return f"""# How probing grows

Written by `python -m benchmarks.probe_scale` from `benchmarks/results/probe_scale.json` (commit {result["commit"]}).
`instil.probe` on the embedded model, {machine["processor"]}, {machine["cores"]} cores.
Exemplar sets: {config["exemplar_sets"]}, exemplars in each: {config["shots"]}, prior {prior}.
Each figure is the median of {result["seeds"]} seeds (another world and order each), with the lowest and the highest.
Every measurement is a process of its own.

{_table(head, rows)}
A straight line through the measurements of {grown["from_facts"]:,} facts and more:

- one more fact takes {1000 * seconds["per_fact"]:.2f} ms and {1024 * memory["per_fact"]:.2f} kB of peak memory,
- of which {1024 * read["per_fact"]:.2f} kB are the fact itself as it was read;
- a million facts take {seconds["at_a_million"] / 3600:.1f} hours and {memory["at_a_million"] / 1024:.1f} GB.

![Time and peak memory against the number of facts](images/{PLOT.name})
"""


def _span(result: Result, size: int, name: str, form: str) -> str:
    values = sorted(row[name] for row in result["measurements"] if row["facts"] == size)
    return f"{median(values):{form}} ({values[0]:{form}} to {values[-1]:{form}})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def plot(result: Result) -> str:
    """Two panels as SVG: seconds (both axes logarithmic, with the line of constant rate) and peak memory."""
    import math

    rows = result["measurements"]
    width, height, left, top = 340, 240, 60, 30
    low, high = (math.log10(edge([row["facts"] for row in rows])) for edge in (min, max))
    high = max(high, low + 1e-9)

    def x(facts: float) -> float:
        return left + (math.log10(facts) - low) / (high - low) * (width - left - 20)

    def panel(name: str, title: str, log: bool, shift: int) -> list[str]:
        scale = math.log10 if log else float
        values = [scale(row[name]) for row in rows]
        bottom, ceiling = (min(values) - 0.1, max(values) + 0.1) if log else (0.0, 1.15 * max(values))

        def y(value: float) -> float:
            return top + (ceiling - scale(value)) / (ceiling - bottom) * (height - top - 40)

        text = 'font-family="sans-serif" font-size="11" fill="#555"'
        powers = range(math.floor(bottom), math.ceil(ceiling) + 1)
        steps = [digit * 10**power for power in powers for digit in (1, 3)] if log else []
        steps = steps or [round(ceiling * part / 4, -2) for part in range(1, 4)]
        steps = [step for step in steps if bottom <= (scale(step) if step > 0 else bottom - 1) <= ceiling]
        drawn = [f'<text x="{left}" y="16" {text} font-weight="bold">{title}</text>']
        for tick in steps:
            drawn.append(f'<line x1="{left}" x2="{width - 20}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>')
            drawn.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" {text}>{tick:,.0f}</text>')
        for size in sorted({row["facts"] for row in rows}):
            label = f"{size // 1000} k" if size >= 1000 else str(size)
            drawn.append(f'<text x="{x(size):.1f}" y="{height - 22}" text-anchor="middle" {text}>{label}</text>')
        if log:
            last = max(rows, key=lambda row: row["facts"])
            ends = [(size, last[name] * size / last["facts"]) for size in (10**low, 10**high)]
            points = " ".join(f"{x(size):.1f},{y(max(value, 10**bottom)):.1f}" for size, value in ends)
            drawn.append(f'<polyline points="{points}" fill="none" stroke="#999" stroke-dasharray="4 3"/>')
        drawn += [
            f'<circle cx="{x(row["facts"]):.1f}" cy="{y(row[name]):.1f}" r="3.5" fill="#1b7837" fill-opacity="0.7"/>'
            for row in rows
        ]
        drawn.append(f'<text x="{(left + width) / 2}" y="{height - 6}" text-anchor="middle" {text}>facts</text>')
        return [f'<g transform="translate({shift} 0)">', *drawn, "</g>"]

    body = [
        *panel("seconds", "seconds (dashed: a constant rate)", True, 0),
        *panel("peak_memory_mb", "peak memory, MB", False, width),
    ]
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width} {height}" width="{2 * width}">'
    return "\n".join([frame, f'<rect width="{2 * width}" height="{height}" fill="white"/>', *body, "</svg>"]) + "\n"


def write_page(result: Result, page_at: Path = PAGE, plot_at: Path = PLOT) -> None:
    write_text(page_at, page(result))
    write_text(plot_at, plot(result))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--exemplar-sets", type=int, default=1)
    options.add_argument("--shots", type=int, default=1)
    options.add_argument("--prior", action="store_true")
    options.add_argument("--threads", type=int, help="threads of torch; its own choice by default")
    options.add_argument("--out", type=Path, default=RESULT)
    options.add_argument("--page", action="store_true", help="only write the table and the plot again")
    options.add_argument("--one", nargs=4, metavar=("FOLDER", "COUNT", "SEED", "CONFIG"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        folder, count, seed, config = given.one
        print(json.dumps(measure(Path(folder), int(count), int(seed), json.loads(config))))
        return
    if not given.page:
        config = {"exemplar_sets": given.exemplar_sets, "shots": given.shots, "prior": given.prior}
        write_json(given.out, campaign(given.sizes, given.seeds, config, given.threads))
    if given.out == RESULT:
        write_page(json.loads(given.out.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
