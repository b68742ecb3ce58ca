"""Corrections of updates: against their definitions, on small real models, and through `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instil.errors import InputError
from instil.model import LanguageModel
from instil.training import AwayFromKnown, Example, Meter, PullToStart, TrainConfig, train
from instil.training.corrections import damping, is_transposed, second_moments
from instil.training.layout import choose
from instil.training.stopping import Decision, Progress
from tests.half_taught import half_taught, questions
from tests.models import FAMILIES, tiny_model
from tests.training_data import weights

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainConfig(epochs=2, learning_rate=2e-3, batch_size=8, precision="fp32", save_every="never")


def taught(tmp_path: Path, *corrections: Any, **settings: Any) -> LanguageModel:
    lm = half_taught()
    config = CONFIG.model_copy(update=settings)
    train(
        lm, questions(lm, range(30)), config, out=tmp_path / f"{len(list(tmp_path.iterdir()))}", corrections=corrections
    )
    return lm


def moved_on(lm: LanguageModel, shown: list[Example]) -> float:
    """Mean squared change, since the start, of what the first block's query layer puts out on these texts."""
    name = "model.layers.0.self_attn.q_proj"
    start = half_taught()
    (moment_II,) = [found for key, found in moments_of(start, shown).items() if key == name]
    change_OI = (weights(lm)[f"{name}.weight"] - weights(start)[f"{name}.weight"]).double()
    return float(torch.trace(change_OI @ moment_II @ change_OI.T))


def moments_of(lm: LanguageModel, shown: list[Example]) -> dict[str, Tensor]:
    layout = choose(lm.model, lm.model.config.vocab_size, None)
    return second_moments(lm.model, shown, layout, Meter(), 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_one_text_at_a_time(family: str) -> None:
    model, tokenizer = tiny_model(family)
    lm = LanguageModel.of(model.float(), tokenizer, name=family)
    lm.model.requires_grad_(True)
    shown = questions(lm, range(5))
    found = moments_of(lm, shown)
    assert found and not any("lm_head" in name or "embed_out" in name for name in found)
    name = sorted(found)[-1]
    seen: list[Tensor] = []
    layer = lm.model.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))  # type: ignore[misc]
    with torch.no_grad():
        for example in shown:
            lm.model(input_ids=torch.tensor([example.input_ids]), use_cache=False)
    hook.remove()
    inputs_NI = torch.cat([each.flatten(0, -2) for each in seen]).double()
    assert torch.allclose(found[name], inputs_NI.T @ inputs_NI / len(inputs_NI), rtol=1e-3, atol=1e-5)
    assert is_transposed(layer) == (family == "gpt2")


def test_damping_leaves_alone_what_known_texts_use() -> None:
    moment_II = torch.diag(torch.tensor([4.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    found = damping(moment_II, softness=0.1)  # mean eigenvalue 1.25
    expected = [1 / (1 + 4 / 0.125), 1 / (1 + 1 / 0.125), 1.0, 1.0]
    assert found.diagonal().tolist() == pytest.approx(expected) and torch.equal(found, found.diagonal().diag())


def test_a_corrected_run_changes_less_on_known_texts(tmp_path: Path) -> None:
    known = questions(half_taught(), range(60, 90))
    free = taught(tmp_path)
    soft, hard = (taught(tmp_path, AwayFromKnown(known, softness=softness)) for softness in (1.0, 0.01))
    assert moved_on(hard, known) < 0.5 * moved_on(soft, known) < 0.5 * moved_on(free, known)
    kept = {name for name, weight in weights(hard).items() if torch.equal(weight, weights(half_taught())[name])}
    assert not kept, "every weight may still change"


def test_no_softness_left_is_no_correction(tmp_path: Path) -> None:
    known = questions(half_taught(), range(60, 70))
    free, hardly = taught(tmp_path), taught(tmp_path, AwayFromKnown(known, softness=1e9))
    for name, weight in weights(hardly).items():
        assert torch.allclose(weight, weights(free)[name], atol=1e-5), name


def test_each_update_is_corrected_as_defined(tmp_path: Path) -> None:
    """One step of each: the corrected change is the free one times the damping."""
    known = questions(half_taught(), range(60, 90))
    step = {"epochs": 1, "batch_size": 30}
    start, free = weights(half_taught()), weights(taught(tmp_path, **step))
    found = weights(taught(tmp_path, AwayFromKnown(known, softness=0.2), **step))
    for name, moment_II in moments_of(half_taught(), known).items():
        key = f"{name}.weight"
        expected = start[key] + (free[key] - start[key]) @ damping(moment_II, 0.2)
        assert torch.allclose(found[key], expected, atol=1e-6), name


def test_a_pull_is_a_share_of_the_way_back(tmp_path: Path) -> None:
    step = {"epochs": 1, "batch_size": 30}
    start, free, pulled = (
        weights(lm) for lm in (half_taught(), taught(tmp_path, **step), taught(tmp_path, PullToStart(0.25), **step))
    )
    for name in start:
        assert torch.allclose(pulled[name] - start[name], 0.75 * (free[name] - start[name]), atol=1e-6), name


def test_a_resumed_run_is_corrected_alike(tmp_path: Path) -> None:
    lm, whole = half_taught(), half_taught()
    known, shown = questions(lm, range(60, 90)), questions(lm, range(30))
    config = CONFIG.model_copy(update={"save_every": "epoch", "save_seconds": 0.0, "epochs": 3})

    def corrections() -> list[Any]:
        return [AwayFromKnown(known, softness=0.1), PullToStart(0.01)]

    train(whole, shown, config, out=tmp_path / "whole", corrections=corrections())

    class Killed(Exception):
        pass

    def killed(progress: Progress) -> Decision:
        if progress.epoch == 2:
            raise Killed
        return Decision()

    with pytest.raises(Killed):
        train(half_taught(), shown, config, out=tmp_path / "part", corrections=corrections(), stop=killed)
    train(lm, shown, config, out=tmp_path / "part", corrections=corrections())
    for name, weight in weights(lm).items():
        assert torch.equal(weight, weights(whole)[name]), name
    with pytest.raises(InputError, match="another training run"):
        train(half_taught(), shown, config, out=tmp_path / "part")


def test_what_it_costs_is_charged(tmp_path: Path) -> None:
    lm, meter = half_taught(), Meter()
    known = questions(lm, range(60, 90))
    free = train(half_taught(), questions(lm, range(30)), CONFIG, out=tmp_path / "free").cost["training"]["flops"]
    train(lm, questions(lm, range(30)), CONFIG, out=tmp_path / "run", meter=meter, corrections=[AwayFromKnown(known)])
    spent = meter.to_dict()
    assert spent["teacher"]["flops"] > 0 and spent["training"]["flops"] > free


def test_nonsense_is_refused() -> None:
    lm = half_taught()
    with pytest.raises(InputError, match="no known text"):
        AwayFromKnown([])
    with pytest.raises(InputError, match="softness"):
        AwayFromKnown(questions(lm, range(2)), softness=0.0)
    with pytest.raises(InputError, match="a pull is a share"):
        PullToStart(1.0)
    lm.model.requires_grad_(False)
    with pytest.raises(InputError, match="no linear layer"):
        moments_of(lm, questions(lm, range(2)))
