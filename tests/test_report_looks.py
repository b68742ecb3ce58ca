"""The report's colours, the files that it carries, and its words: that none is missing, and that all can be read."""

from __future__ import annotations

import hashlib
import re
from itertools import combinations
from pathlib import Path

import pytest

from instil.report import build_report, palette, words
from tests.colour import VISION, contrast, distance

ASSETS = Path(build_report.__code__.co_filename).parent / "assets"


@pytest.mark.parametrize("dark", [False, True])
def test_categories_differ_for_every_kind_of_colour_vision(dark: bool) -> None:
    colours = [pair[dark] for pair in palette.CATEGORY_COLOURS.values()]
    for vision in VISION:
        least = 12 if vision == "none" else 20
        assert min(distance(a, b, vision) for a, b in combinations(colours, 2)) > least, vision
    grey = [distance(colour, "#000000", "none") for colour in colours]
    assert grey == sorted(grey, reverse=dark)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_outlines_have_enough_contrast(dark: bool) -> None:
    colour = {name: pair[dark] for name, pair in palette.SURFACE.items()}
    for ground in ("ground", "raised"):
        for text in ("ink", "soft", "accent", "lost"):
            assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
        assert contrast(colour["edge"], colour[ground]) >= 3, ground


def test_carried_files_are_those_of_their_origin() -> None:
    listed = dict(re.findall(r"\| `([\w.-]+)` \|.*`([0-9a-f]{64})` \|", (ASSETS / "README.md").read_text()))
    assert set(listed) == {"echarts.min.js", "inter.woff2", "source-serif.woff2"}
    for name, digest in listed.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest, name
        assert (ASSETS / f"{name.split('.')[0]}.LICENSE.txt").is_file()


def test_words_name_every_category() -> None:
    assert set(words.CATEGORIES) == set(words.CATEGORY_WORDS) == set(words.CATEGORY_MEANING)
    assert set(words.CATEGORIES) == set(palette.CATEGORY_COLOURS)
    assert set(words.VERDICTS) == set(words.VERDICT_MEANING)


def test_the_groups_name_figures_that_the_exam_has() -> None:
    from instil.exam import FIGURES, FURTHER_FIGURES
    from instil.report.groups import GROUPS

    known = {*FIGURES, *FURTHER_FIGURES}
    named = [name for lines in GROUPS.values() for name, _ in lines]
    assert all(name in known or f"{name}_after" in known for name in named) and len(set(named)) == len(named)
