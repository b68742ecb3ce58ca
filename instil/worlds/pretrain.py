"""Pre-training of a small base model from scratch: byte-level BPE, a Llama, one seed, one reproducible loop.

Serves any stream of texts, not only a generated world. Every text is one document: it starts with the begin token, ends
with the end token, and no token attends across documents, so what a prompt sees later is what training showed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.files import fingerprint, write_text
from instil.worlds.stream import (
    IGNORED,
    TokenStream,
    encode_stream,
    epoch_batches,
    load_tokenizer,
    read_texts,
    spool_texts,
    tensors,
    train_tokenizer,
)

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


class PretrainConfig(BaseModel):
    """How a base model is trained from nothing. Two runs with equal configs and texts end in equal weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(default=4096, ge=300, le=65_000, description="Entries of the byte-level BPE vocabulary.")
    tokenizer_characters: int = Field(
        default=12_000_000, ge=1000, description="Characters of text that the BPE is trained on."
    )
    hidden_size: int = Field(default=256, ge=8, description="Width of the model.")
    layers: int = Field(default=6, ge=1, description="Transformer blocks.")
    heads: int = Field(default=4, ge=1, description="Attention heads; must divide `hidden_size`.")
    intermediate_size: int = Field(default=704, ge=8, description="Width inside the feed-forward part.")
    max_positions: int = Field(default=1024, ge=16, description="Context window, in tokens.")
    attention_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout on attention weights while training."
    )
    row_length: int = Field(default=256, ge=8, description="Tokens in a packed row.")
    long_row_length: int = Field(
        default=1024, ge=8, description="Tokens in a row for documents that outgrow `row_length`."
    )
    batch_tokens: int = Field(default=4096, ge=8, description="Tokens in one optimiser step.")
    epochs: int = Field(default=1, ge=1, description="Passes over the texts.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate of AdamW.")
    final_learning_rate: float = Field(
        default=0.05, ge=0, le=1, description="Share of the peak left at the end of the cosine."
    )
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="Share of the steps that warm up, linearly.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay of the matrices.")
    beta_2: float = Field(default=0.98, gt=0, lt=1, description="Second-moment decay of AdamW.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradient norm is clipped here.")
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="Arithmetic of the matrices; masters stay fp32."
    )
    seed: int = Field(default=0, description="Seed of initial weights, order and dropout.")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; all, when empty.")
    save_every: int = Field(default=200, ge=1, description="Steps between checkpoints that a killed run resumes from.")
    log_every: int = Field(default=20, ge=1, description="Steps between log lines.")


@dataclass(frozen=True)
class Pretrained:
    """A finished pre-training: where the model is, and what it took."""

    folder: Path
    steps: int
    tokens: int
    seconds: float
    final_loss: float
    parameters: int


Log = Callable[[dict[str, Any]], None]


def pretrain(
    texts: Iterable[str] | Path,
    out: Path,
    config: PretrainConfig | None = None,
    *,
    log: Log | None = None,
    resume: bool = True,
    stop_after: int | None = None,
) -> Pretrained:
    """Train a tokenizer and a Llama on `texts` and write both to `out`, in Hugging Face format, weights in bf16.

    Args:
        texts: documents; or a file of them: `.jsonl` or `.jsonl.gz` with a `text` field, or one document a line.
        out: folder of the model. `out/work` holds the checkpoint and the token stream; it goes when the run ends.
        log: gets one dictionary every `log_every` steps (step, loss, learning_rate, tokens, tokens_per_second).
        resume: continue from the last checkpoint in `out/work`. A killed run then ends in the same weights.
        stop_after: leave after this many steps, checkpoint written, as if killed there (for tests and time limits).

    Raises:
        InputError: no texts, a corrupt text file, sizes that do not fit, or a checkpoint of other texts or settings.
    """
    import torch

    config = config or PretrainConfig()
    check_sizes(config)
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "stream.json").exists() or not resume:
        spool_texts(texts, work / "texts.jsonl")
        train_tokenizer(read_texts(work / "texts.jsonl"), config).save_pretrained(str(work / "tokenizer"))
        encode_stream(read_texts(work / "texts.jsonl"), load_tokenizer(work / "tokenizer"), work)
    tokenizer = load_tokenizer(work / "tokenizer")
    stream = TokenStream.load(work)
    state = work / "checkpoint.pt"
    if not resume:
        state.unlink(missing_ok=True)
    model = build_model(config, tokenizer)
    result = run_steps(model, stream, config, state, out, log or (lambda row: None), stop_after)
    if stop_after is None or result.steps < stop_after:
        save_model(model, tokenizer, out)
        write_text(out / "pretraining.json", json.dumps(describe(config, stream, result), indent=2) + "\n")
        for file in (state, work / "texts.jsonl", work / "tokens.bin", work / "offsets.npy", work / "stream.json"):
            file.unlink(missing_ok=True)
        remove_folder(work)
    return result


