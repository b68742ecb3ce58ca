"""One row of the mastery map, and where rows live: in memory or in their file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from instil.errors import InputError
from instil.probe.categories import Category
from instil.probe.questions import Asked, Question

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

CHUNK = 1 << 14
"""Rows that become a table at once."""


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


class HeldRows(Sequence[Mastery]):
    """Rows in memory."""

    def __init__(self, rows: Iterable[Mastery]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> Mastery: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mastery]: ...
    def __getitem__(self, index: int | slice) -> Mastery | Sequence[Mastery]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mastery]:
        return iter(self._rows)

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """These columns, row by row."""
        return (tuple(getattr(row, name) for name in names) for row in self._rows)

    def tables(self) -> Iterator[pyarrow.Table]:
        """All rows in their order, as one table or several."""
        return (table_of(self._rows[start : start + CHUNK]) for start in range(0, len(self), CHUNK))


class StoredRows(Sequence[Mastery]):
    """Rows in a Parquet file, read when they are asked for. One row group is kept, the last that was looked into.

    The file is held open: it may be replaced or removed meanwhile. Its pages have checksums, which are compared.

    Raises:
        InputError: the file is missing or not a mastery map; a value that does not belong is found when it is read.
    """

    def __init__(self, path: str | Path) -> None:
        import pyarrow.parquet

        self._path = Path(path)
        if not self._path.is_file():
            raise InputError("no such mastery map", file=path)
        with self._readable():
            self._file = pyarrow.parquet.ParquetFile(self._path, page_checksum_verification=True)
            if missing := [name for name in schema().names if name not in self._file.schema_arrow.names]:
                raise ValueError(f"no column {missing[0]}")
            kinds = {field.name: field.type for field in self._file.schema_arrow}
            if other := [field.name for field in schema() if kinds[field.name] != field.type]:
                raise ValueError(f"column {other[0]} is of another kind")
            groups = (self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups))
            self._starts = [0, *accumulate(groups)]
        self._kept: tuple[int, list[Mastery]] = (-1, [])

    def __reduce__(self) -> tuple[type[StoredRows], tuple[Path]]:
        return StoredRows, (self._path,)

    @overload
    def __getitem__(self, index: int) -> Mastery: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mastery]: ...
    def __getitem__(self, index: int | slice) -> Mastery | Sequence[Mastery]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        group = bisect_right(self._starts, place) - 1
        if self._kept[0] != group:
            with self._readable():
                self._kept = group, [row_of(values) for values in self._file.read_row_group(group).to_pylist()]
        return self._kept[1][place - self._starts[group]]

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[Mastery]:
        for table in self.tables():
            with self._readable():
                rows = [row_of(values) for values in table.to_pylist()]
            yield from rows

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """These columns, row by row."""
        kinds = {category.value: category for category in Category}
        for table in self.tables(names):
            with self._readable():
                columns = [table[name].to_pylist() for name in names]
                if "category" in names:
                    place = names.index("category")
                    columns[place] = [kinds.get(value) or Category(value) for value in columns[place]]
            yield from zip(*columns, strict=True)

    def tables(self, names: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """All rows in their order, a row group at a time; only some columns, where they are named."""
        wanted = schema().names if names is None else list(names)
        for group in range(len(self._starts) - 1):
            with self._readable():
                table = self._file.read_row_group(group, columns=wanted)
                table.validate()
            yield table

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow

        try:
            yield
        except (pyarrow.ArrowException, OSError, TypeError, ValueError) as fault:
            what = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
            raise InputError(f"not a mastery map: {what}", file=self._path) from fault


def table_of(rows: Iterable[Mastery]) -> pyarrow.Table:
    import pyarrow

    return pyarrow.Table.from_pylist([row.to_dict() for row in rows], schema=schema())


def map_writer(path: Path) -> pyarrow.parquet.ParquetWriter:
    """Writes `mastery.parquet`, with a checksum for each page: Parquet has none of its own accord."""
    import pyarrow.parquet

    return pyarrow.parquet.ParquetWriter(path, schema(), write_page_checksum=True)


def row_of(values: dict[str, Any]) -> Mastery:
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
