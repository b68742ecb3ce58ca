"""Prompts: text to ids for base and chat models, and that no boundary loses or invents a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.errors import InputError
from instil.model import Prompts, PromptStyle
from tests.models import CHAT_TEMPLATE, SPECIALS, tiny_tokenizer

KINDS = ("byte", "modern", "metaspace")
PLAIN = st.text(
    alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "S"), include_characters=" "), min_size=1
)
# Templates of the shapes in use: a system turn by itself, no marks around turns, a space before the answer.
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.</s>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
MARKLESS = (
    "{% for m in messages %}{{ 'User' if m.role == 'user' else 'Bot' }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Bot:{% endif %}"
)


def prompts_of(kind: str, template: str | None = None) -> Prompts:
    tokenizer = tiny_tokenizer(kind)
    tokenizer.chat_template = template
    return Prompts(tokenizer, PromptStyle.choose("auto", tokenizer))


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_prompt_reads_as_the_protocol_says(kind: str) -> None:
    prompts = prompts_of(kind)
    ids = prompts.prefix_ids([("Where was Ada born?", "London"), ("Who is Kurt?", "a logician.")])
    ids += prompts.question_ids("Where was Alan born?") + prompts.answer_ids("New York City") + prompts.terminator_ids
    assert prompts.decode(ids) == (
        "<s>Q: Where was Ada born?\nA: London\nQ: Who is Kurt?\nA: a logician.\n"
        "Q: Where was Alan born?\nA: New York City\n"
    )


@settings(max_examples=60)
@given(st.sampled_from(KINDS), PLAIN, PLAIN)
def test_no_boundary_loses_or_invents_a_character(kind: str, question: str, answer: str) -> None:
    if kind == "metaspace" and "▁" in question + answer:
        return  # SentencePiece tokenizers use it for the space.
    prompts = prompts_of(kind)
    ids = prompts.prefix_ids([(question, answer)]) + prompts.question_ids(question) + prompts.answer_ids(answer)
    assert prompts.decode(ids) == f"<s>Q: {question}\nA: {answer}\nQ: {question}\nA: {answer}"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_joined_and_never_cut(kind: str) -> None:
    """What stands before a boundary does not change the ids behind it."""
    prompts = prompts_of(kind)
    exemplars = [("Who?", "Ada"), ("Where?", "Paris")]
    assert prompts.prefix_ids(exemplars)[: len(prompts.prefix_ids(exemplars[:1]))] == prompts.prefix_ids(exemplars[:1])
    asked, taught = prompts.teaching_ids("Who?", "Ada")
    assert asked + taught == prompts.prefix_ids(exemplars[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_stop_set_is_every_token_that_ends_an_answer(kind: str) -> None:
    prompts = prompts_of(kind)
    tokenizer = prompts.tokenizer
    for token in range(len(tokenizer)):
        text = prompts.decode([token])
        begins = text.lstrip(" \t").removeprefix(".").lstrip(" \t")[:1] in ("\n", "\r")
        assert (token in prompts.stop_ids) == (begins or token == tokenizer.eos_token_id), repr(text)
    assert prompts.decode(prompts.full_stop_ids) == "."
    assert len(prompts.terminator_ids) == 1
    assert prompts.terminator_ids[0] in prompts.stop_ids
    if kind == "modern":
        assert ".\n" in {prompts.decode([token]) for token in prompts.stop_ids}


def test_the_models_own_end_tokens_stop_too() -> None:
    assert {1, 30, 31} <= Prompts(tiny_tokenizer(), PromptStyle.BASE, [30, 31]).stop_ids


def test_an_answer_is_what_stands_before_its_end() -> None:
    prompts = prompts_of("modern")
    ids = prompts.answer_ids("Paris")
    assert prompts.answer_text(ids) == "Paris"
    for stop in prompts.stop_ids:
        assert prompts.answer_text((*ids, stop, *ids)) == "Paris"
    assert prompts.answer_text(()) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_looks_like_an_end_token_is_not_one(kind: str) -> None:
    prompts = prompts_of(kind)
    assert prompts.tokenizer.eos_token_id not in prompts.question_ids("What does </s> mean?")
    assert prompts.text_ids("a </s> b")[-1] == prompts.tokenizer.eos_token_id
    assert prompts.text_ids("a </s> b").count(prompts.tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_begins_and_ends_as_the_family_wants(kind: str) -> None:
    prompts = prompts_of(kind)
    ids = prompts.text_ids("Ada wrote.")
    assert (ids[0], ids[-1]) == (0, 1)
    assert prompts.decode(ids[1:-1]) == "Ada wrote."
    tokenizer = tiny_tokenizer(kind)
    tokenizer.bos_token = None
    without = Prompts(tokenizer, PromptStyle.BASE)
    assert without.text_ids("Ada wrote.") == ids[1:]
    assert without.prefix_ids(()) == ()


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, CHATML, LLAMA2, MARKLESS], ids=["own", "chatml", "llama2", "bare"])
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_a_chat_prompt_is_what_the_template_writes(template: str, shots: int) -> None:
    prompts = prompts_of("byte", template)
    exemplars = [(f"Where was Ada {number} born?", f"London {number}") for number in range(shots)]
    messages = [
        {"role": role, "content": text}
        for pair in exemplars
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    messages.append({"role": "user", "content": "Who is Kurt?"})
    written = prompts.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    asked = prompts.decode(prompts.prefix_ids(exemplars) + prompts.question_ids("Who is Kurt?"))
    assert asked == written.rstrip(" ")
    assert prompts.answer_ids("Ada") != ()
    assert [token in prompts.stop_ids for token in prompts.terminator_ids][-1:] == [True]
    assert all(not prompts.stop_ids.intersection(tail) for tail in prompts.tails)


def test_what_a_template_puts_before_the_end_token_may_stand_there() -> None:
    prompts = prompts_of("byte", LLAMA2)
    assert [prompts.decode(tail) for tail in prompts.tails] == [".", " "]
    assert prompts.decode(prompts.terminator_ids) == " </s>"


def test_special_tokens_of_a_template_are_tokens() -> None:
    prompts = prompts_of("byte", CHAT_TEMPLATE)
    ids = prompts.prefix_ids([("Who?", "Ada")])
    assert ids.count(prompts.tokenizer.eos_token_id) == 2
    assert prompts.terminator_ids == (prompts.tokenizer.eos_token_id,)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ nonsense(", "cannot be rendered"),
        ("{{ raise_exception('no') }}", "cannot be rendered"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "cannot be taken apart"),
        ("{{ messages | length }}{% for m in messages %}{{ m.content }}\n{% endfor %}", "cannot be taken apart"),
    ],
)
def test_a_template_that_does_not_fit_together_is_refused(template: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        prompts_of("byte", template)


def test_styles_are_chosen_and_checked() -> None:
    tokenizer, chat = tiny_tokenizer(), tiny_tokenizer(chat=True)
    assert PromptStyle.choose("auto", tokenizer) is PromptStyle.BASE
    assert PromptStyle.choose("auto", chat) is PromptStyle.CHAT
    assert PromptStyle.choose("base", chat) is PromptStyle.BASE
    for style, found in (("chat", tokenizer), ("song", chat)):
        with pytest.raises(InputError):
            PromptStyle.choose(style, found)


def test_a_tokenizer_needs_an_end_token() -> None:
    tokenizer = tiny_tokenizer()
    assert SPECIALS["eos_token"] == "</s>"
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="end token"):
        Prompts(tokenizer, PromptStyle.BASE)
