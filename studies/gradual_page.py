"""docs/results/gradual.md and its plots, from the results of the study of gradual learning alone.

What is said in words follows from verdicts in the figures; nothing is written by hand that a figure could contradict.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.files import write_text
from studies.generalization_page import percent, with_unit
from studies.gradual_arms import FINE_TUNING, GRADUAL, ONE_STAGE, PUBLISHED
from studies.gradual_figures import CLAIM, LETTERS
from studies.gradual_measure import READINGS
from studies.gradual_plots import COLOURS, NAMES, mastery_flow, tradeoff
from studies.gradual_tables import (
    TRAINED_ON,
    arms_table,
    category_table,
    chosen_table,
    flow_tables,
    highly_known_table,
    kept_table,
    noise_table,
    paired_table,
    readings_table,
    regression_table,
    slick_table,
)

DOCS = Path(__file__).parents[1] / "docs"

Result = Mapping[str, Any]
Found = Mapping[str, Any]
"""Figures of one base."""

CONTROLS = (
    "gradual, random facts",
    "gradual, replay only",
    "gradual, stage 2 from the base",
    "two rounds",
    "two rounds, replay",
    FINE_TUNING,
)
"""Arms that have something of the two stages, but not what the paper says they work by."""

METHOD = """\
Gradual learning (Li et al. 2024, arXiv 2410.05802) teaches a language model facts in an order that depends on what it
knows already. Each fact is asked ten times, with other example questions before it: a fact is *HighlyKnown* where all
answers are right, *MaybeKnown* where some are, *WeaklyKnown* where none is but sampling finds the answer now and then,
and *Unknown* otherwise. A first stage trains on the MaybeKnown facts only. The paper says that other facts then rise
without being trained on: so all are asked again, and a second stage trains on the MaybeKnown facts and those that rose,
with some HighlyKnown facts replayed. Its abstract claims 24 % more knowledge acquired, which we read as 24 % more facts
HighlyKnown after two stages than after one, and that what was mastered is kept.
"""

SEARCH = """\
Development subjects, one seed, 12 epochs unless the name says otherwise: points lost on known facts that are held back,
where a share of the best candidate's final acquisition is first reached (–: never), then the share of taught facts
acquired in the end, points lost there, perplexity of general text, and operations. A point or two is noise. Each line
is plain fine-tuning with the ingredients that its name says, or `mentor` with that setting changed; what they are is in
[gradual_methods.py](../../studies/gradual_methods.py), what was expected of them in [the lab log](../lab-log.md).
"""

ASKED = """\
- Do facts rise that no stage trained on, more than facts rise when nothing is taught?
- Are more facts HighlyKnown after the two stages than after one, and than after controls that lack a part of the idea?
- What is forgotten of known facts that are neither taught nor replayed, *where two ways to teach have acquired the
  same*? Acquired is the share of right answers to taught facts in wordings that nobody trained on. Forgetting is read
  where 50, 75 and 90 % of the best arm's final acquisition is reached.
- What does training on one category only do to facts that nobody taught (the table of Gekhman et al. 2024)?
"""


# --------------------------------------------------------------------- conclusions


def conclusions(found: Found, noise: Mapping[str, Any] | None) -> list[str]:
    """What one base's figures say, a sentence or two each; what has no figures is not spoken of."""
    said = (
        claim_words(found),
        control_words(found),
        lifted_words(found, noise),
        forgetting_words(found),
        bar_words(found),
        slick_words(found),
        made_up_words(found),
    )
    return [words for words in said if words]


def claim_words(found: Found) -> str:
    pair = found["highly_known"].get(ONE_STAGE)
    if not pair or pair["all"]["points"]["value"] is None:
        return ""
    one, more = pair["all"], ""
    if (alone := pair["not_guessed"])["points"]["value"] is not None:
        gain = with_unit(alone["relative"], "%", 0) if alone["relative"] else points(alone)
        more = f" Without facts that can be guessed: {verdict_words(alone['verdict'])}, {gain}."
    return (
        f"Taught facts HighlyKnown after two stages against one stage: **{verdict_words(one['verdict'])}**, "
        f"{points(one)}{relative_words(one['relative'])}.{more}"
    )


