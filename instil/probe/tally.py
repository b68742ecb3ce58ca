"""A mastery map added up by relation, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from instil.probe.categories import Category
from instil.probe.config import PROTOCOL
from instil.probe.guessing import LIKELY, could_be_guessed

if TYPE_CHECKING:
    from instil.probe.mastery import Mastery

ALL = "all"
"""What tables call the line of all relations together."""


@dataclass(slots=True)
class Tally:
    """Sums over the facts of one relation, or of all.

    Attributes:
        relation: "" for facts without one.
        facts: how many.
        counts: facts in each category, empty ones too.
        guesses: of these, facts that could be guessed without their subject (`instil.probe.guessing`).
        known: facts with a right greedy answer for at least half of the exemplar sets.
        known_guesses: of these, facts that could be guessed.
        with_prior: facts whose subject could be withheld; only they can be told to be guesses.
        p_greedy: sum over the facts; likewise `p_sampled`, `p_any`, `p_prior` (of those that have it).
        gold_in_prompt: facts with an exemplar that has the same answer.
    """

    relation: str
    facts: int = 0
    counts: dict[Category, int] = field(default_factory=lambda: dict.fromkeys(Category, 0))
    guesses: dict[Category, int] = field(default_factory=lambda: dict.fromkeys(Category, 0))
    known: int = 0
    known_guesses: int = 0
    with_prior: int = 0
    p_greedy: float = 0.0
    p_sampled: float = 0.0
    p_any: float = 0.0
    p_prior: float = 0.0
    gold_in_prompt: int = 0

    def add(self, row: Mastery, guess: bool) -> None:
        self.facts += 1
        self.counts[row.category] += 1
        self.guesses[row.category] += guess
        self.known += row.known
        self.known_guesses += row.known and guess
        self.with_prior += row.p_prior is not None
        self.p_greedy += row.p_greedy
        self.p_sampled += row.p_sampled
        self.p_any += row.p_any
        self.p_prior += row.p_prior or 0.0
        self.gold_in_prompt += row.gold_in_prompt

    def to_dict(self) -> dict[str, Any]:
        """One row of `MasteryMap.to_pandas(by="relation")`: counts, shares, means; None where nothing was measured."""

        def mean(total: float, over: int) -> float | None:
            return total / over if over else None

        return {
            "relation": self.relation,
            "facts": self.facts,
            **{str(category): count for category, count in self.counts.items()},
            "known": mean(self.known, self.facts),
            "known_without_guesses": mean(self.known - self.known_guesses, self.facts) if self.with_prior else None,
            "guesses": sum(self.guesses.values()) if self.with_prior else None,
            "p_greedy": mean(self.p_greedy, self.facts),
            "p_sampled": mean(self.p_sampled, self.facts),
            "p_any": mean(self.p_any, self.facts),
            "p_prior": mean(self.p_prior, self.with_prior),
            "gold_in_prompt": mean(self.gold_in_prompt, self.facts),
        }

    def to_summary(self) -> dict[str, Any]:
        """The entry of this relation in `summary.json`: as `to_dict`, but `guesses` by category, and `with_prior`."""
        row = self.to_dict()
        del row["relation"]
        guesses = {str(category): count for category, count in self.guesses.items()} if self.with_prior else None
        return row | {"guesses": guesses, "with_prior": self.with_prior}

    @staticmethod
    def of_summary(relation: str, entry: Mapping[str, Any]) -> Tally:
        """What `to_summary` gave; the sums of probabilities up to rounding."""
        facts, guesses = entry["facts"], entry["guesses"] or {}
        known = round(entry["known"] * facts)
        kept = entry["known_without_guesses"]
        return Tally(
            relation,
            facts,
            {category: entry[category] for category in Category},
            {category: guesses.get(category, 0) for category in Category},
            known,
            known_guesses=0 if kept is None else known - round(kept * facts),
            with_prior=entry["with_prior"],
            p_greedy=entry["p_greedy"] * facts,
            p_sampled=entry["p_sampled"] * facts,
            p_any=entry["p_any"] * facts,
            p_prior=(entry["p_prior"] or 0.0) * entry["with_prior"],
            gold_in_prompt=round(entry["gold_in_prompt"] * facts),
        )


def tallies(
    rows: Iterable[Mastery], threshold: float = LIKELY, samples: int = PROTOCOL.samples
) -> tuple[Tally, list[Tally]]:
    """The tally of all facts, and one for each relation: the largest first, by name among equals."""
    found: dict[str, Tally] = {}
    tally(rows, found, threshold, samples)
    return _ordered(found.values())


def tally(rows: Iterable[Mastery], into: dict[str, Tally], threshold: float, samples: int) -> None:
    """Add rows to the tallies of their relations."""
    for row in rows:
        name = row.relation or ""
        if name not in into:
            into[name] = Tally(name)
        into[name].add(row, could_be_guessed(row, threshold, samples))


def tallies_in(summary: Mapping[str, Any]) -> tuple[Tally, list[Tally]] | None:
    """What `tallies` gives of the map beside a `summary.json`; None where that has nothing but counts by relation."""
    entries: Mapping[str, Mapping[str, Any]] = summary["by_relation"]
    if not all("facts" in entry for entry in entries.values()):
        return None
    return _ordered(Tally.of_summary(relation, entry) for relation, entry in entries.items())


def _ordered(parts: Iterable[Tally]) -> tuple[Tally, list[Tally]]:
    ordered = sorted(parts, key=lambda one: (-one.facts, one.relation))
    return _total(ordered), ordered


def _total(parts: Iterable[Tally]) -> Tally:
    total = Tally(ALL)
    for part in parts:
        for category in Category:
            total.counts[category] += part.counts[category]
            total.guesses[category] += part.guesses[category]
        for one in fields(Tally):
            if one.name not in ("relation", "counts", "guesses"):
                setattr(total, one.name, getattr(total, one.name) + getattr(part, one.name))
    return total
