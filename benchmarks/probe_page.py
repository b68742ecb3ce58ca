"""`docs/results/probe-speed.md`, written from the JSON of `benchmarks.probe` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.errors import RunFailed
from instil.files import write_text

PAGE = Path(__file__).parents[1] / "docs" / "results" / "probe-speed.md"
Results = Mapping[str, Any]

NAMES = {"60m": "60 M", "embedded": "embedded", "tiny": "tiny"}


def write_page(results: Results, place: Path = PAGE) -> None:
    """Raises RunFailed when the benchmark did not get to its end."""
    if results["finished"] is None:
        raise RunFailed("the benchmark stopped before its end; its figures are not a page yet")
    write_text(place, page(results))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def factor(row: Mapping[str, Any], name: str) -> str:
    """A ratio as the bar is written: in percent below one, else as a multiple."""
    return f"{100 * row[name]:.0f} %" if (row["bar"] or row["value"]) < 1 else f"{number(row[name])}×"


def verdict(row: Mapping[str, Any]) -> str:
    if row["bar"] is None:
        return "–"
    if not row["met"]:
        return "**not met**"
    return "met" if row["low"] >= row["bar"] else "met, not surely"


def rows_of(results: Results) -> list[tuple[str, Mapping[str, Any]]]:
    return [(part["model"], row) for part in results["parts"] for row in part["ratios"]]


def ratios_table(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    return table(
        ("against", "model", "ours", "median ratio", "95 % interval", "rounds", "bar", "is it met"),
        [
            (
                row["row"],
                NAMES.get(model, model),
                row["ours"],
                factor(row, "value"),
                f"{factor(row, 'low')} to {factor(row, 'high')}",
                row["n"],
                "–" if row["bar"] is None else factor(row, "bar"),
                verdict(row),
            )
            for model, row in rows
        ],
    )


def rates_table(results: Results) -> str:
    def rows() -> Iterable[tuple[str, ...]]:
        for part in results["parts"]:
            settings = part.get("settings") or {part["part"]: part}
            for name, one in settings.items():
                for contestant, rate in one.get("rates", {}).items():
                    found = rate["rounds"]
                    spread = f"{number(min(found))} to {number(max(found))}"
                    yield name, NAMES.get(part["model"], part["model"]), contestant, number(rate["median"]), spread

    return table(("comparison", "model", "contestant", "median a second", "rounds"), rows())


def models_table(results: Results) -> str:
    return table(
        (
            "model",
            "parameters",
            "without embedding",
            "vocabulary",
            "width × layers",
            "precision",
            "attention of the peers",
        ),
        [
            (
                NAMES.get(name, name),
                f"{one['parameters']:,}",
                f"{one['non_embedding_parameters']:,}",
                f"{one['vocabulary']:,}",
                f"{one['hidden_size']} × {one['layers']}",
                one["dtype"],
                one["attention"],
            )
            for name, one in results["models"].items()
        ],
    )


def requests_of(results: Results) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for part in results["parts"]:
        for name, one in (part.get("settings") or {part["part"]: part}).items():
            for key in ("requests", "requests_more", "requests_sampled"):
                if key in one:
                    suffix = {"requests": "", "requests_more": ", all facts", "requests_sampled": ", sampled engine"}[
                        key
                    ]
                    yield name + suffix, part["model"], one[key]


def lengths_table(results: Results) -> str:
    def spread(found: Mapping[str, float]) -> str:
        return f"{found['mean']:.1f} ({found['min']}–{found['max']})"

    parts = ("prefix", "question", "prompt", "answer")
    return table(
        ("comparison", "model", "facts", "relations", "prompts", "shots", *parts, "max_new_tokens"),
        [
            (
                *(name, NAMES.get(model, model), one["facts"], one["relations"], one["prompts"], one["shots"]),
                *(spread(one["lengths_in_tokens"][part]) for part in parts),
                one["max_new_tokens"],
            )
            for name, model, one in requests_of(results)
        ],
    )


def peers_list(results: Results) -> str:
    lines = []
    for part in results["parts"]:
        model = NAMES.get(part["model"], part["model"])
        if "left_out" in part:
            lines.append(f"- {model}, {part['part']}: left out, {part['left_out']}\n")
        for name, one in (part.get("settings") or {part["part"]: part}).items():
            peer = one.get("peer", {})
            if "batch_prompts" in peer:
                lines.append(f"- {model}, {name}: best of {tried(peer, 'batch_prompts')} prompts a batch\n")
            if "batch" in peer:
                lines.append(f"- {model}, {name}: best of {tried(peer, 'batch')} requests a batch\n")
            if "batch_tokens" in peer:
                lines.append(f"- {model}, {name}: best of {tried(peer, 'batch_tokens')} tokens a batch\n")
            shapes = peer.get("best_operations_a_second_by_shape")
            if shapes:
                found = ", ".join(f"{shape}: {rate / 1e12:.3f}" for shape, rate in shapes.items())
                lines.append(f"- {model}, {name}: best rate by shape, 10¹² operations a second: {found}\n")
    return "".join(lines)


def tried(peer: Mapping[str, Any], name: str) -> str:
    key = next(key for key in peer if key.endswith(f"_by_{name}"))
    return ", ".join(f"**{size}**" if int(size) == peer[name] else size for size in peer[key])


def machine(results: Results) -> str:
    hardware, versions = results["hardware"], results["versions"]
    made = dict.fromkeys(part.get("commit") or results["commit"] for part in results["parts"])
    commits = " and ".join(f"`{commit}`" for commit in made)
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {hardware['threads']} threads, "
        f"{hardware['memory_gib']} GiB{''.join(f', {name}' for name in hardware['accelerators'])}; "
        + ", ".join(f"{name} {found}" for name, found in versions.items() if found)
        + f"; commit {commits}"
    )


def warnings_of(results: Results) -> str:
    if not results["warnings"]:
        return "- Nothing else kept more than a tenth of a core busy during any part.\n"
    lines = "".join(f"  - {line}\n" for line in results["warnings"])
    return f"- **The machine was not left alone**; figures of these parts are worth less:\n{lines}"


def page(results: Results) -> str:
    found = rows_of(results)
    return f"""# How fast the probe is