def relative_words(relative: Mapping[str, Any] | None) -> str:
    """The relative gain, beside the paper's."""
    if relative is None:
        return ""
    if relative["low"] is None:
        return f", {with_unit(relative, '%', 0)}"
    if relative["low"] <= CLAIM <= relative["high"]:
        beside = "can be true by this interval" + (", and so can none" if relative["low"] <= 0 else "")
    else:
        beside = "is more than this interval allows" if relative["high"] < CLAIM else "is less than was found here"
    return f", relatively {with_unit(relative, '%', 0)}; the paper's {100 * CLAIM:+.0f} % {beside}"


def control_words(found: Found) -> str:
    pairs = {name: found["highly_known"][name] for name in CONTROLS if name in found["highly_known"]}
    parts = [
        f"against “{name}” {verdict_words(pair['all']['verdict'])}, {points(pair['all'])}"
        for name, pair in pairs.items()
        if pair["all"]["points"]["value"] is not None
    ]
    return f"The same count after the two stages and after controls: {'; '.join(parts)}." if parts else ""


def lifted_words(found: Found, noise: Mapping[str, Any] | None) -> str:
    parts = [
        f"{percent(arm['lifted'])} % after “{name}”"
        for name in (ONE_STAGE, "MaybeKnown only", "HighlyKnown only")
        if (arm := found["arms"].get(name)) and arm["lifted"]["value"] is not None
    ]
    for way, words in (
        ("exact, same sets", "the same example questions"),
        ("exact, other sets", "other example questions"),
        ("sampled, same sets", "sampling again"),
    ):
        if noise and way in noise["ways"]:
            parts.append(f"{percent(noise['ways'][way]['shares']['lifted'])} % with nothing taught, only {words}")
    if not parts:
        return ""
    return f"Of WeaklyKnown and Unknown facts that no stage trained on, MaybeKnown or better are {'; '.join(parts)}."


def forgetting_words(found: Found) -> str:
    """At each reading the arm with the lowest figure, among those that reach it in every seed of the study."""
    parts = []
    for share in (f"{one:g}" for one in READINGS):
        whole = {
            name: arm["readings"][share]
            for name, arm in found["arms"].items()
            if arm["readings"][share]["reached"] == found["seeds"] and not arm["readings"][share]["void"]
        }
        never = sum(not arm["readings"][share]["reached"] for arm in found["arms"].values())
        there, at = len(found["arms"]) - never, f"at {100 * float(share):.0f} %"
        if not whole:
            parts.append(f"{at} no arm ({there} of {len(found['arms'])} get there in some seed)")
            continue
        best = min(whole, key=lambda name: whole[name]["value"])
        parts.append(f"{at} “{best}”, {percent(whole[best])} points ({there} of {len(found['arms'])} arms get there)")
    return f"The lowest forgetting at equal acquisition, of arms that reach it in every seed: {'; '.join(parts)}."


def bar_words(found: Found) -> str:
    if not found["paired"]:
        return ""
    whole = {name: pair for name, pair in found["paired"].items() if pair["seeds"] == found["seeds"]}
    passed = [f"“{name}”" for name, pair in whole.items() if pair["passes"]]
    who = ", ".join(passed) if passed else "no arm"
    return (
        f"At most half of the forgetting of “{found['against']}”, the published arm that did best on development "
        f"subjects, for no more compute and not shown to make up more, in all seeds, at every reading: **{who}**."
    )


def slick_words(found: Found) -> str:
    parts = [
        f"{percent(arm['tested']['HighlyKnown'])} % after {trained}"
        for trained, (_, name) in TRAINED_ON.items()
        if (arm := found["arms"].get(name)) and arm["tested"]["HighlyKnown"]["value"] is not None
    ]
    if not parts:
        return ""
    asked = "right answers to HighlyKnown facts that nobody taught"
    return f"Trained on one category to the last epoch, {asked}: {'; '.join(parts)}."


