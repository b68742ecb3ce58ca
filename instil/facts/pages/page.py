"""What a page is read into, and how bytes become text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instil.errors import InputError

LONGEST_TITLE = 120
"""Characters; what is longer is a paragraph."""

_TITLE = re.compile(rf"[^\n]{{1,{LONGEST_TITLE}}}")
_ENDS_SENTENCE = tuple(".!?…:;,。！？")


@dataclass(frozen=True)
class Page:
    """Attributes:
    text: plain text.
    title: what the page calls itself; None where it does not say.
    metadata: what else is known, kept with the document.
    """

    text: str
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def decoded(data: bytes, file: Path, declared: str | None = None) -> str:
    """Bytes as text: by a byte order mark, else as the page declares, else as UTF-8; never with characters replaced.

    Raises:
        InputError: they are not text of that encoding, or hold NUL characters, which no text has.
    """
    encoding = _marked(data) or _known(declared) or "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        named = encoding.upper().removesuffix("-SIG")
        found = f"byte 0x{data[error.start]:02x}"
        raise InputError(f"not {named}", file=file, line=line, found=found, expected=named) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError("the file is no text", file=file, line=line, found="a NUL character", expected="text")
    return text


def lines_as_one(text: str) -> str:
    """Line ends of all systems as `\\n`."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def first_heading(text: str) -> str | None:
    """The first line where it stands alone and ends no sentence, as titles do."""
    head, _, rest = text.strip().partition("\n")
    alone = not rest or rest.startswith("\n")
    line = head.strip()
    fits = bool(rest.strip()) and alone and _TITLE.fullmatch(line) and not line.endswith(_ENDS_SENTENCE)
    return line if fits else None


def not_empty(page: Page, file: Path, expected: str = "a text") -> Page:
    """
    Raises:
        InputError: the page yields no text.
    """
    if not page.text.strip():
        raise InputError("the file is empty" if expected == "a text" else "the page yields no text", file=file,
                         expected=expected)  # fmt: skip
    return page


def _marked(data: bytes) -> str | None:
    if data.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    return "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else None


def _known(name: str | None) -> str | None:
    """The Python name of a declared encoding; Latin-1 is read as Windows-1252, as browsers do."""
    import codecs

    if name is None:
        return None
    try:
        found = codecs.lookup(name.strip().lower())
    except LookupError:
        return None
    if not found._is_text_encoding or found.name in ("utf-8", "utf-16"):
        return None  # An ASCII page cannot truly declare UTF-16; browsers read it as UTF-8 too.
    return "cp1252" if found.name in ("iso8859-1", "ascii") else found.name
