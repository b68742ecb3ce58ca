"""The benchmark of training runs, counts useful tokens and compares losses; its figures are no test."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from benchmarks import probe_peers
from benchmarks.train import INSTIL, Bench, Load, Plan, compared, in_windows, loads, our_windows, part, up_to
from benchmarks.train_page import page, write_page
from benchmarks.train_peers import Peer, Setting, behind_first, cut, settings_for
from instil.errors import RunFailed
from instil.model import LanguageModel
from instil.training import Example
from tests.models import tiny_model
from tests.training_data import made_up

PLAN = Plan(rounds=2, steps=2, question_tokens=256, search=1, learning_rate=1e-3)
needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed (extra bench)")


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROWS", "SQUARE"):
        monkeypatch.setattr(probe_peers, name, 64)


def bench(count: int = 24) -> Bench:
    examples = tuple(made_up(count))
    load = Load("questions", "made up", examples, step_tokens=256, on_answers=True)
    return Bench(LanguageModel.of(*tiny_model("llama")), load, PLAN, "fp32", lambda line: None)


def results(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    machine = {"processor": "one", "cores": 2, "threads": 1, "memory_gib": 4}
    plain = {"finished": "2026-01-01T00:01", "started": "2026-01-01T00:00", "commit": "abc", "hardware": machine}
    about = {"source": "made up", "parameters": 9, "vocabulary": 512, "hidden_size": 32, "layers": 2}
    plain |= {"models": {"tiny": about}}
    plain |= {"versions": {"torch": "2", "trl": None}, "warnings": ["others worked"], "quick": True}
    return plain | {"parts": [{"model": "tiny", **found}]} | changes


def test_useful_tokens_are_those_of_the_texts() -> None:
    load = bench().load
    lengths = [len(example.input_ids) for example in load.examples]
    assert load.tokens == sum(lengths) == load.describe()["tokens"]
    few = load.first(1)
    assert few.tokens >= 256 > few.tokens - len(few.examples[-1])
    assert list(up_to(load.examples, 0)) == []


def test_both_loads_have_a_step_or_more_and_targets_where_they_should() -> None:
    import instil

    documents, questions = loads("embedded", instil.load("embedded"), PLAN)
    for load, tokens in ((documents, PLAN.document_tokens), (questions, PLAN.question_tokens)):
        assert load.tokens >= 2 * tokens and max(map(len, load.examples)) <= PLAN.row_length
    # A whole text is learned but its first token; of a question only the answer.
    assert sum(example.targets for example in documents.examples) > 0.98 * documents.tokens
    assert sum(example.targets for example in questions.examples) < 0.5 * questions.tokens


def test_each_window_is_a_step() -> None:
    load = bench().load
    windows = our_windows(load)
    assert sorted(index for window in windows for index in window) == list(range(len(load.examples)))
    found = in_windows(load.examples, windows)
    assert [example.phase for example in found] == [n for n, window in enumerate(windows) for _ in window]


def test_curves_are_compared_at_every_step() -> None:
    assert compared([2.0, 1.0], [2.01, 1.0], 0.01) == {"largest_difference": pytest.approx(0.01 / 2.01), "same": True}
    assert not compared([2.0, 1.1], [2.0, 1.0], 0.01)["same"]
    with pytest.raises(ValueError):
        compared([1.0], [1.0, 2.0], 0.01)


def test_the_first_step_is_not_timed() -> None:
    assert behind_first([0, 10, 30, 60], [5.0, 9.0, 10.0, 12.0]) == (50, 3.0)
    assert behind_first([0, 10], [5.0, 9.0]) == (10, 4.0)
    with pytest.raises(ValueError):
        behind_first([0, 10], [5.0, 9.0, 10.0])


def test_every_way_of_packing_is_tried() -> None:
    settings = settings_for(1024, 21, 17.6)
    assert {setting.strategy for setting in settings} == {"bfd", "wrapped", "padded"}
    assert len(set(settings)) == len(settings)
    assert all(setting.length >= 300 for setting in settings_for(2048, 300, 200.0))
    assert list(cut([1, 2, 3, 4], [1, 3])) == [(1,), (2, 3, 4)]


def test_without_trl_the_page_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    found = part(bench())
    assert found["left_out"].startswith("TRL is not installed") and found["trajectory"] is None
    assert found["rates"][INSTIL]["median"] > 0 and found["ratios"][0]["value"] > 0
    assert found["computed_tokens"] >= found["tokens"]
    text = page(results(found))
    assert "left out, TRL is not installed" in text and "**others worked.**" in text and "short form" in text
    write_page(results(found), tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text
    with pytest.raises(RunFailed):
        write_page(results(found, finished=None), tmp_path / "page.md")


@needs_trl
def test_trl_and_we_take_the_same_steps() -> None:
    """In fp32 the losses agree to a ten-thousandth: same examples, same targets, same optimiser."""
    ours = bench()
    peer = ours.peer(Setting("bfd", 128, 2))
    windows = peer.windows()
    assert len(windows) > 1 and sorted(index for window in windows for index in window) == list(range(24))
    theirs, found = peer.train(), ours.ours(windows)
    assert len(theirs.losses) == len(windows)
    later = sum(len(ours.load.examples[index]) for window in windows[1:] for index in window)
    assert found.tokens == theirs.tokens == later  # TRL counts as we do
    assert compared(found.losses, theirs.losses, 1e-4)["same"]
    before, after = ours.loss_of(), [ours.loss_of(run.model) for run in (found, theirs)]
    assert after[0] == pytest.approx(after[1], rel=1e-4) and after[0] != pytest.approx(before, rel=1e-3)


@needs_trl
def test_documents_have_a_loss_on_all_but_their_first_token() -> None:
    examples = [Example(each.input_ids, (-100, *each.input_ids[1:]), each.key) for each in made_up(12) if len(each) > 1]
    plain = bench()
    load = Load("documents", "made up", tuple(examples), step_tokens=128, on_answers=False)
    ours = Bench(plain.lm, load, PLAN, "fp32", plain.tell)
    peer: Peer = ours.peer(Setting("bfd", 64, 1))
    assert compared(ours.ours(peer.windows()).losses, peer.train().losses, 1e-4)["same"]


@needs_trl
def test_a_whole_part_stands_in_the_page() -> None:
    found = part(bench())
    assert found["trajectory"]["same"] and found["left_out"] is None
    assert set(found["settings"]) == {row["against"].removeprefix("TRL, ") for row in found["ratios"][:-1]}
    bars = {row["against"]: row["bar"] for row in found["ratios"]}
    assert bars["TRL, bfd"] == 1.3 and bars["matrix product"] is None
    text = page(results(found))
    assert all(f"TRL, {setting}" in text for setting in found["settings"].values()) and "| yes |" in text
