"""The probability of a fact's own tokens behind a text: the fact as it is told, in any wording that leads to it.

Knowledge learning as Zhu et al. describe it (2025, arXiv 2503.03705): what stands before a fact's tokens is the input,
the fact's tokens are the label, and other texts that lead to the same tokens are samples of one class. No question is
asked and nothing is generated. What is scored here is each such text by itself; which texts there are for a fact, and
what follows from the scores, is the business of `instil.exam.contexts`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from instil.errors import InputError
from instil.files import fingerprint
from instil.model.modes import evaluating

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.model.prompts import Prompts

Ids = tuple[int, ...]

BATCH_TOKENS: Final = 4096
BLOCK: Final = 256
"""Texts that are tokenised at once."""

STRADDLES: Final = "a token of the tokenizer holds a part of the fact and a part of what stands around it"
NOTHING_BEFORE: Final = "no token stands before the fact"
NO_ROOM: Final = "the fact's tokens alone fill the context window"


@dataclass(frozen=True, slots=True)
class Context:
    """A text that leads to a fact.

    Attributes:
        id: unique among the contexts that are scored together.
        item: id of the fact, or of the place in a document.
        document: what intervals keep together: the id of the document that tells it, of its original for copies.
        kind: "as written", "paraphrase", the name of a format, … (see `instil.exam.contexts`).
        before: the text up to the fact, the white space before the fact with it.
        fact: what is to be predicted, without white space around it.
        after: how the text goes on; nothing of it is scored, but the tokens of the fact can depend on its beginning.

    Raises:
        ValueError: the fact is empty, or white space stands around it.
    """

    id: str
    item: str
    document: str
    kind: str
    before: str
    fact: str
    after: str = ""

    def __post_init__(self) -> None:
        if not self.fact or self.fact != self.fact.strip():
            raise ValueError(f"{self.id}: {self.fact!r} is not a fact's text")


@dataclass(frozen=True, slots=True)
class ContextScore:
    """What a model gives for a fact's tokens behind one context.

    Attributes:
        context: what was scored.
        tokens: of the fact.
        cut: tokens taken off the beginning of the context, since it was longer than the window.
        log_probability: of all of the fact's tokens, one after the other, in nats. What comes behind them does not
            matter: "Paris" includes "Paris Hilton".
        greedy_right: whether greedy decoding writes them.
    """

    context: Context
    tokens: int
    cut: int
    log_probability: float
    greedy_right: bool

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)

    @property
    def per_token(self) -> float:
        """The geometric mean of the tokens' probabilities: comparable between facts of different lengths."""
        return math.exp(self.log_probability / self.tokens)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a context's fact stands among the rows of tokens: in `row`, from `start` up to `end`."""

    row: int
    start: int
    end: int
    cut: int


@dataclass(frozen=True)
class Prepared:
    """Contexts as token ids, for any number of models with one tokenizer.

    A context whose tokens begin another one's is computed with it, so all facts of a text take one pass over the text.

    Attributes:
        contexts: those that can be scored, in the order given.
        places: of each of them.
        rows: token ids, each up to its last fact's last token; by length and then by content, whatever the order given.
        left_out: (id of a context, reason).
        tokenizer: fingerprint of how texts become ids.
        room: the most tokens of a row.
    """

    contexts: tuple[Context, ...]
    places: tuple[Place, ...]
    rows: tuple[Ids, ...]
    left_out: tuple[tuple[str, str], ...]
    tokenizer: str
    room: int

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def tokens(self) -> int:
        """Tokens to be computed."""
        return sum(map(len, self.rows))

    @property
    def shortened(self) -> int:
        """Contexts that lost tokens at their beginning."""
        return sum(place.cut > 0 for place in self.places)


Progress = Callable[[int, int], None]


