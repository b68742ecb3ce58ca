"""Teach and prove: the same frozen exam before and after one method, a verdict for each fact, a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil import exam as exams
from instil.errors import InputError
from instil.facts import Corpus, FactSet, Role
from instil.files import alone_in, fingerprint, read_sealed, refuse_broken, seal, write_json, write_sealed
from instil.ledger import Ledger, seen_from
from instil.lesson import Lesson
from instil.lesson_hooks import Tell
from instil.loop import frames
from instil.loop.earlier import Earlier, earlier_lessons, exemplars_for
from instil.loop.folder import RunFolder, claimed, files_of, refuse_changed, refuse_foreign
from instil.loop.inputs import Inputs, read_inputs, too_long
from instil.loop.states import AFTER, KeptStates, check_keep, kept_in_words, states_kept
from instil.loop.summary import set_up, summarise
from instil.probe import MasteryMap

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

    from instil.loop.estimate import Estimate
    from instil.model import LanguageModel


@dataclass(frozen=True)
class TeachResult:
    """A finished run.

    Attributes:
        out: its folder.
        summary: the content of `summary.json`.
    """

    out: Path
    summary: Mapping[str, Any]

    @property
    def report(self) -> Path:
        return self.out / "report.html"

    @property
    def ledger(self) -> Path:
        return Path(self.summary["ledger"])

    @cached_property
    def model(self) -> LanguageModel:
        """The taught model, loaded from its file."""
        from instil.model import load

        return load(self.out / "model")

    @cached_property
    def before(self) -> MasteryMap:
        return MasteryMap.load(RunFolder(self.out).mastery("before"))

    @cached_property
    def after(self) -> MasteryMap:
        return MasteryMap.load(RunFolder(self.out).mastery("after"))

    @cached_property
    def verdicts(self) -> pandas.DataFrame:
        """One row a fact: its verdict and the evidence, in the columns of the ledger's table `verdicts`."""
        return frames.table(self.ledger, self.summary["run_id"], "verdicts")

    @cached_property
    def curves(self) -> pandas.DataFrame:
        """The learning curves, one row a point, in the columns of the ledger's table `stages`."""
        return frames.table(self.ledger, self.summary["run_id"], "stages")

    def to_pandas(self) -> pandas.DataFrame:
        """One row a figure of the exam: figure, before, value, low, high, n, clusters, meaning."""
        return frames.figures(self.summary)

    def plot(self) -> plotly.graph_objects.Figure:
        """The shares of the headline with their intervals, before and after.

        Raises:
            InputError: plotly is not installed.
        """
        return frames.picture(self.summary)


