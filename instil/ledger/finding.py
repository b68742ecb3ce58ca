"""Where the ledger of a run is, and which run and state a name means."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from instil.errors import InputError
from instil.ledger.store import HEADER, Ledger

Row = Mapping[str, Any]


def ledger_folder(folder: str | Path) -> Path:
    """The ledger that this folder is, that it holds as `ledger/`, or that the summary of the run in it names.

    Raises:
        InputError: there is none.
    """
    home = Path(folder)
    for place in (home / "ledger", home, *_named_by_summary(home)):
        if (place / HEADER).is_file():
            return place
    raise InputError("there is no ledger here", file=home, expected="a folder that `instil teach` wrote")


def open_ledger(folder: str | Path) -> Ledger:
    """The ledger of `ledger_folder`. Raises `InputError` when there is none, or its header is damaged."""
    return Ledger(ledger_folder(folder))


def seen_from(ledger: Path, place: Path) -> str:
    """How the ledger names a folder: by the way there from its own, so that both can be moved together."""
    return os.path.relpath(place, ledger)


def places_of(ledger: Path, path: str) -> tuple[Path, ...]:
    """Where a path that the ledger names may be: seen from the ledger's folder, or from here."""
    return (Path(os.path.normpath(ledger / path)), Path(path))


def run_called(ledger: Ledger, name: str) -> str:
    """The id of the run with this id, or whose id alone begins so.

    Raises:
        InputError: there is none, or several.
    """
    runs = [str(run["run_id"]) for run in ledger.runs()]
    return name if name in runs else _only("run", name, [run for run in runs if run.startswith(name)], runs)


def state_called(ledger: Ledger, name: str, run_id: str | None = None) -> dict[str, Any]:
    """The state with this id, or with this label ("before", a stage, "after") in the run.

    Args:
        run_id: the run that a label is looked for in; else labels are not understood.

    Raises:
        InputError: there is none, or several.
    """
    rows = ledger.read("states").to_pylist()
    found = [row for row in rows if row["state_id"] == name]
    found = found or [row for row in rows if row["run_id"] == run_id and row["label"] == name]
    within = [row for row in rows if run_id in (None, row["run_id"])]
    chosen = _only("state", name, [row["state_id"] for row in found], [row["state_id"] for row in within])
    return next(row for row in found if row["state_id"] == chosen)


def _only(kind: str, name: str, found: Iterable[str], every: Iterable[str]) -> str:
    fitting = list(dict.fromkeys(found))
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"several {kind}s are meant by this name" if fitting else f"the ledger has no such {kind}",
        field=kind,
        found=name,
        expected=" or ".join(fitting or dict.fromkeys(every)) or "a ledger that holds one",
    )


def _named_by_summary(home: Path) -> tuple[Path, ...]:
    try:
        named = json.loads((home / "summary.json").read_text(encoding="utf-8")).get("ledger")
    except (OSError, ValueError, AttributeError):
        return ()
    return (Path(named), home / named) if isinstance(named, str) else ()
