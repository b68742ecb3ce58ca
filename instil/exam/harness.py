"""Tasks of `lm-eval` by name, run on a model before and after teaching. Needs the extra `bench`.

The harness asks the model in its own way (its prompts, its likelihoods, its stops), so that its numbers are those that
others publish. Its standard errors are over documents and become intervals by the normal approximation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.exam.statistics import Figure

if TYPE_CHECKING:
    from instil.model import LanguageModel

Results = dict[str, dict[str, Any]]
"""Task name to {"n": documents, "metrics": {metric: [value, standard error or None]}}."""


def check_tasks(tasks: Sequence[str], folder: str | None = None) -> None:
    """Refuse, before any work, tasks that cannot be run.

    Args:
        folder: of task files beside lm-eval's own.

    Raises:
        InputError: `lm-eval` is not installed, or does not know a task; there is no such folder.
    """
    if not tasks:
        return
    if folder is not None and not Path(folder).is_dir():
        raise InputError("there is no such folder of tasks", field="exam.lm_eval_folder", found=folder)
    manager = _manager(folder)
    unknown = [name for name in tasks if not manager.match_tasks([name])]
    if unknown:
        raise InputError("lm-eval has no such task", field="exam.lm_eval_tasks", found=", ".join(unknown))


def run_tasks(
    lm: LanguageModel,
    tasks: Sequence[str],
    folder: str | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Results:
    """Run tasks on a model as it is.

    Args:
        tasks: names, as `lm-eval --tasks` takes them.
        folder: of task files beside lm-eval's own.
        limit: documents a task; all by default.

    Raises:
        InputError: as `check_tasks`.
    """
    check_tasks(tasks, folder)
    if not tasks:
        return {}
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch_size),
        tasks=list(tasks),
        task_manager=_manager(folder),
        limit=limit,
        bootstrap_iters=1000,
    )
    return results_of(found)


def results_of(found: Mapping[str, Any]) -> Results:
    """What is kept of the harness's result: every metric that is a number, with its standard error where it has one."""
    kept: Results = {}
    for task, row in found["results"].items():
        metrics: dict[str, list[float | None]] = {}
        for name, value in row.items():
            metric, _, filtered = name.partition(",")
            if (
                not isinstance(value, int | float)
                or isinstance(value, bool)
                or metric.endswith("_stderr")
                or metric == "sample_len"
            ):
                continue
            error = row.get(f"{metric}_stderr,{filtered}")
            usable = isinstance(error, int | float) and math.isfinite(error)
            metrics[name] = [float(value), float(error) if usable and error is not None else None]
        samples = (found.get("n-samples") or {}).get(task) or {}
        kept[task] = {"n": int(samples.get("effective", 0)), "metrics": metrics}
    return kept


def figures_of(before: Results, after: Results, level: float) -> dict[str, dict[str, Figure]]:
    """Task, then metric, to its value after teaching, with an interval, and the value before."""
    half = NormalDist().inv_cdf((1 + level) / 2)
    figures: dict[str, dict[str, Figure]] = {}
    for task, row in after.items():
        figures[task] = {}
        for metric, (value, error) in row["metrics"].items():
            earlier = before.get(task, {}).get("metrics", {}).get(metric, [None])[0]
            low, high = (None, None) if error is None else (value - half * error, value + half * error)
            reason = "no standard error from lm-eval" if error is None else "normal approximation, from lm-eval's error"
            figures[task][metric] = Figure(value, low, high, row["n"], row["n"], reason, before=earlier)
    return figures


def _manager(folder: str | None) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise InputError(
            "the tasks of lm-eval need the package lm-eval: pip install 'instil[bench]'",
            field="exam.lm_eval_tasks",
            found="not installed",
        ) from None
    return TaskManager(include_path=folder)
