"""Small real models of every family the tests use, built from configs, and tokenizers trained on a built-in text.

The attention windows and soft caps are tiny on purpose: a prompt of twenty tokens already leaves the window, so a
path that forgets them fails its equality test.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

FAMILIES = ("llama", "qwen3", "gpt2", "gpt_neox", "gemma2", "gemma3", "mistral")
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

_PEOPLE = "Ada Lovelace, Alan Turing, Grace Hopper, Emmy Noether, Kurt Gödel, Marie Curie, Niels Bohr, Lise Meitner"
_PLACES = "London, Paris, Göttingen, Vienna, New York City, Copenhagen, Warsaw, Stockholm, Princeton, Manchester"
_WORK = "mathematician, physicist, chemist, programmer, logician, engineer, teacher, astronomer, writer, painter"


def _text() -> list[str]:
    people, places, work = (names.split(", ") for names in (_PEOPLE, _PLACES, _WORK))
    lines = []
    for number, person in enumerate(people):
        place, other, job = places[number], places[-number - 1], work[number]
        lines += [
            f"Q: Where was {person} born?\nA: {place}\n",
            f"Q: What is the occupation of {person}?\nA: {job}\n",
            f"{person} was a {job}, born in {place} in {1800 + 17 * number}, who died in {other}.\n\n",
            f"The {job} {person} moved from {place} to {other} and wrote about numbers, stars and machines.\n",
        ]
    return lines


def _trained(tokenizer: Tokenizer, vocab: int, alphabet: list[str]) -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIALS.values()), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_text(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIALS)


def _byte_level(vocab: int, split: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    if split is None:
        tokenizer.pre_tokenizer = words
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(split), behavior="isolated"), words]
        )
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, vocab, pre_tokenizers.ByteLevel.alphabet())


def _metaspace(vocab: int) -> PreTrainedTokenizerFast:
    """As Llama 2's: a space is a visible mark, one is put in front of every text, and bytes are the fallback."""
    source = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    mark = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    source.normalizer = normalizers.Sequence(mark)
    source.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    source.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|▁?[^▁\n]+"), behavior="isolated")
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[*SPECIALS.values(), "<unk>", *fallback], show_progress=False
    )
    source.train_from_iterator(_text(), trainer)
    source.add_special_tokens([AddedToken(token, special=True) for token in (*SPECIALS.values(), "<unk>")])
    return PreTrainedTokenizerFast(tokenizer_object=source, unk_token="<unk>", **SPECIALS)


# As Llama 3's and Qwen's: punctuation swallows the line breaks behind it, so ".\n" can be one token.
_MODERN = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


@cache
def _tokenizer(kind: str, vocab: int) -> PreTrainedTokenizerFast:
    if kind == "byte":
        return _byte_level(vocab)
    if kind == "modern":
        return _byte_level(vocab, _MODERN)
    if kind == "metaspace":
        return _metaspace(vocab)
    raise ValueError(f"no tokenizer kind {kind}")


def tiny_tokenizer(kind: str = "byte", vocab: int = 512, *, chat: bool = False) -> PreTrainedTokenizerFast:
    """A fresh tokenizer: "byte" is like GPT-2's, "modern" like Llama 3's, "metaspace" like Llama 2's."""
    tokenizer = copy.deepcopy(_tokenizer(kind, vocab))
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _config(family: str, vocab: int, hidden: int, layers: int, positions: int, **changes: Any) -> Any:
    from transformers import (
        Gemma2Config,
        Gemma3TextConfig,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        MistralConfig,
        Qwen3Config,
    )

    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    common = {"vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4}
    common |= {"intermediate_size": 2 * hidden, "max_position_embeddings": positions, "initializer_range": 0.15}
    common |= special
    grouped = common | {"num_key_value_heads": 2}
    headed = grouped | {"head_dim": hidden // 4}
    if family == "llama":
        return LlamaConfig(**(grouped | changes))
    if family == "qwen3":
        return Qwen3Config(**(headed | changes))
    if family == "mistral":
        return MistralConfig(**(headed | {"sliding_window": 16} | changes))
    if family == "gpt2":
        sizes = {"n_embd": hidden, "n_layer": layers, "n_head": 4, "n_positions": positions, "n_inner": 2 * hidden}
        none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2Config(**({"vocab_size": vocab, "initializer_range": 0.15} | sizes | none | special | changes))
    if family == "gpt_neox":
        return GPTNeoXConfig(**(common | changes))
    gemma = headed | {"sliding_window": 16, "query_pre_attn_scalar": hidden // 4}
    if family == "gemma2":
        return Gemma2Config(**(gemma | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 8.0} | changes))
    if family == "gemma3":
        kinds = ["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(layers)]
        return Gemma3TextConfig(**(gemma | {"layer_types": kinds} | changes))
    raise ValueError(f"no family {family}")


def tiny_model(
    family: str,
    seed: int = 0,
    vocab: int = 512,
    *,
    hidden: int = 32,
    layers: int = 2,
    positions: int = 1024,
    sharpness: float = 1.0,
    kind: str = "byte",
    chat: bool = False,
    **config: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A random model of `family` in fp32, evaluation mode, and its tokenizer; a fresh pair at every call.

    Args:
        family: one of `FAMILIES`.
        sharpness: factor on the output embedding, so that sampled answers repeat; it unties the embeddings.
        kind: the tokenizer's kind, see `tiny_tokenizer`.
        config: changes to the family's config.
    """
    if sharpness != 1.0:
        config = {"tie_word_embeddings": False} | config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family, vocab, hidden, layers, positions, **config))
    model = model.float().eval()
    if sharpness != 1.0:
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(sharpness)
    return model, tiny_tokenizer(kind, vocab, chat=chat)
