"""The benchmark of the probe runs and counts what it says it counts; its figures are no test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import probe as benchmark
from benchmarks.probe_ours import OURS, WITHOUT_DECODING, config_of, counted, ours
from benchmarks.probe_page import PAGE, page, write_page
from benchmarks.probe_peers import PlainForward, dense, generate, left_padded
from benchmarks.probe_setup import Material, Requests
from benchmarks.probe_timing import interleave, ratio
from instil.facts import FactSet
from instil.model import LanguageModel
from instil.probe import ProbeConfig
from tests.models import tiny_model
from tests.probing import people_facts, small_lm


def requests(lm: LanguageModel, sets: int = 3) -> Requests:
    facts = people_facts()
    config = ProbeConfig(exemplar_sets=sets, shots=2, max_answer_tokens=4, samples=3)
    return Requests(lm, Material("the people of the tests", FactSet(facts[:4]), facts), config)


# ------------------------------------------------------------- arithmetic


def test_a_ratio_is_the_median_of_the_rounds_with_their_spread() -> None:
    found = ratio([2.0, 6.0, 3.0], [1.0, 2.0, 3.0])
    assert found["value"] == 2.0
    assert found["rounds"] == [2.0, 3.0, 1.0]
    assert found["low"] == 1.0
    assert found["high"] == 3.0


def test_every_contestant_has_a_turn_in_every_round_and_another_one_begins() -> None:
    order: list[str] = []

    def contestant(name: str, rate: float):  # type: ignore[no-untyped-def]
        def turn() -> float:
            order.append(name)
            return rate

        return turn

    found = interleave({"a": contestant("a", 1.0), "b": contestant("b", 2.0)}, 3, lambda line: None)
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert "".join(order) == "abbaab"


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_dense_batches_hold_every_row_once_and_32_of_them_where_there_are_so_many(budget: int) -> None:
    rows = [(3 + index % 40, index % 5) for index in range(101)]
    found = list(dense(rows, budget))
    assert sorted(row for batch in found for row in batch) == sorted(rows)
    assert min(map(len, found)) >= 32


# ------------------------------------------------------------- what is counted


def test_tokens_that_must_be_computed_are_those_of_distinct_prefixes_and_of_what_rows_do_not_share() -> None:
    found = requests(small_lm())
    prompts = {(*job.row.prefix, *job.row.question) for job in found.jobs}
    assert {(*row.prefix, *row.question) for row in found.needed} == prompts
    assert len(found.jobs) == len(found.needed) == 4 * 3
    paths = {(*row.prefix, *row.question[:place]) for row in found.needed for place in range(len(row.question) + 1)}
    prefixes = {prefix[:place] for prefix in found.prefixes for place in range(1, len(prefix) + 1)}
    shared = sum(map(len, found.prefixes)) - len(prefixes)
    trees = sum(len(row.tree) for row in found.needed)
    # Questions also share first tokens of their subjects, and prefixes their beginnings: computed more than once.
    assert len(paths | prefixes) + trees <= found.tokens <= len(paths | prefixes) + trees + shared + len(prompts)
    assert found.tokens < found.listed_tokens


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_operations_are_at_most_what_the_meter_sees_us_compute(family: str) -> None:
    found = requests(small_lm(family))
    spent = counted(WITHOUT_DECODING, found)["operations"]
    # The meter also sees padded attention and the check of the runner: one row of twelve, computed five times over.
    assert found.flops <= spent * 1.001
    assert spent < 2.5 * found.flops


def test_pairs_are_counted_as_a_mask_would_show_them() -> None:
    found = requests(small_lm())
    seen = sum(place + 1 for prefix in found.prefixes for place in range(len(prefix)))
    for row in found.needed:
        before, asked = len(row.prefix), len(row.question)
        seen += sum(before + place + 1 for place in range(asked))
        seen += sum(before + asked + len(row.tree.path(node)) for node in range(len(row.tree)))
    assert found.pairs == seen


def test_the_plain_forward_pass_computes_about_as_many_tokens_and_as_many_logits() -> None:
    found = requests(small_lm(), sets=10)
    peer = PlainForward(found, 256)
    assert peer() == peer.tokens
    assert abs(peer.tokens - found.tokens) < 0.05 * found.tokens
    assert sum(scored for _, scored in peer._batches) == found.scored


def test_lm_eval_gets_every_listed_answer_behind_every_prompt() -> None:
    found = requests(small_lm())
    assert len(found.listed) == 3 * sum(len(question.answers) for question in found.questions)
    stops = found.lm.prompts.stop_ids
    assert all(after[-1] in stops and not stops.intersection(after[:-1]) for _, after in found.listed)
    assert found.listed[0][0] == (*found.jobs[0].row.prefix, *found.jobs[0].row.question)


# ------------------------------------------------------------- peers


def test_left_padding_hides_the_padding_from_generate() -> None:
    lm = small_lm()
    ids, mask = left_padded([(5, 6, 7), (8,)], lm)
    assert ids.tolist() == [[5, 6, 7], [2, 2, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("batch", [1, 5])
def test_generate_answers_every_prompt(batch: int) -> None:
    found = requests(small_lm())
    prompts = [(*job.row.prefix, *job.row.question) for job in found.jobs]
    assert generate(found, prompts, batch) == len(prompts)


def test_our_ways_differ_in_priors_decoding_and_engine_only() -> None:
    base = ProbeConfig(shots=2)
    assert config_of("full", base) == base
    assert config_of("without prior", base).prior is False
    assert config_of("sampled engine", base).engine == "sampled"
    assert config_of(WITHOUT_DECODING, base).shots == 2


@pytest.mark.parametrize("variant", OURS)
def test_each_of_our_ways_asks_every_fact(variant: str) -> None:
    assert ours(variant, requests(small_lm())) == 4


# ------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark, from its command line, on a tiny model."""
    folder = tmp_path_factory.mktemp("benchmark")
    model, tokenizer = tiny_model("llama", 0)
    model.to(torch.bfloat16).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("INSTIL_DATA", raising=False)
        benchmark.main(["--quick", "--models", str(folder / "model"), "--out", str(folder / "probe.json")])
    return folder / "probe.json"