def prepare_contexts(lm: LanguageModel, contexts: Iterable[Context], most_tokens: int | None = None) -> Prepared:
    """Tokenise contexts, each as one continuous text.

    The fact's tokens are those that the tokenizer writes for it within the text. Where a token holds more than the
    fact and white space before it, the context is left out: its probability would be that of something else.

    Args:
        most_tokens: the most tokens of a row, the fact with them; the model's window when it is less, or by default. A
            longer context loses tokens at its beginning, which `Place.cut` counts.

    Raises:
        InputError: two contexts have one id.
        ValueError: `most_tokens` is less than 2.
    """
    room = lm.context_window if most_tokens is None else min(most_tokens, lm.context_window)
    if room < 2:
        raise ValueError(f"rows of at most {room} tokens")
    begin = lm.prompts.text_ids("")[:-1]
    kept: list[Context] = []
    found: list[tuple[Ids, int, int]] = []
    left_out: list[tuple[str, str]] = []
    for context, spelled in _spelled(lm.prompts, contexts):
        laid = STRADDLES if spelled is None else _laid_out(begin, *spelled, room)
        if isinstance(laid, str):
            left_out.append((context.id, laid))
        else:
            kept.append(context)
            found.append(laid)
    _refuse_repeated(context.id for context in kept)
    rows, homes = _together({ids for ids, _, _ in found})
    places = [Place(homes[ids], start, len(ids), cut) for ids, start, cut in found]
    return Prepared(tuple(kept), tuple(places), rows, tuple(left_out), _tokenizer(lm), room)


def score_contexts(
    lm: LanguageModel,
    contexts: Prepared | Iterable[Context],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = lambda done, total: None,
) -> list[ContextScore]:
    """The exact probability of each fact's tokens behind its context, in the order of `Prepared.contexts`.

    The same contexts give the same bits in whatever order they are given; another `batch_tokens` rounds otherwise.

    Args:
        contexts: what `prepare_contexts` made of contexts, or contexts of which none has to be left out.
        batch_tokens: tokens computed at once, filler included; changes speed, memory and rounding only.
        progress: called with the rows computed and their number.

    Raises:
        InputError: the contexts were prepared with another tokenizer, or for a longer window; or they were not
            prepared, and one cannot be scored or two have one id.
    """
    prepared = contexts if isinstance(contexts, Prepared) else _all_prepared(lm, contexts)
    if prepared.tokenizer != _tokenizer(lm):
        raise InputError("the contexts were prepared with another tokenizer", field="contexts", found=lm.name)
    if prepared.room > lm.context_window:
        raise InputError(
            "the contexts were prepared for a longer window",
            field="contexts",
            found=f"{prepared.room} tokens",
            expected=f"at most {lm.context_window}",
        )
    wanted: dict[int, list[int]] = defaultdict(list)
    for number, place in enumerate(prepared.places):
        wanted[place.row].append(number)
    scores: dict[int, ContextScore] = {}
    done = 0
    for batch in _batches(lm, prepared, wanted, batch_tokens):
        for number, log_probability, right in _computed(lm, prepared, wanted, batch):
            place = prepared.places[number]
            scores[number] = ContextScore(
                prepared.contexts[number], place.end - place.start, place.cut, log_probability, right
            )
        done += len(batch)
        progress(done, len(prepared.rows))
    return [scores[number] for number in range(len(prepared))]


def score_context(lm: LanguageModel, context: Context) -> ContextScore:
    """The naive twin of `score_contexts`: one context, one pass, all logits; tokens found by comparing beginnings.

    Raises:
        InputError: the context cannot be scored.
    """
    import torch

    spelled = spelled_by_beginnings(lm.prompts, context)
    laid = STRADDLES if spelled is None else _laid_out(lm.prompts.text_ids("")[:-1], *spelled, lm.context_window)
    if isinstance(laid, str):
        raise InputError(laid, field="context", found=context.id)
    ids, start, cut = laid
    model: Any = lm.model
    with evaluating(model), torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([ids], device=lm.device), use_cache=False).logits[0].float()
    log_probability, right = 0.0, True
    for place in range(start, len(ids)):
        before_V = torch.log_softmax(logits_TV[place - 1], dim=-1)
        log_probability += float(before_V[ids[place]])
        right &= int(logits_TV[place - 1].argmax()) == ids[place]
    return ContextScore(context, len(ids) - start, cut, log_probability, right)


