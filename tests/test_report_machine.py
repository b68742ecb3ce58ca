"""`report.json` and the model card: what the page shows, in a stated layout, and nothing invented."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from instil.report import build_report, report_data, words
from instil.report.machine import ReportFile
from instil.report.model_card import model_card
from tests.report_data import HOSTILE, Tables, tables, write_ledger


@pytest.fixture(scope="module")
def rows() -> Tables:
    return tables(200)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, rows: Tables) -> Path:
    folder = write_ledger(tmp_path_factory.mktemp("run"), rows)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    build_report(folder)
    return folder


@pytest.fixture(scope="module")
def machine(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report.json").read_text(encoding="utf-8")))


def front_matter(card: str) -> dict[str, Any]:
    opening, held, _ = card.split("---\n", 2)
    assert opening == ""
    return dict(yaml.safe_load(held))


# ------------------------------------------------------------------ report.json


def test_it_is_what_its_schema_says(machine: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(machine, ReportFile.model_json_schema())
    assert (machine["format"], machine["version"]) == ("instil report", 1)


def test_the_flow_goes_through_the_states(machine: dict[str, Any]) -> None:
    states, flow = machine["mastery_by_state"], machine["flow"]
    assert flow["labels"] == [state["label"] for state in states] and len(flow["steps"]) == len(states) - 1 == 2
    for state, step in zip(states, flow["steps"], strict=False):
        assert [sum(row) for row in step] == list(state["counts"].values())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: held.pop("verdicts"),
        lambda held: held.update(version=2),
        lambda held: held.update(more=1),
        lambda held: held["facts"]["rows"][0].update(p_greedy_after="high"),
        lambda held: held["stages"][0].pop("points"),
    ],
)
def test_the_schema_refuses_what_is_not_a_report(run: Path, spoil: Any) -> None:
    held = json.loads((run / "report.json").read_text(encoding="utf-8"))
    spoil(held)
    with pytest.raises(ValidationError):
        ReportFile.model_validate(held)


def test_every_field_is_described() -> None:
    schema = ReportFile.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            assert field.get("description"), (part.get("title"), name)


def test_it_holds_the_rows_of_the_ledger(machine: dict[str, Any], rows: Tables) -> None:
    assert machine["facts"]["shown"] == machine["facts"]["all"] == len(rows["verdicts"])
    for found, wanted in zip(machine["facts"]["rows"], rows["verdicts"], strict=True):
        same = ("fact_id", "role", "question", "answer", "verdict", "category_before", "category_after", "answer_after")
        assert [found[name] for name in same] == [words.visible(wanted[name]) for name in same]
        assert found["p_sampled_after"] == pytest.approx(wanted["p_sampled_after"], abs=5e-4)
        assert len(found["wordings"]) == 2
    target = [row for row in rows["verdicts"] if row["role"] == "target"]
    assert machine["verdicts"]["target"] == Counter(row["verdict"] for row in target)


def test_it_holds_every_figure_with_its_meaning(machine: dict[str, Any], rows: Tables) -> None:
    headline = json.loads(rows["runs"][-1]["summary_json"])["headline"]
    for name, figure in headline.items():
        assert {key: machine["figures"][name].get(key) for key in figure} == figure
        assert machine["figures"][name]["meaning"]
    assert machine["figures"]["perplexity"]["change"] == "no difference"


def test_it_says_at_which_scale(machine: dict[str, Any]) -> None:
    assert machine["scale"] == {
        "model": "embedded",
        "parameters": 6_900_000,
        "documents": None,
        "seeds": [0],
        "facts": {"target": 111, "held_back": 89},
    }


def test_a_run_that_has_just_begun_is_written_too(tmp_path: Path, rows: Tables) -> None:
    begun = rows["runs"][0] | {"summary_json": None, "status": "running", "finished": None}
    build_report(write_ledger(tmp_path, {"runs": [begun]}, summary=False))
    held = ReportFile.model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (held.run.status, held.figures, held.facts.rows) == ("running", {}, [])


# ------------------------------------------------------------------ the model card


def test_the_card_stands_beside_the_weights_and_the_hub_reads_it(run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard((run / "model" / "README.md").read_text(encoding="utf-8"))
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert card.data.tags == ["instil", "factual-knowledge", "gradual"]


def test_the_card_says_every_figure_and_the_cost(run: Path) -> None:
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    data = report_data(run)
    for row in words.table_of_figures(data["figures"]):
        assert f"| {row['before']} | {row['value']} | {row['interval']} | {row['n']} |" in card
    assert words.scaled(data["cost"]["charged"]["flops"], "FLOP") in card
    assert data["headline"]["sentence"] in card
    assert "6.9 million parameters" in card and "one seed" in card


@pytest.mark.parametrize(("hub_id", "named"), [("Qwen/Qwen3-0.6B", True), (None, False)])
def test_a_base_model_is_named_only_when_it_came_from_the_hub(run: Path, hub_id: str | None, named: bool) -> None:
    data = report_data(run)
    held = front_matter(model_card(data | {"run": data["run"] | {"base_model": hub_id}}))
    assert held.get("base_model") == hub_id
    assert ("base_model_relation" in held) is named


def test_a_source_is_a_hub_id_only_when_it_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from instil.loop.summary import hub_id

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    sources = ("Qwen/Qwen3-0.6B", "runs/first", "embedded", "memory", "/a/b", "../up")
    assert [hub_id(source) for source in sources] == ["Qwen/Qwen3-0.6B", None, None, None, None, None]


def test_an_adapter_says_so(run: Path, tmp_path: Path, rows: Tables) -> None:
    folder = write_ledger(tmp_path, rows)
    (folder / "model").mkdir()
    (folder / "model" / "adapter_config.json").write_text("{}")
    build_report(folder)
    assert front_matter((folder / "model" / "README.md").read_text(encoding="utf-8"))["library_name"] == "peft"


def test_there_is_no_card_without_a_model_or_figures(tmp_path: Path, rows: Tables) -> None:
    build_report(write_ledger(tmp_path / "a", rows))
    assert not (tmp_path / "a" / "model").exists()
    begun = rows["runs"][0] | {"summary_json": None, "status": "running", "finished": None}
    folder = write_ledger(tmp_path / "b", {"runs": [begun]}, summary=False)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    build_report(folder)
    assert not (folder / "model" / "README.md").exists()


def test_hostile_names_stay_text_in_the_card(run: Path) -> None:
    data = report_data(run)
    for text in (*HOSTILE, "---\nlicense: mit\n---", "x\n# Heading", "```\nout of the block", "a | b", "[a](http://b)"):
        named = {"run": data["run"] | {"model": text, "method": text}, "warnings": [text]}
        rebuilt = data["reproduce"] | {"command": text, "hardware": {text: text}}
        card = model_card(data | named | {"reproduce": rebuilt, "headline": data["headline"] | {"scale": text}})
        assert set(front_matter(card)) == {"library_name", "pipeline_tag", "tags"}
        outside = outside_of_blocks(card.split("---\n", 2)[2])
        outside = re.sub(r"`[^`\n]*`", "", outside)  # inside a code span markup is text
        assert "<script" not in outside and "<img" not in outside and not re.search(r"(?<!\\)\]\(http", outside)
        headings = [line for line in outside.splitlines() if line.startswith("#")]
        assert len(headings) == 7
        assert card.count("\n| `acquired` ") == 1


def outside_of_blocks(card: str) -> str:
    """The lines that are no code block's; a block ends at a fence of its own length."""
    kept, fence = [], ""
    for line in card.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if fence:
            fence = "" if line == fence else fence
        elif len(ticks) >= 3:
            fence = ticks
        else:
            kept.append(line)
    assert not fence
    return "\n".join(kept)
