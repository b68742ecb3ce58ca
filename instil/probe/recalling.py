"""Questions that a model asks itself: what it has to say about what it knows, when no old data exists."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instil.model.modes import evaluating

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


def recall(
    lm: LanguageModel,
    count: int,
    *,
    behind: Callable[[int], Sequence[tuple[str, str]]] = lambda number: (),
    allowed: Callable[[str], bool] = lambda question: True,
    temperature: float = 1.0,
    max_tokens: int = 64,
    seed: int = 0,
) -> list[Recalled]:
    """Let a model write questions with their answers, by sampling what follows the opening of a question.

    Replay of what a model generates itself goes back to Sun et al. 2020 (LAMOL, 1909.03329); that an opened turn of the
    user makes a chat model ask is from Xu et al. 2024 (Magpie, 2406.08464).

    Args:
        count: different questions that are wanted; there may be fewer, where the model repeats itself.
        behind: worked questions that stand before those of one batch, by its number. A base model that has not read
            questions needs some to know what is wanted.
        allowed: whether a question may be used, such as one that no exam asks.
        temperature: of the sampling, without top-k or top-p: what is rarely asked is known as well.
        max_tokens: of a question with its answer. One that is not finished by then is dropped.
        seed: of the sampling. Torch's random states are left as they were.

    Returns:
        Questions in the order in which they were found, each once.
    """
    found: dict[str, Recalled] = {}
    for number in range(-(-TRIES * count // BATCH)):
        for one in _sampled(lm, behind(number), temperature, max_tokens, f"{seed} {number}"):
            if one.question not in found and allowed(one.question):
                found[one.question] = one
        if len(found) >= count:
            break
    return list(found.values())[:count]


def _sampled(
    lm: LanguageModel, worked: Sequence[tuple[str, str]], temperature: float, max_tokens: int, key: str
) -> Iterator[Recalled]:
    import torch

    prompts, model = lm.prompts, lm.model
    # Without the blank behind "Q:", since most vocabularies have it at the front of the word that follows.
    opening = prompts.layout.before.rstrip(" ")
    ids = (*prompts.prefix_ids(worked), *prompts.continuation_ids(opening))
    ids_BT = torch.tensor([ids] * BATCH, device=lm.device)
    generate: Any = model.generate
    with torch.random.fork_rng(), evaluating(model), torch.no_grad():
        torch.manual_seed(random.Random(f"recall {key}").getrandbits(62))
        out_BT = generate(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_tokens,
            pad_token_id=prompts.tokenizer.eos_token_id,
        )
    for row in out_BT[:, len(ids) :].tolist():
        text = _text(row, prompts)
        one = read(text, prompts.layout.after, prompts.layout.end)
        if one is not None:
            yield one


def _text(ids: Sequence[int], prompts: Prompts) -> str:
    """What was generated, where a text that ended ends its last line as well."""
    place = next((place for place, token in enumerate(ids) if token in prompts.end_ids), None)
    whole = prompts.decode(ids if place is None else ids[: place + 1])
    return whole if place is None or prompts.layout.end in whole else prompts.decode(ids[:place]) + prompts.layout.end


def read(text: str, after: str, end: str) -> Recalled | None:
    """The first question and answer of what followed an opened question; None where one of them is missing, or the
    answer is not ended.

    >>> read(" Who wrote it?\\nA: Ada\\nQ: And", after="\\nA:", end="\\n")
    Recalled(question='Who wrote it?', answer='Ada')
    """
    question, asked, rest = text.partition(after)
    answer, ended, _ = rest.partition(end)
    question, answer = question.strip(), answer.strip()
    whole = asked and ended and question and answer and "\n" not in question and "\n" not in answer
    return Recalled(question, answer) if whole else None
