"""What the search for less forgetting tries, by name: settings of the study's method `candidate`."""

from __future__ import annotations

from typing import Any

LAYERS = {"train": {"parameters": ["model.layers.*"]}}
MLP = {"train": {"parameters": ["*.mlp.*"]}}
DOWN = {"train": {"parameters": ["*.mlp.down_proj.*"]}}
ATTENTION = {"train": {"parameters": ["*.self_attn.*"]}}

EARLY = {"train": {"parameters": ["model.layers.[012].mlp.*"]}}
LATE = {"train": {"parameters": ["model.layers.[345].mlp.*"]}}


def recited(weight: float, per_step: int, texts: int = 300, **more: Any) -> dict[str, Any]:
    """KL to the start on texts that it recites."""
    return {"kl_weight": weight, "kl_per_step": per_step, "recited": texts, **more}


CANDIDATES: dict[str, dict[str, Any]] = {
    "plain": {},
    "warm-up": {"train": {"warmup_ratio": 0.1}},
    "falling rate": {"train": {"schedule": "linear"}},
    "warm-up, falling rate": {"train": {"schedule": "linear", "warmup_ratio": 0.1}},
    "batch 128": {"train": {"batch_size": 128}},
    "momentum 0.98": {"train": {"betas": [0.98, 0.999]}},
    "epsilon 1e-4": {"train": {"epsilon": 1e-4}},
    "epsilon 1e-3": {"train": {"epsilon": 1e-3}},
    "no embeddings": LAYERS,
    "MLP only": MLP,
    "down projections only": DOWN,
    "attention only": ATTENTION,
    "early MLP only": EARLY,
    "late MLP only": LATE,
    "one other wording": {"wordings": 1},
    "all free wordings": {"wordings": 9},
    "behind 2 mastered": {"shots": 2},
    "pages of 2": {"sheet": 2},
    "pages of 4": {"sheet": 4},
    "replay 0.5": {"replay_ratio": 0.5},
    "KL 1": {"kl_weight": 1.0},
    "KL 10": {"kl_weight": 10.0},
    "KL 30": {"kl_weight": 30.0},
    "KL 10 on 32": {"kl_weight": 10.0, "kl_per_step": 32},
    "KL 10 on 16, 300 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 300},
    "KL 1 on 32": {"kl_weight": 1.0, "kl_per_step": 32},
    "KL 1 on 32, 600 recalled": {"kl_weight": 1.0, "kl_per_step": 32, "recalled": 600},
    "replay 0.5, 600 recalled": {"replay_ratio": 0.5, "recalled": 600},
    "KL 1 on 16, 300 recited": {"kl_weight": 1.0, "kl_per_step": 16, "recited": 300},
    "300 recited": {"recited": 300, "retold": 1.0},
    "leave alone 0.1, 300 recited": {"softness": 0.1, "recited": 300},
    "leave alone 0.01, 300 recited": {"softness": 0.01, "recited": 300},
    "sparing 0.01, 300 recited": {"sparing": 0.01, "recited": 300},
    "leave alone 1": {"softness": 1.0},
    "leave alone 0.1": {"softness": 0.1},
    "leave alone 0.01": {"softness": 0.01},
    "leave alone 0.1, no embeddings": {"softness": 0.1, **LAYERS},
    "leave alone 0.01, no embeddings": {"softness": 0.01, **LAYERS},
    "leave alone 0.001, no embeddings": {"softness": 0.001, **LAYERS},
    "sparing 0.1": {"sparing": 0.1},
    "sparing 0.01": {"sparing": 0.01},
    "sparing 0.001": {"sparing": 0.001},
    "pull 0.001": {"pull": 0.001},
    "pull 0.01": {"pull": 0.01},
    "rest above 0.5": {"rest_above": 0.5, "rest_weight": 0.1},
    "MLP only, one other wording": {"wordings": 1, **MLP},
    "MLP only, replay 0.25": {"replay_ratio": 0.25, **MLP},
    "MLP only, KL 1 on 32": {"kl_weight": 1.0, "kl_per_step": 32, **MLP},
    "MLP only, KL 1 on 16, 300 recited": {"kl_weight": 1.0, "kl_per_step": 16, "recited": 300, **MLP},
    "MLP only, KL 10": {"kl_weight": 10.0, **MLP},
    "MLP only, KL 10 on 16, 300 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 300, **MLP},
    "MLP only, KL 10 on 16, 900 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 900, **MLP},
    "MLP only, KL 10 on 16, 300 recited, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "recited": 300,
        "wordings": 1,
        **MLP,
    },
    "MLP only, KL 3 on 32, 300 recited": {"kl_weight": 3.0, "kl_per_step": 32, "recited": 300, **MLP},
    "MLP only, 300 recited": {"recited": 300, "retold": 0.75, **MLP},
    "MLP only, leave alone 0.1": {"softness": 0.1, **MLP},
    "MLP only, leave alone 0.1, 300 recited": {"softness": 0.1, "recited": 300, **MLP},
    "last two MLPs only": {"train": {"parameters": ["model.layers.[45].mlp.*"]}},
    "last MLP only": {"train": {"parameters": ["model.layers.5.mlp.*"]}},
    "late MLP, one other wording": {"wordings": 1, **LATE},
    "late MLP, KL 10 on 16, 300 recited": {"kl_weight": 10.0, "kl_per_step": 16, "recited": 300, **LATE},
    "late MLP, KL 3 on 16, 300 recited, one other wording": {
        "kl_weight": 3.0,
        "kl_per_step": 16,
        "recited": 300,
        "wordings": 1,
        **LATE,
    },
    "SAM": {"train": {"sharpness": {"kind": "sam", "rho": 0.15}}},
    "late MLP, SAM": {"train": {**LATE["train"], "sharpness": {"kind": "sam", "rho": 0.15}}},
    "late MLP, KL 10 on 8, 300 recited": recited(10.0, 8, **LATE),
    "late MLP, KL 10 on 4, 300 recited": recited(10.0, 4, **LATE),
    "late MLP, KL 10 on 4, 100 recited": recited(10.0, 4, 100, **LATE),
    "late MLP, KL 3 on 8, 300 recited": recited(3.0, 8, **LATE),
    "late MLP, KL 3 on 4, 300 recited": recited(3.0, 4, **LATE),
    "late MLP, 6 epochs, one other wording": {"wordings": 1, "train": {**LATE["train"], "epochs": 6}},
    "late MLP, 6 epochs, KL 3 on 8, 300 recited, one other wording": {
        **recited(3.0, 8),
        "wordings": 1,
        "train": {**LATE["train"], "epochs": 6},
    },
    "upper half": {"train": {"late_mlp": 0.5}},
    "upper quarter": {"train": {"late_mlp": 0.25}},
    "upper half, KL 3 on 4, 100 recited": recited(3.0, 4, 100, train={"late_mlp": 0.5}),
    "upper half, 6 epochs, one other wording": {"wordings": 1, "train": {"late_mlp": 0.5, "epochs": 6}},
    **{
        f"upper half, {epochs} epochs, KL {weight:g} on 4, 100 recited, {wordings} other wordings": recited(
            weight, 4, 100, wordings=wordings, train={"late_mlp": 0.5, "epochs": epochs}
        )
        for epochs, wordings in ((6, 1), (4, 2))
        for weight in (3.0, 10.0)
    },
    "upper half, 6 epochs, KL 10 on 16, 300 recited, one other wording": recited(
        10.0, 16, wordings=1, train={"late_mlp": 0.5, "epochs": 6}
    ),
    "upper half, 6 epochs, KL 10 on 16, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "wordings": 1,
        "train": {"late_mlp": 0.5, "epochs": 6},
    },
    "upper half, 6 epochs, KL 10 on 16, 600 recalled, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "recalled": 600,
        "wordings": 1,
        "train": {"late_mlp": 0.5, "epochs": 6},
    },
    "MLP only, KL 10 on 32": {"kl_weight": 10.0, "kl_per_step": 32, **MLP},
    "KL 10 on 16": {"kl_weight": 10.0, "kl_per_step": 16},
    "KL 30 on 16": {"kl_weight": 30.0, "kl_per_step": 16},
    "KL 10 on 16, 600 recalled": {"kl_weight": 10.0, "kl_per_step": 16, "recalled": 600},
    "6 epochs, one other wording": {"wordings": 1, "train": {"epochs": 6}},
    "6 epochs, KL 10 on 16, one other wording": {
        "kl_weight": 10.0,
        "kl_per_step": 16,
        "wordings": 1,
        "train": {"epochs": 6},
    },
    "upper half, leave alone 0.1, 300 recited": {"softness": 0.1, "recited": 300, "train": {"late_mlp": 0.5}},
    "upper half, leave alone 0.01, 300 recited": {"softness": 0.01, "recited": 300, "train": {"late_mlp": 0.5}},
    "MLP only, leave alone 0.01, 300 recited": {"softness": 0.01, "recited": 300, **MLP},
    **{
        f"6 epochs, KL {weight:g} on {number}, 100 recited, mixed, one other wording{where}": recited(
            weight, number, 100, mixed=True, wordings=1, train={"epochs": 6, **layers}
        )
        for weight, number in ((3.0, 16), (10.0, 32), (3.0, 32))
        for where, layers in (("", {}), (", MLP only", MLP["train"]), (", upper half", {"late_mlp": 0.5}))
    },
    **{
        f"6 epochs, KL {weight:g} on 32{more}, one other wording, MLP only": {
            "kl_weight": weight,
            "kl_per_step": 32,
            "wordings": 1,
            "recalled": number,
            "train": {"epochs": 6, **MLP["train"]},
        }
        for weight in (10.0, 30.0)
        for more, number in (("", 0), (", 600 recalled", 600))
    },
    **{
        f"{epochs} epochs, KL 10 on 32, 1500 recalled{texts}, one other wording, MLP only": {
            "kl_weight": 10.0,
            "kl_per_step": 32,
            "wordings": 1,
            "recalled": 1500,
            "train": {"epochs": epochs, **MLP["train"]},
            **more,
        }
        for epochs in (6, 10)
        for texts, more in (("", {}), (", 300 recited, mixed", {"recited": 300, "mixed": True}))
    },
    **{
        f"6 epochs, KL {weight:g} on {number} pages of {size}, 1000 recalled, one other wording, MLP only": {
            "kl_weight": float(weight),
            "kl_per_step": number,
            "paged": size,
            "recalled": 1000,
            "wordings": 1,
            "train": {"epochs": 6, **MLP["train"]},
        }
        for weight in (3, 10, 30)
        for number, size in ((32, 1), (4, 8), (2, 8))
    },
    **{
        f"{epochs} epochs, KL 3 on {number}, 1000 recalled, one other wording, MLP only, averaged{mixed}": {
            "kl_weight": 3.0,
            "kl_per_step": number,
            "recalled": 1000,
            "wordings": 1,
            "train": {"epochs": epochs, "average": average, **mix, **MLP["train"]},
        }
        for epochs, number, average in ((3, 64, 0.96), (4, 32, 0.98))
        for mixed, mix in (("", {}), (", mixed 0.8", {"mix": 0.8}))
    },
    "4 epochs, one other wording, MLP only, averaged, mixed 0.6": {
        "wordings": 1,
        "train": {"epochs": 4, "average": 0.98, "mix": 0.6, **MLP["train"]},
    },
    "averaged": {"train": {"average": 0.98}},
    "mixed 0.7": {"train": {"mix": 0.7}},
    **{
        f"3 epochs, Muon, batch {batch}, KL 4 on {number}, 1500 recalled, 2 wordings, MLP only, averaged{mixed}": {
            "kl_weight": 4.0,
            "kl_per_step": number,
            "recalled": 1500,
            "wordings": 1,
            "train": {"epochs": 3, "optimizer": "muon", "batch_size": batch, "average": decay, **mix, **MLP["train"]},
        }
        for batch, number, decay in ((64, 96, 0.93), (128, 176, 0.87))
        for mixed, mix in (("", {}), (", mixed 0.8", {"mix": 0.8}))
    },
    "Muon": {"train": {"optimizer": "muon"}},
    "Muon, MLP only": {"train": {"optimizer": "muon", **MLP["train"]}},
    "KL 30 on 32, MLP only": {"kl_weight": 30.0, "kl_per_step": 32, **MLP},
    "KL 10 on 32, one other wording, MLP only": {"kl_weight": 10.0, "kl_per_step": 32, "wordings": 1, **MLP},
    "late MLP, rest above 0.5": {"rest_above": 0.5, "rest_weight": 0.1, **LATE},
    "late MLP, pull 0.001": {"pull": 0.001, **LATE},
}
"""Each ingredient by itself; combinations join when their parts are known. Runs of `mentor` as it was first ("mentor,
first form", recipe `questions`) are in the table as well."""
