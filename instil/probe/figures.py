"""The content of `summary.json`, from rows as they pass: a few numbers of each fact are kept, and no text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from instil.probe.categories import Category
from instil.probe.guessing import LIKELY
from instil.probe.intervals import share_of
from instil.probe.mastery_rows import row_of
from instil.probe.tally import Tally, tally
from instil.version import __version__

if TYPE_CHECKING:
    import pyarrow

    from instil.facts import Fact, FactSet
    from instil.model import LanguageModel

_NUMBERS = ("p_greedy", "p_sampled", "p_any", "p_prior")
_CATEGORIES = tuple(Category)


class Figures:
    """Counts and headline figures of rows that are added a table at a time.

    A fact takes 38 bytes here, each subject an entry in a dictionary (about 100 bytes), each relation a tally.

    Args:
        count: facts that will be added.
        samples: samples a prompt of the probe's protocol, which the rule of guesses rests on.
    """

    def __init__(self, count: int, samples: int) -> None:
        self._numbers = {name: np.empty(count) for name in _NUMBERS}
        self._gold = np.empty(count, dtype=bool)
        self._category = np.empty(count, dtype=np.int8)
        self._cluster = np.empty(count, dtype=np.int32)
        self._clusters: dict[str, int] = {}
        self._relations: dict[str, Tally] = {}
        self._samples = samples
        self._done = 0

    def add(self, table: pyarrow.Table, facts: Iterable[Fact]) -> None:
        """The next rows, and their facts."""
        span = slice(self._done, self._done + table.num_rows)
        for name, column in self._numbers.items():
            column[span] = table[name].to_numpy()  # a missing prior becomes NaN
        self._gold[span] = table["gold_in_prompt"].to_numpy()
        names = table["category"].to_pylist()
        self._category[span] = [_CATEGORIES.index(Category(name)) for name in names]
        self._cluster[span] = [self._clusters.setdefault(fact.cluster, len(self._clusters)) for fact in facts]
        tally(map(row_of, table.to_pylist()), self._relations, LIKELY, self._samples)
        self._done = span.stop

    @property
    def subjects(self) -> int:
        return len(self._clusters)

    def counts(self) -> dict[str, int]:
        found = np.bincount(self._category, minlength=len(_CATEGORIES)).tolist()
        return dict(zip(map(str, _CATEGORIES), found, strict=True))

    def by_relation(self) -> dict[str, dict[str, Any]]:
        """Counts, shares and means of each relation, as `instil.probe.tally` adds them up; "" for none."""
        return {relation: self._relations[relation].to_summary() for relation in sorted(self._relations)}

    def headline(self) -> dict[str, dict[str, float]]:
        """Every headline figure with its 95 % interval, facts clustered by subject."""
        greedy, prior = self._numbers["p_greedy"], self._numbers["p_prior"]
        figures = {
            "known": self._figure(greedy >= 0.5),
            "p_greedy": self._figure(greedy),
            "p_sampled": self._figure(self._numbers["p_sampled"]),
            "p_any": self._figure(self._numbers["p_any"]),
            "gold_in_prompt": self._figure(self._gold),
            **{str(category): self._figure(self._category == rank) for rank, category in enumerate(_CATEGORIES)},
        }
        has_prior = ~np.isnan(prior)
        if has_prior.any():
            figures["p_prior"] = share_of(prior[has_prior], self._cluster[has_prior]).to_dict()
        return figures

    def _figure(self, values: np.ndarray[Any, Any]) -> dict[str, float]:
        return share_of(values.astype(np.float64), self._cluster).to_dict()


def summary(
    lm: LanguageModel,
    facts: FactSet,
    figures: Figures,
    plan: Mapping[str, Any],
    *,
    batches: Mapping[str, Any],
    warnings: Sequence[str],
    cost: Mapping[str, Any],
    started: datetime,
) -> dict[str, Any]:
    """The content of `summary.json`: every headline figure with its interval, and how to make it again."""
    return {
        "version": __version__,
        "command": "probe",
        "plan": dict(plan),
        "config": plan["config"],
        "seed": plan["config"]["seed"],
        "model": lm.describe(),
        "data": {
            "facts": len(facts),
            "facts_fingerprint": plan["facts"],
            "exemplars_fingerprint": plan["exemplars"],
            "subjects": figures.subjects,
        },
        "left_out": list(facts.left_out),
        "warnings": list(warnings),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "batches": dict(batches),
        "cost": dict(cost),
        "counts": figures.counts(),
        "by_relation": figures.by_relation(),
        "headline": figures.headline(),
    }
