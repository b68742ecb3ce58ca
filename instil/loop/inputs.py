"""What a call of `teach` means: model, facts by role, documents, settings. All are checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from instil.errors import InputError
from instil.facts import Corpus, Document, FactSet, Role
from instil.files import fingerprint
from instil.loop.documents import DocumentLesson, document_lesson, is_alone, refuse_facts_only
from instil.loop.presets import Preset, for_size, named
from instil.loop.settings import Given, checked, read_settings
from instil.methods import Method, get
from instil.training.tracking import check_trackers

if TYPE_CHECKING:
    from pydantic import BaseModel

    from instil.exam import ExamConfig, OwnQuestion
    from instil.facts.roles import RolePlan
    from instil.model import LanguageModel
    from instil.probe import ExemplarSets, ProbeConfig

P = ParamSpec("P")

SCALES = {"": 1.0, "T": 1e12, "P": 1e15, "E": 1e18}


@dataclass(frozen=True)
class Inputs:
    """A checked call.

    Attributes:
        model: the model as it starts, at the precision it is examined in.
        roles: facts by role, disjoint by subject.
        documents: those that are taught.
        left_out: what was given and is not used, as (what, reason).
        same_subject: held-back facts about taught subjects, which the exam asks about and nobody teaches.
        own_questions: the user's own, for the exam.
        preset: the starting point that the settings were filled up from, if one was asked for.
        cloze: of a lesson of documents alone, whose questions are made from their text: counts for the summary.
    """

    model: LanguageModel
    method: Method
    settings: BaseModel
    probe: ProbeConfig
    exam: ExamConfig
    roles: Mapping[Role, FactSet]
    documents: Corpus
    general: tuple[str, ...]
    exemplars: ExemplarSets
    left_out: tuple[tuple[str, str], ...]
    budget: float | None
    seed: int
    same_subject: FactSet = field(default_factory=lambda: FactSet(()))
    own_questions: tuple[OwnQuestion, ...] = ()
    preset: Preset | None = None
    cloze: Mapping[str, Any] | None = None

    @property
    def facts_fingerprint(self) -> str:
        return fingerprint(f"{role} {self.roles[role].fingerprint}" for role in sorted(self.roles))

    def plan(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values: the content of `config.yaml`."""
        return {
            "method": self.method.name,
            "model": self.model.source,
            "model_fingerprint": self.model.fingerprint,
            "facts_fingerprint": self.facts_fingerprint,
            "documents_fingerprint": self.documents.fingerprint,
            "general_fingerprint": fingerprint(self.general),
            "seed": self.seed,
            "budget": self.budget,
            "config": self.settings.model_dump(mode="json"),
            "probe": self.probe.model_dump(mode="json"),
            "exam": self.exam.model_dump(mode="json"),
            **({"preset": self.preset.name} if self.preset is not None else {}),
        }


def _naming_places(read: Callable[P, Inputs]) -> Callable[P, Inputs]:
    """Name the file and the line of a fault in `config`, whoever finds it."""

    @wraps(read)
    def reading(*args: P.args, **call: P.kwargs) -> Inputs:
        config: Any = call.get("config")
        given = call["config"] = read_config(config)
        with given.located():
            return read(*args, **call)

    return reading


