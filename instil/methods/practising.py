"""Settings that the methods share which learn from documents and from practice questions about other documents."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from instil.training import Balance, TrainConfig

PAPER_RATE = 1 / 6
"""5e-6 by 3e-5: the rate of questions by that of documents in Jiang et al. 2024 (arXiv 2402.12847), section 3.2."""


class Practising(BaseModel):
    """Settings of a method with practice questions."""

    model_config = ConfigDict(extra="forbid")

    train: TrainConfig = Field(
        default_factory=TrainConfig, description="how stages are trained; epochs are passes over the documents"
    )
    balance: Balance = Field(
        default=Balance.EXAMPLES,
        description="what counts alike in the loss: examples (a document, a question) or tokens",
    )
    question_weight: float = Field(
        default=1.0, gt=0, description="factor on the loss of questions that are mixed with documents"
    )

    def questions_alone(self, epochs: int, rate: float) -> TrainConfig:
        """How a stage of questions alone is trained: for so many epochs, at this share of the learning rate."""
        return self.train.model_copy(update={"epochs": epochs, "learning_rate": rate * self.train.learning_rate})

    def for_epochs(self, epochs: int) -> TrainConfig:
        return self.train.model_copy(update={"epochs": epochs})
