"""A comparison's figures, words, tables, picture and page, on made-up outcomes of known chances."""

from __future__ import annotations

import csv
import io
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InputError
from instil.loop.compare_figures import over_seeds, pareto
from instil.loop.compare_words import equal_compute, headline
from instil.report.comparison import render
from instil.report.comparison_picture import Picture, spending, trade_off
from instil.report.comparison_tables import table
from tests.compare_data import CHANCES, QUICK, frame, summary


@pytest.fixture(scope="module")
def seven() -> dict[str, Any]:
    return summary()


def two(first: tuple[float, float], second: tuple[float, float], **more: Any) -> dict[str, Any]:
    return summary({"gradual": first, "sft": second}, **more)


def test_clear_differences_are_told_with_numbers_and_n() -> None:
    found = two((0.85, 0.05), (0.3, 0.5))["headline"]
    assert re.fullmatch(
        r"gradual learned \d+ to \d+ more facts of 100 than sft; "
        r"gradual lost \d+ to \d+ fewer known facts of 90 than sft\.",
        found["title"],
    )
    assert len(found["sentences"]) == 2


def test_noise_is_told_as_noise() -> None:
    title = two((0.5, 0.2), (0.5, 0.2))["headline"]["title"]
    assert title.startswith("No difference can be shown in what gradual and sft learned (gradual: ")
    assert (
        "no difference can be shown in what gradual and sft lost" in title
        and "of 100 facts" in title
        and "of 90 facts" in title
    )


def test_no_sentence_without_n(seven: dict[str, Any]) -> None:
    told = [*seven["headline"]["sentences"], *(pair["sentence"] for pair in seven["pairs"])]
    assert len(told) == 2 + 42
    assert all(re.search(r"\b(of|at any of) (100|90)\b", sentence) for sentence in told)


def test_a_claim_from_one_seed_says_so() -> None:
    told = [pair["sentence"] for pair in two((0.85, 0.05), (0.3, 0.5), seeds=1)["pairs"]]
    assert len(told) == 2 and all(sentence.endswith(" (one seed only).") for sentence in told)


def test_pairs_agree_with_themselves(seven: dict[str, Any]) -> None:
    for pair in seven["pairs"]:
        assert pair["family"] == 42 and pair["p_holm"] >= pair["p"]
        assert pair["shown"] == (pair["low"] > 0 or pair["high"] < 0) == (pair["p_holm"] < 0.05)
        assert pair["low"] <= pair["single_low"] <= pair["value"] <= pair["single_high"] <= pair["high"]


def test_shares_over_seeds_are_those_of_the_rows() -> None:
    rows = frame(CHANCES, seeds=2)
    own = rows[rows["arm"] == "sft"]
    found = over_seeds(own, "learned", QUICK)
    assert found.value == pytest.approx(own["learned"].dropna().astype(float).mean())
    assert (found.n, found.clusters) == (100, 50)
    assert found.value is not None and found.low is not None and found.high is not None
    assert 0 <= found.low < found.value < found.high <= 1
    none = own.assign(lost=own["lost"].map(lambda value: None if value is None else False))
    exact = over_seeds(none, "lost", QUICK)
    assert exact.value == 0 and exact.high is not None and 0 < exact.high < 0.1  # no width of zero


def arm(name: str, learned: float | None, lost: float | None, compared: bool = True) -> dict[str, Any]:
    return {"name": name, "compared": compared, "figures": {"learned": {"value": learned}, "lost": {"value": lost}}}


def test_pareto_front() -> None:
    arms = [arm("a", 0.9, 0.5), arm("b", 0.5, 0.1), arm("c", 0.5, 0.2), arm("d", 0.7, 0.2), arm("e", 0.4, 0.05)]
    assert pareto(arms) == ["e", "b", "d", "a"]
    assert pareto([*arms, arm("over", 1.0, 0.0, compared=False), arm("none", None, 0.0)]) == ["e", "b", "d", "a"]
    assert pareto([arm("a", 0.5, 0.1), arm("b", 0.5, 0.1)]) == ["a", "b"]  # equals do not beat each other


