"""The report without a browser: what it says, that it is safe and whole, and that it is small."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import string
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.errors import InputError
from instil.report import build_report, facts, report_data, words
from instil.report.cards import paired_figures
from instil.report.curves import MOST_POINTS, learning_curves
from instil.report.page import _as_json
from tests.report_data import HOSTILE, RUN, Tables, tables, write_ledger

ASSETS = Path(build_report.__code__.co_filename).parent / "assets"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


class Page(HTMLParser):
    """The page as a browser's parser takes it apart: its elements, and the text inside each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._inside != "style":
            self.text += data

    @property
    def running(self) -> list[str]:
        return [text for attributes, text in self.scripts if "type" not in attributes]

    def facts(self) -> Any:
        return facts.decode(next(text for attributes, text in self.scripts if attributes.get("id") == "facts-data"))


@pytest.fixture(scope="module")
def rows() -> Tables:
    return tables(240)


@pytest.fixture
def run(tmp_path: Path, rows: Tables) -> Path:
    return write_ledger(tmp_path, rows)


def page_of(folder: Path) -> str:
    return build_report(folder).read_text(encoding="utf-8")


# ------------------------------------------------------------------ what it says


def test_counts_are_those_of_the_ledger(run: Path, rows: Tables) -> None:
    data = report_data(run)
    target = [row for row in rows["verdicts"] if row["role"] == "target"]
    assert dict(data["verdicts"]["target"]) == Counter(row["verdict"] for row in target)
    for place, before in enumerate(words.CATEGORIES):
        line = data["transition"]["target"][place]
        assert sum(line) == data["mastery"]["target"]["before"][before]
        assert line == [
            sum(row["category_before"] == before and row["category_after"] == after for row in target)
            for after in words.CATEGORIES
        ]
    assert sum(map(sum, data["transition"]["target"])) == len(target)
    assert [state["label"] for state in data["mastery_by_state"]] == ["before", "stage 1", "after"]
    assert {state["n"] for state in data["mastery_by_state"]} == {len(target)}
    assert data["mastery_by_state"][-1]["counts"] == data["mastery"]["target"]["after"]
    assert data["flow"]["labels"] == ["before", "stage 1", "after"]
    first, last = data["flow"]["steps"]
    assert [sum(row) for row in first] == list(data["mastery_by_state"][0]["counts"].values())
    assert [sum(column) for column in zip(*last, strict=True)] == list(data["mastery_by_state"][2]["counts"].values())
    assert [sum(column) for column in zip(*first, strict=True)] == [sum(row) for row in last]


def test_the_ledger_alone_makes_the_same_page(run: Path) -> None:
    with_summary = page_of(run)
    (run / "summary.json").unlink()
    assert page_of(run) == with_summary


def test_a_summary_that_is_handed_over_comes_first(run: Path, rows: Tables) -> None:
    summary = json.loads(rows["runs"][-1]["summary_json"]) | {"warnings": ["said by the loop"]}
    assert report_data(run, summary=summary)["warnings"][0] == "said by the loop"


def test_the_ledger_may_be_elsewhere(run: Path, tmp_path: Path, rows: Tables) -> None:
    elsewhere = tmp_path / "second"
    elsewhere.mkdir()
    summary = json.loads(rows["runs"][-1]["summary_json"]) | {"ledger": str(run / "ledger")}
    (elsewhere / "summary.json").write_text(json.dumps(summary))
    assert build_report(elsewhere) == elsewhere / "report.html"


def test_one_run_of_several_is_shown_and_the_others_are_named(run: Path, rows: Tables) -> None:
    from instil.ledger import Ledger

    ledger = Ledger(run / "ledger")
    ledger.append("runs", [rows["runs"][0] | {"run_id": "run-0002", "summary_json": None}])
    ledger.append("verdicts", [rows["verdicts"][0] | {"run_id": "run-0002"}])
    data = report_data(run)
    assert (data["run"]["run_id"], data["run"]["others"]) == (RUN, ["run-0002"])
    assert data["facts"]["all"] == len(rows["verdicts"])
    assert report_data(run, run_id="run-0002")["facts"]["all"] == 1


