"""`docs/results/guesses.md`, written from the JSON of `studies.guesses` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.files import write_text
from studies.first_run_page import CATEGORIES, matrix, percent, table

PAGE = Path(__file__).parents[1] / "docs" / "results" / "guesses.md"
Results = Mapping[str, Any]


def write_page(results: Results) -> None:
    write_text(PAGE, page(results))


def page(results: Results) -> str:
    ran_on, splits = results["hardware"], results["splits"]
    parts = "\n".join(split_part(results, name) for name in splits)
    return f"""# How much of what looks known is a guess?

Written by `python -m studies.guesses --page` from `studies/results/guesses.json`; do not edit.
Commit {results["commit"]}, {ran_on["processor"]}, {ran_on["cores"]} cores, {results["finished"]}. Model: the
EntityQuestions base ({results["model"]["parameters"] / 1e6:.1f} M parameters, {results["model"]["dtype"]}). Intervals
are 95 %, resampled by subject.

A relation with a favourite answer makes facts look known that are only guessed. The probe therefore also asks with
the subject withheld ("{results["relations"]["P495"].replace("[X]", "it")}"): `p_prior` is the probability of the
right answer then. A HighlyKnown or MaybeKnown fact *could be guessed* when `p_prior` is at least one half, a
WeaklyKnown one when samples without the subject would be as likely as not to hit, and any when naming the subject
made its answer no likelier (`instil.probe.guessing`).

## Favourite answers of the published data

{raw_table(results)}
The base was trained on facts of which no answer has more than 15 % of its relation; so are the `target` facts drawn.
The `development` facts are as published.

{parts}
## What this shows, and what it does not

- That a fact could be guessed does not say that the model does not know it, only that this probe cannot show that it
  does: a model that knows all about American films gives the same answers as one that calls every film American.
- The rule is one of several. The tables by threshold show how much hangs on the half.
- `p_prior` is measured behind the same exemplars, so it holds both the relation's favourites and what can be copied
  from the prompt. What copying does by itself is seen where the same fact is asked with and without its answer among
  the exemplars; facts whose answer stands in some prompts have frequent answers, so this does not speak for the others.
- One model of {results["model"]["parameters"] / 1e6:.1f} M parameters, trained on capped relations: a model trained on
  the web has favourites of its own.
"""


def raw_table(results: Results) -> str:
    rows = [
        (named(results, relation), one["answer"], f"{100 * one['share']:.1f} %", f"{one['n']:,}")
        for relation, one in sorted(results["raw"].items(), key=lambda item: -item[1]["share"])
    ]
    return table(("relation", "favourite answer", "its share", "facts"), rows)


def named(results: Results, relation: str) -> str:
    return f"{relation}: {results['relations'].get(relation, '')}"


def split_part(results: Results, name: str) -> str:
    one = results["splits"][name]
    return f"""## {name}: {one["facts"]:,} facts of {one["subjects"]:,} subjects

{verdict(one)}

{map_table(one)}
{relation_table(one)}
Facts that could be guessed, by the `p_prior` from which a greedy answer counts as one:

{threshold_table(one)}
{gold_part(one["gold"])}"""


def verdict(one: Mapping[str, Any]) -> str:
    high, maybe = (one["all"]["categories"][name] for name in CATEGORIES[:2])
    shares = [
        f"{percent(found['guesses'])} of the {found['facts']:,} {name} facts" if found["facts"] else f"no {name} fact"
        for name, found in zip(CATEGORIES, (high, maybe), strict=False)
    ]
    known, left = one["all"]["known"], one["all"]["known_without_guesses"]
    return (
        f"{' and '.join(shares)} could be guessed. Known are {percent(known)} of all facts, and {percent(left)} when "
        "no guess counts. The subject could be withheld "
        f"in {one['with_prior']:,} of {one['facts']:,} questions; the others cannot be judged and stay as they are."
    )


def map_table(one: Mapping[str, Any]) -> str:
    rows = []
    kept = sum(one["without_guesses"].values())
    for name in CATEGORIES:
        found, left = one["all"]["categories"][name], one["without_guesses"][name]
        rows.append(
            (
                name,
                f"{found['facts']:,} ({100 * found['facts'] / one['facts']:.1f} %)",
                percent(found["guesses"]),
                f"{left:,} ({100 * left / max(1, kept):.1f} %)",
                percent(found["favourite"]),
                percent(found["gold_in_prompt"]),
            )
        )
    head = (
        "category",
        "facts",
        "could be guessed",
        "map without guesses",
        "most common answer of all",
        "answer in a prompt",
    )
    return table(head, rows)


def relation_table(one: Mapping[str, Any]) -> str:
    rows = []
    for relation, found in sorted(one["relations"].items(), key=lambda item: -item[1]["favourite"]["share"]):
        high, maybe = (found["categories"][name] for name in CATEGORIES[:2])
        rows.append(
            (
                relation,
                found["facts"],
                f"{found['favourite']['answer']} ({100 * found['favourite']['share']:.0f} %)",
                f"{found['p_prior']:.3f}",
                guessed(high),
                percent(high["favourite"]),
                guessed(maybe),
                percent(high["gold_in_prompt"]),
                f"{percent(found['known'])} → {percent(found['known_without_guesses'])}",
            )
        )
    head = (
        *("relation", "facts", "favourite answer", "mean p_prior", "HighlyKnown, could be guessed"),
        *("HighlyKnown with the favourite answer", "MaybeKnown, could be guessed", "HighlyKnown, answer in a prompt"),
        "known → without guesses",
    )
    return table(head, rows)


def guessed(found: Mapping[str, Any]) -> str:
    return f"{percent(found['guesses'])} of {found['facts']}" if found["facts"] else "–"


def threshold_table(one: Mapping[str, Any]) -> str:
    rows = [(at, *(percent(found[name]) for name in CATEGORIES[:2])) for at, found in one["by_threshold"].items()]
    return table(("p_prior from", *CATEGORIES[:2]), rows)


def gold_part(one: Mapping[str, Any]) -> str:
    shown, hidden = percent(one["right_where_shown"]), percent(one["right_where_not_shown"])
    return f"""{one["facts_with_both"]:,} facts have their answer among the exemplars of some prompts and not of others.
Greedy answers are right for {shown} of their prompts that show it and {hidden} of those that do not: a difference of
{percent(one["difference"], signed=True)} points. The answer stands in every prompt of {one["gold_in_every_prompt"]}
facts. The {one["facts_in_transition"]:,} facts whose answer stands in some prompt, by all prompts and by those without
it:

{matrix(one["transition"]).replace("before ↓ after →", "all prompts ↓ without the answer →")}"""
