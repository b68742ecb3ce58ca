"""`docs/results/probe-precision.md`, written from the JSON of `studies.probe_precision` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.files import write_text
from studies.first_run_page import matrix, percent, table

PAGE = Path(__file__).parents[1] / "docs" / "results" / "probe-precision.md"
Results = Mapping[str, Any]
PAIRS = {
    "plain": "fp32, the plain way → the fast way",
    "batches": "fp32 → fp32 in other batches and another order",
    "precision": "**fp32 → bf16**",
    "low_batches": "bf16 → bf16 in other batches and another order",
    "low_plain_to_plain": "fp32, the plain way → bf16, the plain way",
    "low_to_plain": "fp32, the plain way → bf16, the fast way",
    "exemplars": "fp32 → fp32 behind other exemplars",
}


def write_page(results: Results) -> None:
    write_text(PAGE, page(results))


def page(results: Results) -> str:
    plan, probe, ran_on = results["plan"], results["probe"], results["hardware"]
    models = "\n".join(model_part(results, name) for name in results["models"])
    on = ", ".join(ran_on["accelerators"]) or f"{ran_on['processor']}, {ran_on['cores']} cores"
    return f"""# What do precision and batching change in a probe?

Written by `python -m studies.probe_precision --page` from `studies/results/probe_precision.json`; do not edit.
Commit {results["commit"]}, {on}, torch {ran_on["torch"]}, {results["finished"]}. Intervals are 95 %, resampled by
subject.

{conclusion(results)}
## What was asked

{asked(plan, probe)} The fast way shares prefixes and packs rows into batches of {probe["batch_tokens"]:,} tokens;
other batches have {plan["batch_tokens"]:,} tokens, and their facts are shuffled. The plain way recomputes every
sequence from its first token, without a cache, and is the reference; it is asked {plan["reference"]} facts of each
seed. Other exemplars are the sets that another seed draws from the same pool.

{asked_table(results)}
{models}
## What this does not show

{limits(results)}
## Cost

Seconds of each run over all seeds, without loading; the plain runs ask {plan["reference"]} of every {plan["facts"]}
facts.

{cost_table(results)}"""


def asked(plan: Mapping[str, Any], probe: Mapping[str, Any]) -> str:
    return (
        f"{len(plan['seeds'])} seeds each draw {plan['facts']} facts and {probe['exemplar_sets']} sets of "
        f"{probe['shots']} exemplars; each fact is asked behind every set (temperature {probe['temperature']}, top-k "
        f"{probe['top_k']}, {probe['samples']} samples a prompt reckoned with, answers decoded)."
    )


# ------------------------------------------------------------------- conclusion


def conclusion(results: Results) -> str:
    lines = [f"- **{name}**: {verdict(results, one)}" for name, one in results["models"].items()]
    return "\n".join([exactness(results), "", *lines, "", advice(results), ""])


def exactness(results: Results) -> str:
    models, within = results["models"], results["plan"]["within"]
    greatest = max(one["pairs"][name]["p"]["max"] for one in models.values() for name in ("plain", "batches"))
    moved = sum(one["pairs"][name]["category"]["count"] for one in models.values() for name in ("plain", "batches"))
    held = all(one["exact"] for one in models.values())
    return (
        f"**fp32 is {'exact' if held else 'not exact'} to {small(within)}**: between the plain and the fast way, and "
        f"between batches and orders, no probability differs by more than {small(greatest)}; {moved or 'no'} "
        f"{'fact changes' if moved == 1 else 'facts change'} category."
    )


def verdict(results: Results, one: Mapping[str, Any]) -> str:
    pairs = one["pairs"]
    low, again, other = (pairs[name] for name in ("precision", "low_batches", "exemplars"))
    p = low["p"]
    return (
        f"bf16 moves {of_all(low)} to another category, {ranks(low)}; other exemplars move {of_all(other)}. "
        f"{against(one['bf16_less_exemplars'])} In other batches bf16 moves {of_all(again)} from where it had put "
        f"them. Of {p['n']:,} probabilities half are within {small(p['median'])} of fp32, 99 % within "
        f"{small(p['p99'])}, all within {small(p['max'])}; `p_any` of a fact is within {small(low['p_any']['max'])}."
    )


def of_all(pair: Mapping[str, Any]) -> str:
    found = pair["category"]
    ends = "" if found["low"] is None else f", {100 * found['low']:.1f} to {100 * found['high']:.1f}"
    return f"{found['count']:,} of {pair['facts']:,} facts ({100 * found['value']:.1f} %{ends})"


def ranks(pair: Mapping[str, Any]) -> str:
    most = pair["most_ranks"]
    return "none by more than one rank" if most <= 1 else f"at most by {most} ranks"


def against(figure: Mapping[str, Any]) -> str:
    """bf16's share of changed facts less that of other exemplars."""
    gap, low, high = points(figure), figure["low"], figure["high"]
    if low is None:
        return f"The difference is {gap}."
    if low <= 0 <= high:
        return f"Which of the two moves more cannot be told: a difference of {gap}."
    return f"bf16 moves {'fewer' if high < 0 else 'more'}: a difference of {gap}."


