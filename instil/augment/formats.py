"""The content-preserving formats: each a small pure function from a sheet to one with the same words and other gaps.

Marks are drawn from closed lists in this module; the only other words a format may write are those of the document's
title. What stands in the document is never escaped: in `html` a `<` of the text stays a `<`. What is to be learned are
its words, as the model will meet them elsewhere, and not a valid page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from random import Random
from typing import Final

from instil.augment.sheet import PLAIN, Sheet, Unit

Apply = Callable[[Sheet, Random], Sheet]


class Level(IntEnum):
    """What a format works on. Composed formats are applied in this order, from the inside out."""

    SPACES = 0
    SENTENCES = 1
    ITEMS = 2
    DOCUMENT = 3
    LINES = 4
    AROUND = 5


@dataclass(frozen=True, slots=True)
class Format:
    """A content-preserving format.

    Attributes:
        name: as it is called on the command line.
        about: one line on what it does.
        level: what it works on.
        apply: the function; the random numbers choose among its variants.
    """

    name: str
    about: str
    level: Level
    apply: Apply


FORMATS: Final[dict[str, Format]] = {}
"""Every format by its name."""


def _format(name: str, level: Level, about: str) -> Callable[[Apply], Apply]:
    def add(apply: Apply) -> Apply:
        FORMATS[name] = Format(name, about, level, apply)
        return apply

    return add


SPEAKERS: Final = ("Anna", "Ben", "Host", "Guest", "Teacher", "Pupil", "Editor", "Reader")
UNTITLED: Final = ("Text", "Article", "Document", "Notes", "Entry")
"""A heading for documents without a title."""
FIELDS: Final = (("title", "text"), ("name", "description"), ("topic", "content"), ("subject", "body"))
CODE_WORDS: Final = (
    "BEGIN",
    "END",
    "REM",
    "section",
    "begin",
    "end",
    "itemize",
    "item",
    "paragraph",
    "textit",
    "quote",
)
TAGS: Final = (
    "p",
    "h1",
    "h2",
    "h3",
    "ul",
    "ol",
    "li",
    "div",
    "span",
    "article",
    "section",
    "blockquote",
    "b",
    "i",
    "em",
)


# ------------------------------------------------------------------ white space


@_format("spacing", Level.SPACES, "more spaces between words or between sentences")
def spacing(sheet: Sheet, rng: Random) -> Sheet:
    space = " " * rng.randint(2, 4)
    if rng.random() < 0.5 and len(sheet.sentences) > 1:
        return sheet.apart(sheet.sentences, lambda white: white if "\n" in white else space)
    return sheet.spread(lambda white: white if "\n" in white else space)


@_format("lines", Level.SPACES, "one sentence a line, with or without a blank line between")
def one_a_line(sheet: Sheet, rng: Random) -> Sheet:
    gap = rng.choice(("\n", "\n\n"))
    return sheet.apart(sheet.sentences, lambda white: _broken(white) if gap == "\n" else gap)


@_format("wrapped", Level.SPACES, "lines broken anew, at a width of 24 to 100 characters")
def wrapped(sheet: Sheet, rng: Random) -> Sheet:
    width = rng.choice((24, 32, 40, 48, 60, 72, 80, 100))
    paragraphs = {start for start, _ in sheet.paragraphs}
    white, used = list(sheet.white), len(sheet.words[0])
    for index in range(1, len(sheet.words)):
        word = sheet.words[index]
        if index in paragraphs:
            used = len(word)
        elif white[index].strip(PLAIN):
            used += len(white[index]) + len(word)
        elif used + 1 + len(word) > width:
            white[index], used = "\n", len(word)
        else:
            white[index] = " "
            used += 1 + len(word)
    return sheet.with_white(white)


# -------------------------------------------------------------------- sentences

QUOTES: Final = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("„", "“"), ("``", "''"), ('"""', '"""'))
BRACKETS: Final = (
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
    ("<", ">"),
    ("((", "))"),
    ("[[", "]]"),
    ("【", "】"),
    ("( ", " )"),
)
STRESSES: Final = ("**", "*", "_", "__", "***", "`", "~~", "==")
BULLETS: Final = ("-", "*", "•", "+", "–", "◦", "▪", "->", "- [ ]", "- [x]")
NUMBERS: Final = ("{}.", "{})", "({})", "[{}]", "{}:", "#{}", "{} -", "{}")


@_format("quotes", Level.SENTENCES, "quotation marks around each sentence")
def quotes(sheet: Sheet, rng: Random) -> Sheet:
    return sheet.around(sheet.body, *rng.choice(QUOTES))


@_format("brackets", Level.SENTENCES, "brackets around each sentence")
def brackets(sheet: Sheet, rng: Random) -> Sheet:
    return sheet.around(sheet.body, *rng.choice(BRACKETS))


@_format("emphasis", Level.SENTENCES, "each sentence in bold, in italics, or struck, in Markdown's marks")
def emphasis(sheet: Sheet, rng: Random) -> Sheet:
    mark = rng.choice(STRESSES)
    return sheet.around(sheet.body, mark, mark)


@_format("bullets", Level.ITEMS, "a list: one sentence an item, with a bullet")
def bullets(sheet: Sheet, rng: Random) -> Sheet:
    mark = rng.choice(BULLETS)
    return _items(sheet).around(sheet.body, f"{mark} ", "")


@_format("numbers", Level.ITEMS, "a list: one sentence an item, counted from 1 (or from 0)")
def numbers(sheet: Sheet, rng: Random) -> Sheet:
    pattern, first = rng.choice(NUMBERS), rng.choice((1, 1, 1, 0))
    return _items(sheet).around(sheet.body, lambda number: pattern.format(number + first) + " ", "")


@_format("dialogue", Level.ITEMS, "two speakers say the sentences in turn")
def dialogue(sheet: Sheet, rng: Random) -> Sheet:
    pair = rng.sample(SPEAKERS, 2)
    opening, closing = rng.choice(((": ", ""), (": “", "”"), (': "', '"'), (" - ", ""), ("> ", ""), (":\n", "")))
    dash = rng.random() < 0.2
    return _items(sheet).around(sheet.body, lambda n: "— " if dash else pair[n % 2] + opening, "" if dash else closing)


@_format("separators", Level.ITEMS, "a line of marks, or a bar, between sentences")
def separators(sheet: Sheet, rng: Random) -> Sheet:
    bar = rng.choice(("---", "***", "===", "* * *", "~~~", "...", "|", "/", "•", "¦", "//", "#"))
    gap = f" {bar} " if len(bar) < 3 else f"\n{bar}\n"
    units = sheet.sentences
    if len(units) == 1:
        return sheet.around(units, gap.lstrip(), gap.rstrip())
    return sheet.apart(units, lambda white: gap if not white.strip() else white)


# --------------------------------------------------------------- whole documents


@_format("heading", Level.DOCUMENT, "the title as a heading above the text")
def heading(sheet: Sheet, rng: Random) -> Sheet:
    title = _title(sheet, rng)
    under, count = rng.choice("=-~"), min(len(title), 60)
    marks = (
        ("", "\n\n"),
        ("", ":\n"),
        ("== ", " ==\n"),
        ("[", "]\n\n"),
        ("*** ", " ***\n\n"),
        ("", f"\n{under * count}\n"),
    )
    # A title that stands above the text already would stay as it is without a mark.
    return _headed(sheet, title, *rng.choice(marks[1:] if sheet.lead else marks))


@_format("markdown", Level.DOCUMENT, "Markdown: a heading, and paragraphs, a list or quotations below it")
def markdown(sheet: Sheet, rng: Random) -> Sheet:
    title, sharps, kind = _title(sheet, rng), "#" * rng.randint(1, 4), rng.randrange(4)
    if kind == 0:
        sheet = _items(sheet).around(sheet.body, rng.choice(("- ", "* ", "1. ")), "")
    elif kind == 1:
        sheet = sheet.apart(sheet.body, lambda white: "\n\n").around(sheet.body, "> ", "")
    elif kind == 2:
        sheet = sheet.around(sheet.body[:1], "**", "**")
    return _headed(sheet, title, f"{sharps} ", "\n\n")


@_format("html", Level.DOCUMENT, "HTML: a heading, and paragraphs, lists or spans below it; the text is not escaped")
def html(sheet: Sheet, rng: Random) -> Sheet:
    title, size, kind = _title(sheet, rng), rng.choice(("h1", "h2", "h3")), rng.randrange(4)
    if kind == 0:
        sheet = sheet.around(sheet.body_paragraphs, "<p>", "</p>")
    elif kind == 1:
        listed, body = rng.choice(("ul", "ol")), (sheet.lead, len(sheet.words))
        sheet = _items(sheet).around(sheet.body, "<li>", "</li>").around([body], f"<{listed}>\n", f"\n</{listed}>")
    elif kind == 2:
        tag = rng.choice(("span", "b", "i", "em"))
        sheet = sheet.around(sheet.body, f"<{tag}>", f"</{tag}>")
    else:
        tag = rng.choice(("div", "article", "section", "blockquote"))
        sheet = sheet.around([(sheet.lead, len(sheet.words))], f"<{tag}>\n", f"\n</{tag}>")
    return _headed(sheet, title, f"<{size}>", f"</{size}>\n")


@_format("table", Level.DOCUMENT, "a table of one column, a sentence a row, under the title")
def table(sheet: Sheet, rng: Random) -> Sheet:
    title = _title(sheet, rng)
    opening, closing, rule = rng.choice(
        (("| ", " |", "|---|\n"), ("|", "|", "|:--|\n"), ("| ", " |", ""), ("! ", "", ""))
    )
    return _headed(_items(sheet).around(sheet.body, opening, closing), title, opening, f"{closing}\n{rule}")


@_format("fields", Level.DOCUMENT, "a record of two fields, the title and the text")
def fields(sheet: Sheet, rng: Random) -> Sheet:
    title, (name, body), kind = _title(sheet, rng), rng.choice(FIELDS), rng.randrange(4)
    if kind == 0:
        return _headed(sheet.around([_rest(sheet)], f"{body}: ", ""), title, f"{name}: ", "\n")
    if kind == 1:
        return _headed(sheet.around([_rest(sheet)], f'"{body}": "', '"}'), title, f'{{"{name}": "', '", ')
    if kind == 2:
        return _headed(sheet.around([_rest(sheet)], f"{body.title()}:\n", ""), title, f"{name.title()}: ", "\n")
    inner = sheet.around([_rest(sheet)], f"<{body}>", f"</{body}>")
    return _headed(inner, title, f"<{name}>", f"</{name}>\n")


@_format("frame", Level.DOCUMENT, "a line of marks above and below the whole")
def frame(sheet: Sheet, rng: Random) -> Sheet:
    bar = rng.choice("-=~*#_+.") * rng.choice((3, 8, 20, 40, 60))
    pairs = ((bar, bar), ("```", "```"), ("[BEGIN]", "[END]"), ("<<<", ">>>"), ("{{{", "}}}"), (bar, bar), (bar, bar))
    above, below = rng.choice(pairs)
    return sheet.around([sheet.whole], f"{above}\n", f"\n{below}")


@_format("latex", Level.DOCUMENT, "LaTeX: a section with the title, and paragraphs or items")
def latex(sheet: Sheet, rng: Random) -> Sheet:
    title, kind, body = _title(sheet, rng), rng.randrange(3), _rest(sheet)
    if kind == 0:
        items = _items(sheet).around(sheet.body, "\\item ", "")
        sheet = items.around([body], "\\begin{itemize}\n", "\n\\end{itemize}")
    elif kind == 1:
        sheet = sheet.around([body], "\\begin{quote}\n", "\n\\end{quote}")
    else:
        sheet = sheet.around(sheet.body[:1], "\\textit{", "}")
    return _headed(sheet, title, rng.choice(("\\section{", "\\section*{", "\\paragraph{")), "}\n")


# ------------------------------------------------------------------------ lines


@_format("indent", Level.LINES, "each line, or each sentence on a line of its own, set in by spaces or a tab")
def indent(sheet: Sheet, rng: Random) -> Sheet:
    space = rng.choice(("  ", "    ", "        ", "\t", "\t\t", "            "))
    return (_items(sheet) if rng.random() < 0.5 else sheet).lines(space)


@_format("comments", Level.LINES, "a comment in code: one sentence a line, behind the comment sign of some language")
def comments(sheet: Sheet, rng: Random) -> Sheet:
    line = ("# ", "// ", "-- ", "; ", "% ", "REM ", "/// ", "## ", "! ", "' ")
    block = (("/*\n", " * ", "\n */"), ("<!--\n", "", "\n-->"), ('"""\n', "", '\n"""'), ("(*\n", "  ", "\n*)"))
    split = _items(sheet)
    if rng.random() < 0.7:
        return split.lines(rng.choice(line))
    above, prefix, below = rng.choice(block)
    return split.lines(prefix).around([sheet.whole], above, below)


@_format("blockquote", Level.LINES, "a quotation as in mail: `>` before each line")
def blockquote(sheet: Sheet, rng: Random) -> Sheet:
    split = _items(sheet) if rng.random() < 0.5 else sheet
    return split.lines(rng.choice(("> ", ">> ", ">", "| ", ": ", "> > ")))


# ----------------------------------------------------------------------- around


@_format("padding", Level.AROUND, "blank lines or spaces before and after the text")
def padding(sheet: Sheet, rng: Random) -> Sheet:
    def space() -> str:
        return rng.choice(("\n", " ", "\t", "\n ", " \n")) * rng.randint(1, 4)

    return sheet.around([sheet.whole], space(), space())


# ---------------------------------------------------------------------- helpers


def _broken(white: str) -> str:
    """At least a line end."""
    return white if "\n" in white else "\n"


def _items(sheet: Sheet) -> Sheet:
    """Each sentence on a line of its own."""
    return sheet.apart(sheet.sentences, _broken)


def _rest(sheet: Sheet) -> Unit:
    """All behind the title, where the text begins with it."""
    return sheet.lead, len(sheet.words)


def _title(sheet: Sheet, rng: Random) -> str:
    untitled = rng.choice(UNTITLED)  # drawn in any case: what comes after must not depend on there being a title
    return sheet.title or untitled


def _headed(sheet: Sheet, title: str, opening: str, closing: str) -> Sheet:
    """The title between two marks above the text: the one that stands there, or else a new one."""
    if not sheet.lead:
        return sheet.around([sheet.whole], f"{opening}{title}{closing}", "")
    bare = closing.rstrip(PLAIN)
    marked = sheet.around([(0, sheet.lead)], opening, bare)
    return marked.apart([(0, sheet.lead), _rest(sheet)], lambda white: closing[len(bare) :])


def written_words() -> frozenset[str]:
    """Every word that a format can write and that is not from the document or its title, in lower case."""
    lists: Sequence[Sequence[str]] = (SPEAKERS, UNTITLED, CODE_WORDS, TAGS, *FIELDS, ("x",))
    return frozenset(word.lower() for some in lists for word in some)