def test_a_quick_run_measures_every_part(quick: Path) -> None:
    result = json.loads(quick.read_text())
    assert [part["part"] for part in result["parts"]] == list(benchmark.PARTS)
    for part in result["parts"]:
        if "left_out" in part:
            assert "lm-eval" in part["left_out"]
            continue
        assert part["ratios"]
        assert all(row["value"] > 0 and row["low"] <= row["value"] <= row["high"] for row in part["ratios"])
    assert result["models"]["model"]["vocabulary"] == 512
    assert {"processor", "cores", "threads"} <= set(result["hardware"])


def test_a_run_that_was_cut_off_keeps_what_it_measured(quick: Path, tmp_path: Path) -> None:
    whole = json.loads(quick.read_text())
    cut = tmp_path / "probe.json"
    cut.write_text(json.dumps({**whole, "finished": None, "parts": whole["parts"][:-1]}))
    model = str(quick.parent / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("INSTIL_DATA", raising=False)
        benchmark.main(["--quick", "--add", "--models", model, "--out", str(cut)])
    found = json.loads(cut.read_text())
    assert found["finished"]
    assert found["parts"][:-1] == whole["parts"][:-1]
    assert [part["part"] for part in found["parts"]] == list(benchmark.PARTS)


def test_the_page_has_every_ratio_and_every_bar(quick: Path, tmp_path: Path) -> None:
    result = json.loads(quick.read_text())
    write_page(result, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    rows = [row for part in result["parts"] for row in part["ratios"]]
    assert all(f"| {row['row']} | model | {row['ours']} |" in text for row in rows)
    assert text.count("**not met**") == sum(row["met"] is False for row in rows)


@pytest.mark.skipif(not benchmark.RESULTS.exists(), reason="the benchmark has not been run yet")
def test_the_page_is_that_of_the_committed_figures() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(json.loads(benchmark.RESULTS.read_text(encoding="utf-8")))
