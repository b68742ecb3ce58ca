"""Updates slowed where known answers need the weights: against the definition, on small real models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from instil.errors import InputError
from instil.model import LanguageModel
from instil.training import Example, Meter, SparingKnown, TrainConfig, train
from instil.training.layout import choose
from instil.training.sparing import fisher, slowed
from tests.half_taught import half_taught, questions
from tests.models import FAMILIES, tiny_model
from tests.training_data import weights

pytestmark = pytest.mark.usefixtures("one_thread")

STEP = TrainConfig(epochs=1, learning_rate=2e-3, batch_size=30, precision="fp32", save_every="never")


def fisher_of(lm: LanguageModel, shown: list[Example], seed: int = 0, meter: Meter | None = None) -> dict[str, Tensor]:
    layout = choose(lm.model, lm.model.config.vocab_size, None)
    return fisher(lm.model, shown, layout, meter or Meter(), 0, seed)


def taught(tmp_path: Path, softness: float | None) -> LanguageModel:
    lm = half_taught()
    known = questions(lm, range(60, 90))
    corrections = [] if softness is None else [SparingKnown(known, softness=softness)]
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    train(lm, questions(lm, range(30)), STEP, out=out, corrections=corrections)
    return lm


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_trained_weights_have_one(family: str) -> None:
    model, tokenizer = tiny_model(family)
    lm = LanguageModel.of(model.float(), tokenizer, name=family)
    lm.model.requires_grad_(True)
    frozen = next(iter(dict(lm.model.named_parameters())))
    lm.model.get_parameter(frozen).requires_grad_(False)
    found = fisher_of(lm, questions(lm, range(3)))
    assert set(found) == {name for name, _ in lm.model.named_parameters()} - {frozen}
    assert all(bool((each >= 0).all()) for each in found.values())
    assert sum(float(each.sum()) for each in found.values()) > 0
    assert all(weight.grad is None for weight in lm.model.parameters())


def test_it_is_the_expected_square_of_the_gradient() -> None:
    """One answer token: the mean over draws nears the sum over the vocabulary of p times the squared gradient."""
    lm = half_taught()
    example = questions(lm, range(60, 61))[0]
    first = next(place for place, label in enumerate(example.labels) if label >= 0)
    short = Example(example.input_ids[: first + 1], example.labels[: first + 1], key="short")
    name = "model.layers.1.self_attn.v_proj.weight"
    weight = lm.model.get_parameter(name)
    log_p_V = lm.model(input_ids=torch.tensor([short.input_ids[:-1]])).logits[0, -1].log_softmax(-1)
    exact = torch.zeros_like(weight)
    for log_p in log_p_V:
        (gradient,) = torch.autograd.grad(log_p, weight, retain_graph=True)
        exact += log_p.exp().detach() * gradient**2
    drawn = fisher_of(lm, [short] * 600)[name]
    assert torch.dot(drawn.flatten(), exact.flatten()) / (drawn.norm() * exact.norm()) > 0.95
    assert float(drawn.sum()) == pytest.approx(float(exact.sum()), rel=0.2)


def test_an_update_is_slowed_as_defined(tmp_path: Path) -> None:
    start, free, found = weights(half_taught()), weights(taught(tmp_path, None)), weights(taught(tmp_path, 0.1))
    lm = half_taught()
    information = fisher_of(lm, questions(lm, range(60, 90)))
    mean = torch.cat([each.flatten() for each in information.values()]).double().mean()
    for name, each in information.items():
        expected = start[name] + (free[name] - start[name]) / (1 + each / (0.1 * mean))
        assert torch.allclose(found[name], expected, atol=1e-6), name


def test_softness_decides_how_far_weights_move(tmp_path: Path) -> None:
    start, free = weights(half_taught()), weights(taught(tmp_path, None))
    soft, hard, hardly = (weights(taught(tmp_path, softness)) for softness in (1.0, 1e-4, 1e9))

    def moved(found: dict[str, Tensor]) -> float:
        return sum(float((found[name] - start[name]).abs().sum()) for name in start)

    assert moved(hard) < 0.7 * moved(soft) and moved(soft) < 0.9 * moved(free)
    assert all(torch.allclose(hardly[name], free[name], atol=1e-6) for name in free)


def test_draws_follow_the_seed_alone() -> None:
    lm = half_taught()
    shown = questions(lm, range(60, 66))
    torch.manual_seed(5)
    one = fisher_of(lm, shown, seed=1)
    torch.manual_seed(6)
    same, other = fisher_of(lm, shown, seed=1), fisher_of(lm, shown, seed=2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_what_it_costs_is_charged_and_the_mode_is_left_alone() -> None:
    lm, meter = half_taught(), Meter()
    lm.model.train()
    fisher_of(lm, questions(lm, range(60, 66)), meter=meter)
    assert lm.model.training
    assert meter.to_dict()["teacher"]["flops"] > 0


def test_wrong_settings_are_refused() -> None:
    lm = half_taught()
    with pytest.raises(InputError, match="no known text"):
        SparingKnown([])
    with pytest.raises(InputError, match="softness"):
        SparingKnown(questions(lm, range(2)), softness=0.0)
    assert slowed(torch.tensor([0.0, 1.0]), 1.0).tolist() == [1.0, 0.5]
