"""docs/results/generalization.md from the results of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.files import write_text
from studies.first_run_page import table
from studies.generalization import (
    AUGMENTED,
    HALF,
    RECIPE,
    SAM,
    WHOLE,
    cheap_cells,
    parted_cells,
    sam_of,
    tuned_cheap_cells,
)

PAGE = Path(__file__).parents[1] / "docs" / "results" / "generalization.md"
Result = Mapping[str, Any]


def percent(figure: Mapping[str, Any], digits: int = 1) -> str:
    """A share with its interval, in per cent."""
    if figure["value"] is None:
        return "–"
    text = f"{100 * figure['value']:.{digits}f}"
    if figure["low"] is None:
        return text
    return f"{text} ({100 * figure['low']:.{digits}f} to {100 * figure['high']:.{digits}f})"


def times(figure: Mapping[str, Any]) -> str:
    text = f"{figure['value']:.2f}×"
    return text if figure["low"] is None else f"{text} ({figure['low']:.2f} to {figure['high']:.2f})"


def signed(figure: Mapping[str, Any] | None, digits: int = 1) -> str:
    """A difference with its interval, in points or per cent."""
    if figure is None:
        return "–"
    ends = [f"{100 * figure[end]:+.{digits}f}" for end in ("value", "low", "high") if figure[end] is not None]
    return ends[0] if len(ends) < 3 else f"{ends[0]} ({ends[1]} to {ends[2]})"


def main_table(result: Result) -> str:
    cells, rows = result["cells"], []
    for name in AUGMENTED:
        for how in (HALF, WHOLE, SAM):
            cell, chosen = cells[f"{name}, {how}"], result["chosen"][f"{name}, {how}"]
            rho = "" if chosen["rho"] is None else f", ρ {chosen['rho']:g}"
            rows.append(
                (
                    name,
                    how,
                    percent(cell["accuracy"]),
                    percent(cell["kept"]),
                    times(cell["perplexity"]),
                    f"{cell['flops'] / 1e12:.1f}",
                    f"{cell['tokens'] / 1e3:.0f} k",
                    f"{chosen['rate']:g}{rho}",
                )
            )
    cell, chosen = cells[RECIPE], result["chosen"][f"formats, {WHOLE}"]
    rows.append(
        (
            RECIPE,
            WHOLE,
            percent(cell["accuracy"]),
            percent(cell["kept"]),
            times(cell["perplexity"]),
            f"{cell['flops'] / 1e12:.1f}",
            f"{cell['tokens'] / 1e3:.0f} k",
            f"{chosen['rate']:g}",
        )
    )
    return table(
        ("documents", "steps", "right answers, %", "known facts kept, %", "perplexity", "TFLOP", "tokens", "rate"), rows
    )


def difference_table(found: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ("cell", "against", "points", "relative, %", "so it is"),
        [
            (
                each["first"],
                each["second"],
                signed(each["points"]),
                signed(each["relative"], digits=0),
                each["verdict"],
            )
            for each in found
        ],
    )


def further_table(result: Result, main: set[str]) -> str:
    of_pair = {(each["first"], each["second"]): each for each in result["differences"]}
    rows = []
    for (first, second), each in of_pair.items():
        if first in main:
            continue
        cell = result["cells"][first]
        rows.append(
            (
                first,
                percent(cell["accuracy"]),
                second,
                signed(each["points"]),
                each["verdict"],
                percent(cell["kept"]),
                times(cell["perplexity"]),
                f"{cell['flops'] / 1e12:.1f}",
            )
        )
    return table(
        ("cell", "right answers, %", "against", "points", "so it is", "known facts kept, %", "perplexity", "TFLOP"),
        rows,
    )


BAR_CHEAP = -0.01
"""Points that a cheap form may lie below SAM."""


def cheap_table(result: Result) -> str:
    of = {(each["first"], each["second"]): each for each in result["differences"]}
    rows = []
    for cell in (*tuned_cheap_cells(), *cheap_cells()):
        if (cell.name, sam_of(cell)) not in of:
            continue
        each, found = of[cell.name, sam_of(cell)], result["cells"][cell.name]
        low = each["at_least"]
        surely = "–" if low is None else "met" if low >= BAR_CHEAP else "not shown"
        rows.append(
            (
                *(cell.name, percent(found["accuracy"]), signed(each["points"])),
                *("–" if low is None else f"{100 * low:+.1f}", surely),
                *(percent(found["kept"]), times(found["perplexity"]), f"{found['flops'] / 1e12:.1f}"),
            )
        )
    return table(
        (
            *("cell", "right answers, %", "against SAM, points", "at least, one-sided 95 %", "bar: −1 point"),
            *("known facts kept, %", "perplexity", "TFLOP"),
        ),
        rows,
    )


def checked_words(result: Result) -> str:
    """What the check of the chosen cheap form in more worlds says; empty where there was none."""
    found = result.get("checked")
    if not found:
        return ""
    lines = [
        "Against SAM in more worlds, both kinds of documents together. One form after another was tried, each by a "
        "test that was fixed before its runs ([log](../lab-log.md)). Of several tries one may pass by luck, so the "
        "bound at a third of the error is told as well:\n"
    ]
    for name, form in found.items():
        whole = form["together"]
        reached = whole["at_least"] is not None and whole["at_least"] >= BAR_CHEAP
        parts = [
            f"{each['first'].partition(',')[0]} {with_unit(each['points'], 'points')}" for each in form["by_documents"]
        ]
        first, *_, last = whole["worlds"]
        bar = f"the bar of −1 point is {'met' if reached else '**not** shown'}"
        lines.append(
            f"- {name}, worlds {first} to {last}: **{with_unit(whole['points'], 'points')}, {at_least(whole)}** "
            f"(one-sided 95 %; at 98.3 % {at_least(whole, 'surely_at_least')}), so {bar}; {', '.join(parts)}."
        )
    return "\n".join(lines) + "\n"


def at_least(each: Mapping[str, Any], name: str = "at_least") -> str:
    return "no interval" if each[name] is None else f"at least {100 * each[name]:+.1f}"


def curve_table(result: Result) -> str:
    cells = [*(f"{name}, {how}" for name in AUGMENTED for how in (WHOLE, SAM)), RECIPE]
    points = max(len(result["cells"][name]["curve"]) for name in cells)
    rows = []
    for name in cells:
        curve = result["cells"][name]["curve"]
        seen = [f"{100 * point['accuracy']:.0f} % at {point['tokens'] / 1e3:.0f} k" for point in curve]
        rows.append((name, *seen, *["–"] * (points - len(seen))))
    budget = result["plan"]["budget"] / 1e12
    heads = [f"{budget * number / result['plan']['points']:.1f} TFLOP" for number in range(1, points + 1)]
    return table(("cell", *heads), rows)


def sizes(result: Result) -> str:
    plan, worlds = result["plan"], list(result["worlds"].values())
    asked = sum(world["questions"] for world in worlds)
    words = sum(world["words_a_document"] for world in worlds) / len(worlds)
    return (
        f"{len(worlds)} worlds, in each {plan['people']} people whom the base has never met, a biography of about "
        f"{words:.0f} words each, {asked:,} questions in all, each in three wordings. Intervals are of 95 %; worlds "
        f"and people are resampled. A step has {plan['batch']} documents."
    )


GOAL = 0.24
"""Relative gain over plain continued pre-training at equal compute that a recipe is to reach."""


def conclusion(result: Result) -> str:
    """What the differences say, in sentences; nothing here is written by hand."""
    of = {(each["first"], each["second"]): each for each in result["differences"]}
    lines = [in_a_sentence(of[f"{name}, {WHOLE}", f"plain, {WHOLE}"]) for name in AUGMENTED if name != "plain"]
    lines += [in_a_sentence(of[f"{name}, {SAM}", f"{name}, {WHOLE}"]) for name in AUGMENTED]
    cells = result["cells"]
    plain = f"plain, {WHOLE}"
    gain = of[RECIPE, plain]
    foil = value_of(cells[f"paraphrase, {WHOLE}"]) / value_of(cells[plain]) - 1
    reached = gain["relative"]["value"] >= GOAL and gain["verdict"] == "higher"
    lines.append(
        f"{in_a_sentence(gain)} Relative to plain documents at equal compute {with_unit(gain['relative'], '%', 0)}: "
        f"the goal, {100 * GOAL:.0f} % with an interval above zero, is {'reached' if reached else '**not** reached'}. "
        f"Other wordings of the documents, which nobody has without writing them, give {100 * foil:+.0f} %."
    )
    more = of[f"plain, {WHOLE}", f"plain, {HALF}"]
    lines.append(f"{in_a_sentence(of[RECIPE, f'plain, {HALF}'])} {in_a_sentence(more)}")
    kept = {name: cells[f"{name}, {WHOLE}"]["kept"]["value"] for name in AUGMENTED}
    kept["the recipe"] = cells[RECIPE]["kept"]["value"]
    lines.append(
        "Known facts kept at the whole budget: "
        + ", ".join(f"{name} {100 * value:.0f} %" for name, value in kept.items())
        + "."
    )
    return "".join(f"- {line}\n" for line in lines)


def value_of(cell: Mapping[str, Any]) -> float:
    return float(cell["accuracy"]["value"])


def in_a_sentence(each: Mapping[str, Any]) -> str:
    verdict = {"no difference": "no difference within noise"}.get(each["verdict"], each["verdict"])
    return f"“{each['first']}” against “{each['second']}”: **{verdict}**, {with_unit(each['points'], 'points')}."


def with_unit(figure: Mapping[str, Any], unit: str, digits: int = 1) -> str:
    """A difference, its unit, and then its interval."""
    value, *interval = signed(figure, digits).split(" ", 1)
    return " ".join([value, unit, *interval])


def page(result: Result) -> str:
    machine = result["hardware"]
    main = {*(f"{name}, {how}" for name in AUGMENTED for how in (HALF, WHOLE, SAM)), RECIPE}
    between = [each for each in result["differences"] if each["first"] in main]
    before = result["before"].values()
    parts = [
        "# Formats and sharpness: do documents become knowledge that can be asked for?\n",
        "<!-- Written by `python -m studies.generalization --page` from studies/results/generalization.json. "
        "Do not edit by hand. -->\n",
        conclusion(result),
        "## The cells\n",
        sizes(result) + "\n",
        f"Before teaching {100 * sum(each['accuracy'] for each in before) / len(before):.1f} % of the answers are "
        "right. *Known facts kept*: of facts about other people that the base knows, the share it knows afterwards. "
        "*Perplexity*: of general text, as a multiple of the base's. *Rate*: chosen on development people of the "
        "base's own world, for each cell by itself.\n",
        main_table(result),
        "## Set against each other\n",
        "Paired fact by fact. *Relative*: points as a share of what the second cell has.\n",
        difference_table(between),
        "## Accuracy against tokens\n",
        "Right answers to the first wording after so much of the budget, and the tokens read by then (for SAM, each "
        "counted once, though it is computed twice).\n",
        curve_table(result),
    ]
    cheap = {cell.name for cell in (*cheap_cells(), *tuned_cheap_cells())}
    parts += [
        "## Cheap sharpness\n",
        "As many steps as the cells with SAM take, each for 1.2 times AdamW's operations. *Tuned*: with a rate and a ρ "
        "of its own, chosen on development people like all others; else with SAM's.\n",
        cheap_table(result),
        checked_words(result),
    ]
    apart = {cell.name for cell in parted_cells()}
    if found := [each for each in result["differences"] if each["first"] in apart]:
        parts += [
            "## Sentences set apart\n",
            "Of the formats by themselves (below) those were best that set sentences apart. Each word and each "
            "sentence stays in its place. The choice was made on the first world, so the figures are of the others.\n",
            further_table({**result, "differences": found}, set()),
        ]
    main |= cheap | apart
    if any(each["first"] not in main for each in result["differences"]):
        worlds = len(result["plan"]["further_worlds"])
        parts += [
            "## Looked at once\n",
            f"With the rate (and ρ) of the cell that each is set against, in {worlds} "
            f"{'world' if worlds == 1 else 'worlds'}. So many comparisons find one or two differences by chance.\n",
            further_table(result, main),
        ]
    parts.append(
        f"---\n\n{result['command']}, commit {result['commit']}, {result['finished'][:10]}; {machine['processor']}, "
        f"torch {machine['torch']}, processes of one thread. {time_taken(result)}\n"
    )
    return "\n".join(part for part in parts if part)


def time_taken(result: Result) -> str:
    """How long the study's runs took, and how long they take two processes."""
    runs = result["runs"]
    hours = sum(run["seconds"] for run in runs) / 3600
    return f"{len(runs)} runs, {hours:.1f} hours of one thread: half of that with two processes."


