"""The meter against pencil and paper, and against torch's own counter of dispatched operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from instil.training import LoraSettings, Meter, OsfSettings
from instil.training.batches import Reading, collate, share_of_loss
from instil.training.config import TrainConfig
from instil.training.trainable import only, trainee
from tests.models import FAMILIES, tiny_model
from tests.training_data import learner, made_up

WIDTH, INNER, LAYERS, HEADS_WIDTH, KEYS_WIDTH, VOCABULARY = 32, 64, 2, 32, 16, 512


def llama_layer() -> int:
    """Weights of one layer: queries, keys, values, output; gate, up, down."""
    return 2 * WIDTH * HEADS_WIDTH + 2 * WIDTH * KEYS_WIDTH + 3 * WIDTH * INNER


def gpt2_layer() -> int:
    return WIDTH * 3 * WIDTH + WIDTH * WIDTH + 2 * WIDTH * INNER


def a_batch() -> Any:
    examples = made_up(4, shortest=10, longest=10)
    return collate([(0, 1), (2,), (3,)], examples, total_weight=1.0, pad_id=2)


def counted(model: Any, batch: Any, purpose: str = "training") -> float:
    meter = Meter()
    with meter.counting(model, purpose):
        share_of_loss(model, batch, Reading()).backward()
    return meter.flops[purpose]


@pytest.mark.parametrize(("family", "layer"), [("llama", llama_layer()), ("gpt2", gpt2_layer())])
def test_full_training_costs_what_pencil_and_paper_say(family: str, layer: int) -> None:
    model, batch = learner(family).model, a_batch()
    tokens, targets = 3 * 20, len(batch.targets_N)  # two rows of ten are padded to twenty: padding is computed
    assert batch.useful == 40 and batch.computed == tokens
    linear = 6 * LAYERS * layer * tokens
    head = 6 * WIDTH * VOCABULARY * targets
    attention = LAYERS * 3 * (2 * 2 * 3 * 20 * 20 * HEADS_WIDTH)
    assert counted(model, batch) == linear + head + attention


def test_forward_only_costs_a_third() -> None:
    model, batch, meter = learner().model, a_batch(), Meter()
    with torch.no_grad(), meter.counting(model, "deciding"):
        share_of_loss(model, batch, Reading())
    assert meter.flops["deciding"] == counted(model, batch) / 3
    assert meter.tokens["deciding"] == 60


def test_frozen_weights_cost_no_weight_gradient_and_nothing_below_the_lowest_trained_layer() -> None:
    model, batch = learner().model, a_batch()
    only(model, ["model.layers.1.mlp.down_proj.weight"])
    tokens, targets = 60, len(batch.targets_N)
    layer, down = llama_layer(), WIDTH * INNER
    head = WIDTH * VOCABULARY * targets
    forward = 2 * LAYERS * layer * tokens + 2 * head + LAYERS * 4 * 3 * 20 * 20 * HEADS_WIDTH
    backward = 2 * down * tokens + 2 * head  # the weight's own gradient; the head passes it on, frozen
    if model.config.tie_word_embeddings:
        pytest.fail("the test counts an untied head")
    assert counted(model, batch) == forward + backward


def test_adapters_are_counted_as_they_are() -> None:
    lm, batch, rank = learner(), a_batch(), 4
    tokens, targets = 60, len(batch.targets_N)
    with trainee(lm.model, TrainConfig(adapter=LoraSettings(r=rank, targets=("q_proj", "v_proj")))) as ready:
        found = counted(ready.model, batch)
    layer, head = llama_layer(), WIDTH * VOCABULARY * targets
    adapters = rank * (WIDTH + HEADS_WIDTH) + rank * (WIDTH + KEYS_WIDTH)
    forward = 2 * LAYERS * (layer + adapters) * tokens + 2 * head + LAYERS * 4 * 3 * 20 * 20 * HEADS_WIDTH
    # Gradients flow to the inputs of all but what reads the frozen embeddings: the first layer's three projections and
    # its two adapter inputs.
    reads_embeddings = WIDTH * (HEADS_WIDTH + 2 * KEYS_WIDTH) + 2 * rank * WIDTH
    inputs = 2 * (LAYERS * (layer + adapters) - reads_embeddings) * tokens + 2 * head
    own = 2 * LAYERS * adapters * tokens
    attention = LAYERS * 2 * 4 * 3 * 20 * 20 * HEADS_WIDTH
    assert found == forward + inputs + own + attention


@pytest.mark.parametrize("preserved", [0.25, 0.5])
def test_an_orthogonal_subspace_is_counted_as_dispatched(preserved: float) -> None:
    model, batch = tiny_model("llama", attn_implementation="eager")[0], a_batch()
    with trainee(model, TrainConfig(adapter=OsfSettings(kind="osf", preserved=preserved))) as ready:
        with FlopCounterMode(display=False) as audit:
            share_of_loss(ready.model, batch, Reading()).backward()
        ready.model.zero_grad()
        meter = Meter()
        with meter.counting(ready.model, "training"):
            share_of_loss(ready.model, batch, Reading()).backward()
        assert meter.uncounted == set()
        assert meter.flops["training"] == pytest.approx(audit.get_total_flops(), rel=0.005)
        assert ready.setup_flops > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_the_count_of_dispatched_operations(family: str) -> None:
    """Torch's counter sees every matrix product; only the tiny products of rotary embeddings are not ours."""
    model = tiny_model(family, attn_implementation="eager")[0]
    batch = a_batch()
    with FlopCounterMode(display=False) as audit:
        share_of_loss(model, batch, Reading()).backward()
    model.zero_grad()
    assert counted(model, batch) == pytest.approx(audit.get_total_flops(), rel=0.002)


