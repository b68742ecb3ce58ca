"""Build an exam from facts, and make sure that nothing in it was trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from instil.errors import InputError
from instil.exam.cloze import asked_of_items, is_cloze, plan_clozes
from instil.exam.config import ClozeConfig, ExamConfig
from instil.exam.leaks import Wordings
from instil.exam.paper import (
    AS_WORDED,
    DEVELOPMENT,
    EARLIER,
    HELD_BACK,
    HELD_BACK_REWORDED,
    OTHER_WORDINGS,
    PARTS,
    REWORDED,
    Exam,
    Item,
)
from instil.exam.parts import Material, OwnQuestion, add_further_parts, openings, own_items
from instil.facts import Corpus, Fact, FactSet, Role
from instil.probe import ExemplarSets, ProbeConfig, Question, draw_exemplars
from instil.words import words

NO_FACTS = FactSet(())
SHARE_OF_EXEMPLARS = 0.2
"""Of a relation's facts, what `exam_from_facts` reserves at most for exemplars where no fact has that role."""


def build_exam(
    target: FactSet,
    held_back: FactSet = NO_FACTS,
    development: FactSet = NO_FACTS,
    *,
    earlier: FactSet = NO_FACTS,
    exemplars: ExemplarSets,
    general_texts: Sequence[str] = (),
    config: ExamConfig | None = None,
    probe_config: ProbeConfig | None = None,
    exemplar_facts: FactSet = NO_FACTS,
    same_subject: FactSet = NO_FACTS,
    taught_texts: Sequence[str] = (),
    own_questions: Sequence[OwnQuestion] = (),
    fits: Callable[[Question], bool] = lambda question: True,
    others: FactSet = NO_FACTS,
) -> Exam:
    """The exam of a lesson: the same questions, exemplars, texts and order before and after teaching.

    Other wordings that repeat a wording that is taught, and held-back or development questions that do, are left out
    and listed: asking them would be asking what was trained on.

    Args:
        target: facts to be taught; asked as worded, and in up to `config.wordings` paraphrases.
        held_back: facts never taught; the known ones show what is lost, the unknown ones what is made up.
        development: facts that a method may look at, asked as worded.
        earlier: facts that earlier lessons of the same ledger taught, asked as worded: what this lesson loses of them.
        exemplars: from `instil.probe.draw_exemplars`.
        general_texts: for perplexity; `config.general_texts` of them are drawn.
        config: what is asked.
        probe_config: how it is asked; the exemplar sets must be as many as it says.
        exemplar_facts: the facts behind the exemplars, for worked questions of another form; a part of another form
            has the exemplars as they are without them.
        same_subject: facts never taught about subjects that are.
        taught_texts: documents that are taught; what stands in them word for word is not asked in `config.parts`.
        own_questions: from `instil.exam.read_questions`.
        fits: whether a question fits into the context window of the model that is to sit the exam; what does not, of
            the parts that ask more than a fact's own wordings, is left out and listed.
        others: further facts, for replay or practice say: not asked, but their subjects exist, and their answers are
            right where a subject is asked for.

    Raises:
        InputError: there is nothing to ask, a fact has two roles, an exemplar is examined, or the exemplar sets are
            not as many as `probe_config` says.
    """
    config, probe_config = config or ExamConfig(), probe_config or ProbeConfig()
    _check_roles(target, held_back, development, exemplars, earlier)
    _check_probe(exemplars, probe_config)
    paper = _Paper(_taught_wordings(target, held_back, development + earlier))
    for fact in target:
        paper.add(AS_WORDED, fact, 0)
    for fact in target:
        paper.add_wordings(REWORDED, fact, config.first_wording, config.wordings)
    for fact in held_back:
        paper.add_unless_taught(HELD_BACK, fact, 0)
    kept = {item.question.fact_id for item in paper.items if item.part == HELD_BACK}
    for fact in held_back:
        if fact.id in kept:
            paper.add_wordings(HELD_BACK_REWORDED, fact, config.first_wording, config.held_back_wordings)
    for fact in development:
        paper.add_unless_taught(DEVELOPMENT, fact, 0)
    for fact in earlier:
        paper.add_unless_taught(EARLIER, fact, 0)
    shared = sorted(target.subjects & held_back.subjects)
    if shared:
        paper.left_out.append(
            (f"{len(shared)} subjects, such as {shared[0]!r}", "warning: they have facts both taught and held back")
        )
    material = Material(
        target=target,
        held_back=held_back,
        development=development,
        same_subject=same_subject,
        exemplar_facts=exemplar_facts,
        exemplars=exemplars,
        config=config,
        taught_texts=taught_texts,
        items=paper.items,
        left_out=paper.left_out,
        fits=fits,
        others=others,
    )
    own_exemplars = add_further_parts(material) | reframed_exemplars(material)
    material.items += own_items(material, own_questions)
    if not paper.items:
        raise InputError("there is nothing to ask", expected="at least one fact")
    order = {part: place for place, part in enumerate(PARTS)}
    return Exam(
        items=tuple(sorted(paper.items, key=lambda item: order[item.part])),
        exemplars=exemplars,
        general_texts=_drawn_texts(general_texts, config, paper.left_out),
        # The questions are in the exam; where their file lay, or how items were made, is no part of it.
        config=config.model_copy(update={"questions": None, "cloze": ClozeConfig()}),
        probe_config=probe_config,
        left_out=tuple(paper.left_out),
        own_exemplars=own_exemplars,
        openings=openings(material) if "knowedit" in config.parts else (),
    )


