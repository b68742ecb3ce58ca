"""`docs/results/probe-agreement.md`, written from the JSON of `studies.probe_agreement` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.files import write_text
from studies.first_run_page import percent, table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "probe-agreement.md"
Results = Mapping[str, Any]
WAYS = {
    "listed": "listed sequences",
    "spelled": "listed and other spellings",
    "right": "every right answer, against the listed ones' probability",
}


def write_page(results: Results) -> None:
    write_text(PAGE, page(results))


def page(results: Results) -> str:
    plan, ran_on = results["plan"], results["hardware"]
    few, many = plan["few"], plan["many"]
    return f"""# Does the exact probe say what sampling says?

Written by `python -m studies.probe_agreement --page` from `studies/results/probe_agreement.json`; do not edit.
Commit {results["commit"]}, {ran_on["processor"]}, {ran_on["cores"]} cores, {results["finished"]}. Both engines
compute in {plan["dtype"]}, so that engines are compared and not roundings. Samples are drawn by the protocol:
temperature 0.5, top-k 40. Intervals are 95 %, resampled by subject.

## What was asked

{asked_table(results)}
## One prompt's probability

Each prompt's exact probability against the hits among its samples. Were the probability right, hits would be
binomial: how many prompts lie further than 1.96 and 3 standard errors away is given beside what the binomial
distribution itself makes expect. Chi-square: its distance from its expectation in standard deviations (prompts whose
hits vary enough). Uniform: p-value of a test of the whole distribution. Excess: hits beyond those expected.

{calibration_table(results, few)}
{calibration_table(results, many)}
The same, added up by size of the probability ({many:,} samples, listed sequences), in standard errors:

{groups_table(results, many)}
## What the exact probability does not list

A sample also counts as right when it is another spelling, or the same text in other tokens. The mean over facts and
prompts of that probability is what the exact engine's lower bound lacks ({many:,} samples a prompt). With the setting
`spellings` the likeliest of them are listed too; the table shows what that buys and what it costs.

{gap_table(results)}
{kinds_table(results)}
{commonest(results)}
## Categories

The truth is the protocol's own rule, `1 - Π (1 - p̂)^{few} < ½` for Unknown, with shares of samples for p̂. A right
greedy answer decides without samples. The others got {plan["first"]} samples a prompt, and where these left them within
{plan["surely"]} standard errors of the boundary, {many:,} new ones. Facts whose 95 % interval then still has the
boundary in it are undecidable: the band.

{agreement_table(results)}
{differing(results)}
Distance of a prompt's probability from the share of right answers among {many:,} samples (mean; the last line is what
the noise of those samples makes expect of a perfect engine):

{nearer_table(results)}
## The noise of {few} samples

{noise_table(results)}
## What this does not show

- Two small models, whose answers are short and whose training text is uniform: a model that writes one name in many
  ways has a larger gap. The study runs on any other model once its facts are given to `material`.
- The truth is an estimate too. Where it took {plan["first"]} samples it is wrong for less than one fact in a thousand
  at the boundary, and less elsewhere; in the band nobody can say which engine is right.
- Precision: the base and the embedded model are stored in bfloat16, in which probabilities of both engines differ by
  rounding. [That has a page of its own](probe-precision.md).

