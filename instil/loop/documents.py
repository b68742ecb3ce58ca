"""A lesson of documents alone: roles for documents, an exam made from their text, and what that leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from instil.errors import InputError
from instil.facts import Corpus, FactSet, Role, plan_roles

if TYPE_CHECKING:
    from instil.exam import ExamConfig
    from instil.facts.roles import RolePlan
    from instil.methods import Method
    from instil.model import LanguageModel
    from instil.probe import ProbeConfig

NOT_NEEDED: Final = "no fact has role development"


@dataclass(frozen=True)
class DocumentLesson:
    """Attributes:
    plan: the items, and facts that the user brought, by role.
    taught: documents or passages that are taught.
    exam: the settings, with the parts that can be asked.
    left_out: as (what, reason).
    counts: plain numbers for the summary.
    """

    plan: RolePlan
    taught: Corpus
    exam: ExamConfig
    left_out: tuple[tuple[str, str], ...]
    counts: Mapping[str, Any]


def is_alone(facts: object, roles: Mapping[Role, FactSet] | None, documents: Corpus) -> bool:
    """Whether there are documents and nothing else to teach: facts of other roles may be there."""
    return facts is None and len(documents) > 0 and not len((roles or {}).get(Role.TARGET, ()))


def refuse_facts_only(method: Method, name: str = "") -> None:
    """
    Raises:
        InputError: the method learns from questions and answers, of which documents bring none.
    """
    if "documents" not in method.needs:
        what = f"{name or f'method {method.name}'} teaches facts, and there are only documents"
        raise InputError(what, field="--method", found=method.name, expected="cpt, say, or a file of facts")


def document_lesson(
    corpus: Corpus,
    roles: Mapping[Role, FactSet] | None,
    model: LanguageModel,
    exam: ExamConfig,
    probe: ProbeConfig,
    seed: int,
) -> DocumentLesson:
    """Divide documents into taught, held back and reserved, and make an exam from their text.

    Raises:
        InputError: they yield no item, or an id stands for two facts.
    """
    from instil.exam.cloze import asked_of_items, plan_clozes

    made = plan_clozes(corpus, seed=seed, config=exam.cloze, fits=room_in(model, probe))
    plan = plan_roles(made.facts, seed=seed, given=roles or {})
    asked, note = asked_of_items(exam)
    left_out = (
        *made.left_out,
        *((line, "dividing into roles") for line in plan.left_out),
        *((line, "dividing into roles") for line in plan.warnings if not line.startswith(NOT_NEEDED)),
        *note,
    )
    return DocumentLesson(plan, made.taught, asked, left_out, made.counts)


def room_in(model: LanguageModel, probe: ProbeConfig) -> Callable[[str, Sequence[str]], bool]:
    """Whether an item is short enough that it and as many worked ones before it fit the context window."""
    prompts = model.prompts
    room = (model.context_window - probe.max_answer_tokens) // (probe.shots + 1)

    def fits(question: str, answers: Sequence[str]) -> bool:
        longest = max(len(prompts.answer_ids(answer)) for answer in answers)
        return len(prompts.prefix_ids(())) + len(prompts.question_ids(question)) + longest + 2 <= room

    return fits
