"""Markdown as plain text, by way of HTML: marks, addresses of links and comments go, words stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from instil.errors import InputError
from instil.facts.faults import Fault, InvalidRow
from instil.facts.layouts import fields
from instil.facts.pages.html import page_of
from instil.facts.pages.page import LONGEST_TITLE, Page, decoded, lines_as_one, not_empty

DEEPEST: Final = 100
"""Levels of lists and quotes in one another; what is deeper would be lost, so it is refused."""

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|$)", re.S)


def read(data: bytes, file: Path, note: Callable[[Fault], None]) -> Page:
    """The title is that of the front matter, else the first heading.

    Raises:
        InputError: it is not UTF-8, its lists or quotes are nested beyond reason, or it shows no text.
    """
    matter, body = divided(lines_as_one(decoded(data, file)))
    page, heading = rendered(body, file)
    named = matter.get("title")
    title = named if isinstance(named, str) and named.strip() else heading
    kept = {"front_matter": matter} if matter else {}
    return not_empty(Page(page.text, title[:LONGEST_TITLE].strip() if title else None, kept), file)


def divided(text: str) -> tuple[Mapping[str, Any], str]:
    """Front matter and what follows it. A beginning that is no YAML mapping is no front matter, and stays text."""
    import yaml

    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        values = yaml.safe_load(found.group(1))
        if isinstance(values, dict):
            return {str(name): fields.storable(value, str(name)) for name, value in values.items()}, text[found.end() :]
    except (yaml.YAMLError, RecursionError, InvalidRow):
        pass
    return {}, text


def rendered(text: str, file: Path) -> tuple[Page, str | None]:
    """The page and its first heading."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"maxNesting": DEEPEST + 20}).enable(["table", "strikethrough"])
    tokens = reader.parse(text)
    if any(token.level > DEEPEST for token in tokens):
        raise InputError(
            "the Markdown is nested too deeply", file=file, found=f"over {DEEPEST} levels", expected="fewer"
        )
    heading = None
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            inner = (child.content for child in inline.children or () if child.type in ("text", "code_inline"))
            heading = " ".join("".join(inner).split()) or None
            break
    return page_of(reader.renderer.render(tokens, reader.options, {}), file), heading
