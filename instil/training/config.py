"""Settings of a training run. The description of each field is its help text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from instil.training.sharpness.settings import SharpnessConfig


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSettings(_Settings):
    """Low-rank adapters (Hu et al. 2021, 2106.09685) through `peft`; merged into the weights after training."""

    kind: Annotated[Literal["lora"], Field(description="Low-rank adapters.")] = "lora"
    r: Annotated[int, Field(ge=1, description="Rank of the adapters.")] = 16
    alpha: Annotated[int, Field(ge=1, description="The adapters' output is scaled by alpha / r.")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout on the adapters' input.")] = 0.0
    targets: Annotated[
        tuple[str, ...] | None,
        Field(description="Names of the modules to adapt, such as q_proj; by default every linear layer but the head."),
    ] = None
    layers: Annotated[
        tuple[int, ...] | None, Field(description="Numbers of the layers to adapt, from 0; by default all.")
    ] = None
    keep: Annotated[bool, Field(description="Also save the adapter by itself, beside the merged weights.")] = False


class OsfSettings(_Settings):
    """Orthogonal subspace fine-tuning (Nayak et al. 2025, 2504.07097) through `peft`: every weight matrix is divided by
    its singular values; the directions of the largest stay as they are, the others are trained with gradients that are
    projected off the former. Merged into the weights after training."""

    kind: Annotated[Literal["osf"], Field(description="Orthogonal subspace fine-tuning.")]
    preserved: Annotated[
        float, Field(gt=0, lt=1, description="Share of each matrix's singular directions that stay as they are.")
    ] = 0.5
    targets: Annotated[
        tuple[str, ...] | None,
        Field(description="Names of the modules to divide, such as q_proj; by default all linear layers but the head."),
    ] = None
    keep: Annotated[bool, Field(description="Also save the adapter by itself, beside the merged weights.")] = False


def _kind(adapter: Any) -> str:
    kind = adapter.get("kind", "lora") if isinstance(adapter, Mapping) else getattr(adapter, "kind", "lora")
    return str(kind)


AdapterSettings = Annotated[
    Annotated[LoraSettings, Tag("lora")] | Annotated[OsfSettings, Tag("osf")], Discriminator(_kind)
]
"""Which adapter is trained: its `kind` says, and without one it is "lora"."""

ADAPTERS = ("lora", "osf")


class Budget(_Settings):
    """What may be spent. Training ends after the optimiser step that reaches a limit, so it overshoots by at most one
    step. What the meter has counted before, for whatever purpose, is part of what is spent."""

    flops: Annotated[float | None, Field(gt=0, description="Floating-point operations.")] = None
    seconds: Annotated[float | None, Field(gt=0, description="Seconds of counted work.")] = None

    def share_of_rest(self, share: float, spent: float) -> Budget:
        """Up to where `share` is used of the operations that are left behind those that were `spent`."""
        if self.flops is None or share == 1:
            return self
        # Rounded, so that a resumed lesson, whose meter added the same numbers in another order, finds the same limit.
        limit = float(f"{spent + share * max(self.flops - spent, 0.0):.6g}")
        return self.model_copy(update={"flops": max(limit, 1.0)})


class TrainConfig(_Settings):
    """How a model is trained on a set of examples."""

    epochs: Annotated[int, Field(ge=1, description="Most passes over the examples; `stop` may end it earlier.")] = 10
    optimizer: Annotated[
        Literal["adamw", "muon"],
        Field(
            description="muon: matrices get orthogonal updates; embeddings, norms and biases stay with AdamW. "
            "Rates are alike; a step costs more, so take larger batches."
        ),
    ] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 5e-5
    value_rate: Annotated[
        float,
        Field(
            gt=0,
            description="Peak learning rate of the values of added neurons, which start from nothing; 1 is as "
            "large as what they are added to.",
        ),
    ] = 0.15
    schedule: Annotated[
        Literal["constant", "linear", "cosine"],
        Field(
            description="Learning rate after warmup: constant, or down to zero where the run ends: at the last epoch's "
            "end, or where its budget of operations is spent."
        ),
    ] = "constant"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1, description="Share of all steps with rising learning rate.")] = 0.0
    batch_size: Annotated[
        int | None, Field(ge=1, description="Examples per optimiser step; 32 unless batch_tokens is given.")
    ] = None
    batch_tokens: Annotated[
        int | None, Field(ge=1, description="Tokens per optimiser step, about, instead of batch_size.")
    ] = None
    micro_tokens: Annotated[
        int, Field(ge=1, description="Tokens per forward pass, padding included. Changes memory and speed only.")
    ] = 8192
    row_length: Annotated[
        int, Field(ge=1, description="Most tokens per packed row; a longer example gets a row of its own length.")
    ] = 256
    packing: Annotated[bool, Field(description="Several examples per row, kept apart; false pads each one.")] = True
    betas: Annotated[
        tuple[float, float], Field(description="Decay rates of AdamW's two moments; the first is Muon's momentum.")
    ] = (0.9, 0.999)
    epsilon: Annotated[
        float, Field(gt=0, description="AdamW's ε; one near the gradients' size moves weights of small gradients less.")
    ] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled decay; never on norms and biases.")] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0, description="Gradients are clipped to this norm; 0 turns it off.")] = (
        1.0
    )
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Field(description="Of the forward pass; weights stay fp32. auto: bf16 where the hardware multiplies it."),
    ] = "auto"
    adapter: Annotated[
        AdapterSettings | None, Field(description="Train adapters (kind lora or osf) instead of the weights.")
    ] = None
    parameters: Annotated[
        tuple[str, ...] | None,
        Field(description="Train only parameters whose names match one of these patterns (* and ?)."),
    ] = None
    late_mlp: Annotated[
        float | None,
        Field(gt=0, le=1, description="Train only the MLPs of this last share of the layers, such as 0.5."),
    ] = None
    sharpness: Annotated[
        SharpnessConfig | None,
        Field(description="Sharpness-aware minimization, such as kind sam and rho 0.05; by default none."),
    ] = None
    average: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="End with an exponential moving average of the weights, of this decay at each step, such as "
            "0.98; stops look at the average as well.",
        ),
    ] = None
    mix: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="End with this share of the way from the starting weights, such as 0.8, at what was learned; "
            "stops look at that as well.",
        ),
    ] = None
    restore_best: Annotated[
        bool, Field(description="End with the weights of the last epoch that `stop` called the best, if it names one.")
    ] = True
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Order of the examples and dropout.")] = 0
    save_every: Annotated[
        Literal["epoch", "never"] | Annotated[int, Field(ge=1)],
        Field(description="Checkpoints: at each epoch's end, also every so many steps, or never."),
    ] = "epoch"
    save_seconds: Annotated[
        float, Field(ge=0, description="No checkpoint sooner than this after the one before (one process only).")
    ] = 30.0
    log_every: Annotated[int, Field(ge=1, description="Steps between two points of the learning curve.")] = 10
    report_to: Annotated[tuple[str, ...], Field(description="Trackers of transformers, such as tensorboard.")] = ()
    gradient_checkpointing: Annotated[
        bool, Field(description="Compute activations again in the backward pass: less memory, a third more compute.")
    ] = False

    @model_validator(mode="after")
    def _one_of_each(self) -> TrainConfig:
        if self.batch_size is not None and self.batch_tokens is not None:
            raise ValueError("give batch_size or batch_tokens, not both")
        if sum(given is not None for given in (self.adapter, self.parameters, self.late_mlp)) > 1:
            raise ValueError("give one of adapter, parameters and late_mlp")
        if self.mix is not None and self.adapter is not None:
            raise ValueError("mix is of weights; adapters have a scale of their own")
        return self

    @property
    def window(self) -> dict[str, Any]:
        """What `packing.epoch_windows` is told about the size of an optimiser step."""
        if self.batch_tokens is not None:
            return {"batch_tokens": self.batch_tokens}
        return {"batch_size": self.batch_size or 32}
