"""What each sharpness-aware step costs, as a multiple of AdamW's step: all kinds in one run, on the same windows.

    python -m benchmarks.sharpness            the embedded model, about 12 minutes on 2 cores
    python -m benchmarks.sharpness --quick    a few steps, to see that it works
    python -m benchmarks.sharpness --page     docs/results/sharpness-cost.md from the JSON

A step is everything between two updates and the update itself: forward and backward passes, moves of the weights,
clipping, AdamW. Contestants take turns within a round, each with as many steps as its longest period has; a multiple
is of one round, the figure is the median over rounds with a 95 % interval. Operations are the meter's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if not __package__:  # Started as a file: the project's folder is not on the path then.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

import instil
from benchmarks.probe_page import table
from benchmarks.probe_timing import BUSY, Rate, finished, interleave, ratio, timed, watched_load
from instil.errors import RunFailed
from instil.files import write_json, write_text
from instil.loop.hardware import commit, hardware
from instil.model import LanguageModel
from instil.training import Example, Meter, SharpnessConfig, document_examples, plain_step, question_example
from instil.training.attention import quickest_attention
from instil.training.batches import MicroBatch, collate, share_of_loss
from instil.training.layout import Layout, choose
from instil.training.packing import deal, pack
from instil.training.precision import autocast_dtype
from instil.training.sharpness.sharpener import Sharpener
from instil.worlds.embedded import demo_facts, embedded_world

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "sharpness.json"
PAGE = ROOT.parent / "docs" / "results" / "sharpness-cost.md"
ADAMW = "adamw"

VARIANTS: dict[str, dict[str, Any]] = {
    "sam": {},
    "asam": {"kind": "asam", "rho": 0.5},
    "functional": {"kind": "functional"},
    "looksam": {"kind": "looksam"},
    "momentum": {"kind": "momentum"},
    "random": {"kind": "random"},
    "sam, every 5th step": {"every": 5},
    "sam, last half": {"start": 0.5},
    "sam, last fifth": {"start": 0.8},
    "sam, a quarter of the rows": {"share": 0.25},
    "sam, an eighth of the rows": {"share": 0.125},
    "sam, a quarter of the rows, every 2nd step": {"share": 0.25, "every": 2},
    "sam, norm layers": {"perturb": "norms"},
    "sam, norm layers, a quarter of the rows": {"perturb": "norms", "share": 0.25},
    "sam, a move for each micro-batch": {"scope": "micro_batch"},
}
BARS = {"sam": 2.05, "sam, last fifth": 1.25}
"""SAM in the last fifth is the cheap form to take: of those tried it is the one whose answers were shown to be as good
as SAM's (docs/results/generalization.md)."""


@dataclass(frozen=True)
class Plan:
    """How much is measured. `steps` holds a whole period of every variant."""

    rounds: int = 9
    steps: int = 10
    questions: int = 32
    documents: int = 8
    micro_tokens: int = 1024


QUICK = Plan(rounds=2, steps=2, questions=8, documents=4, micro_tokens=256)


class Bench:
    """One model, its optimiser, and the windows that every contestant steps through.

    Args:
        examples: of all windows; dealt to windows in their order.
        size: examples of a window.
    """

    def __init__(self, lm: LanguageModel, examples: Sequence[Example], plan: Plan, size: int) -> None:
        self.plan, self.size, self.lm, self.model = plan, size, lm, lm.model.float()
        self.autocast = autocast_dtype("auto", lm.device)
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        self.layout: Layout = choose(self.model, vocabulary, self.autocast)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)
        self.windows = [self._window(examples[start : start + size]) for start in range(0, size * plan.steps, size)]
        self.model.train()

    def _window(self, examples: Sequence[Example]) -> list[MicroBatch]:
        lengths = [len(example) for example in examples]
        keys = [example.key for example in examples]
        rows = pack(range(len(examples)), lengths, keys, max(256, *lengths))
        total = sum(example.targets for example in examples)
        hand = deal(rows, lengths, self.plan.micro_tokens)
        device = self.lm.device
        return [collate(part, examples, total_weight=total, pad_id=0).to(device) for part in hand.micro_batches]

    def loss(self, model: nn.Module, batch: MicroBatch) -> Tensor:
        with quickest_attention(self.model, batch, self.layout.reading):
            return share_of_loss(model, batch, self.layout.reading)

    def work(self, settings: Mapping[str, Any] | None) -> Callable[[], float]:
        """Steps through all windows; gives their number."""
        config = SharpnessConfig(**settings) if settings is not None else None
        sharpener = Sharpener(config, self.model, seed=0, autocast=self.autocast) if config is not None else None

        def steps() -> float:
            for number, window in enumerate(self.windows):
                step = sharpener.at(number, number / len(self.windows), self.optimiser) if sharpener else plain_step
                step(self.model, window, self.loss)
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimiser.step()
                self.optimiser.zero_grad(set_to_none=True)
            finished()
            return float(len(self.windows))

        return steps

    def operations(self, settings: Mapping[str, Any] | None) -> float:
        meter = Meter()
        with meter.counting(self.model, "training"):
            self.work(settings)()
        return meter.flops["training"]

    def describe(self) -> dict[str, Any]:
        batches = [batch for window in self.windows for batch in window]
        return {
            "windows": len(self.windows),
            "examples_a_window": self.size,
            "micro_batches_a_window": statistics.mean(len(window) for window in self.windows),
            "tokens_a_window": sum(batch.computed for batch in batches) / len(self.windows),
            "targets_a_window": sum(len(batch.targets_N) for batch in batches) / len(self.windows),
            "autocast": str(self.autocast),
        }


