"""`report.json`: everything the page shows, for machines. Its schema is `ReportFile`, whose descriptions are the
documentation; `docs/schema/report.schema.json` is made from it.

The facts are those of the page's table: texts that it shortens are shortened here too, and the ledger has all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from instil.report import facts, words

FORMAT: Final = "instil report"
VERSION: Final = 1
"""The version goes up when something that was there is renamed, removed or means something else."""

Counts = dict[str, int]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunPart(_Part):
    run_id: Annotated[str, Field(description="The run, as the ledger names it.")]
    method: Annotated[str | None, Field(description="The method that taught.")]
    model: Annotated[str | None, Field(description="The starting model.")]
    status: Annotated[str | None, Field(description="running, done or failed.")]
    started: Annotated[str | None, Field(description="ISO 8601.")]
    finished: Annotated[str | None, Field(description="ISO 8601; null when the run did not end.")]
    version: Annotated[str | None, Field(description="The version of Instil.")]
    base_model: Annotated[str | None, Field(description="The starting model's id on the Hub, if it came from there.")]
    others: Annotated[list[str], Field(description="Other runs in the same ledger.")]


class ScalePart(_Part):
    """The size at which every figure was measured, which is the size that it speaks for."""

    model: Annotated[str | None, Field(description="The starting model.")]
    parameters: Annotated[int | None, Field(description="Its weights; null when the run did not record them.")]
    facts: Annotated[Counts, Field(description="Facts asked before and after, by role: target (taught), held_back.")]
    documents: Annotated[int | None, Field(description="Documents taught.")]
    seeds: Annotated[list[int], Field(description="Seeds that the figures rest on: one seed is one seed.")]


class HeadlinePart(_Part):
    sentence: Annotated[str, Field(description="The outcome in one sentence.")]
    details: Annotated[list[str], Field(description="What the sentence's numbers hide.")]
    scale: Annotated[str, Field(description="The scale in words.")]


class Ends(_Part):
    low: Annotated[float, Field(description="Lower end.")]
    high: Annotated[float, Field(description="Upper end.")]


class FigurePart(BaseModel):
    """One figure of the exam. An exam may add entries of its own."""

    model_config = ConfigDict(extra="allow")

    value: Annotated[float | None, Field(description="The figure; null when it had nothing to rest on.")]
    low: Annotated[float | None, Field(description="Lower end of its interval, at `level`.")] = None
    high: Annotated[float | None, Field(description="Upper end.")] = None
    n: Annotated[int | None, Field(description="Facts, questions or texts behind it.")] = None
    clusters: Annotated[int | None, Field(description="Subjects (or texts) that were resampled.")] = None
    reason: Annotated[str | None, Field(description="Why there is no value or no interval.")] = None
    before: Annotated[float | None, Field(description="The same before teaching.")] = None
    after: Annotated[float | None, Field(description="The same after teaching.")] = None
    difference: Annotated[Ends | None, Field(description="Interval of after less before, pair by pair.")] = None
    meaning: Annotated[str | None, Field(description="What is measured.")] = None
    change: Annotated[
        Literal["higher", "lower", "no difference"] | None,
        Field(description="Whether it moved; no difference: the change is within the interval. null: not known."),
    ] = None


class Moments(_Part):
    before: Annotated[Counts, Field(description="Facts by category of mastery, before teaching.")]
    after: Annotated[Counts, Field(description="The same, after.")]


class CategoryPart(BaseModel):
    model_config = ConfigDict(extra="allow")

    category: Annotated[str, Field(description="Of mastery, before teaching.")]
    n: Annotated[int, Field(description="Taught facts of this category.")]
    before_accuracy: Annotated[float | None, Field(description="Mean share of right greedy answers before.")]
    after_accuracy: Annotated[float | None, Field(description="The same, after.")]
    low: Annotated[float | None, Field(description="Lower end of the latter's interval.")]
    high: Annotated[float | None, Field(description="Upper end.")]


class StagePart(_Part):
    name: Annotated[str, Field(description="The stage.")]
    facts: Annotated[int | None, Field(description="Facts and documents trained on.")]
    start: Annotated[int, Field(description="Optimiser steps done before the stage, over all stages.")]
    end: Annotated[int, Field(description="Optimiser steps done after it.")]
    epochs: Annotated[float | None, Field(description="Passes over the stage's examples.")]
    mean_of: Annotated[int, Field(description="Recorded points that one point here is the mean of.")]
    not_finite: Annotated[int, Field(description="Points left out because the loss was no number.")]
    points: Annotated[
        list[tuple[int, float | None, float | None, float | None]],
        Field(description="[step, training loss, epoch, learning rate]."),
    ]
    development: Annotated[list[tuple[int, float | None]], Field(description="[step, accuracy on development facts].")]


class StatePart(_Part):
    label: Annotated[str, Field(description="before, a stage, or after.")]
    n: Annotated[int, Field(description="Taught facts probed in this state.")]
    counts: Annotated[Counts, Field(description="Those facts by category of mastery.")]


class FlowPart(_Part):
    labels: Annotated[list[str], Field(description="The states in which all taught facts were probed, in order.")]
    steps: Annotated[
        list[list[list[int]]],
        Field(description="From each state to the next: facts that went from a category (row) to a category (column)."),
    ]


class Spent(BaseModel):
    model_config = ConfigDict(extra="forbid")

    flops: Annotated[float, Field(description="Floating-point operations.")]
    tokens: Annotated[float, Field(description="Tokens that went through a model.")]
    seconds: Annotated[float, Field(description="Wall clock.")]


class Purpose(Spent):
    purpose: Annotated[str, Field(description="training, deciding, teacher or exam.")]
    label: Annotated[str, Field(description="The purpose in words.")]
    free: Annotated[bool, Field(description="No budget pays for it.")]


class CostPart(_Part):
    rows: Annotated[list[Purpose], Field(description="One entry a purpose.")]
    charged: Annotated[Spent, Field(description="What the method spent.")]
    total: Annotated[Spent, Field(description="With the exams.")]


class WordingPart(_Part):
    """The same fact, asked in words that were not taught."""

    question: Annotated[str | None, Field(description="The wording.")]
    answer_before: Annotated[str | None, Field(description="Most frequent greedy answer before.")]
    known_before: Annotated[bool, Field(description="Whether at least half of the exemplar sets were right.")]
    answer_after: Annotated[str | None, Field(description="The same, after.")]
    known_after: Annotated[bool, Field(description="The same, after.")]


class FactPart(_Part):
    """A row of the page's table. Shares are rounded to thousandths."""

    fact_id: Annotated[str | None, Field(description="The fact.")]
    role: Annotated[str | None, Field(description="target (taught) or held_back.")]
    relation: Annotated[str | None, Field(description="The kind of fact.")]
    subject: Annotated[str | None, Field(description="What intervals keep together.")]
    question: Annotated[str | None, Field(description="As worded.")]
    answer: Annotated[str | None, Field(description="The answer taught, or the first right one.")]
    verdict: Annotated[str, Field(description="One of the seven.")]
    evidence: Annotated[str | None, Field(description="Why this verdict.")]
    category_before: Annotated[str | None, Field(description="Mastery before.")]
    category_after: Annotated[str | None, Field(description="Mastery after.")]
    answer_before: Annotated[str | None, Field(description="The answer given most often, before.")]
    answer_after: Annotated[str | None, Field(description="The same, after.")]
    p_greedy_before: Annotated[float | None, Field(description="Share of exemplar sets with a right greedy answer.")]
    p_greedy_after: Annotated[float | None, Field(description="The same, after.")]
    p_sampled_before: Annotated[float | None, Field(description="Mean probability that one sample is right.")]
    p_sampled_after: Annotated[float | None, Field(description="The same, after.")]
    reworded_known_before: Annotated[float | None, Field(description="Share of other wordings it was known in.")]
    reworded_known_after: Annotated[float | None, Field(description="The same, after.")]
    p_prior: Annotated[float | None, Field(description="Probability of the answer with the subject withheld, after.")]
    gold_in_prompt: Annotated[bool, Field(description="A worked example of the prompt had the same answer.")]
    wordings: Annotated[list[WordingPart], Field(description="Other wordings asked.")]