def teach(
    model: str | Path | LanguageModel,
    facts: FactSet | str | Path | None = None,
    *,
    method: str = "gradual",
    out: str | Path,
    documents: Corpus | str | Path | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    budget: str | float | None = None,
    ledger: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    roles: Mapping[Role, FactSet] | None = None,
    general: Sequence[str] | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    report_to: Sequence[str] = (),
    preset: str | None = None,
    practice_share: float | None = None,
    progress: Tell | None = None,
    dry_run: bool = False,
    keep_states: str = AFTER,
    command: str | None = None,
) -> TeachResult | Estimate:
    """Teach facts or documents by one method, and examine the model before and after.

    Args:
        model: a hub id, a folder, "embedded", or a loaded model (which is not changed).
        facts: a fact set or a file. Facts without a role get one by subject (see `instil.facts.plan_roles`). None, with
            documents: the exam is made from their text (see `instil.exam.cloze`), and a part of them is never taught.
        method: one of `instil.methods.NAMES`.
        out: an empty or new folder.
        documents: texts to be taught. Those about held-back facts are left out, and listed. The target questions about
            the others are asked in the exam and never trained on. See `instil.facts.document_roles`.
        config: settings of the method, with optional sections `probe` and `exam`; a mapping or a YAML file.
        budget: compute that teaching may spend, in floating-point operations ("3 PFLOP").
        ledger: the folder of the durable record; `out/ledger` unless an earlier lesson's goes on. When the model is a
            state of it, what the lessons that led there taught is asked again, before and after.
        resume: go on with an unfinished run in `out`; a finished one is returned as it is.
        seed: of every draw: roles, exemplars, order of training.
        roles: facts by role, where they do not come from `facts`.
        general: texts for perplexity; a set of Instil's own paragraphs by default.
        adapter: "lora" trains a low-rank adapter, "osf" an orthogonal subspace; merged into the saved weights.
        report_to: trackers of the Trainer: "tensorboard", "wandb", "trackio"; what they write is in `out/tracking`.
        preset: fill up settings that are not given, by the model's size: "0.6b", …, or "auto".
        practice_share: of the subjects that have no role, how many become practice: documents with questions, for
            methods that learn how to be asked.
        progress: is told (what, done, total or None).
        dry_run: change nothing, and return the estimated time, memory and disk.
        keep_states: which states of the model stay on disk: "after" (the taught model, in `out/model`), "stages" (the
            model after each stage as well, in `out/states`) or "all" (the starting model as well).
        command: the command line that asked for the run, for the record.

    Raises:
        InputError: the input or the options are wrong; nothing is left behind.
        RunFailed: the run ended for another reason; `resume=True` goes on with it.
    """
    check_keep(keep_states)
    folder, tell = RunFolder(Path(out)), progress or (lambda what, done, total: None)
    refuse_foreign(folder, resume=resume)
    tell("reading the model and the facts", 0, None)
    inputs = read_inputs(
        model,
        facts,
        method=method,
        documents=documents,
        config=config,
        budget=budget,
        seed=seed,
        roles=roles,
        general=general,
        adapter=adapter,
        dtype=dtype,
        device=device,
        report_to=report_to,
        preset=preset,
        practice_share=practice_share,
    )
    if len(inputs.documents):
        tell(inputs.in_words(), 0, None)
    if inputs.preset is not None:
        tell(str(inputs.preset), 0, None)
    if dry_run:
        from instil.loop.estimate import estimate

        again = earlier_lessons(Ledger(ledger), inputs, "").facts if ledger is not None else NO_FACTS
        return estimate(inputs, states_kept(inputs, keep_states), again)
    record = Path(ledger) if ledger is not None else folder.path / "ledger"
    with alone_in(folder.path), claimed(folder, inputs.plan()):
        if not folder.summary.exists():
            tell(kept_in_words(inputs, keep_states), 0, None)
            Run(inputs, folder, Ledger(record), tell, command, keep_states).to_the_end()
        summary = read_sealed(folder.summary)
        refuse_changed(folder, summary)
        shutil.rmtree(folder.work, ignore_errors=True)
        return TeachResult(folder.path, summary)


@dataclass(frozen=True)
class SharedExam:
    """An exam that several runs sit, whose answers before teaching are given once for all.

    Attributes:
        exam: the frozen exam.
        before: the folder in which the answers before teaching are kept, part by part, with their `cost.json`.
    """

    exam: exams.Exam
    before: Path


