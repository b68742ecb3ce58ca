"""What a lesson holds on to while it teaches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from instil.facts import Corpus, FactSet

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.training import Example

Known = FactSet | Corpus | tuple["Known", ...]
"""Questions with their answers, texts, or some of each."""


def examples_of(lm: LanguageModel, known: Known) -> list[Example]:
    """What is known as token ids. Where questions stand beside texts, one counts as much as the other, however many
    words a text has."""
    from instil.training import document_examples, question_example

    if isinstance(known, tuple):
        found = [example for part in known for example in examples_of(lm, part)]
        return [replace(example, weight=1 / max(1, example.targets)) for example in found]
    if isinstance(known, FactSet):
        return [question_example(lm.prompts, fact) for fact in known]
    return [example for document in known for example in document_examples(lm.prompts, document, lm.context_window)]