def spelled_by_beginnings(prompts: Prompts, context: Context) -> tuple[Ids, int, int] | None:
    """Ids of a context's text and the (first, after the last) of its fact's tokens; None where they cannot be told.

    The tokens before the fact are those of `before` tokenised by itself (with as much of the white space at its end as
    can be), if the whole text begins with the same ones; the same for where the fact ends.
    """

    def ids_of(text: str) -> Ids:
        return tuple(prompts.text_ids(text)[len(prompts.text_ids("")) - 1 : -1])

    whole = ids_of(context.before + context.fact + context.after)
    upto = ids_of(context.before + context.fact)
    least = len(context.before.rstrip())
    starts = (ids_of(context.before[:length]) for length in range(len(context.before), least - 1, -1))
    start = next((len(ids) for ids in starts if whole[: len(ids)] == ids), None)
    return None if start is None or whole[: len(upto)] != upto or len(upto) <= start else (whole, start, len(upto))


# -------------------------------------------------------------------- private


def _all_prepared(lm: LanguageModel, contexts: Iterable[Context]) -> Prepared:
    prepared = prepare_contexts(lm, contexts)
    for name, reason in prepared.left_out:
        raise InputError(f"a context cannot be scored: {reason}", field="contexts", found=name)
    return prepared


def _spelled(prompts: Prompts, contexts: Iterable[Context]) -> Iterator[tuple[Context, tuple[Ids, int, int] | None]]:
    """Each context with its ids and where its fact's are, or None where a token straddles."""
    rest = iter(contexts)
    while block := list(islice(rest, BLOCK)):
        found = prompts.text_offsets([one.before + one.fact + one.after for one in block])
        for context, (ids, offsets) in zip(block, found, strict=True):
            if offsets is None:
                yield context, spelled_by_beginnings(prompts, context)
            else:
                places = _fact_tokens(context, offsets)
                yield context, None if places is None else (ids, *places)


