"""`probe`: a mastery map of facts, written as it grows and resumed where it stopped."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.facts import FactSet, Role
from instil.files import atomic, is_draft, sweep, write_json
from instil.probe.asking import BLOCK, ask
from instil.probe.categories import Category
from instil.probe.config import PROTOCOL, ProbeConfig
from instil.probe.exemplars import ExemplarSets, draw_exemplars
from instil.probe.intervals import share
from instil.probe.mastery import Mastery, MasteryMap, schema
from instil.probe.preparing import Preparer
from instil.probe.questions import questions_of

if TYPE_CHECKING:
    from instil.model import LanguageModel

Progress = Callable[[int, int], None]


def probe(
    lm: LanguageModel,
    facts: FactSet,
    exemplars: FactSet | ExemplarSets | None = None,
    config: ProbeConfig = PROTOCOL,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    meter: Any = None,
    progress: Progress | None = None,
) -> MasteryMap:
    """Ask every fact and say how well it is known.

    Args:
        exemplars: exemplar sets, or the facts to draw them from. By default the facts of role exemplar, and where there
            are none, all: a fact never stands in its own prompt.
        out: a new or empty folder for `mastery.parquet` and `summary.json`. Parts are written there on the way.
        resume: go on with an unfinished probe in `out`; a finished one is returned as it is.
        meter: counts the operations under the purpose "deciding".
        progress: is told (facts done, facts in all).

    Raises:
        InputError: there are no facts; a question is longer than the context window; `out` holds another run, or was
            made from another model, other facts, exemplars or settings. Nothing is left behind then.
    """
    if not len(facts):
        raise InputError("there is nothing to probe", expected="at least one fact")
    sets = _sets(facts, exemplars, config)
    for line in sets.warnings:
        warnings.warn(line, stacklevel=2)
    _refuse_unaskable(lm, facts, sets, config)
    tell = progress or (lambda done, total: None)
    if out is None:
        return MasteryMap(_rows(lm, facts, sets, config, meter, tell), warnings=sets.warnings)
    return _Run(lm, facts, sets, config, Path(out), meter, tell).to_the_end(resume)


def _sets(facts: FactSet, exemplars: FactSet | ExemplarSets | None, config: ProbeConfig) -> ExemplarSets:
    if isinstance(exemplars, ExemplarSets):
        return exemplars
    pool = exemplars
    if pool is None:
        reserved = facts.with_role(Role.EXEMPLAR)
        pool = reserved if len(reserved) else facts
    return draw_exemplars(pool, facts.by_relation, config)


def _refuse_unaskable(lm: LanguageModel, facts: FactSet, sets: ExemplarSets, config: ProbeConfig) -> None:
    prepare = Preparer(lm, sets, config)
    for question in questions_of(facts):
        prepare(question)


def _rows(
    lm: LanguageModel, facts: FactSet, sets: ExemplarSets, config: ProbeConfig, meter: Any, progress: Progress
) -> Iterator[Mastery]:
    questions = questions_of(facts)
    asked = ask(lm, questions, sets, config, meter=meter, progress=progress)
    for question, answer in zip(questions, asked, strict=True):
        yield Mastery.of(question, answer)


@dataclass(frozen=True)
class _Run:
    """A probe that keeps its parts in a folder.

    The plan says what the parts were made from; it is written first and removed last.
    """

    lm: LanguageModel
    facts: FactSet
    sets: ExemplarSets
    config: ProbeConfig
    out: Path
    meter: Any
    progress: Progress

    def to_the_end(self, resume: bool) -> MasteryMap:
        plan = self._plan()
        finished = self._finished(plan, resume)
        sweep(self.out)
        if finished:
            self._clear()
            return MasteryMap(MasteryMap.load(self.out / "mastery.parquet"), warnings=self.sets.warnings)
        if not self._plan_file.exists():
            write_json(self._plan_file, plan)
        self._parts.mkdir(exist_ok=True)
        started, begin = datetime.now(UTC), time.perf_counter()
        computed = sum(map(self._part, range(0, len(self.facts), BLOCK)))
        seconds = time.perf_counter() - begin
        mastery = self._join()
        cost = {"seconds": seconds, "facts_computed": computed, "facts_per_second": computed / max(seconds, 1e-9)}
        write_json(self.out / "summary.json", summary(self.lm, self.facts, mastery, plan, cost, started))
        self._clear()
        return mastery

    def _clear(self) -> None:
        """Remove what only a run that goes on needs."""
        shutil.rmtree(self._parts, ignore_errors=True)
        self._plan_file.unlink(missing_ok=True)

    @property
    def _parts(self) -> Path:
        return self.out / "parts"

    @property
    def _plan_file(self) -> Path:
        return self.out / "plan.json"

    def _plan(self) -> dict[str, Any]:
        return {
            "model": self.lm.fingerprint,
            "facts": self.facts.fingerprint,
            "exemplars": self.sets.fingerprint,
            "config": self.config.model_dump(mode="json"),
            "facts_in_a_part": BLOCK,
        }

    def _finished(self, plan: Mapping[str, Any], resume: bool) -> bool:
        """Whether `out` holds this probe, done. Raises InputError when it holds anything but a part of it."""
        if not self.out.exists() or (self.out.is_dir() and all(map(is_draft, self.out.iterdir()))):
            return False
        done = self.out / "summary.json"
        record = done if done.exists() else self._plan_file
        if not record.is_file():
            raise InputError("the out folder holds something else", file=self.out, expected="a new or empty folder")
        if not resume:
            state = "a finished run" if done.exists() else "an unfinished run; --resume goes on with it"
            raise InputError(f"the out folder holds {state}", file=self.out, expected="a new or empty folder")
        found = json.loads(record.read_text(encoding="utf-8"))
        found = found.get("plan") if record is done else found
        if not isinstance(found, dict) or found != plan:
            other = [name for name in plan if not isinstance(found, dict) or found.get(name) != plan[name]]
            raise InputError("the out folder holds another run", file=self.out, found=f"other {', '.join(other)}")
        return done.exists()

    def _part(self, start: int) -> int:
        """Compute and write the facts from `start` on, unless that was done; the number that was computed."""
        import pyarrow.parquet

        path, facts = self._parts / f"{start:09}.parquet", self.facts[start : start + BLOCK]
        if path.exists():
            self.progress(start + len(facts), len(self.facts))
            return 0

        def tell(done: int, _: int) -> None:
            self.progress(start + done, len(self.facts))

        rows = MasteryMap(_rows(self.lm, facts, self.sets, self.config, self.meter, tell))
        with atomic(path) as draft:
            pyarrow.parquet.write_table(rows.to_table(), draft)
        return len(facts)

    def _join(self) -> MasteryMap:
        """Write the parts as one file, a part at a time."""
        import pyarrow.parquet

        with (
            atomic(self.out / "mastery.parquet") as draft,
            pyarrow.parquet.ParquetWriter(draft, schema()) as writer,
        ):
            for path in sorted(self._parts.glob("*.parquet")):
                writer.write_table(pyarrow.parquet.read_table(path))
        return MasteryMap(MasteryMap.load(self.out / "mastery.parquet"), warnings=self.sets.warnings)


def summary(
    lm: LanguageModel,
    facts: FactSet,
    mastery: MasteryMap,
    plan: Mapping[str, Any],
    cost: Mapping[str, Any],
    started: datetime,
) -> dict[str, Any]:
    """The content of `summary.json`: every headline figure with its interval, and how to make it again."""
    clusters = [facts.by_id[row.fact_id].cluster for row in mastery]
    rows = list(mastery)

    def figure(values: list[float]) -> dict[str, float]:
        return share(values, clusters).to_dict()

    priors = [(row, cluster) for row, cluster in zip(rows, clusters, strict=True) if row.p_prior is not None]
    headline = {
        "known": figure([float(row.known) for row in rows]),
        "p_greedy": figure([row.p_greedy for row in rows]),
        "p_sampled": figure([row.p_sampled for row in rows]),
        "p_any": figure([row.p_any for row in rows]),
        "gold_in_prompt": figure([float(row.gold_in_prompt) for row in rows]),
        **{str(category): figure([float(row.category is category) for row in rows]) for category in Category},
    }
    if priors:
        headline["p_prior"] = share([float(row.p_prior or 0) for row, _ in priors], [at for _, at in priors]).to_dict()
    return {
        "version": _version(),
        "command": "probe",
        "plan": dict(plan),
        "config": plan["config"],
        "seed": plan["config"]["seed"],
        "model": lm.describe(),
        "data": {
            "facts": len(facts),
            "facts_fingerprint": plan["facts"],
            "exemplars_fingerprint": plan["exemplars"],
            "subjects": len(set(clusters)),
        },
        "left_out": list(facts.left_out),
        "warnings": list(mastery.warnings),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "cost": dict(cost),
        "counts": {str(category): count for category, count in mastery.counts().items()},
        "by_relation": {
            relation: {str(category): count for category, count in counts.items()}
            for relation, counts in mastery.by_relation().items()
        },
        "headline": headline,
    }


def _version() -> str:
    try:
        return version("instil")
    except PackageNotFoundError:
        return "unknown"
