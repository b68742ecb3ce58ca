"""Pre-training of a small base model from scratch: byte-level BPE, a Llama, one seed, one reproducible loop.

Serves any stream of texts, not only a generated world. Every text is one document: it starts with the begin token, ends
with the end token, and no token attends across documents, so what a prompt sees later is what training showed.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.files import fingerprint, write_text

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
IGNORED = -100


class PretrainConfig(BaseModel):
    """How a base model is trained from nothing. Two runs with equal configs and texts end in equal weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(4096, ge=300, le=65_000, description="Entries of the byte-level BPE vocabulary.")
    tokenizer_characters: int = Field(12_000_000, ge=1000, description="Characters of text that the BPE is trained on.")
    hidden_size: int = Field(256, ge=8, description="Width of the model.")
    layers: int = Field(6, ge=1, description="Transformer blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; must divide `hidden_size`.")
    intermediate_size: int = Field(704, ge=8, description="Width inside the feed-forward part.")
    max_positions: int = Field(1024, ge=16, description="Context window, in tokens.")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on attention weights while training.")
    row_length: int = Field(256, ge=8, description="Tokens in a packed row.")
    long_row_length: int = Field(1024, ge=8, description="Tokens in a row for documents that outgrow `row_length`.")
    batch_tokens: int = Field(4096, ge=8, description="Tokens in one optimiser step.")
    epochs: int = Field(1, ge=1, description="Passes over the texts.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of AdamW.")
    final_learning_rate: float = Field(0.05, ge=0, le=1, description="Share of the peak left at the end of the cosine.")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of the steps that warm up, linearly.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay of the matrices.")
    beta_2: float = Field(0.98, gt=0, lt=1, description="Second-moment decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm is clipped here.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Arithmetic of the matrices; masters stay fp32.")
    seed: int = Field(0, description="Seed of initial weights, order and dropout.")
    threads: int | None = Field(None, ge=1, description="CPU threads; all, when empty.")
    save_every: int = Field(200, ge=1, description="Steps between checkpoints that a killed run resumes from.")
    log_every: int = Field(20, ge=1, description="Steps between log lines.")


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
            found=config.heads,
            expected=f"a divisor of {config.hidden_size // 2}",
        )
    if max(config.row_length, config.long_row_length) > config.max_positions:
        raise InputError(
            "rows are longer than the context window",
            field="long_row_length",
            found=max(config.row_length, config.long_row_length),
            expected=f"at most {config.max_positions}",
        )


def read_texts(path: Path) -> Iterator[str]:
    """The documents of a text file (see `pretrain`)."""
    if not path.exists():
        raise InputError("no such file", file=path)
    name = path.name.removesuffix(".gz")
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if not name.endswith(".jsonl"):
                yield line.rstrip("\n")
                continue
            try:
                yield json.loads(line)["text"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise InputError(
                    "not a text", file=path, line=number, found=line[:80], expected='{"text": …}'
                ) from error


def spool_texts(texts: Iterable[str] | Path, target: Path) -> None:
    """Write the texts to disk once, since they are read twice and may be a generator."""
    count = 0
    partial = target.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for text in read_texts(texts) if isinstance(texts, Path) else texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        partial.unlink()
        raise InputError("there is no text to train on", file=texts if isinstance(texts, Path) else None)
    partial.replace(target)


def train_tokenizer(texts: Iterable[str], config: PretrainConfig) -> PreTrainedTokenizerFast:
    """Byte-level BPE with begin, end and padding tokens. Any Unicode text survives encoding and decoding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(first_characters(texts, config.tokenizer_characters), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=config.max_positions,
        clean_up_tokenization_spaces=False,
    )


def first_characters(texts: Iterable[str], limit: int) -> Iterator[str]:
    for text in texts:
        yield text
        limit -= len(text)
        if limit <= 0:
            return


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def encode_stream(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, work: Path, chunk: int = 2000) -> None:
    """Write all documents as one array of token ids, begin and end token included, with their offsets."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    offsets = [0]
    hashes: list[str] = []
    with (work / "tokens.bin").open("wb") as file:
        for batch in batched(texts, chunk):
            documents = [
                [bos, *encoding.ids, eos]
                for encoding in tokenizer.backend_tokenizer.encode_batch(batch, add_special_tokens=False)
            ]
            for ids in documents:
                offsets.append(offsets[-1] + len(ids))
            flat = np.fromiter((token for ids in documents for token in ids), dtype=np.uint16)
            file.write(flat.tobytes())
            hashes.append(fingerprint([flat.tobytes().hex()]))
    np.save(work / "offsets.npy", np.asarray(offsets, dtype=np.int64))
    write_text(
        work / "stream.json",
        json.dumps({"documents": len(offsets) - 1, "tokens": offsets[-1], "fingerprint": fingerprint(hashes)}),
    )


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True)
class TokenStream:
    """Encoded documents: `tokens[offsets[i]:offsets[i + 1]]` is document i."""

    tokens: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    fingerprint: str

    @staticmethod
    def load(work: Path) -> TokenStream:
        about = json.loads((work / "stream.json").read_text())
        return TokenStream(
            np.memmap(work / "tokens.bin", dtype=np.uint16, mode="r"),
            np.load(work / "offsets.npy"),
            about["fingerprint"],
        )


