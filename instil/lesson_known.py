"""What a lesson holds on to while it teaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from instil.facts import Corpus, FactSet
from instil.facts.lesson_roles import Roles

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.model.neurons import Keys
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


def replayable(roles: Roles, guard: Callable[[Sequence[str]], None]) -> Callable[[str], bool]:
    """Whether a text that the model makes up may be trained on: it names no subject that is taught or tuned by, and the
    exam does not ask it."""
    from instil.probe import may_be_replayed

    facts = (*roles.target, *roles.practice, *roles.development)
    names = [fact.subject or fact.question for fact in facts]
    names += [document.subject or "" for document in (*roles.documents, *roles.practice_documents)]
    return may_be_replayed(guard, names)


def doubts_about(keys: Keys, facts: FactSet) -> Iterator[str]:
    """Why added neurons may not do what they are for, in words."""
    from instil.training.keys import end_of_subject

    if keys.met < 0.9:
        yield f"added neurons answer in {keys.met:.0%} of the questions that they were made from"
    if silent := sum(end_of_subject(fact.question, fact.subject) is None for fact in facts):
        yield f"{silent} of {len(facts)} questions do not name their subject: their keys are at their ends"
