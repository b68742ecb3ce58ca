"""From facts, or from documents alone, to the texts that lead to each fact."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from instil.answers import normalise
from instil.augment.controls import PARAPHRASES
from instil.errors import InputError
from instil.exam.cloze.elsewhere import elsewhere
from instil.exam.cloze.making import Cloze, clozes_of, rarity
from instil.exam.config import ClozeConfig
from instil.exam.contexts.config import ContextConfig
from instil.exam.contexts.locating import Told, locate, spelled
from instil.exam.contexts.variants import Variant, variants
from instil.facts import Corpus, Document, Fact
from instil.facts.splitting import split_corpus
from instil.files import fingerprint
from instil.probe.contexts import Context

AS_WRITTEN: Final = "as written"
ALONE: Final = "sentence alone"
PARAPHRASE: Final = "paraphrase"
COMPLETION: Final = "completion"
REWORDED: Final = (PARAPHRASE, COMPLETION)
"""Kinds in which the fact is told in other words; all but these and "as written" are its own sentence elsewhere."""

TRIED: Final = 3
"""Places looked at for each fact that is wanted from a document: some cannot be used."""

TOLD_BEFORE: Final = "the answer stands before it as well, from where it could be copied"
THE_SAME: Final = "what stands before it is the same as in the document as written"
TWICE: Final = "two facts of the document have this answer, or one of them is a part of the other's"
PARTED: Final = "the format parts the words of the answer, or it cannot be followed there"

LeftOut = tuple[str, str]


@dataclass(frozen=True)
class ContextSet:
    """Contexts, and what could not be made.

    Attributes:
        contexts: in the order of the facts; of each, as written first.
        left_out: (fact, document or context, reason).
    """

    contexts: tuple[Context, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.contexts)

    def __iter__(self) -> Iterator[Context]:
        return iter(self.contexts)

    @cached_property
    def items(self) -> tuple[str, ...]:
        """Ids of the facts that contexts lead to."""
        return tuple(dict.fromkeys(context.item for context in self.contexts))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any context, and with their order."""
        return fingerprint(
            part for one in self.contexts for part in (one.id, one.kind, one.before, one.fact, one.after)
        )

    def where(self, keep: Callable[[Context], bool]) -> ContextSet:
        return ContextSet(tuple(filter(keep, self.contexts)), self.left_out)


def contexts_of_facts(
    facts: Iterable[Fact], corpus: Corpus | None = None, config: ContextConfig | None = None
) -> ContextSet:
    """The texts that lead to each fact's first answer: its documents up to it, in every form, and its completions.

    The documents of a fact are those that it names, else those with its subject, copies left out. A document tells it
    where the answer first stands, in a sentence that does not name the subject only afterwards. Of two facts of a
    document with one answer both are left out: which one the text tells there cannot be seen.
    """
    config = config or ContextConfig()
    chosen = _some(list(facts), config)
    left_out: list[LeftOut] = []
    found: dict[str, list[Context]] = {fact.id: [] for fact in chosen}
    for document, told in _documents_of(chosen, corpus or Corpus(()), left_out):
        items = [_Item(fact.id, fact.answers[0], fact.subject) for fact in told]
        for context in _contexts(document, list(_located(document, items, left_out)), config, left_out):
            found[context.item].append(context)
    for fact in chosen if config.completions else ():
        found[fact.id] += _completed(fact, left_out)
    return ContextSet(tuple(context for contexts in found.values() for context in contexts), tuple(left_out))


def contexts_of_documents(corpus: Corpus, config: ContextConfig | None = None) -> ContextSet:
    """The texts that lead to the dates, names, numbers and telling words of documents, as a cloze exam finds them.

    Copies are left out; documents longer than `passage_words` are divided. A fact's id is its document's with `@` and
    its place in characters.

    Raises:
        InputError: no document holds a sentence with something to ask.
    """
    config = config or ContextConfig()
    left_out: list[LeftOut] = [
        (document.id, "a copy of another document") for document in corpus if document.copy_of is not None
    ]
    units = split_corpus((document for document in corpus if document.copy_of is None), config.passage_words)
    chosen = _chosen(units, config, left_out)
    contexts: list[Context] = []
    for unit in units:
        contexts += _contexts(unit, chosen[unit.id], config, left_out)
    if not contexts:
        raise InputError(
            "the documents hold no sentence with a fact to look at",
            field="DOCS",
            found=f"{len(units)} texts",
            expected="running text with sentences of at least eight words, or a file of facts with completions",
        )
    return ContextSet(tuple(contexts), tuple(left_out))


