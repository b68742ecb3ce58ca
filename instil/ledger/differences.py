"""What changed between two states of a model, or two runs: fact by fact, from the answers that the ledger holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from instil.errors import InputError
from instil.ledger.finding import run_called, state_called
from instil.ledger.store import Ledger

FIRST_WORDINGS: Final = ("as_worded", "held_back", "development", "earlier", "probe")
"""Parts that ask a fact in its first wording; "probe" is a method's own."""

_COLUMNS: Final = (
    "state_id",
    "purpose",
    "part",
    "fact_id",
    "question",
    "answers",
    "category",
    "greedy_answer",
    "known",
)

Key = tuple[str, tuple[str, ...], int]


class Change(StrEnum):
    """What became of a fact from one state to the other."""

    GAINED = "gained"
    LOST = "lost"
    OTHER_ANSWER = "other answer"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact in both states; `verdict_a` and `verdict_b` are those of the runs that the states are of, if any."""

    fact_id: str
    question: str
    answers: tuple[str, ...]
    change: Change
    known_a: bool
    known_b: bool
    category_a: str | None
    category_b: str | None
    answer_a: str | None
    answer_b: str | None
    verdict_a: str | None
    verdict_b: str | None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "answers": list(self.answers), "change": str(self.change)}


@dataclass(frozen=True)
class Comparison:
    """Two states side by side.

    Attributes:
        a: the id of the first state.
        b: of the second.
        facts: those that both were asked, in the order in which the first was.
        only_a: ids of facts that only the first was asked.
        only_b: of those that only the second was asked.
    """

    a: str
    b: str
    facts: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many facts of each change, all four in order."""
        seen = Counter(fact.change for fact in self.facts)
        return {str(change): seen[change] for change in Change}

    @property
    def changed(self) -> tuple[Difference, ...]:
        """The facts that are not the same, lost ones first."""
        order = (Change.LOST, Change.GAINED, Change.OTHER_ANSWER)
        return tuple(fact for change in order for fact in self.facts if fact.change is change)

    def to_dict(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "counts": self.counts,
            "changed": [fact.to_dict() for fact in self.changed],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def diff(ledger: Ledger, a: str | None = None, b: str | None = None) -> Comparison:
    """Compare two states.

    Args:
        a: a state's id, or a run's (or how it alone begins), which stands for the state that sat its last exam. Without
            `b` it has to be a run, and its state before is compared with its state after; without either, the last
            run's are.
        b: as `a`.

    Raises:
        InputError: there is no such run or state, several are meant, or one of them was asked nothing.
    """
    examined = _examined(ledger)
    if b is None:
        run = run_called(ledger, a) if a is not None else _last_run(ledger, examined)
        states = examined.get(run, [])
        if len(states) < 2:
            raise InputError("this run did not come as far as its second exam", field="RUN", found=run)
        return _compare(ledger, states[0], states[-1])
    assert a is not None
    return _compare(ledger, _state(ledger, a, examined), _state(ledger, b, examined))


# -------------------------------------------------------------------- private


def _examined(ledger: Ledger) -> dict[str, list[str]]:
    """Run to the states that sat an exam in it, in order."""
    order = {row["state_id"]: row["order"] for row in ledger.read("states").to_pylist()}
    runs: dict[str, list[str]] = {}
    sat = ledger.read("answers", columns=["run_id", "state_id"], purpose="exam").group_by(["run_id", "state_id"])
    for row in sat.aggregate([]).to_pylist():
        runs.setdefault(row["run_id"], []).append(row["state_id"])
    return {run: sorted(states, key=lambda state: order.get(state, 0)) for run, states in runs.items()}


def _last_run(ledger: Ledger, examined: Mapping[str, list[str]]) -> str:
    finished = [str(run["run_id"]) for run in ledger.runs() if len(examined.get(run["run_id"], ())) > 1]
    if not finished:
        raise InputError("the ledger holds no run that sat two exams", file=ledger.folder)
    return finished[-1]


def _state(ledger: Ledger, name: str, examined: Mapping[str, list[str]]) -> str:
    if name in ledger.read("states", columns=["state_id"])["state_id"].to_pylist():
        return name
    run, colon, label = name.rpartition(":")
    if colon:
        return str(state_called(ledger, label, run_called(ledger, run))["state_id"])
    run = run_called(ledger, name)
    if not examined.get(run):
        raise InputError("this run sat no exam", field="RUN", found=run)
    return examined[run][-1]


def _compare(ledger: Ledger, a: str, b: str) -> Comparison:
    first, second = (_answers(ledger, state) for state in (a, b))
    verdicts = [_verdicts(ledger, state) for state in (a, b)]
    return Comparison(
        a=a,
        b=b,
        facts=tuple(_difference(key, first[key], second[key], verdicts) for key in first if key in second),
        only_a=tuple(row["fact_id"] for key, row in first.items() if key not in second),
        only_b=tuple(row["fact_id"] for key, row in second.items() if key not in first),
    )


def _answers(ledger: Ledger, state: str) -> dict[Key, dict[str, Any]]:
    """What a state answered in first wordings: in the exam, or else when the method probed it.

    A fact is the same in two runs when its wording and its right answers are: ids may mean others in other files.
    """
    rows = ledger.read("answers", columns=_COLUMNS, state_id=state, part=FIRST_WORDINGS).to_pylist()
    examined = [row for row in rows if row["purpose"] == "exam"]
    if not rows:
        raise InputError("this state was asked nothing", field="state", found=state)
    return dict(_keyed(examined or rows))


def _keyed(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[Key, dict[str, Any]]]:
    seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for row in rows:
        fact = (str(row["question"]), tuple(row["answers"] or ()))
        seen[fact] += 1
        yield (*fact, seen[fact]), row


def _verdicts(ledger: Ledger, state: str) -> dict[str, str]:
    """Fact id to verdict, of the run whose last exam this state sat."""
    run, _, label = state.rpartition(":")
    if label != "after":
        return {}
    rows = ledger.read("verdicts", columns=["fact_id", "verdict"], run_id=run).to_pylist()
    return {row["fact_id"]: row["verdict"] for row in rows}


def _difference(
    key: Key, first: Mapping[str, Any], second: Mapping[str, Any], verdicts: list[dict[str, str]]
) -> Difference:
    known = [bool(row["known"]) for row in (first, second)]
    said = [row["greedy_answer"] for row in (first, second)]
    if known[0] != known[1]:
        change = Change.GAINED if known[1] else Change.LOST
    else:
        change = Change.SAME if known[0] or said[0] == said[1] else Change.OTHER_ANSWER
    return Difference(
        fact_id=str(second["fact_id"]),
        question=key[0],
        answers=key[1],
        change=change,
        known_a=known[0],
        known_b=known[1],
        category_a=first["category"],
        category_b=second["category"],
        answer_a=said[0],
        answer_b=said[1],
        verdict_a=verdicts[0].get(str(first["fact_id"])),
        verdict_b=verdicts[1].get(str(second["fact_id"])),
    )