def exam_from_facts(
    facts: FactSet,
    *,
    general_texts: Sequence[str] = (),
    config: ExamConfig | None = None,
    probe_config: ProbeConfig | None = None,
    own_questions: Sequence[OwnQuestion] = (),
) -> Exam:
    """An exam of a file of facts: `instil exam build`.

    Facts are asked by their role; those without one as facts to be taught. Facts for practice and replay are not asked.
    Exemplars are the facts of that role. Where there are none, up to a fifth of each relation's facts is reserved, by
    the probe's seed, and listed in `Exam.left_out`.

    Raises:
        InputError: nothing is left to ask.
    """
    probe_config = probe_config or ProbeConfig()
    exemplar_facts = facts.with_role(Role.EXEMPLAR)
    reserved = NO_FACTS if len(exemplar_facts) else _reserve(facts, probe_config)
    away = {fact.id for fact in reserved}
    asked = facts.where(lambda fact: fact.id not in away)
    target = asked.where(lambda fact: fact.role in (None, Role.TARGET))
    exemplars = draw_exemplars(exemplar_facts + reserved, sorted({fact.relation or "" for fact in asked}), probe_config)
    not_asked = [fact for fact in asked if fact.role in (Role.PRACTICE, Role.KNOWN)]
    held_back = asked.with_role(Role.HELD_BACK)
    beside = config is None or "same_subject" in config.parts
    same_subject = held_back.where(lambda fact: beside and fact.subject is not None and fact.subject in target.subjects)
    exam = build_exam(
        target,
        held_back.where(lambda fact: fact.id not in same_subject.by_id),
        asked.with_role(Role.DEVELOPMENT),
        exemplars=exemplars,
        general_texts=general_texts,
        config=config,
        probe_config=probe_config,
        exemplar_facts=exemplar_facts + reserved,
        same_subject=same_subject,
        own_questions=own_questions,
        others=FactSet(not_asked),
    )
    notes = [
        *((f"fact {fact.id}", "reserved as an exemplar") for fact in reserved),
        *((f"fact {fact.id}", f"its role is {fact.role}") for fact in not_asked),
        *((warning, "drawing exemplars") for warning in exemplars.warnings),
    ]
    return replace(exam, left_out=(*exam.left_out, *notes))