def test_cards_hold_value_interval_and_n(run: Path, rows: Tables) -> None:
    headline = json.loads(rows["runs"][-1]["summary_json"])["headline"]
    cards = {card["name"]: card for card in report_data(run)["cards"]}
    assert list(cards) == ["acquired", "acquired_reworded", "retained", "made_up", "accuracy_target", "perplexity"]
    acquired = headline["acquired"]
    assert cards["acquired"]["value"] == words.percent(acquired["value"])
    assert cards["acquired"]["interval"] == words.interval(acquired["low"], acquired["high"])
    assert f"{acquired['n']} facts about {acquired['clusters']} subjects" == cards["acquired"]["n"]
    assert cards["accuracy_target"]["before"] == words.percent(headline["accuracy_target_before"]["value"])
    assert cards["perplexity"]["change"] == "no difference"


def test_the_reworded_answers_travel_with_their_fact(run: Path, rows: Tables) -> None:
    packed = Page(page_of(run)).facts()
    texts, row = packed["texts"], 5
    fact = rows["verdicts"][row]
    asked = [a for a in rows["answers"] if a["fact_id"] == fact["fact_id"] and a["part"].endswith("reworded")]
    shown = [
        (texts[question], texts[before], bool(was), texts[after], bool(known))
        for question, before, was, after, known in packed["wordings"][str(row)]
    ]
    expected = [
        (before["question"], before["greedy_answer"], before["known"], after["greedy_answer"], after["known"])
        for before, after in zip(asked[::2], asked[1::2], strict=True)
    ]
    assert shown == expected
    assert texts[packed["columns"]["answer_after"][row]] == fact["answer_after"]
    assert packed["verdicts"][packed["columns"]["verdict"][row]] == fact["verdict"]


@pytest.mark.parametrize(
    ("verdicts", "figures", "expected"),
    [
        ({}, {}, "Nothing was taught, so there is nothing to report yet."),
        (
            {"learned": 187, "learned as worded": 20, "updated": 5, "kept": 79, "still unknown": 39},
            {"retained": {"value": 0.97, "n": 120}},
            "Taught 330 facts: the model learned 212 of the 251 that it did not know, "
            "and kept 97\u202f% of the other facts that it knew.",
        ),
        ({"kept": 1}, {}, "Taught 1 fact: the model knew every one of them before."),
        ({"still unknown": 7}, {}, "Taught 7 facts: the model learned none of the 7 that it did not know."),
        ({"learned": 3}, {"retained": {"value": None, "n": 0}}, "Taught 3 facts: the model learned 3 of the 3 that"),
    ],
)
def test_the_headline_is_one_plain_sentence(verdicts: dict[str, int], figures: Any, expected: str) -> None:
    assert words.sentence(verdicts, figures).startswith(expected)


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ({"value": 0.5}, None),
        ({"before": 0.4, "after": 0.5}, None),
        ({"before": 0.4, "after": 0.5, "low": 0.39, "high": 0.6}, "no difference"),
        ({"before": 0.4, "after": 0.5, "low": 0.45, "high": 0.6}, "higher"),
        ({"before": 0.4, "after": 0.3, "low": 0.25, "high": 0.35}, "lower"),
        ({"before": 0.4, "value": 0.4, "low": 0.4, "high": 0.4}, "no difference"),
        ({"before": 0.4, "after": 0.5, "low": 0.3, "high": 0.6, "difference": {"low": 0.02, "high": 0.2}}, "higher"),
        (
            {"before": 0.4, "after": 0.5, "low": 0.45, "high": 0.6, "difference": {"low": -0.1, "high": 0.2}},
            "no difference",
        ),
    ],
)
def test_within_noise_is_no_difference(figure: dict[str, Any], expected: str | None) -> None:
    assert words.change(figure) == expected


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_percentage_never_rounds_to_an_untrue_none_or_all(share: float) -> None:
    text = words.percent(share).removesuffix("\u202f%")
    assert abs(float(text) - 100 * share) <= 0.5 + 1e-9
    if 0.0005 <= share <= 0.9995:
        assert text not in ("0", "100", "0.0", "100.0")


@settings(deadline=None)
@given(st.floats(1e-3, 1e20))
def test_a_scaled_number_is_within_rounding(value: float) -> None:
    figure, _, prefix = words.scaled(value, "F").partition("\u202f")
    size = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}.get(prefix[:-1], 1)
    assert float(figure.replace(",", "")) * size == pytest.approx(value, rel=0.006)


