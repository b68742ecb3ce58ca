"""What an exported task brings along: its documents and its scores, without Instil.

These functions are copied, with `instil/answers.py` before them, into the task's `utils.py`. They use nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.answers import is_correct

OfFact = tuple[str, float]


def load(**_: Any) -> dict[str, Any]:
    """The documents beside this file, as the harness wants them."""
    from datasets import Dataset

    text = Path(__file__).with_name("docs.jsonl").read_text(encoding="utf-8")
    return {"test": Dataset.from_list([json.loads(line) for line in text.split("\n") if line])}


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, OfFact]:
    """The scores of one prompt, each with its fact, so that they can be put together by fact."""
    right = (doc["fact_id"], float(is_correct(results[0], doc["answers"])))
    scores = {"exact_match": right, "known": right, "highly_known": right}
    return scores if doc["differs"] else {**scores, "exact_match_same_prompt": right}


def accuracy(values: Iterable[OfFact]) -> float:
    """Share of the prompts with a right answer; the mean of Instil's `p_greedy`."""
    right = [value for _, value in values]
    return sum(right) / len(right)


def known(values: Iterable[OfFact]) -> float:
    """Share of the facts with a right answer to at least half of their prompts."""
    facts = by_fact(values)
    return sum(2 * sum(right) >= len(right) for right in facts) / len(facts)


def highly_known(values: Iterable[OfFact]) -> float:
    """Share of the facts with a right answer to every prompt."""
    facts = by_fact(values)
    return sum(all(right) for right in facts) / len(facts)


def by_fact(values: Iterable[OfFact]) -> list[list[float]]:
    facts: dict[str, list[float]] = {}
    for fact, right in values:
        facts.setdefault(fact, []).append(right)
    return list(facts.values())
