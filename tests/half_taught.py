"""A tiny model that half knows a few facts, so that every mastery category is filled: trained once a test session."""

from __future__ import annotations

import copy
import random
import tempfile
from dataclasses import replace
from functools import cache

from instil.facts import Corpus, Document, Fact, FactSet, Role
from instil.model import LanguageModel
from instil.training import Example, TrainConfig, question_example, train
from tests.models import tiny_model

TOWNS = ("Alba", "Brin", "Corm", "Delf", "Este", "Fano", "Gera", "Hull")
SECTIONS = {
    "probe": {"exemplar_sets": 4, "shots": 2, "prior": False},
    "exam": {"wordings": 1, "resamples": 200, "openings": 3, "opening_tokens": 12},
}
"""Sections of a teaching config that keep an exam small."""


def facts() -> FactSet:
    """90 facts; those whose number is a multiple of three were never shown to the model. Roles are given."""
    roles = [Role.TARGET] * 5 + [Role.HELD_BACK] * 2 + [Role.DEVELOPMENT, Role.KNOWN, Role.EXEMPLAR]
    return FactSet(
        Fact(
            f"f{number}",
            f"Where was person {number} born?",
            (TOWNS[number * 7 % 8],),
            subject=f"person {number}",
            relation="born",
            paraphrases=(f"What is the birthplace of person {number}?",),
            role=roles[number // 3 % 10] if number % 3 else roles[(number // 3 + number % 2) % 8],
        )
        for number in range(90)
    )


def documents() -> Corpus:
    """A sentence about each target fact that the model never met."""
    return Corpus(
        Document(f"d-{fact.id}", f"The town where {fact.subject} was born is {fact.answers[0]}.", subject=fact.subject)
        for fact in facts().with_role(Role.TARGET)
        if int(fact.id[1:]) % 3 == 0
    )


def practised() -> FactSet:
    """The same facts; those for replay are practice questions instead."""
    return FactSet(replace(fact, role=Role.PRACTICE) if fact.role is Role.KNOWN else fact for fact in facts())


def practised_documents() -> Corpus:
    """`documents`, and as many about what is practised."""
    return documents() + Corpus(
        Document(f"d-{fact.id}", f"The town where {fact.subject} was born is {fact.answers[0]}.", subject=fact.subject)
        for fact in practised().with_role(Role.PRACTICE)
    )


def questions(lm: LanguageModel, numbers: range) -> list[Example]:
    """Some of the facts as examples to train on or to hold on to."""
    return [question_example(lm.prompts, fact) for fact in list(facts())[numbers.start : numbers.stop]]


def half_taught() -> LanguageModel:
    """A fresh copy, fp32."""
    lm = _trained_once()
    return replace(lm, model=copy.deepcopy(lm.model))


@cache
def _trained_once() -> LanguageModel:
    model, tokenizer = tiny_model("llama")
    lm = LanguageModel.of(model, tokenizer, name="half-taught")
    chance = random.Random(0)
    shown = [fact for number, fact in enumerate(facts()) if number % 3]
    blocks = [_block(lm, chance.sample(shown, chance.randint(1, 4)), number) for number in range(300)]
    config = TrainConfig(epochs=8, learning_rate=4e-3, batch_size=16, save_every="never")
    with tempfile.TemporaryDirectory() as folder:
        train(lm, blocks, config, out=f"{folder}/run")
    return lm


def _block(lm: LanguageModel, chosen: list[Fact], number: int) -> Example:
    ids: list[int] = []
    labels: list[int] = []
    for fact in chosen:
        first, answer = lm.prompts.teaching_ids(fact.question, fact.answers[0])
        prompt = first if not ids else lm.prompts.question_ids(fact.question)
        ids += [*prompt, *answer]
        labels += [*[-100] * len(prompt), *answer]
    return Example(tuple(ids), tuple(labels), key=f"block {number}")