@_naming_places
def read_inputs(
    model: str | Path | LanguageModel,
    facts: FactSet | str | Path | None,
    *,
    method: str,
    documents: Corpus | str | Path | None,
    config: Mapping[str, Any] | str | Path | None,
    budget: str | float | None,
    seed: int,
    roles: Mapping[Role, FactSet] | None,
    general: Sequence[str] | None,
    adapter: str | None,
    dtype: str,
    device: str,
    report_to: Sequence[str] = (),
    preset: str | None = None,
) -> Inputs:
    """Resolve and check everything that `teach` was given.

    Raises:
        InputError: anything is missing, malformed, unknown or contradictory; a fault in a file of settings is named
            with its line.
    """
    from instil.exam import ExamConfig, read_questions
    from instil.exam.harness import check_tasks
    from instil.facts import plan_roles
    from instil.probe import ProbeConfig, draw_exemplars

    recipe = get(method)
    given = read_config(config)
    probe = checked(ProbeConfig, {"seed": seed, **given.section("probe")}, "probe")
    exam = checked(ExamConfig, {"seed": seed, **given.section("exam")}, "exam")
    check_tasks(exam.lm_eval_tasks, exam.lm_eval_folder)
    start = named(preset) if preset is not None else None

    def method_settings(start: Preset | None) -> BaseModel:
        own = {name: value for name, value in given.items() if name not in ("probe", "exam")}
        full = with_shortcuts(own, seed=seed, adapter=adapter, report_to=report_to)
        if start is not None:
            full["train"] = start.under(full["train"])
        settings: BaseModel = checked(recipe.config, full, what=f"a setting of method {method} is wrong")
        check_trackers(getattr(getattr(settings, "train", None), "report_to", ()))
        return settings

    settings = method_settings(start)

    if facts is None and roles is None and documents is None:
        raise InputError("an exam needs questions", field="FACTS", found="none", expected="a file of facts")
    found = facts if isinstance(facts, FactSet) else FactSet.read(facts) if facts is not None else FactSet(())
    learner: LanguageModel | None = None
    corpus = documents if isinstance(documents, Corpus) else Corpus.read(documents) if documents else Corpus(())
    alone: DocumentLesson | None = None
    if is_alone(facts, roles, corpus):
        refuse_facts_only(recipe)
        learner = loaded(model, dtype, device)
        alone = document_lesson(corpus, roles, learner, exam, probe, seed)
        exam, plan = alone.exam, alone.plan
        taught, untaught = alone.taught, list[Document]()
    else:
        plan = plan_roles(found, seed=seed, given=roles or {})
        if not len(plan.roles[Role.TARGET]):
            raise InputError("no fact is left to teach", field="role", found="0 facts of role target", expected="some")
        taught, untaught = divide_documents(corpus, plan.roles)
    same_subject = beside_the_target(found, plan, taught) if "same_subject" in exam.parts else FactSet(())
    asked_too = {f"{fact.id} (held_back): its subject" for fact in same_subject}

    learner = learner or loaded(model, dtype, device)
    if preset is not None and start is None:
        start = for_size(sum(weight.numel() for weight in learner.model.parameters()))
        settings = method_settings(start)
    asked = [fact for role, group in plan.roles.items() if role is not Role.EXEMPLAR for fact in group]
    relations = sorted({fact.relation or "" for fact in asked})
    exemplars = draw_exemplars(plan.roles[Role.EXEMPLAR], relations, probe)
    refuse_too_long(learner, asked)
    left_out = [
        *((line, "reading the facts") for line in found.left_out),
        *(
            (line, "dividing the facts into roles")
            for line in (*plan.left_out, *plan.warnings)
            if alone is None and not line.startswith(tuple(asked_too))
        ),
        *(() if alone is None else alone.left_out),
        *((line, "reading the documents") for line in corpus.left_out),
        *((f"document {doc.id}", "it is about a fact that is held back from teaching") for doc in untaught),
        *((line, "drawing exemplars") for line in exemplars.warnings),
    ]
    return Inputs(
        model=learner,
        method=recipe,
        settings=settings,
        probe=probe,
        exam=exam,
        roles=plan.roles,
        documents=taught,
        general=tuple(general) if general is not None else general_texts(),
        exemplars=exemplars,
        left_out=tuple(left_out),
        budget=parse_budget(budget),
        seed=seed,
        same_subject=same_subject,
        own_questions=read_questions(exam.questions) if exam.questions is not None else (),
        preset=start,
        cloze=None if alone is None else alone.counts,
    )


def loaded(model: str | Path | LanguageModel, dtype: str, device: str) -> LanguageModel:
    from instil.model import load

    return model if not isinstance(model, str | Path) else load(model, dtype=dtype, device=device)


def read_config(config: Mapping[str, Any] | str | Path | None) -> Given:
    """A mapping as it is, or a YAML file's.

    Raises:
        InputError: the file is missing, is not YAML, or holds no mapping.
    """
    if isinstance(config, Given):
        return config
    return Given(config or {}) if config is None or isinstance(config, Mapping) else read_settings(config)


