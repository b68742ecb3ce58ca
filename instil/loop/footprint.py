"""How many bytes a model takes while it is trained and probed, from its shapes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.facts import Role

if TYPE_CHECKING:
    from instil.loop.inputs import Inputs
    from instil.model import LanguageModel
    from instil.training import Example


@dataclass(frozen=True)
class Training:
    """What is trained, and on what.

    Attributes:
        weights: parameters of the model.
        trained: those that the optimiser has, adapters included.
        saved_bytes: of the weights as they are saved.
        tokenizer_bytes: of the tokenizer's file.
        lengths: tokens of each example of a stage, the one with the most.
        tokens: what is read in all stages and epochs.
        stages: how many there are.
        activation_bytes: what the forward pass of the largest micro-batch keeps for the backward pass.
        recomputes: whether activations are computed again instead.
        passes: operations as a multiple of plain steps', for sharpness-aware ones.
        sharpness_bytes: what sharpness-aware steps keep beside weights, gradients and optimiser.
        config: the training configuration, if the method has one.
    """

    weights: int
    trained: int
    saved_bytes: int
    tokenizer_bytes: int
    lengths: Sequence[int]
    activation_bytes: int
    recomputes: bool
    passes: float
    sharpness_bytes: int
    config: Any
    tokens: int
    stages: int


def training_of(inputs: Inputs) -> Training:
    """What a call would train."""
    lm, config = inputs.model, getattr(inputs.settings, "train", None)
    weights = sum(weight.numel() for weight in lm.model.parameters())
    stages = _planned(inputs)
    if stages:
        tokens = [sum(map(len, examples)) * epochs for examples, epochs in stages]
        most = max((examples for examples, _ in stages), key=lambda examples: sum(map(len, examples)))
        lengths = [len(example) for example in most]
        learned = sum(example.targets for example in most) / sum(lengths)
    else:
        lengths, learned = _examples(inputs)
        tokens = [sum(lengths) * getattr(config, "epochs", 1)] * stages_of(inputs)
    backend = getattr(lm.tokenizer, "backend_tokenizer", None)
    trained, sharpness = _trained(lm.model, config), getattr(config, "sharpness", None)
    return Training(
        weights=weights,
        trained=trained,
        saved_bytes=sum(weight.numel() * weight.element_size() for weight in lm.model.parameters()),
        tokenizer_bytes=len(backend.to_str(pretty=True).encode()) if backend is not None else 0,
        lengths=lengths,
        activation_bytes=_activation_bytes(lm, config, lengths, learned),
        recomputes=bool(getattr(config, "gradient_checkpointing", False)),
        passes=sharpness.cost_multiple if sharpness is not None else 1.0,
        sharpness_bytes=_sharpness_bytes(lm, config, trained, lengths, learned) if sharpness is not None else 0,
        config=config,
        tokens=sum(tokens),
        stages=len(tokens),
    )


def stages_of(inputs: Inputs) -> int:
    """How many stages a method has at most."""
    if inputs.method.plan is not None:
        return len(inputs.method.plan(inputs.lesson_roles, inputs.settings))
    return 2 if inputs.method.name == "gradual" else 1


def _planned(inputs: Inputs) -> list[tuple[list[Example], int]]:
    """The examples of each stage with their epochs, of a method that knows its stages beforehand."""
    if inputs.method.plan is None:
        return []
    lm = inputs.model
    stages = inputs.method.plan(inputs.lesson_roles, inputs.settings)
    return [(stage.examples(lm.prompts, lm.context_window), stage.training.epochs) for stage in stages]


def in_use(lm: LanguageModel) -> int:
    """Bytes in use where the model is: of the accelerator, or of this process."""
    import torch

    if lm.device.type == "cuda":
        return int(torch.cuda.memory_allocated(lm.device))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # not Linux
        return sum(weight.numel() * weight.element_size() for weight in lm.model.parameters())


def exam_bytes(inputs: Inputs) -> int:
    """What a probe holds: of one batch a layer's activations, keys and values of all layers, and logits; and the keys
    and values of prefixes."""
    from instil.probe.shared_runner import PREFIX_BYTES

    shape, size = _Shape.of(inputs.model), inputs.model.dtype.itemsize
    tokens = inputs.probe.batch_tokens
    kept = size * 2 * shape.layers * shape.keys
    held = tokens * (size * shape.wide + kept)
    prefixes = min(PREFIX_BYTES, _prefix_tokens(inputs) * kept)
    return held + prefixes + tokens // 4 * shape.vocabulary * 8  # about a quarter is scored, as fp32, twice


def _prefix_tokens(inputs: Inputs) -> int:
    """Of the exemplars of every set and relation, on average exemplars."""
    prompts, exemplars = inputs.model.prompts, inputs.roles[Role.EXEMPLAR]
    each = [len(prompts.question_ids(fact.question)) + len(prompts.answer_ids(fact.answers[0])) for fact in exemplars]
    sets = inputs.probe.exemplar_sets * inputs.probe.shots * len(inputs.roles[Role.TARGET].by_relation)
    return round(sets * sum(each) / max(1, len(each)))


@dataclass(frozen=True)
class _Shape:
    """Numbers held a token: `wide` inside one layer, `keys` for the keys of one layer."""

    layers: int
    hidden: int
    wide: int
    keys: int
    heads: int
    vocabulary: int

    @staticmethod
    def of(lm: LanguageModel) -> _Shape:
        config = lm.model.config.get_text_config()
        hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
        inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
        head = int(getattr(config, "head_dim", None) or hidden // heads)
        keys = int(getattr(config, "num_key_value_heads", None) or heads) * head
        # Two norms with their inputs and two residuals, queries, keys, values, attention's result; a gated inner layer.
        wide = 6 * hidden + 2 * heads * head + 2 * keys + 4 * inner
        layers = int(config.num_hidden_layers)
        return _Shape(layers, hidden, wide, keys, heads, int(config.vocab_size))


def _examples(inputs: Inputs) -> tuple[list[int], float]:
    """Tokens of each target question, and the share of them that has a loss."""
    prompts, target = inputs.model.prompts, inputs.lesson_roles.target
    answers = [len(prompts.answer_ids(fact.answers[0])) + 1 for fact in target]
    questions = [len(prompts.question_ids(fact.question)) for fact in target]
    lengths = [question + answer for question, answer in zip(questions, answers, strict=True)]
    return lengths or [1], sum(answers) / max(1, sum(lengths))


def _trained(model: Any, config: Any) -> int:
    from torch import nn

    from instil.training.trainable import patterns_of

    if (adapter := getattr(config, "adapter", None)) is not None:
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
        rank = int(getattr(adapter, "r", 16))
        return sum(rank * (m.in_features + m.out_features) for m in linear)
    patterns = patterns_of(model, config)
    return sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
    )


def _sharpness_bytes(lm: LanguageModel, config: Any, trained: int, lengths: Sequence[int], learned: float) -> int:
    """What sharpness-aware steps keep; for functional also the derivatives by the logits of a whole window."""
    from instil.training.precision import autocast_dtype

    copies = int(config.sharpness.extra_bytes(trained))
    if config.sharpness.kind != "functional":
        return copies
    number = 2 if autocast_dtype(config.precision, lm.device) is not None else 4
    return copies + round(_window_tokens(config, lengths) * learned * _Shape.of(lm).vocabulary * number)


def _window_tokens(config: Any, lengths: Sequence[int]) -> float:
    """Tokens of an optimiser step, about."""
    window = config.batch_tokens or (config.batch_size or 32) * sum(lengths) / len(lengths)
    return min(float(window), float(sum(lengths)))


def _activation_bytes(lm: LanguageModel, config: Any, lengths: Sequence[int], learned: float) -> int:
    from instil.training import TrainConfig
    from instil.training.precision import autocast_dtype

    config = config if config is not None else TrainConfig()
    shape = _Shape.of(lm)
    tokens = min(float(config.micro_tokens), _window_tokens(config, lengths))
    half = autocast_dtype(config.precision, lm.device) is not None
    number = 3 if half else 4  # of those held, about half are in half precision
    layers = 1 if config.gradient_checkpointing else shape.layers
    held = tokens * number * (layers * shape.wide + shape.layers * shape.hidden)
    logits = tokens * learned * shape.vocabulary * 2 * (2 if half else 4)  # and their gradient
    casts = 2 * sum(weight.numel() for weight in lm.model.parameters()) if half else 0
    return round(held + logits + casts)
