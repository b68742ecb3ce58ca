"""The settings of a probe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ProbeConfig(BaseModel):
    """How facts are asked. The defaults are SliCK's protocol (arXiv 2405.05904, section 2.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["exact", "sampled"] = Field(
        default="exact",
        description="exact: probabilities by teacher forcing; sampled: the published protocol, as an audit",
    )
    exemplar_sets: int = Field(
        default=10, ge=1, description="prompts a fact, each with other exemplars; under ten mislabels"
    )
    shots: int = Field(default=4, ge=0, description="exemplars in a prompt")
    temperature: float = Field(default=0.5, gt=0, allow_inf_nan=False, description="of the sampled answers")
    top_k: int = Field(default=40, ge=0, description="samples come from the k likeliest tokens; 0: from all")
    top_p: float = Field(default=1.0, gt=0, le=1, description="and of these from the fewest that hold this probability")
    samples: int = Field(default=16, ge=1, description="samples a prompt, drawn or (exact engine) reckoned with")
    max_answer_tokens: int = Field(
        default=32, ge=1, description="tokens a decoded answer may have; raised where a listed answer has more"
    )
    spellings: bool = Field(
        default=False,
        description="exact engine: reckon also with other spellings of the answers that count as right (case, article, "
        "quotes, spacing, punctuation, other tokens; at most 40 an answer); slower",
    )
    prior: bool = Field(default=True, description="also the probability of the answer when the subject is withheld")
    seed: int = Field(default=0, description="of the exemplar sets and of the samples")
    decode: bool = Field(
        default=True,
        description="exact engine: write out wrong answers, for the record and since one may be right in another "
        "spelling; without it only their beginning is known",
    )
    batch_tokens: int = Field(
        default=4096,
        ge=64,
        description="tokens computed at once; changes speed and memory only: more for an accelerator",
    )


PROTOCOL = ProbeConfig()
"""The published protocol, asked of the exact engine."""
