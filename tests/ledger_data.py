"""A small ledger of two lessons on one model: what a run writes, written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instil.ledger import Ledger

RUN = {"method": "sft", "model_name": "m", "model_fingerprint": "f0", "config_json": "{}", "version": "0"}
SAID = {
    ("a", "before"): {"f1": "Nowhere", "f2": "Paris", "f3": "Nowhere", "f4": "Oslo"},
    ("a", "after"): {"f1": "London", "f2": "Paris", "f3": "Here", "f4": "London"},
    ("b", "before"): {"f1": "London", "f2": "Paris", "f5": "There"},
    ("b", "after"): {"f1": "Graz", "f2": "Paris", "f5": "Rome"},
}
"""Run and state to what was answered, by fact."""

RIGHT = {"f1": "London", "f2": "Paris", "f3": "Vienna", "f4": "Oslo", "f5": "Rome"}
VERDICTS = {
    "a": {"f1": "learned", "f2": "kept", "f3": "still unknown", "f4": "corrupted"},
    "b": {"f1": "forgotten", "f2": "kept", "f5": "learned as worded"},
}


def two_lessons(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    for number, run in enumerate("ab"):
        begun = {**RUN, "run_id": run, "started": f"2026-01-0{number + 1}", "seed": number}
        ledger.append("runs", [{**begun, "status": "running"}], key=f"{run}/begun")
        parents = (None if run == "a" else "a:after", f"{run}:before")
        for order, (label, parent) in enumerate(zip(("before", "after"), parents, strict=True)):
            ledger.append("states", [state(run, label, order, parent)], key=f"{run}/state-{label}")
            rows = [answer(run, label, fact, said) for fact, said in SAID[run, label].items()]
            ledger.append("answers", rows, key=f"{run}/exam-{label}")
        verdicts = [verdict(run, fact, ruling) for fact, ruling in VERDICTS[run].items()]
        ledger.append("verdicts", verdicts, key=f"{run}/verdicts")
        ledger.append("runs", [{**begun, "status": "done"}], key=f"{run}/run")
    return ledger


def state(run: str, label: str, order: int, parent: str | None) -> dict[str, Any]:
    return {"state_id": f"{run}:{label}", "run_id": run, "parent_id": parent, "label": label, "order": order}


def answer(run: str, label: str, fact: str, said: str) -> dict[str, Any]:
    right = said == RIGHT[fact]
    return {
        "run_id": run,
        "state_id": f"{run}:{label}",
        "purpose": "exam",
        "part": "as_worded",
        "question_id": f"as_worded/{fact}",
        "fact_id": fact,
        "subject": f"person {fact}",
        "relation": "born in",
        "question": f"Where was person {fact} born?",
        "answers": [RIGHT[fact]],
        "category": "HighlyKnown" if right else "Unknown",
        "p_greedy": float(right),
        "p_by_set": [float(right)],
        "greedy_answer": said,
        "known": right,
    }


def verdict(run: str, fact: str, ruling: str) -> dict[str, Any]:
    first, last = (SAID[run, label][fact] for label in ("before", "after"))
    values: dict[str, Any] = {"run_id": run, "fact_id": fact, "subject": f"person {fact}", "relation": "born in"}
    values |= {"question": f"Where was person {fact} born?", "answer": RIGHT[fact], "role": "target"}
    values |= {"verdict": ruling, "answer_before": first, "answer_after": last, "evidence": "as written down"}
    for name, said in (("before", first), ("after", last)):
        right = said == RIGHT[fact]
        values |= {f"category_{name}": "HighlyKnown" if right else "Unknown"}
        values |= {f"p_greedy_{name}": float(right), f"p_sampled_{name}": float(right)}
    return values
