"""A model with its tokenizer, its prompts and its identity."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from instil.files import fingerprint
from instil.model.prompts import Prompts, PromptStyle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a save or a machine changes without changing the model.
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_attn_implementation")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model as the rooms above see it.

    Attributes:
        model: any `AutoModelForCausalLM`.
        tokenizer: its tokenizer; it has an end token.
        name: what reports call it.
        source: where it came from: a folder, a hub id, or "memory".
        style: how it is asked.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str = "memory"
    style: PromptStyle = PromptStyle.BASE

    @staticmethod
    def of(
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "model",
        source: str = "memory",
        style: PromptStyle | str = "auto",
    ) -> LanguageModel:
        """Wrap a model that is already in memory. `style` "auto" asks in chat form where there is a chat template."""
        return LanguageModel(model, tokenizer, name, source, PromptStyle.choose(style, tokenizer))

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.tokenizer, self.style, _end_ids(self.model))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.model.parameters() if parameter.is_floating_point())

    def at(self, dtype: torch.dtype) -> LanguageModel:
        """A copy at another precision, as saving and loading it would give.

        `model.to(dtype)` also rounds what is computed from the config and never saved, such as the frequencies of
        rotary embeddings, and then answers differently from its own checkpoint.
        """
        model: Any = copy.deepcopy(self.model)
        unsaved = {
            name: buffer for name, buffer in model.named_buffers() if name not in model.state_dict(keep_vars=True)
        }
        kept = {name: buffer.clone() for name, buffer in unsaved.items()}
        model.to(dtype)
        for name, buffer in kept.items():
            home, _, own = name.rpartition(".")
            setattr(model.get_submodule(home), own, buffer)
        return replace(self, model=model.eval())

    @property
    def context_window(self) -> int:
        """The most tokens that one row may hold."""
        config = self.model.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            window = getattr(config, name, None)
            if isinstance(window, int) and window > 0:
                return window
        return int(min(self.tokenizer.model_max_length, 1 << 30))

    @property
    def parameters(self) -> int:
        """The number of weights; tied ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of weights as held, config and tokenizer; anew each time: weights get trained."""
        return fingerprint(_identity(self.model, self.tokenizer, self.style))

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "architecture": type(self.model).__name__,
            "parameters": self.parameters,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "style": self.style.value,
            "context_window": self.context_window,
        }


def _end_ids(model: PreTrainedModel) -> frozenset[int]:
    """Every end token that the model's configurations name; some list several."""
    generation = getattr(model, "generation_config", None)
    named = [getattr(source, "eos_token_id", None) for source in (generation, model.config)]
    return frozenset(
        int(token) for ids in named if ids is not None for token in (ids if isinstance(ids, list | tuple) else [ids])
    )


def _identity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, style: PromptStyle) -> Iterator[bytes | str]:
    import torch

    config = {key: value for key, value in model.config.to_dict().items() if key not in _VOLATILE}
    config["architectures"] = config.get("architectures") or [type(model).__name__]  # as a save writes it
    yield json.dumps(config, sort_keys=True, default=str)
    yield tokenizer_identity(tokenizer)
    yield str(style)
    for name, tensor in sorted(model.state_dict().items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that decides how a text becomes ids: vocabulary, merges, added tokens, template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    body = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return json.dumps([body, special, tokenizer.chat_template], sort_keys=True)