# -------------------------------------------------------------------- private


@dataclass(frozen=True, slots=True)
class _Item:
    id: str
    answer: str
    subject: str | None


@dataclass(frozen=True, slots=True)
class _Located:
    item: _Item
    told: Told


def _some(facts: Sequence[Fact], config: ContextConfig) -> list[Fact]:
    if config.items is None or len(facts) <= config.items:
        return list(facts)
    places = random.Random(f"{config.seed}:contexts").sample(range(len(facts)), config.items)
    return [facts[place] for place in sorted(places)]


def _documents_of(
    facts: Sequence[Fact], corpus: Corpus, left_out: list[LeftOut]
) -> Iterator[tuple[Document, list[Fact]]]:
    """Each document with the facts that it should tell, in the order of the corpus."""
    by_subject: dict[str, list[str]] = defaultdict(list)
    for document in corpus:
        if document.subject is not None and document.copy_of is None:
            by_subject[document.subject].append(document.id)
    told: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        named = [name for name in fact.documents if name in corpus.by_id]
        homes = named or ([] if fact.documents or fact.subject is None else by_subject.get(fact.subject, []))
        if not homes and len(corpus):
            left_out.append((fact.id, "none of its documents is there"))
        for name in dict.fromkeys(homes):
            told[name].append(fact)
    for document in corpus:
        if document.id in told:
            yield document, told[document.id]


def _located(document: Document, items: Sequence[_Item], left_out: list[LeftOut]) -> Iterator[_Located]:
    """The items that the document tells, in its order, without those that share an answer."""
    found = []
    for item in items:
        told = locate(document.text, item.answer, item.subject, _is_about(document, item.subject))
        if isinstance(told, str):
            left_out.append((f"{item.id} in {document.id}", told))
        else:
            found.append(_Located(item, told))
    found.sort(key=lambda one: (one.told.start, one.told.end))
    for one in found:
        if _is_shared(one, found):
            left_out.append((f"{one.item.id} in {document.id}", TWICE))
        else:
            yield one


def _is_shared(one: _Located, all: Sequence[_Located]) -> bool:
    """Whether another item's answer is the same, or stands in the same place."""
    return any(
        normalise(other.item.answer) == normalise(one.item.answer)
        or (other.told.start < one.told.end and one.told.start < other.told.end)
        for other in all
        if other is not one
    )


def _is_about(document: Document, subject: str | None) -> bool:
    if subject is None or document.subject == subject:
        return True
    return document.title is not None and spelled(subject).search(document.title) is not None


def _contexts(
    document: Document, located: Sequence[_Located], config: ContextConfig, left_out: list[LeftOut]
) -> Iterator[Context]:
    """Of each fact of a document all its contexts, as written first."""
    forms: list[Variant] = []
    if located and config.formats:
        for form in variants(document, [one.told.start for one in located], config.formats, config.seed):
            if isinstance(form, str):
                left_out.append((document.id, form))
            else:
                forms.append(form)
    for number, one in enumerate(located):
        item, told = one.item, one.told
        text = document.text
        written = Context(
            _id(item, document, AS_WRITTEN),
            item.id,
            _cluster(document),
            AS_WRITTEN,
            text[: told.start],
            text[told.start : told.end],
            _next(text, told.end),
        )
        yield written
        made = [
            *(_alone(document, one, written) if config.alone else ()),
            *(_in_form(document, form, number, item, written) for form in forms),
            *_reworded(document, item, written, config),
        ]
        for what, context in made:
            if isinstance(context, str):
                left_out.append((what, context))
            elif context.before == written.before:
                left_out.append((what, THE_SAME))
            elif spelled(item.answer).search(context.before):
                left_out.append((what, TOLD_BEFORE))
            else:
                yield context


Made = tuple[str, Context | str]
"""The id of a context, and the context or why there is none."""


def _alone(document: Document, one: _Located, written: Context) -> Iterator[Made]:
    sentence = document.text[one.told.sentence : one.told.start]
    name = " ".join((one.item.subject or document.subject or document.title or "").split())
    lead = "" if not name or spelled(name).search(sentence) else f"{name}: "
    what = _id(one.item, document, ALONE)
    if not sentence.strip():
        yield what, "the sentence begins with the answer"
    else:
        yield what, replace(written, id=what, kind=ALONE, before=lead + sentence)


