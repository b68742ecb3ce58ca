"""What the exam asks of an answerer beyond answers: its likeliest tokens where the right answer stands, and free text.

Both are for KnowEdit's figures. An answerer need not have them; then those figures say that they are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from instil.probe import ProbeConfig, Question

if TYPE_CHECKING:
    from instil.model import LanguageModel

BATCH = 32
"""Rows that are computed together."""


class Forced(NamedTuple):
    """The right answer given token by token (teacher forcing).

    Attributes:
        tokens: the likeliest token at each place of the right answer, whatever the model itself had said before.
        right: whether it is the answer's.
    """

    tokens: tuple[str, ...]
    right: tuple[bool, ...]


@runtime_checkable
class Writer(Protocol):
    """An answerer that can also be read token by token, and go on with a text."""

    def forced(self, questions: Sequence[Question]) -> list[Forced]:
        """For each question without exemplars, its first answer under teacher forcing."""
        ...

    def written(self, openings: Sequence[str], tokens: int, config: ProbeConfig) -> list[str]:
        """What follows each text, up to `tokens` tokens, sampled as `config` samples and seeded by it."""
        ...


def forced(lm: LanguageModel, questions: Sequence[Question]) -> list[Forced]:
    """`Writer.forced` of a language model; the stop after the answer is not scored, as in EasyEdit."""
    import torch

    rows = [
        (
            (*lm.prompts.prefix_ids(()), *lm.prompts.question_ids(question.text)),
            lm.prompts.answer_ids(question.answers[0]),
        )
        for question in questions
    ]
    found: list[Forced] = []
    with evaluating(lm), torch.no_grad():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            ids_BT, mask_BT = padded([prompt + answer for prompt, answer in batch])
            logits_BTV = lm.model(
                input_ids=ids_BT.to(lm.device), attention_mask=mask_BT.to(lm.device), use_cache=False
            ).logits
            likeliest_BT = logits_BTV.argmax(-1).tolist()
            for row, (prompt, answer) in enumerate(batch):
                said = likeliest_BT[row][len(prompt) - 1 : len(prompt) + len(answer) - 1]
                names = lm.tokenizer.convert_ids_to_tokens(said)
                found.append(Forced(tuple(map(str, names)), tuple(a == b for a, b in zip(said, answer, strict=True))))
    return found


def written(lm: LanguageModel, openings: Sequence[str], tokens: int, config: ProbeConfig) -> list[str]:
    """`Writer.written` of a language model. A token's draw is the same whatever else is written beside it."""
    import torch

    found: list[str] = []
    with evaluating(lm), torch.no_grad():
        for number, opening in enumerate(openings):
            ids = lm.prompts.text_ids(opening)[:-1][-(lm.context_window - tokens) :]
            chance = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
            said: list[int] = []
            step, cache = torch.tensor([ids]), None
            for _ in range(min(tokens, lm.context_window - len(ids))):
                out: Any = lm.model(input_ids=step.to(lm.device), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                token = _draw(out.logits[0, -1].float().cpu(), config, chance)
                if token in lm.prompts.end_ids:
                    break
                said.append(token)
                step = torch.tensor([[token]])
            found.append(lm.prompts.decode(said))
    return found


def padded(rows: Sequence[Sequence[int]]) -> Any:
    """Rows filled up on the right: ids and attention mask, each of shape (B, T)."""
    import torch

    longest = max(map(len, rows))
    ids_BT, mask_BT = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(2))
    for place, row in enumerate(rows):
        ids_BT[place, : len(row)] = torch.tensor(row)
        mask_BT[place, : len(row)] = 1
    return ids_BT, mask_BT


class evaluating:  # noqa: N801 - read as a word: with evaluating(lm)
    """Dropout off, and back as it was."""

    def __init__(self, lm: LanguageModel) -> None:
        self.model: Any = lm.model
        self.was = self.model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *fault: object) -> None:
        self.model.train(self.was)


def _draw(logits_V: Any, config: ProbeConfig, chance: Any) -> int:
    """One token at the probe's temperature from the `top_k` likeliest; `top_p` is not applied to free text."""
    import torch

    values, places = logits_V.topk(min(config.top_k or len(logits_V), len(logits_V)))
    return int(places[torch.multinomial((values / config.temperature).softmax(-1), 1, generator=chance)])
