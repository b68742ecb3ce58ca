"""Prompts as token ids, for base and for chat models.

Every part of a prompt is tokenised by itself and the ids are joined. Encoding "context + answer" and cutting at the
length of "context" loses tokens wherever the tokenizer merges across the boundary, so nothing here does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from instil.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A token that ends an answer: a line break, possibly behind blanks and one full stop. The answer is what stands before.
_ENDS_ANSWER = re.compile(r"[ \t]*\.?[ \t]*[\r\n]")
_LINE_BREAK = re.compile(r"[\r\n]")
# How the vocabularies in use write a line break: as itself, in GPT-2's byte alphabet, as a fallback byte.
_WRITTEN_BREAKS = ("\n", "\r", "Ċ", "č", "<0x0A>", "<0x0D>")


class PromptStyle(StrEnum):
    """How a model is asked: `Q: …\\nA: …` lines, or turns of a chat."""

    BASE = "base"
    CHAT = "chat"

    @staticmethod
    def choose(style: PromptStyle | str, tokenizer: PreTrainedTokenizerBase) -> PromptStyle:
        """Resolve "auto": chat where the tokenizer has a chat template.

        Raises:
            InputError: "chat" without a template, or a style that does not exist.
        """
        if style == "auto":
            return PromptStyle.CHAT if tokenizer.chat_template else PromptStyle.BASE
        if style not in ("base", "chat"):
            raise InputError("unknown prompt style", field="style", found=str(style), expected="auto, base or chat")
        if style == "chat" and not tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template", field="style", found="chat")
        return PromptStyle(style)


@dataclass(frozen=True)
class Layout:
    """The constant text around questions and answers.

    A prompt is `start`, then for each exemplar `before + question + after_worked`, `lead + answer`, `end`; then
    `before + question + after`, and the model goes on with `lead + answer`.
    """

    start: str
    before: str
    after: str
    after_worked: str
    lead: str
    end: str


_BASE = Layout(start="", before="Q: ", after="\nA:", after_worked="\nA:", lead=" ", end="\n")


class Prompts:
    """Text to token ids for one tokenizer and one style. All methods return ids without padding.

    Args:
        end_ids: end tokens named by the model's configurations, beside the tokenizer's own.

    Raises:
        InputError: the tokenizer has no end token, or its chat template cannot be taken apart.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, style: PromptStyle, end_ids: Iterable[int] = frozenset()
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end token", field="eos_token")
        self.tokenizer = tokenizer
        self.style = style
        self.end_ids = frozenset(end_ids) | {int(tokenizer.eos_token_id)}
        self.layout = _BASE if style is PromptStyle.BASE else _chat_layout(tokenizer)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: end tokens, and those that begin with a line break or a full stop and one."""
        return self.end_ids | {token for token, text in self._breaking.items() if _ENDS_ANSWER.match(text)}

    @cached_property
    def full_stop_ids(self) -> tuple[int, ...]:
        """The tokens that are just a full stop; an answer may have one before it stops."""
        vocabulary = self.tokenizer.get_vocab()
        return (vocabulary["."],) if "." in vocabulary else ()

    @cached_property
    def _breaking(self) -> dict[int, str]:
        """Text of each token that holds a line break. Only tokens that may are decoded: vocabularies are large."""
        return {
            token: text
            for written, token in self.tokenizer.get_vocab().items()
            if any(mark in written for mark in _WRITTEN_BREAKS) and _LINE_BREAK.search(text := self.decode([token]))
        }

    def prefix_ids(self, exemplars: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """Ids of everything before the question: the start token, where there is one, and the worked questions."""
        ids = list(self._start_ids)
        for question, answer in exemplars:
            ids += self._encode(self.layout.before + question + self.layout.after_worked)
            ids += self.answer_ids(answer)
            ids += self._encode(self.layout.end)
        return tuple(ids)

    def question_ids(self, question: str) -> tuple[int, ...]:
        """Ids from the end of the prefix up to where the model's answer begins; the same behind every prefix."""
        return self._encode(self.layout.before + question + self.layout.after)

    def place_in_question(self, question: str, end: int) -> int:
        """Which token of `question_ids` holds the last of the question's first `end` characters."""
        ids = self.question_ids(question)
        wanted = len((self.layout.before + question[:end]).strip())
        for place in range(len(ids)):
            if len(self.decode(ids[: place + 1]).strip()) >= wanted:
                return place
        return len(ids) - 1

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """Ids of the answer as it follows a question, without what ends it."""
        return self._encode(self.layout.lead + answer)

    def prompt_text(self, exemplars: Sequence[tuple[str, str]], question: str) -> str:
        """The prompt of `prefix_ids` and `question_ids` as one text, the start token written out.

        Tokenised whole it may give other ids: a tokenizer can merge across the parts.
        """
        text = _joined(self.layout, exemplars, question)
        return (self.tokenizer.bos_token or "") + text if self.style is PromptStyle.BASE else text

    def continuation_ids(self, text: str) -> tuple[int, ...]:
        """Ids of `text` exactly as it stands behind a question, without the lead that an answer has."""
        return self._encode(text)

    @cached_property
    def terminator_ids(self) -> tuple[int, ...]:
        """What a taught answer ends with: the first token of the layout's end that stops it, or the end token."""
        ids = self._encode(self.layout.end)
        stops = [place for place, token in enumerate(ids) if token in self.stop_ids]
        return ids[: stops[0] + 1] if stops else (int(self.tokenizer.eos_token_id),)

    @cached_property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """What may stand between an answer and its stop: a full stop, or what the layout itself puts there."""
        before_stop = self.terminator_ids[:-1]
        return (*((token,) for token in self.full_stop_ids), *((before_stop,) if before_stop else ()))

    def teaching_ids(self, question: str, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(prompt without exemplars, answer with its terminator), to be joined; loss belongs on the second."""
        return self.prefix_ids(()) + self.question_ids(question), self.answer_ids(answer) + self.terminator_ids

    def text_ids(self, text: str) -> tuple[int, ...]:
        """A document: start token where the family has one, text, end token."""
        return (*self._bos_ids, *self._plain(text), int(self.tokenizer.eos_token_id))

    def text_offsets(self, texts: Sequence[str]) -> list[tuple[tuple[int, ...], tuple[tuple[int, int], ...] | None]]:
        """For each text the ids that `text_ids` has between its start and end token, and for each token the characters
        (begin, end) that it stands for; None in their place where the tokenizer cannot tell."""
        if not texts:
            return []
        if not self.tokenizer.is_fast:
            return [(self._plain(text), None) for text in texts]
        split = {"split_special_tokens": True} if self.style is PromptStyle.BASE else {}
        found = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, **split)
        return [
            (tuple(ids), tuple(map(tuple, places)))
            for ids, places in zip(found["input_ids"], found["offset_mapping"], strict=True)
        ]

    def answer_text(self, ids: Sequence[int]) -> str:
        """The answer in generated ids: what stands before the first stop token or line break."""
        kept = []
        for token in ids:
            if token in self.stop_ids:
                break
            kept.append(token)
        return _LINE_BREAK.split(self.decode(kept), maxsplit=1)[0].strip()

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @property
    def _bos_ids(self) -> tuple[int, ...]:
        bos = self.tokenizer.bos_token_id
        return () if bos is None else (int(bos),)

    @cached_property
    def _start_ids(self) -> tuple[int, ...]:
        return self._bos_ids if self.style is PromptStyle.BASE else self._encode(self.layout.start)

    def _plain(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        # A document or a question may hold the text "</s>"; in base prompts it must not become the token.
        split = {"split_special_tokens": True} if self.style is PromptStyle.BASE else {}
        return tuple(self.tokenizer(text, add_special_tokens=False, **split)["input_ids"])

    def _encode(self, text: str) -> tuple[int, ...]:
        """Ids that add exactly `text` behind another line.

        SentencePiece tokenizers put a space in front of every text they are given. Where that happens, the first way
        of writing the part that decodes to itself is taken: as it is; without its own space; behind a line break that
        is then taken off again, if it stayed a token of its own.
        """
        plain = self._plain(text)
        if not text or not self._adds_space:
            return plain
        anchor = self._plain("\n")
        joined = self._plain("\n" + text)
        candidates = [plain]
        if text.startswith(" "):
            candidates.append(self._plain(text[1:]))
        if joined[: len(anchor)] == anchor:
            candidates.append(joined[len(anchor) :])
        before = self.decode(anchor)
        return next((ids for ids in candidates if self.decode(anchor + ids) == before + text), plain)

    @cached_property
    def _adds_space(self) -> bool:
        """Whether the tokenizer puts a space in front of what it is given; it may hide it when it decodes."""
        twice = self._plain("a") + self._plain("a")
        return self.decode(twice) != "aa"


_QUESTION, _WORKED, _ANSWER = "instilquestion", "instilworked", "instilanswer"


def _chat_layout(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """Take a chat template apart into the constant text around questions and answers, and check that it fits together.

    Raises:
        InputError: the template cannot be rendered, or what it writes for two exemplars is not made of the parts.
    """
    bare = _render(tokenizer, [], _QUESTION)
    once = _render(tokenizer, [(_WORKED, _ANSWER)], _QUESTION)
    try:
        start_before, after = bare.split(_QUESTION)
        opening, rest = once.split(_WORKED)
        after_worked, rest = rest.split(_ANSWER)
        between, after_once = rest.split(_QUESTION)
    except ValueError:
        raise _unfit("a message does not appear once, as it is") from None
    if opening != start_before or after_once != after:
        raise _unfit("the text around the last question depends on the turns before it")
    # What ends the answer's turn stays with the answer; the rest, which also opens a bare chat, opens the question's.
    special = min((between.find(end) + len(end) for end in tokenizer.all_special_tokens if end in between), default=0)
    before = _common_ending(between[special:], start_before)
    lead = after_worked[len(after_worked.rstrip(" ")) :] or after[len(after.rstrip(" ")) :]
    layout = Layout(
        start=start_before.removesuffix(before),
        before=before,
        after=after.rstrip(" "),
        after_worked=after_worked.rstrip(" "),
        lead=lead,
        end=between[: len(between) - len(before)],
    )
    twice = _render(tokenizer, [(_WORKED, _ANSWER), (_WORKED + "b", _ANSWER + "b")], _QUESTION)
    if _joined(layout, [(_WORKED, _ANSWER), (_WORKED + "b", _ANSWER + "b")], _QUESTION).rstrip(" ") != twice.rstrip(
        " "
    ):
        raise _unfit("two worked questions are not written as one is")
    return layout


def _joined(layout: Layout, exemplars: Sequence[tuple[str, str]], question: str) -> str:
    worked = (
        layout.before + asked + layout.after_worked + layout.lead + answer + layout.end for asked, answer in exemplars
    )
    return layout.start + "".join(worked) + layout.before + question + layout.after


def _common_ending(first: str, second: str) -> str:
    length = 0
    while length < min(len(first), len(second)) and first[-length - 1] == second[-length - 1]:
        length += 1
    return first[len(first) - length :]


def _render(tokenizer: PreTrainedTokenizerBase, exemplars: Sequence[tuple[str, str]], question: str) -> str:
    messages = [
        message
        for asked, answer in exemplars
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
    ]
    messages.append({"role": "user", "content": question})
    try:
        # Templates without the switch ignore it; with it the model answers at once instead of thinking aloud first.
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except Exception as fault:  # Jinja raises whatever the template's author chose.
        raise InputError(f"the chat template cannot be rendered: {fault}", field="chat_template") from fault
    return str(text)


def _unfit(reason: str) -> InputError:
    return InputError(
        f"the chat template cannot be taken apart: {reason}", field="chat_template", expected="style base, or another"
    )
