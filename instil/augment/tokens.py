"""Controls that work on token ids, and copies up to a number of tokens.

*D-AR*, denoising auto-regressive training (Saito et al. 2024, arXiv 2402.12170): some of the tokens that the model
reads are replaced by random ones, and it is to predict the true ones all the same. So what these functions give is an
example's `input_ids`; its labels stay those of the text itself. With other labels the model would be taught the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from random import Random

from instil.augment.copies import copy_of, recipes
from instil.errors import InputError
from instil.facts import Document
from instil.files import fingerprint


def token_noise(
    ids: Sequence[int], rate: float, vocabulary: Sequence[int], *, key: str, seed: int, keep: Collection[int] = ()
) -> tuple[int, ...]:
    """Each token, with probability `rate`, replaced by one drawn from `vocabulary`. Not content-preserving.

    Args:
        ids: what the model would read.
        rate: share of the tokens that are replaced, 0 to 1; a draw may hit the token itself.
        vocabulary: ids to draw from; no special tokens (see `ordinary_ids`).
        key: of the document, and of the copy or the epoch: with the seed it decides about the noise.
        keep: ids that are never replaced: begin and end tokens.

    Returns:
        As many ids as were given.

    Raises:
        ValueError: the rate is not between 0 and 1, or the vocabulary is empty.
    """
    if not vocabulary:
        raise ValueError("there is no token to draw from")
    return _replaced(ids, rate, lambda draw: draw.choice(vocabulary), ("noise", key), seed, keep)


def token_dropout(
    ids: Sequence[int], rate: float, blank: int, *, key: str, seed: int, keep: Collection[int] = ()
) -> tuple[int, ...]:
    """Each token, with probability `rate`, hidden behind the one token `blank`. Not content-preserving.

    Hidden and not taken away, so that places and labels stay where they are. The other arguments, the result and the
    errors are those of `token_noise`.
    """
    return _replaced(ids, rate, lambda draw: blank, ("dropout", key), seed, keep)


def _replaced(
    ids: Sequence[int],
    rate: float,
    other: Callable[[Random], int],
    key: tuple[str, str],
    seed: int,
    keep: Collection[int],
) -> tuple[int, ...]:
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate of {rate} is not between 0 and 1")
    draw = Random(fingerprint([*key, str(seed)]))
    # Both are drawn for each token, so that a higher rate replaces the same tokens and more.
    drawn = [(draw.random(), other(draw)) for _ in ids]
    return tuple(
        new if chance < rate and token not in keep else token for token, (chance, new) in zip(ids, drawn, strict=True)
    )


def ordinary_ids(size: int, special: Collection[int]) -> list[int]:
    """The ids of a vocabulary of `size` tokens that are not special: what `token_noise` draws from."""
    barred = set(special)
    return [token for token in range(size) if token not in barred]


def copies_of_equal_size(
    documents: Sequence[Document],
    formats: Sequence[str],
    tokens: int,
    count: Callable[[str], int],
    seed: int = 0,
) -> Iterator[Document]:
    """Copies of documents until they have as many tokens as another arm: with `["repetition"]`, plain repetition.

    Rounds over all documents, each in an order of its own; in a round every document gets one copy. The last copy is
    the one that reaches the number, so the sum is less than one copy above it.

    Args:
        formats: as in `formatted_copies`; copy n of a document gets the n-th of them, and so on in turn.
        tokens: the number to reach.
        count: tokens of a text.

    Raises:
        InputError: a format is unknown, or the documents have no tokens.
        RunFailed: a format changed a word.
    """
    pool, reached, turn = recipes(formats), 0, 0
    while reached < tokens:
        before, turn = reached, turn + 1
        order = Random(fingerprint(["round", str(seed), str(turn)])).sample(range(len(documents)), len(documents))
        for index in order:
            made = copy_of(documents[index], pool[(turn - 1) % len(pool)], copy=turn, seed=seed).document
            reached += count(made.text)
            yield made
            if reached >= tokens:
                return
        if reached == before:
            raise InputError(
                "the documents have no tokens, so no number of copies has enough", found=f"{reached} tokens"
            )
