"""The facts of the page in little room: columns over one pool of strings, gzipped, as base64.

Ten thousand facts with every wording asked stay under 1.6 MB this way. What does not fit is left out by a rule that is
stated on the page; the ledger has all of it.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from instil.report.words import CATEGORIES, VERDICTS, count, shortened, visible

Row = Mapping[str, Any]

LONGEST_TEXT = 320  # characters of one text that the page carries
LONGEST_EVIDENCE = 1_000
BUDGET = 1_500_000  # bytes of base64, which with the scripts keeps the page under 3 MB


class Pool:
    """Each different text once; everything else points into it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._place: dict[str, int] = {}

    def add(self, text: object, limit: int = LONGEST_TEXT) -> int:
        """Index of the text, made visible and shortened; -1 for None."""
        if text is None:
            return -1
        shown = shortened(visible(str(text)), limit)
        if shown not in self._place:
            self._place[shown] = len(self.texts)
            self.texts.append(shown)
        return self._place[shown]


def pack(verdicts: Sequence[Row], exam_answers: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The verdict rows and the answers behind them as columns.

    Args:
        verdicts: rows of the ledger's table, in the order to show.
        exam_answers: fact id -> that fact's answer rows of the exam, each with `moment` "before" or "after".

    Returns:
        {"n", "texts": [...], "columns": {name: [int, ...]}, "verdicts": [...], "wordings": {row: [wording, ...]}}.
        Texts are places in `texts` (-1 for none), shares are thousandths (-1 for none), categories and verdicts are
        places in `CATEGORIES` and in "verdicts"; a wording is what `_wordings` says.
    """
    pool = Pool()
    verdict_names = [*VERDICTS, *sorted({str(row["verdict"]) for row in verdicts} - set(VERDICTS))]
    columns: dict[str, list[int]] = {}
    for name in ("fact_id", "role", "relation", "subject", "question", "answer", "answer_before", "answer_after"):
        columns[name] = [pool.add(row.get(name)) for row in verdicts]
    columns["evidence"] = [pool.add(row.get("evidence"), LONGEST_EVIDENCE) for row in verdicts]
    for moment in ("before", "after"):
        columns[f"category_{moment}"] = [_place(CATEGORIES, row.get(f"category_{moment}")) for row in verdicts]
        for figure in ("p_greedy", "p_sampled", "reworded_known"):
            columns[f"{figure}_{moment}"] = [_thousandths(row.get(f"{figure}_{moment}")) for row in verdicts]
    columns["verdict"] = [_place(verdict_names, row["verdict"]) for row in verdicts]
    asked = [_as_worded_after(exam_answers.get(str(row["fact_id"]), ())) for row in verdicts]
    columns["p_prior"] = [_thousandths(row.get("p_prior")) for row in asked]
    columns["gold_in_prompt"] = [int(bool(row.get("gold_in_prompt"))) for row in asked]
    wordings = {
        place: packed
        for place, row in enumerate(verdicts)
        if (packed := _wordings(exam_answers.get(str(row["fact_id"]), ()), pool))
    }
    return {
        "n": len(verdicts),
        "texts": pool.texts,
        "columns": columns,
        "verdicts": verdict_names,
        "wordings": wordings,
    }


def fit(
    verdicts: Sequence[Row], exam_answers: Mapping[str, Sequence[Row]], budget: int = BUDGET
) -> tuple[str, dict[str, int], list[str]]:
    """The packed facts as base64 within the budget, how many are in it, and a note on each thing that stayed out."""
    notes: list[str] = []
    encoded = encode(pack(verdicts, exam_answers))
    if len(encoded) > budget and exam_answers:
        notes.append("To keep this page small, the table leaves out the answers to each other wording.")
        exam_answers = {}
        encoded = encode(pack(verdicts, exam_answers))
    shown = verdicts
    while len(encoded) > budget and len(shown) > 1:
        shown = _spread(shown, min(len(shown) - 1, int(len(shown) * 0.9 * budget / len(encoded))))
        encoded = encode(pack(shown, exam_answers))
    if len(shown) < len(verdicts):
        notes.append(
            f"To keep this page small, the table shows {count(len(shown))} of {count(len(verdicts))} facts, evenly "
            "spread over the ledger's order. Every figure above is over all of them."
        )
    return encoded, {"shown": len(shown), "all": len(verdicts)}, notes


def encode(value: Any) -> str:
    """JSON, gzip (without a time stamp, so that the same facts give the same page), base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode("ascii")


def decode(encoded: str) -> Any:
    """What `encode` was given: the page's script does the same."""
    return json.loads(gzip.decompress(base64.b64decode(encoded)))


def _spread(rows: Sequence[Row], number: int) -> list[Row]:
    number = max(1, number)
    return [rows[place * len(rows) // number] for place in range(number)]


def _place(names: Sequence[str], name: object) -> int:
    return names.index(str(name)) if name in names else -1


def _thousandths(share: float | None) -> int:
    return round(1000 * share) if share is not None and math.isfinite(share) else -1


def _as_worded_after(rows: Iterable[Row]) -> Row:
    return next((row for row in rows if row["moment"] == "after" and row["part"] in ("as_worded", "held_back")), {})


def _wordings(rows: Iterable[Row], pool: Pool) -> list[list[int]]:
    """[question, answer before, known before, answer after, known after] of each wording that was not taught."""
    by_question: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["part"] in ("reworded", "held_back_reworded"):
            by_question.setdefault(str(row["question_id"]), {})[row["moment"]] = row
    return [_wording(moments, pool) for moments in by_question.values()]


def _wording(moments: Mapping[str, Row], pool: Pool) -> list[int]:
    before, after = moments.get("before", {}), moments.get("after", {})
    return [
        pool.add(before.get("question", after.get("question"))),
        pool.add(before.get("greedy_answer")),
        int(bool(before.get("known"))),
        pool.add(after.get("greedy_answer")),
        int(bool(after.get("known"))),
    ]