{cost_table(results)}"""


def asked_table(results: Results) -> str:
    rows = []
    for name, one in results["models"].items():
        facts = one["facts"]
        counts = ", ".join(f"{count} {category}" for category, count in facts["categories"].items())
        size = f"{one['model']['parameters'] / 1e6:.1f} M"
        rows.append((name, size, facts["n"], facts["subjects"], counts))
    return table(("model", "parameters", "facts", "subjects", "by the exact engine"), rows)


def calibration_table(results: Results, samples: int) -> str:
    head = (
        f"{samples:,} samples",
        "prompts",
        "beyond 1.96 (expected)",
        "beyond 3 (expected)",
        "chi-square",
        "uniform",
        "excess",
    )
    rows = []
    for name, model in results["models"].items():
        for way, words in WAYS.items():
            one = model["calibration"][str(samples)][way]
            near, far = one["beyond"]["1.96"], one["beyond"]["3.0"]
            rows.append(
                (
                    f"{name}, {words}",
                    f"{one['prompts']:,}",
                    f"{percent(near)} ({100 * near['expected']:.1f} %)",
                    f"{100 * far['value']:.2f} % ({100 * far['expected']:.2f} %)",
                    f"{one['chi_square']['standard_deviations']:+.1f} (n = {one['chi_square']['prompts']})",
                    f"{one['uniform']['p_value']:.2g}",
                    f"{one['excess']['value']:+.5f} ({one['excess']['standard_errors']:+.1f} s.e.)",
                )
            )
    return table(head, rows)


def groups_table(results: Results, samples: int) -> str:
    rows = [
        (
            name,
            f"from {one['from']:g}",
            one["prompts"],
            f"{one['expected']:.1f}",
            f"{one['hits']:.0f}",
            f"{one['standard_errors']:+.1f}",
        )
        for name, model in results["models"].items()
        for one in model["calibration"][str(samples)]["listed"]["groups"]
    ]
    return table(("model", "probability", "prompts", "hits expected", "hits", "standard errors"), rows)


def small(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return short(figure["value"])
    return f"{short(figure['value'])} ({short(figure['low'])} to {short(figure['high'])})"


def short(value: float) -> str:
    return f"{value:.5f}" if abs(value) >= 1e-4 else f"{value:.1g}"


def gap_table(results: Results) -> str:
    names = list(results["models"])
    gaps = [results["models"][name]["gap"] for name in names]
    seconds = [results["models"][name]["seconds"] for name in names]

    def missed(one: Mapping[str, Any]) -> str:
        return f"{small(one)}; {one['samples']:,} of {one['of']:,} samples, {one['prompts']} prompts"

    rows = [
        ("right answers, however written", *(small(one["right"]) for one in gaps)),
        ("of these not listed", *(missed(one["unlisted"]) for one in gaps)),
        ("not listed even with other spellings", *(missed(one["unlisted_with_spellings"]) for one in gaps)),
        ("probability that other spellings add (exact)", *(small(one["added_by_spellings"]) for one in gaps)),
        ("the most they add to one prompt", *(short(one["most_added_to_a_prompt"]) for one in gaps)),
        ("facts that change category by them", *(one["categories_changed"] for one in gaps)),
        ("sequences listed a fact, without and with", *map(listed_in_all, gaps)),
        ("seconds, without and with", *map(slower, seconds)),
    ]
    return table(("mean over facts and prompts", *names), rows)


def listed_in_all(one: Mapping[str, Any]) -> str:
    return f"{one['sequences_listed']:.1f} → {one['sequences_listed'] + one['sequences_spelled']:.1f}"


def slower(one: Mapping[str, float]) -> str:
    return f"{one['exact']:.1f} → {one['exact with other spellings']:.1f}"


def kinds_table(results: Results) -> str:
    models = results["models"]
    kinds = next(iter(models.values()))["gap"]["added_by_kind"]
    rows = [(kind, *(f"{one['gap']['added_by_kind'][kind]:.2g}" for one in models.values())) for kind in kinds]
    return table(("probability added by kind of spelling", *models), rows)


def commonest(results: Results) -> str:
    rows = [
        (name, code(one["text"]), code(one["tokens"]), one["kind"], one["samples"])
        for name, model in results["models"].items()
        for one in model["gap"]["commonest"]
    ]
    if not rows:
        return "Not one sample of either model, in any run, was a right answer that is not listed.\n"
    return "The commonest unlisted right answers, over all runs:\n\n" + table(
        ("model", "text", "tokens", "kind", "samples"), rows
    )


def code(text: str) -> str:
    return "`" + text.replace("|", " · ").replace("`", "'") + "`"


def agreement_table(results: Results) -> str:
    rows: list[tuple[str, ...]] = []
    parts = {
        "all": "all facts",
        "outside_the_band": "outside the band",
        "outside_the_band_and_decided_by_samples": "of these without a right greedy answer",
        "in_the_band": "in the band",
    }
    engines: list[str] = []
    for name, model in results["models"].items():
        found = model["categories"]
        engines = [engine for engine in found["all"] if engine != "exact_less_samples"]
        for part, words in parts.items():
            one = found[part]
            values = (percent(one[engine]) for engine in engines)
            rows.append(
                (f"{name}, {words}", one["exact"]["n"], *values, percent(one["exact_less_samples"], signed=True))
            )
    head = ("same category as the truth", "facts", *engines, "exact less samples, points")
    return table(head, rows)


def differing(results: Results) -> str:
    lines = []
    for name, model in results["models"].items():
        found, greedy = model["categories"], model["greedy"]
        outside, band = found["outside_the_band"]["exact"], found["band"]
        met = "at least 99 %, as expected" if outside["value"] >= 0.99 else "below the 99 % expected"
        lines.append(
            f"- **{name}**: outside the band the exact engine gives the truth's category for {percent(outside)} of "
            f"{outside['n']} facts ({met}); the band holds {percent(band)} of all. Right greedy answers are equal for "
            f"{greedy['facts_equal']} of {greedy['facts']} facts ({greedy['prompts_equal']:,} of {greedy['prompts']:,} "
            "prompts)."
        )
        for one in found["exact_differs"]:
            lines.append(f"    - {one['fact']}: truth {one['truth']}, exact {one['exact']} (p_any {one['p_any']:.3f})")
    return "\n".join(lines) + "\n"


def nearer_table(results: Results) -> str:
    models = results["models"]
    engines = list(next(iter(models.values()))["nearer"])
    rows = [
        (engine.replace("_", " "), *(distance(one["nearer"][engine]) for one in models.values())) for engine in engines
    ]
    return table(("engine", *models), rows)


def distance(found: Any) -> str:
    return small(found) if isinstance(found, dict) else f"{found:.5f}"


def noise_table(results: Results) -> str:
    rows = []
    for name, model in results["models"].items():
        one = model["noise"]
        moves = ", ".join(f"{words}: {count}" for words, count in one["moves"].items()) or "–"
        exact = f"{one['exact_changed']} (p differs by at most {one['exact_p_apart_at_most']:.1g})"
        rows.append((name, percent(one["changed"]), one["pairs_of_runs"], moves, exact))
    head = (
        "model",
        "facts that change category between two runs",
        "pairs of runs",
        "between",
        "exact, run again in other batches and order",
    )
    return table(head, rows)


def cost_table(results: Results) -> str:
    models = results["models"]
    steps = list(dict.fromkeys(step for one in models.values() for step in one["seconds"]))
    rows = [(step, *(f"{one['seconds'].get(step, 0):.1f}" for one in models.values())) for step in steps]
    return table(("seconds", *models), rows)
