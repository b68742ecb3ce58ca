"""The sharpness-aware step by itself, against naive twins in fp64: where weights go, which gradient comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.training import Meter, plain_step
from instil.training.batches import MicroBatch, Reading, collate, labelled_logits, share_of_loss
from instil.training.sharpness import KINDS, SharpnessConfig
from instil.training.sharpness.moving import Copies, moved
from instil.training.sharpness.step import Kept, Moment, sharpness_aware_step
from instil.training.sharpness.window import part_of, some_rows, spread
from tests.sharpness_data import (
    ALPHA,
    RHO,
    Gradients,
    Watched,
    exact_loss,
    fast_loss,
    flat,
    gradients_of,
    length_of,
    made_up_momentum,
    model_of,
    naive_functional,
    naive_gradients,
    naive_move,
    same,
    step,
    weights_of,
    window,
)
from tests.training_data import made_up

# ---- definitions ----


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["sam", "asam", "momentum", "looksam", "functional"])
def test_weights_move_and_gradients_come_out_as_the_definition_says(kind: str, family: str) -> None:
    model, batches = model_of(family), window(100)
    momentum = made_up_momentum(model)
    by_parameter = {id(p): momentum[name] for name, p in model.named_parameters()}
    config = SharpnessConfig(kind=kind, rho=RHO)  # type: ignore[arg-type]
    before, watched = weights_of(model), Watched(model)
    step(model, batches, watched, config=config, moment=Moment(momentum=lambda p: by_parameter[id(p)]))
    g = naive_gradients(model, batches)
    move = naive_move(kind, model, g, momentum, config)
    passes = 1 if kind == "momentum" else 2
    assert len(batches) > 1 and len(watched.seen) == passes * len(batches)
    for place, weights in enumerate(watched.seen):
        descending = place >= (passes - 1) * len(batches)
        same(weights, {name: before[name] + move[name] for name in before} if descending else before, rtol=1e-12)
    expected = naive_functional if kind == "functional" else naive_gradients
    same(gradients_of(model), expected(model, batches, move))
    assert all(torch.equal(weights_of(model)[name], before[name]) for name in before)
    if kind == "functional":  # it is another gradient than sam's
        plain_sam = flat(naive_gradients(model, batches, move))
        assert (flat(gradients_of(model)) - plain_sam).norm() > 1e-3 * plain_sam.norm()


def test_looksam_adds_what_it_kept_until_it_looks_again() -> None:
    model, config, kept = model_of(), SharpnessConfig(kind="looksam", rho=RHO, every=2), Kept()
    first, second, third = (window(seed=seed) for seed in (1, 2, 3))
    step(model, first, config=config, kept=kept, moment=Moment(0))
    g = naive_gradients(model, first)
    sharp = flat(naive_gradients(model, first, naive_move("sam", model, g, {}, config)))
    along = flat(g) / flat(g).norm()
    v = sharp - (sharp @ along) * along
    step(model, second, config=config, kept=kept, moment=Moment(1))
    plain = flat(naive_gradients(model, second))
    expected = plain + ALPHA * plain.norm() / v.norm() * v
    torch.testing.assert_close(flat(gradients_of(model)), expected, rtol=1e-7, atol=1e-10)
    step(model, third, config=config, kept=kept, moment=Moment(2))
    g = naive_gradients(model, third)
    same(gradients_of(model), naive_gradients(model, third, naive_move("sam", model, g, {}, config)))


def test_a_random_move_has_sams_length_and_follows_from_seed_and_step() -> None:
    model, batches = model_of(), window()

    def move(seed: int, number: int) -> Tensor:
        watched = Watched(model)
        settings = {"kind": "random", "rho": RHO}
        step(model, batches, watched, settings=settings, moment=Moment(number, seed=seed))
        assert len(watched.seen) == len(batches)
        return flat(watched.seen[0]) - flat(weights_of(model))

    first = move(0, 0)
    assert float(first.norm()) == pytest.approx(RHO)
    assert torch.equal(first, move(0, 0))
    g = flat(naive_gradients(model, batches))
    for other in (move(0, 1), move(1, 0), g):
        assert abs(float(first @ other / first.norm() / other.norm())) < 0.1


def test_there_is_no_move_along_a_gradient_of_zero() -> None:
    model, batches = model_of(), window()
    nothing = lambda model, batch: 0.0 * exact_loss(model, batch)  # noqa: E731
    watched = Watched(model, nothing)
    step(model, batches, watched)
    assert all(torch.equal(flat(seen), flat(weights_of(model))) for seen in watched.seen)


# ---- which weights, which part, when ----


def test_only_norm_layers_move_and_every_gradient_comes_out() -> None:
    model, batches = model_of("qwen3"), window(100)
    before, watched = weights_of(model), Watched(model)
    step(model, batches, watched, settings={"rho": RHO, "perturb": "norms"})
    g = {name: part for name, part in naive_gradients(model, batches).items() if "norm" in name}
    assert len(g) == 2 * 4 + 1  # two layers with four norms each, and the last one
    move = {name: RHO * part / length_of(g) for name, part in g.items()}
    same(watched.seen[-1], {name: before[name] + move.get(name, 0.0) for name in before}, rtol=1e-12)
    same(gradients_of(model), naive_gradients(model, batches, move))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_are_chosen_by_name() -> None:
    model, batches = model_of(), window()
    before, watched = weights_of(model), Watched(model)
    step(model, batches, watched, settings={"rho": RHO, "perturb": ("*mlp*", "lm_head.weight")})
    moved_ones = {name for name in before if not torch.equal(watched.seen[-1][name], before[name])}
    assert moved_ones == {name for name in before if "mlp" in name or name == "lm_head.weight"}
    with pytest.raises(InputError, match="no trained weight is to be moved"):
        step(model, batches, settings={"perturb": ("nothing*",)})


def test_frozen_weights_do_not_move() -> None:
    model, batches = model_of(), window()
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    before, watched = weights_of(model), Watched(model)
    step(model, batches, watched)
    for name, weight in before.items():
        assert torch.equal(watched.seen[-1][name], weight) == ("layers.1" not in name)
    assert gradients_of(model).keys() == {name for name in before if "layers.1" in name}


@pytest.mark.parametrize("unit", ["rows", "micro_batches"])
@pytest.mark.parametrize("kind", ["sam", "functional", "looksam"])
def test_a_part_of_the_window_says_where_to_move_and_all_of_it_where_to_go(kind: Any, unit: Any) -> None:
    model, batches = model_of(), window(130, count=16)
    assert len(batches) == 4 and all(batch.ids_BT.shape[0] > 1 for batch in batches[:-1])
    config = SharpnessConfig(kind=kind, rho=RHO, share=0.5, share_of=unit)
    step(model, batches, config=config)
    part = part_of(batches, 0.5, unit)
    assert sum(len(batch.targets_N) for batch in part) < sum(len(batch.targets_N) for batch in batches)
    move = naive_move("sam", model, naive_gradients(model, part), {}, config)
    expected = naive_functional if kind == "functional" else naive_gradients
    same(gradients_of(model), expected(model, batches, move))


def test_a_share_is_spread_evenly_and_never_empty() -> None:
    assert spread(8, 0.5) == [1, 3, 5, 7]
    assert spread(8, 0.25) == [2, 6]
    assert spread(5, 0.1) == [2]
    assert spread(1, 0.01) == [0]
    assert spread(7, 1.0) == list(range(7))


def test_some_rows_of_a_micro_batch_have_the_losses_they_had() -> None:
    model, (batch, *_) = model_of(), window()
    count = batch.ids_BT.shape[0]
    assert count >= 3
    model.requires_grad_(False)
    whole = float(exact_loss(model, batch))
    parts = [float(exact_loss(model, some_rows(batch, [row]))) for row in range(count)]
    assert sum(parts) == pytest.approx(whole)
    kept = torch.arange(len(batch.targets_N))
    tied = some_rows(MicroBatch(**(vars(batch) | {"extra": {"place": kept}})), [1]).extra["place"]
    assert torch.equal(batch.targets_N[tied], some_rows(batch, [1]).targets_N)
    with pytest.raises(InputError, match="rows cannot be taken out"):
        some_rows(MicroBatch(**(vars(batch) | {"extra": {"one": torch.ones(1)}})), [1])


def test_a_move_for_each_micro_batch() -> None:
    model, batches = model_of(), window(100)
    assert len(batches) > 1
    value = step(model, batches, settings={"rho": RHO, "scope": "micro_batch"})
    total: Gradients = {}
    for batch in batches:
        g = naive_gradients(model, [batch])
        part = naive_gradients(model, [batch], {name: RHO * p / length_of(g) for name, p in g.items()})
        total = {name: total.get(name, 0.0) + part[name] for name in part}
    same(gradients_of(model), total)
    assert float(value) == pytest.approx(float(sum(exact_loss(model, batch).detach() for batch in batches)))


def test_the_phases_of_a_run() -> None:
    def phases(steps: int = 12, **settings: Any) -> str:
        config = SharpnessConfig(**settings)
        begun = next(number for number in range(steps) if config.begins(number / steps))
        return "".join(config.phase(number, begun)[0] for number in range(steps))

    assert phases() == "s" * 12
    assert phases(every=4) == "spppspppsppp"
    assert phases(start=0.5) == "ppppppssssss"
    assert phases(start=0.5, every=3) == "ppppppsppspp"
    assert phases(kind="looksam") == "srrrrsrrrrsr"
    assert phases(kind="looksam", every=2, start=0.75) == "p" * 9 + "srs"
    assert SharpnessConfig(start=0.5).phase(7, None) == "plain", "it has not begun"


# ---- invariants ----


@pytest.mark.parametrize("settings", [*({"kind": kind} for kind in KINDS), {"scope": "micro_batch"}], ids=str)
def test_invariant_2_rho_zero_is_the_plain_gradient_bit_for_bit_under_dropout(settings: Any) -> None:
    """And both passes draw the same random numbers, as many as a plain step, or a gradient would differ."""
    model = model_of("gpt2", double=False, resid_pdrop=0.2, embd_pdrop=0.1, attn_pdrop=0.1)
    batches = window(100)
    momentum = made_up_momentum(model)
    by_parameter = {id(p): momentum[name] for name, p in model.named_parameters()}

    def run(function: Any, **rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(1)
        model.zero_grad(set_to_none=True)
        value = function(model, batches, fast_loss, **rest)
        return flat(gradients_of(model)), value, torch.rand(2)

    expected = run(plain_step)
    config, kept = SharpnessConfig(rho=0.0, **settings), Kept()
    for number in range(2):  # looksam's second step adds what its first one kept: nothing
        moment = Moment(number, momentum=lambda p: by_parameter[id(p)])
        found = run(sharpness_aware_step, config=config, kept=kept, moment=moment)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_invariant_2_micro_batches_equal_one(kind: Any) -> None:
    model, config = model_of(), SharpnessConfig(kind=kind, rho=RHO)
    momentum = made_up_momentum(model)
    by_parameter = {id(p): momentum[name] for name, p in model.named_parameters()}
    found = []
    for micro_tokens in (10_000, 130, 1):
        step(model, window(micro_tokens), config=config, moment=Moment(momentum=lambda p: by_parameter[id(p)]))
        found.append(gradients_of(model))
    assert len(window(1)) > len(window(130)) > len(window())
    same(found[1], found[0])
    same(found[2], found[0])


@pytest.mark.parametrize("kind", KINDS)
def test_invariant_3_weights_are_restored_from_a_copy(kind: Any) -> None:
    """Subtracting the move again would leave other bits; a failure half way leaves the weights as they were too."""
    model = model_of(double=False)
    before, momentum = weights_of(model), made_up_momentum(model)
    by_parameter = {id(p): momentum[name] for name, p in model.named_parameters()}
    moment, config = Moment(momentum=lambda p: by_parameter[id(p)]), SharpnessConfig(kind=kind, rho=RHO)
    watched = Watched(model, fast_loss)
    step(model, window(), watched, config=config, moment=moment)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(model).items())
    moves = {name: weight - before[name] for name, weight in watched.seen[-1].items()}
    by_sgd = {name: before[name] + RHO * moves[name] / length_of(moves) for name in before}
    assert any(not torch.equal(by_sgd[name] - RHO * moves[name] / length_of(moves), before[name]) for name in before)

    def failing(model: nn.Module, batch: MicroBatch) -> Tensor:
        if not torch.equal(flat(weights_of(model)), flat(before)):
            raise MemoryError
        return fast_loss(model, batch)

    with pytest.raises(MemoryError):
        step(model, window(), failing, config=config, moment=moment)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(model).items())


def test_the_copy_takes_no_new_memory_in_the_next_step() -> None:
    model, kept = model_of(double=False), Kept()
    step(model, window(), fast_loss, kept=kept)
    first = [copy.data_ptr() for copy in kept.copies.tensors]
    step(model, window(seed=4), fast_loss, kept=kept)
    assert [copy.data_ptr() for copy in kept.copies.tensors] == first and len(first) == len(list(model.parameters()))
    with moved(None, Copies()) as nothing:
        assert not nothing


def test_every_micro_batch_is_read_in_both_passes_whatever_its_term() -> None:
    """Objectives are part of the loss that sharpness is measured of."""
    model, (first, *rest) = model_of(), window(100)
    batches = [first, *(MicroBatch(**(vars(batch) | {"term": "objective"})) for batch in rest)]
    read: list[str] = []

    def noting(model: nn.Module, batch: MicroBatch) -> Tensor:
        read.append(batch.term)
        return exact_loss(model, batch)

    step(model, batches, noting)
    assert read == 2 * [batch.term for batch in batches]


# ---- cost and rounding ----


def operations(model: nn.Module, batches: Sequence[MicroBatch], steps: int = 1, **settings: Any) -> float:
    meter, config, kept = Meter(), SharpnessConfig(**settings), Kept()
    zeros = {id(p): torch.ones_like(p) for p in model.parameters()}
    with meter.counting(model, "training"):
        begun = next(number for number in range(steps) if config.begins(number / steps))
        for number in range(steps):
            moment = Moment(number, begun, momentum=lambda p: zeros[id(p)])
            step(model, batches, fast_loss, config=config, kept=kept, moment=moment)
    return meter.flops["training"] / steps


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"kind": "sam"}, 1),
        ({"kind": "asam"}, 1),
        ({"kind": "functional"}, 1),
        ({"kind": "momentum"}, 1),
        ({"kind": "random"}, 1),
        ({"kind": "looksam"}, 5),
        ({"every": 4}, 4),
        ({"start": 0.75}, 4),
        ({"start": 0.5, "every": 2}, 4),
        ({"scope": "micro_batch"}, 1),
        ({"share": 0.5}, 1),
        ({"share": 0.25, "every": 2}, 2),
        ({"kind": "functional", "share": 0.5}, 1),
        ({"share": 0.25, "share_of": "micro_batches"}, 1),
    ],
    ids=str,
)
def test_the_meter_counts_every_pass(settings: Any, steps: int) -> None:
    """Ascent, descent and reading for logits are counted as they run, and plans say the same."""
    model, examples = model_of(double=False), made_up(16, shortest=16, longest=16)
    even = [type(examples[0])(e.input_ids, (*[-100] * 14, *e.input_ids[14:]), e.key) for e in examples]
    batches = [collate([(n,) for n in range(a, a + 4)], even, total_weight=1.0, pad_id=2) for a in (0, 4, 8, 12)]
    model.zero_grad(set_to_none=True)
    plain = Meter()
    with plain.counting(model, "training"):
        plain_step(model, batches, fast_loss)
    multiple = operations(model, batches, steps, **settings) / plain.flops["training"]
    assert multiple == pytest.approx(SharpnessConfig(**settings).cost_multiple, rel=1e-9)


def test_norm_layers_alone_save_the_gradients_of_the_weights() -> None:
    model, batches = model_of(double=False), window()
    whole, norms = operations(model, batches), operations(model, batches, perturb="norms")
    # Attention's products, which a plan leaves out, have no weights whose gradients could be saved.
    assert SharpnessConfig(perturb="norms").cost_multiple / 2 < norms / whole < 0.9


def test_what_of_a_move_came_out_is_measured() -> None:
    model, kept = model_of(double=False), Kept()
    step(model, window(), fast_loss, kept=kept)
    found = kept.realised
    assert found is not None and not found.is_mostly_rounding
    assert found.norm == pytest.approx(found.intended, rel=1e-4) and found.intended == pytest.approx(RHO)
    assert found.cosine == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("rho", "rounded"), [(1e-4, True), (3.0, False)])
def test_a_move_that_bfloat16_rounds_away_is_seen_although_masters_are_fp32(rho: float, rounded: bool) -> None:
    model, kept = model_of(double=False), Kept()
    reading = Reading(autocast=torch.bfloat16)
    loss = lambda model, batch: share_of_loss(model, batch, reading)  # noqa: E731
    settings = {"rho": rho}
    step(model, window(), loss, settings=settings, kept=kept, moment=Moment(autocast=torch.bfloat16))
    found = kept.realised
    assert found is not None and found.intended == pytest.approx(rho)
    assert found.is_mostly_rounding == rounded
    # The twin: the linear weights as the forward pass reads them, before and after the same move.
    watched = Watched(model, loss)
    step(model, window(), watched, settings=settings)
    read = {name: torch.float32 if "norm" in name or "embed" in name else torch.bfloat16 for name in watched.seen[0]}
    came = torch.cat(
        [
            (watched.seen[-1][name].to(dtype).float() - watched.seen[0][name].to(dtype).float()).flatten()
            for name, dtype in read.items()
        ]
    )
    meant = flat(watched.seen[-1]) - flat(watched.seen[0])
    assert found.norm == pytest.approx(float(came.norm()), rel=1e-3)
    assert found.cosine == pytest.approx(float(came @ meant / came.norm() / meant.norm()), abs=0.02)


def test_logits_are_taken_after_their_cap_and_at_labelled_places_alike() -> None:
    """Gemma 2 caps its logits: the cap belongs to the function. Narrowed and full output layers give the same."""
    model = model_of("gemma2", double=False)
    found = []
    for narrow in (True, False):
        reading = Reading(head_only=narrow)
        loss = lambda model, batch, reading=reading: share_of_loss(model, batch, reading)  # noqa: E731
        step(model, window(), loss, settings={"kind": "functional", "rho": RHO})
        found.append(gradients_of(model))
    same(found[0], found[1], rtol=1e-4)
    assert labelled_logits(model, window()[0], Reading()).abs().max() <= 8.0


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"kind": "sam", "eta": 0.1}, "eta belongs to kind asam"),
        ({"kind": "sam", "alpha": 0.1}, "alpha belongs to kind looksam"),
        ({"kind": "momentum", "share": 0.5}, "no ascent pass"),
        ({"kind": "random", "scope": "micro_batch"}, "once a window"),
        ({"kind": "looksam", "scope": "micro_batch"}, "once a window"),
        ({"scope": "micro_batch", "share": 0.5, "share_of": "micro_batches"}, "only be one of rows"),
        ({"perturb": ()}, "names no weights"),
        ({"rho": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(settings: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SharpnessConfig(**settings)


def test_settings_survive_being_written_and_read() -> None:
    for kind in KINDS:
        config = SharpnessConfig(kind=kind, perturb=("a*",), start=0.5)
        assert SharpnessConfig.model_validate_json(config.model_dump_json()) == config
