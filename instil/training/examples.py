"""Training examples: token ids and the tokens to be learned. Text ends in the model room; from here on all is ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from instil.errors import InputError
from instil.facts import Document, Fact

NO_LOSS = -100

UNFINISHED = "instil_unfinished"
"""In the metadata of a document whose text goes on: it is learned without an end token."""


class Prompts(Protocol):
    """What this room asks of a model's prompts (see `instil.model`)."""

    def teaching_ids(self, question: str, answer: str) -> tuple[Sequence[int], Sequence[int]]:
        """Ids of the prompt, and ids of the answer with its terminator."""

    def text_ids(self, text: str) -> Sequence[int]:
        """Ids of a document, with the begin and end tokens that the model's family wants."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to train on.

    Attributes:
        input_ids: what the model reads.
        labels: for each position the token the model must predict there from everything before it, or -100 for no
            loss. Never shifted: `labels[t]` is predicted from `input_ids[:t]`, so `labels[0]` must be -100.
        key: the document or fact it comes from. Copies share it, and examples that share it never share a packed row.
        weight: factor on the loss of each of its target tokens; the window's loss is the weighted mean.
        phase: in every epoch, all examples of a lower phase are trained on before those of a higher one; no window
            holds two phases.

    Raises:
        ValueError: the lengths differ, the first token has a label, or the weight is not positive.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    key: str
    weight: float = 1.0
    phase: int = 0

    def __post_init__(self) -> None:
        if len(self.input_ids) != len(self.labels):
            raise ValueError(f"{self.key}: {len(self.input_ids)} input ids but {len(self.labels)} labels")
        if self.labels and self.labels[0] != NO_LOSS:
            raise ValueError(f"{self.key}: the first token has a label, but nothing before it predicts it")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"{self.key}: weight {self.weight} is not a positive number")

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def targets(self) -> int:
        """Number of tokens with a loss."""
        return sum(label != NO_LOSS for label in self.labels)


def question_example(
    prompts: Prompts, fact: Fact, wording: str | None = None, answer: str | None = None, *, weight: float = 1.0
) -> Example:
    """A question and its answer; the loss is on the answer's tokens and its terminator.

    Args:
        wording: the question as it is taught, `fact.question` by default.
        answer: the answer that is taught, `fact.answers[0]` by default.
    """
    prompt_ids, answer_ids = prompts.teaching_ids(
        fact.question if wording is None else wording, fact.answers[0] if answer is None else answer
    )
    return Example(
        input_ids=(*prompt_ids, *answer_ids),
        labels=(*[NO_LOSS] * len(prompt_ids), *answer_ids),
        key=fact.id,
        weight=weight,
    )


def document_examples(
    prompts: Prompts, document: Document, max_length: int, *, overlap: int = 1, weight: float = 1.0
) -> list[Example]:
    """A document as one example, or as several when it is longer than `max_length` tokens; nothing is cut off.

    Every token but the document's very first is a target exactly once. Each later part begins with the last `overlap`
    tokens of the part before it, as context without loss. Their key is the document's original: no two parts, of it or
    of its copies, share a packed row. A document with `UNFINISHED` in its metadata has no end token.

    Raises:
        InputError: the document has fewer than two tokens, so there is nothing to learn.
        ValueError: `overlap` leaves no room for new tokens.
    """
    if not 1 <= overlap < max_length:
        raise ValueError(f"overlap {overlap} must be at least 1 and less than max_length {max_length}")
    ids = tuple(prompts.text_ids(document.text))
    ids = ids[:-1] if document.metadata.get(UNFINISHED) else ids
    if len(ids) < 2:
        raise InputError(f"document {document.id} has no text to learn", field="text", found=f"{len(ids)} tokens")
    starts = [0, *range(max_length - overlap, len(ids) - overlap, max_length - overlap)]
    parts = [ids[start : start + max_length] for start in starts]
    seen = [1, *[overlap] * (len(parts) - 1)]
    return [
        Example(part, (*[NO_LOSS] * context, *part[context:]), key=document.original, weight=weight)
        for part, context in zip(parts, seen, strict=True)
    ]


def count_split(parts_of_documents: Sequence[Sequence[Example]]) -> dict[str, int]:
    """How many documents there are, how many had to be split, and into how many examples all became."""
    return {
        "documents": len(parts_of_documents),
        "split": sum(len(parts) > 1 for parts in parts_of_documents),
        "examples": sum(len(parts) for parts in parts_of_documents),
    }