def test_cached_generation_counts_the_keys_seen() -> None:
    model, meter = learner().model, Meter()
    ids = torch.randint(3, 500, (1, 12))
    with torch.no_grad(), meter.counting(model, "deciding"):
        cache = model(ids[:, :8], use_cache=True).past_key_values
        first = meter.flops["deciding"]
        model(ids[:, 8:], past_key_values=cache, use_cache=True)
    per_token = 2 * (LAYERS * llama_layer() + WIDTH * VOCABULARY)
    assert first == 8 * per_token + LAYERS * 4 * 8 * 8 * HEADS_WIDTH
    assert meter.flops["deciding"] - first == 4 * per_token + LAYERS * 4 * 4 * 12 * HEADS_WIDTH


def test_the_innermost_purpose_is_charged_and_time_is_counted_once() -> None:
    model, batch, meter = learner().model, a_batch(), Meter()
    with meter.counting(model, "training"):
        with torch.no_grad(), meter.counting(model, "teacher"):
            share_of_loss(model, batch, Reading())
        with meter.timing(None), torch.no_grad():
            share_of_loss(model, batch, Reading())
    assert meter.flops["training"] == 0 and meter.flops["teacher"] > 0
    assert meter.total == meter.flops["teacher"]
    assert meter.total_seconds == pytest.approx(sum(meter.seconds.values()))
    assert not any(module._forward_hooks for module in model.modules())


def test_survives_being_written_down() -> None:
    model, batch, meter = learner().model, a_batch(), Meter()
    with meter.counting(model, "training"):
        share_of_loss(model, batch, Reading()).backward()
    copy = Meter.from_dict(meter.to_dict())
    assert copy.to_dict() == meter.to_dict()
    copy.add(meter)
    assert copy.total == 2 * meter.total
    assert copy.since(meter.to_dict()) == meter.to_dict()
    assert meter.rows() == [{"purpose": "training", **meter.by_purpose["training"]}]


def test_modules_that_it_cannot_count_are_named() -> None:
    model, meter = learner().model, Meter()
    model.model.layers[0].add_module("mixer", torch.nn.Conv1d(3, 3, 1))
    with meter.counting(model, "training"):
        pass
    assert meter.uncounted == {"Conv1d"}