def test_a_perplexity_that_shows_nothing_is_not_told() -> None:
    figure = {"value": 7e5, "low": 6e5, "high": 9e5, "before": 2e6, "after": 7e5, "n": 24}
    assert "fell from 2,000,000 to 700,000" in words.details({}, {"perplexity": figure})[0]
    assert words.details({}, {"perplexity": figure | {"reason": words.FOREIGN}}) == []


def test_paired_figures_join_before_and_after() -> None:
    figures = paired_figures({"x_before": {"value": 1}, "x_after": {"value": 2, "low": 1.5}, "y_after": {"value": 3}})
    assert figures["x"] == {"value": 2, "low": 1.5, "before": 1, "after": 2}
    assert "y" not in figures


def test_the_exam_s_own_interval_of_the_change_decides() -> None:
    sides = {"x_before": {"value": 2.0}, "x_after": {"value": 3.0, "low": 1.0, "high": 5.0}}
    within = paired_figures(sides)["x"]
    moved = paired_figures(sides | {"x_change": {"value": 1.0, "low": 0.5, "high": 1.5}})["x"]
    doubled = paired_figures(sides | {"x_ratio": {"value": 1.5, "low": 1.2, "high": 1.8}})["x"]
    same = paired_figures(sides | {"x_ratio": {"value": 1.5, "low": 0.9, "high": 1.8}})["x"]
    assert [words.change(figure) for figure in (within, moved, doubled, same)] == [
        *("no difference", "higher", "higher", "no difference")
    ]


def test_a_figure_that_could_not_be_measured_says_why(tmp_path: Path, rows: Tables) -> None:
    summary = json.loads(rows["runs"][0]["summary_json"])
    summary["headline"]["made_up"] = {"value": None, "low": None, "high": None, "n": 0, "clusters": 0, "reason": "Why."}
    run = rows["runs"][0] | {"summary_json": json.dumps(summary)}
    folder = write_ledger(tmp_path, {**rows, "runs": [run]})
    card = next(card for card in report_data(folder)["cards"] if card["name"] == "made_up")
    assert (card["value"], card["interval"], card["reason"]) == (None, None, "Why.")
    assert "not measured" in page_of(folder)


def test_learning_curves_go_on_from_stage_to_stage() -> None:
    rows = [
        {"stage": stage, "step": step, "epoch": step / 2, "loss": 1.0, "learning_rate": 0.1, "facts": 3}
        | {"development_accuracy": 0.5 if step == 3 else None}
        for stage in ("one", "two")
        for step in (1, 2, 3)
    ]
    one, two = learning_curves(rows)["stages"]
    assert [point[0] for point in one["points"] + two["points"]] == [1, 2, 3, 4, 5, 6]
    assert (one["development"], two["development"]) == ([[3, 0.5]], [[6, 0.5]])
    going_on = [row | {"step": row["step"] + 3 * (row["stage"] == "two")} for row in rows]
    assert learning_curves(going_on)["stages"] == [one, two]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5_000))
def test_thinned_curves_keep_the_mean_and_the_last_step(number: int) -> None:
    rows = [{"stage": "s", "step": step + 1, "epoch": None, "loss": float(step)} for step in range(number)]
    (stage,) = learning_curves(rows)["stages"]
    assert len(stage["points"]) <= MOST_POINTS
    assert stage["points"][-1][0] == stage["end"] == number
    if number % stage["mean_of"] == 0:
        mean = sum(point[1] for point in stage["points"]) / len(stage["points"])
        assert mean == pytest.approx((number - 1) / 2, abs=0.001)


def test_a_run_that_diverged_has_a_page_that_says_so(tmp_path: Path) -> None:
    rows = tables(60)
    for row in rows["stages"][-5:]:
        row["loss"] = float("nan")
    rows["verdicts"][0]["p_sampled_after"] = float("nan")
    folder = write_ledger(tmp_path, rows)
    assert "The training loss of stage 2 was not finite at 5 steps" in "\n".join(report_data(folder)["warnings"])
    assert "NaN" not in page_of(folder).split('id="data"')[1].split("</script>")[0]


