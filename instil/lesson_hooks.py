"""What whoever makes a lesson, or a method, gives it to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instil.probe import MasteryMap

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.training import Progress

Record = Callable[[str, Sequence[Mapping[str, Any]], str], object]
"""Appends rows to a table of the ledger; the third argument names the batch, so that repeating it changes nothing."""

Keep = Callable[[str, int, "LanguageModel"], str | None]
"""Keeps the model after a stage (its name, its place in the lesson) on disk, if that is wanted, and says where."""

Tell = Callable[[str, int, int | None], None]
"""Reports progress: what is being done, how much is done, how much there is in all (when that is known)."""

Watch = Callable[[str, "Progress"], None]
"""Is shown the stage's name and its progress at each epoch's end, before the stop is asked."""

Rule = Callable[[MasteryMap], Mapping[str, float]]
"""Gives facts weights of at least 0, by id, from how well they are known; see `Lesson.reweighed`."""
