"""Pre-training: reproducible and resumable bit for bit; documents are isolated; the shipped model is what it says."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from instil.errors import InputError
from instil.facts import Role
from instil.worlds import PretrainConfig, WorldConfig, demo_facts, embedded_world, generate_world
from instil.worlds.pretrain import batch_loss, build_model, pretrain
from instil.worlds.stream import (
    PackedBatch,
    Piece,
    TokenStream,
    epoch_batches,
    load_tokenizer,
    pack,
    read_texts,
    split_documents,
    tensors,
    train_tokenizer,
)

TINY = PretrainConfig(
    vocab_size=400, hidden_size=32, layers=2, heads=2, intermediate_size=48, row_length=64, long_row_length=128,
    max_positions=128, batch_tokens=256, tokenizer_characters=20_000, attention_dropout=0.1, precision="fp32",
    threads=1, save_every=4, log_every=4, learning_rate=5e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> list[str]:
    told_once = {"levels": (1,), "place_levels": (1,), "exemplar_exposures": 1, "disputed_share": 0}
    few = {"people": 20, "new_people": 0, "exemplar_people": 4, "unknown_entities": 5, "prose_paragraphs": 5}
    world = generate_world(WorldConfig.model_validate(told_once | few))
    return list(world.texts())[:120]


def test_two_runs_end_in_equal_weights_and_so_does_a_resumed_one(texts: list[str], tmp_path: Path) -> None:
    one = pretrain(texts, tmp_path / "one", TINY)
    pretrain(iter(texts), tmp_path / "two", TINY)
    partial = pretrain(texts, tmp_path / "three", TINY, stop_after=one.steps // 2)
    assert partial.steps == one.steps // 2 and (tmp_path / "three" / "work" / "checkpoint.pt").exists()
    resumed = pretrain(texts, tmp_path / "three", TINY)
    assert resumed.steps == one.steps > 8
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "three")]
    for other in weights[1:]:
        assert weights[0].keys() == other.keys()
        assert all(torch.equal(weights[0][name], other[name]) for name in other)
    assert not (tmp_path / "three" / "work").exists()
    assert weights[0]["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_what_was_pretrained_loads_with_transformers_and_loss_fell(texts: list[str], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows: list[dict[str, float]] = []
    pretrain(texts, tmp_path / "out", TINY, log=rows.append)
    assert rows[-1]["loss"] < rows[0]["loss"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("Q: Where", return_tensors="pt").input_ids
    assert int(ids[0, 0]) == tokenizer.bos_token_id
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    assert model.config.use_cache and tokenizer.chat_template is None


def test_a_checkpoint_of_other_settings_is_refused(texts: list[str], tmp_path: Path) -> None:
    pretrain(texts, tmp_path / "out", TINY, stop_after=2)
    with pytest.raises(InputError, match="other texts or settings"):
        pretrain(texts, tmp_path / "out", TINY.model_copy(update={"learning_rate": 1e-4}))


def test_sizes_that_do_not_fit_and_empty_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="heads"):
        pretrain(["text"], tmp_path / "a", TINY.model_copy(update={"heads": 3}))
    with pytest.raises(InputError, match="context window"):
        pretrain(["text"], tmp_path / "b", TINY.model_copy(update={"long_row_length": 4096}))
    with pytest.raises(InputError, match="no text"):
        pretrain([], tmp_path / "c", TINY)


def test_texts_are_read_from_files(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": "é\nx"}) + "\n\n" + json.dumps({"text": "y"}) + "\n")
    assert list(read_texts(tmp_path / "a.jsonl.gz")) == ["é\nx", "y"]
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n{"texts": "y"}\n')
    with pytest.raises(InputError) as refused:
        list(read_texts(tmp_path / "b.jsonl"))
    assert refused.value.line == 2
    with pytest.raises(InputError, match="no such file"):
        list(read_texts(tmp_path / "missing.jsonl"))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_the_tokenizer_keeps_any_unicode(text: str) -> None:
    tokenizer = _tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    special = any(token in text for token in ("<s>", "</s>", "<pad>"))
    assert special or tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


_CACHE: list[object] = []


def _tokenizer():  # type: ignore[no-untyped-def]
    if not _CACHE:
        _CACHE.append(train_tokenizer(["Q: Where was Anna born?\nA: Paris\n"] * 5, TINY))
    return _CACHE[0]


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(3, 300), min_size=1, max_size=60), seed=st.integers(0, 9))
def test_packing_keeps_every_token_once(lengths: list[int], seed: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    short, long = split_documents(offsets, 64, 128)
    covered = np.zeros(offsets[-1], dtype=int)
    for pieces, length in ((short, 64), (long, 128)):
        for row in pack(pieces, length, open_rows=3):
            assert sum(piece.length for piece in row) <= length
            for piece in row:
                covered[piece.start : piece.start + piece.length] += 1
    assert (covered == 1).all()
    stream = TokenStream(np.arange(offsets[-1]) % 100, offsets, "x")
    plan = epoch_batches(stream, TINY.model_copy(update={"seed": seed}), 0)
    assert sum(piece.length for batch in plan for row in batch.rows for piece in row) == offsets[-1]


def test_packed_documents_do_not_see_each_other() -> None:
    tokenizer = _tokenizer()
    model = build_model(TINY.model_copy(update={"attention_dropout": 0.0}), tokenizer).eval()
    tokens = np.random.default_rng(0).integers(3, len(tokenizer), size=60)
    stream = TokenStream(tokens, np.array([0, 25, 60]), "x")
    pieces = [Piece(0, 25), Piece(25, 35)]
    together = tensors(PackedBatch([pieces], 64), stream, 0)
    apart = [tensors(PackedBatch([[piece]], 64), stream, 0) for piece in pieces]
    with torch.no_grad():
        packed = batch_loss(model, together, "fp32") * (24 + 34)
        alone = batch_loss(model, apart[0], "fp32") * 24 + batch_loss(model, apart[1], "fp32") * 34
    assert torch.allclose(packed, alone, atol=1e-3)


def test_the_embedded_model_is_small_and_its_world_is_regenerated() -> None:
    folder = Path(str(files("instil.model").joinpath("embedded")))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16_000_000
    assert len(load_tokenizer(folder)) <= 8000
    about = json.loads((folder / "pretraining.json").read_text())
    world = embedded_world()
    assert world.facts.fingerprint == about["facts_fingerprint"]
    facts = demo_facts()
    by_role = {role: len(facts.with_role(role)) for role in Role}
    assert 300 <= by_role[Role.TARGET] <= 360
    assert by_role[Role.DEVELOPMENT] >= 50 and by_role[Role.HELD_BACK] >= 100 and by_role[Role.KNOWN] >= 30
    assert all(len(group) >= 12 for group in facts.with_role(Role.EXEMPLAR).by_relation.values())
