"""Greedy decoding of answers that left their trees, many at once.

A pass over one more token takes nearly as long for one answer as for thirty. So the last few of a batch, which may be
long, wait for those of the next one and go on with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from instil.probe.rows import Ids
from instil.probe.sampling import likeliest

if TYPE_CHECKING:
    from instil.probe.runner import Scored, Session

COMPACT_BELOW = 0.7
"""Answers that are still being decoded, of those in memory, below which the finished ones are dropped."""

WAITING = 16
"""Answers that wait for the next batch, at most."""


@dataclass(eq=False)
class Greedy:
    """A greedy answer as far as it is known.

    Attributes:
        limit: tokens that it may have, its stop with it.
        nodes: those of its tree that it passed.
        tokens: of these nodes, and of what follows them.
    """

    limit: int
    nodes: Ids = ()
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.tokens) >= self.limit


class Decoder:
    """Extends answers by the likeliest token, until a stop token or their limit."""

    def __init__(self, stop_ids: frozenset[int]) -> None:
        self._stop_ids = stop_ids
        self._session: Session | None = None
        self._running: list[Greedy] = []

    def begin(self, scored: Scored, paths: Sequence[tuple[int, Greedy]]) -> None:
        """Take answers that are not finished, each with its row, in ascending order."""
        if not paths:
            return
        places = [(row, tuple(path.tokens[: len(path.nodes)])) for row, path in paths]
        session = scored.resume(places)
        if self._session is not None and self._running:
            self._drop_finished()
            session.join(self._session)
            self._running = [*(path for _, path in paths), *self._running]
        else:
            self._running = [path for _, path in paths]
        self._session = session

    def run(self, waiting: int = 0) -> None:
        """Decode until no more than so many are unfinished."""
        unfinished = sum(not path.finished for path in self._running)
        while unfinished > waiting:
            if unfinished < COMPACT_BELOW * len(self._running):
                self._drop_finished()
            assert self._session is not None
            following = likeliest(self._session.step([path.tokens[-1] for path in self._running]))
            for path, token in zip(self._running, following, strict=True):
                if path.finished:
                    continue
                if token in self._stop_ids:
                    path.stopped = True
                else:
                    path.tokens.append(token)
            unfinished = sum(not path.finished for path in self._running)
        if not unfinished:
            self._session, self._running = None, []

    def _drop_finished(self) -> None:
        assert self._session is not None
        kept = [slot for slot, path in enumerate(self._running) if not path.finished]
        self._session.select(kept)
        self._running = [self._running[slot] for slot in kept]