def test_warnings_tell_what_to_read_with_care(tmp_path: Path) -> None:
    rows = tables(30)
    summary = json.loads(rows["runs"][0]["summary_json"])
    summary["transition"][0][0] += 1
    rows["runs"][0] |= {"summary_json": json.dumps(summary), "status": "failed"}
    told = "\n".join(report_data(write_ledger(tmp_path, rows))["warnings"])
    assert "marked “failed”" in told
    assert "not that of the ledger's verdicts" in told
    assert "Only 17 facts in the role “taught”" in told


# ------------------------------------------------------------------ what may be missing


@pytest.mark.parametrize("missing", ["verdicts", "answers", "stages", "costs", "left_out", "states"])
def test_a_missing_table_leaves_a_page_that_says_so(tmp_path: Path, rows: Tables, missing: str) -> None:
    page = page_of(write_ledger(tmp_path, {**rows, missing: []}))
    assert "</html>" in page


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path, rows: Tables) -> None:
    begun = rows["runs"][0] | {"summary_json": None, "status": "running", "finished": None}
    page = page_of(write_ledger(tmp_path, {"runs": [begun]}, summary=False))
    assert "Nothing was taught" in page
    assert "marked “running”" in page
    assert page.count('class="nothing"') == 7 + 1  # every section but how to reproduce, and the line for no script


def test_no_ledger_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ledger"):
        build_report(tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_empty_ledger_a_foreign_run_and_a_cut_summary_are_refused(tmp_path: Path, run: Path) -> None:
    (tmp_path / "empty" / "ledger").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no run"):
        build_report(tmp_path / "empty")
    with pytest.raises(InputError, match="does not hold this run"):
        build_report(run, run_id="another")
    (run / "summary.json").write_text("{cut")
    with pytest.raises(InputError, match="not JSON"):
        build_report(run)


def test_a_failed_build_leaves_the_old_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page_of(run)

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space"):
        build_report(run)
    monkeypatch.undo()
    assert (run / "report.html").read_text(encoding="utf-8") == before
    assert {path.name for path in run.iterdir()} == {"ledger", "summary.json", "report.html", "report.json"}


# ------------------------------------------------------------------ safe and whole


def test_the_same_ledger_gives_the_same_bytes(run: Path) -> None:
    assert page_of(run) == page_of(run)


def test_nothing_on_the_page_asks_the_network(run: Path) -> None:
    html = page_of(run)
    page = Page(html)
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "formaction", "data", "poster", "ping", "background"} & set(attributes)
        assert (attributes.get("href") or "#").startswith(("#", "data:")), (tag, attributes)
        assert tag not in {"iframe", "object", "embed", "base", "img", "form" if "action" in attributes else ""}
    style = html[html.index("<style>") : html.index("</style>")]
    assert all(link.startswith("data:font/woff2") for link in re.findall(r"url\(([^)]*)\)", style))
    assert "@import" not in style


def test_only_our_scripts_may_run(run: Path) -> None:
    page = Page(page_of(run))
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in page.running]
    assert allowed["script-src"].split() == hashes
    assert allowed["default-src"] == "'none'"
    assert "connect-src" not in allowed
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_hostile_facts_stay_text(tmp_path: Path) -> None:
    page = Page(page_of(write_ledger(tmp_path, tables(100, hostile=True, huge=True))))
    ours = Counter(tag for tag, _ in Page(page_of(write_ledger(tmp_path / "tame", tables(100)))).elements)
    theirs = Counter(tag for tag, _ in page.elements)
    for tag in ("script", "img", "style", "iframe", "input", "form", "section", "b"):
        assert theirs[tag] == ours[tag], tag
    texts = page.facts()["texts"]
    for hostile in HOSTILE:
        assert words.visible(hostile) in texts
    assert "window.hacked = 1</script><img src=x" in page.text  # the model's name is one of them
    huge = next(text for text in texts if text.startswith("huge"))
    assert huge.endswith("… [1,000,000 characters; all of them in the ledger]")
    assert len(huge) < 400


@settings(deadline=None)
@given(st.recursive(TEXT | st.floats(allow_nan=False, allow_infinity=False), st.lists, max_leaves=5))
def test_json_in_the_page_cannot_end_its_script(value: Any) -> None:
    text = _as_json({"value": value, "fixed": ["</script>", "<!--", "\u2028\u2029", "]]>"]})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["value"] == value