class FactsPart(_Part):
    shown: Annotated[int, Field(description="Facts in `rows`.")]
    all: Annotated[int, Field(description="Facts with a verdict.")]
    notes: Annotated[list[str], Field(description="What stayed out, and by which rule.")]
    rows: Annotated[list[FactPart], Field(description="The table of facts.")]


class LeftOut(_Part):
    what: Annotated[str, Field(description="What was given and not used.")]
    reason: Annotated[str, Field(description="Why.")]


class ReproducePart(_Part):
    command: Annotated[str, Field(description="The command line, or one that does the same.")]
    config: Annotated[dict[str, Any], Field(description="Every setting.")]
    fingerprints: Annotated[dict[str, str], Field(description="Of model, facts, documents and exam.")]
    run: Annotated[dict[str, str], Field(description="Version, commit, seed, precision, device, times.")]
    hardware: Annotated[dict[str, str], Field(description="What it ran on.")]


class ReportFile(_Part):
    """Everything that the report of one run shows."""

    format: Annotated[Literal["instil report"], Field(description="What this file is.")] = FORMAT
    version: Annotated[
        Literal[1],
        Field(description="Of this layout: goes up when something is renamed, removed or means something else."),
    ] = VERSION
    run: Annotated[RunPart, Field(description="Which run.")]
    headline: Annotated[HeadlinePart, Field(description="The outcome in words.")]
    scale: Annotated[ScalePart, Field(description="The size at which it was measured.")]
    level: Annotated[float, Field(description="Of every interval, such as 0.95.")]
    figures: Annotated[dict[str, FigurePart], Field(description="Every figure of the exam, by name.")]
    categories: Annotated[list[str], Field(description="The four of mastery, in the order of `transition`.")]
    mastery: Annotated[dict[str, Moments], Field(description="By role.")]
    mastery_by_state: Annotated[list[StatePart], Field(description="Of the taught facts, in order.")]
    transition: Annotated[
        dict[str, list[list[int]]],
        Field(description="By role: facts that went from a category (row) to a category (column)."),
    ]
    flow: Annotated[FlowPart | None, Field(description="null where nothing was probed between before and after.")] = (
        None
    )
    verdicts: Annotated[dict[str, Counts], Field(description="By role: facts with each verdict.")]
    by_category: Annotated[list[CategoryPart], Field(description="Accuracy by where a fact started.")]
    stages: Annotated[list[StagePart], Field(description="The learning curves.")]
    cost: Annotated[CostPart, Field(description="Compute and time.")]
    facts: Annotated[FactsPart, Field(description="The table of facts.")]
    left_out: Annotated[list[LeftOut], Field(description="What was given and not used.")]
    warnings: Annotated[list[str], Field(description="What to read with care.")]
    reproduce: Annotated[ReproducePart, Field(description="All that is needed to run it again.")]


