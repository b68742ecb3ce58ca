"""Plain text, kept character for character."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from instil.facts.faults import Fault
from instil.facts.pages.page import Page, decoded, first_heading, not_empty


def read(data: bytes, file: Path, note: Callable[[Fault], None]) -> Page:
    text = decoded(data, file)
    return not_empty(Page(text, first_heading(text)), file)
