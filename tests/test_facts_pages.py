"""Text, Markdown, HTML and PDF as documents: what a page shows, under which title, and what is refused by name."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from instil.errors import InputError
from instil.facts import Corpus
from instil.facts.pages import pdf as pdf_pages
from tests.pdf_data import encrypted, pdf

HTML = """<!DOCTYPE html><html><head><title>The &amp; Lamp</title><style>p { color: red }</style>
<script>document.write("<p>never shown</p>");</script></head><body><nav><ul><li>Home</li></ul></nav>
<h1>Lamps</h1><p>First <b>para</b>graph.<p>Second &lt;one&gt;<br>with a break <img src="x" alt="a lamp">
<table><tr><th>a<th>b<tr><td>1<td>2</table>
<ul><li>one<ul><li>inner</ul><li><p>two</p></ul><pre>  kept
    as is</pre><!-- no --></body></html>"""
SHOWN = """Lamps

First paragraph.

Second <one>
with a break a lamp

a | b
1 | 2

- one
- inner
- two

  kept
    as is"""
MARKDOWN = """---
title: On lamps
year: 1912
---
# A *heading*

Soft
wrapped **bold** [link](http://example.org/x) and `code`.

> quoted

* one
* two

<b>raw</b> &amp; <script>no()</script>end
"""


def one(tmp_path: Path, name: str, content: str | bytes, **options: bool) -> Corpus:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Corpus.read(path, **options)


def test_html_is_what_a_browser_shows(tmp_path: Path) -> None:
    [page] = one(tmp_path, "page.html", HTML)
    assert (page.id, page.title, page.text) == ("page.html", "The & Lamp", SHOWN)
    [page] = one(tmp_path, "page.txt", HTML)
    assert page.text == SHOWN, "known by its content, whatever its name"


def test_html_of_another_encoding(tmp_path: Path) -> None:
    [page] = one(tmp_path, "a.html", '<html><meta charset="iso-8859-1"><p>Café “x”'.encode("cp1252"))
    assert page.text == "Café “x”"
    [page] = one(tmp_path, "b.html", "<html><p>Ünï".encode("utf-16"))
    assert page.text == "Ünï"


def test_markdown_loses_its_marks_and_no_word(tmp_path: Path) -> None:
    [page] = one(tmp_path, "page.md", MARKDOWN)
    body = "A heading\n\nSoft wrapped bold link and code.\n\nquoted\n\n- one\n- two\n\nraw & end"
    assert (page.title, page.text) == ("On lamps", body)
    assert page.metadata == {"front_matter": {"title": "On lamps", "year": 1912}}
    [page] = one(tmp_path, "plain.md", "---\nnot: [yaml\n---\n\nText.\n\n## Later *heading*")
    assert page.title == "not: [yaml", "what is no front matter is text: here a heading, by Markdown's rules"
    assert "not: [yaml" in page.text


def test_titles(tmp_path: Path) -> None:
    assert one(tmp_path, "a_name.txt", "Running text, and more of it.\nOne.")[0].title == "a_name"
    assert one(tmp_path, "b.txt", "A heading\n\nRunning text.")[0].title == "A heading"
    assert one(tmp_path, "c.html", "<html><h1>First <i>one</i></h1><h1>second</h1>x")[0].title == "First one"
    assert one(tmp_path, "d.pdf", pdf([["Words."]], "A (great) book"))[0].title == "A (great) book"
    assert one(tmp_path, "e.pdf", pdf([["Words."]], "Microsoft Word - draft.doc"))[0].title == "e"


def test_pdf_paragraphs_are_rebuilt(tmp_path: Path) -> None:
    pages = [
        ["The Journal of Lamps 1", "A lamp is a device that gives light where there is none, and people have", "used "
         "many kinds of them: of oil, of gas, and lately of elec-", "tricity.", "Their history is long."],
        ["The Journal of Lamps 2", "It begins with fire, which the oldest people known to us kept within a ring",
         "of stones."],
        ["The Journal of Lamps 3", "- one kind of lamp", "- another kind of lamp"],
        ["The Journal of Lamps 4", "The end."],
    ]  # fmt: skip
    corpus = one(tmp_path, "book.pdf", pdf(pages))
    assert corpus[0].text == (
        "A lamp is a device that gives light where there is none, and people have used many kinds of them: of oil, of "
        "gas, and lately of electricity.\n\nTheir history is long.\n\nIt begins with fire, which the oldest people "
        "known to us kept within a ring of stones.\n\n- one kind of lamp\n\n- another kind of lamp\n\nThe end."
    )
    assert any("a running head" in line and "4 pages" in line for line in corpus.left_out)
    assert corpus[0].metadata == {"pages": 4}


def test_a_divided_word_keeps_the_hyphen_that_it_has_elsewhere() -> None:
    lines = [["a well-", "known case of electri-", "city, in Anglo-", "Saxon"]]
    assert pdf_pages.paragraphs(lines, {"well-known"}) == "a well-known case of electricity, in Anglo-Saxon"


def test_a_pdf_page_that_yields_nothing_is_named(tmp_path: Path) -> None:
    scan = pdf([["Text."], None, ["More."]])
    with pytest.raises(InputError, match=r"book\.pdf: a page has pictures and no text.*page 2"):
        one(tmp_path, "book.pdf", scan)
    corpus = one(tmp_path, "book.pdf", scan, skip_invalid=True)
    assert "More." in corpus[0].text and "page 2" in corpus.left_out[0]
    corpus = one(tmp_path, "blank.pdf", pdf([["Text."], [], ["More."]]))
    assert "a page is empty" in corpus.left_out[0], "a blank page is no fault, and is named"


BAD = {
    "encrypted": ("a.pdf", encrypted(pdf([["x"]]), "secret"), "the PDF is encrypted"),
    "scan": ("a.pdf", pdf([None, None]), "the PDF holds no text, only pictures"),
    "cut PDF": ("a.pdf", pdf([["Some words."]])[:200], "the PDF"),
    "not a PDF": ("a.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 4, "the PDF"),
    "binary text": ("a.txt", b"abc\0\1\2", "the file is no text"),
    "Latin-1": ("a.md", b"Caf\xe9 au lait", "not UTF-8"),
    "wrong charset": ("a.html", b'<html><meta charset="utf-8">Caf\xe9', "not UTF-8"),
    "only a script": ("a.html", "<html><script>x = '<p>text</p>'</script>", "the page yields no text"),
    "script without end": ("a.html", "<html><p>Text.<script>x = 1;<p>more", "the element <script> has no end"),
    "menu without end": ("a.html", "<html><p>Text.<nav>Home<p>more", "the element <nav> has no end"),
    "broken tags": ("a.html", "<html>" + "<a " * 40_000, "not HTML that can be read"),
    "nested Markdown": ("a.md", "".join(f"{'> ' * n}x\n\n" for n in (1, 150)), "nested too deeply"),
    "only front matter": ("a.md", "---\ntitle: x\n---\n", "the file is empty"),
    "cut gzip": ("a.txt.gz", b"\x1f\x8b\x08\0", "the gzipped file is cut or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pages_are_refused_by_name(name: str, tmp_path: Path) -> None:
    file, content, what = BAD[name]
    with pytest.raises(InputError, match=rf"{file}.*{what}"):
        one(tmp_path, file, content)
    (tmp_path / "good.txt").write_text("Good.")
    corpus = Corpus.read(tmp_path, skip_invalid=True)
    assert [document.id for document in corpus] == ["good.txt"]
    assert any(file in line for line in corpus.left_out)


def test_hostile_pages_are_read_in_time(tmp_path: Path) -> None:
    start = time.monotonic()
    deep = "<html>" + "<div><b>" * 50_000 + "core" + "</b></div>" * 50_000
    assert one(tmp_path, "deep.html", deep)[0].text == "core"
    long = "<html><p>" + "word " * 400_000
    assert len(one(tmp_path, "long.html", long)[0].text.split()) == 400_000
    marks = "*" * 20_000 + " text " + "[" * 5_000 + "_" * 5_000
    assert "text" in one(tmp_path, "marks.md", marks)[0].text
    assert time.monotonic() - start < 60


def test_a_folder_is_read_whole_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name, text in {"b/2.md": "# B\n\nTwo.", "a.txt": "One.", ".git/x.txt": "no", ".hidden.txt": "no"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "c.PDF").write_bytes(pdf([["Three."]]))
    (tmp_path / "no-suffix").write_bytes(pdf([["Four."]]))
    (tmp_path / "table.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "around").symlink_to(tmp_path)
    corpus = Corpus.read(tmp_path)
    assert [(document.id, document.text) for document in corpus] == [
        ("a.txt", "One."), ("b/2.md", "B\n\nTwo."), ("c.PDF", "Three."), ("no-suffix", "Four."),
    ]  # fmt: skip
    told = " ".join(corpus.left_out)
    assert len(corpus.left_out) == 3
    assert all(name in told for name in ("table.xlsx", "broken.txt", "around"))
    assert list(Corpus.read(tmp_path)) == list(corpus)


@pytest.mark.slow
def test_a_pdf_as_a_browser_prints_it_has_every_word_in_order(tmp_path: Path) -> None:
    """A PDF that no test has written by hand: fonts, ligatures, pages and line breaks are those of Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    chance = random.Random(0)
    syllables = ("fi", "ffa", "flo", "ran", "té", "ßu", "mo", "Ki", "ves", "dun")
    words = ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(1_200)]
    paragraphs = [" ".join(words[start : start + 60]) + "." for start in range(0, len(words), 60)]
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8><title>Fifty floes</title>{body}", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    printing = [
        chromium,
        *options,
        f"--user-data-dir={tmp_path / 'browser'}",
        f"--print-to-pdf={tmp_path / 'page.pdf'}",
    ]
    subprocess.run([*printing, page.as_uri()], check=True, capture_output=True, timeout=120)
    (document,) = Corpus.read(tmp_path / "page.pdf")
    assert document.title == "Fifty floes"
    assert document.text.split() == " ".join(paragraphs).split()
    # A paragraph whose last line is full runs into the next one: a PDF does not say where one ends.
    assert document.text.count("\n\n") >= 10


def test_ligatures_of_print_are_read_as_their_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_pages, "extracted", lambda data, file: ([("The ﬁrst ﬂoe of the oﬃce.", False)], None))
    (tmp_path / "a.pdf").write_bytes(pdf([["x"]]))
    assert Corpus.read(tmp_path / "a.pdf")[0].text == "The first floe of the office."
