"""Copies of documents into a file, one document at a time."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from instil.augment.copies import Recipe, copies_of
from instil.facts import Document
from instil.files import atomic

EVERY = 100
"""Documents between two reports of progress."""


@dataclass
class Written:
    """What was written.

    Attributes:
        documents: how many were read.
        copies: how many copies were made of them.
        unchanged: copies in a format that found nothing to do, so that they read as the document itself.
        words: of the documents.
        characters: of the documents, and of all that was written.
        by_format: copies by the name of what they went through.
        changing: names of those that are not content-preserving.
    """

    documents: int = 0
    copies: int = 0
    unchanged: int = 0
    words: int = 0
    characters: dict[str, int] = field(default_factory=lambda: {"documents": 0, "written": 0})
    by_format: Counter[str] = field(default_factory=Counter)
    changing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "by_format": dict(sorted(self.by_format.items())), "changing": list(self.changing)}


def write_copies(
    documents: Iterable[Document],
    path: str | Path,
    pool: Sequence[Recipe],
    *,
    copies: int,
    seed: int,
    original: bool = True,
    spans: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Written:
    """Write documents and their copies as JSON Lines, gzipped where the name ends in `.gz`: whole, or not at all.

    Args:
        pool: what the copies go through, see `instil.augment.recipes`.
        original: whether each document itself comes before its copies.
        spans: whether each copy says in `metadata.inserted` what was put where, so that `recover` can be applied to it.
        progress: told now and then how many documents are done.

    Raises:
        InputError: as reading and `formatted_copies`.
        RunFailed: a format changed a word.
    """
    done = Written(changing=tuple(recipe.name for recipe in pool if not recipe.preserving))

    def lines() -> Iterator[Document]:
        for document in documents:
            done.documents += 1
            done.words += len(document.text.split())
            done.characters["documents"] += len(document.text)
            if original:
                yield document
            for copy in copies_of(document, pool, copies=copies, seed=seed):
                done.copies += 1
                done.by_format[copy.recipe.name] += 1
                done.unchanged += copy.recipe.name != "repetition" and copy.document.text == document.text
                record = {"inserted": copy.formatted.inserted} if spans and copy.recipe.preserving else {}
                yield replace(copy.document, metadata={**copy.document.metadata, **record})
            if done.documents % EVERY == 0:
                progress(done.documents)

    with atomic(path) as draft, _opened(draft, str(path).endswith(".gz")) as file:
        for document in lines():
            done.characters["written"] += len(document.text)
            file.write(json.dumps(document.to_dict(), ensure_ascii=False, allow_nan=False).encode() + b"\n")
    progress(done.documents)
    return done


@contextmanager
def _opened(path: Path, packed: bool) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with path.open("wb") as raw:
        if not packed:
            yield raw
            return
        # Neither name nor time in the header: the same documents give the same bytes.
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            yield file
