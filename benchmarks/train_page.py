"""`docs/results/train-speed.md`, written from the JSON of `benchmarks.train` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.probe_page import NAMES, factor, number, table, verdict
from instil.errors import RunFailed
from instil.files import write_text

PAGE = Path(__file__).parents[1] / "docs" / "results" / "train-speed.md"
Results = Mapping[str, Any]


def write_page(results: Results, place: Path = PAGE) -> None:
    """Raises RunFailed when the benchmark did not get to its end."""
    if results["finished"] is None:
        raise RunFailed("the benchmark stopped before its end; its figures are not a page yet")
    write_text(place, page(results))


def rows_of(results: Results) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return ((part, row) for part in results["parts"] for row in part["ratios"])


def ratios_table(results: Results) -> str:
    return table(
        ("model", "trained on", "against", "median ratio", "95 % interval", "rounds", "bar", "is it met"),
        [
            (
                NAMES.get(part["model"], part["model"]),
                part["load"],
                named(part, row["against"]),
                factor(row, "value"),
                f"{factor(row, 'low')} to {factor(row, 'high')}",
                row["n"],
                "–" if row["bar"] is None else factor(row, "bar"),
                verdict(row),
            )
            for part, row in rows_of(results)
            if row["against"] != "matrix product"
        ],
    )


def named(part: Mapping[str, Any], contestant: str) -> str:
    """With the setting that TRL had."""
    setting = part["settings"].get(contestant.removeprefix("TRL, "))
    return contestant if setting is None else f"TRL, {setting}"


def products_table(results: Results) -> str:
    return table(
        (
            "model",
            "trained on",
            "10⁶ operations a token",
            "10¹² a second",
            "matrix product, 10¹² a second",
            "share",
        ),
        [
            (
                NAMES.get(part["model"], part["model"]),
                part["load"],
                number(part["operations_a_token"] / 1e6),
                number(part["operations_a_token"] * part["rates"]["instil"]["median"] / 1e12),
                number(part["rates"]["matrix product"]["median"] / 1e12),
                f"{100 * row['value']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})",
            )
            for part, row in rows_of(results)
            if row["against"] == "matrix product"
        ],
    )


def trajectories_table(results: Results) -> str:
    def ends(curve: list[float]) -> str:
        return f"{curve[0]:.4f} → {curve[-1]:.4f}"

    return table(
        (
            *("model", "trained on", "precision", "steps", "loss of ours, first to last", "of TRL"),
            *("the same texts before", "after ours", "after TRL", "largest difference", "tolerance", "the same"),
        ),
        [
            (
                NAMES.get(part["model"], part["model"]),
                part["load"],
                curve["precision"],
                len(curve["ours"]),
                ends(curve["ours"]),
                ends(curve["theirs"]),
                *(f"{loss:.4f}" for loss in (curve["before"], curve["after"]["ours"], curve["after"]["theirs"])),
                f"{100 * curve['largest_difference']:.2g} %",
                *(("–", "–") if curve["tolerance"] is None else judged(curve)),
            )
            for part in results["parts"]
            for name in ("trajectory", "trajectory_as_timed")
            if (curve := part[name]) is not None
        ],
    )


def judged(curve: dict[str, Any]) -> tuple[str, str]:
    return f"{100 * curve['tolerance']:.1f} %", "yes" if curve["same"] else "**no**"


def rates_table(results: Results) -> str:
    return table(
        ("model", "trained on", "contestant", "median a second", "rounds"),
        [
            (
                NAMES.get(part["model"], part["model"]),
                part["load"],
                named(part, name),
                number(rate["median"]),
                f"{number(min(rate['rounds']))} to {number(max(rate['rounds']))}",
            )
            for part in results["parts"]
            for name, rate in part["rates"].items()
            if name != "matrix product"
        ],
    )


def loads_table(results: Results) -> str:
    return table(
        ("model", "trained on", "source", "texts", "tokens", "with a loss", "tokens a text", "steps", "padding"),
        [
            (
                NAMES.get(part["model"], part["model"]),
                part["load"],
                part["source"],
                f"{part['examples']:,}",
                f"{part['tokens']:,}",
                f"{part['targets']:,}",
                f"{part['lengths']['mean']:.1f} ({part['lengths']['min']}–{part['lengths']['max']})",
                len(part["windows"]),
                f"{100 * (1 - part['tokens'] / part['computed_tokens']):.1f} %",
            )
            for part in results["parts"]
        ],
    )


def tried(results: Results) -> str:
    lines = []
    for part in results["parts"]:
        where = f"{NAMES.get(part['model'], part['model'])}, {part['load']}"
        if part["left_out"] is not None:
            lines.append(f"- {where}: left out, {part['left_out']}\n")
            continue
        chosen = set(part["settings"].values())
        found = (f"{bold(name) if name in chosen else name} {number(rate)}" for name, rate in part["tried"].items())
        lines.append(f"- {where}: {'; '.join(found)}\n")
    return "".join(lines)


def bold(text: str) -> str:
    return f"**{text}**"


def machine(results: Results) -> str:
    hardware = results["hardware"]
    versions = ", ".join(f"{name} {found}" for name, found in results["versions"].items() if found)
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {hardware['threads']} threads, "
        f"{hardware['memory_gib']} GiB; {versions}; commit `{results['commit']}`"
    )


def models(results: Results) -> str:
    return "; ".join(
        f"{NAMES.get(name, name)}: {one['source']}, {one['parameters']:,} parameters, "
        f"vocabulary {one['vocabulary']:,}, width {one['hidden_size']}, {one['layers']} layers"
        for name, one in results["models"].items()
    )


def precision(results: Results) -> str:
    used = sorted({part["precision"] for part in results["parts"]})
    return " and ".join(
        {"bf16": "weights in fp32, forward pass under bfloat16 autocast", "fp32": "all in fp32"}[one] for one in used
    )


def page(results: Results) -> str:
    warnings = "".join(f"**{line}.**\n\n" for line in results["warnings"])
    if results["quick"]:
        warnings += "**The short form: too few steps for a figure to rest on.**\n\n"
    return f"""# How fast training is