def test_who_ended_early_and_who_spent_too_much(seven: dict[str, Any]) -> None:
    changed = dict(seven)
    changed["arms"] = [dict(one) for one in seven["arms"]]
    changed["arms"][0]["runs"] = [{**run, "ended": "at the budget"} for run in seven["arms"][0]["runs"]]
    changed["arms"][1]["runs"] = [
        {**run, "ended": "over the budget", "of_budget": 1.7} for run in seven["arms"][1]["runs"]
    ]
    over, early = equal_compute(changed)
    assert "sft+replay (170 %)" in over and "compared with none" in over
    assert "sft (" not in early and "gradual (90 %)" in early


def test_one_arm_is_no_comparison(seven: dict[str, Any]) -> None:
    told = headline(
        {**seven, "arms": [{**one, "compared": one["name"] == "sft"} for one in seven["arms"]], "pairs": []}
    )
    assert told["title"] == "There are not two arms that can be compared."


def test_tables_hold_the_same_numbers(seven: dict[str, Any]) -> None:
    markdown, latex = table(seven, "markdown"), table(seven, "latex")
    rows = list(csv.DictReader(io.StringIO(table(seven, "csv"))))
    assert [row["arm"] for row in rows] == list(CHANCES)
    for row, one in zip(rows, seven["arms"], strict=True):
        assert float(row["learned"]) == one["figures"]["learned"]["value"] and row["learned_n"] == "100"
        cell = (
            f"{100 * float(row['lost']):.1f} [{100 * float(row['lost_low']):.1f}, {100 * float(row['lost_high']):.1f}]"
        )
        assert f"| {cell} % |" in markdown and f" & {cell} & " in latex
    widths = {line.count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert widths == {10} and "3 seeds; 95 % intervals" in markdown
    assert {line.count("&") for line in latex.splitlines() if line.endswith(r"\\")} == {8}
    assert latex.count("{") == latex.count("}") and "95 \\% intervals" in latex


def test_hostile_names_stay_text(seven: dict[str, Any]) -> None:
    bad = '<script>alert("x")</script> | =1+1 & 5 % \\ _{}'
    evil = {**seven, "arms": [{**seven["arms"][0], "name": bad}, *seven["arms"][1:]], "pareto": [bad]}
    evil["failures"] = [{"arm": bad, "seed": 0, "error": "X", "message": "<b>no</b>"}]
    page = render(evil)
    assert "<script" not in page and "<b>no</b>" not in page
    ET.fromstring(trade_off(evil))
    ET.fromstring(spending(evil))
    first = table(evil, "markdown").splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", first)) == 10
    assert r"\& 5 \% \textbackslash{} \_\{\}" in table(evil, "latex")
    formula = {**seven, "arms": [{**seven["arms"][0], "name": "=1+1"}]}
    assert table(formula, "csv").splitlines()[1].startswith("'=1+1,")


def test_no_such_form_of_table(seven: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"markdown \| latex \| csv"):
        table(seven, "word")


def test_the_picture_shows_every_arm_seed_and_interval(seven: dict[str, Any]) -> None:
    root = ET.fromstring(trade_off(seven))
    space = "{http://www.w3.org/2000/svg}"

    def kind(name: str) -> list[Any]:
        return [node for node in root.iter() if name in (node.get("class") or "").split()]

    assert len(kind("marker")) == 7 and len(kind("best")) == len(seven["pareto"])
    assert len(kind("seed")) == 7 * 3 and len(kind("whisker")) == 7 * 2 and len(kind("front")) == 1
    assert {node.text for node in kind("label")} == set(CHANCES)
    told = root.get("aria-label") or ""
    assert all(f"{name}: learned" in told for name in CHANCES) and "On the Pareto front" in told
    assert root.find(f"{space}style") is not None
    numbers = [
        float(node.attrib[key])
        for node in root.iter()
        for key in ("cx", "cy", "x1", "y1", "x", "y")
        if key in node.attrib
    ]
    assert min(numbers) >= 0 and max(numbers) <= 760


def test_higher_is_more_learned_and_right_is_more_lost() -> None:
    root = ET.fromstring(trade_off(two((0.9, 0.05), (0.2, 0.6)), alone=False))
    first, second = (node for node in root.iter() if "marker" in (node.get("class") or ""))
    assert float(first.get("cy", 0)) < float((second.get("points") or "").split(",")[1].split()[0])
    assert float(first.get("cx", 0)) < float((second.get("points") or "").split(",")[0])


def test_labels_do_not_cover_each_other() -> None:
    root = ET.fromstring(trade_off(summary(dict.fromkeys(list(CHANCES)[:5], (0.5, 0.2)))))
    labels = [node for node in root.iter() if "label" in (node.get("class") or "")]
    boxes = [(float(node.get("x", 0)), float(node.get("y", 0)), 7.2 * len(node.text or "")) for node in labels]
    for (x, y, width), (other_x, other_y, other_width) in combinations(boxes, 2):
        assert abs(y - other_y) >= 15 or x > other_x + other_width or other_x > x + width


def test_a_picture_without_any_figure_is_still_one(seven: dict[str, Any]) -> None:
    empty = {
        **seven,
        "arms": [{**one, "figures": {}, "runs": [], "spent": None} for one in seven["arms"]],
        "pareto": [],
    }
    assert "No arm has figures" in trade_off(empty)
    ET.fromstring(spending(empty))


def test_a_picture_can_be_shown_and_saved(seven: dict[str, Any], tmp_path: Any) -> None:
    picture = Picture(trade_off(seven))
    picture.save(tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_text() == picture._repr_svg_()


def test_the_page_asks_for_nothing_and_holds_the_numbers(seven: dict[str, Any]) -> None:
    page = render(seven)
    assert "default-src 'none'" in unescape(page) and "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert len(page.encode()) < 400_000
    assert seven["headline"]["title"] in page and page.count("<h1") == 1
    assert "Failed:" not in page
    for one in seven["arms"]:
        assert f"<bdi>{one['name']}</bdi>" in page


def test_failures_stand_on_the_page(seven: dict[str, Any]) -> None:
    page = render(
        {**seven, "failures": [{"arm": "sft+kl", "seed": 2, "error": "RunFailed", "message": "the disk is full"}]}
    )
    assert "<b>Failed:</b> <bdi>sft+kl</bdi>, seed 2: <bdi>the disk is full</bdi>" in page


@contextmanager
def opened(html: str, folder: Path, **options: Any) -> Iterator[Any]:
    """The page in a browser, which keeps what it asked for (`asked`) and what went wrong (`faults`)."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    (folder / "report.html").write_text(html)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"], timeout=120_000
        )
        page = browser.new_page(**options)
        page.asked, page.faults = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda line: page.faults.append(line.text))
        page.goto((folder / "report.html").as_uri())
        yield page
        browser.close()


def test_the_page_in_a_browser(seven: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is asked of a network, nothing is wider than a phone, and the keyboard opens what is folded."""
    with opened(render(seven), tmp_path, viewport={"width": 390, "height": 844}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("svg.picture[role=img][aria-label]").count() == 2
        assert page.locator("h1").count() == 1
        assert page.locator("th:not([scope])").count() == 0
        folded = page.locator("#pairs details").last
        folded.locator("summary").focus()
        page.keyboard.press("Enter")
        assert folded.locator("tbody tr").count() == 42 and folded.get_attribute("open") is not None
        asked, faults = page.asked, page.faults
    assert faults == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_axe_finds_nothing_on_the_page(seven: dict[str, Any], tmp_path: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "bypass_csp": True}
    with opened(render(seven), tmp_path, **options) as page:
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        found = axe.Axe().run(page).response
    assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []
    assert len(found["passes"]) > 15
