"""Adapters: what they train, what they leave alone, and what is left when they are merged."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.errors import InputError, RunFailed
from instil.training import LoraSettings, OsfSettings, TrainConfig
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


# ------------------------------------------------------ orthogonal subspaces


def divided(**changes: Any) -> Any:
    return settings(learning_rate=1e-2, adapter=OsfSettings(kind="osf", **changes))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
def test_an_orthogonal_subspace_learns_and_leaves_plain_weights(tmp_path: Path, family: str) -> None:
    lm, before, examples = learner(family), weights(learner(family)), made_up(16)
    result = trained(tmp_path, divided(), lm=lm, examples=examples)
    assert nll(lm, examples) < 0.95 * nll(learner(family), examples)
    after = weights(lm)
    assert after.keys() == before.keys()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    linear = {
        f"{name}.weight"
        for name, module in lm.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not lm.model.get_output_embeddings()
    }
    assert changed == linear
    assert result.trained_parameters > 0 and all(parameter.requires_grad for parameter in lm.model.parameters())


def test_gradients_leave_the_preserved_directions_alone() -> None:
    """One step of plain gradient descent moves a matrix by nothing along its largest singular directions, to first
    order. AdamW scales each weight by itself and so leaks some of it; the leak is part of the method as released."""
    lm = learner()
    weight = lm.model.model.layers[0].mlp.down_proj.weight.detach().clone()
    u, _, v = torch.linalg.svd(weight, full_matrices=False)
    kept = min(weight.shape) // 2
    ids = torch.arange(3, 23)[None]
    with trainee(lm.model, divided(targets=("down_proj",))) as ready:
        ready.model(input_ids=ids, labels=ids).loss.backward()
        with torch.no_grad():
            for parameter in ready.trained.values():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad
        ready.model.merge_and_unload(safe_merge=True)
    moved = lm.model.model.layers[0].mlp.down_proj.weight.detach() - weight
    assert moved.norm() > 1e-5
    assert (u[:, :kept].T @ moved @ v[:kept].T).norm() < 1e-3 * moved.norm()


@pytest.mark.parametrize("at", [2, 7])
def test_invariant_2_resumed_equals_uninterrupted_with_a_subspace(tmp_path: Path, at: int) -> None:
    whole = trained(tmp_path / "whole", divided())
    lm = learner()
    with pytest.raises(Killed):
        trained(tmp_path / "cut", divided(), lm=lm, step=killed_at(at))
    assert_same_weights(lm, learner())
    resumed = trained(tmp_path / "cut", divided(), lm=lm)
    assert_same_weights(resumed.model, whole.model)
    assert without_time(resumed) == without_time(whole)


def test_a_subspace_of_half_precision_is_trained_in_fp32(tmp_path: Path) -> None:
    lm = learner()
    lm.model.to(torch.bfloat16)
    with trainee(lm.model, divided()) as ready:
        assert {parameter.dtype for parameter in ready.trained.values()} == {torch.float32}
    trained(tmp_path, divided(targets=("q_proj",)), lm=lm)
    assert all(weight.dtype == torch.bfloat16 for weight in weights(lm).values())


def test_a_model_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Conv1D"):
        trained(tmp_path, divided(), lm=learner("gpt2"))
    with pytest.raises(InputError, match="no linear layer of this name"):
        trained(tmp_path / "two", divided(targets=("c_attn",)), lm=learner())


def test_the_kind_of_an_adapter_is_lora_unless_said() -> None:
    assert TrainConfig.model_validate({"adapter": {}}).adapter == LoraSettings()
    assert isinstance(TrainConfig.model_validate({"adapter": {"kind": "osf"}}).adapter, OsfSettings)
    again = divided(preserved=0.25)
    assert TrainConfig.model_validate_json(again.model_dump_json()) == again
    with pytest.raises(ValueError, match="bogus"):
        TrainConfig.model_validate({"adapter": {"kind": "bogus"}})


def test_a_subspace_can_be_kept(tmp_path: Path) -> None:
    from peft import PeftModel

    lm = learner()
    result = trained(tmp_path, divided(keep=True, targets=("q_proj",)), lm=lm)
    loaded = PeftModel.from_pretrained(learner().model, str(result.adapter))
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, lm.model(ids).logits, rtol=1e-4, atol=1e-4)