class Run:
    """One pass through the loop. Every step looks first whether an interrupted pass has already done it."""

    def __init__(
        self,
        inputs: Inputs,
        folder: RunFolder,
        ledger: Ledger,
        tell: Tell,
        command: str | None = None,
        keep_states: str = AFTER,
        shared: SharedExam | None = None,
    ) -> None:
        from instil.training import Budget, Meter

        self.command, self.shared = command, shared
        self.states = KeptStates(folder.states, keep_states)
        self.inputs, self.folder, self.ledger, self.tell = inputs, folder, ledger, tell
        self.run_id = f"{inputs.method.name}-{fingerprint([json.dumps(inputs.plan(), sort_keys=True)])[:8]}"
        self.meter, self.exam_meter = Meter(), Meter()
        self.budget = Budget(flops=inputs.budget)
        self.started = self._started()

    def to_the_end(self) -> None:
        exam = self.frozen_exam()
        self.record("runs", [self.run_row(set_up(self, exam), "running")], "begun")
        try:
            self.teach_between_exams(exam)
        except InputError:  # The ledger may be an earlier lesson's: it keeps what it was told, and how that ended.
            self.record("runs", [self.run_row(set_up(self, exam), "failed")], "failed")
            raise

    def teach_between_exams(self, exam: exams.Exam) -> None:
        left_out = [{"what": what, "reason": reason} for what, reason in (*self.inputs.left_out, *exam.left_out)]
        self.record("left_out", left_out, "left-out")
        kept = self.states.before(self.inputs.model)
        self.record_state("before", self.earlier.state, 0, self.inputs.model.fingerprint, kept)
        before = self.sit(exam, self.inputs.model, "before")

        lesson = self.lesson(exam)
        self.inputs.method.teach(lesson, self.inputs.settings)
        taught = self.saved(lesson)
        last = f"{self.run_id}:{lesson.stages[-1]}"
        self.record_state("after", last, len(lesson.stages) + 1, taught.fingerprint, self.folder.model)

        after = self.sit(exam, taught, "after", start=before)
        verdicts = exams.verdicts(exam, before, after, self.inputs.exam_only)
        self.record("verdicts", [verdict.to_row() for verdict in verdicts], "verdicts")
        self.record("costs", self.costs(), "costs")
        summary = summarise(self, exam, before, after, verdicts, taught)
        self.record("runs", [self.run_row(summary, "done")], "run")
        self.report(summary)

    # ------------------------------------------------------------------ steps

    @cached_property
    def earlier(self) -> Earlier:
        """What the ledger knows of the starting model."""
        return earlier_lessons(self.ledger, self.inputs, self.run_id)

    def frozen_exam(self) -> exams.Exam:
        """The exam as it was frozen before anything was taught: read back when the run is resumed."""
        if self.folder.exam.exists():
            return exams.Exam.read(self.folder.exam)
        exam = self.shared.exam if self.shared else self._new_exam()
        exam.write(self.folder.exam)
        return exam

    def _new_exam(self) -> exams.Exam:
        exam, given = exam_of(self.inputs, self.earlier.facts), self.inputs.exemplars.warnings
        short = [line for line in exam.exemplars.warnings if line not in given]
        notes = ((line, "drawing exemplars for facts of earlier lessons") for line in short)
        return replace(exam, left_out=(*exam.left_out, *self.earlier.left_out, *notes))

    def sit(
        self, exam: exams.Exam, model: LanguageModel, when: str, start: exams.ExamResult | None = None
    ) -> exams.ExamResult:
        """Let a model take the exam; the answers and the mastery map are on disk when this returns."""
        from instil.training import Meter

        cost, keep = self.folder.work / f"exam-{when}-cost.json", self.folder.work / f"exam-{when}"
        if self.shared and when == "before":
            cost, keep = self.shared.before / "cost.json", self.shared.before
        meter = Meter()
        with meter.counting(model.model, "exam"):
            result = exams.sit(
                exam,
                exams.ModelAnswerer(model),
                progress=lambda done, total: self.tell(f"exam {when} teaching", done, total),
                keep=keep,
            )
        if not cost.exists():
            write_sealed(cost, meter.to_dict())
        self.exam_meter.add(read_sealed(cost))
        self.sit_harness(model, when)
        rows = result.rows(run_id=self.run_id, state_id=f"{self.run_id}:{when}", start=start or result)
        self.ledger.append("answers", rows, key=f"{self.run_id}/exam-{when}")
        result.mastery("as_worded").save(self.folder.mastery(when))
        return result

    def sit_harness(self, model: LanguageModel, when: str) -> None:
        """Run the tasks of `lm-eval` that the configuration names; the results are kept for the summary."""
        file = self.harness_file(when)
        if self.inputs.exam.lm_eval_tasks and not file.exists():
            from instil.exam.harness import run_tasks

            self.tell(f"tasks of lm-eval {when} teaching", 0, None)
            wanted = self.inputs.exam
            write_sealed(file, run_tasks(model, wanted.lm_eval_tasks, wanted.lm_eval_folder))

    def harness_file(self, when: str) -> Path:
        return self.folder.work / f"lm-eval-{when}.json"

    def lesson(self, exam: exams.Exam) -> Lesson:
        inputs = self.inputs
        return Lesson(
            inputs.model,
            inputs.lesson_roles,
            inputs.exemplars,
            folder=self.folder.work / "lesson",
            run_id=self.run_id,
            probe_config=inputs.probe,
            budget=self.budget,
            meter=self.meter,
            seed=inputs.seed,
            record=lambda table, rows, key: self.ledger.append(table, list(rows), key=key),
            tell=self.tell,
            tracking=self.folder.tracking,
            guard=exams.not_taught(exam, exam_only=inputs.guarded),
            keep=self.keep_stage,
        )

    def saved(self, lesson: Lesson) -> LanguageModel:
        """The taught model as a stranger will find it: written at its starting precision, loaded from the file.

        Raises:
            RunFailed: it was written before the run was interrupted, and is not as it was written.
        """
        from instil.model import load, save

        written = self.folder.work / "model.json"
        if written.exists() and self.folder.model.exists():
            refuse_broken(written, self.folder.model)
        else:
            save(lesson.taught(), self.folder.model, dtype=self.inputs.model.dtype)
            seal(written, (path for path in sorted(self.folder.model.rglob("*")) if path.is_file()))
        return load(
            self.folder.model,
            dtype=str(self.inputs.model.dtype).removeprefix("torch."),
            device=str(self.inputs.model.device),
            style=self.inputs.model.style,
        )

    def report(self, summary: Mapping[str, Any]) -> None:
        """The page, then the summary with the files' fingerprints: its presence says that the run is finished."""
        from instil.report import build_report

        self.tell("writing the report", 0, None)
        write_json(self.folder.work / "summary.json", summary)
        build_report(self.folder.path, summary=summary, ledger=self.ledger)
        write_sealed(self.folder.summary, {**summary, "files": files_of(self.folder)})

    # ---------------------------------------------------------------- records

    def record(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> None:
        if rows:
            own = [{"run_id": self.run_id, **row} for row in rows]
            self.ledger.append(table, own, key=f"{self.run_id}/{key}")

    def keep_stage(self, label: str, order: int, model: LanguageModel) -> str | None:
        kept = self.states.stage(label, order, model)
        return None if kept is None else seen_from(self.ledger.folder, kept)

    def record_state(self, label: str, parent: str | None, order: int, mark: str, path: Path | None) -> None:
        row = {
            "state_id": f"{self.run_id}:{label}",
            "parent_id": parent,
            "label": label,
            "order": order,
            "fingerprint": mark,
            "path": None if path is None else seen_from(self.ledger.folder, path),
        }
        self.record("states", [row], f"state-{label}")

    def costs(self) -> list[dict[str, Any]]:
        spent = {**self.meter.by_purpose, **self.exam_meter.by_purpose}
        return [{"purpose": purpose, **cost} for purpose, cost in spent.items()]

    def run_row(self, summary: Mapping[str, Any], status: str) -> dict[str, Any]:
        return {
            "method": self.inputs.method.name,
            "model_name": self.inputs.model.name,
            "model_fingerprint": self.inputs.model.fingerprint,
            "facts_fingerprint": self.inputs.facts_fingerprint,
            "exam_fingerprint": summary["data"]["exam_fingerprint"],
            "config_json": json.dumps(summary["config"]),
            "seed": self.inputs.seed,
            "version": summary["version"],
            "commit": summary["commit"],
            "hardware_json": json.dumps(summary["hardware"]),
            "started": summary["started"],
            "finished": summary.get("finished"),
            "status": status,
            "summary_json": json.dumps(summary, ensure_ascii=False),
        }

    def _started(self) -> str:
        """When the run was begun, not when it was last resumed."""
        mark = self.folder.work / "started.json"
        if not mark.exists():
            write_sealed(mark, {"started": datetime.now(UTC).isoformat(timespec="seconds")})
        return str(read_sealed(mark)["started"])


NO_FACTS = FactSet(())


def exam_of(inputs: Inputs, earlier: FactSet = NO_FACTS) -> exams.Exam:
    """The exam that a call asks for, with facts that earlier lessons taught."""
    return exams.build_exam(
        target=inputs.roles[Role.TARGET],
        held_back=inputs.roles[Role.HELD_BACK],
        development=inputs.roles[Role.DEVELOPMENT],
        earlier=earlier,
        exemplars=exemplars_for(inputs, earlier),
        general_texts=inputs.general,
        config=inputs.exam,
        probe_config=inputs.probe,
        exemplar_facts=inputs.roles[Role.EXEMPLAR],
        same_subject=inputs.same_subject,
        taught_texts=inputs.texts,
        own_questions=inputs.own_questions,
        others=inputs.roles[Role.KNOWN] + inputs.roles[Role.PRACTICE],
        fits=lambda question: too_long(inputs.model, question.text, question.answers) is None,
    )
