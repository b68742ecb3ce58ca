"""How fast training is beside TRL's `SFTTrainer` with packing, in one run on the same model, precision and data.

    python -m benchmarks.train            60 M and embedded model, documents and questions, under 15 minutes on 2 cores
    python -m benchmarks.train --quick    a tiny model and a few steps, to see that it works
    python -m benchmarks.train --losses   the comparison of losses alone, again
    python -m benchmarks.train --page     docs/results/train-speed.md from the JSON

Both sides start from the same weights and train on the same token ids with the same targets, in each optimiser step on
the same examples: TRL packs first, and we are given its steps. Rates are of useful tokens, padding not counted, from
the end of the first step to the end of the last. Contestants take turns within a round, and a ratio is of one round;
the figure is the median over rounds with a 95 % interval. TRL has the best of the settings that were tried.
"""

from __future__ import annotations

import argparse
import copy
import gc
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

if not __package__:  # Started as a file: the project's folder is not on the path then.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.probe import source_of
from benchmarks.probe_peers import MatrixProducts
from benchmarks.probe_setup import Material, about_model, data_folder, load_model
from benchmarks.probe_timing import BUSY, Rate, interleave, ratio, watched_load
from benchmarks.train_page import write_page
from benchmarks.train_peers import Peer, Setting, Trained, Windows, behind_first, settings_for
from instil.facts import Document
from instil.files import write_json
from instil.loop.hardware import commit, hardware
from instil.model import LanguageModel
from instil.training import Example, TrainConfig, document_examples, question_example, train
from instil.training.batches import Reading, collate, share_of_loss
from instil.training.packing import epoch_windows
from instil.training.precision import autocast_dtype
from instil.worlds.embedded import demo_facts, embedded_world

RESULTS = Path(__file__).parent / "results" / "train.json"
Tell = Callable[[str], None]

INSTIL = "instil"
BAR = 1.3
TOLERANCE = 1e-3
"""Most by which a step's loss may differ between the two in fp32, as a share of it. In bfloat16, where both round in
other places, the optimiser makes of that what it will: such differences are shown and not judged."""

EXACT_STEPS = 4
"""Steps that are trained in fp32 as well, for that comparison."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        steps: of an epoch, about.
        document_tokens: useful tokens of a step on documents, about; `question_tokens` on questions.
        row_length: longer documents are divided, as `cpt` does.
        search: steps with which TRL's best setting is sought.
        learning_rate: high enough for the loss to fall within these few steps.
    """

    rounds: int = 5
    steps: int = 12
    document_tokens: int = 2048
    question_tokens: int = 1024
    row_length: int = 256
    search: int = 2
    learning_rate: float = 1e-3


PLANS = {"60m": Plan(rounds=4, steps=6, learning_rate=3e-4)}
QUICK = Plan(rounds=2, steps=2, document_tokens=512, question_tokens=256)


# ---------------------------------------------------------------------- what is trained on


@dataclass(frozen=True)
class Load:
    """Examples, in steps of about `step_tokens` tokens. `on_answers`: questions, with the loss on their answers."""

    name: str
    source: str
    examples: tuple[Example, ...]
    step_tokens: int
    on_answers: bool

    @property
    def tokens(self) -> int:
        return sum(map(len, self.examples))

    def first(self, steps: int) -> Load:
        return replace(self, examples=tuple(up_to(self.examples, steps * self.step_tokens)))

    def describe(self) -> dict[str, Any]:
        lengths = [len(example) for example in self.examples]
        return {
            "source": self.source,
            "examples": len(lengths),
            "tokens": self.tokens,
            "targets": sum(example.targets for example in self.examples),
            "lengths": {"mean": statistics.mean(lengths), "min": min(lengths), "max": max(lengths)},
            "step_tokens": self.step_tokens,
        }


def up_to(examples: Iterable[Example], tokens: int) -> Iterable[Example]:
    taken = 0
    for example in examples:
        if taken >= tokens:
            return
        taken += len(example)
        yield example


