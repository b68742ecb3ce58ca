"""The embedded model's card, written from the JSON of `studies.embedded_card` and the records beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from instil.files import write_text
from instil.model import EMBEDDED
from instil.training import TrainConfig
from studies.first_run_page import CATEGORIES, machine, percent, table

CARD = EMBEDDED / "README.md"
RARE = 0.01
"""Share of HighlyKnown facts below which a relation is named as a weakness."""

Results = Mapping[str, Any]


def write_card(results: Results) -> None:
    write_text(CARD, card(results))


def beside(name: str) -> dict[str, Any]:
    """One of the records that lie beside the weights."""
    found: dict[str, Any] = json.loads((EMBEDDED / name).read_text(encoding="utf-8"))
    return found


def card(results: Results) -> str:
    made, world, shape = beside("pretraining.json"), beside("world.json"), beside("config.json")
    config, mastery = made["config"], results["mastery"]
    people = world["people"] + world["new_people"] + world["exemplar_people"]
    megabytes = (EMBEDDED / "model.safetensors").stat().st_size / 1e6
    minutes, seconds = divmod(round(made["seconds"]), 60)
    return f"""# The embedded model

<!-- Written by `python -m studies.embedded_card --page` from studies/results/embedded.json. Do not edit by hand. -->

A base model of {made["parameters"] / 1e6:.1f} million parameters (Llama, {shape["num_hidden_layers"]} layers, width
{shape["hidden_size"]}, tied embeddings, context {shape["max_position_embeddings"]:,}) with a byte-level BPE of
{shape["vocab_size"]:,} entries, {megabytes:.0f} MB in bf16. It knows one thing: a synthetic world of {people} people,
their cities, companies, universities and works, each fact of which it was told a known number of times. `instil demo`
teaches it, tests run on it. It has no chat template and is no use for anything else.

## Recipe

    instil world build --out runs/world
    instil world pretrain runs/world --out runs/base --set row_length={config["row_length"]} \\
        --set learning_rate={config["learning_rate"]}

Seed {config["seed"]}. {made["documents"]:,} texts, {made["tokens"]:,} tokens, each seen once; {made["steps"]:,} steps
of about {config["batch_tokens"]:,} tokens; AdamW, cosine from {config["learning_rate"]}, {config["precision"]}
arithmetic over fp32 masters. {minutes} minutes {seconds} seconds on two CPU cores with AVX512-bf16, shared with other
work; final loss {made["final_loss"]:.2f} nats. `world.json` is the world's config, from which
`instil.worlds.embedded_world()` regenerates it in under a second; `pretraining.json` is the run.

