"""`summary.json`: every headline figure with its interval, what it cost, and all that is needed to run it again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil import exam as exams
from instil.files import read_sealed
from instil.loop.hardware import commit, hardware
from instil.report.words import FOREIGN
from instil.version import __version__

if TYPE_CHECKING:
    from instil.exam import Exam, ExamResult, Verdict
    from instil.loop.inputs import Inputs
    from instil.loop.run import Run
    from instil.model import LanguageModel


def about_call(inputs: Inputs, exam: Exam) -> dict[str, Any]:
    """The starting model and the data of a call: `model` and `data` of a summary."""
    return {
        "model": {
            "name": inputs.model.name,
            "source": inputs.model.source,
            "hub_id": hub_id(inputs.model.source),
            "fingerprint": inputs.model.fingerprint,
            "style": inputs.model.style.value,
            "parameters": sum(weight.numel() for weight in inputs.model.model.parameters()),
            "dtype": str(inputs.model.dtype).removeprefix("torch."),
            "device": str(inputs.model.device),
        },
        "data": {
            "facts_fingerprint": inputs.facts_fingerprint,
            "documents_fingerprint": inputs.documents.fingerprint,
            "exam_fingerprint": exam.fingerprint,
            "facts": {role.value: len(facts) for role, facts in inputs.roles.items()},
            "documents": len(inputs.documents),
            **({"cloze": dict(inputs.cloze)} if inputs.cloze is not None else {}),
            "practice_documents": len(inputs.practice_documents),
            "exam_only": len(inputs.exam_only),
        },
    }


def set_up(run: Run, exam: Exam) -> dict[str, Any]:
    """What is known of a run once its exam is frozen: all but the outcome. Plain values only."""
    inputs = run.inputs
    return {
        "version": __version__,
        "command": run.command,
        "run_id": run.run_id,
        "method": inputs.method.name,
        "config": {
            **inputs.settings.model_dump(mode="json"),
            "probe": inputs.probe.model_dump(mode="json"),
            "exam": inputs.exam.model_dump(mode="json"),
        },
        **({"preset": inputs.preset.to_dict()} if inputs.preset is not None else {}),
        "seed": inputs.seed,
        "seeds": [inputs.seed],
        **about_call(inputs, exam),
        "earlier": _earlier(run, exam),
        "left_out": [{"what": what, "reason": reason} for what, reason in (*inputs.left_out, *exam.left_out)],
        "hardware": hardware(),
        "commit": commit(),
        "started": run.started,
        "ledger": str(run.ledger.folder),
    }


def hub_id(source: str) -> str | None:
    """The source of a model when it is an id on the Hub (owner/name); None for a folder and what was in memory."""
    return source if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source) and not Path(source).exists() else None


def summarise(
    run: Run, exam: Exam, before: ExamResult, after: ExamResult, verdicts: Sequence[Verdict], taught: LanguageModel
) -> dict[str, Any]:
    """The content of `summary.json`, plain values only."""
    known = set_up(run, exam)
    figures = exams.headline(exam, before, after, verdicts, run.inputs.exam_only)
    warnings = foreign_texts(figures, len(run.inputs.model.tokenizer))
    if warnings:
        figures |= {name: replace(figures[name], reason=FOREIGN) for name in figures if name.startswith("perplexity")}
    return {
        **known,
        "model": {**known["model"], "fingerprint_after": taught.fingerprint},
        "budget": {"flops": run.inputs.budget, "spent": run.meter.total},
        "cost": {row["purpose"]: {name: row[name] for name in ("flops", "tokens", "seconds")} for row in run.costs()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "headline": {name: figure.to_dict() for name, figure in figures.items()},
        "transition": exams.transition_matrix(exam, before, after),
        "verdicts": dict(Counter(str(verdict.verdict) for verdict in verdicts if verdict.role != exams.EARLIER)),
        "earlier": known["earlier"] and {**known["earlier"], "verdicts": exams.counts(list(verdicts), exams.EARLIER)},
        "by_category": exams.by_category(exam, before, after),
        **exams.tables(exam, before, after),
        **harness_figures(run),
        "warnings": warnings,
    }


def foreign_texts(figures: Mapping[str, exams.Figure], vocabulary: int) -> list[str]:
    """A warning where the general texts are worse than guesses to the starting model, so that they cannot show what
    it lost: teaching anything at all may bring their perplexity down."""
    before = figures.get("perplexity_before")
    if before is None or before.value is None or before.value <= vocabulary:
        return []
    return [
        f"The general texts are foreign to this model: a perplexity of {before.value:,.0f} before teaching, where "
        f"guessing among its {vocabulary:,} tokens has {vocabulary:,}. How it changes says nothing of what the model "
        "lost: give texts of its own domain (--general)."
    ]


def harness_figures(run: Run) -> dict[str, Any]:
    """`lm_eval`: task, then metric, to its figure; nothing where no task was asked for."""
    if not run.inputs.exam.lm_eval_tasks:
        return {}
    from instil.exam.harness import figures_of

    before, after = (read_sealed(run.harness_file(when)) for when in ("before", "after"))
    found = figures_of(before, after, run.inputs.exam.level)
    told = {task: {name: one.to_dict() for name, one in row.items()} for task, row in found.items()}
    return {"lm_eval": told}


def _earlier(run: Run, exam: Exam) -> dict[str, Any] | None:
    """The state of the ledger that the lesson goes on from, and how many facts of earlier lessons it asks again; None
    when the ledger holds no other run."""
    earlier = run.earlier
    if not earlier.others:
        return None
    return {"state": earlier.state, "runs": list(earlier.runs), "facts": len(exam.part(exams.EARLIER))}