def check_sizes(config: PretrainConfig) -> None:
    """Refuse sizes that cannot work together."""
    if config.hidden_size % (2 * config.heads):
        raise InputError(
            "heads must divide hidden_size into even parts",
            field="heads",
            found=str(config.heads),
            expected=f"a divisor of {config.hidden_size // 2}",
        )
    if max(config.row_length, config.long_row_length) > config.max_positions:
        raise InputError(
            "rows are longer than the context window",
            field="long_row_length",
            found=str(max(config.row_length, config.long_row_length)),
            expected=f"at most {config.max_positions}",
        )


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with tied embeddings, fp32, initialised from the seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.max_positions,
            attention_dropout=config.attention_dropout,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="sdpa",
            use_cache=False,
        )
    )


def batch_loss(model: Any, batch: dict[str, torch.Tensor], precision: str, chunk: int = 1024) -> torch.Tensor:
    """Mean negative log-likelihood over the batch's target tokens, in nats.

    The vocabulary is scored `chunk` tokens at a time: small blocks are reused by the allocator, large ones are paged in
    anew at each step, which costs more than the arithmetic.
    """
    import torch

    labels_N = batch["labels_BT"].flatten()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        hidden_NC = model.model(
            input_ids=batch["ids_BT"],
            attention_mask=batch["mask_B1TT"],
            position_ids=batch["positions_BT"],
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)
        wanted_N = labels_N != IGNORED
        hidden_NC, labels_N = hidden_NC[wanted_N], labels_N[wanted_N]
        parts = [
            torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), labels, reduction="sum")
            for hidden, labels in zip(hidden_NC.split(chunk), labels_N.split(chunk), strict=True)
        ]
    return torch.stack(parts).sum() / len(labels_N)


def make_optimizer(model: LlamaForCausalLM, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW; norms and embeddings are not decayed."""
    import torch

    decayed = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    plain = [weight for name, weight in model.named_parameters() if not (weight.ndim == 2 and "embed" not in name)]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, config.beta_2),
        eps=1e-8,
        fused=True,
    )


def learning_rate(step: int, steps: int, config: PretrainConfig) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate` of the peak."""
    warmup = max(1, round(config.warmup_ratio * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def run_steps(
    model: LlamaForCausalLM,
    stream: TokenStream,
    config: PretrainConfig,
    checkpoint: Path,
    out: Path,
    log: Log,
    stop_after: int | None,
) -> Pretrained:
    """The training loop. Everything that a step does is a function of (seed, step), so that resuming is exact."""
    import torch

    plan = [batch for epoch in range(config.epochs) for batch in epoch_batches(stream, config, epoch)]
    optimizer = make_optimizer(model, config)
    identity = fingerprint([config.model_dump_json(exclude={"save_every", "log_every", "threads"}), stream.fingerprint])
    done, seconds, tokens, loss_value = 0, 0.0, 0, math.nan
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["identity"] != identity:
            raise InputError("the checkpoint belongs to other texts or settings", file=checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done, seconds, tokens = saved["step"], saved["seconds"], saved["tokens"]
    model.train()
    pad = int(model.config.pad_token_id or 0)
    started, first_tokens = time.monotonic(), tokens
    losses: list[float] = []

    def save(step: int) -> None:
        payload = {
            "identity": identity,
            "step": step,
            "tokens": tokens,
            "seconds": seconds + time.monotonic() - started,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(payload, checkpoint.with_suffix(".partial"))
        checkpoint.with_suffix(".partial").replace(checkpoint)

    step = done
    for step in range(done, len(plan)):
        if stop_after is not None and step >= stop_after:
            save(step)
            break
        torch.manual_seed(config.seed * 1_000_003 + step)
        rate = learning_rate(step, len(plan), config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = tensors(plan[step], stream, pad)
        loss = batch_loss(model, batch, config.precision)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss_value = float(loss.detach())
        if not math.isfinite(loss_value):
            raise FloatingPointError(f"the loss is {loss_value} at step {step}")
        losses.append(loss_value)
        tokens += sum(piece.length for row in plan[step].rows for piece in row)
        if (step + 1) % config.log_every == 0 or step + 1 == len(plan):
            spent = time.monotonic() - started
            row = {
                "step": step + 1,
                "steps": len(plan),
                "loss": round(sum(losses) / len(losses), 4),
                "learning_rate": rate,
                "tokens": tokens,
                "tokens_per_second": round((tokens - first_tokens) / spent),
                "seconds": round(seconds + spent, 1),
            }
            losses.clear()
            with (out / "pretraining.log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            log(row)
        if (step + 1) % config.save_every == 0:
            save(step + 1)
        step += 1
    return Pretrained(
        folder=out,
        steps=step,
        tokens=tokens,
        seconds=seconds + time.monotonic() - started,
        final_loss=loss_value,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Weights in bf16, config, generation config and tokenizer, as `from_pretrained` wants them."""
    import copy

    shipped = copy.deepcopy(model)
    shipped.bfloat16()
    shipped.config.use_cache = True
    shipped.generation_config.use_cache = True
    shipped.save_pretrained(str(out), safe_serialization=True)
    tokenizer.save_pretrained(str(out))


def remove_folder(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def describe(config: PretrainConfig, stream: TokenStream, result: Pretrained) -> dict[str, Any]:
    """What the run was: settings, size of the text, time. Written beside the weights."""
    return {
        "config": config.model_dump(),
        "documents": len(stream.offsets) - 1,
        "stream_tokens": len(stream.tokens),
        "stream_fingerprint": stream.fingerprint,
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "final_loss": result.final_loss,
        "parameters": result.parameters,
    }
