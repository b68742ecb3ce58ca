"""Loading and saving: what is refused, what is chosen, and that what was saved is what was held."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import instil.model.loading as loading
from instil.errors import InputError
from instil.model import LanguageModel, load, outline, save
from tests.models import FAMILIES, tiny_model

IDS = torch.tensor([[0, 51, 28, 33, 201, 400, 7]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    save(LanguageModel.of(*tiny_model("llama")), place)
    return place


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_saved_is_what_was_held(family: str, tmp_path: Path) -> None:
    lm = LanguageModel.of(*tiny_model(family))
    save(lm, tmp_path / "m")
    again = load(tmp_path / "m", dtype="float32", device="cpu")
    assert again.fingerprint == lm.fingerprint
    assert again.name == "m"
    assert torch.equal(again.model(IDS).logits, lm.model(IDS).logits)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.equal(plain(IDS).logits, lm.model(IDS).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "m").encode("Ada") == lm.tokenizer.encode("Ada")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_saving_in_bf16_leaves_the_model_in_memory_alone(tmp_path: Path) -> None:
    lm = LanguageModel.of(*tiny_model("qwen3"))
    save(lm, tmp_path / "m", dtype="bf16")
    assert lm.dtype is torch.float32
    again = load(tmp_path / "m", dtype="bfloat16", device="cpu")
    assert again.dtype is torch.bfloat16
    assert torch.equal(again.model(IDS).logits, lm.at(torch.bfloat16).model(IDS).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_invariant_8_a_copy_at_another_precision_scores_as_its_file_does(family: str, tmp_path: Path) -> None:
    """Bit for bit, bf16. `model.to(torch.bfloat16)` alone would round the rotary frequencies too."""
    lm = LanguageModel.of(*tiny_model(family))
    low = lm.at(torch.bfloat16)
    save(low, tmp_path / "m")
    again = load(tmp_path / "m", dtype="bfloat16", device="cpu")
    assert torch.equal(again.model(IDS).logits, low.model(IDS).logits)
    assert again.fingerprint == low.fingerprint
    assert lm.dtype is torch.float32


def test_saving_over_a_model_replaces_it_whole(folder: Path, copy: Path) -> None:
    (copy / "stale.safetensors").write_bytes(b"old")
    other = LanguageModel.of(*tiny_model("gpt2", 1))
    save(other, copy)
    assert load(copy, device="cpu").fingerprint == other.fingerprint
    assert not (copy / "stale.safetensors").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


def test_whoever_may_read_the_folder_may_read_the_weights(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = save(LanguageModel.of(*tiny_model("llama")), tmp_path / "model")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o644}


def test_a_save_that_fails_leaves_the_old_model(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load(copy, device="cpu").fingerprint
    other = LanguageModel.of(*tiny_model("gpt2", 1))

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(type(other.tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        save(other, copy)
    monkeypatch.undo()
    assert load(copy, device="cpu").fingerprint == before
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


def test_saving_into_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other than a model"):
        save(LanguageModel.of(*tiny_model("llama")), tmp_path)


def test_the_fingerprint_follows_weights_config_tokenizer_and_style(folder: Path) -> None:
    lm = load(folder, device="cpu")
    before = lm.fingerprint
    assert load(folder, device="cpu").fingerprint == before
    with torch.no_grad():
        next(lm.model.parameters()).view(-1)[0] += 1e-3
    assert lm.fingerprint != before
    assert replace(load(folder, device="cpu"), style="chat").fingerprint != before
    lm = load(folder, device="cpu")
    lm.tokenizer.chat_template = "{{ messages }}"
    assert lm.fingerprint != before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("named", [True, False])
def test_an_outline_asks_as_the_model_does_and_reads_no_weights(family: str, named: bool, tmp_path: Path) -> None:
    """Whether the generation config names end tokens of its own or is not there."""
    model, tokenizer = tiny_model(family, chat=True)
    model.generation_config.eos_token_id = [1, 7]
    save(LanguageModel.of(model, tokenizer), tmp_path / "m")
    if not named:
        (tmp_path / "m" / "generation_config.json").unlink()
    lm = load(tmp_path / "m", device="cpu")
    for path in (tmp_path / "m").glob("*.safetensors"):
        path.unlink()
    same = outline(tmp_path / "m")
    assert all(parameter.is_meta for parameter in same.model.parameters())
    assert (same.name, same.source, same.style) == (lm.name, lm.source, lm.style)
    assert (same.context_window, same.parameters) == (lm.context_window, lm.parameters)
    assert same.prompts.end_ids == lm.prompts.end_ids
    assert (7 in same.prompts.end_ids) is named
    assert same.model.generation_config.eos_token_id == lm.model.generation_config.eos_token_id
    assert same.prompts.prefix_ids([("Who?", "Ada")]) == lm.prompts.prefix_ids([("Who?", "Ada")])
    assert outline(tmp_path / "m", style="base").style == "base"
    assert "{{ bos_token }}" in str(outline(tmp_path / "m", chat_template="{{ bos_token }}").tokenizer.chat_template)


def test_an_outline_answers_nothing_and_has_no_fingerprint(copy: Path) -> None:
    lm = outline(copy)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        print(lm.fingerprint)
    with torch.no_grad(), pytest.raises((RuntimeError, NotImplementedError)):
        lm.model(IDS).logits.tolist()


def test_an_outline_of_what_is_no_model_is_refused(copy: Path, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "absent", "no such model folder"), (copy / "config.json", "not a model folder")):
        with pytest.raises(InputError, match=words):
            outline(path)
    with pytest.raises(InputError, match="style"):
        outline(copy, style="odd")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 5}))
    with pytest.raises(InputError, match="more tokens than the model"):
        outline(copy)
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "none such"}))
    with pytest.raises(InputError, match="cannot be built"):
        outline(copy)
    (copy / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        outline(copy)


def refusal(path: Path | str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_folders_that_are_no_models_are_refused(copy: Path, tmp_path: Path) -> None:
    assert "no such model folder" in refusal(tmp_path / "absent")
    assert "no such model folder" in refusal("runs/of/mine/model")
    assert "not a model folder" in refusal(copy / "config.json")
    weights = copy / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    assert "no weights" in refusal(copy)
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    assert "pickled weights only" in refusal(copy)
    (copy / "pytorch_model.bin").unlink()
    weights.write_bytes(kept[: len(kept) // 2])
    assert "cannot be loaded" in refusal(copy)
    weights.write_bytes(b"")
    assert "cannot be" in refusal(copy)
    weights.write_bytes(kept)
    (copy / "config.json").unlink()
    assert "no config.json" in refusal(copy)


def test_weights_that_are_missing_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "weights are missing" in refusal(copy)


def test_a_tokenizer_without_an_end_token_is_refused(copy: Path) -> None:
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "no end token" in refusal(copy)


def test_a_tokenizer_that_is_larger_than_the_model_is_refused(copy: Path) -> None:
    lm = LanguageModel.of(*tiny_model("llama", vocab=400))
    lm.model.save_pretrained(copy)
    assert "more tokens than the model" in refusal(copy)


def test_options_that_do_not_exist_are_refused(folder: Path) -> None:
    assert "unknown precision" in refusal(folder, dtype="int3")
    assert "no such device" in refusal(folder, device="abacus")
    assert "unknown prompt style" in refusal(folder, style="song")
    assert "no chat template" in refusal(folder, style="chat")
    assert "no such chat template" in refusal(folder, chat_template="absent.jinja")


def test_remote_code_is_not_run_unless_asked(copy: Path) -> None:
    settings = json.loads((copy / "config.json").read_text())
    settings |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (copy / "config.json").write_text(json.dumps(settings))
    (copy / "code.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    refusal(copy)
    assert not (copy / "ran").exists()


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("fast", [True, False])
def test_bf16_is_chosen_on_a_cpu_only_where_it_helps(
    tmp_path: Path, stored: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(LanguageModel.of(*tiny_model("llama")), tmp_path / "m", dtype=stored)
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: fast)
    expected = torch.bfloat16 if fast and stored == "bfloat16" else torch.float32
    assert load(tmp_path / "m", device="cpu").dtype is expected


def test_a_chat_template_given_replaces_the_tokenizers(folder: Path, tmp_path: Path) -> None:
    from tests.models import CHAT_TEMPLATE

    path = tmp_path / "template.jinja"
    path.write_text(CHAT_TEMPLATE)
    for given in (CHAT_TEMPLATE, str(path)):
        lm = load(folder, chat_template=given, device="cpu")
        assert lm.style == "chat"
        assert lm.tokenizer.chat_template == CHAT_TEMPLATE
    assert load(folder, device="cpu").style == "base"
    assert load(folder, chat_template=CHAT_TEMPLATE, style="base", device="cpu").style == "base"


def test_a_model_describes_itself(folder: Path) -> None:
    found = load(folder, device="cpu").describe()
    assert json.loads(json.dumps(found)) == found
    assert found["parameters"] == 51360
    assert found["context_window"] == 1024
    assert (found["dtype"], found["device"], found["style"]) == ("float32", "cpu", "base")
