"""The tables of the page on gradual learning, from its figures alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from studies.first_run_page import table
from studies.generalization_page import percent, signed, times
from studies.gradual_arms import FINE_TUNING, GRADUAL, ONE_STAGE
from studies.gradual_figures import LETTERS, TESTED
from studies.gradual_plots import NAMES

Found = Mapping[str, Any]
"""Figures of one base."""

NATURAL = "all, as they come"
TRAINED_ON: dict[str, tuple[str, str]] = {
    **{name: (f"{name} only, early stop", f"{name} only") for name in NAMES.values()},
    "MaybeKnown": (ONE_STAGE, "MaybeKnown only"),
    NATURAL: ("sft, early stop", FINE_TUNING),
}
"""What SliCK trains on, and the arms that do: stopped early, and to the last epoch."""

CLOSELY = (ONE_STAGE, GRADUAL, "gradual, random facts", "gradual, replay only", "HighlyKnown only", FINE_TUNING)
"""Arms of which every start category is shown."""

WAYS = {
    "half": "half",
    "sure": "interval",
    "no_more_compute": "compute",
    "no_more_made_up": "made up",
    "reached": "reached",
}


def readings_table(found: Found) -> str:
    """Forgetting at the three readings, an arm a row."""
    rows = []
    for name, arm in found["arms"].items():
        cells = ["–" if read["void"] else reading(read, len(arm["seeds"])) for read in arm["readings"].values()]
        rows.append((name, len(arm["seeds"]), *cells))
    shares = next(iter(found["arms"].values()))["readings"]
    heads = [f"at {100 * float(share):.0f} % ({100 * float(share) * found['best']:.1f} % acquired)" for share in shares]
    return table(("arm", "seeds", *heads), rows)


def reading(read: Mapping[str, Any], seeds: int) -> str:
    if read["value"] is None:
        return "never"
    return percent(read) + (f", {len(read['reached'])} of {seeds} seeds" if read["missing"] else "")


def arms_table(found: Found) -> str:
    """What each arm has in the end."""
    rows = [
        (
            name,
            percent(arm["acquired"]),
            percent(arm["highly_known"]),
            percent(arm["lost"]),
            percent(arm["kept"]["HM"]),
            percent(arm["made_up"]),
            times(arm["perplexity"]),
            compute(arm),
            f"{arm['seconds']:.0f}",
        )
        for name, arm in found["arms"].items()
    ]
    before = found["before"]
    start = ("*before*", *(percent(before[name]) for name in ("acquired", "highly_known")), *("–",) * 2)
    heads = ("arm", "acquired, %", "HighlyKnown, %", "lost, points", "known facts kept, %", "made up, %")
    return table(
        (*heads, "perplexity", "TFLOP (of it deciding)", "seconds"),
        [(*start, percent(before["made_up"]), "1×", "–", "–"), *rows],
    )


def compute(arm: Mapping[str, Any]) -> str:
    share = arm["deciding"] / arm["flops"] if arm["flops"] else 0.0
    return f"{arm['flops'] / 1e12:.1f} ({100 * share:.0f} %)"


def paired_table(found: Found) -> str:
    """Every arm against the one to beat, at equal acquisition, and what of the bar it does not pass."""
    rows = []
    for name, pair in found["paired"].items():
        cells = [paired_cell(read) for read in pair["readings"].values()]
        rows.append((name, len(pair["seeds"]), signed(pair["acquired"]), *cells, bar(pair)))
    shares = next(iter(found["paired"].values()))["readings"]
    heads = [f"forgets at {100 * float(share):.0f} %, points" for share in shares]
    return table(("arm", "seeds", "acquired in the end, points", *heads, "bar"), rows)


def paired_cell(read: Mapping[str, Any]) -> str:
    if read["void"]:
        return "–"
    if read["difference"] is None:
        return "never both"
    ratio = f", {read['forgotten'][0] / read['forgotten'][1]:.2f} of it" if min(read["forgotten"]) > 0 else ""
    spent = f", {read['flops_there'][0] / read['flops_there'][1]:.2f}× compute" if min(read["flops_there"]) > 0 else ""
    return f"{signed(read['difference'])}: {read['verdict']}{ratio}{spent}"


def bar(pair: Mapping[str, Any]) -> str:
    """ "passes", or what it lacks at any reading."""
    if pair["passes"]:
        return "**passes**"
    lacking = [
        words
        for way, words in WAYS.items()
        if any(not read.get(way, way != "reached") for read in pair["readings"].values())
    ]
    return "not: " + ", ".join(lacking)


def highly_known_table(found: Found) -> str:
    """The paper's own figure against every other arm."""
    rows = [
        (
            name,
            len(pair["seeds"]),
            percent_pair(pair["all"]["shares"]),
            signed(pair["all"]["points"]),
            signed(pair["all"]["relative"], 0),
            pair["all"]["verdict"],
            signed(pair["not_guessed"]["relative"], 0),
            pair["not_guessed"]["verdict"],
            f"{pair['flops'][0] / pair['flops'][1]:.2f}×" if pair["flops"] and pair["flops"][1] else "–",
        )
        for name, pair in found["highly_known"].items()
    ]
    heads = (
        "against",
        "seeds",
        "HighlyKnown, %",
        "points",
        "relative, %",
        "so it is",
        "without guesses, %",
        "so it is",
    )
    return table((*heads, "compute"), rows)


