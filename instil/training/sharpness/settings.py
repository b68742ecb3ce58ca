"""Settings of a sharpness-aware step. The description of each field is its help text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["sam", "asam", "momentum", "looksam", "functional", "random"]
KINDS: tuple[Kind, ...] = ("sam", "asam", "momentum", "looksam", "functional", "random")
WITHOUT_ASCENT = ("momentum", "random")

Phase = Literal["plain", "sharp", "reuse"]


class SharpnessConfig(BaseModel):
    """Sharpness-aware minimization: where the gradient is taken instead of at the weights themselves.

    `kind` says how weights are moved before the gradient is taken; all other fields but `eta` and `alpha` say when, by
    what part of the data and which weights, and go with every kind for which they mean something. Formulas and what
    each costs: docs/sharpness.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[
        Kind,
        Field(
            description="sam: along the gradient; asam: the same, in units of each weight; momentum: against the "
            "optimiser's momentum, no second pass; looksam: the change that sam makes is kept for some steps; "
            "functional: sam without what it does to the loss's derivative by the logits; random: a control."
        ),
    ] = "sam"
    rho: Annotated[
        float,
        Field(ge=0, description="How far weights are moved, as a Euclidean norm; asam takes about ten times as much."),
    ] = 0.05
    eta: Annotated[float, Field(ge=0, description="asam: added to each weight's size.")] = 0.01
    alpha: Annotated[float, Field(ge=0, description="looksam: size of what is kept, as a share of the gradient.")] = 0.7
    every: Annotated[
        int | None,
        Field(ge=1, description="A sharpness-aware step every so many steps; by default 1, and 5 for looksam."),
    ] = None
    start: Annotated[
        float, Field(ge=0, lt=1, description="Share of the run after which it begins; plain steps before.")
    ] = 0.0
    share: Annotated[
        float, Field(gt=0, le=1, description="Share of each window that the ascent pass reads; the descent reads all.")
    ] = 1.0
    share_of: Annotated[
        Literal["rows", "micro_batches"],
        Field(description="What the share is taken of: each micro-batch's rows (one at least), or micro-batches."),
    ] = "rows"
    perturb: Annotated[
        Literal["all", "norms"] | tuple[str, ...],
        Field(description="Weights that are moved: all that are trained, norm layers, or names by patterns (* and ?)."),
    ] = "all"
    scope: Annotated[
        Literal["window", "micro_batch"],
        Field(description="One move for an optimiser step's whole window, or one for each micro-batch of it."),
    ] = "window"
    check_every: Annotated[
        int, Field(ge=1, description="Steps between two comparisons of the move as it came out with the one intended.")
    ] = 10

    @model_validator(mode="after")
    def _goes_together(self) -> SharpnessConfig:
        if self.eta != 0.01 and self.kind != "asam":
            raise ValueError("eta belongs to kind asam")
        if self.alpha != 0.7 and self.kind != "looksam":
            raise ValueError("alpha belongs to kind looksam")
        if self.kind in WITHOUT_ASCENT and self.share != 1:
            raise ValueError(f"kind {self.kind} has no ascent pass that could read a share of the window")
        if self.kind in ("looksam", *WITHOUT_ASCENT) and self.scope != "window":
            raise ValueError(f"kind {self.kind} moves the weights once a window")
        if self.scope == "micro_batch" and self.share != 1 and self.share_of == "micro_batches":
            raise ValueError("with scope micro_batch a share can only be one of rows")
        if not self.perturb:
            raise ValueError("perturb names no weights")
        return self

    @property
    def interval(self) -> int:
        """Steps from one sharpness-aware step to the next."""
        return self.every or (5 if self.kind == "looksam" else 1)

    @property
    def ascends(self) -> bool:
        """Whether there is a pass that finds out where to move."""
        return self.kind not in WITHOUT_ASCENT

    def begins(self, progress: float) -> bool:
        """Whether sharpness-aware steps have begun when so much of the run is over, from 0 to 1."""
        return progress >= self.start

    def phase(self, step: int, begun: int | None) -> Phase:
        """What step number `step` (from 0) is, where `begun` was the first that was sharpness-aware (None: not yet)."""
        if begun is None or step < begun:
            return "plain"
        if (step - begun) % self.interval == 0:
            return "sharp"
        return "reuse" if self.kind == "looksam" else "plain"

    @property
    def cost_multiple(self) -> float:
        """Operations as a multiple of the plain step's, over a whole run, for plans; the meter counts what is real.

        A pass forward and back is 1, of which the gradients of the weights are a third. What a share loses to whole
        rows, and what lies below the lowest norm layer, is not in it.
        """
        if not self.ascends:
            return 1.0
        # Only moved weights need a gradient to move along; looksam needs all, to take the plain gradient's part out.
        ascent = self.share * (2 / 3 if self.perturb == "norms" and self.kind != "looksam" else 1.0)
        if self.kind == "functional" and self.share < 1:
            ascent += 1 / 3  # the rest of the window is read for its logits
        return 1.0 + ascent * (1 - self.start) / self.interval

    def extra_bytes(self, trained: int) -> int:
        """Bytes that it keeps beside weights, gradients and optimiser for `trained` weights in fp32.

        A copy of the weights; looksam what it keeps; with a move for each micro-batch two gradients at once. Not in it
        are functional's gradients by the logits: 2 or 4 bytes for each target token of a window and entry of the
        vocabulary.
        """
        return 4 * trained * (2 if self.kind == "looksam" or self.scope == "micro_batch" else 1)
