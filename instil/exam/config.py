"""The settings of an exam."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from instil.exam.statistics import Bootstrap


class ExamConfig(BaseModel):
    """What is asked before and after teaching, and how the figures get their intervals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wordings: int = Field(
        default=3, ge=0, description="other wordings asked of each fact to be taught, where it has some"
    )
    held_back_wordings: int = Field(default=1, ge=0, description="other wordings asked of each fact that is held back")
    first_wording: int = Field(
        default=0, ge=0, description="paraphrases before this one are left to methods that train on them, and not asked"
    )
    reworded_sets: int = Field(
        default=4,
        ge=1,
        description="exemplar sets for other wordings; fewer than for the wording taught, to save compute",
    )
    confidence_sets: int = Field(
        default=4,
        ge=0,
        description="exemplar sets for the probability of the model's own wrong answer; 0: nothing counts as made up",
    )
    earlier: int = Field(
        default=2_000, ge=0, description="facts that earlier lessons of the same ledger taught, asked again, at most"
    )
    general_texts: int = Field(default=64, ge=0, description="texts for perplexity, at most")
    abstentions: tuple[str, ...] = Field(
        default=(), description="answers that begin so say 'I don't know', besides the English ones that are recognised"
    )
    resamples: int = Field(default=10_000, ge=100, description="bootstrap resamples for every interval")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="of the intervals")
    seed: int = Field(default=0, description="of the resampling and of the choice of general texts")

    @property
    def bootstrap(self) -> Bootstrap:
        return Bootstrap(resamples=self.resamples, level=self.level, seed=self.seed)
