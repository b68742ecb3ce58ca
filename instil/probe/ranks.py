"""Several processes that probe together, each its share.

They meet in a folder beside the results. Disk is shared anyway, since the parts are put together from one folder; so
there is nothing to initialise, no port, and no time limit that the slowest share would have to keep. Each process
writes one small file there, again and again while it lives: whoever waits for a process sees that it failed, or that
its file has stopped changing, and fails as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.errors import InputError, RunFailed

BEAT = 2.0
"""Seconds after which a process writes its file again."""

PATIENCE = 120.0
"""Seconds without a change after which a process counts as dead."""

ARRIVAL = 900.0
"""Seconds that processes may need to read their models, before the others give up on them."""

GRACE = 60.0
"""Seconds that a failure which was there before this process is left alone: it may be of an earlier run."""

POLL = 0.1
"""Seconds between two looks at the folder."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    world: int = 1

    @staticmethod
    def here() -> Ranks:
        """As `torchrun`, `accelerate launch` and their kin say in RANK and WORLD_SIZE; alone, where they say nothing.

        Raises:
            InputError: they do not hold numbers that fit.
        """
        rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
            raise InputError(
                "RANK and WORLD_SIZE do not fit", found=f"{rank} of {world}", expected="0 to WORLD_SIZE - 1"
            )
        return Ranks(int(rank), int(world))

    @property
    def first(self) -> bool:
        return self.rank == 0