def advice(results: Results) -> str:
    pairs = [one["pairs"] for one in results["models"].values()]
    change = 100 * max(upper(one["precision"]["category"]) for one in pairs)
    known = 100 * max(widest(one["precision"]["known_change"]) for one in pairs)
    shares = f", and a difference of up to {known:.1f} points in the share of known facts," if known else ""
    again = max(one["low_batches"]["p"]["max"] for one in pairs)
    batches = (
        f" Use it also where a run in other batches must give the same: in bf16 a probability then differs by up to "
        f"{small(again)}."
        if again > results["plan"]["within"]
        else ""
    )
    return (
        "Compare probes in one precision. Between one in fp32 and one in bf16, up to "
        f"{change:.1f} % of facts in another category{shares} can be rounding (the outer ends of the intervals on this "
        "page). Use fp32 where single facts are told apart and not only counted, above all "
        f"{boundary(results)}.{batches}"
    )


def boundary(results: Results) -> str:
    """The facts for which rounding was seen to matter."""
    near = [one["near"] for one in results["models"].values()]
    distances = [found["max"] for one in near if (found := one["distance_of_moved"])["n"]]
    leads = [found["max"] for one in near if (found := one["leads"]["changed"])["n"]]
    parts = []
    if distances:
        parts.append(f"with `p_any` within {max(distances):.2f} of one half")
    if leads:
        parts.append(f"with a greedy answer that is ahead by less than {max(leads):.2f} logits")
    return "facts " + " or ".join(parts or ["near a boundary of the rule"])


def upper(figure: Mapping[str, Any]) -> float:
    return float(figure["value"] if figure["high"] is None else figure["high"])


def widest(figure: Mapping[str, Any]) -> float:
    return max(float(abs(figure[end])) for end in ("value", "low", "high") if figure[end] is not None)


# ----------------------------------------------------------------------- tables


def asked_table(results: Results) -> str:
    rows = []
    for name, one in results["models"].items():
        facts = one["facts"]
        rows.append(
            (
                name,
                f"{one['model']['parameters'] / 1e6:.1f} M",
                f"{facts['n']:,} ({facts['distinct']:,})",
                f"{facts['subjects']:,}",
                ", ".join(f"{count:,} {category}" for category, count in facts["categories"].items()),
                f"{100 * one['exemplars_in_common']:.0f} %",
                "as stored" if one["weights_are_bfloat16"] else "rounded",
            )
        )
    head = (
        *("model", "parameters", "facts (different ones)", "subjects", "in fp32"),
        *("exemplars that both draws have", "weights in bf16"),
    )
    return table(head, rows)


def model_part(results: Results, name: str) -> str:
    one = results["models"][name]
    low = one["pairs"]["precision"]
    return f"""## {name}

The probability is that of one right sample behind one prompt; differences are given without their sign.

{p_table(one)}
{ways(one)}

{moved_table(one)}
From fp32 to bf16, by category ({by_seed(low)}):

{matrix(low["moves"]).replace("before ↓ after →", "fp32 ↓ bf16 →")}
{totals(low)}

{near_part(one["near"])}
Behind other exemplars, in fp32:

{matrix(one["pairs"]["exemplars"]["moves"]).replace("before ↓ after →", "one draw ↓ the other →")}"""


def p_table(one: Mapping[str, Any]) -> str:
    rows = [
        (
            PAIRS[name],
            f"{pair['p']['n']:,}",
            *(small(pair["p"][size]) for size in ("median", "p95", "p99", "max")),
            greatest(pair["p_prior"]),
            greatest(pair["p_any"]),
        )
        for name, pair in ((name, one["pairs"][name]) for name in PAIRS)
        if "p" in pair
    ]
    head = (
        *("difference of the probability", "prompts", "median", "95 %", "99 %", "greatest"),
        *("greatest of `p_prior`", "greatest of `p_any`"),
    )
    return table(head, rows)


def ways(one: Mapping[str, Any]) -> str:
    """Whether the fast way's own rounding is part of what bf16 changes."""
    plain, fast = (one["pairs"][name]["p"]["mean"] for name in ("low_plain_to_plain", "low_to_plain"))
    return (
        f"On the same {one['pairs']['low_to_plain']['prompts']:,} prompts bf16 is off by {100 * plain:.3f} points the "
        f"plain way and by {100 * fast:.3f} the fast way, in the mean: a difference of "
        f"{points(one['bf16_fast_further_off'], 3)}."
    )


