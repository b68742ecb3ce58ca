"""What contexts are made, and how they are scored."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from instil.exam.config import CLOZE_KINDS, ClozeKind


class ContextConfig(BaseModel):
    """Which texts lead to a fact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: tuple[str, ...] = Field(
        default=("heading", "bullets", "html", "permutation", "shuffling", "fullname"),
        description="formats and controls of `instil augment` that the document is put into, the fact's sentence with "
        "it; several joined by +",
    )
    alone: bool = Field(
        default=True, description="also the fact's sentence without what stands before it, behind the subject's name"
    )
    paraphrases: int | None = Field(
        default=None, ge=0, description="of `metadata.paraphrases` of a document, at most so many; null for all"
    )
    first_paraphrase: int = Field(
        default=0, ge=0, description="paraphrases before this one are left to methods that train on them"
    )
    completions: bool = Field(default=True, description="also the completions that facts bring along")
    per_document: int = Field(default=4, ge=1, description="facts of a document that are found in it, at most")
    items: int | None = Field(
        default=None, ge=1, description="facts in all, at most, drawn by lot where there are more; null for all"
    )
    kinds: tuple[ClozeKind, ...] = Field(
        default=CLOZE_KINDS, min_length=1, description="what counts as a fact in a text: date, name, number, word"
    )
    passage_words: int = Field(
        default=600, ge=20, description="documents without facts that are longer are divided into passages of so many"
    )
    context_tokens: int = Field(
        default=1024,
        ge=8,
        description="tokens of a context, the fact with them, at most; a longer one loses its beginning, which is "
        "counted. The model's window when it is less",
    )
    batch_tokens: int = Field(default=4096, ge=1, description="tokens computed at once; changes speed and memory only")
    seed: int = Field(default=0, description="of the formats, and of the facts that are drawn")

    @field_validator("formats")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from instil.augment import recipes
        from instil.errors import InputError

        try:
            for recipe in recipes(names) if names else ():
                if any(control.name == "paraphrase" for control in recipe.controls):
                    raise ValueError("paraphrases are always asked: leave the control `paraphrase` out")
        except InputError as fault:
            raise ValueError(str(fault)) from fault
        return names