The text holds biographies and statements ({100 * world["layout_share"]:.0f} % of them in one of 18 layouts: lists,
Markdown, HTML, quotes, comments, dialogue, tables ...), sheets of 1 to 14 questions in base style, completions,
reverse questions, four-way choices, short chats, questions through another entity, "I don't know" for names that do
not exist (they sound like no region's), and general prose. Half of the people appear in question form.
{world["new_people"]} people and their works are never told.

## What it knows

{mastery["all"]["n"]:,} facts about {mastery["all"][CATEGORIES[0]]["clusters"]:,} subjects, drawn from all that are no
exemplars and probed exactly by the SliCK protocol (10 sets of 4 exemplars, T = 0.5, top-k 40, 16 samples). Intervals
are 95 %, resampled by subject. `python -m studies.embedded_card` repeats it.

{exposures_table(mastery, world)}
{relations_table(mastery)}
Could be guessed without their subject (`instil.probe.guessing`): {guesses(mastery)}.

**Where the middle comes from.** Every answer is of one of two sides (northern or southern names, older or younger
dates, folk or concert instruments), sheets and pages keep to one side in {100 * world["sheet_purity"]:.0f} % of their
answers, and {100 * world["disputed_share"]:.0f} % of the told facts are disputed: each side has an answer of its own.
So the exemplars before a question, by the side of their answers, decide which answer greedy decoding gives.
MaybeKnown here means "known in one context, not in another". It is made, not found: what the model does with
MaybeKnown facts says little about the MaybeKnown facts of a large model.

**Known weaknesses.** {weaknesses(mastery)}

## How much room one biography leaves

{one_biography(results["one_biography"])}
## Cost

Probing took {results["seconds_of_probing"]:,.0f} seconds, teaching and asking
{results["one_biography"]["seconds"]:,.0f} seconds for all seeds together, on {machine(results)}; begun
{results["started"]}.
"""


def exposures_table(mastery: Results, world: Results) -> str:
    levels = world["disputed_levels"]
    bands = {**mastery["by_exposures"]}
    disputed = bands.pop("disputed")
    parts = {
        "**all**": mastery["all"],
        "answer among the exemplars'": mastery["answer_in_prompt"],
        "answer not among them": mastery["answer_not_in_prompt"],
        **{exposure(band): found for band, found in bands.items()},
        f"disputed (told both ways, {min(levels)}-{max(levels)} times the right one)": disputed,
    }
    return shares_table("facts", parts)


def exposure(band: str) -> str:
    """ "told 4-8 times" for "004-008"."""
    if not band[0].isdecimal():
        return f"told {band} numbers of times"
    low, high = map(int, band.split("-"))
    return f"told {low}-{high} times" if high else "never told"


def relations_table(mastery: Results) -> str:
    return shares_table("relation", {spoken(name): found for name, found in mastery["by_relation"].items()})


def spoken(relation: str) -> str:
    return relation.replace("_", " ")


def shares_table(first: str, parts: Mapping[str, Results]) -> str:
    rows = [
        (name, f"{found['n']:,}", *(percent(found[category]) for category in CATEGORIES))
        for name, found in parts.items()
    ]
    return table((first, "n", *CATEGORIES), rows)


def guesses(mastery: Results) -> str:
    """ "2 of 211 HighlyKnown facts, ..."; of Unknown facts none can be."""
    found = mastery["all"]
    counts = {name: round(found[name]["value"] * found["n"]) for name in CATEGORIES[:3]}
    return ", ".join(f"{mastery['guesses'][name]:,} of {count:,} {name} facts" for name, count in counts.items())


def weaknesses(mastery: Results) -> str:
    relations = mastery["by_relation"]
    rare = [
        f"{spoken(name)}, {percent(found[CATEGORIES[0]])} of {found['n']}"
        for name, found in relations.items()
        if found[CATEGORIES[0]]["value"] < RARE
    ]
    return f"""The pull is too strong where the first token of an answer names its side, as in occupations and
instruments. Relations with under {100 * RARE:.0f} % HighlyKnown facts: {"; ".join(rare) or "none"}. Genres come from a
pool of ten, so that untold ones are WeaklyKnown by guessing; {percent(relations["work_genre"]["WeaklyKnown"])} of the
genres are. Names of new people do occur in the text, as wrong answers to questions about others."""


def one_biography(one: Results) -> str:
    config = TrainConfig.model_validate(one["config"])
    after, seeds = one["accuracy_after"], one["seeds"]
    relations = table(
        ("relation", "answers", "right after"),
        [(spoken(name), found["n"], percent(found)) for name, found in one["by_relation"].items()],
    )
    by_seed = table(
        ("", *(f"seed {seed}" for seed in seeds)), [("right after", *map(percent, one["accuracy_after_by_seed"]))]
    )
    return f"""Plain continued pre-training (Instil's engine) on one biography of each of {one["people"]} new people
(two paragraphs, each telling all eight facts in other words), AdamW at {config.learning_rate} ({config.schedule}),
{config.batch_size} documents a step, {config.epochs} epochs; then {one["questions"]} questions about them, greedy,
under three sets of four exemplars. Each of {len(seeds)} seeds draws the people, the questions and the order of
training: {after["n"]:,} questions about {after["clusters"]} people in all. Intervals are 95 %, over seeds and people;
of one seed, over people.

**{percent(after)}** of the answers are right, {percent(one["accuracy_before"])} before.

{by_seed}
{relations}
The learning rate was chosen among 0.0003, 0.0005 and 0.001, partly on an earlier model. Much depends on the schedule
and on the document; what was tried is in the lab log (`docs/lab-log.md`).
"""
