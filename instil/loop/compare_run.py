"""Methods side by side: one frozen exam, one budget, several seeds; every arm a run of its own.

Each run keeps its own ledger, in its folder. The arms are lessons of one and the same starting model, not one after the
other: in a common ledger each would stand as a later lesson that the earlier ones were lost in. A run that fails can be
begun again without touching another's record, and no two writers meet. `comparison.parquet` is what joins them.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil import exam as exams
from instil.errors import InputError
from instil.facts import Corpus, FactSet, Role
from instil.files import alone_in, atomic, read_sealed, write_sealed, write_text
from instil.ledger import Ledger
from instil.lesson_hooks import Tell
from instil.loop.compare_arms import Arm, read_arms
from instil.loop.compare_figures import rows_of, summarise
from instil.loop.compare_plan import Forecast, Plan, Trial, forecast, read_plan
from instil.loop.folder import RunFolder, claimed, refuse_changed, refuse_foreign
from instil.loop.run import Run, SharedExam, exam_of

if TYPE_CHECKING:
    import pandas as pd

    from instil.model import LanguageModel
    from instil.report.comparison_picture import Picture

TABLES = {"markdown": "table.md", "latex": "table.tex", "csv": "table.csv"}


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        out: its folder.
        summary: the content of `summary.json`.
    """

    out: Path
    summary: Mapping[str, Any]

    @staticmethod
    def load(out: str | Path) -> Comparison:
        """Read a comparison from its folder.

        Raises:
            InputError: there is none, or its summary is not as it was written.
        """
        path = Path(out) / "summary.json"
        try:
            summary = read_sealed(path)
        except FileNotFoundError:
            raise InputError("there is no finished comparison", file=out) from None
        if summary.get("kind") != "comparison":
            raise InputError("this is no comparison", file=path)
        return Comparison(Path(out), summary)

    @property
    def report(self) -> Path:
        return self.out / "report.html"

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The runs that failed: arm, seed, error."""
        return list(self.summary["failures"])

    @property
    def sentences(self) -> list[str]:
        """The result in plain words."""
        return list(self.summary["headline"]["sentences"])

    @cached_property
    def _frame(self) -> pd.DataFrame:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.out / "comparison.parquet"
        try:
            frame: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas()
        except (OSError, ValueError, pa.ArrowException) as fault:
            raise InputError("the rows of the comparison cannot be read", file=path, found=str(fault)[:200]) from fault
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """A row a fact, arm and seed: its verdict, whether it was known before and is known now, its probabilities."""
        return self._frame.copy()

    def table(self, form: str = "markdown") -> str:
        """One row an arm, to be pasted into a paper.

        Args:
            form: "markdown", "latex" or "csv".

        Raises:
            InputError: there is no such form.
        """
        from instil.report.comparison_tables import table

        return table(self.summary, form)

    def plot(self) -> Picture:
        """Acquisition against forgetting, as a picture that notebooks show and `.save("picture.svg")` writes."""
        from instil.report.comparison_picture import Picture, trade_off

        return Picture(trade_off(self.summary))


def compare(
    model: str | Path | LanguageModel,
    facts: FactSet | str | Path | None = None,
    *,
    methods: str | Sequence[str | Arm] | None = None,
    arms: str | Path | None = None,
    seeds: int = 3,
    out: str | Path,
    budget: str | float | None = None,
    documents: Corpus | str | Path | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    roles: Mapping[Role, FactSet] | None = None,
    general: Sequence[str] | None = None,
    practice_share: float | None = None,
    dtype: str = "auto",
    device: str = "auto",
    keep_models: bool = True,
    progress: Tell | None = None,
    dry_run: bool = False,
    command: str | None = None,
) -> Comparison | Forecast:
    """Teach the same facts by several methods, each with several seeds, under one budget, and compare the outcomes.

    Facts are divided into roles once, and one exam is frozen for all. It is taken once before, by the model that all
    start from, and by every taught model. Seeds change what a method draws: the order of training, the replayed facts,
    the start of adapters. A run that fails does not stop the others.

    Args:
        model: a hub id, a folder, "embedded", or a loaded model (which is not changed).
        facts: a fact set or a file.
        methods: names of arms, such as "sft,sft+replay,gradual:replay_ratio=0.5"; see `instil.loop.compare_arms`.
        arms: a YAML file of more arms.
        seeds: how many; they are numbered from `seed`.
        out: an empty or new folder.
        budget: operations that each run may spend. By default what the arm that trains longest is estimated to need.
        documents: for methods that learn from text. The questions about them are asked and never trained on.
        config: settings common to all arms, with optional sections `probe` and `exam`; a mapping or a YAML file.
        resume: go on with an unfinished comparison in `out`; runs that failed are tried again, finished ones are not.
        seed: of roles, exemplars and exam, and the first of the runs' seeds.
        roles: facts by role, where they do not come from `facts`.
        general: texts for perplexity.
        practice_share: of the subjects without a role, how many become practice; see `instil.loop.teach`.
        keep_models: keep every run's `model/`; otherwise it is removed after its exam.
        progress: is told (what, done, total or None).
        dry_run: change nothing, and return the estimated time, memory and disk.
        command: the command line that asked for the comparison, for the record.

    Returns:
        The comparison; its `.failures` lists the runs that failed.

    Raises:
        InputError: the input, the options or an arm's settings are wrong; nothing is left behind.
    """
    folder, tell = RunFolder(Path(out)), progress or (lambda what, done, total: None)
    chosen = read_arms(methods, arms)
    refuse_foreign(folder, resume=resume)
    tell("reading the model and the facts", 0, None)
    plan = read_plan(
        model,
        facts,
        arms=chosen,
        seeds=seeds,
        documents=documents,
        config=config,
        budget=budget,
        seed=seed,
        roles=roles,
        general=general,
        dtype=dtype,
        device=device,
        keep_models=keep_models,
        practice_share=practice_share,
    )
    if len(plan.base.documents):
        tell(plan.base.in_words(), 0, None)
    if dry_run:
        return forecast(plan)
    with alone_in(folder.path):
        with claimed(folder, plan.to_dict()):
            if folder.summary.exists() and not (found := Comparison.load(folder.path)).failures:
                return found
            exam = exam_before(plan, folder, tell)
        shared = SharedExam(exam, folder.work / "before")
        failures = [
            failure for trial in plan.trials if (failure := attempt(trial, plan, folder, shared, tell, command))
        ]
        return settle(plan, folder, exam, failures, tell, command)


def exam_before(plan: Plan, folder: RunFolder, tell: Tell) -> exams.Exam:
    """The frozen exam, and the answers to it that all arms share."""
    from instil.training import Meter

    if folder.exam.exists():
        exam = exams.Exam.read(folder.exam)
    else:
        exam = exam_of(plan.base)
        exam.write(folder.exam)
    kept, meter = folder.work / "before", Meter()
    with meter.counting(plan.base.model.model, "exam"):
        result = exams.sit(
            exam,
            exams.ModelAnswerer(plan.base.model),
            progress=lambda done, total: tell("exam before teaching", done, total),
            keep=kept,
        )
    if not (kept / "cost.json").exists():
        write_sealed(kept / "cost.json", meter.to_dict())
    result.mastery("as_worded").save(folder.mastery("before"))
    return exam


def run_folder(folder: RunFolder, trial: Trial) -> RunFolder:
    return RunFolder(folder.path / "arms" / trial.arm.folder / f"seed-{trial.seed}")


def attempt(
    trial: Trial, plan: Plan, folder: RunFolder, shared: SharedExam, tell: Tell, command: str | None
) -> dict[str, Any] | None:
    """Run one arm with one seed, or go on with it; what went wrong if it failed, so that the others can go on."""
    home = run_folder(folder, trial)
    if home.summary.exists():
        refuse_changed(home, read_sealed(home.summary))
        _clear(home, plan)
        return None

    def told(what: str, done: int, total: int | None) -> None:
        tell(f"{trial.name}: {what}", done, total)

    try:
        home.path.parent.mkdir(parents=True, exist_ok=True)
        with alone_in(home.path), claimed(home, trial.inputs.plan()):
            Run(trial.inputs, home, Ledger(home.path / "ledger"), told, command, shared=shared).to_the_end()
        _clear(home, plan)
    except Exception as error:
        return {
            "arm": trial.arm.name,
            "seed": trial.seed,
            "error": type(error).__name__,
            "message": _in_one_line(error),
        }
    finally:
        _free_memory()
    return None


def settle(
    plan: Plan,
    folder: RunFolder,
    exam: exams.Exam,
    failures: Sequence[Mapping[str, Any]],
    tell: Tell,
    command: str | None,
) -> Comparison:
    """Tables, figures, report and, last, the summary, whose presence says that the comparison is finished."""
    import pyarrow.parquet as pq

    from instil.report.comparison import build_comparison_report
    from instil.report.comparison_tables import table

    tell("comparing the arms", 0, None)
    done = {(trial.arm.name, trial.seed): run_folder(folder, trial).path for trial in plan.trials}
    done = {key: path for key, path in done.items() if (path / "summary.json").exists()}
    rows = rows_of(plan, done)
    summary = summarise(plan, exam, folder, rows, done, failures, command)
    with atomic(folder.path / "comparison.parquet") as draft:
        pq.write_table(rows, draft, write_page_checksum=True)
    for form, name in TABLES.items():
        write_text(folder.path / name, table(summary, form))
    build_comparison_report(folder.path, summary)
    write_sealed(folder.summary, summary)
    if not failures:
        shutil.rmtree(folder.work, ignore_errors=True)
    return Comparison.load(folder.path)


def _in_one_line(error: Exception, limit: int = 1_000) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= limit else f"{line[:limit]}… [{len(line):,} characters]"


def _clear(home: RunFolder, plan: Plan) -> None:
    shutil.rmtree(home.work, ignore_errors=True)
    if not plan.keep_models:
        shutil.rmtree(home.model, ignore_errors=True)


def _free_memory() -> None:
    """What a run held, also one that ran out of memory."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
