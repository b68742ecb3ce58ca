"""PDF as plain text: pages joined, paragraphs rebuilt from lines, words that a line end divides joined, running heads
left out and named. Text is what the file holds as text; nothing is recognised from pictures."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from instil.errors import InputError
from instil.facts.faults import Fault, shown
from instil.facts.pages.page import LONGEST_TITLE, Page, not_empty

INSTALL: Final = "pip install 'instil[documents]'"
FULL_LINE: Final = 0.75
"""Of the usual length of a page's long lines: a line this long goes on in the next one."""

HEAD_PAGES: Final = 4
"""From so many pages on, a first or last line that stands on more than half of them is a running head."""

LIGATURES: Final = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
"""Shapes of print, not letters: a word that holds one would never be the word of a question."""

_NO_TITLE = re.compile(
    r"(?:untitled|microsoft word.*|.*\.(?:docx?|tex|dvi|indd|pdf|rtf|odt)|document ?\d*|title)", re.I
)
_ENDS_SENTENCE = re.compile(r"""[.!?…:。！？]["'”’)\]]*$""")
_DIVIDED = re.compile(r"(\w*[^\W\d_])[-\u2010\u00ad]$")
_STARTS_ITEM = re.compile(r"(?:[-•·▪*–]|\(?\d{1,3}[.)]|\(?[a-z]\))\s")


def read(data: bytes, file: Path, note: Callable[[Fault], None]) -> Page:
    """
    Raises:
        InputError: pypdf is missing, the file is encrypted or damaged, or no page of it holds text.
    """
    pages, title = extracted(data, file)
    pages = [(text.translate(LIGATURES), pictures) for text, pictures in pages]
    for number, (text, pictures) in enumerate(pages, 1):
        if not text.strip():
            if not any(other.strip() for other, _ in pages):
                what = "the PDF holds no text" + (", only pictures: a scan, perhaps" if pictures else "")
                raise InputError(what, file=file, found=f"{len(pages)} pages without text", expected="text")
            note(_empty_page(file, number, pictures))
    kept, heads = without_running_heads([_lines(text) for text, _ in pages])
    for head, count in heads.items():
        note(Fault(str(file), "a running head, left out", found=f"{shown(head)} on {count} pages", benign=True))
    vocabulary = {word.lower() for page in kept for line in page for word in re.findall(r"[\w-]+", line)}
    text = paragraphs(kept, vocabulary)
    metadata = {"pages": len(pages)}
    return not_empty(Page(text, title or None, metadata), file)


def extracted(data: bytes, file: Path) -> tuple[list[tuple[str, bool]], str | None]:
    """For each page its text and whether it has pictures; and the title that the file names."""
    try:
        import pypdf
        from pypdf.errors import DependencyError, PyPdfError
    except ImportError as error:
        raise InputError("reading PDF needs pypdf", file=file, expected=INSTALL) from error
    quiet = logging.getLogger("pypdf")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)  # It warns of every repaired fault; what matters comes as an error.
    try:
        reader = pypdf.PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("the PDF is encrypted", file=file, expected="a PDF that opens without a password")
        pages = [(page.extract_text() or "", _has_pictures(page)) for page in reader.pages]
        title = _title(reader.metadata)
    except InputError:
        raise
    except DependencyError as error:
        raise InputError("the PDF is encrypted", file=file, found=str(error), expected=INSTALL) from error
    except (PyPdfError, RecursionError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError,
            NotImplementedError, AssertionError, MemoryError) as error:  # fmt: skip
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise InputError("the PDF cannot be read", file=file, found=found, expected="a PDF") from error
    finally:
        quiet.setLevel(level)
    if not pages:
        raise InputError("the PDF has no pages", file=file, expected="text")
    return pages, title


