"""Copies of documents in other formats: which format a copy gets, and its text, follow from the seed, the document's id
and the copy's number alone, so they do not depend on the other documents or on their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from instil.augment.controls import CONTROLS, PARAPHRASES, Control
from instil.augment.formats import FORMATS, Format
from instil.augment.sheet import Formatted, Sheet, prove
from instil.errors import InputError
from instil.facts import Corpus, Document
from instil.files import fingerprint


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one copy goes through: controls in the order named, then formats from the inside out.

    Attributes:
        name: as it was given: names joined by `+`.
        controls: usually none.
        formats: sorted by what they work on; within one level as named.
    """

    name: str
    controls: tuple[Control, ...]
    formats: tuple[Format, ...]

    @property
    def preserving(self) -> bool:
        """Whether the document's words, all and in order, are in the copy, with nothing that it does not say."""
        return all(control.preserving for control in self.controls)

    @staticmethod
    def parse(name: str) -> Recipe:
        """
        Raises:
            InputError: a name is unknown, or named twice.
        """
        parts = [part.strip() for part in name.split("+")]
        for part in parts:
            if part not in FORMATS and part not in CONTROLS:
                known = ", ".join((*FORMATS, *CONTROLS))
                raise InputError("no such format", field="formats", found=part or "an empty name", expected=known)
        if len(set(parts)) < len(parts):
            raise InputError("a format is named twice", field="formats", found=name)
        formats = sorted((FORMATS[part] for part in parts if part in FORMATS), key=lambda one: one.level)
        return Recipe("+".join(parts), tuple(CONTROLS[part] for part in parts if part in CONTROLS), tuple(formats))


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy, and the proof that its format did no harm.

    Attributes:
        document: what is taught.
        formatted: its text, with what the formats put in.
        source: the text that was formatted: the original's, or what the controls made of it.
        recipe: what it went through.
    """

    document: Document
    formatted: Formatted
    source: str
    recipe: Recipe


def recipes(formats: Sequence[str] | None) -> tuple[Recipe, ...]:
    """Names, each a format, a control, or several joined by `+`, as recipes; None stands for every format by itself.

    One text is taken as names between commas.

    Raises:
        InputError: a name is unknown or stands twice, or there is none.
    """
    names = FORMATS if formats is None else formats.split(",") if isinstance(formats, str) else formats
    found = tuple(Recipe.parse(name) for name in names)
    if not found:
        raise InputError("no format is named", field="formats", expected=", ".join(FORMATS))
    twice = [name for name, times in Counter(recipe.name for recipe in found).items() if times > 1]
    if twice:
        raise InputError("a format is named twice", field="formats", found=twice[0])
    return found


def copy_of(document: Document, recipe: Recipe, *, copy: int, seed: int) -> Copy:
    """Copy number `copy` (from 1) of a document.

    Its id is the document's with `#copy` and the number; its `copy_of` names the original, by which copies are kept
    apart in training; its `metadata` say the formats. Paraphrases that the document brought along are left out of it.

    Raises:
        InputError: a control needs what the document does not have (a subject, paraphrases), or the document is a
            formatted copy already: which of its words are its own is no longer known.
        RunFailed: a format changed a word.
    """
    if document.copy_of is not None and "formats" in document.metadata:
        raise InputError(
            f"document {document.id} is a formatted copy already",
            field="metadata.formats",
            found=str(document.metadata["formats"]),
            expected="originals; heading+bullets is both in one copy",
        )
    draw = Random(fingerprint(["copy", str(seed), document.id, str(copy)]))
    source = document
    for control in recipe.controls:
        source = replace(source, text=control.rewrite(source, draw, copy))
    formatted = format_text(source, recipe.formats, draw, recipe.name)
    metadata = {name: value for name, value in document.metadata.items() if name != PARAPHRASES}
    made = replace(
        document,
        id=f"{document.id}#copy{copy}",
        text=formatted.text,
        copy_of=document.original,
        metadata=metadata | {"formats": recipe.name},
    )
    return Copy(made, formatted, source.text, recipe)


def format_text(document: Document, formats: Sequence[Format], draw: Random, name: str = "") -> Formatted:
    """The text of a document in some formats, proved to hold its words.

    Raises:
        RunFailed: a format changed a word.
    """
    sheet = _sheet(document.text, document.title)
    if sheet is None or not formats:
        return Formatted(document.text, ())
    for one in formats:
        sheet = one.apply(sheet, draw)
    return prove(document.text, sheet.formatted(), name or "+".join(one.name for one in formats), document.id)


# The copies of a document come one after another, and finding its sentences is a third of the work.
_sheet = lru_cache(maxsize=1)(Sheet.of)


def copies_of(document: Document, pool: Sequence[Recipe], *, copies: int, seed: int) -> Iterator[Copy]:
    """The copies of one document, one after another: every recipe comes once before one comes again.

    Raises:
        InputError, RunFailed: as `copy_of`.
    """
    order: list[int] = []
    for copy in range(1, copies + 1):
        turn, place = divmod(copy - 1, len(pool))
        if place == 0:
            draw = Random(fingerprint(["order", str(seed), document.id, str(turn)]))
            order = draw.sample(range(len(pool)), len(pool))
        yield copy_of(document, pool[order[place]], copy=copy, seed=seed)


def formatted_copies(
    documents: Iterable[Document],
    formats: Sequence[str] | None = None,
    copies: int = 1,
    seed: int = 0,
    *,
    original: bool = True,
) -> Iterator[Document]:
    """Each document, followed by its copies, as a stream: no document is held longer than its copies take.

    Args:
        formats: names of formats or controls, several joined by `+` for one copy; None for every format.
        copies: copies of each document, besides the original.
        seed: with the document's id and the copy's number, all that decides about a copy.
        original: whether the document itself comes first, as it is.

    Raises:
        InputError: a format is unknown, `copies` is negative, a document is a formatted copy, or a control needs what a
            document does not have.
        RunFailed: a format changed a word.
    """
    pool = recipes(formats)
    if copies < 0:
        raise InputError("a negative number of copies", field="copies", found=str(copies), expected="0 or more")
    return _stream(documents, pool, copies, seed, original)


def _stream(
    documents: Iterable[Document], pool: Sequence[Recipe], copies: int, seed: int, original: bool
) -> Iterator[Document]:
    for document in documents:
        if original:
            yield document
        for copy in copies_of(document, pool, copies=copies, seed=seed):
            yield copy.document


def augment(
    documents: Iterable[Document],
    formats: Sequence[str] | None = None,
    copies: int = 4,
    seed: int = 0,
    *,
    original: bool = True,
) -> Corpus:
    """A corpus with copies of each document in other formats; see `formatted_copies`, which streams them.

    >>> corpus = Corpus([Document("1", "Ada was born in London. She wrote programs.", title="Ada")])
    >>> print(augment(corpus, formats=["bullets"], copies=1)[1].text)  # doctest: +SKIP
    - Ada was born in London.
    - She wrote programs.

    Raises:
        InputError, RunFailed: as `formatted_copies`.
    """
    return Corpus(formatted_copies(documents, formats, copies, seed, original=original))