def loads(name: str, lm: LanguageModel, plan: Plan) -> list[Load]:
    """Texts that the model's words are made for, where they are at hand."""
    public = name == "60m" and data_folder("wikipedia/articles.jsonl.gz") is not None
    documents = wikipedia() if public else embedded_world().documents
    questions = Material.read(relations=6, each=200).facts if name == "60m" else demo_facts(count=2000)
    told = (part for each in documents for part in document_examples(lm.prompts, each, plan.row_length))
    asked = (question_example(lm.prompts, fact) for fact in questions)
    world = "the embedded model's world"
    return [
        Load(
            "documents",
            "Wikipedia" if public else f"biographies of {world}",
            tuple(up_to(told, plan.steps * plan.document_tokens)),
            plan.document_tokens,
            on_answers=False,
        ),
        Load(
            "questions",
            "EntityQuestions" if name == "60m" and data_folder("entityquestions") else world,
            tuple(up_to(asked, plan.steps * plan.question_tokens)),
            plan.question_tokens,
            on_answers=True,
        ),
    ]


def wikipedia() -> Iterable[Document]:
    place = data_folder("wikipedia/articles.jsonl.gz")
    assert place is not None
    with gzip.open(place, "rt", encoding="utf-8") as file:
        for line in file:
            article = json.loads(line)
            yield Document(id=str(article["id"]), text=article["text"], title=article["title"])


# ---------------------------------------------------------------------- the contestants


@dataclass(frozen=True)
class Bench:
    """One model and one load."""

    lm: LanguageModel
    load: Load
    plan: Plan
    precision: Any
    tell: Tell

    def peer(self, setting: Setting, load: Load | None = None) -> Peer:
        load = load or self.load
        return Peer(
            self.lm,
            load.examples,
            setting,
            load.step_tokens,
            load.on_answers,
            self.plan.learning_rate,
            self.precision,
        )

    def ours(self, windows: Windows) -> Trained:
        """As a user trains, with default settings.

        The clock is read where the learning curve gets its points: at each step's end, the update done.
        """
        start = LanguageModel.of(copy.deepcopy(self.lm.model), self.lm.tokenizer)
        config = TrainConfig(
            epochs=1,
            batch_size=max(map(len, windows)),
            learning_rate=self.plan.learning_rate,
            precision=self.precision,
            save_every="never",
            log_every=1,
        )
        points: list[dict[str, float]] = []
        ends = [0.0]

        def note(point: dict[str, float]) -> None:
            points.append(point)
            ends.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            ends[0] = time.perf_counter()
            result = train(start, in_windows(self.load.examples, windows), config, out=folder, log=note)
        cost = result.cost["training"]
        timed = behind_first([0.0, *(point["tokens"] for point in points)], ends)
        losses = tuple(point["loss"] for point in points)
        return Trained(*timed, losses, start.model, cost["flops"], result.computed_tokens)

    @cached_property
    def probed(self) -> list[Example]:
        """Of which the loss is computed before and after."""
        return list(self.load.first(1).examples)

    def loss_of(self, model: Any = None) -> float:
        """Mean loss a target token of `probed` in fp32, by one piece of code for all; of the start, or of a model that
        is trained."""
        judged = copy.deepcopy(self.lm.model)
        if model is not None:
            judged.load_state_dict(model.state_dict())
        judged.eval()
        total = sum(example.targets for example in self.probed)
        loss = 0.0
        with torch.no_grad():
            for number in range(len(self.probed)):
                batch = collate([(number,)], self.probed, total_weight=total, pad_id=0).to(self.lm.device)
                loss += float(share_of_loss(judged, batch, Reading()))
        return loss


def in_windows(examples: Sequence[Example], windows: Windows) -> list[Example]:
    """The examples of a window trained on in one step, the windows in their order."""
    return [replace(examples[index], phase=number) for number, window in enumerate(windows) for index in window]


def our_windows(load: Load) -> Windows:
    """Where TRL is not there to say which examples are in which step."""
    lengths = [len(example) for example in load.examples]
    return tuple(epoch_windows(lengths, seed=0, epoch=0, batch_tokens=load.step_tokens))


# ---------------------------------------------------------------------- one model and one load