def with_shortcuts(
    given: Mapping[str, Any], *, seed: int, adapter: str | None, report_to: Sequence[str] = ()
) -> dict[str, Any]:
    """The settings with `--seed`, `--adapter` and `--report-to` put where the training configuration wants them."""
    train = {"seed": seed, **Given(given).section("train")}
    if adapter is not None:
        from instil.training import ADAPTERS

        if adapter not in ADAPTERS:
            expected = " | ".join(ADAPTERS)
            raise InputError("there is no such adapter", field="--adapter", found=repr(adapter), expected=expected)
        train.setdefault("adapter", {"kind": adapter})
    if report_to:
        train["report_to"] = list(report_to)
    return {**given, "train": train}


def divide_documents(corpus: Corpus, roles: Mapping[Role, FactSet]) -> tuple[Corpus, list[Document]]:
    """The documents that may be taught, and those that would give away a fact which must not be.

    A document is tied to a fact by the fact's `documents`, or by their common subject.
    """
    guarded = [*roles[Role.HELD_BACK], *roles[Role.DEVELOPMENT], *roles[Role.EXEMPLAR]]
    ids = {document for fact in guarded for document in fact.documents}
    subjects = {fact.subject for fact in guarded if fact.subject is not None}
    untaught = [doc for doc in corpus if doc.id in ids or (doc.subject is not None and doc.subject in subjects)]
    away = {doc.id for doc in untaught}
    taught = corpus.where(lambda doc: doc.id not in away)
    if len(corpus) and not len(taught):
        raise InputError(
            "every document is about a fact that is held back", field="--documents", found=f"{len(corpus)}"
        )
    return taught, untaught


def beside_the_target(facts: FactSet, plan: RolePlan, documents: Corpus) -> FactSet:
    """The facts that are held back although their subject is taught. Roles are disjoint by subject, so the plan has no
    place for them; the exam asks whether teaching touched them. A fact that a taught document may tell is none."""
    told = {doc.id for doc in documents}
    subjects = {doc.subject for doc in documents if doc.subject is not None}
    placed = {fact.id for group in plan.roles.values() for fact in group}
    return facts.with_role(Role.HELD_BACK).where(
        lambda fact: (
            fact.id not in placed
            and fact.subject is not None
            and fact.subject in plan.roles[Role.TARGET].subjects
            and fact.subject not in subjects
            and told.isdisjoint(fact.documents)
        )
    )


def refuse_too_long(model: LanguageModel, facts: Sequence[Any]) -> None:
    """Refuse a question that does not fit the context window even without exemplars, before anything is spent."""
    for fact in facts:
        length = too_long(model, fact.question, fact.answers)
        if length is not None:
            raise InputError(
                f"the question of fact {fact.id!r} is longer than the model's context window",
                field="question",
                found=f"{length} tokens with its answer",
                expected=f"at most {model.context_window - 1}",
            )


def too_long(model: LanguageModel, question: str, answers: Sequence[str]) -> int | None:
    """How many tokens a question has with its longest answer, where that does not fit the context window; else None."""
    longest = max(len(model.prompts.answer_ids(answer)) for answer in answers)
    length = len(model.prompts.question_ids(question)) + longest
    return length if length + 1 > model.context_window else None


def general_texts() -> tuple[str, ...]:
    """Short paragraphs of ordinary English, in Instil's own words, for perplexity on text that is not taught."""
    text = (resources.files("instil.loop") / "general.txt").read_text(encoding="utf-8")
    return tuple(paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip())


def parse_budget(budget: str | float | None) -> float | None:
    """Floating-point operations: a number ("3e15"), or one with a unit ("3 PFLOP"; T, P and E are understood).

    Raises:
        InputError: it is neither, or not positive.
    """
    if budget is None:
        return None
    text = str(budget).strip()
    number = text.upper().removesuffix("FLOPS").removesuffix("FLOP").strip()
    scale = number[-1:] if number[-1:] in SCALES and number[-1:] else ""
    try:
        value = float(number.removesuffix(scale)) * SCALES[scale]
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(
            "the budget is not an amount of compute", field="--budget", found=text, expected='like "3 PFLOP"'
        )
    return value