def made_up_words(found: Found) -> str:
    parts = [
        f"{percent(arm['made_up'])} % after “{name}”"
        for name in (FINE_TUNING, ONE_STAGE, GRADUAL)
        if (arm := found["arms"].get(name)) and arm["made_up"]["value"] is not None
    ]
    if not parts:
        return ""
    parts.insert(0, f"{percent(found['before']['made_up'])} % before")
    return f"Confident wrong answers to facts that nobody taught: {'; '.join(parts)}."


def verdict_words(verdict: str) -> str:
    return {"no difference": "no difference within noise", "no interval": "no interval, so nothing is said"}.get(
        verdict, verdict
    )


def points(more: Mapping[str, Any]) -> str:
    return with_unit(more["points"], "points")


# ------------------------------------------------------------------------ one base


def base_parts(base: str, found: Found, noise: Found | None, fits: Found | None) -> Iterator[str]:
    """Everything about one base, in order."""
    yield f"## Base `{base}`\n"
    yield size_words(found)
    yield picture("Points lost on known facts against the share of taught facts acquired", base, "tradeoff")
    yield "### Forgetting at equal acquisition\n"
    yield (
        "Points lost on known facts that are neither taught nor replayed, where an arm first has acquired so much. "
        "*Never*: it does not acquire so much in any seed. *–*: the base has so much before anything is taught: "
        "there is nothing to read. What an arm takes back (epochs behind its best one, a stage before a fresh start) "
        "is no part of its curve, though its operations are.\n"
    )
    yield readings_table(found)
    if found["paired"]:
        yield (
            f"Against “{found['against']}”, fact by fact in the seeds that both have. Below zero: less is forgotten. "
            "*Of it*: forgetting as a multiple of the other's; *compute*: likewise, up to there. *Bar*: at most half "
            "of it, with an interval below zero, at every reading, for no more compute in the end and without being "
            "shown to make up more there; else what is lacking.\n"
        )
        yield paired_table(found)
    else:
        yield absent("the comparison with the best published arm, which was not run")
    yield "### In the end\n"
    yield (
        "Means over facts and seeds after each arm's last step. Arms that acquire more have more to forget for: "
        "compare forgetting above. *Made up*: of facts that nobody taught, confident wrong answers. "
        "*Known facts kept*: at least half of ten answers still right.\n"
    )
    yield arms_table(found)
    yield "### The paper's own figure\n"
    if found["highly_known"]:
        yield (
            f"Taught facts that are HighlyKnown after “{found['stages']}”, against every other arm. *Without guesses*: "
            "without facts that the base or one of the two arms could answer with the subject withheld. *Compute*: of "
            "the two stages, as a multiple of the other's.\n"
        )
        yield highly_known_table(found)
    else:
        yield absent("the arm with the paper's two stages, which was not run")
    yield "### What was taught and what rose by itself\n"
    yield "Taught facts by what they started as, and whether a stage trained on them; right answers before → after.\n"
    yield category_table(found)
    yield from flow_parts(base, found)
    yield "### Known facts kept\n"
    yield "Of held-back facts that the base knew, by what they started as: known afterwards.\n"
    yield kept_table(found)
    yield "### Trained on one category only\n"
    yield (
        "Right answers, %, to facts that are never taught, by what the base knew of them: the table of Gekhman et al. "
        "2024. MaybeKnown facts are parted by whether the base knew them (at least half of ten answers right), because "
        "known and other facts are asked in other numbers.\n"
    )
    yield slick_table(found)
    yield "### When nothing is taught\n"
    if noise:
        yield (
            "The base asked twice. *Exact*: whether a category is reached is reckoned, not sampled. Other sets: other "
            "example questions in the prompts.\n"
        )
        yield noise_table(noise)
    else:
        yield absent("the noise floor (`python -m studies.gradual_noise`)")
    yield "### What fitted facts cost\n"
    if fits:
        yield (
            "SliCK's regression over the points of all curves: the outcome by the share of fitted known and of fitted "
            "unknown facts, in points from none to all; runs are resampled. SliCK finds +7.3 and −8.3, R² 0.86.\n"
        )
        yield regression_table(fits)
    else:
        yield absent("the regression (`python -m studies.gradual_regression`)")


