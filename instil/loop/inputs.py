"""What a call of `teach` means: model, facts by role, documents, settings. All are checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from instil.errors import InputError
from instil.facts import Corpus, FactSet, Role
from instil.facts.document_roles import DocumentPlan, plan_documents
from instil.facts.lesson_roles import Roles
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

LARGEST_PRACTICE_SHARE = 0.7
"""Of the subjects: development and held-back facts take a quarter, and something is to be taught."""

SCALES = {"": 1.0, "T": 1e12, "P": 1e15, "E": 1e18}


@dataclass(frozen=True)
class Inputs:
    """A checked call.

    Attributes:
        model: the model as it starts, at the precision it is examined in.
        roles: facts by role, disjoint by subject.
        documents: those that are taught.
        practice_documents: those that the practice facts are about.
        exam_only: ids of the target facts that a taught document tells: asked in the exam, never trained on.
        guarded: those of them whose question stands in no document either.
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
    practice_documents: Corpus = field(default_factory=lambda: Corpus(()))
    exam_only: frozenset[str] = frozenset()
    guarded: frozenset[str] = frozenset()

    @property
    def texts(self) -> tuple[str, ...]:
        """All documents that a method may train on."""
        return tuple(document.text for document in (*self.documents, *self.practice_documents))

    @property
    def lesson_roles(self) -> Roles:
        """What a method is given. Items that are made from documents are the exam's alone, and no method sees them."""
        nothing = FactSet(())
        return Roles(
            target=self._taught_questions if self.cloze is None else nothing,
            practice=self.roles[Role.PRACTICE],
            known=self.roles[Role.KNOWN],
            development=self.roles[Role.DEVELOPMENT] if self.cloze is None else nothing,
            documents=self.documents,
            practice_documents=self.practice_documents,
        )

    @property
    def _taught_questions(self) -> FactSet:
        return self.roles[Role.TARGET].where(lambda fact: fact.id not in self.exam_only)

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
            **self._of_practice(),
            "general_fingerprint": fingerprint(self.general),
            "seed": self.seed,
            "budget": self.budget,
            "config": self.settings.model_dump(mode="json"),
            "probe": self.probe.model_dump(mode="json"),
            "exam": self.exam.model_dump(mode="json"),
            **({"preset": self.preset.name} if self.preset is not None else {}),
        }

    def _of_practice(self) -> dict[str, Any]:
        found = self.practice_documents
        return {"practice_documents_fingerprint": found.fingerprint} if len(found) else {}

    def in_words(self) -> str:
        """Who plays which part, for a lesson that has documents."""
        from instil.report.words import plural

        counts = [f"{len(facts):,} {role.replace('_', ' ')}" for role, facts in self.roles.items() if len(facts)]
        return (
            f"documents: {len(self.documents):,} to be taught, {len(self.practice_documents):,} for practice; "
            f"facts: {', '.join(counts)}; {plural(len(self.exam_only), 'target question')} about taught documents, "
            "in the exam only"
        )


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
    practice_share: float | None = None,
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
    corpus = documents if isinstance(documents, Corpus) else Corpus.read(documents) if documents else Corpus(())
    share = checked_share(practice_share)
    learner: LanguageModel | None = None
    alone: DocumentLesson | None = None
    guarded: frozenset[str] = frozenset()
    if is_alone(facts, roles, corpus):
        refuse_facts_only(recipe)
        if share:
            raise InputError(
                "practice questions come from facts, and there are only documents", field="--practice-share"
            )
        learner = loaded(model, dtype, device)
        alone = document_lesson(corpus, roles, learner, exam, probe, seed)
        exam, plan = alone.exam, alone.plan
        parts = DocumentPlan(alone.taught, practice=Corpus(()), roles=plan.roles, exam_only=frozenset())
    else:
        plan = plan_roles(found, seed=seed, given=roles or {}, documents=corpus, practice_share=share)
        target = plan.roles[Role.TARGET]
        if not len(target):
            raise InputError("no fact is left to teach", field="role", found="0 facts of role target", expected="some")
        parts = plan_documents(corpus, plan.roles)
        plan, guarded = replace(plan, roles=parts.roles), unwritten(parts, target)
    taught = parts.target
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
        *parts.left_out,
        *(
            (f"fact {fact}", "warning: its question stands in a taught document, so the exam asks what was trained on")
            for fact in sorted(parts.exam_only - guarded)
        ),
        *((line, "drawing exemplars") for line in exemplars.warnings),
    ]
    inputs = Inputs(
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
        practice_documents=parts.practice,
        exam_only=parts.exam_only,
        guarded=guarded,
    )
    refuse_lacking(recipe, settings, inputs.lesson_roles, f"method {recipe.name}")
    return inputs


def refuse_lacking(method: Method, settings: BaseModel, roles: Roles, who: str) -> None:
    """Refuse a method that needs data which the lesson has not.

    Args:
        who: is named, such as "method cpt".

    Raises:
        InputError: it has not.
    """
    held: dict[str, tuple[int, str, str, str]] = {
        "documents": (len(roles.documents), "documents", "--documents", "texts to be taught"),
        "practice": (
            len(roles.practice),
            "practice questions, about documents that are not the ones to be taught",
            "--practice",
            "facts of role practice, --practice FACTS, or --practice-share 0.4 of the subjects",
        ),
        "target": (
            len(roles.target),
            "questions to train on",
            "--documents",
            "target facts that no document tells: questions about taught documents are for the exam only",
        ),
    }
    for need in method.needs:
        count, what, option, expected = held[need]
        if not count:
            raise InputError(f"{who} needs {what}", field=option, found="none", expected=expected)
    if method.plan is not None:
        method.plan(roles, settings)


def checked_share(share: float | None) -> float:
    """Raises `InputError` when a share of practice subjects leaves none, or nothing to teach."""
    if share is None:
        return 0.0
    if not 0 < share <= LARGEST_PRACTICE_SHARE:
        raise InputError(
            "the share of practice subjects leaves nothing for another role",
            field="--practice-share",
            found=str(share),
            expected=f"more than 0, at most {LARGEST_PRACTICE_SHARE}",
        )
    return share


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


def unwritten(parts: DocumentPlan, target: FactSet) -> frozenset[str]:
    """Of the facts for the exam only, those whose question does not stand in a document, so is trained on nowhere."""
    from instil.exam.leaks import Wordings
    from instil.words import words

    asked = {fact.id: words(fact.question) for fact in target.only(parts.exam_only)}
    guard = Wordings(fact.question for fact in target.only(parts.exam_only))
    written = {words(found) for text in (*parts.target, *parts.practice) for found in guard.in_text(text.text)}
    return frozenset(fact for fact, said in asked.items() if said not in written)


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
