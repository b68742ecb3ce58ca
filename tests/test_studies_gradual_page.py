"""The page of the study of gradual learning, rendered from made-up results; its plots are XML."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from instil.exam.statistics import Bootstrap
from studies.gradual import SMALL
from studies.gradual_arms import GRADUAL, ONE_STAGE
from studies.gradual_figures import figures
from studies.gradual_noise import Twice, compared
from studies.gradual_page import conclusions, longest, page, plots, relative_words, write_page
from studies.gradual_plots import COLOURS, mastery_flow, ticks, tradeoff
from studies.gradual_regression import Point, regression
from studies.gradual_search import kept_rows, told
from studies.gradual_tables import bar, paired_table, readings_table, slick_table
from tests.test_studies_gradual_figures import GENTLE, SEEDS, STEEP, run_row, start_row

ARMS: dict[str, Any] = {
    "sft": STEEP,
    "sft, KL": STEEP,
    ONE_STAGE: STEEP[:3],
    "HighlyKnown only": STEEP[:2],
    "Unknown only": STEEP,
    GRADUAL: GENTLE,
}
PROBED = [{"after": "before", "category": "HMWU"}, {"after": "stage 1", "category": "HHMU"}]


@cache
def made_up(arms: tuple[str, ...] = tuple(ARMS), against: str = "sft, KL") -> dict[str, Any]:
    rows = [start_row(seed) for seed in SEEDS]
    for name in arms:
        probed = PROBED if name == GRADUAL else []
        rows += [run_row(name, seed, ARMS[name], probed=probed) for seed in SEEDS]
    return {
        "command": "python -m studies.gradual",
        "finished": "2026-11-22T07:00:00+00:00",
        "commit": "abc1234",
        "hardware": {"processor": "a processor", "torch": "2.6"},
        "plan": SMALL.model_dump(mode="json"),
        "chosen": {"people": {"sft, KL": {"rate": 1e-4, "settings": {"kl_weight": 0.1}}}},
        "runs": [{"flops": 12e12, "seconds": 3600.0}] * len(arms),
        "figures": json.loads(json.dumps(figures(rows, {"people": 1.0}, {"people": against}, GRADUAL))),
    }


def noise() -> dict[str, Any]:
    """Two draws: of two WeaklyKnown facts and one Unknown, in all four of six became MaybeKnown."""
    draws = {1: Twice("HMWWU", "HMMMU", [*"abcde"]), 2: Twice("HMWWU", "HMMWM", [*"abcde"])}
    return {"bases": {"people": {"ways": {"exact, other sets": compared(draws)}}}}


def fits() -> dict[str, Any]:
    points = [Point(f"run {n}", n / 4, n % 3 / 4, 0.9 - 0.1 * n % 3) for n in range(6)]
    fit = regression(points, Bootstrap(resamples=100)).to_dict()
    return {"people": {"all arms": {"made up": {"taught": fit, "kind": {"reason": "no share of each"}}}}}


def found() -> dict[str, Any]:
    base: dict[str, Any] = made_up()["figures"]["people"]
    return base


class TestPage:
    def test_every_table_has_as_many_cells_in_each_row(self) -> None:
        text = page(made_up(), noise(), fits())
        tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
        assert len(tables) >= 11
        for one in tables:
            assert len({line.count("|") for line in one.splitlines()}) == 1, one
        assert "Not here yet" not in text and "None" not in text and "nan" not in text
        assert all(name in text for name in plots(made_up()))

    def test_the_committed_page_is_written_from_the_files(self, tmp_path: Path) -> None:
        results, docs = tmp_path / "gradual.json", tmp_path / "docs"
        results.write_text(json.dumps(made_up()))
        searched = told(kept_rows())
        assert write_page(results, docs).read_text() == page(made_up(), searched=searched)
        assert {file.name for file in (docs / "images").iterdir()} == set(plots(made_up()))
        results.with_name("gradual_noise.json").write_text(json.dumps(noise()))
        assert write_page(results, docs).read_text() == page(made_up(), noise(), searched=searched)

    def test_what_was_searched_is_a_table_for_each_base(self) -> None:
        text = page(made_up(), searched=told(kept_rows()))
        for base in ("people", "entityquestions"):
            lines = text.partition(f"less forgetting, on {base}, 400 facts taught")[2].splitlines()
            rows = [line for line in lines if line.startswith("| plain |")]
            assert rows and {line.count("|") for line in lines[:12] if line.startswith("|")} == {rows[0].count("|")}

    def test_what_is_missing_is_left_out_with_a_word(self) -> None:
        text = page(made_up(arms=("sft",)))
        for what in ("best published arm", "two stages", "noise floor", "regression", f"flow of “{GRADUAL}”"):
            assert re.search(rf"Not here yet:[^\n]*{what}", text), what
        nothing = {**made_up(), "figures": {"people": {**found(), "arms": {}}}}
        assert "no arm was run" in page(nothing) and plots(nothing) == {}


class TestConclusions:
    def test_they_say_what_the_figures_say(self) -> None:
        said = "\n".join(conclusions(found(), noise()["bases"]["people"]))
        assert "against one stage: **no difference within noise**, +0.0 points" in said
        assert re.search(r"; 66\.7 \([^)]*\) % with nothing taught, only other example questions", said)
        assert "at 90 % “gradual”" in said and "(4 of 6 arms get there)" in said
        assert "in all seeds, at every reading: **no arm**" in said, "four held-back facts show no interval below zero"

    def test_a_reading_that_no_arm_has_in_every_seed_is_said_to_be_so(self) -> None:
        base = made_up(arms=(ONE_STAGE,))["figures"]["people"]
        said = next(words for words in conclusions(base, None) if "lowest" in words)
        assert "at 75 % “one stage, MaybeKnown”, 50.0" in said and "at 90 % no arm (0 of 1 get there in some" in said

    def test_an_arm_that_passes_is_named(self) -> None:
        base = found()
        passing = {**base["paired"], GRADUAL: {**base["paired"][GRADUAL], "passes": True}}
        assert "**“gradual”**" in "\n".join(conclusions({**base, "paired": passing}, None))

    @pytest.mark.parametrize(
        ("low", "high", "words"),
        [
            (0.1, 0.3, "can be true by this interval"),
            (-0.1, 0.3, "and so can none"),
            (-0.1, 0.2, "is more than this interval allows"),
            (0.3, 0.5, "is less than was found here"),
        ],
    )
    def test_the_papers_claim_beside_an_interval(self, low: float, high: float, words: str) -> None:
        said = relative_words({"value": (low + high) / 2, "low": low, "high": high})
        assert said.endswith(words) and ("none" in words or "none" not in said)
        assert relative_words(None) == ""

    def test_nothing_is_said_of_what_was_not_run(self) -> None:
        base = made_up(arms=("sft",))["figures"]["people"]
        said = conclusions(base, None)
        assert len(said) == 3 and not any("“gradual”" in words for words in said)


class TestTables:
    def test_an_arm_that_never_reaches_a_reading_is_shown_as_such(self) -> None:
        rows = dict(line.split(" | ", 1) for line in readings_table(found()).splitlines()[2:])
        assert rows["| HighlyKnown only"].count("never") == 3
        assert rows[f"| {ONE_STAGE}"].count("never") == 1 and rows["| sft"].count("never") == 0

    def test_what_of_the_bar_is_lacking_is_named(self) -> None:
        pairs = found()["paired"]
        assert bar(pairs[GRADUAL]) == "not: interval"
        assert bar(pairs["sft"]) == "not: half, interval"
        assert bar(pairs["HighlyKnown only"]) == "not: reached"
        assert bar({"passes": True, "readings": {}}) == "**passes**"
        assert "0.17 of it" in paired_table(found()), "6.25 of 37.5 points"

    def test_facts_nobody_taught_by_what_was_trained_on(self) -> None:
        rows = slick_table(found()).splitlines()[2:]
        assert [row.split(" | ")[:2] for row in rows] == [
            ["| *nothing*", ""],
            ["| HighlyKnown", "last epoch"],
            ["| MaybeKnown", "early stop"],
            ["| Unknown", "last epoch"],
            ["| all, as they come", "last epoch"],
        ]
        assert "| 100.0 | 50.0 | 50.0 | 0.0 | 0.0 |" in rows[0]


class TestPlots:
    def test_they_are_xml_with_a_line_for_each_arm(self) -> None:
        for name, drawn in plots(made_up()).items():
            root = ElementTree.fromstring(drawn)
            assert root.tag.endswith("svg") and root.find("{*}title") is not None, name
            assert "nan" not in drawn
            width, height = map(float, root.get("viewBox", "").split()[2:])
            for text in root.iter("{http://www.w3.org/2000/svg}text"):
                assert 0 <= float(text.get("x", "-1")) <= width and 0 <= float(text.get("y", "-1")) <= height
        lines = ElementTree.fromstring(plots(made_up())["gradual-people-tradeoff.svg"]).findall("{*}polyline")
        assert len(lines) == len(ARMS)

    def test_a_reading_below_every_line_is_in_the_picture(self) -> None:
        arm = found()["arms"]["sft"]
        arms = {"sft": {**arm, "readings": {"0.5": {"value": -0.3, "missing": [2]}}}}
        root = ElementTree.fromstring(tradeoff("people", arms, 1.0, ["sft"]))
        (dot,) = root.findall("{*}circle")
        axis = max(float(line.get("y2", "0")) for line in root.findall("{*}line"))
        assert float(dot.get("cy", "999")) <= axis and dot.get("fill") == "white"

    def test_a_name_with_signs_is_still_xml(self) -> None:
        arms = {"a < b & c": found()["arms"]["sft"]}
        ElementTree.fromstring(tradeoff("<people>", arms, 1.0, ["a < b & c"]))

    def test_bands_hold_all_facts(self) -> None:
        steps = longest(found()["arms"][GRADUAL]["flow"])
        assert [step["to"] for step in steps] == ["stage 1", "end"]
        root = ElementTree.fromstring(mastery_flow("flow", steps))
        boxes = [box for box in root.findall("{*}rect") if box.get("fill") != "white"]
        tall = [float(box.get("height", "0")) for box in boxes]
        assert sum(tall) == pytest.approx(3 * 260, abs=1), "three looks of all facts"
        assert len(root.findall("{*}path")) == 4 + 3, "two of the four facts go together in the end"
        with pytest.raises(ValueError, match="no facts"):
            mastery_flow("flow", [])

    def test_more_arms_than_colours_are_refused(self) -> None:
        names = [f"arm {number}" for number in range(len(COLOURS) + 1)]
        with pytest.raises(ValueError, match="colours"):
            tradeoff("people", dict.fromkeys(names, found()["arms"]["sft"]), 1.0, names)

    @pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.05, 0.31), (0.0, 0.012), (0.0, 3.0)])
    def test_marks_are_round_few_and_within(self, low: float, high: float) -> None:
        marks = ticks(low, high)
        assert 2 <= len(marks) <= 7 and low <= marks[0] and marks[-1] <= high and 0 in marks
