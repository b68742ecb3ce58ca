"""The loss: packed equals padded, split equals whole, and each against a naive twin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.errors import InputError
from instil.training import Example, Meter, TrainConfig, losses, plain_step
from instil.training.attention import quickest_attention
from instil.training.batches import MicroBatch, Reading, collate, labelled_logits, share_of_loss, token_losses
from instil.training.engine import Batcher, Window
from instil.training.layout import Layout, choose
from instil.training.packing import pack, width
from instil.training.short_rows import NAME
from tests.models import FAMILIES
from tests.training_data import learner, made_up

PLAIN = Reading(head_only=False)


def naive_losses(model: nn.Module, example: Example) -> torch.Tensor:
    """Token by token as the textbook has it: one example, no packing, no cache, full logits."""
    ids = torch.tensor([example.input_ids])
    log_probabilities = model(input_ids=ids).logits[0].float().log_softmax(-1)
    picks = [(t - 1, label) for t, label in enumerate(example.labels) if label != -100]
    return torch.stack([-log_probabilities[place, token] for place, token in picks])


def naive_window_loss(model: nn.Module, examples: list[Example]) -> torch.Tensor:
    total = sum(example.weight * example.targets for example in examples)
    return sum(example.weight * naive_losses(model, example).sum() for example in examples) / total  # type: ignore[return-value]


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def in_one_row(examples: list[Example]) -> MicroBatch:
    return collate([tuple(range(len(examples)))], examples, total_weight=1.0, pad_id=2)


@pytest.mark.parametrize(
    ("family", "attention"),
    # Gemma 2 caps its attention scores, which the fused kernel cannot do.
    [(f, a) for f in FAMILIES for a in ("sdpa", "eager") if (f, a) != ("gemma2", "sdpa")],
)
def test_invariant_1_packed_equals_padded(family: str, attention: str) -> None:
    # Examples of up to 40 tokens leave the windows of 16 that the sliding families have.
    model = learner(family, attn_implementation=attention).model
    examples = made_up(6)
    with torch.no_grad():
        packed = labelled_logits(model, in_one_row(examples), Reading())
        for example, logits_NV in zip(examples, packed.split([e.targets for e in examples]), strict=True):
            alone = labelled_logits(model, in_one_row([example]), PLAIN)
            torch.testing.assert_close(logits_NV, alone, rtol=1e-4, atol=2e-5)
            losses = token_losses(logits_NV, torch.tensor([label for label in example.labels if label != -100]))
            torch.testing.assert_close(losses, naive_losses(model, example), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_invariant_4_no_token_attends_across_examples(family: str) -> None:
    model = learner(family).model
    first, second = made_up(2, shortest=20)
    other = made_up(1, seed=9, shortest=len(first), longest=len(first))[0]
    with torch.no_grad():
        logits, replaced = (
            labelled_logits(model, in_one_row([before, second]), Reading())[-second.targets :]
            for before in (first, other)
        )
        # The two rows have different numbers of scored tokens, so several threads add up in another order.
        torch.testing.assert_close(logits, replaced, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_in_pieces_are_those_of_cross_entropy(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "PIECE", {"cpu": 3 * 300})  # three rows at a time, the last piece shorter
    draw = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(11, 300, generator=draw).to(dtype)
    targets = torch.randint(0, 300, (11,), generator=draw)
    weights = torch.rand(11, generator=draw)
    found, expected = (logits.clone().requires_grad_() for _ in range(2))
    ours = token_losses(found, targets)
    naive = nn.functional.cross_entropy(expected.float(), targets, reduction="none")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, naive, rtol=1e-6, atol=1e-6)
    (ours * weights).sum().backward()
    (naive * weights).sum().backward()
    assert found.grad is not None and expected.grad is not None and found.grad.dtype == dtype
    # In bfloat16 both round about the same fp32 gradient, which may fall on either side of a tie.
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=1e-8)
    empty = token_losses(logits[:0], targets[:0])
    assert empty.shape == (0,)


def test_rows_are_no_longer_than_a_few_of_the_longest_example() -> None:
    assert width(20, 256) == 64 and width(30, 256) == 90 and width(30, 50) == 50
    assert width(100, 256) == 256 and width(300, 256) == 300


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_the_proof(family: str) -> None:
    model = learner(family).model
    layout = choose(model, 512, None)
    assert layout == Layout(Reading(head_only=True, positions=True), packed=True)
    assert not choose(model, 512, None, packing=False).packed


def test_a_model_that_leaks_is_padded_and_says_so() -> None:
    model = learner().model
    honest = model.forward

    def leaking(input_ids: torch.Tensor, position_ids: torch.Tensor, **rest: object) -> object:
        return honest(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), position_ids=position_ids, **rest)

    model.forward = leaking
    layout = choose(model, 512, None)
    assert layout.reading.head_only and not layout.packed
    assert layout.notes == ("examples are padded, not packed: this model does not keep packed examples apart",)


def test_a_model_whose_logits_depend_on_the_whole_row_gets_its_full_head() -> None:
    model = learner().model
    honest = model.forward

    def centred(*given: object, **rest: object) -> object:
        output = honest(*given, **rest)
        output.logits = output.logits - output.logits.mean(dim=1, keepdim=True)
        return output

    model.forward = centred
    layout = choose(model, 512, None)
    assert not layout.reading.head_only
    assert "every position" in layout.notes[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_invariant_2_micro_batches_equal_one_batch(family: str) -> None:
    model = learner(family).model
    examples = [*made_up(11), Example((5, 6, 7, 8), (-100, 6, 7, 8), "heavy", weight=3.0)]
    whole = naive_window_loss(model, examples)
    whole.backward()
    expected = gradients(model)
    window = Window(tuple(range(len(examples))))
    for row_length, micro_tokens, packed in ((256, 8192, True), (64, 64, True), (64, 130, True), (64, 50, False)):
        config = TrainConfig(row_length=row_length, micro_tokens=micro_tokens)
        batcher = Batcher(examples, config, Layout(Reading(), packed), pad_id=2)
        batches = batcher.micro_batches(window)
        loss = plain_step(model, batches, lambda model, batch: share_of_loss(model, batch, Reading()))
        torch.testing.assert_close(loss, whole.detach(), rtol=1e-5, atol=1e-6)
        assert_same_gradients(gradients(model), expected)
    assert len(batches) > 1


def test_the_shares_of_all_ranks_sum_to_the_window() -> None:
    model, examples = learner().model, made_up(10)
    window = Window(tuple(range(10)))
    batcher = Batcher(examples, TrainConfig(row_length=64, micro_tokens=128), Layout(Reading(), True), pad_id=2)
    with torch.no_grad():
        whole = naive_window_loss(model, examples)
        for ranks in (1, 2, 3, 20):
            shares = [
                share_of_loss(model, batch, Reading())
                for rank in range(ranks)
                for batch in batcher.micro_batches(window, rank, ranks)
            ]
            torch.testing.assert_close(torch.stack(shares).sum(), whole, rtol=1e-5, atol=1e-6)


def test_loss_is_per_target_token_not_per_micro_batch() -> None:
    """Two micro-batches with 1 and 5 targets: the mean over 6 tokens, not the mean of two means."""
    model = learner().model
    short = Example((5, 6, 7), (-100, -100, 7), "short")
    long = Example((8, 9, 10, 11, 12, 13), (-100, 9, 10, 11, 12, 13), "long")
    batcher = Batcher([short, long], TrainConfig(micro_tokens=6), Layout(Reading(), packed=False), pad_id=2)
    batches = batcher.micro_batches(Window((0, 1)))
    assert len(batches) == 2
    with torch.no_grad():
        loss = sum(share_of_loss(model, batch, Reading()) for batch in batches)
        tokens = torch.cat([naive_losses(model, short), naive_losses(model, long)])
        torch.testing.assert_close(loss, tokens.mean())
        means = (naive_losses(model, short).mean() + naive_losses(model, long).mean()) / 2
        assert abs(loss - means) > 1e-3


def test_a_batch_without_a_target_is_an_error() -> None:
    silent = Example((5, 6, 7), (-100, -100, -100), "silent")
    batcher = Batcher([silent], TrainConfig(), Layout(Reading(), True), pad_id=2)
    with pytest.raises(InputError, match=r"a batch without a single token to learn.*silent"):
        batcher.micro_batches(Window((0,)))


def test_a_rank_without_rows_still_reaches_every_weight() -> None:
    model = learner().model
    share_of_loss(model, collate([], made_up(1), total_weight=1.0, pad_id=2), Reading()).backward()
    found = gradients(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(not gradient.any() for gradient in found.values())


def test_the_head_runs_on_labelled_positions_only() -> None:
    model, examples = learner().model, made_up(5)
    batch = collate(
        pack(range(5), [len(e) for e in examples], list("abcde"), 100), examples, total_weight=1.0, pad_id=2
    )
    seen: list[int] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _, args, out: seen.append(args[0].shape[1]))
    share_of_loss(model, batch, Reading())
    hook.remove()
    assert seen == [sum(example.targets for example in examples)]


def test_bf16_forward_keeps_the_loss_in_fp32() -> None:
    model, examples = learner().model, made_up(5)
    batch = in_one_row(examples)
    with torch.no_grad():
        half = labelled_logits(model, batch, Reading(autocast=torch.bfloat16))
        full = labelled_logits(model, batch, Reading())
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    loss, reference = (token_losses(logits, batch.targets_N).mean() for logits in (half, full))
    assert abs(loss - reference) < 0.02 * reference  # bf16 keeps 8 bits; the mean of a few tokens stays within 2 %


@pytest.mark.parametrize("family", FAMILIES)
def test_quickest_attention_is_the_same_attention(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples, reading = learner(family).model, made_up(5), Reading(autocast=torch.bfloat16)
    batch, before, used = in_one_row(examples), model.config._attn_implementation, []
    hook = model.register_forward_pre_hook(lambda *_: used.append(model.config._attn_implementation))
    share_of_loss(model, batch, reading).backward()
    expected = gradients(model)
    with quickest_attention(model, batch, reading):
        loss = share_of_loss(model, batch, reading)
    loss.backward()
    hook.remove()
    assert used == [before, NAME if before == "sdpa" else before] and model.config._attn_implementation == before
    for name, gradient in gradients(model).items():  # bf16 keeps 8 bits
        assert (gradient - expected[name]).norm() < 0.06 * expected[name].norm() + 1e-6, name
    with quickest_attention(model, batch, Reading()):
        assert model.config._attn_implementation == before
    monkeypatch.setattr("instil.training.attention.MOST_BYTES", 0)
    with quickest_attention(model, batch, reading):
        assert model.config._attn_implementation == before


def test_dropout_still_works_in_training_mode() -> None:
    lm = learner("gpt2", resid_pdrop=0.5)
    lm.model.train()
    batch = in_one_row(made_up(2))
    torch.manual_seed(0)
    first, second = (share_of_loss(lm.model, batch, Reading()) for _ in range(2))
    assert first != second
    assert Meter().total == 0
