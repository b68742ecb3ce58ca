"""Questions that a model asks itself and texts that it writes from nothing: what it knows, when no old data exists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.model.continuing import continued
from instil.model.prompts import PromptStyle
from instil.words import spaced

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.model.prompts import Prompts

BATCH = 64
"""Texts that are sampled together."""

TRIES = 6
"""How many texts are sampled at most for each question that is wanted."""


@dataclass(frozen=True)
class Recalled:
    """A question as the model asked it, and its own answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Recited:
    """A text that a model wrote, and whether it came to its end."""

    text: str
    ended: bool


def recall(
    lm: LanguageModel,
    count: int,
    *,
    behind: Callable[[int], Sequence[tuple[str, str]]] = lambda number: (),
    allowed: Callable[[str], bool] = lambda text: True,
    temperature: float = 1.0,
    max_tokens: int = 128,
    seed: int = 0,
) -> list[Recalled]:
    """Let a model write questions with their answers, by sampling what follows the opening of a question. A base model
    goes on to further questions, which are read as well; a chat model is asked what it would ask, in a turn of its own.

    Replay of what a model generates itself goes back to Sun et al. 2020 (LAMOL, 1909.03329); that an opened turn of the
    user makes a chat model ask is from Xu et al. 2024 (Magpie, 2406.08464).

    Args:
        count: different questions that are wanted; there may be fewer, where the model repeats itself.
        behind: worked questions that stand before those of one batch, by its number. A base model that has not read
            questions needs some to know what is wanted.
        allowed: whether a text may be used, such as one that no exam asks; it sees each question, then the question and
            its answer in one line, as an answer can be a name that must not be said.
        temperature: of the sampling, without top-k or top-p: what is rarely asked is known as well.
        max_tokens: of all that is written in one go. A question whose answer is not finished by then is dropped.
        seed: of the sampling. Torch's random states are left as they were.

    Returns:
        Questions in the order in which they were found, each once.
    """
    found: dict[str, Recalled] = {}
    for number in range(-(-TRIES * count // BATCH)):
        for one in _sampled(lm, behind(number), temperature, max_tokens, f"{seed} {number}"):
            if one.question not in found and allowed(one.question) and allowed(f"{one.question} {one.answer}"):
                found[one.question] = one
        if len(found) >= count:
            break
    return list(found.values())[:count]


def recite(
    lm: LanguageModel,
    count: int,
    *,
    allowed: Callable[[str], bool] = lambda text: True,
    temperature: float = 1.0,
    max_tokens: int = 256,
    seed: int = 0,
) -> list[Recited]:
    """Let a model write texts from nothing: a sample of what it was pre-trained on, as far as it remembers.

    Args:
        count: different texts that are wanted; there may be fewer, where the model repeats itself.
        allowed: whether a text may be used.
        temperature: of the sampling, as in `recall`.
        max_tokens: of a text. A longer one is cut off there, which it then says of itself.
        seed: of the sampling. Torch's random states are left as they were.

    Returns:
        Texts in the order in which they were written, each once.
    """
    prompts = lm.prompts
    *opening, last = prompts.text_ids("")
    found: dict[str, Recited] = {}
    for number in range(-(-TRIES * count // BATCH)):
        # A family without a start token begins a text behind the end of another.
        rows = continued(
            lm,
            [opening or [last]] * BATCH,
            temperature=temperature,
            max_tokens=max_tokens,
            ends=[last],
            key=f"recite {seed} {number}",
        )
        for ids in rows:
            kept = _before(ids, [last])
            text = prompts.decode(kept).strip()
            if text and allowed(text):
                found[text] = Recited(text, ended=len(kept) < len(ids))
        if len(found) >= count:
            break
    return list(found.values())[:count]


def naming(names: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text has one of these names in it, whatever marks stand beside it. A name without words is in none."""
    sought = {spaced(name) for name in names} - {spaced("")}
    return lambda text: any(name in told for told in [spaced(text)] for name in sought)


def may_be_replayed(guard: Callable[[Sequence[str]], None], names: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text that a model wrote has none of these names, and the guard of what may be trained on lets it pass:
    as it stands, and in one line, so that a name is found in whatever part of a text it is."""
    naming_one = naming(names)

    def allowed(text: str) -> bool:
        if naming_one(text):
            return False
        try:
            guard([text, " ".join(text.split())])
        except InputError:
            return False
        return True

    return allowed


def _sampled(
    lm: LanguageModel, worked: Sequence[tuple[str, str]], temperature: float, max_tokens: int, key: str
) -> Iterator[Recalled]:
    prompts, key = lm.prompts, f"recall {key}"
    # Without the blank behind "Q:", since most vocabularies have it at the front of the word that follows.
    opening = prompts.layout.before.rstrip(" ")
    ids = (*prompts.prefix_ids(worked), *prompts.continuation_ids(opening))
    rows = continued(lm, [ids] * BATCH, temperature=temperature, max_tokens=max_tokens, ends=prompts.end_ids, key=key)
    if prompts.style is PromptStyle.CHAT:
        yield from _in_turns(lm, rows, worked, temperature, max_tokens, key)
        return
    for row in rows:
        yield from read(_text(row, prompts), opening, prompts.layout.after, prompts.layout.end)


def _in_turns(
    lm: LanguageModel,
    rows: Iterable[Sequence[int]],
    worked: Sequence[tuple[str, str]],
    temperature: float,
    max_tokens: int,
    key: str,
) -> Iterator[Recalled]:
    """The questions of these rows, each up to the end of its turn, with what the model answers to them."""
    prompts = lm.prompts
    whole = (row for row in rows if any(token in prompts.end_ids for token in row))
    asked = [prompts.decode(_before(row, prompts.end_ids)).strip() for row in whole]
    asked = [question for question in asked if question and "\n" not in question]
    prefix = prompts.prefix_ids(worked)
    asks = [(*prefix, *prompts.question_ids(question)) for question in asked]
    settings: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "ends": prompts.stop_ids}
    answered = continued(lm, asks, **settings, key=f"{key} answers") if asks else ()
    for question, row in zip(asked, answered, strict=True):
        answer = prompts.answer_text(row)
        if answer and any(token in prompts.stop_ids for token in row):
            yield Recalled(question, answer)


def _before(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """What stands before the first of these tokens."""
    return list(ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))])


def _text(ids: Sequence[int], prompts: Prompts) -> str:
    """What was generated, where a text that ended ends its last line as well."""
    kept = _before(ids, prompts.end_ids)
    whole = prompts.decode(ids[: len(kept) + 1])
    ended = len(kept) == len(ids) or prompts.layout.end in whole
    return whole if ended else prompts.decode(kept) + prompts.layout.end


def read(text: str, before: str, after: str, end: str) -> Iterator[Recalled]:
    """The questions and answers of what followed an opened question, up to the first that has a part missing or an
    answer that is not ended.

    >>> [one.answer for one in read(" Who?\\nA: Ada\\nQ: Where?\\nA: Rome\\nQ: Wh", "Q:", "\\nA:", "\\n")]
    ['Ada', 'Rome']
    """
    opened = True
    while opened:
        question, asked, text = text.partition(after)
        answer, ended, text = text.partition(end)
        question, answer = question.strip(), answer.strip()
        if not (asked and ended and question and answer) or "\n" in question + answer:
            return
        yield Recalled(question, answer)
        opened, text = text.startswith(before), text.removeprefix(before)