def exam_from_documents(
    documents: Corpus,
    *,
    seed: int,
    general_texts: Sequence[str] = (),
    config: ExamConfig | None = None,
    probe_config: ProbeConfig | None = None,
    own_questions: Sequence[OwnQuestion] = (),
) -> Exam:
    """An exam made from the text of documents: `instil exam build --documents`.

    All are asked as documents to be taught, but for those of another role, and a few reserved for worked items.

    Raises:
        InputError: no sentence of the documents makes an item.
    """
    asked, note = asked_of_items(config or ExamConfig())
    made = plan_clozes(documents, seed=seed, config=asked.cloze.model_copy(update={"held_back_share": 0.0}))
    exam = exam_from_facts(
        made.facts,
        general_texts=general_texts,
        config=asked,
        probe_config=probe_config,
        own_questions=own_questions,
    )
    return replace(exam, left_out=(*made.left_out, *note, *exam.left_out))


def not_taught(exam: Exam, exam_only: Collection[str] = ()) -> Callable[[Iterable[str]], None]:
    """A check to be made many times that refuses training data in which an exam question or text stands, unless it is a
    wording that is being taught.

    Compared are the words, so that markup, spacing, capitals and marks make no difference.

    Args:
        exam: the frozen exam.
        exam_only: ids of target facts whose first wordings are not taught either, since a document tells the facts.

    Returns:
        It takes every question and document that is trained on, and raises `InputError` where one was found: which, and
        where.
    """
    taught = {words(question.text) for question in exam.part(AS_WORDED) if question.fact_id not in exam_only}
    # A choice and a question without exemplars may be in the very words that are taught.
    guarded = [item.question.text for item in exam.items if words(item.question.text) not in taught]
    guard = Wordings([*guarded, *exam.general_texts])

    def check(trained_texts: Iterable[str]) -> None:
        for number, text in enumerate(trained_texts, 1):
            for leaked in guard.in_text(text):
                raise InputError(
                    f"an exam question or text stands in the training data (text {number})",
                    field="training data",
                    found=repr(leaked[:120]),
                    expected="only the wordings that are taught",
                )

    return check


def assert_not_taught(exam: Exam, trained_texts: Iterable[str], exam_only: Collection[str] = ()) -> None:
    """Refuse training data in which an exam question or text stands, see `not_taught`. Raises `InputError`."""
    not_taught(exam, exam_only)(trained_texts)


# -------------------------------------------------------------------- private


@dataclass
class _Paper:
    """The questions chosen so far, and what was left out.

    Attributes:
        taught: wordings, as words, that occur in a question that is taught.
    """

    taught: frozenset[tuple[str, ...]]
    items: list[Item] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, part: str, fact: Fact, wording: int) -> None:
        text = fact.question if wording == 0 else fact.paraphrases[wording - 1]
        name = f"{part}/{fact.id}" if wording == 0 else f"{part}/{wording}/{fact.id}"
        question = Question(name, text, fact.answers, fact.id, fact.relation, fact.subject)
        self.items.append(Item(part, wording, question))

    def add_unless_taught(self, part: str, fact: Fact, wording: int) -> bool:
        text = fact.question if wording == 0 else fact.paraphrases[wording - 1]
        if words(text) in self.taught:
            what = f"fact {fact.id}, {part.replace('_', ' ')}" + (f", wording {wording}" if wording else "")
            self.left_out.append((what, "these words are in a question that is taught"))
            return False
        self.add(part, fact, wording)
        return True

    def add_wordings(self, part: str, fact: Fact, first: int, count: int) -> None:
        seen = {words(fact.question)}
        added = 0
        for wording in range(first + 1, len(fact.paraphrases) + 1):
            own = words(fact.paraphrases[wording - 1])
            if added == count or own in seen:
                continue
            seen.add(own)
            added += self.add_unless_taught(part, fact, wording)


