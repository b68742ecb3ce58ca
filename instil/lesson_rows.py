"""What a lesson writes into the ledger of what it saw and did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instil.facts import Fact, Role

if TYPE_CHECKING:
    from instil.probe import Mastery
    from instil.training import TrainResult


def deciding_row(fact: Fact, row: Mastery) -> dict[str, Any]:
    """A row of `answers`, without what it belongs to: how a fact was answered when the method asked."""
    return {
        "purpose": "deciding",
        "part": "probe",
        "question_id": row.fact_id,
        "subject": fact.subject,
        "answers": list(fact.answers),
        "taught": fact.role is Role.TARGET,
        "known": row.p_greedy >= 0.5,
        "start_category": None,
        **{name: value for name, value in row.to_dict().items() if name != "answer"},
    }


def point_rows(run_id: str, stage: str, count: int, result: TrainResult) -> list[dict[str, Any]]:
    """Rows of `stages`: the points of a stage that trained on so many facts and documents."""
    scores = {epoch: decision.score for epoch, decision in enumerate(result.decisions, start=1)}
    return [
        {
            "run_id": run_id,
            "stage": stage,
            "facts": count,
            "development_accuracy": scores.get(int(point["epoch"])) if point["epoch"].is_integer() else None,
            **point,
        }
        for point in result.points
    ]
