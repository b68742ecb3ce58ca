"""The mastery map: one row a fact, as a sequence, a table and a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from instil.errors import InputError
from instil.files import atomic
from instil.probe.categories import Category
from instil.probe.config import PROTOCOL
from instil.probe.guessing import LIKELY, could_be_guessed
from instil.probe.questions import Asked, Question

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects
    import pyarrow


@dataclass(frozen=True, slots=True)
class Mastery:
    """One row of `mastery.parquet`. See `instil.probe.Asked` for the figures.

    Attributes:
        answer: the answer that is taught, the first of those that count.
    """

    fact_id: str
    relation: str | None
    question: str
    answer: str
    category: Category
    p_greedy: float
    p_sampled: float
    p_any: float
    p_prior: float | None
    gold_in_prompt: bool
    greedy_answer: str
    greedy_right_by_set: tuple[bool, ...] = ()
    p_by_set: tuple[float, ...] = ()
    greedy_answer_by_set: tuple[str, ...] = ()
    gold_in_prompt_by_set: tuple[bool, ...] = ()

    @staticmethod
    def of(question: Question, asked: Asked) -> Mastery:
        return Mastery(
            fact_id=asked.fact_id,
            relation=question.relation,
            question=question.text,
            answer=question.answers[0],
            category=asked.category,
            p_greedy=asked.p_greedy,
            p_sampled=asked.p_sampled,
            p_any=asked.p_any,
            p_prior=asked.p_prior,
            gold_in_prompt=asked.gold_in_prompt,
            greedy_answer=asked.greedy_answer,
            greedy_right_by_set=asked.greedy_right_by_set,
            p_by_set=asked.p_by_set,
            greedy_answer_by_set=asked.greedy_answer_by_set,
            gold_in_prompt_by_set=asked.gold_in_prompt_by_set,
        )

    @property
    def known(self) -> bool:
        """At least half of the exemplar sets give a right greedy answer."""
        return self.p_greedy >= 0.5

    def to_dict(self) -> dict[str, Any]:
        """Plain values, lists instead of tuples."""
        row = asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Category) else value
            for name, value in row.items()
        }


class MasteryMap(Sequence[Mastery]):
    """Rows in the order of the facts that were probed.

    Attributes:
        warnings: what the probe warned about.
    """

    def __init__(self, rows: Iterable[Mastery], *, warnings: Sequence[str] = ()) -> None:
        self._rows = tuple(rows)
        self.warnings = tuple(warnings)

    @overload
    def __getitem__(self, index: int) -> Mastery: ...
    @overload
    def __getitem__(self, index: slice) -> MasteryMap: ...
    def __getitem__(self, index: int | slice) -> Mastery | MasteryMap:
        return MasteryMap(self._rows[index], warnings=self.warnings) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MasteryMap) and self._rows == other._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {category}" for category, count in self.counts().items())
        return f"MasteryMap({len(self)} facts: {counts})"

    @cached_property
    def by_id(self) -> dict[str, Mastery]:
        return {row.fact_id: row for row in self._rows}

    def category_of(self, fact_id: str) -> Category:
        return self.by_id[fact_id].category

    def where(self, *categories: Category | str) -> frozenset[str]:
        """Ids of the facts in any of these categories."""
        chosen = {Category(category) for category in categories}
        return frozenset(row.fact_id for row in self._rows if row.category in chosen)

    def rose_to(self, category: Category | str, since: MasteryMap) -> frozenset[str]:
        """Ids of the facts that are in a higher category than in `since`, and now in `category` or above."""
        least = Category(category).rank
        return frozenset(
            row.fact_id
            for row in self._rows
            if row.fact_id in since.by_id and row.category.rank > since.category_of(row.fact_id).rank
            if row.category.rank >= least
        )

    def counts(self) -> dict[Category, int]:
        """Facts in each category, best known first; empty categories too."""
        return {category: sum(row.category is category for row in self._rows) for category in Category}

    def by_relation(self) -> dict[str, dict[Category, int]]:
        """For each relation, sorted by name ("" for none), the facts in each category."""
        groups: dict[str, list[Mastery]] = {}
        for row in self._rows:
            groups.setdefault(row.relation or "", []).append(row)
        return {relation: MasteryMap(groups[relation]).counts() for relation in sorted(groups)}

    def to_table(self) -> pyarrow.Table:
        import pyarrow

        return pyarrow.Table.from_pylist([row.to_dict() for row in self._rows], schema=schema())

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
        import pyarrow.parquet

        with atomic(path) as draft:
            pyarrow.parquet.write_table(self.to_table(), draft)

    @staticmethod
    def load(path: str | Path) -> MasteryMap:
        """Read what `save` or `instil probe` wrote.

        Raises:
            InputError: the file is missing or not a mastery map.
        """
        import pyarrow
        import pyarrow.parquet

        if not Path(path).is_file():
            raise InputError("no such mastery map", file=path)
        try:
            rows = pyarrow.parquet.read_table(path).to_pylist()
            return MasteryMap(_row(row) for row in rows)
        except (pyarrow.ArrowInvalid, TypeError, ValueError) as fault:
            raise InputError(f"not a mastery map: {str(fault).splitlines()[0]}", file=path) from fault


def _row(values: dict[str, Any]) -> Mastery:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    plain["category"] = Category(plain["category"])
    return Mastery(**plain)


def schema() -> pyarrow.Schema:
    """Columns of `mastery.parquet`."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            pa.field("fact_id", text, nullable=False),
            pa.field("relation", text),
            pa.field("question", text, nullable=False),
            pa.field("answer", text, nullable=False),
            pa.field("category", text, nullable=False),
            pa.field("p_greedy", number, nullable=False),
            pa.field("p_sampled", number, nullable=False),
            pa.field("p_any", number, nullable=False),
            pa.field("p_prior", number),
            pa.field("gold_in_prompt", pa.bool_(), nullable=False),
            pa.field("greedy_answer", text, nullable=False),
            pa.field("greedy_right_by_set", pa.list_(pa.bool_())),
            pa.field("p_by_set", pa.list_(number)),
            pa.field("greedy_answer_by_set", pa.list_(text)),
            pa.field("gold_in_prompt_by_set", pa.list_(pa.bool_())),
        ]
    )