def _in_form(document: Document, form: Variant, number: int, item: _Item, written: Context) -> Made:
    what = _id(item, document, form.kind)
    start = form.starts[number]
    found = None if start is None else spelled(item.answer).match(form.text, start)
    if start is None or found is None:
        return what, PARTED
    return what, replace(
        written,
        id=what,
        kind=form.kind,
        before=form.text[:start],
        fact=_plain(item.answer),
        after=_next(form.text, found.end()),
    )


def _reworded(document: Document, item: _Item, written: Context, config: ContextConfig) -> Iterator[Made]:
    given = document.metadata.get(PARAPHRASES, ())
    texts = given if isinstance(given, list | tuple) else ()
    last = None if config.paraphrases is None else config.first_paraphrase + config.paraphrases
    for number, text in list(enumerate(texts))[config.first_paraphrase : last]:
        what = _id(item, document, f"{PARAPHRASE} {number}")
        if not isinstance(text, str):
            yield what, "it is not a text"
            continue
        told = locate(text, item.answer, item.subject, _is_about(document, item.subject))
        if isinstance(told, str):
            yield what, told
        else:
            yield (
                what,
                replace(
                    written,
                    id=what,
                    kind=PARAPHRASE,
                    before=text[: told.start],
                    fact=_plain(item.answer),
                    after=_next(text, told.end),
                ),
            )


def _completed(fact: Fact, left_out: list[LeftOut]) -> Iterator[Context]:
    answer = _plain(fact.answers[0])
    home = fact.documents[0] if fact.documents else fact.cluster
    for number, wording in enumerate(fact.completions):
        what = f"{fact.id} | {COMPLETION} {number}"
        if not wording.strip():
            left_out.append((what, "it is empty"))
        elif spelled(answer).search(wording):
            left_out.append((what, TOLD_BEFORE))
        else:
            before = wording if wording[-1].isspace() else f"{wording} "
            yield Context(what, fact.id, home, COMPLETION, before, answer)


def _chosen(units: Corpus, config: ContextConfig, left_out: list[LeftOut]) -> dict[str, list[_Located]]:
    """For each document or passage its best places, each with an answer that is told there for the first time."""
    rare = rarity(units)
    settings = ClozeConfig(kinds=config.kinds, per_document=config.per_document)
    found: list[Cloze] = []
    for unit in units:
        clozes, _ = clozes_of(
            unit, settings, rare, TRIED * config.per_document, config.seed, lambda question, answers: True
        )
        found += clozes
    by_unit: dict[str, list[Cloze]] = defaultdict(list)
    for cloze, where in zip(found, elsewhere(found, ((unit.id, unit.text) for unit in units)), strict=True):
        if where.otherwise:
            left_out.append((_name(cloze), "the same words go on otherwise elsewhere in the documents"))
        else:
            by_unit[cloze.document].append(cloze)
    chosen: list[tuple[str, _Located]] = []
    for unit in units:
        best: list[_Located] = []
        for cloze in sorted(by_unit[unit.id], key=lambda cloze: (-cloze.score, cloze.place)):
            told = _told(unit.text, cloze)
            if isinstance(told, str):
                left_out.append((_name(cloze), told))
            elif len(best) < config.per_document:
                best.append(_Located(_Item(_name(cloze), cloze.answer, None), told))
        chosen += [(unit.id, one) for one in sorted(best, key=lambda one: one.told.start)]
    if config.items is not None and len(chosen) > config.items:
        left_out.append((f"{len(chosen) - config.items} facts", "more than are wanted"))
        places = random.Random(f"{config.seed}:contexts").sample(range(len(chosen)), config.items)
        chosen = [chosen[place] for place in sorted(places)]
    by_document: dict[str, list[_Located]] = {unit.id: [] for unit in units}
    for name, one in chosen:
        by_document[name].append(one)
    return by_document


def _told(text: str, cloze: Cloze) -> Told | str:
    pattern = spelled(cloze.answer)
    found = pattern.match(text, cloze.place)
    if found is None:
        return PARTED
    if pattern.search(text, 0, cloze.place):
        return TOLD_BEFORE
    begin = cloze.place
    for word in reversed(cloze.left.split()):
        begin = text.rindex(word, 0, begin)
    return Told(cloze.place, found.end(), begin)


def _id(item: _Item, document: Document, kind: str) -> str:
    return f"{item.id} | {kind} in {document.id}"


def _name(cloze: Cloze) -> str:
    return f"{cloze.document}@{cloze.place}"


def _cluster(document: Document) -> str:
    return str(document.metadata.get("part_of", document.original))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _next(text: str, end: int) -> str:
    """How the text goes on, as far as it can matter to the tokens before."""
    return text[end : end + 24]