def moved_table(one: Mapping[str, Any]) -> str:
    rows = []
    for name, words in PAIRS.items():
        pair = one["pairs"][name]
        greedy = [changes(pair[kind]) if kind in pair else "–" for kind in ("greedy_text", "greedy")]
        rows.append((words, *greedy, f"{pair['facts']:,}", changes(pair["category"]), pair["most_ranks"]))
    head = (
        *("what changes", "greedy answers that read differently", "become right or wrong", "facts"),
        *("change category", "by ranks, at most"),
    )
    return table(head, rows)


def changes(found: Mapping[str, Any]) -> str:
    return f"{found['count']:,}: {percent(found)}"


def by_seed(pair: Mapping[str, Any]) -> str:
    counts = ", ".join(str(count) for count in pair["category_by_seed"].values())
    return f"changes by seed: {counts}"


def totals(pair: Mapping[str, Any]) -> str:
    before, after = pair["known"]
    return (
        f"Known are {percent(before)} of the facts in fp32 and {percent(after)} in bf16, a change of "
        f"{points(pair['known_change'])}. The mean probability of a right sample changes by "
        f"{points(pair['p_sampled_change'], 3)}."
    )


def points(figure: Mapping[str, Any], digits: int = 1) -> str:
    value, low, high = (None if figure[end] is None else 100 * figure[end] for end in ("value", "low", "high"))
    ends = "" if low is None else f" ({low:+.{digits}f} to {high:+.{digits}f})"
    return f"{value:+.{digits}f}{ends} points"


def near_part(near: Mapping[str, Any]) -> str:
    distance, leads = near["distance_of_moved"], near["leads"]
    changed, usual = leads["changed"], leads["usual"]
    crossed = f"{distance['n']} facts crossed `p_any` = ½."
    if distance["n"]:
        crossed += f" In fp32 they were {distance['median']:.3f} from it in the median, {distance['max']:.3f} at most."
    greedy = f"The greedy answers of {changed['n']} prompts became right or wrong."
    if changed["n"]:
        greedy += (
            f" In fp32 they were ahead by {changed['median']:.3f} logits in the median where they were least ahead, "
            f"{changed['max']:.3f} at most; of {usual['n']:,} prompts of any kind the median is {usual['median']:.2f}, "
            f"and {100 * leads['usual_not_above_the_greatest_changed']:.1f} % are ahead by no more than "
            f"{changed['max']:.3f}."
        )
    by_distance = table(
        ("no right greedy answer: distance of `p_any` from ½", "facts", "change category"),
        [(f"from {row['from']:g}", row["facts"], row["moved"]) for row in near["by_distance"]],
    )
    by_right = table(
        ("right greedy answers in fp32, of a fact's prompts", "facts", "change category by a greedy answer"),
        [(row["right_in"], row["facts"], row["moved"]) for row in near["by_right_prompts"]],
    )
    return f"How near the rule's boundaries they were: {crossed} {greedy}\n\n{by_distance}\n{by_right}"


def limits(results: Results) -> str:
    models = results["models"]
    stored = [name for name, one in models.items() if one["weights_are_bfloat16"]]
    parameters = " and ".join(f"{one['model']['parameters'] / 1e6:.1f} M" for one in models.values())
    lines = [
        f"- Models of {parameters} parameters. A larger one adds up more rounded terms and is surer of more answers; "
        "nothing here says which weighs more. Other processors and accelerators round in another order.",
        "- Other exemplars come from the same pool, and both draws have many in common. Exemplars of another origin "
        "would move more facts.",
        "- The lead of a greedy answer is the least along its tokens, which need not be where bf16 overturned it: "
        "leads err on the small side.",
    ]
    if stored:
        lines.append(
            f"- The weights of {' and '.join(stored)} are stored in bfloat16, so only activations and logits are "
            "rounded here. Of a model stored in fp32 bf16 rounds the weights too."
        )
    return "\n".join(lines) + "\n"


def cost_table(results: Results) -> str:
    models = results["models"]
    steps = list(dict.fromkeys(step for one in models.values() for step in one["seconds"]))
    rows = [(step, *(f"{one['seconds'][step]:.1f}" for one in models.values())) for step in steps]
    rows.append(("together", *(f"{sum(one['seconds'].values()):.1f}" for one in models.values())))
    return table(("seconds", *models), rows)


def greatest(found: Mapping[str, Any]) -> str:
    return small(found["max"]) if found["n"] else "–"


def small(value: float) -> str:
    """Two digits, so that a size can be read whatever it is."""
    return f"{value:.2g}".replace("e-0", "e-") if value < 0.1 else f"{value:.3f}"
