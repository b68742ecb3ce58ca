"""The report in real headless Chromium: it draws, its table works, nothing leaves it, hostile facts do nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from instil.report import build_report, words
from tests.colour import contrast
from tests.report_data import HOSTILE, Tables, tables, write_ledger

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.slow

CHARTS = (
    "chart-mastery",
    "chart-flow",
    "chart-categories",
    "chart-curves",
    "chart-states",
    "chart-stage-flow",
    "chart-cost",
)
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
PATIENCE = 120_000  # milliseconds; a busy machine is slow to start a browser

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of this machine. Without one the tests skip, but never in continuous integration."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS), timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def rows() -> Tables:
    return tables(300)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, rows: Tables) -> Path:
    return build_report(write_ledger(tmp_path_factory.mktemp("run"), rows))


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page; at the end nothing may have been asked of any network, and nothing may have gone wrong on it."""
    contexts: list[BrowserContext] = []
    asked: list[str] = []
    faults: list[str] = []

    def open_page(path: Path, address: str = "", *, width: int = 1280, scripts: bool = True, **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 844}, java_script_enabled=scripts, reduced_motion="reduce", **options
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
        page.goto(path.as_uri() + address)
        if scripts:
            page.wait_for_selector("html[data-facts][data-charts]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
    assert [url for url in asked if not (url.startswith("file:") and url.split("#")[0].endswith("report.html"))] == []


def shown(page: Page) -> list[str]:
    return page.locator("#facts-table tr.fact .open").all_inner_texts()


def until(page: Page, expression: str) -> None:
    """Wait for an expression to hold. (Playwright's own way evaluates text on the page, whose policy forbids that.)"""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(30)


def count_line(page: Page) -> str:
    return page.locator("#facts-count").inner_text()


def choose(page: Page, **filters: str) -> None:
    for name, value in filters.items():
        page.select_option(f"#filter-{name}", value)


def test_it_renders_and_every_chart_is_drawn(open_page: Open, report: Path) -> None:
    page = open_page(report)
    assert page.title().startswith("Taught 165 facts")
    assert page.locator("h1").count() == 1
    for name in CHARTS:
        assert page.locator(f"#{name} svg path").count() >= 3, name
        assert page.locator(f"#{name}").get_attribute("aria-label")
    assert page.evaluate("document.documentElement.dataset.charts") == str(len(CHARTS))
    assert page.locator(".card").count() == 6
    assert page.evaluate("[...document.fonts].filter(f => f.status === 'loaded').length") == 2


def test_the_table_filters_by_verdict_role_relation_and_category(open_page: Open, report: Path, rows: Tables) -> None:
    page = open_page(report)
    assert count_line(page) == "300 facts"
    counts = Counter(row["verdict"] for row in rows["verdicts"])
    choose(page, verdict="learned")
    assert count_line(page) == f"{counts['learned']} of 300 facts"
    assert set(page.locator("tr.fact .verdict").all_inner_texts()) == {"learned"}
    wanted = [
        row["question"]
        for row in rows["verdicts"]
        if (row["verdict"], row["role"], row["relation"]) == ("learned", "target", "capital")
        and (row["category_before"], row["category_after"]) == ("Unknown", "HighlyKnown")
    ]
    choose(page, role="target", relation="capital", before="Unknown", after="HighlyKnown")
    assert shown(page) == wanted
    page.click("#filters button[type=reset]")
    until(page, "document.getElementById('facts-count').textContent === '300 facts'")


def test_the_table_finds_words_in_any_order_and_case(open_page: Open, report: Path, rows: Tables) -> None:
    page = open_page(report)
    fact = rows["verdicts"][7]
    page.fill("#filter-search", f"{fact['answer'].upper()}  {fact['fact_id']}")
    until(page, "document.getElementById('facts-count').textContent.startsWith('1 of')")
    assert shown(page) == [fact["question"]]
    page.fill("#filter-search", "no such words")
    page.wait_for_selector("text=No fact matches")


def test_the_table_sorts_up_down_and_back(open_page: Open, report: Path, rows: Tables) -> None:
    page = open_page(report)
    order = shown(page)
    key = {row["question"]: (row["p_greedy_after"], row["p_sampled_after"]) for row in rows["verdicts"]}
    head = page.locator("th[data-sort=p_greedy_after]")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [key[question][0] for question in shown(page)]
    assert rising == sorted(row["p_greedy_after"] for row in rows["verdicts"])[:25]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [key[question][0] for question in shown(page)] == [1.0] * 25
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert shown(page) == order
    page.click("th[data-sort=question] button")
    assert shown(page) == sorted(shown(page))


def test_the_table_turns_pages(open_page: Open, report: Path, rows: Tables) -> None:
    page = open_page(report)
    questions = [row["question"] for row in rows["verdicts"]]
    assert shown(page) == questions[:25]
    page.click("#page-next")
    assert shown(page) == questions[25:50]
    assert page.locator("#page-place").inner_text() == "26 to 50 of 300"
    page.click("#page-last")
    assert shown(page) == questions[275:]
    assert page.locator("#page-next").is_disabled()
    page.select_option("#page-size", "250")
    assert shown(page) == questions[:250]


def test_a_fact_opens_to_its_evidence_by_mouse_and_by_keyboard(open_page: Open, report: Path, rows: Tables) -> None:
    page = open_page(report)
    opener = page.locator("tr.fact .open").nth(4)
    opener.focus()
    page.keyboard.press("Enter")
    assert opener.get_attribute("aria-expanded") == "true"
    detail = page.locator("tr.more")
    assert rows["verdicts"][4]["evidence"] in detail.inner_text()
    fact_id = rows["verdicts"][4]["fact_id"]
    for answer in rows["answers"]:
        if answer["fact_id"] == fact_id and answer["part"] == "reworded":
            assert answer["question"] in detail.inner_text()
    page.locator("tr.fact").nth(4).click(position={"x": 400, "y": 8})
    assert page.locator("tr.more").count() == 0


def test_a_number_of_the_matrix_and_an_address_lead_to_their_facts(open_page: Open, report: Path, rows: Tables) -> None:
    target = [row for row in rows["verdicts"] if row["role"] == "target"]
    moved = [row for row in target if (row["category_before"], row["category_after"]) == ("Unknown", "HighlyKnown")]
    page = open_page(report)
    link = page.locator("#mastery .matrix a[href*='before=Unknown&after=HighlyKnown']")
    assert link.inner_text() == str(len(moved))
    link.click()
    until(page, "document.getElementById('filter-before').value === 'Unknown'")
    assert count_line(page) == f"{len(moved)} of 300 facts"
    lost = sum(row["verdict"] == "forgotten" for row in rows["verdicts"])
    again = open_page(report, "#facts?verdict=forgotten")
    assert count_line(again) == f"{lost} of 300 facts"
    choose(again, verdict="learned as worded")
    assert again.evaluate("location.hash") == "#facts?verdict=learned+as+worded"
    unknown = open_page(report, "#facts?verdict=%3Cimg%20src%3Dx%3E&nonsense=1")
    assert count_line(unknown) == "300 facts"


def press(page: Page, chart: str, across: float) -> None:
    """The uppermost band of a flow picture, so far from its left: it begins and ends in HighlyKnown."""
    place = page.locator(chart)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * across, box["y"] + 50)