def _taught_wordings(target: FactSet, held_back: FactSet, development: FactSet) -> frozenset[tuple[str, ...]]:
    """Of all wordings that the exam might ask beside the taught ones, those that occur in a taught question."""
    others = [text for fact in target for text in fact.paraphrases]
    others += [text for fact in (*held_back, *development) for text in (fact.question, *fact.paraphrases)]
    guard = Wordings(others)
    return frozenset(words(found) for fact in target for found in guard.in_text(fact.question))


def _check_roles(
    target: FactSet, held_back: FactSet, development: FactSet, exemplars: ExemplarSets, earlier: FactSet
) -> None:
    homes: dict[str, str] = {}
    shown = {exemplar.fact_id for sets in exemplars.sets.values() for chosen in sets for exemplar in chosen}
    named = (("target", target), ("held_back", held_back), ("development", development), (EARLIER, earlier))
    for role, facts in named:
        for fact in facts:
            if homes.setdefault(fact.id, role) != role:
                found = f"fact {fact.id} is {homes[fact.id]} and {role}"
                raise InputError("a fact has two roles", field="role", found=found, expected="one role a fact")
            if fact.id in shown:
                found = f"fact {fact.id} is {role}"
                raise InputError(
                    "an exemplar is examined", field="role", found=found, expected="exemplars of their own"
                )


def _check_probe(exemplars: ExemplarSets, probe_config: ProbeConfig) -> None:
    if not probe_config.decode:
        what = "an exam judges wrong answers by their text, so they have to be written out"
        raise InputError(what, field="probe.decode", found="false", expected="true")
    for relation, sets in exemplars.sets.items():
        if len(sets) != probe_config.exemplar_sets:
            raise InputError(
                f"the exemplar sets of relation {relation!r} are not as many as the probe asks for",
                field="exemplar_sets",
                found=str(len(sets)),
                expected=str(probe_config.exemplar_sets),
            )


def reframed_exemplars(material: Material) -> dict[str, ExemplarSets]:
    """Where items are made from documents: worked items as the others are put, for those that are put otherwise.
    Facts' paraphrases are of the same form as their questions, so their worked questions stay as they are."""
    if not any(is_cloze(fact.relation) for fact in material.exemplar_facts):
        return {}

    def form(fact: Fact) -> tuple[str, str]:
        reframed = is_cloze(fact.relation) and fact.paraphrases
        return (fact.paraphrases[0] if reframed else fact.question, fact.answers[0])

    sets = material.exemplars_as(form)
    return {part: sets for part in OTHER_WORDINGS if any(item.part == part for item in material.items)}


def _drawn_texts(texts: Sequence[str], config: ExamConfig, left_out: list[tuple[str, str]]) -> tuple[str, ...]:
    usable = [text for text in dict.fromkeys(texts) if text.strip()]
    if len(usable) < len(texts):
        left_out.append((f"{len(texts) - len(usable)} general texts", "empty, or there twice"))
    if len(usable) <= config.general_texts:
        return tuple(usable)
    left_out.append((f"{len(usable) - config.general_texts} general texts", "more than the exam asks for"))
    chosen = sorted(random.Random(config.seed).sample(range(len(usable)), config.general_texts))
    return tuple(usable[place] for place in chosen)


def _reserve(facts: FactSet, probe_config: ProbeConfig) -> FactSet:
    """Exemplar facts, of each relation at most as many as its prompts can show and at most a fifth of it."""

    def of_each_relation() -> Iterator[Fact]:
        for relation, group in facts.where(lambda fact: fact.role is None).by_relation.items():
            count = min(probe_config.exemplar_sets * probe_config.shots, int(len(group) * SHARE_OF_EXEMPLARS))
            order = list(group)
            random.Random(f"{probe_config.seed}:{relation}").shuffle(order)
            yield from order[:count]

    return FactSet(of_each_relation())
