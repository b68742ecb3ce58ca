"""Pages as people have them: plain text, Markdown, HTML and PDF, each read into a title and plain text.

Paragraphs, headings, list items and rows of tables stand on lines of their own, with a blank line between paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from instil.facts.faults import Fault
from instil.facts.pages import html, markdown, pdf, plain
from instil.facts.pages.page import Page

__all__ = ["SUFFIXES", "Page", "kind_of", "read_page"]

SUFFIXES: Final = {
    "plain text": (".txt", ".text"),
    "Markdown": (".md", ".markdown"),
    "HTML": (".html", ".htm", ".xhtml"),
    "PDF": (".pdf",),
}
_READERS: Final[dict[str, Callable[[bytes, Path, Callable[[Fault], None]], Page]]] = {
    "plain text": plain.read,
    "Markdown": markdown.read,
    "HTML": html.read,
    "PDF": pdf.read,
}
_HTML_START = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I | re.S)
LOOKED_AT: Final = 1024
"""Bytes of a file's beginning by which its kind is told."""


def kind_of(name: str, start: bytes) -> str | None:
    """What kind of page a file is: by its content where that tells, otherwise by its name; None for no kind known.

    Args:
        name: of the file; `.gz` at its end is passed over.
        start: its first bytes, unzipped.
    """
    head = start[:LOOKED_AT].removeprefix(b"\xef\xbb\xbf")
    if b"%PDF-" in head:
        return "PDF"
    if _HTML_START.match(head):
        return "HTML"
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    return next((kind for kind, known in SUFFIXES.items() if suffix in known), None)


def read_page(kind: str, data: bytes, file: Path, note: Callable[[Fault], None]) -> Page:
    """The title and the text of a page.

    Args:
        kind: from `kind_of`.
        data: its bytes, unzipped.
        file: its path, for messages.
        note: is told of a part that yields nothing (a scanned page), which is left out if it returns.

    Raises:
        InputError: the page cannot be read, or holds no text.
    """
    return _READERS[kind](data, file, note)