def without_running_heads(pages: Sequence[Sequence[str]]) -> tuple[list[list[str]], dict[str, int]]:
    """The pages without first and last lines that more than half of them share, numbers apart; and those lines.

    A line that is nothing but a number at either end is a page number and goes with them.
    """
    if len(pages) < HEAD_PAGES:
        return [list(page) for page in pages], {}
    ends = Counter(_shape(line) for page in pages for line in {_shape(end): end for end in _ends(page)}.values())
    running = {shape for shape, count in ends.items() if 2 * count > len(pages)}
    found: Counter[str] = Counter()
    kept = []
    for page in pages:
        lines = list(page)
        for place in (0, -1):
            while lines and _shape(lines[place]) in running:
                found[_shape(lines[place])] += 1
                del lines[place]
        kept.append(lines)
    return kept, dict(found)


def paragraphs(pages: Sequence[Sequence[str]], vocabulary: frozenset[str] | set[str] = frozenset()) -> str:
    """Lines joined to paragraphs. A line goes on in the next one when it is long and ends no sentence, or ends
    within a word; a page goes on in the next one where that begins with a small letter. A paragraph ends at a blank
    line, at an item of a list, and behind a line that is short."""
    blocks: list[str] = []
    open_line = False
    for page in pages:
        usual = _usual_length(page)
        open_line = open_line and bool(page) and (page[0][:1].islower() or bool(_DIVIDED.search(blocks[-1])))
        for line in page:
            if not line:
                open_line = False
                continue
            if open_line and not _STARTS_ITEM.match(line):
                blocks[-1] = _joined(blocks[-1], line, vocabulary)
            else:
                blocks.append(line)
            enough = 0.9 if _ENDS_SENTENCE.search(line) else FULL_LINE
            open_line = bool(_DIVIDED.search(line)) or len(line) >= enough * usual
    return "\n\n".join(blocks)


def _joined(before: str, line: str, vocabulary: frozenset[str] | set[str]) -> str:
    """Two lines as one. A hyphen at the end goes when a small letter follows, unless the word is written with it
    elsewhere in the file."""
    divided = _DIVIDED.search(before)
    if divided is None:
        return f"{before} {line}"
    second = re.match(r"\w+", line)
    if second is None or not line[0].islower():
        return before + line
    first = divided.group(1)
    hyphenated = f"{first}-{second.group()}".lower() in vocabulary
    return before[:-1] + ("-" if hyphenated else "") + line


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().split("\n")] if text.strip() else []


def _usual_length(page: Sequence[str]) -> float:
    """The length of a page's long lines: the one that nine in ten do not pass."""
    lengths = sorted(len(line) for line in page if line)
    return lengths[int(0.9 * (len(lengths) - 1))] if lengths else 0


def _ends(page: Sequence[str]) -> list[str]:
    return [line for line in (page[0], page[-1]) if line] if page else []


def _shape(line: str) -> str:
    return re.sub(r"\d+", "0", line)


def _empty_page(file: Path, number: int, pictures: bool) -> Fault:
    what = "a page has pictures and no text, as scans have" if pictures else "a page is empty"
    return Fault(str(file), what, None, f"page {number}", "no text", "text", benign=not pictures)


def _has_pictures(page: Any) -> bool:
    def drawn(holder: Any, depth: int) -> bool:
        resources = holder.get("/Resources")
        objects = resources.get_object().get("/XObject") if resources is not None else None
        each = [one.get_object() for one in objects.get_object().values()] if objects is not None else []
        inner = [one for one in each if one.get("/Subtype") == "/Form"] if depth else []
        return any(one.get("/Subtype") == "/Image" for one in each) or any(drawn(one, depth - 1) for one in inner)

    try:
        return drawn(page, 3)
    except Exception:  # Whatever a damaged page raises: it cannot be told, and an empty page is then named as such.
        return False


def _title(metadata: Any) -> str | None:
    title = " ".join(str(getattr(metadata, "title", None) or "").split())
    return title if title and len(title) <= LONGEST_TITLE and not _NO_TITLE.fullmatch(title) else None
