"""Finished runs of the study of gradual learning in a committed file, so that it goes on on another machine.

A run is a line of JSON: what decides its result, and the result. Its digits, one a fact, pack well.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from instil.errors import InputError
from instil.files import atomic, read_sealed, write_sealed


class Keepable(Protocol):
    """A piece of work: what decides its result, and where that is kept."""

    @property
    def identity(self) -> dict[str, Any]: ...

    def file(self, work: Path) -> Path: ...


RUNS = Path(__file__).parent / "results" / "gradual_runs.jsonl.gz"


def restore(jobs: Sequence[Keepable], work: Path, file: Path = RUNS) -> int:
    """Write under `work` the runs of these jobs that the file has and `work` has not; their number.

    A run of the same name under other settings is left where it is: it is not this job's.
    """
    missing = {key_of(job.identity): job for job in jobs if not job.file(work).exists()}
    count = 0
    for row in rows_of(file) if missing else ():
        if job := missing.pop(key_of(row["job"]), None):
            work.mkdir(parents=True, exist_ok=True)
            write_sealed(job.file(work), row)
            count += 1
    return count


def collect(work: Path, file: Path = RUNS) -> int:
    """Add what is finished in `work` to the file; how many rows it has then.

    A row that is there already is replaced, so that the file has each once; of others nothing is lost.
    """
    found = {key_of(row["job"]): row for row in rows_of(file)}
    for done in sorted(work.glob("*.json")):
        row = read_sealed(done)
        if "job" not in row:
            raise InputError("not a run of the study", file=done, field="job", found="none", expected="only runs here")
        found[key_of(row["job"])] = row
    write_rows(file, [found[key] for key in sorted(found)])
    return len(found)


def key_of(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The same rows give the same bytes, so that a file which says nothing new is no change."""
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=9) as out:
        out.write(text.encode("utf-8"))
    with atomic(file) as draft:
        draft.write_bytes(packed.getvalue())


def kept_or_made(file: Path, key: str, wanted: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Any:
    """What a JSON file holds under `key`, where it was made from what is wanted; else it is made and put there."""
    held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    entry = held.get(key)
    if entry is None or entry["of"] != dict(wanted):
        entry = {"of": dict(wanted), **make()}
        with atomic(file) as draft:
            draft.write_text(json.dumps({**held, key: entry}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return entry