class Meeting:
    """Where the processes of one run meet. Rank 0 decides, the others follow. Alone, everything is immediate.

    Args:
        out: the folder of the results; the meeting place stands beside it.
    """

    def __init__(self, out: Path, ranks: Ranks) -> None:
        self.ranks = ranks
        self.folder = out.absolute().parent / f".{out.name}.ranks.tmp"
        self._state: dict[str, Any] = {"nonce": uuid.uuid4().hex, "beat": 0, "state": "here"}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._changed: dict[int, tuple[Any, float]] = {}
        self._leader: str | None = None
        self._old: str | None = None
        self._arrived = time.monotonic()

    def __enter__(self) -> Meeting:
        if self.ranks.world == 1:
            return self
        if self.ranks.first:
            # What an earlier run left: its processes are gone, or stop when they find their files missing.
            shutil.rmtree(self.folder, ignore_errors=True)
            self._announce()
        else:
            self._old = (self._read(0) or {}).get("nonce")
            # Rank 0 may clear the place at this very moment; then `agree` announces again.
            with contextlib.suppress(FileNotFoundError):
                self._announce()
        self._heart.start()
        return self

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> None:
        if self.ranks.world == 1:
            return
        if fault is not None:
            with contextlib.suppress(OSError):
                if self._is_mine():
                    self._write(state="failed", error=_told(fault))
        self._over.set()
        self._heart.join()
        if fault is None:
            self._leave()

    def agree(self, decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `decide` gives on rank 0, on every rank. It must be what JSON can hold.

        Raises:
            RunFailed: a rank failed, or did not come.
            InputError: rank 0 raised it.
        """
        if self.ranks.world == 1:
            return decide()
        if not self.ranks.first:
            return self._followed()
        decision = decide()
        others = range(1, self.ranks.world)
        while any(self._read(rank) is None for rank in others):
            self._wait([*others], absent=ARRIVAL)
        nonces = {str(rank): (self._read(rank) or {}).get("nonce") for rank in others}
        self._write(decision=decision, seen=nonces)
        return decision

    def check(self) -> None:
        """Raises `RunFailed` when a process that this one depends on has failed or died."""
        if self.ranks.world > 1:
            for rank in range(1, self.ranks.world) if self.ranks.first else (0,):
                self._look(rank, absent=PATIENCE)

    def conclude(self, complete: Callable[[], bool], finish: Callable[[], None]) -> None:
        """Once everything is `complete`, rank 0 does `finish`; the others wait until it has.

        Raises:
            RunFailed: a rank failed or died.
        """
        if not self.ranks.first:
            while (self._read(0) or {}).get("state") != "done":
                self._wait([0], absent=PATIENCE)
            return
        while not complete():
            if self.ranks.world == 1:
                raise RunFailed("parts of the probe are missing; --resume computes them")
            self._wait([*range(1, self.ranks.world)], absent=PATIENCE)
        finish()
        if self.ranks.world > 1:
            self._write(state="done")

    def _followed(self) -> dict[str, Any]:
        while True:
            found = self._read(0)
            if found is not None and found.get("seen", {}).get(str(self.ranks.rank)) == self._state["nonce"]:
                self._leader = found["nonce"]
                decision: dict[str, Any] = found["decision"]
                return decision
            if self._read(self.ranks.rank) is None:  # Rank 0 came later and cleared the place.
                with contextlib.suppress(OSError):
                    self._announce()
            self._wait([0], absent=ARRIVAL)

    def _announce(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def _wait(self, ranks: list[int], absent: float) -> None:
        for rank in ranks:
            self._look(rank, absent)
        time.sleep(POLL)

    def _look(self, rank: int, absent: float) -> None:
        """Raises when a rank failed, when its file has not changed for `PATIENCE`, or was missing for `absent`."""
        found = self._read(rank)
        if (self.ranks.first or self._leader is not None) and not self._is_mine():
            raise RunFailed("another run has taken the folder")
        if found is not None and found.get("state") == "failed" and self._current(rank, found):
            raise _error(rank, found.get("error", {}))
        sign, now = None if found is None else (found.get("nonce"), found.get("beat")), time.monotonic()
        before, since = self._changed.setdefault(rank, (sign, now))
        if sign != before:
            self._changed[rank] = sign, now
        elif now - since > (absent if found is None else PATIENCE):
            what = "has not come" if found is None else "has died"
            raise RunFailed(f"rank {rank} of {self.ranks.world} {what}")

    def _current(self, rank: int, found: Mapping[str, Any]) -> bool:
        """Whether a file is of this run: what an earlier rank 0 left may still be lying there."""
        if rank != 0:
            return True
        if self._leader is not None:
            return found.get("nonce") == self._leader
        return found.get("nonce") != self._old or time.monotonic() - self._arrived > GRACE

    def _is_mine(self) -> bool:
        return (self._read(self.ranks.rank) or {}).get("nonce") == self._state["nonce"]

    def _leave(self) -> None:
        """The others take their files away; rank 0 waits for that a while and takes the place away."""
        if not self.ranks.first:
            self._file(self.ranks.rank).unlink(missing_ok=True)
            return
        end = time.monotonic() + PATIENCE
        while any(self._file(rank).exists() for rank in range(1, self.ranks.world)) and time.monotonic() < end:
            time.sleep(POLL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):
                if self._is_mine():
                    self._write(beat=self._state["beat"] + 1)

    def _file(self, rank: int) -> Path:
        return self.folder / f"{rank}.json"

    def _read(self, rank: int) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._file(rank).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def _write(self, **changes: Any) -> None:
        """Atomic but not synced: what is told here matters only as long as the processes live."""
        with self._lock:
            self._state |= changes
            draft = self.folder / f".{self.ranks.rank}.{self._state['nonce']}.tmp"
            draft.write_text(json.dumps(self._state), encoding="utf-8")
            draft.replace(self._file(self.ranks.rank))


_FIELDS = ("what", "line", "field", "found", "expected")


def _told(fault: BaseException) -> dict[str, Any]:
    if isinstance(fault, InputError):
        fields = {name: getattr(fault, name) for name in _FIELDS}
        return {"input": fields | {"file": None if fault.file is None else str(fault.file)}}
    return {"text": str(fault) or type(fault).__name__}


def _error(rank: int, told: Mapping[str, Any]) -> Exception:
    """The same wrong input for all; anything else is a failure of that rank."""
    if "input" in told:
        return InputError(**told["input"])
    return RunFailed(f"rank {rank} failed: {told.get('text', 'it does not say why')}")
