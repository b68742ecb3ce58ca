"""HTML as plain text: what a browser would show, a line for each block."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from instil.errors import InputError
from instil.facts.faults import Fault
from instil.facts.pages.page import LONGEST_TITLE, Page, decoded, not_empty

DROPPED: Final = frozenset(
    ("script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "nav", "select", "button")
)
"""Elements that hold no text of the page: code, drawings, controls and menus."""

PARAGRAPHS: Final = frozenset(
    [
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "dl",
        "table",
        "pre",
        "blockquote",
        "section",
        "article",
        "main",
        "header",
        "footer",
        "aside",
        "div",
        "figure",
        "figcaption",
        "form",
        "fieldset",
        "details",
        "summary",
        "address",
        "hr",
        "body",
    ]
)
"""Elements with a blank line around them."""

LINES: Final = frozenset(["li", "tr", "dt", "dd", "br", "caption", "option", "legend"])
"""Elements that begin on a line of their own."""

MOST_OPEN: Final = 1_000
"""Tags that may lack their end (`<a <a <a`) before a file is refused: beyond reason, and slow to read."""

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.I)
_XML_ENCODING = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)""")
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_SPACES = re.compile(" {2,}")
_FIXED = {0: " ", 1: "\t"}
"""What stands for blanks of preformatted text until the others are put in order; neither can be in a page."""


def read(data: bytes, file: Path, note: Callable[[Fault], None]) -> Page:
    """
    Raises:
        InputError: it is not in the encoding that it declares, is broken beyond reading, or shows no text.
    """
    declared = _CHARSET.search(data[:4096]) or _XML_ENCODING.match(data)
    text = decoded(data, file, declared.group(1).decode() if declared else None)
    return not_empty(page_of(text, file), file, "text outside of scripts, styles and menus")


def page_of(html: str, file: Path) -> Page:
    """The page that HTML shows.

    Raises:
        InputError: more than `MOST_OPEN` tags are never closed by a `>`, or a dropped element has no end.
    """
    if (unclosed := html.count("<") - html.count(">")) > MOST_OPEN:
        raise InputError("not HTML that can be read", file=file, found=f"{unclosed} times < without >", expected="tags")
    reader = _Reader()
    reader.feed(html)
    reader.close()
    if reader.dropping or reader.cdata_elem:
        name = reader.cdata_elem or reader.dropping[0]
        what = f"the element <{name}> has no end, so what is text behind it cannot be told"
        raise InputError(what, file=file, expected=f"</{name}>")
    text = "\n".join(_SPACES.sub(" ", line).strip() for line in "".join(reader.out).split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", text).strip("\n").translate(_FIXED)
    title = _one_line(reader.title) or _one_line(reader.heading)
    return Page(text, title[:LONGEST_TITLE] or None)


class _Reader(HTMLParser):
    """Attributes:
    out: the text so far.
    dropping: dropped elements that are open, outermost first.
    title: the text of `<title>`.
    heading: the text of the first `<h1>`.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.dropping: list[str] = []
        self.title, self.heading = "", ""
        self._in_title, self._in_heading, self._cells, self._items, self._preformatted = False, False, 0, 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in DROPPED:
            self.dropping.append(tag)
        elif tag == "title" and not self.dropping:
            self._in_title = not self.title
        elif tag == "h1":
            self._in_heading = not self.heading
        if tag in PARAGRAPHS:
            self._in_title = False  # A title holds no elements: its end was forgotten.
        self._preformatted += tag == "pre"
        self._items += tag == "li"
        if tag == "li":
            if self.out and self.out[-1].endswith("\n"):
                self.out[-1] = self.out[-1][:-1]
            self._put("\n- ")
        elif tag in ("td", "th"):
            self._cells += 1
            if self._cells > 1:
                self._put(" | ")
        elif tag == "img":
            self._put(" ".join(value for name, value in attrs if name == "alt" and value))
        else:
            self._cells = 0 if tag == "tr" else self._cells
            self._break_around(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in DROPPED:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.dropping:
            del self.dropping[self.dropping.index(tag) :]
        elif tag == "title":
            self._in_title = False
        elif tag == "h1":
            self._in_heading = False
        self._preformatted = max(0, self._preformatted - (tag == "pre"))
        self._items = max(0, self._items - (tag == "li"))
        if tag not in LINES:
            self._break_around(tag)

    def handle_data(self, data: str) -> None:
        if self.dropping:
            return
        if self._in_title:
            self.title += data
            return
        if self._in_heading:
            self.heading += data
        if self._preformatted:
            self._put(data.replace(" ", "\0").replace("\t", "\1"))
        elif data.strip() or not (self.out and self.out[-1].endswith((" ", "\n"))):
            self._put(_BLANKS.sub(" ", data))

    def unknown_decl(self, data: str) -> None:
        """`<![CDATA[…]]>` is text; other declarations are none."""
        if data.startswith("CDATA["):
            self.handle_data(data.removeprefix("CDATA["))

    def _break_around(self, tag: str) -> None:
        if self.out and self.out[-1].endswith("\n- "):
            return  # The paragraph that an item begins with stands on the item's line.
        if tag in PARAGRAPHS:
            self._put("\n" if self._items and tag in ("ul", "ol") else "\n\n")
        elif tag in LINES:
            self._put("\n")

    def _put(self, text: str) -> None:
        if not self.dropping and text:
            self.out.append(text)


def _one_line(text: str) -> str:
    return " ".join(text.split())
