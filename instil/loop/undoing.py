"""Back to an earlier state of a model: its weights as a checkpoint, verified, and recorded as a state of their own."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError, RunFailed
from instil.files import claim, fingerprint, read_sealed
from instil.ledger import Ledger, open_ledger, places_of, seen_from, state_called
from instil.loop.folder import RunFolder

if TYPE_CHECKING:
    from instil.model import LanguageModel

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Undone:
    """A state that was returned to.

    Attributes:
        out: the checkpoint, which loads with plain transformers.
        to: the id of the state whose weights it holds.
        state: the id under which the ledger records it.
        fingerprint: of the weights, as the ledger had it and as they were read back from `out`.
        source: where the weights were found.
        missed: where they were looked for and not found, and why.
    """

    out: Path
    to: str
    state: str
    fingerprint: str
    source: str
    missed: tuple[str, ...] = ()

    @cached_property
    def model(self) -> LanguageModel:
        """The model, loaded from the checkpoint."""
        from instil.model import load

        return load(self.out)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out), "missed": list(self.missed)}


def undo(run: str | Path, to: str = "before", out: str | Path | None = None) -> Undone:
    """Write the weights of an earlier state of a run's model as a checkpoint. Nothing is deleted or changed.

    The weights are looked for where the run kept them, where any other state of the ledger has the same ones, and, for
    the starting model, where the run had loaded it from. They count as found only if their fingerprint is the ledger's.

    Args:
        run: the folder of a run.
        to: the label of a state of this run ("before", a stage, "after"), or the id of any state of its ledger.
        out: a new or empty folder; `run/undone/STATE` by default.

    Raises:
        InputError: there is no such run or state, its weights are nowhere to be found, or `out` holds something else.
        RunFailed: the checkpoint could not be written, or was not read back as it was written.
    """
    folder = RunFolder(Path(run))
    ledger = open_ledger(folder.path)
    run_id = run_in(folder, ledger)
    state = state_called(ledger, to, run_id)
    target = Path(out) if out is not None else folder.path / "undone" / _as_name(state)
    done = _already(target, state, ledger, run_id)
    if done is not None:
        return done
    model, source, missed = _found(state, ledger, folder)
    _write(model, target, str(state["fingerprint"]))
    recorded = _record(ledger, state, run_id, target)
    return Undone(target, state["state_id"], recorded, str(state["fingerprint"]), source, missed)


def run_in(folder: RunFolder, ledger: Ledger) -> str:
    """The id of the run in a folder: its summary's, or, while it is unfinished, the last that its ledger holds.

    Raises:
        InputError: the ledger holds no run.
    """
    if folder.summary.is_file():
        return str(read_sealed(folder.summary)["run_id"])
    runs = ledger.runs()
    if not runs:
        raise InputError("the ledger holds no run", file=ledger.folder)
    return str(runs[-1]["run_id"])


# -------------------------------------------------------------------- private


def _already(target: Path, state: Row, ledger: Ledger, run_id: str) -> Undone | None:
    """What an earlier call with the same words did, or had begun, if its checkpoint is there as it was written.

    Raises:
        InputError: the folder holds something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    fault = _fault(target, state, ledger)
    if fault is not None:
        raise InputError(
            f"the folder for the earlier state holds something else: {fault}",
            file=target,
            field="--out",
            expected="a new or an empty folder",
        )
    recorded = _record(ledger, state, run_id, target)
    return Undone(target, state["state_id"], recorded, str(state["fingerprint"]), str(target))


def _found(state: Row, ledger: Ledger, folder: RunFolder) -> tuple[LanguageModel, str, tuple[str, ...]]:
    """The model in this state, where it was found, and where it was not."""
    if state["fingerprint"] is None:
        raise InputError("the ledger does not know the weights of this state", field="--to", found=state["state_id"])
    missed: list[str] = []
    for source in dict.fromkeys(_sources(state, ledger, folder)):
        model = _loaded(source, state, ledger)
        if not isinstance(model, str):
            return model, source, tuple(missed)
        missed.append(f"{source}: {model}")
    raise InputError(
        f"the weights of the state {state['state_id']} cannot be found again",
        file=folder.path,
        found="; ".join(missed) or "it was not kept",
        expected="a model that is still where it was, or a run with --keep-states stages or all",
    )


def _sources(state: Row, ledger: Ledger, folder: RunFolder) -> Iterator[str]:
    """Where the weights of a state may be: kept by a run, or where a run had loaded its starting model from."""
    same = [row for row in ledger.read("states").to_pylist() if row["fingerprint"] == state["fingerprint"]]
    own_first = sorted(same, key=lambda row: row["state_id"] != state["state_id"])
    for row in own_first:
        if row["path"] is not None:
            places = places_of(ledger.folder, row["path"])
            yield str(next((place for place in places if place.is_dir()), places[0]))
    runs = {run["run_id"]: run for run in ledger.runs()}
    for row in own_first:
        if row["label"] == "before" and row["run_id"] in runs:
            yield _start(runs[row["run_id"]]).get("source") or "memory"


def _start(run: Row) -> Mapping[str, Any]:
    """What the run's summary says about its starting model."""
    told = json.loads(run["summary_json"] or "{}").get("model")
    return told if isinstance(told, dict) else {}


def _loaded(source: str, state: Row, ledger: Ledger) -> LanguageModel | str:
    """The model at `source` if it has the weights of the state; else why not."""
    from instil.model import load

    if source == "memory":
        return "the starting model was given in memory, so there is no place to find it again"
    runs = {run["run_id"]: run for run in ledger.runs()}
    start = _start(runs.get(state["run_id"], {"summary_json": None}))
    try:
        model = load(source, dtype=start.get("dtype", "auto"), device="cpu", style=start.get("style", "auto"))
    except InputError as fault:
        return fault.what
    now = model.fingerprint
    return model if now == state["fingerprint"] else f"its weights are others now ({now}, not {state['fingerprint']})"


def _fault(target: Path, state: Row, ledger: Ledger) -> str | None:
    """Why what is at `target` is not the state; None when it is."""
    model = _loaded(str(target), state, ledger)
    return model if isinstance(model, str) else None


def _write(model: LanguageModel, target: Path, mark: str) -> None:
    """Write the checkpoint beside its place, read it back, and only then let it appear."""
    from instil.model import load, save

    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        whole = save(model, draft / "model")
        read = load(whole, dtype=str(model.dtype).removeprefix("torch."), device="cpu", style=model.style.value)
        if read.fingerprint != mark:
            raise RunFailed(f"what is read back is not what was written ({read.fingerprint}, not {mark})")
        if not claim(whole, target):
            raise InputError("the folder for the earlier state holds something by now", file=target, field="--out")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _record(ledger: Ledger, state: Row, run_id: str, target: Path) -> str:
    """Record the checkpoint as a state of its own; once, however often the same is asked for."""
    path = seen_from(ledger.folder, target)
    name = f"{run_id}:undo-{fingerprint([state['state_id'], path])[:8]}"
    orders = ledger.read("states", columns=["order"], run_id=run_id)["order"].to_pylist()
    row = {
        "state_id": name,
        "run_id": run_id,
        "parent_id": state["state_id"],
        "label": "undo",
        "order": max(orders, default=0) + 1,
        "fingerprint": state["fingerprint"],
        "path": path,
    }
    ledger.append("states", [row], key=f"{run_id}/{name.rpartition(':')[2]}")
    return name


def _as_name(state: Row) -> str:
    """A folder's name for a state."""
    return re.sub(r"[^a-z0-9]+", "-", str(state["label"]).lower()).strip("-") or "state"