<!-- Written by `python -m benchmarks.train --page` from benchmarks/results/train.json. Do not edit by hand. -->

Useful tokens a second beside TRL's `SFTTrainer` on the same model, precision and data, in one run. Contestants take
turns, each round gives one ratio, and the table has the median over rounds with an interval from resampling the rounds.

{warnings}{ratios_table(results)}
*bfd* packs whole texts and keeps them apart, as we do; it is the one with the same loss, and the bar is for it.
*wrapped* also packs, but cuts texts wherever a row ends, and a text sees those before it: less to compute, and another
loss. *padded* does not pack.
Behind the name: rows × tokens of a forward pass, and the kernel of attention.

## The same losses

TRL packs first, and in each optimiser step we train on the examples that it has in that step, from the same weights.
"The same texts" are those of about a step, their loss computed in fp32 by one piece of code for both. The difference is
the largest over all steps and that last figure, as a share of TRL's loss. It is judged in fp32, over a few steps. The
rows in bf16 are of the runs that were timed: both sides round in other places there, and AdamW, whose first steps are
about as long for a small gradient as for a large one, makes more of it with each step.

{trajectories_table(results)}
## Beside the machine's matrix products

Operations as the meter counts them (forward, backward, attention; of our runs), beside the best rate of `torch.matmul`
over the shapes of the model's own matrices and 2,048³, in the precision of the forward pass, taken in the same rounds.

{products_table(results)}
## Rates

Useful tokens a second.

{rates_table(results)}
## What was trained on

{loads_table(results)}
## How it was measured

- Command: `python -m benchmarks.train`, {results["started"]} to {results["finished"]}.
- Machine: {machine(results)}.
- Models: {models(results)}.
- Both: {precision(results)}; AdamW (fused), constant learning rate, gradients
  clipped to 1, no weight decay, no gradient checkpointing.
- Both get the same token ids and the same targets; of questions TRL gets a completion mask and `completion_only_loss`.
- Useful tokens are those of the texts. Padding does not count, and each token counts once for either side.
- Timed are the steps, from the end of the first to the end of the last: in the first one the optimiser makes its state.
  For us packing each step's rows is within; TRL has packed before.
- Ours has its default settings. TRL has the best of what was tried; tokens a second with each setting, tried once on
  the first steps, the chosen ones in bold. `torch.compile` was tried for neither; kernels of flash attention, which TRL
  recommends for *bfd*, do not run on a CPU.

{tried(results)}"""
