"""Progress of a run, told by the rooms as `progress(what, done, total)`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import TaskID


FEWEST = 0.01
"""The share that must be done before a rate says anything about the time left."""

LONGEST = 30.0
"""Seconds after which it is said all the same: of a million facts, a hundredth takes long."""


class Progress:
    """Takes `progress(what, done, total)`.

    `what` names the present stage, `total` is None where it is not known, `detail` may change from call to call, and
    `unit` says what is counted. What is done at the first call of a stage was there before: it counts for no rate.
    """

    def __call__(
        self, what: str, done: float = 0, total: float | None = None, detail: str = "", unit: str = ""
    ) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        return None


class SilentProgress(Progress):
    def __call__(
        self, what: str, done: float = 0, total: float | None = None, detail: str = "", unit: str = ""
    ) -> None:
        return None


class LineProgress(Progress):
    """Plain lines for logs: at the start and end of a stage and every `every` seconds in between."""

    def __init__(self, stream: IO[str], every: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._what: str | None = None
        self._began = self._spoke = clock()
        self._from = 0.0

    def __call__(
        self, what: str, done: float = 0, total: float | None = None, detail: str = "", unit: str = ""
    ) -> None:
        what, detail = split_detail(what, detail)
        now = self._clock()
        ended = total is not None and done >= total
        if what != self._what:
            self._what, self._began, self._from = what, now, done
        elif not ended and now - self._spoke < self._every:
            return
        self._spoke = now
        self._stream.write(self._line(what, done, total, unit, now) + (f" · {detail}" if detail else "") + "\n")
        self._stream.flush()
        if ended:
            self._what = None

    def _line(self, what: str, done: float, total: float | None, unit: str, now: float) -> str:
        if not total and not done:
            return what
        counted = f" {unit}" if unit else ""
        share = f" of {total:,.0f}{counted} ({done / total:.0%})" if total else counted
        elapsed, since = now - self._began, done - self._from
        if elapsed <= 0 or since <= 0 or (total and since < FEWEST * (total - self._from) and elapsed < LONGEST):
            return f"{what}: {done:,.0f}{share}"
        rate = since / elapsed
        left = f", {clock_time((total - done) / rate)} left" if total and done < total else f", {clock_time(elapsed)}"
        return f"{what}: {done:,.0f}{share}, {rate_text(rate)}{counted}/s{left}"


class RichProgress(Progress):
    """A bar a stage, with rate and time left, on a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                speed = task.finished_speed or task.speed
                unit = task.fields.get("unit", "")
                return Text(f"{rate_text(speed)}{unit and ' '}{unit}/s" if speed else "", style="dim")

        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream, stderr=False),
        )
        self._task: TaskID | None = None
        self._what: str | None = None

    def __call__(
        self, what: str, done: float = 0, total: float | None = None, detail: str = "", unit: str = ""
    ) -> None:
        what, detail = split_detail(what, detail)
        if what != self._what:
            self._close()
            self._task, self._what = self._bars.add_task(what, total=total, completed=int(done), unit=unit), what
        assert self._task is not None
        shown = f"{what} · {detail}" if detail else what
        self._bars.update(self._task, completed=done, total=total, description=shown)

    def _close(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._task]
            self._bars.update(self._task, completed=task.total, total=task.total or task.completed or 1)
            self._bars.stop_task(self._task)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bars.stop()


def split_detail(what: str, detail: str) -> tuple[str, str]:
    """A room that has only one text to tell puts the detail behind a colon: `stage 1: epoch 2, loss 0.12`."""
    stage, colon, rest = what.partition(": ")
    return (stage, rest) if colon and not detail else (what, detail)


def rate_text(rate: float) -> str:
    """Three digits, large rates whole: `0.0123`, `9.5`, `142`, `12,300`."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def clock_time(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 5 s`, `2 h 4 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