def flow_parts(base: str, found: Found) -> Iterator[str]:
    yield "### Mastery from stage to stage\n"
    arm = found["arms"].get(GRADUAL)
    if not arm or not arm["flow"]:
        yield absent(f"the flow of “{GRADUAL}”, which was not run")
        return
    yield f"Facts a seed, under “{GRADUAL}”.\n"
    yield picture("Taught facts by category, from look to look", base, "flow")
    yield flow_tables(found, GRADUAL)


def size_words(found: Found) -> str:
    before = found["before"]
    started = ", ".join(f"{before['categories'][letter]:.0f} {NAMES[letter]}" for letter in LETTERS)
    taught = sum(before["categories"].values())
    return (
        f"{len(found['seeds'])} {'seed' if len(found['seeds']) == 1 else 'seeds'}, in each {taught:,.0f} taught facts "
        f"({started}), {before['held_back']:,.0f} known facts held back and {before['untaught']:,.0f} facts that are "
        f"not known and never taught. Before teaching {100 * before['acquired']['value']:.1f} % of the answers to "
        f"taught facts in other wordings are right; the best arm ends at {100 * found['best']:.1f} %.\n"
    )


def picture(words: str, base: str, kind: str) -> str:
    return f"![{words}](../images/{plot_name(base, kind)})\n"


def absent(what: str) -> str:
    return f"*Not here yet: {what}.*\n"


# ------------------------------------------------------------------------ the page


def page(
    result: Result,
    noise: Result | None = None,
    fits: Result | None = None,
    searched: Mapping[str, str] | None = None,
) -> str:
    """The whole page.

    Args:
        result: of the study.
        noise: of `studies.gradual_noise`, where it was run.
        fits: of `studies.gradual_regression`, where it was run.
        searched: by base, the table of what the search tried (`studies.gradual_search`).
    """
    of_noise = (noise or {}).get("bases", {})
    of_fits = (fits or {}).get("bases", fits or {})
    figures: Mapping[str, Found] = {base: found for base, found in result["figures"].items() if found["arms"]}
    parts = [
        "# Gradual learning: do half-known facts lift others, and what is forgotten?\n",
        "<!-- Written by `python -m studies.gradual --page` from studies/results/gradual.json. Do not edit by hand. "
        "-->\n",
        METHOD,
        "## What was asked\n",
        ASKED,
        "## What was found\n",
        "Intervals are of 95 %; seeds and subjects are resampled. What an interval does not tell from zero is *no "
        "difference within noise*.\n",
    ]
    for base, found in figures.items():
        said = "".join(f"- {words}\n" for words in conclusions(found, of_noise.get(base)))
        parts.append(f"On `{base}`:\n\n{said}" if said else f"On `{base}`: {absent('anything to conclude from')}")
    parts += [absent("anything: no arm was run")] if not figures else []
    for base, found in figures.items():
        parts += base_parts(base, found, of_noise.get(base), of_fits.get(base))
    for base, tried in (searched or {}).items():
        parts += [f"## What was tried for less forgetting, on {base}\n", SEARCH, tried]
    return "\n".join([*parts, *how_parts(result)])


