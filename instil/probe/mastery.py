"""The mastery map: one row a fact, as a sequence, a table and a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from instil.errors import InputError
from instil.files import atomic
from instil.probe.categories import Category
from instil.probe.config import PROTOCOL
from instil.probe.guessing import LIKELY, could_be_guessed
from instil.probe.mastery_rows import HeldRows, Mastery, StoredRows, map_writer, schema

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects
    import pyarrow

__all__ = ["Mastery", "MasteryMap", "schema"]


class MasteryMap(Sequence[Mastery]):
    """Rows in the order of the facts that were probed. They are in memory, or left in their file (see `open`).

    Attributes:
        warnings: what the probe warned about.
    """

    def __init__(self, rows: Iterable[Mastery], *, warnings: Sequence[str] = ()) -> None:
        self._rows = rows if isinstance(rows, StoredRows) else HeldRows(rows)
        self.warnings = tuple(warnings)

    @overload
    def __getitem__(self, index: int) -> Mastery: ...
    @overload
    def __getitem__(self, index: slice) -> MasteryMap: ...
    def __getitem__(self, index: int | slice) -> Mastery | MasteryMap:
        return MasteryMap(self._rows[index], warnings=self.warnings) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mastery]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MasteryMap) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash((len(self), *islice(self, 8)))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {category}" for category, count in self.counts().items())
        return f"MasteryMap({len(self)} facts: {counts})"

    @cached_property
    def by_id(self) -> Mapping[str, Mastery]:
        """Rows by their fact's id. Of rows in a file only the ids are kept."""
        if isinstance(self._rows, HeldRows):
            return {row.fact_id: row for row in self._rows}
        return _ById(self._rows, {fact_id: place for place, (fact_id,) in enumerate(self._rows.values("fact_id"))})

    def category_of(self, fact_id: str) -> Category:
        return self._category_by_id[fact_id]

    def where(self, *categories: Category | str) -> frozenset[str]:
        """Ids of the facts in any of these categories."""
        chosen = {Category(category) for category in categories}
        return frozenset(fact_id for fact_id, category in self._categories() if category in chosen)

    def rose_to(self, category: Category | str, since: MasteryMap) -> frozenset[str]:
        """Ids of the facts that are in a higher category than in `since`, and now in `category` or above."""
        rank, before = {each: each.rank for each in Category}, since._category_by_id
        return frozenset(
            fact_id
            for fact_id, now in self._categories()
            if fact_id in before and rank[now] > rank[before[fact_id]] and rank[now] >= rank[Category(category)]
        )

    def counts(self) -> dict[Category, int]:
        """Facts in each category, best known first; empty categories too."""
        found = Counter(category for (category,) in self._rows.values("category"))
        return {category: found[category] for category in Category}

    def by_relation(self) -> dict[str, dict[Category, int]]:
        """For each relation, sorted by name ("" for none), the facts in each category."""
        found = Counter((relation or "", category) for relation, category in self._rows.values("relation", "category"))
        return {
            relation: {category: found[relation, category] for category in Category}
            for relation in sorted({relation for relation, _ in found})
        }

    def to_table(self) -> pyarrow.Table:
        import pyarrow

        return pyarrow.concat_tables(self._rows.tables()) if len(self) else schema().empty_table()

    def to_pandas(self, by: Literal["fact", "relation"] = "fact") -> pandas.DataFrame:
        """One row a fact, or one row a relation.

        By fact the columns are those of `mastery.parquet`. By relation, the largest first: `relation`, `facts`, a
        count for each category, the shares `known` and `known_without_guesses`, the count `guesses`
        (see `without_guesses`), the means of `p_greedy`, `p_sampled`, `p_any` and `p_prior`, and the share
        `gold_in_prompt`.

        Raises:
            InputError: another `by`.
        """
        if by == "fact":
            return self.to_table().to_pandas()
        if by != "relation":
            raise InputError("no such table", field="by", found=repr(by), expected="fact or relation")
        import pandas

        from instil.probe.tally import Tally, tallies

        return pandas.DataFrame([one.to_dict() for one in tallies(self)[1]], columns=list(Tally("").to_dict()))

    def guesses(self, threshold: float = LIKELY, samples: int = PROTOCOL.samples) -> frozenset[str]:
        """Ids of the facts whose category could be reached without their subject.

        Args:
            threshold: `p_prior` from which HighlyKnown and MaybeKnown facts count as guesses.
            samples: samples a prompt of the probe's protocol.

        See `instil.probe.guessing` for the rule, and for what it does not say.
        """
        return frozenset(row.fact_id for row in self if could_be_guessed(row, threshold, samples))

    def without_guesses(self, threshold: float = LIKELY, samples: int = PROTOCOL.samples) -> MasteryMap:
        """The map with the guesses taken out: whether their facts are known, this probe cannot show.

        They are left out and not called Unknown, so shares of what is left are of the facts that can be judged.
        `to_pandas(by="relation")` has `known_without_guesses`, a share of all facts in which no guess counts.
        """
        kept = (row for row in self if not could_be_guessed(row, threshold, samples))
        return MasteryMap(kept, warnings=self.warnings)

    def plot(self, relations: int = 40) -> plotly.graph_objects.Figure:
        """The shares of the categories: one bar for all facts, one for each of the largest relations.

        Raises:
            InputError: plotly is not installed, or there are no facts.
        """
        from instil.probe.picture import figure

        return figure(self, relations)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from instil.probe.picture import html

        return html(self)

    def save(self, path: str | Path) -> None:
        """Write Parquet, atomically."""
        with atomic(path) as draft, map_writer(draft) as writer:
            for table in self._rows.tables():
                writer.write_table(table)

    @staticmethod
    def load(path: str | Path) -> MasteryMap:
        """Read what `save` or `instil probe` wrote, all rows of it.

        Raises:
            InputError: the file is missing or not a mastery map.
        """
        return MasteryMap(iter(StoredRows(path)))

    @staticmethod
    def open(path: str | Path, *, warnings: Sequence[str] = ()) -> MasteryMap:
        """The same map, its rows left in the file: they are read when they are asked for, and not kept.

        Raises:
            InputError: the file is missing or not a mastery map; a value that does not belong is found when it is read.
        """
        return MasteryMap(StoredRows(path), warnings=warnings)

    def _categories(self) -> Iterator[tuple[str, Category]]:
        return ((fact_id, category) for fact_id, category in self._rows.values("fact_id", "category"))

    @cached_property
    def _category_by_id(self) -> dict[str, Category]:
        return dict(self._categories())


@dataclass(frozen=True)
class _ById(Mapping[str, Mastery]):
    rows: StoredRows
    places: dict[str, int]

    def __getitem__(self, fact_id: str) -> Mastery:
        return self.rows[self.places[fact_id]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)