<!-- Written by `python -m benchmarks.probe --page` from benchmarks/results/probe.json. Do not edit by hand. -->

Each figure is a ratio taken in one run, on the same facts, prompts, precision and model: contestants take turns, each
round gives one ratio, and the table has the median over rounds with an interval from resampling the rounds. Only
`generate` beside "all facts" answers a few of each relation: its rate does not depend on their number.

{ratios_table([item for item in found if item[1]["bar"] is not None])}
"Met, not surely": the median reaches the bar, the lower end of its interval does not. *Ours* names what was computed:
`full` is the whole protocol with priors and with wrong answers decoded; `without prior` leaves out the priors;
`without prior and decoding` scores the listed answers and decodes nothing.

## Beside these

{ratios_table([item for item in found if item[1]["bar"] is None])}
## Rates

Facts a second for us, `generate` and lm-eval; tokens a second for the forward passes; operations a second for the
matrix product.

{rates_table(results)}
## Models

{models_table(results)}
The 60 M model is the EntityQuestions base of `studies/bases/` with zeros around its weights: it answers and stops as
that trained model does, and each matrix product has the size that is stated. (A model of random weights never stops.
Then every answer is decoded to `max_new_tokens`, and hardly any repeats behind another prefix: the worst case for us.)

## Requests

Lengths in tokens: mean (least–most). Exemplars, questions and answers: {sources(results)}.

{lengths_table(results)}
## How each was measured

- Command: `python -m benchmarks.probe`, {results["started"]} to {results["finished"]}.
- Machine: {machine(results)}.
- Load average before: {", ".join(map(str, results["load_average_before"]))}.
{warnings_of(results)}{METHOD.format(left_out=left_out(results))}
Batch sizes of the peers, each tried once before the rounds, the best in bold:

{peers_list(results)}"""


def left_out(results: Results) -> str:
    """The tokens of questions and answers that need not be computed, as a share of those that must be."""
    shares = sorted(
        one["tokens_without_leads_and_pruning"] / one["tokens_that_must_be_computed"] - 1
        for name, _, one in requests_of(results)
        if name == "forward"
    )
    return " and ".join(f"{100 * share:.0f} %" for share in shares) or "not measured"


def sources(results: Results) -> str:
    return ", ".join(sorted({one["source"] for _, _, one in requests_of(results)}))


METHOD = """- **Ours** is timed from the questions' text to the finished answers: tokenising, choosing the runner,
  prefixes, scoring, and decoding where it says so. Loading the model is not part of it, for anyone.
- **`generate`** answers each prompt once greedily and 16 times at T = 0.5, top-k 40, left padded, prompts of like
  length together, every stop token given as an end token. Its rate does not depend on the number of facts, and all of
  them would take it hours: it answers some of each relation, we answer all. Ours rises with their number, since facts
  share prefixes; what it is on the few that `generate` answers is shown beside it.
- **lm-eval** scores every listed answer with one stop token behind it; the ids are handed over ready, so its tokenising
  is not charged. Ours also scores the answer with a full stop and every other stop token.
- **A plain forward pass** computes as many tokens in dense rows of the lengths that we compute: each prefix once, with
  what its questions begin with alike; what is left of each question, with those of its answers' tokens that a sample
  or greedy decoding can come to. Its rows attend to no prefix, nothing is padded, and logits are computed at as many
  places as we score. The ratio is of tokens a second. What we do not compute at all is not counted: it would be
  {left_out} more.
- **The matrix product** is `torch.matmul` of 2,048 tokens with each of the model's own matrices, and of 2,048³, the
  best of several tries and of all shapes. Our operations are two a weight and token (embedding left out), attention of
  each token to what it sees, and logits where one is scored; if the compute meter counts fewer, its count is taken.
"""