def part(bench: Bench) -> dict[str, Any]:
    """All contestants in turn."""
    best, tried, left_out = search(bench)
    # Both sides collect garbage once a run; what was there before, they need not look at: it took 0.2 s.
    gc.collect()
    gc.freeze()
    packed = best.get("bfd")
    windows = our_windows(bench.load) if packed is None else bench.peer(packed).windows()
    runs: dict[str, list[Trained]] = defaultdict(list)

    def rate(name: str, run: Callable[[], Trained]) -> Rate:
        def once() -> float:
            trained = run()
            # Of all but the first run only the figures are kept.
            runs[name].append(replace(trained, model=None) if runs[name] else trained)
            return trained.tokens / trained.seconds

        return once

    contestants = {INSTIL: rate(INSTIL, lambda: bench.ours(windows))}
    contestants |= {trl(name): rate(trl(name), bench.peer(setting).train) for name, setting in best.items()}
    products = matrix_products(bench)
    contestants["matrix product"] = products
    contestants[INSTIL]()  # what is set up once, is
    runs.clear()
    rates = interleave(contestants, bench.plan.rounds, bench.tell)
    ours = runs[INSTIL][0]
    operations = ours.operations / bench.load.tokens
    rows = [against(rates, trl(name), bar=BAR if name == "bfd" else None) for name in best]
    rows.append(against(rates, "matrix product", scale=operations))
    return {
        "load": bench.load.name,
        **bench.load.describe(),
        "windows": [len(window) for window in windows],
        "computed_tokens": ours.computed,
        "operations_a_token": operations,
        "precision": bench.precision,
        "rates": {name: {"median": statistics.median(found), "rounds": found} for name, found in rates.items()},
        "ratios": rows,
        "trajectory": None if packed is None else in_fp32(bench, packed),
        "trajectory_as_timed": None if packed is None else trajectory(bench, ours, runs[trl("bfd")][0]),
        "settings": {name: str(setting) for name, setting in best.items()},
        "tried": tried,
        "left_out": left_out,
        "matrix_products": products.by_shape,
    }


def trl(strategy: str) -> str:
    return f"TRL, {strategy}"


def search(bench: Bench) -> tuple[dict[str, Setting], dict[str, float], str | None]:
    """TRL's quickest setting of each strategy, the tokens a second of all, and why TRL is left out if it is."""
    try:
        import trl as _  # noqa: F401
    except ImportError as fault:
        return {}, {}, f"TRL is not installed ({fault})"
    few = bench.load.first(bench.plan.search)
    lengths = [len(example) for example in bench.load.examples]
    settings = settings_for(few.step_tokens, max(lengths), statistics.mean(lengths))
    bench.peer(settings[0], few).train()
    rates: dict[Setting, float] = {}
    for setting in settings:
        trained = bench.peer(setting, few).train()
        rates[setting] = trained.tokens / trained.seconds
        bench.tell(f"  {setting}: {rates[setting]:,.0f}")
    best: dict[str, Setting] = {}
    for setting in sorted(settings, key=lambda setting: rates[setting]):
        best[setting.strategy] = setting
    return (
        {name: best[name] for name in ("bfd", "wrapped", "padded") if name in best},
        {str(setting): rate for setting, rate in rates.items()},
        None,
    )


def matrix_products(bench: Bench) -> MatrixProducts:
    """In the precision of the forward pass."""
    dtype = torch.bfloat16 if bench.precision == "bf16" else torch.float32
    products = MatrixProducts(LanguageModel.of(copy.deepcopy(bench.lm.model).to(dtype), bench.lm.tokenizer))
    products()
    return products


def against(rates: Mapping[str, Sequence[float]], other: str, *, scale: float = 1.0, bar: float | None = None) -> Any:
    found = ratio([scale * rate for rate in rates[INSTIL]], rates[other])
    return {"against": other, **found, "bar": bar, "met": None if bar is None else found["value"] >= bar}


def in_fp32(bench: Bench, setting: Setting) -> dict[str, Any]:
    """The losses of a few steps without autocast."""
    exact = replace(bench, load=bench.load.first(EXACT_STEPS), precision="fp32")
    peer = exact.peer(setting)
    return trajectory(exact, exact.ours(peer.windows()), peer.train())


