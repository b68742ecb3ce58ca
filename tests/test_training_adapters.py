"""Low-rank adapters: what they train, what they leave alone, and what is left when they are merged."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError, RunFailed
from instil.training import LoraSettings
from instil.training.trainable import checksum, trainee
from tests.models import FAMILIES
from tests.test_training_run import Killed, assert_same_weights, killed_at, nll, without_time
from tests.training_data import learner, made_up, settings, trained, weights


def adapted(**changes: Any) -> Any:
    return settings(learning_rate=1e-2, adapter=LoraSettings(**({"r": 4, "alpha": 8} | changes)))


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_learn_and_leave_plain_weights(tmp_path: Path, family: str) -> None:
    lm, before, examples = learner(family), weights(learner(family)), made_up(16)
    result = trained(tmp_path, adapted(), lm=lm, examples=examples)
    assert nll(lm, examples) < 0.95 * nll(learner(family), examples)
    after = weights(lm)
    assert after.keys() == before.keys()  # no trace of the adapters
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    linear = {
        f"{name}.weight"
        for name, module in lm.model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not lm.model.get_output_embeddings()
    }
    assert changed == linear
    assert 0 < result.trained_parameters < 0.5 * lm.parameters
    assert all(parameter.requires_grad for parameter in lm.model.parameters())


def test_the_merged_model_answers_as_the_adapted_one_did(tmp_path: Path) -> None:
    lm, ids, seen = learner(), torch.arange(3, 23)[None], []

    def look(progress: Any) -> bool:
        with torch.no_grad():
            seen.append(progress.model.model(ids).logits)
        return False

    trained(tmp_path, adapted(), lm=lm, stop=look)
    with torch.no_grad():
        merged = lm.model(ids).logits
    torch.testing.assert_close(merged, seen[-1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen[0], seen[-1], atol=1e-2)


def test_only_the_targets_and_layers_asked_for_are_adapted(tmp_path: Path) -> None:
    before = weights(learner())
    result = trained(tmp_path, adapted(targets=("q_proj", "down_proj"), layers=(1,)))
    changed = {name for name, weight in weights(result.model).items() if not torch.equal(weight, before[name])}
    assert changed == {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("q_proj", "c_attn")}, "no linear layer of this name.*c_attn.*q_proj"),
        ({"layers": (0, 2)}, "no such layer.*found 2, expected 0 to 1"),
    ],
)
def test_a_layer_asked_for_that_cannot_be_trained_is_an_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    lm = learner()
    with pytest.raises(InputError, match=message):
        trained(tmp_path, adapted(**changes), lm=lm)
    assert_same_weights(lm, learner())


def test_without_peft_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "peft":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'instil\[peft\]'"):
        trained(tmp_path, adapted())


@pytest.mark.parametrize("at", [2, 5, 7])
def test_invariant_2_resumed_equals_uninterrupted_with_adapters(tmp_path: Path, at: int) -> None:
    config = adapted(dropout=0.1)
    whole = trained(tmp_path / "whole", config)
    lm = learner()
    with pytest.raises(Killed):
        trained(tmp_path / "cut", config, lm=lm, step=killed_at(at))
    assert_same_weights(lm, learner())  # the adapters are gone, the weights as they were
    resumed = trained(tmp_path / "cut", config, lm=lm)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)
    again = trained(tmp_path / "cut", config)
    assert_same_weights(again.model, whole.model)


def test_the_adapter_can_be_kept(tmp_path: Path) -> None:
    from peft import PeftModel

    lm = learner()
    result = trained(tmp_path, adapted(keep=True), lm=lm)
    assert result.adapter == tmp_path / "adapter"
    loaded = PeftModel.from_pretrained(learner().model, str(result.adapter))
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, lm.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_two_stages_of_adapters_on_one_model(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    lm = learner()
    trained(tmp_path / "one", adapted(), lm=lm)
    between = weights(lm)
    trained(tmp_path / "two", adapted(), lm=lm)
    assert not torch.equal(
        weights(lm)["model.layers.0.mlp.down_proj.weight"], between["model.layers.0.mlp.down_proj.weight"]
    )
    assert not [warning for warning in recwarn if "PEFT" in str(warning.message)]


def test_frozen_weights_in_half_precision_stay_so_while_adapters_train(tmp_path: Path) -> None:
    lm = learner()
    lm.model.to(torch.bfloat16)
    before = weights(lm)
    trained(tmp_path, adapted(targets=("q_proj",)), lm=lm)
    after = weights(lm)
    assert all(weight.dtype == torch.bfloat16 for weight in after.values())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}


def test_a_frozen_weight_that_moves_ends_the_run() -> None:
    lm = learner()
    with trainee(lm.model, settings(parameters=("lm_head.weight",))) as ready:
        ready.check_frozen()
        lm.model.model.norm.weight.data[3] += 1e-6
        with pytest.raises(RunFailed, match=r"frozen: model\.norm\.weight"):
            ready.check_frozen()


def test_a_checksum_sees_every_bit_and_every_place() -> None:
    tensor = torch.arange(1.0, 1001.0)
    swapped = tensor.clone()
    swapped[[3, 4]] = swapped[[4, 3]]
    flipped = tensor.clone()
    flipped.view(torch.int32)[500] ^= 1
    sums = {checksum(t) for t in (tensor, swapped, flipped, tensor.to(torch.bfloat16))}
    assert len(sums) == 4
    assert checksum(tensor.clone()) == checksum(tensor)