def percent_pair(shares: Sequence[float | None]) -> str:
    return " against ".join("–" if share is None else f"{100 * share:.1f}" for share in shares)


def category_table(found: Found) -> str:
    """Taught facts by start category, trained and untrained apart."""
    return table(
        ("arm", "started as", "", "facts a seed", "as worded, %", "gain, points", "reworded, %", "gain, points"),
        list(category_rows(found)),
    )


def category_rows(found: Found) -> Iterator[tuple[str, ...]]:
    for name in CLOSELY:
        arm = found["arms"].get(name, {"by_category": {}, "seeds": [0]})
        for letter, parts in arm["by_category"].items():
            for part, both in parts.items():
                cells = [cell for way in ("worded", "reworded") for cell in (went(both[way]), signed(both[way]))]
                yield (name, NAMES[letter], part, f"{both['worded']['n'] / len(arm['seeds']):.0f}", *cells)


def went(figure: Mapping[str, Any]) -> str:
    return f"{100 * figure['before']:.1f} → {100 * figure['after']:.1f}"


def slick_table(found: Found) -> str:
    """SliCK's own table: what was trained on, by test category."""
    rows = []
    for trained, names in TRAINED_ON.items():
        for stop, name in zip(("early stop", "last epoch"), names, strict=True):
            if arm := found["arms"].get(name):
                rows.append((trained, stop, *(percent(arm["tested"][which]) for which in TESTED)))
    befores = [next(iter(found["arms"].values()))["tested"][which] for which in TESTED]
    start = (
        "*nothing*",
        "",
        *("–" if each.get("before") is None else f"{100 * each['before']:.1f}" for each in befores),
    )
    return table(("trained on", "until", *TESTED), [start, *rows])


def kept_table(found: Found) -> str:
    rows = [
        (name, *(percent(arm["kept"][letters]) for letters in ("HM", "H", "M"))) for name, arm in found["arms"].items()
    ]
    return table(("arm", "all known facts, %", "HighlyKnown, %", "MaybeKnown, %"), rows)


def flow_tables(found: Found, arm: str) -> str:
    """From and to, step by step; means over seeds."""
    parts = []
    for step in found["arms"][arm]["flow"]:
        rows = [
            (NAMES[one], *(f"{step['counts'][one][other] / step['seeds']:.0f}" for other in LETTERS)) for one in LETTERS
        ]
        heads = (f"{step['from']} ↓ {step['to']} →", *(NAMES[letter] for letter in LETTERS))
        parts.append(table(heads, rows))
    return "\n".join(parts)


MOVES = {
    "changed": "another category",
    "rose": "rose, to MaybeKnown at least",
    "lifted": "of WeaklyKnown and Unknown: MaybeKnown at least",
    "fell": "fell",
}


def noise_table(noise: Mapping[str, Any]) -> str:
    """Facts that change category when nothing is trained."""
    rows = [
        (way, one["facts"], len(one["draws"]), *(percent(one["shares"][move], 2) for move in MOVES))
        for way, one in noise["ways"].items()
    ]
    return table(("asked again", "facts", "draws", *(f"{words}, %" for words in MOVES.values())), rows)


def regression_table(found: Mapping[str, Any]) -> str:
    """SliCK's regression: what fitted known and fitted unknown facts do."""
    rows = []
    for group, outcomes in found.items():
        for outcome, by_whole in outcomes.items():
            for whole, fit in by_whole.items():
                if "reason" in fit:
                    rows.append((group, outcome, whole, fit["reason"], "–", "–", "–", "–"))
                    continue
                r2 = "–" if fit["r2"] is None else f"{fit['r2']:.2f}"
                ends = (signed(fit["known"]), signed(fit["unknown"]), signed(fit["difference"]))
                rows.append((group, outcome, whole, percent(fit["intercept"]), *ends, r2))
    heads = (
        "arms",
        "of what",
        "share of",
        "intercept, %",
        "fitted known",
        "fitted unknown",
        "known less unknown",
        "R²",
    )
    return table(heads, rows)


def chosen_table(result: Mapping[str, Any]) -> str:
    """What was tuned."""
    rows = [
        (base, name, f"{one['rate']:g}", ", ".join(f"{key} {value}" for key, value in one["settings"].items()) or "–")
        for base, of_base in result["chosen"].items()
        for name, one in of_base.items()
    ]
    return table(("base", "arm", "learning rate", "settings"), rows)