def loads(lm: LanguageModel, plan: Plan) -> dict[str, tuple[list[Example], int]]:
    """What is trained on, and how many of them a window has: questions, as in `sft`, and documents, as in `cpt`."""
    facts = list(demo_facts())[: plan.questions * plan.steps]
    documents = list(embedded_world().documents)[: plan.documents * plan.steps]
    questions = [question_example(lm.prompts, fact) for fact in facts]
    texts = [part for document in documents for part in document_examples(lm.prompts, document, 256)]
    return {
        "questions": (questions, plan.questions),
        "documents": (texts[: plan.documents * plan.steps], plan.documents),
    }


def measure(plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "command": "benchmarks.sharpness",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "commit": commit(),
        "hardware": hardware(),
        "quick": plan is QUICK,
        "model": "embedded",
        "warnings": [],
        "parts": [],
    }
    lm = instil.load("embedded")
    result["parameters"] = sum(parameter.numel() for parameter in lm.model.parameters())
    with watched_load() as load:
        for name, (examples, size) in loads(lm, plan).items():
            tell(name)
            result["parts"].append({"load": name, **part(Bench(lm, examples, plan, size), plan, tell)})
    result["load"] = load.to_dict()
    if load.others is not None and load.others > BUSY:
        result["warnings"].append(f"other work kept {load.others:.1f} cores busy")
    result["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    return result


def part(bench: Bench, plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    settings: dict[str, dict[str, Any] | None] = {ADAMW: None, **VARIANTS}
    operations = {name: bench.operations(given) for name, given in settings.items()}  # and what is set up once, is
    contestants: dict[str, Rate] = {name: timed(bench.work(given)) for name, given in settings.items()}
    rates = interleave(contestants, plan.rounds, tell)
    rows = []
    for name, given in VARIANTS.items():
        found = ratio(rates[ADAMW], rates[name])
        rows.append(
            {
                "variant": name,
                "settings": given,
                "time": found,
                "operations": operations[name] / operations[ADAMW],
                "planned": SharpnessConfig(**given).cost_multiple,
            }
        )
    return {
        "windows": bench.describe(),
        "seconds_a_step_of_adamw": 1 / statistics.median(rates[ADAMW]),
        "steps_a_second": rates,
        "rows": rows,
    }


# ---------------------------------------------------------------------- the page


def page(result: Mapping[str, Any]) -> str:
    machine = result["hardware"]
    text = [
        "# What sharpness-aware steps cost\n",
        "Written by `python -m benchmarks.sharpness --page` from `benchmarks/results/sharpness.json`. Multiples of "
        "AdamW's step on the same windows, forward and backward passes, clipping and update included; median over "
        "rounds with a 95 % interval. *Operations* are counted by the meter; to it what moves weights is none, and "
        "shows in the time.\n",
        f"Model: {result['model']}, {result['parameters'] / 1e6:.1f} M parameters. {machine['processor']}, "
        f"{machine['threads']} threads, torch {machine['torch']}; commit {result['commit']}, "
        f"{result['started'][:10]}.\n",
    ]
    text += [f"**{warning}.**\n" for warning in result["warnings"]]
    if result["quick"]:
        text.append("**The short form: too few steps for a figure to rest on.**\n")
    for each in result["parts"]:
        windows = each["windows"]
        text += [
            f"## {each['load'].capitalize()}\n",
            f"{windows['examples_a_window']} examples a window, {windows['tokens_a_window']:,.0f} tokens in "
            f"{windows['micro_batches_a_window']:.1f} micro-batches, {windows['targets_a_window']:,.0f} of them with a "
            f"loss; AdamW takes {1000 * each['seconds_a_step_of_adamw']:,.0f} ms a step, forward pass in "
            f"{windows['autocast'].removeprefix('torch.').replace('None', 'float32')}.\n",
            table(
                ("variant", "time", "95 % interval", "operations", "bar", "is it met"),
                [
                    (
                        row["variant"],
                        f"{row['time']['value']:.2f}×",
                        f"{row['time']['low']:.2f} to {row['time']['high']:.2f}",
                        f"{row['operations']:.2f}×",
                        *judged(row["variant"], row["time"]),
                    )
                    for row in each["rows"]
                ],
            ),
        ]
    return "\n".join(text)


def judged(variant: str, time: Mapping[str, float]) -> tuple[str, str]:
    """The bar, and whether the multiple is below it, with its whole interval or without."""
    bar = BARS.get(variant)
    if bar is None:
        return "–", "–"
    met = "**not met**" if time["value"] > bar else "met" if time["high"] <= bar else "met, not surely"
    return f"{bar}×", met


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--page", action="store_true", help="write the page from the JSON, measure nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    arguments = parser.parse_args(words)
    if arguments.page:
        result = json.loads(arguments.out.read_text(encoding="utf-8"))
        if result["finished"] is None:
            raise RunFailed("the benchmark stopped before its end; its figures are not a page yet")
        write_text(PAGE, page(result))
        return
    write_json(arguments.out, measure(QUICK if arguments.quick else Plan(), lambda line: print(line, flush=True)))


if __name__ == "__main__":
    main()