def _fact_tokens(context: Context, offsets: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """(first, after the last) of the tokens that stand for characters of the fact and nothing else but white space."""
    begin = len(context.before)
    end = begin + len(context.fact)
    inside = [place for place, (first, last) in enumerate(offsets) if first < end and last > begin]
    if not inside:
        return None
    first, last = offsets[inside[0]][0], offsets[inside[-1]][1]
    whole = inside == list(range(inside[0], inside[-1] + 1))
    return (inside[0], inside[-1] + 1) if whole and not context.before[first:].strip() and last <= end else None


def _laid_out(begin: Ids, ids: Ids, start: int, end: int, room: int) -> tuple[Ids, int, int] | str:
    """The row up to the fact's last token, where the fact begins in it, and how many tokens were cut; or why not."""
    fact = end - start
    if len(begin) + start < 1:
        return NOTHING_BEFORE
    if len(begin) + fact >= room:
        return NO_ROOM
    cut = max(0, len(begin) + end - room)
    return (*begin, *ids[cut:end]), len(begin) + start - cut, cut


def _refuse_repeated(ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise InputError("two contexts have one id", field="contexts", found=one)
        seen.add(one)


def _together(sequences: Iterable[Ids]) -> tuple[tuple[Ids, ...], dict[Ids, int]]:
    """The sequences that begin no other one, by length and content, and for every sequence which of them it begins."""
    rows: list[Ids] = []
    holder: dict[Ids, Ids] = {}
    # What a sequence begins stands right behind it in this order, so going backwards the last row is one of them.
    for ids in sorted(sequences, reverse=True):
        if not rows or rows[-1][: len(ids)] != ids:
            rows.append(ids)
        holder[ids] = rows[-1]
    ordered = tuple(sorted(rows, key=lambda ids: (len(ids), ids)))
    number = {ids: place for place, ids in enumerate(ordered)}
    return ordered, {ids: number[row] for ids, row in holder.items()}


def _tokenizer(lm: LanguageModel) -> str:
    from instil.model.language import tokenizer_identity

    return fingerprint([tokenizer_identity(lm.tokenizer), str(lm.prompts.style)])


def _predicting(prepared: Prepared, numbers: Iterable[int]) -> set[int]:
    """Positions whose logits say how likely the facts' tokens are."""
    return {
        position - 1
        for number in numbers
        for position in range(prepared.places[number].start, prepared.places[number].end)
    }


def _batches(
    lm: LanguageModel, prepared: Prepared, wanted: dict[int, list[int]], batch_tokens: int
) -> Iterator[list[int]]:
    """Rows in their order, cut where padded tokens or logits would be too many. The logits of a batch are taken at the
    same positions in all its rows: where any of them has a fact."""
    from instil.probe.memory import LOGITS

    most = max(1, LOGITS // int(lm.model.config.get_text_config().vocab_size))
    batch: list[int] = []
    positions: set[int] = set()
    for row in range(len(prepared.rows)):
        own = _predicting(prepared, wanted[row])
        size = len(batch) + 1
        if batch and (size * len(prepared.rows[row]) > batch_tokens or size * len(positions | own) > most):
            yield batch
            batch, positions = [], set()
        batch.append(row)
        positions |= own
    if batch:
        yield batch


def _computed(
    lm: LanguageModel, prepared: Prepared, wanted: dict[int, list[int]], batch: list[int]
) -> list[tuple[int, float, bool]]:
    """(number of the context, log-probability, greedy right) of all contexts in a batch of rows; in two halves where
    memory does not suffice."""
    from instil.probe.memory import is_out_of_memory, release

    try:
        return _forward(lm, prepared, wanted, batch)
    except Exception as fault:
        if len(batch) == 1 or not is_out_of_memory(fault):
            raise
    release()
    half = len(batch) // 2
    return [found for part in (batch[:half], batch[half:]) for found in _computed(lm, prepared, wanted, part)]


def _forward(
    lm: LanguageModel, prepared: Prepared, wanted: dict[int, list[int]], batch: list[int]
) -> list[tuple[int, float, bool]]:
    import torch

    longest = len(prepared.rows[batch[-1]]) - 1  # Behind the last token nothing is asked.
    positions = sorted(_predicting(prepared, (number for row in batch for number in wanted[row])))
    columns = {position: column for column, position in enumerate(positions)}
    ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    for place, row in enumerate(batch):
        read = prepared.rows[row][:-1]
        ids_BT[place, : len(read)] = torch.tensor(read)
        mask_BT[place, : len(read)] = 1
    model: Any = lm.model
    with evaluating(model), torch.no_grad():
        logits_BUV = model(
            input_ids=ids_BT.to(lm.device),
            attention_mask=mask_BT.to(lm.device),
            logits_to_keep=torch.tensor(positions, device=lm.device),
            use_cache=False,
        ).logits
    found = []
    for place, row in enumerate(batch):
        for number in wanted[row]:
            where = prepared.places[number]
            at = [columns[position - 1] for position in range(where.start, where.end)]
            tokens_S = torch.tensor(prepared.rows[row][where.start : where.end], device=logits_BUV.device)
            logits_SV = logits_BUV[place, at].float()
            likely_S = torch.log_softmax(logits_SV, dim=-1).gather(1, tokens_S[:, None])[:, 0]
            right = bool((logits_SV.argmax(dim=-1) == tokens_S).all())
            found.append((number, math.fsum(likely_S.tolist()), right))
    return found
