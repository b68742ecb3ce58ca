"""Who takes an exam: anything that can be asked. The exam does not care what stands behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from instil.probe import Asked, ExemplarSets, ProbeConfig, Question

if TYPE_CHECKING:
    from instil.exam.writing import Forced
    from instil.model import LanguageModel


@runtime_checkable
class Answerer(Protocol):
    """Weights, weights with an adapter, or a wrapper around a model that prompts it or keeps a memory."""

    @property
    def fingerprint(self) -> str:
        """Of everything that decides its answers. An exam that was cut off goes on only with the same one."""
        ...

    def ask(self, questions: Sequence[Question], exemplars: ExemplarSets, config: ProbeConfig) -> Iterator[Asked]:
        """The answers to all questions, each with its question's id, in any order. See `instil.probe.ask`."""
        ...

    def nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """For each text its summed negative log-likelihood in nats, and over how many tokens."""
        ...


class ModelAnswerer:
    """A language model as it is."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    def ask(self, questions: Sequence[Question], exemplars: ExemplarSets, config: ProbeConfig) -> Iterator[Asked]:
        from instil.probe import ask

        return ask(self.model, questions, exemplars, config)

    def nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        from instil.probe import next_token_nll

        return next_token_nll(self.model, texts)

    def forced(self, questions: Sequence[Question]) -> list[Forced]:
        from instil.exam.writing import forced

        return forced(self.model, questions)

    def written(self, openings: Sequence[str], tokens: int, config: ProbeConfig) -> list[str]:
        from instil.exam.writing import written

        return written(self.model, openings, tokens, config)