def trajectory(bench: Bench, ours: Trained, theirs: Trained) -> dict[str, Any]:
    """The losses of both, step by step, and of the same examples before and after."""
    before, our_end, their_end = bench.loss_of(), bench.loss_of(ours.model), bench.loss_of(theirs.model)
    return {
        "ours": list(ours.losses),
        "theirs": list(theirs.losses),
        "before": before,
        "after": {"ours": our_end, "theirs": their_end},
        "precision": bench.precision,
        "tolerance": TOLERANCE if bench.precision == "fp32" else None,
        **compared([*ours.losses, our_end], [*theirs.losses, their_end], TOLERANCE),
    }


def compared(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> dict[str, Any]:
    """The largest difference of two curves, as a share of the second, and whether it is within the tolerance.

    Raises:
        ValueError: they have different numbers of points.
    """
    apart = [abs(one - other) / abs(other) for one, other in zip(ours, theirs, strict=True)]
    return {"largest_difference": max(apart), "same": max(apart) <= tolerance}


def add_trajectories(result: dict[str, Any], tell: Tell) -> None:
    """The losses in fp32 for parts that are measured already: nothing is timed, so the machine may be busy."""
    with tempfile.TemporaryDirectory() as folder:
        for one in result["parts"]:
            plan = Plan(**one["plan"])
            lm = load_model(one["model"], "float32", Path(folder))
            load = next(load for load in loads(one["model"], lm, plan) if load.name == one["load"])
            setting = settings_for(load.step_tokens, max(map(len, load.examples)), 1.0)[0]
            one.setdefault(
                "trajectory_as_timed", {**one["trajectory"], "precision": one["precision"], "tolerance": None}
            )
            one["trajectory"] = in_fp32(Bench(lm, load, plan, "fp32", tell), setting)
            tell(f"{one['model']}, {load.name}: {one['trajectory']['largest_difference']:.2e}")


# ---------------------------------------------------------------------- the run


def measure(arguments: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """All models and loads; the JSON is written after each, so that little is lost when one fails."""
    result: dict[str, Any] = {
        "command": "benchmarks.train",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
        "quick": arguments.quick,
        "warnings": [],
        "models": {},
        "parts": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models or (["tiny"] if arguments.quick else ["60m", "embedded"]):
            plan = QUICK if arguments.quick else PLANS.get(name, Plan())
            lm = load_model(name, "float32", Path(folder))
            precision = "fp32" if autocast_dtype("auto", lm.device) is None else "bf16"
            result["models"][name] = {**about_model(lm), "source": source_of(name)}
            for load in loads(name, lm, plan):
                tell(f"{name}: {load.name}")
                with watched_load() as busy:
                    found = part(Bench(lm, load, plan, precision, tell))
                result["parts"].append({"model": name, **found, "plan": asdict(plan), "busy": busy.to_dict()})
                if busy.others is not None and busy.others > BUSY:
                    result["warnings"].append(f"{name}, {load.name}: other work kept {busy.others:.2f} cores busy")
                write_json(arguments.out, result)
    result["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(arguments.out, result)
    return result


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("instil", "torch", "transformers", "accelerate", "trl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=("60m", "embedded", "tiny"), help="60m and embedded")
    parser.add_argument("--threads", type=int, help="of torch; its own choice by default")
    parser.add_argument("--quick", action="store_true", help="a few steps, by default of a tiny model")
    parser.add_argument("--losses", action="store_true", help="compare the losses of what the JSON has, time nothing")
    parser.add_argument("--page", action="store_true", help="write the page from the JSON, measure nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    arguments = parser.parse_args(words)
    if arguments.page:
        write_page(json.loads(arguments.out.read_text(encoding="utf-8")))
        return
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.losses:
        result = json.loads(arguments.out.read_text(encoding="utf-8"))
        add_trajectories(result, partial(print, flush=True))
        write_json(arguments.out, result)
        return
    measure(arguments, partial(print, flush=True))


if __name__ == "__main__":
    main()