@settings(deadline=None)
@given(TEXT)
def test_control_characters_are_made_visible(text: str) -> None:
    shown = words.visible(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in shown)
    if text.isprintable():
        assert shown == text


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, st.floats(0, 1)), min_size=1, max_size=8))
def test_packed_facts_come_back(facts_: list[tuple[str, str, float]]) -> None:
    verdicts = [
        {"fact_id": str(place), "question": question, "answer": answer, "p_greedy_after": share, "verdict": "learned"}
        | {"category_before": "Unknown", "category_after": "of a later version"}
        for place, (question, answer, share) in enumerate(facts_)
    ]
    packed = facts.decode(facts.encode(facts.pack(verdicts, {})))
    columns, texts = packed["columns"], packed["texts"]
    assert [texts[place] for place in columns["question"]] == [words.visible(question) for question, _, _ in facts_]
    assert [texts[place] for place in columns["answer"]] == [words.visible(answer) for _, answer, _ in facts_]
    assert columns["p_greedy_after"] == [round(1000 * share) for _, _, share in facts_]
    assert columns["category_before"] == [3] * len(facts_)
    assert columns["category_after"] == columns["answer_before"] == [-1] * len(facts_)


# ------------------------------------------------------------------ small


def test_ten_thousand_facts_stay_under_three_megabytes(tmp_path: Path) -> None:
    path = build_report(write_ledger(tmp_path, tables(10_000)))
    assert path.stat().st_size < 3_000_000
    packed = Page(path.read_text(encoding="utf-8")).facts()
    assert packed["n"] == len(packed["wordings"]) == 10_000


def test_what_does_not_fit_is_left_out_by_a_rule_and_said() -> None:
    noise = random.Random(0)
    rows = tables(300)
    for row in rows["verdicts"]:
        row["question"] = "".join(noise.choices(string.printable, k=300))
    answers = {row["fact_id"]: [row | {"moment": "after"}] for row in rows["answers"] if row["part"] == "reworded"}
    encoded, kept, notes = facts.fit(rows["verdicts"], answers, budget=40_000)
    assert len(encoded) <= 40_000
    assert 0 < kept["shown"] < kept["all"] == 300
    assert "leaves out the answers to each other wording" in notes[0]
    assert f"shows {kept['shown']} of 300 facts" in notes[1]
    assert facts.decode(encoded)["n"] == kept["shown"]


def test_every_part_of_the_exam_has_a_line_in_its_group(run: Path, rows: Tables) -> None:
    summary = json.loads(rows["runs"][-1]["summary_json"])
    figure = {"value": 0.25, "low": 0.1, "high": 0.4, "n": 80, "clusters": 70}
    summary["headline"] |= {
        "accuracy_reversed_before": figure,
        "accuracy_reversed_after": figure | {"value": 0.5, "low": 0.4, "high": 0.6},
        "knowedit_fluency": figure | {"value": 5.25, "low": 4.0, "high": 6.0, "before": 5.5},
    }
    summary["lm_eval"] = {"hellaswag": {"acc,none": figure | {"before": 0.5}, "ppl,none": figure | {"value": 9.0}}}
    groups = {group["label"].split(":")[0]: group["rows"] for group in report_data(run, summary=summary)["groups"]}
    accuracy, perplexity = groups["Retention"]
    assert (accuracy["label"], accuracy["before"], accuracy["after"]) == ("hellaswag: acc", "50\u202f%", "25\u202f%")
    assert (perplexity["label"], perplexity["after"]) == ("hellaswag: ppl", "9.00")
    (reverse,) = [row for row in groups["Generalization"] if row["name"] == "accuracy_reversed"]
    assert (reverse["before"], reverse["n"]) == (words.percent(0.25), 80) and reverse["change"] == "higher"
    (fluency,) = groups["KnowEdit's figures, without worked examples"]
    assert (fluency["before"], fluency["after"], fluency["interval"]) == ("5.50", "5.25", "4.00 to 6.00")
    assert "Locality" not in groups
    build_report(run, summary=summary)
    assert "Asked in other ways" in (run / "report.html").read_text(encoding="utf-8")
