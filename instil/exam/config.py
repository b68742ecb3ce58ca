"""The settings of an exam."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

from instil.exam.statistics import Bootstrap

FurtherPart: TypeAlias = Literal[
    "completed",
    "reversed",
    "choice",
    "choice_as_text",
    "two_hops",
    "in_context",
    "same_subject",
    "no_such_subject",
    "knowedit",
]
FURTHER_PARTS: Final[tuple[FurtherPart, ...]] = get_args(FurtherPart)


ClozeKind: TypeAlias = Literal["date", "name", "number", "word"]
CLOZE_KINDS: Final[tuple[ClozeKind, ...]] = get_args(ClozeKind)


class ClozeConfig(BaseModel):
    """How an exam is made from documents that come without questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_document: int = Field(default=4, ge=1, description="items of a document that is taught or held back, at most")
    items: int = Field(
        default=400, ge=1, description="items about taught documents, at most; of held-back ones, as many more"
    )
    kinds: tuple[ClozeKind, ...] = Field(
        default=CLOZE_KINDS, min_length=1, description="what is left out of a sentence: date, name, number, word"
    )
    context_words: int = Field(
        default=30, ge=0, description="words of the sentences before, at most, that stand in front of the cut sentence"
    )
    held_back_share: float = Field(
        default=0.15, ge=0, lt=0.8, description="of the documents: never taught, asked before and after"
    )
    exemplar_share: float = Field(
        default=0.10, ge=0, lt=0.8, description="of the documents, but eight at most: worked items, never taught"
    )
    passage_words: int = Field(
        default=200, ge=20, description="where there are fewer than `fewest_documents`, they are divided so"
    )
    fewest_documents: int = Field(
        default=12, ge=1, description="below this, roles are given to passages and not to whole documents"
    )


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
    parts: tuple[FurtherPart, ...] = Field(
        default=FURTHER_PARTS,
        description="what is asked beside facts as worded and reworded; docs/exam.md says what each part is",
    )
    part_facts: int = Field(
        default=80, ge=1, description="facts that each of these parts asks at most, drawn by the seed"
    )
    part_sets: int = Field(default=2, ge=1, description="exemplar sets for these parts")
    reverse_subjects: int = Field(
        default=3, ge=1, description="subjects that the answer may name at most where a fact is asked in reverse"
    )
    options: int = Field(default=4, ge=2, le=26, description="answers that a choice offers")
    openings: int = Field(default=12, ge=0, description="texts that the model goes on with, for KnowEdit's fluency")
    opening_tokens: int = Field(default=48, ge=8, description="tokens that it writes each time")
    bins: int = Field(default=10, ge=2, description="bins of equally many answers for the calibration error")
    questions: str | None = Field(
        default=None,
        description="a file of your own questions: question, answers, and optionally fact_id, relation, part",
    )
    cloze: ClozeConfig = Field(
        default_factory=ClozeConfig, description="how items are made from documents, where no questions are given"
    )
    lm_eval_tasks: tuple[str, ...] = Field(
        default=(), description="tasks of lm-eval by name, run before and after; needs the extra `bench`"
    )
    lm_eval_folder: str | None = Field(
        default=None, description="a folder of task files beside lm-eval's own, as its --include_path"
    )
    abstentions: tuple[str, ...] = Field(
        default=(), description="answers that begin so say 'I don't know', besides the English ones that are recognised"
    )
    resamples: int = Field(default=10_000, ge=100, description="bootstrap resamples for every interval")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="of the intervals")
    seed: int = Field(default=0, description="of the resampling and of the choice of general texts")

    @property
    def bootstrap(self) -> Bootstrap:
        return Bootstrap(resamples=self.resamples, level=self.level, seed=self.seed)
