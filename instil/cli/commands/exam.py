"""`instil exam`: the frozen questions, asked of any model."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instil.cli.commanding import command, flag
from instil.cli.options import (
    ChatTemplate,
    Config,
    Device,
    Dtype,
    Layout,
    Model,
    Out,
    RemoteCode,
    Resume,
    Set,
    SkipInvalid,
    Style,
    Templates,
    check_out,
    checked,
    settings,
)
from instil.cli.reading import read_general, read_model
from instil.cli.terminal import Terminal, table
from instil.errors import InputError

if TYPE_CHECKING:
    from instil.exam import Exam, ExamResult

PLAN = "plan.json"


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", help="Freeze an exam, and let any model sit it.")
    app.add_typer(group, name="exam")
    command(group, "build", example="instil exam build facts.jsonl --out exam.jsonl")(build)
    command(group, "run", example="instil exam run embedded exam.jsonl --out runs/exam", resumable=True)(run)


def build(
    terminal: Terminal,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="EXAM", help="JSONL file to write.", show_default=False)],
    facts: Annotated[
        str | None,
        typer.Argument(
            metavar="FACTS", help="What is asked; left out where there are only --documents.", show_default=False
        ),
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option("--documents", metavar="DOCS", help="Documents from whose text items are made, instead of FACTS."),
    ] = None,
    general: Annotated[
        Path | None, typer.Option("--general", metavar="FILE", help="General text for perplexity: documents, or .txt.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option("--questions", metavar="FILE", help="Your own questions, JSONL or CSV.")
    ] = None,
    config: Config = None,
    overrides: Set = None,
    layout: Layout = None,
    templates: Templates = None,
    skip_invalid: SkipInvalid = False,
    force: Annotated[bool, flag("--force", help="Replace an exam that is there.")] = False,
) -> None:
    """Freeze the questions of an exam: wordings, exemplars and order, under one fingerprint.

    Facts are asked by their role; those without one as facts to be taught. Settings are sections `exam` and `probe`.
    From documents alone, sentences are cut before a date, a name, a number or a telling word.
    """
    from instil.exam import ExamConfig, exam_from_documents, exam_from_facts, read_questions
    from instil.facts import Corpus, FactSet
    from instil.probe import ProbeConfig

    if (facts is None) is (documents is None):
        raise InputError(
            "an exam is made from facts or from documents",
            field="FACTS",
            found="neither" if facts is None else "both",
            expected="one of FACTS and --documents",
        )
    if out.is_dir() or (out.exists() and not force):
        raise InputError("something is there already", file=out, field="--out", expected="a new file, or --force")
    check_out(out.parent)
    given = settings(config, overrides)
    exam_config = checked(ExamConfig, {"seed": terminal.seed, **given.section("exam")}, given=given, section="exam")
    probe_config = checked(ProbeConfig, {"seed": terminal.seed, **given.section("probe")}, given=given, section="probe")
    asked: FactSet | Corpus = (
        Corpus.read(documents, skip_invalid=skip_invalid)
        if documents is not None
        else FactSet.read(facts or "", layout=layout, templates=templates, skip_invalid=skip_invalid)
    )
    texts = read_general(general) if general is not None else ()
    own = questions if questions is not None else exam_config.questions
    given_questions = read_questions(own) if own is not None else ()
    common: Any = {
        "general_texts": texts,
        "config": exam_config,
        "probe_config": probe_config,
        "own_questions": given_questions,
    }
    if isinstance(asked, Corpus):
        exam = exam_from_documents(asked, seed=terminal.seed, **common)
    else:
        exam = exam_from_facts(asked, **common)
    exam.write(out)
    what = "reading the documents" if isinstance(asked, Corpus) else "reading the facts"
    left_out = [*((line, what) for line in asked.left_out), *exam.left_out]
    parts = {part: len(exam.part(part)) for part in exam.parts}
    terminal.result(
        {
            "exam": str(out),
            "fingerprint": exam.fingerprint,
            "questions": parts,
            "general_texts": len(exam.general_texts),
            "left_out": [{"what": what, "reason": reason} for what, reason in left_out],
        }
    )
    rows = [*parts.items(), ("general texts", len(exam.general_texts)), ("left out", len(left_out))]
    terminal.show(table(None, ("part", "how many"), rows), f"The exam: {out}, fingerprint {exam.fingerprint}")


def run(
    terminal: Terminal,
    model: Model,
    exam_file: Annotated[
        Path,
        typer.Argument(metavar="EXAM", help="What `instil exam build` wrote.", show_default=False),
    ],
    out: Out,
    dtype: Dtype = "auto",
    device: Device = "auto",
    style: Style = "auto",
    chat_template: ChatTemplate = None,
    remote_code: RemoteCode = False,
    resume: Resume = False,
) -> None:
    """Let a model sit a frozen exam. Writes summary.json: accuracy by part, with intervals, and perplexity."""
    from instil.exam import Exam, ModelAnswerer, sit
    from instil.exam.harness import check_tasks, run_tasks
    from instil.files import alone_in, sweep, write_sealed

    check_out(out)
    exam = Exam.read(exam_file)
    check_tasks(exam.config.lm_eval_tasks, exam.config.lm_eval_folder)
    with alone_in(out):
        finished = finished_or_refused(out, exam, model, resume)
        sweep(out)
        if finished is not None:
            _clear(out)
            terminal.result(finished)
            terminal.show(figures_table(finished), "This run was finished before.")
            return
        learner = read_model(
            terminal, model, chat_template, dtype=dtype, device=device, style=style, remote_code=remote_code
        )
        started = datetime.now(UTC)
        write_sealed(out / PLAN, plan_of(exam, model))
        try:
            with terminal.progress() as progress:
                result = sit(
                    exam,
                    ModelAnswerer(learner),
                    progress=lambda done, total: progress("exam", done, total),
                    keep=out / "parts",
                )
        except InputError:
            _clear(out)
            raise
        summary = summarise(exam, result, learner.describe(), started) | {"plan": plan_of(exam, model)}
        if exam.config.lm_eval_tasks:
            summary["lm_eval"] = run_tasks(learner, exam.config.lm_eval_tasks, exam.config.lm_eval_folder)
        write_sealed(out / "summary.json", summary)
        _clear(out)
        terminal.result(summary)
        terminal.show(figures_table(summary), f"The summary: {out / 'summary.json'}")


def plan_of(exam: Exam, model: str) -> dict[str, Any]:
    return {"exam": exam.fingerprint, "model": model}


def finished_or_refused(out: Path, exam: Exam, model: str, resume: bool) -> dict[str, Any] | None:
    """The summary of this exam of this model when `out` holds it finished; None when there is something to do.

    Raises:
        InputError: `out` holds anything else, or a run and `resume` was not asked for.
    """
    from instil.files import is_draft, read_sealed

    holds = sorted(entry.name for entry in out.iterdir() if not is_draft(entry)) if out.exists() else []
    if not holds:
        return None
    if "summary.json" not in holds and PLAN not in holds:
        raise InputError("the out folder holds something else", file=out, field="--out", found=", ".join(holds[:4]))
    if not resume:
        state = "a finished run" if "summary.json" in holds else "an unfinished run; --resume goes on with it"
        raise InputError(f"the out folder holds {state}", file=out, field="--out", expected="an empty or a new folder")
    done = read_sealed(out / "summary.json") if "summary.json" in holds else None
    plan = done.get("plan") if done is not None else read_sealed(out / PLAN)
    if plan != plan_of(exam, model):
        raise InputError(
            "the out folder holds another run", file=out, field="--out", expected="the same exam and model"
        )
    return done


def summarise(exam: Exam, result: ExamResult, model: dict[str, Any], started: datetime) -> dict[str, Any]:
    """What is written: every figure with its interval, clustered by subject."""
    from instil.exam import of_one_state, perplexity, share
    from instil.version import __version__

    how = exam.config.bootstrap
    figures = {}
    for part in exam.parts:
        answers = [answer for answer in result.answers if answer.item.part == part]
        clusters = [answer.cluster for answer in answers]
        figures[f"known_{part}"] = share([answer.known for answer in answers], clusters, how).to_dict()
        figures[f"accuracy_{part}"] = share([answer.asked.p_greedy for answer in answers], clusters, how).to_dict()
    figures |= {name: one.to_dict() for name, one in of_one_state(exam, result).items() if name not in figures}
    if result.texts:
        nll, tokens = [text.nll for text in result.texts], [text.tokens for text in result.texts]
        figures["perplexity"] = perplexity(nll, tokens, range(len(nll)), how).to_dict()
    return {
        "version": __version__,
        "command": "exam run",
        "seed": exam.config.seed,
        "config": {
            "exam": exam.config.model_dump(mode="json"),
            "probe": exam.probe_config.model_dump(mode="json"),
        },
        "model": model,
        "data": {
            "exam_fingerprint": exam.fingerprint,
            "exemplars_fingerprint": exam.exemplars.fingerprint,
            "questions": {part: len(exam.part(part)) for part in exam.parts},
            "general_texts": len(exam.general_texts),
        },
        "left_out": [{"what": what, "reason": reason} for what, reason in exam.left_out],
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "headline": figures,
    }


def figures_table(summary: dict[str, Any]) -> Any:
    def said(name: str, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.2f}" if name in ("perplexity", "knowedit_fluency") else f"{100 * value:.1f} %"

    rows = [
        (
            name.replace("_", " "),
            said(name, figure["value"]),
            "–" if figure["low"] is None else f"{said(name, figure['low'])} to {said(name, figure['high'])}",
            figure["n"],
        )
        for name, figure in summary["headline"].items()
    ]
    return table(summary["model"]["name"], ("figure", "value", "95 % interval", "n"), rows)


def _clear(out: Path) -> None:
    """Remove what is only needed until the run is finished."""
    shutil.rmtree(out / "parts", ignore_errors=True)
    (out / PLAN).unlink(missing_ok=True)
    if not any(out.iterdir()):
        out.rmdir()