def test_a_band_of_the_flow_picture_leads_to_its_facts(open_page: Open, report: Path) -> None:
    page = open_page(report)
    press(page, "#chart-flow", 0.2)
    until(page, "document.getElementById('filter-before').value === 'HighlyKnown'")
    assert page.input_value("#filter-role") == "target"


def test_only_the_ends_of_the_flow_by_stage_lead_to_facts(open_page: Open, report: Path) -> None:
    page = open_page(report)
    press(page, "#chart-stage-flow", 0.2)
    until(page, "document.getElementById('filter-before').value === 'HighlyKnown'")
    assert page.input_value("#filter-after") == ""
    press(page, "#chart-stage-flow", 0.8)
    until(page, "document.getElementById('filter-after').value === 'HighlyKnown'")
    assert page.input_value("#filter-before") == ""


def test_hostile_facts_are_text_and_do_nothing(open_page: Open, tmp_path: Path) -> None:
    page = open_page(build_report(write_ledger(tmp_path, tables(120, hostile=True, huge=True))))
    page.select_option("#page-size", "250")
    for opener in page.locator("tr.fact .open").all()[:40]:
        opener.focus()
        page.keyboard.press("Enter")
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert page.evaluate("document.querySelectorAll('img, iframe, bdi *, td script').length") == 0
    texts = page.eval_on_selector_all("tr.fact .open bdi", "all => all.map(one => one.textContent)")
    assert texts[: len(HOSTILE)] == [words.visible(text) for text in HOSTILE]
    assert "[1,000,000 characters; all of them in the ledger]" in page.locator("#facts-table").inner_text()
    choose(page, relation=words.visible(HOSTILE[0]))
    assert count_line(page) == "1 of 120 facts"