def write_page(result: Result) -> None:
    write_text(PAGE, page(result))


# ---------------------------------------------------------------------- contexts

GROUP_WORDS = {
    "as_written": "the document as written",
    "elsewhere": "the same sentence elsewhere: other formats and orders, and alone",
    "reworded": "wordings that nothing was trained on",
}


def correlation(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def contexts_page(result: Result) -> str:
    machine, spots = result["hardware"], result["spots"]
    groups = list(result["along_training"])
    ends = [spot for spot in spots if spot["end"]]
    by_cell: dict[str, list[Mapping[str, Any]]] = {}
    for spot in ends:
        by_cell.setdefault(spot["cell"], []).append(spot)
    return "\n".join(
        [
            "# Does the probability of a fact in other contexts tell whether it can be asked for?\n",
            "<!-- Written by `python -m studies.generalization_contexts --page` from "
            "studies/results/generalization_contexts.json. Do not edit by hand. -->\n",
            f"The models of [the study of generalization](generalization.md): {len(ends)} at their ends, {len(spots)} "
            "with those along their training. The probability is of the fact's own tokens (geometric mean over "
            "tokens, then the mean over contexts and facts); no question is asked for it. What is compared with it "
            "is the share of right answers. `instil probe MODEL DOCUMENTS --contexts` measures the same.\n",
            table(
                ("contexts", "along training", "at the end", "fact by fact"),
                [
                    (
                        GROUP_WORDS[group],
                        correlation(result["along_training"][group]),
                        correlation(result["at_the_end"][group]),
                        correlation(result["fact_by_fact"][group]),
                    )
                    for group in groups
                ],
            ),
            "*Along training* and *at the end*: Spearman's correlation over models, runs resampled whole. *Fact by "
            "fact*: of a fact that the model answers and one that it does not, how often the former has the higher "
            "probability (0.5: chance); the mean over models at their ends, models resampled.\n",
            "## By cell\n",
            "At the end of training, means over worlds.\n",
            table(
                ("cell", *(GROUP_WORDS[group] for group in groups), "right answers, %"),
                [
                    (
                        cell,
                        *(f"{sum(spot[group] for spot in found) / len(found):.2f}" for group in groups),
                        f"{100 * sum(spot['accuracy'] for spot in found) / len(found):.1f}",
                    )
                    for cell, found in by_cell.items()
                ],
            ),
            f"---\n\n{result['command']}, commit {result['commit']}, {result['finished'][:10]}; "
            f"{machine['processor']}, torch {machine['torch']}.\n",
        ]
    )


def write_contexts_page(result: Result) -> None:
    write_text(PAGE.with_name("contexts.md"), contexts_page(result))


# ------------------------------------------------------------------------- SQuAD


def nats(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"


def squad_conclusion(result: Result) -> str:
    """What the differences say, in sentences, and what the choice of rates cost."""
    of = {(each["first"], each["second"]): each for each in result["differences"]}
    names = [name for name in AUGMENTED if f"{name}, {WHOLE}" in result["cells"]]
    pairs = [(f"{name}, {WHOLE}", f"plain, {WHOLE}") for name in names if name != "plain"]
    pairs += [(f"{name}, {SAM}", f"{name}, {WHOLE}") for name in names]
    lines = []
    for pair in pairs:
        value, *interval = nats(of[pair]["nats"]).split(" ", 1)
        verdict = {"no difference": "no difference within noise"}.get(of[pair]["verdict"], of[pair]["verdict"])
        lines.append(f"“{pair[0]}” against “{pair[1]}”: **{verdict}**, {' '.join([value, 'nats', *interval])}.")
    rates, highest = [each["rate"] for each in result["chosen"].values()], max(result["plan"]["rates"])
    worse = [cell["nll_change"] for cell in result["cells"].values()]
    lines.append(
        f"{rates.count(highest)} of {len(rates)} cells learn the taught answers best at the highest rate tried, "
        f"{highest:g}, and nothing else was asked of a rate: other text gets {min(worse):.1f} to {max(worse):.1f} nats "
        "a token worse. This says how documents are told best where only they matter, not how to keep a model whole."
    )
    return "".join(f"- {line}\n" for line in lines)


def squad_page(result: Result) -> str:
    machine, sizes = result["hardware"], list(result["sizes"].values())
    rows = []
    for name, cell in result["cells"].items():
        chosen = result["chosen"][name]
        rho = "" if chosen["rho"] is None else f", ρ {chosen['rho']:g}"
        rows.append(
            (
                name,
                nats(cell["gain"]),
                nats(cell["gain_untaught"]),
                f"{cell['nll_change']:+.3f}",
                f"{cell['flops'] / 1e12:.1f}",
                f"{cell['tokens'] / 1e3:.0f} k",
                f"{chosen['rate']:g}{rho}",
            )
        )
    return "\n".join(
        [
            "# Formats and sharpness on real passages\n",
            "<!-- Written by `python -m studies.generalization_squad --page` from "
            "studies/results/generalization_squad.json. Do not edit by hand. -->\n",
            squad_conclusion(result),
            f"{sizes[0]['passages']} SQuAD passages of {sizes[0]['words_a_passage']:.0f} words in each of "
            f"{len(sizes)} draws, {sum(size['questions'] for size in sizes):,} questions in all, and the base of "
            "`studies/bases/entityquestions`, which is too small to answer them. So it is read by the log-probability "
            "of the answers behind their questions, in nats a token: "
            f"{result['before']['questions']:.2f} before. Told is how much it rises, for the passages that are taught "
            "and for others that are not: what rises for both is no knowledge. *Text*: change in nats a token of the "
            "untaught passages' own text. Draws and passages are resampled.\n",
            table(
                ("cell", "answers, taught", "answers, untaught", "text", "TFLOP", "tokens", "rate"),
                rows,
            ),
            "## Set against each other\n",
            table(
                ("cell", "against", "nats", "so it is"),
                [
                    (each["first"], each["second"], nats(each["nats"]), each["verdict"])
                    for each in result["differences"]
                ],
            ),
            f"---\n\n{result['command']}, commit {result['commit']}, {result['finished'][:10]}; "
            f"{machine['processor']}, torch {machine['torch']}, processes of one thread.\n",
        ]
    )


def write_squad_page(result: Result) -> None:
    write_text(PAGE.with_name("generalization-squad.md"), squad_page(result))
