"""A comparison made up from known chances, for tests of figures, words, tables, picture and page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from instil.exam.statistics import Bootstrap
from instil.loop.compare_figures import MEASURES, _by_category, compare_pairs, over_seeds, pareto
from instil.loop.compare_words import headline

QUICK = Bootstrap(resamples=500)
CHANCES = {  # arm: (chance to learn, chance to lose)
    "sft": (0.62, 0.3),
    "sft+replay": (0.6, 0.12),
    "sft+kl": (0.5, 0.1),
    "sft+lora": (0.55, 0.2),
    "sft+osf": (0.45, 0.11),
    "cpt": (0.15, 0.06),
    "gradual": (0.58, 0.05),
}


def frame(chances: dict[str, tuple[float, float]], *, seeds: int = 3, facts: int = 200) -> pd.DataFrame:
    """Rows as `rows_of` makes them: half of the facts were to be learned, half could be lost."""
    rng, rows = np.random.default_rng(0), []
    ease = rng.normal(0, 0.1, facts)
    for arm, (learn, lose) in chances.items():
        for seed in range(seeds):
            for fact in range(facts):
                taught = fact % 2 == 0
                hit = bool(rng.random() < (learn if taught else lose) + ease[fact])
                outcome = dict.fromkeys(MEASURES) | (
                    {"learned": hit, "learned_as_worded": hit or fact % 10 == 0}
                    if taught
                    else {"lost": hit, "corrupted": hit and fact % 3 == 0}
                    if fact % 20 != 1
                    else {"made_up": hit}
                )
                rows.append(
                    {
                        "arm": arm,
                        "seed": seed,
                        "fact_id": f"f{fact}",
                        "cluster": f"s{fact // 4}",
                        "role": "target" if taught else "held_back",
                        "category_before": "Unknown" if taught else "HighlyKnown",
                        "p_greedy_before": 0.0 if taught else 1.0,
                        "p_greedy_after": float(hit) if taught else float(not hit),
                        **outcome,
                    }
                )
    return pd.DataFrame(rows).astype(dict.fromkeys(MEASURES, object))


def summary(chances: dict[str, tuple[float, float]] = CHANCES, *, seeds: int = 3, **changes: Any) -> dict[str, Any]:
    """The content of `summary.json`."""
    rows, arms = frame(chances, seeds=seeds), []
    for place, name in enumerate(chances):
        own = rows[rows["arm"] == name]
        runs = [
            {
                "seed": seed,
                "run_id": f"run-{seed}",
                "folder": f"arms/{name}/seed-{seed}",
                "spent": 9e14,
                "of_budget": 0.9,
                "ended": "when the method was done",
                "seconds": 61.0,
                **{
                    measure: float(own[own["seed"] == seed][measure].dropna().astype(float).mean())
                    for measure in MEASURES
                },
            }
            for seed in range(seeds)
        ]
        arms.append(
            {
                "name": name,
                "method": name.split("+")[0],
                "settings": {"train": {"learning_rate": 1e-4, "seed": 0}, "replay_ratio": 0.1 * place},
                "compared": True,
                "reason": None,
                "runs": runs,
                "failed": [],
                "figures": {measure: over_seeds(own, measure, QUICK).to_dict() for measure in MEASURES},
                "spent": 9e14,
                "seconds": 61.0,
                "cost": {
                    "training": {"flops": 8e14, "tokens": 1, "seconds": 60.0},
                    "deciding": {"flops": 1e14, "tokens": 1, "seconds": 1.0},
                },
                "headline": {"perplexity_ratio": {"mean": 1.02, "by_seed": [1.02] * seeds, "n": 64}},
                "by_category": _by_category(own),
            }
        )
    pairs = compare_pairs(rows, list(chances), QUICK)
    found: dict[str, Any] = {
        "kind": "comparison",
        "version": "0",
        "command": "instil compare MODEL FACTS",
        "seed": 0,
        "seeds": list(range(seeds)),
        "model": {"name": "tiny", "source": None, "fingerprint": "a", "parameters": 1e6, "dtype": "f", "device": "cpu"},
        "data": {
            "facts_fingerprint": "b",
            "documents_fingerprint": "c",
            "exam_fingerprint": "d",
            "facts": {"target": 100, "held_back": 100},
            "documents": 0,
        },
        "learned_in": "other wordings",
        "budget": {"flops": 1e15, "given": True},
        "level": 0.95,
        "arms": arms,
        "pairs": pairs,
        "family": {"correction": "Holm", "size": len(pairs), "what": "every pair of arms"},
        "pareto": pareto(arms),
        "failures": [],
        "left_out": [],
        "hardware": {
            "processor": "x",
            "threads": 1,
            "accelerators": [],
            "python": "3",
            "torch": "2",
            "transformers": "5",
        },
        "commit": None,
        "finished": "2026-01-01T00:00:00",
    } | changes
    return found | {"headline": headline(found)}
