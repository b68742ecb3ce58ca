"""What one stage of a method trains on: documents and questions, in which order and with which weight."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from instil.errors import InputError
from instil.facts import Corpus, Document, Fact, FactSet
from instil.facts.document_roles import documents_of
from instil.training.config import TrainConfig
from instil.training.examples import Example, Prompts, document_examples, question_example


class Arrangement(StrEnum):
    """In which order a stage shows its questions and its documents.

    `shuffled` mixes them anew in every epoch. The others keep each question on its side of the document that it is
    about: in every epoch (`interleaved`: q d · q d · q d), or over the whole stage (`grouped`: q q q d d d). After
    Jiang et al. 2024 (arXiv 2402.12847), section 5.2 and figure 6.
    """

    SHUFFLED = "shuffled"
    BEFORE_INTERLEAVED = "before-interleaved"
    AFTER_INTERLEAVED = "after-interleaved"
    BEFORE_GROUPED = "before-grouped"
    AFTER_GROUPED = "after-grouped"


class Balance(StrEnum):
    """What counts alike in the loss of a window that holds documents and questions.

    `tokens`: every token that has a loss. `examples`: every document and every question, whatever its length; the loss
    is then the mean over them of the mean over their tokens, as Jiang et al. 2024 write it (section 3.1).
    """

    TOKENS = "tokens"
    EXAMPLES = "examples"


@dataclass(frozen=True)
class Stage:
    """One stage: a name, and what is trained on and how.

    Attributes:
        name: unique in a lesson; the ledger and the report call it so.
        config: how it is trained. `config.epochs` counts passes over all of it.
        questions: facts whose questions are trained on, with the loss on their answers.
        documents: texts, with the loss on every token.
        arrangement: in which order both are shown.
        balance: what counts alike in the loss.
        question_weight: factor on the loss of questions, beside documents.
    """

    name: str
    config: TrainConfig
    questions: FactSet = field(default_factory=lambda: FactSet(()))
    documents: Corpus = field(default_factory=lambda: Corpus(()))
    arrangement: Arrangement = Arrangement.SHUFFLED
    balance: Balance = Balance.TOKENS
    question_weight: float = 1.0

    def __len__(self) -> int:
        """Questions and documents."""
        return len(self.questions) + len(self.documents)

    @property
    def training(self) -> TrainConfig:
        """The settings that `examples` are trained with: `grouped` has its repetitions in the examples themselves."""
        return self.config.model_copy(update={"epochs": 1}) if _is_grouped(self.arrangement) else self.config

    def examples(self, prompts: Prompts, context: int) -> list[Example]:
        """What is trained on, as token ids.

        Args:
            prompts: of the model that is trained.
            context: its context window, in tokens; a document that is longer, or longer than a packed row, is split.

        Raises:
            InputError: there is nothing to train on, or a document has no text to learn.
        """
        if not len(self):
            raise InputError(f"{self.name} has nothing to train on", found="no fact and no document")
        longest = min(self.config.row_length, context)
        asked = {fact.id: [self._asked(prompts, fact)] for fact in self.questions}
        told = {document.id: self._told(prompts, document, longest) for document in self.documents}
        if self.arrangement is Arrangement.SHUFFLED:
            return [example for parts in (*asked.values(), *told.values()) for example in parts]
        return list(self._arranged(asked, told))

    def tokens(self, prompts: Prompts, context: int) -> int:
        """How many tokens are read in all epochs."""
        return sum(len(example) for example in self.examples(prompts, context)) * self.training.epochs

    def _asked(self, prompts: Prompts, fact: Fact) -> Example:
        example = question_example(prompts, fact)
        share = 1 / example.targets if self.balance is Balance.EXAMPLES else 1.0
        return replace(example, weight=self.question_weight * share)

    def _told(self, prompts: Prompts, document: Document, longest: int) -> list[Example]:
        parts = document_examples(prompts, document, longest)
        if self.balance is Balance.TOKENS:
            return parts
        return [replace(part, weight=1 / sum(each.targets for each in parts)) for part in parts]

    def _arranged(
        self, asked: Mapping[str, Sequence[Example]], told: Mapping[str, Sequence[Example]]
    ) -> Iterator[Example]:
        """Phase by phase: a batch of documents, with the questions about them before or after it."""
        rounds = self.config.epochs if _is_grouped(self.arrangement) else 1
        first = self.arrangement in (Arrangement.BEFORE_INTERLEAVED, Arrangement.BEFORE_GROUPED)
        phase = 0
        for questions, documents in self._blocks():
            sides = [
                [example for fact in questions for example in asked[fact.id]],
                [example for document in documents for example in told[document.id]],
            ]
            for side in sides if first else reversed(sides):
                for _ in range(rounds if side else 0):
                    yield from (replace(example, phase=phase) for example in side)
                    phase += 1

    def _blocks(self) -> Iterator[tuple[list[Fact], list[Document]]]:
        """Documents, as many as make a batch, with the questions about them; then the questions about none."""
        ties = documents_of(self.questions, self.documents)
        about: dict[str, list[Fact]] = {}
        for fact in self.questions:
            if fact.id in ties:
                about.setdefault(ties[fact.id][0], []).append(fact)
        order = list(self.documents)
        random.Random(f"{self.config.seed} {self.name}").shuffle(order)
        size = self.config.batch_size or DOCUMENTS_A_BLOCK
        for start in range(0, len(order), size):
            documents = order[start : start + size]
            yield [fact for document in documents for fact in about.get(document.id, ())], documents
        alone = [fact for fact in self.questions if fact.id not in ties]
        if alone:
            yield alone, []


DOCUMENTS_A_BLOCK = 32
"""Documents whose questions go before (or behind) them together, where the batch is not given as a number of examples:
inside one optimiser step there is no order."""


def _is_grouped(arrangement: Arrangement) -> bool:
    return arrangement in (Arrangement.BEFORE_GROUPED, Arrangement.AFTER_GROUPED)
