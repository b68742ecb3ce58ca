"""The folder of a probe: its plan, its parts, what was halved, and the one file that the parts become.

The plan says what the parts were made from and how; it is written first and removed last. Every part is written whole
or not at all, so after a kill at any moment what is there counts and what is missing is computed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError, RunFailed
from instil.files import atomic, fingerprint_file, is_draft, read_sealed, write_sealed
from instil.probe.mastery_rows import map_writer, schema
from instil.probe.memory import Limits

if TYPE_CHECKING:
    import pyarrow

BATCHES = "batches"
"""The part of the plan that says how, not what; another machine may do it another way."""


@dataclass(frozen=True)
class Halving:
    """Memory ran out: from this fact on, batches may hold no more than this.

    Attributes:
        from_fact: the first fact of the part in which it happened; the whole part was computed again.
        why: what the machine said.
    """

    from_fact: int
    batch_tokens: int
    batch_logits: int
    rank: int
    why: str

    @property
    def limits(self) -> Limits:
        return Limits(self.batch_tokens, self.batch_logits)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Shards:
    """What lies in `out`. The parts have `size` facts each, but for the last."""

    out: Path
    size: int

    @property
    def map(self) -> Path:
        return self.out / "mastery.parquet"

    @property
    def summary(self) -> Path:
        return self.out / "summary.json"

    @property
    def _parts(self) -> Path:
        return self.out / "parts"

    @property
    def _plan(self) -> Path:
        return self.out / "plan.json"

    def state(self, plan: Mapping[str, Any], resume: bool) -> str:
        """Whether this probe is "new", "unfinished" or "finished" here.

        Raises:
            InputError: the folder holds anything but a part of it, or any of it where that was not asked for.
        """
        if not self.out.exists() or (self.out.is_dir() and all(map(is_draft, self.out.iterdir()))):
            return "new"
        done = self.summary.exists()
        record = self.summary if done else self._plan
        if not record.is_file():
            raise InputError("the out folder holds something else", file=self.out, expected="a new or empty folder")
        if not resume:
            state = "a finished run" if done else "an unfinished run; --resume goes on with it"
            raise InputError(f"the out folder holds {state}", file=self.out, expected="a new or empty folder")
        found = read_sealed(record)
        found = found.get("plan", {}) if done else found
        other = [name for name in plan if not isinstance(found, dict) or found.get(name) != plan[name]]
        if other:
            raise InputError("the out folder holds another run", file=self.out, found=f"other {', '.join(other)}")
        return "finished" if done else "unfinished"

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, whose presence says that the probe is finished, with the fingerprint of the map."""
        write_sealed(self.summary, {**summary, "files": {self.map.name: fingerprint_file(self.map)}})

    def refuse_changed(self) -> None:
        """Raises `RunFailed` when the map of a finished probe is not as it was written."""
        for name, mark in read_sealed(self.summary).get("files", {}).items():
            path = self.out / name
            if path.is_file() and fingerprint_file(path) != mark:
                raise RunFailed(f"{path} is not as the probe left it; probe again, into another folder")

    def begin(self, plan: Mapping[str, Any], batches: Mapping[str, Any]) -> None:
        write_sealed(self._plan, {**plan, BATCHES: dict(batches)})

    def batches(self) -> dict[str, Any]:
        """How the parts that are there were computed."""
        found: dict[str, Any] = read_sealed(self._plan)[BATCHES]
        return found

    def clear(self) -> None:
        """Remove what only a run that goes on needs."""
        shutil.rmtree(self._parts, ignore_errors=True)
        self._plan.unlink(missing_ok=True)

    # ------------------------------------------------------------------ parts

    def done(self) -> set[int]:
        """The parts that are there, by their first fact."""
        return {int(path.stem) for path in self._parts.glob("[0-9]*.parquet")}

    def missing(self, count: int) -> list[int]:
        """The parts that are not, of `count` facts."""
        return sorted(set(range(0, count, self.size)) - self.done())

    def write(self, start: int, table: pyarrow.Table) -> None:
        import pyarrow.parquet

        with atomic(self._parts / f"{start:09}.parquet") as draft:
            pyarrow.parquet.write_table(table, draft, write_page_checksum=True)

    def note(self, halving: Halving) -> None:
        """Record that batches were halved, before anything is computed with smaller ones."""
        name = f"halved-{halving.from_fact:09}-{halving.batch_tokens}-{halving.batch_logits}-{halving.rank}.json"
        write_sealed(self._parts / name, halving.to_dict())

    def halvings(self) -> list[Halving]:
        """In the order of the parts; within one the larger batches first."""
        found = [Halving(**read_sealed(path)) for path in self._parts.glob("halved-*.json")]
        return sorted(found, key=lambda one: (one.from_fact, -one.batch_tokens, -one.batch_logits, one.rank))

    def join(self, count: int, ids: Callable[[int], list[str]], seen: Callable[[int, pyarrow.Table], None]) -> None:
        """Write the parts as one file, a part at a time.

        Args:
            ids: the facts that belong in the part that starts so.
            seen: is given each part, in order.

        Raises:
            RunFailed: a part cannot be read, is not as it was written, or holds other facts.
        """
        with atomic(self.map) as draft, map_writer(draft) as writer:
            for start, table in self._tables(count):
                if table["fact_id"].to_pylist() != ids(start):
                    raise RunFailed(f"the part {start} of the probe holds other facts; remove it: {self._parts}")
                writer.write_table(table)
                seen(start, table)

    def _tables(self, count: int) -> Iterator[tuple[int, pyarrow.Table]]:
        import pyarrow.parquet

        for start in range(0, count, self.size):
            path = self._parts / f"{start:09}.parquet"
            try:
                table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
                table.validate(full=True)
                whole = table.schema.equals(schema())
            except (pyarrow.ArrowException, OSError, ValueError) as fault:
                raise RunFailed(f"a part of the probe cannot be read; remove it and resume: {path}") from fault
            if not whole:
                raise RunFailed(f"a part of the probe has other columns; remove it and resume: {path}")
            yield start, table