@dataclass(frozen=True)
class Piece:
    """A stretch of a document that fits a row: `length` tokens from `start` in the stream."""

    start: int
    length: int


def split_documents(offsets: np.ndarray[Any, Any], row: int, long_row: int) -> tuple[list[Piece], list[Piece]]:
    """All documents as pieces for short rows and pieces for long rows; a document longer than a long row is split."""
    short: list[Piece] = []
    long: list[Piece] = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        if end - start <= row:
            short.append(Piece(start, end - start))
            continue
        for cut in range(start, end, long_row):
            piece = Piece(cut, min(long_row, end - cut))
            (short if piece.length <= row else long).append(piece)
    return short, long


def pack(pieces: list[Piece], length: int, open_rows: int = 24) -> list[list[Piece]]:
    """Fill rows of `length` tokens, first fit among a few open rows. Pieces stay whole."""
    closed: list[list[Piece]] = []
    rows: list[list[Piece]] = []
    room: list[int] = []
    for piece in pieces:
        for index, left in enumerate(room):
            if piece.length <= left:
                rows[index].append(piece)
                room[index] -= piece.length
                break
        else:
            if len(rows) == open_rows:
                fullest = room.index(min(room))
                closed.append(rows.pop(fullest))
                room.pop(fullest)
            rows.append([piece])
            room.append(length - piece.length)
    return closed + rows


@dataclass(frozen=True)
class PackedBatch:
    """One optimiser step: rows of one length."""

    rows: list[list[Piece]]
    length: int


def epoch_batches(stream: TokenStream, config: PretrainConfig, epoch: int) -> list[PackedBatch]:
    """The steps of one pass, in order: shuffled documents, packed, batched, shuffled batches."""
    order = np.random.default_rng((config.seed, epoch))
    batches: list[PackedBatch] = []
    lengths = (config.row_length, config.long_row_length)
    for length, pieces in zip(lengths, split_documents(stream.offsets, *lengths), strict=True):
        shuffled = [pieces[index] for index in order.permutation(len(pieces))]
        rows = pack(shuffled, length)
        rows = [rows[index] for index in order.permutation(len(rows))]
        size = max(1, config.batch_tokens // length)
        batches += [PackedBatch(rows[first : first + size], length) for first in range(0, len(rows), size)]
    return [batches[index] for index in order.permutation(len(batches))]


def tensors(batch: PackedBatch, stream: TokenStream, pad: int) -> dict[str, torch.Tensor]:
    """Ids, labels, positions (restarting at each document) and the mask that keeps documents apart.

    Returns:
        `ids_BT`, `labels_BT` (already shifted: the label at t is the token at t + 1), `positions_BT`,
        `mask_B1TT` (True where attention is allowed).
    """
    import torch

    shape = (len(batch.rows), batch.length)
    ids = np.full(shape, pad, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    segments = np.zeros(shape, dtype=np.int64)
    for row, pieces in enumerate(batch.rows):
        at = 0
        for number, piece in enumerate(pieces, start=1):
            tokens = stream.tokens[piece.start : piece.start + piece.length]
            ids[row, at : at + piece.length] = tokens
            labels[row, at : at + piece.length - 1] = tokens[1:]
            positions[row, at : at + piece.length] = np.arange(piece.length)
            segments[row, at : at + piece.length] = number
            at += piece.length
    segments_BT = torch.from_numpy(segments)
    causal_TT = torch.ones(batch.length, batch.length, dtype=torch.bool).tril()
    return {
        "ids_BT": torch.from_numpy(ids),
        "labels_BT": torch.from_numpy(labels),
        "positions_BT": torch.from_numpy(positions),
        "mask_B1TT": ((segments_BT[:, :, None] == segments_BT[:, None, :]) & causal_TT)[:, None],
    }


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with tied embeddings, fp32, initialised from the seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
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

    import torch

    shipped = copy.deepcopy(model).to(torch.bfloat16)
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
