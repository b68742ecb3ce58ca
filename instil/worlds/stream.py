"""From texts to packed rows of token ids: the tokenizer, the token stream on disk, and the plan of a pass."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instil.errors import InputError
from instil.files import fingerprint, write_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from instil.worlds.pretrain import PretrainConfig

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
IGNORED = -100


def read_texts(path: Path) -> Iterator[str]:
    """The documents of a text file (see `pretrain`)."""
    if not path.exists():
        raise InputError("no such file", file=path)
    name = path.name.removesuffix(".gz")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
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