def machine_readable(data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `report.json`, from what `report_data` gives; in the schema of `ReportFile`."""
    packed = data["facts"]
    same = ("run", "headline", "scale", "level", "mastery", "mastery_by_state", "transition", "by_category")
    return {
        "format": FORMAT,
        "version": VERSION,
        **{name: data[name] for name in same},
        "figures": {name: _figure(name, figure) for name, figure in data["figures"].items()},
        "categories": list(words.CATEGORIES),
        "flow": data["flow"] or None,
        "verdicts": {role: dict(counts) for role, counts in data["verdicts"].items()},
        "stages": data["curves"]["stages"],
        "cost": data["cost"],
        "facts": {
            "shown": packed["shown"],
            "all": packed["all"],
            "notes": packed["notes"],
            "rows": fact_rows(facts.decode(packed["packed"])),
        },
        "left_out": data["left_out"],
        "warnings": data["warnings"],
        "reproduce": data["reproduce"] | {"config": json.loads(data["reproduce"]["config"])},
    }


def fact_rows(packed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The packed facts of the page as one plain row each."""
    columns, texts = packed["columns"], packed["texts"]

    def text(place: int) -> str | None:
        return None if place < 0 else texts[place]

    def row(place: int) -> dict[str, Any]:
        at = {name: values[place] for name, values in columns.items()}
        known = ("fact_id", "role", "relation", "subject", "question", "answer", "evidence")
        shares = [f"{name}_{when}" for name in ("p_greedy", "p_sampled", "reworded_known") for when in _WHEN]
        return {
            **{name: text(at[name]) for name in (*known, *(f"answer_{when}" for when in _WHEN))},
            "verdict": packed["verdicts"][at["verdict"]],
            **{f"category_{when}": _category(at[f"category_{when}"]) for when in _WHEN},
            **{name: None if at[name] < 0 else at[name] / 1000 for name in (*shares, "p_prior")},
            "gold_in_prompt": bool(at["gold_in_prompt"]),
            "wordings": [_wording(wording, text) for wording in packed["wordings"].get(str(place), ())],
        }

    return [row(place) for place in range(packed["n"])]


_WHEN = ("before", "after")


def _category(place: int) -> str | None:
    return None if place < 0 else words.CATEGORIES[place]


def _wording(packed: Sequence[int], text: Any) -> dict[str, Any]:
    question, before, was, after, known = packed
    return {
        "question": text(question),
        "answer_before": text(before),
        "known_before": bool(was),
        "answer_after": text(after),
        "known_after": bool(known),
    }


def _figure(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    return {**figure, "meaning": words.figure_meaning(name), "change": words.change(figure)}