def how_parts(result: Result) -> Iterator[str]:
    """How it was done, from the plan and the runs."""
    plan, machine, runs = result["plan"], result["hardware"], result["runs"]
    yield "## How it was done\n"
    yield (
        "`people` is a small model that was told of invented people a known number of times "
        "([its card](../../studies/bases/people/README.md)); `entityquestions` one that was pre-trained on passages "
        "about EntityQuestions facts ([its card](../../studies/bases/entityquestions/README.md)). Subjects were "
        "divided into development and test before anything else. Learning rates and settings were chosen on "
        "development subjects, by forgetting at equal acquisition; what is above is from test subjects. Controls, and "
        "arms that train on one category, take the rate of the arm that they are compared with. “Random facts” are of "
        "those that did not rise, which favours the ones that did. Known facts are held back for their answers behind "
        "one draw of example questions and measured behind another. Two wordings "
        "of each taught fact are only asked, and every text that a lesson trains on is checked against them, and "
        "against the names of held-back subjects. Early stop looks at development facts only. An arm is an ordinary "
        "lesson of Instil.\n"
    )
    rows = [f"- `{base}`, test: {sized(plan['sizes'][base]['test'])}" for base in plan["bases"]]
    yield "\n".join(rows) + "\n"
    budget = "no limit" if plan["budget"] is None else f"at most {plan['budget'] / 1e12:.0f} TFLOP"
    flops, seconds = sum(run["flops"] for run in runs), sum(run["seconds"] for run in runs)
    yield (
        f"Seeds {', '.join(map(str, plan['seeds']))}; arms that are looked at once, "
        f"{', '.join(map(str, plan['once_seeds']))}. At most {plan['epochs']} epochs a stage (some arms that teach few "
        f"facts twice that), {plan['batch']} examples a step, {budget} an arm with its deciding probes. {len(runs)} "
        f"runs: {flops / 1e15:.2f} PFLOP of teaching, {seconds / 3600:.1f} hours of one thread with the looks.\n"
    )
    yield chosen_table(result)
    yield (
        f"---\n\n{result['command']}, commit {result['commit']}, {result['finished'][:10]}; {machine['processor']}, "
        f"torch {machine['torch']}, processes of one thread.\n"
    )


def sized(sizes: Mapping[str, int]) -> str:
    words = {
        "target": "to teach",
        "development": "for early stop",
        "replay": "to replay",
        "held_back": "known and held back",
        "untaught": "never taught",
        "general": "texts",
    }
    return ", ".join(f"{sizes[name]:,} {word}" for name, word in words.items()) + " (where there are so many)."


# ------------------------------------------------------------------------- writing


def plot_name(base: str, kind: str) -> str:
    return f"gradual-{base}-{kind}.svg"


def plots(result: Result) -> dict[str, str]:
    """The page's plots by their file names."""
    found: dict[str, str] = {}
    for base, figures in result["figures"].items():
        if not (arms := figures["arms"]):
            continue
        shown = [name for name in (*PUBLISHED, "mentor") if name in arms][: len(COLOURS)]
        found[plot_name(base, "tradeoff")] = tradeoff(base, arms, figures["best"], shown)
        steps = longest(arms[GRADUAL]["flow"]) if GRADUAL in arms else []
        if steps:
            title = f"{base}, {GRADUAL}: taught facts by category, mean of {counted(steps[0]['seeds'], 'seed')}"
            found[plot_name(base, "flow")] = mastery_flow(title, steps)
    return found


def longest(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The chain of looks, from `before` on, that most seeds have."""
    chain: list[Mapping[str, Any]] = []
    place = "before"
    while onward := [step for step in steps if step["from"] == place and step not in chain]:
        chain.append(max(onward, key=lambda step: step["seeds"]))
        place = chain[-1]["to"]
    return chain


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def write_page(results: Path, docs: Path = DOCS) -> Path:
    """Write the page and its plots under `docs`, from a result, the noise floor and the regression beside it, and the
    committed runs of the search; where the page is."""
    from studies.gradual_search import kept_rows, told

    def beside(name: str) -> Result | None:
        file = results.with_name(name)
        found: Result | None = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        return found

    result, where = json.loads(results.read_text(encoding="utf-8")), docs / "results" / "gradual.md"
    whole = page(result, beside("gradual_noise.json"), beside("gradual_regression.json"), told(kept_rows()))
    images = {docs / "images" / name: drawn for name, drawn in plots(result).items()}
    for file, text in {where: whole, **images}.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    return where