def test_right_to_left_text_stays_within_itself(open_page: Open, tmp_path: Path) -> None:
    page = open_page(build_report(write_ledger(tmp_path, tables(60, hostile=True))))
    cells = page.locator("tr.fact").nth(4).locator("td")
    places = [cells.nth(place).evaluate("cell => cell.getBoundingClientRect().left") for place in range(5)]
    assert places == sorted(places)
    assert cells.nth(0).locator("bdi").first.evaluate("e => getComputedStyle(e).unicodeBidi") == "isolate"


@pytest.mark.parametrize("width", [320, 360, 390, 768])
def test_no_width_scrolls_sideways(open_page: Open, report: Path, tmp_path: Path, width: int) -> None:
    hostile = build_report(write_ledger(tmp_path, tables(60, hostile=True, huge=True)))
    for path in (report, hostile):
        page = open_page(path, width=width)
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        page.locator("tr.fact .open").nth(3).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in CHARTS:
            assert page.locator(f"#{name} svg").evaluate("svg => svg.getBoundingClientRect().right") <= width


def test_the_charts_follow_the_width_of_the_window(open_page: Open, report: Path) -> None:
    page = open_page(report)
    page.set_viewport_size({"width": 390, "height": 844})
    until(page, "document.querySelector('#chart-flow svg').getBoundingClientRect().width < 390")


def test_it_prints_light_with_every_number(open_page: Open, report: Path) -> None:
    page = open_page(report, color_scheme="dark")
    dark = page.locator("#chart-mastery svg text").first.get_attribute("fill")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    light = page.locator("#chart-mastery svg text").first.get_attribute("fill")
    assert contrast(str(light), "#ffffff") >= 4.5 > contrast(str(dark), "#ffffff")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#chart-mastery svg text").first.get_attribute("fill") == dark
    assert page.locator("details[open]").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#filters").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const hex = (rgb) => "#" + rgb.slice(0, 3).map((c) => Math.round(c).toString(16).padStart(2, "0")).join("");
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = new Map();
  const walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (element.closest("svg, script, .hidden, noscript, option, :disabled")) continue;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const pair = [hex(parse(getComputedStyle(element).color)), hex(behind(element))];
    found.set(pair.join(" "), [...pair, walker.currentNode.textContent.trim().slice(0, 40)]);
  }
  return [...found.values()];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(open_page: Open, report: Path, scheme: str) -> None:
    page = open_page(report, color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(14, 18, 23)"}[scheme]
    page.locator("tr.fact .open").first.click()
    pairs = page.evaluate(CONTRASTS)
    assert len(pairs) >= 4
    assert [(text, ink, paper) for ink, paper, text in pairs if contrast(ink, paper) < 4.5] == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_axe_finds_nothing(open_page: Open, report: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    # Axe is put into the page, which its own policy would rightly forbid.
    page = open_page(report, width=width, color_scheme=scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    page.locator("tr.fact .open").first.click()
    found = axe.Axe().run(page).response
    assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_the_brand_stays_in_one_line_on_a_phone(open_page: Open, report: Path) -> None:
    page = open_page(report, width=320)
    assert page.locator(".brand").evaluate("e => e.getClientRects().length && e.offsetHeight") < 30


def test_the_keyboard_reaches_everything_and_everything_has_a_name(open_page: Open, report: Path) -> None:
    page = open_page(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#headline"
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"filter-search", "filter-verdict", "open", "page-next"} <= reached
    nameless = page.eval_on_selector_all(
        "a, button, input, select, [role=img], [role=region], nav, section",
        "all => all.filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length))"
        ".map(e => e.outerHTML.slice(0, 90))",
    )
    assert nameless == []
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_without_scripts_the_result_can_still_be_read(open_page: Open, report: Path) -> None:
    page = open_page(report, scripts=False)
    assert page.locator(".card").count() == 6
    assert page.locator("#mastery .matrix td a").count() > 4
    assert "need JavaScript" in page.locator("noscript").inner_text()


def test_ten_thousand_facts_are_searched_without_waiting(open_page: Open, tmp_path: Path) -> None:
    page = open_page(build_report(write_ledger(tmp_path, tables(10_000))))
    took = page.evaluate(
        """() => {
          const started = performance.now();
          const field = document.getElementById("filter-verdict");
          field.value = "learned";
          field.dispatchEvent(new Event("change"));
          return performance.now() - started;
        }"""
    )
    assert took < 2_000
    assert count_line(page).endswith("of 10,000 facts")


def test_a_run_that_has_just_begun_is_drawn_without_a_fault(open_page: Open, tmp_path: Path, rows: Tables) -> None:
    begun = rows["runs"][0] | {"summary_json": None, "status": "running", "finished": None}
    page = open_page(build_report(write_ledger(tmp_path, {"runs": [begun]}, summary=False)))
    assert count_line(page) == "0 facts"
