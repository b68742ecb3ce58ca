"""Four-way choice: the right answer among answers of the same relation that are wrong for this fact.

Asked in two ways, of the same facts with the same options. `choice`: the plain question, and the option that has the
highest probability as its answer, at temperature 1 over the whole vocabulary and with the stop; so does `lm-eval`
score its `multiple_choice` tasks (`acc`: the highest summed log-likelihood). `choice_as_text`: the options stand in the
question behind letters; the right one's letter or text is right. It stands at each place equally often.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from instil.answers import normalise
from instil.exam.paper import CHOICE, CHOICE_AS_TEXT, Item
from instil.exam.parts.material import Material, answer_keys, key_of, question_of
from instil.facts import Fact
from instil.probe import ExemplarSets

NAME = "choice"
AS_TEXT_NAME = "choice_as_text"


def items(material: Material) -> list[Item]:
    return [
        Item(CHOICE, 0, question_of(CHOICE, fact, fact.question, fact.answers), options)
        for fact, options in _choices(material)
    ]


def items_as_text(material: Material) -> list[Item]:
    if NAME in material.config.parts:  # The same facts are counted as left out once.
        material.left_out, noted = [], material.left_out
        choices = _choices(material)
        material.left_out = noted
    else:
        choices = _choices(material)
    found = []
    for fact, options in choices:
        text, letter = as_text(fact.question, options, options.index(fact.answers[0]))
        answers = (letter, f"({letter}) {fact.answers[0]}", *fact.answers)
        found.append(Item(CHOICE_AS_TEXT, 0, question_of(CHOICE_AS_TEXT, fact, text, answers), options))
    return material.untaught(CHOICE_AS_TEXT, found)


def exemplars_as_text(material: Material) -> dict[str, ExemplarSets]:
    chance = material.chance("choice exemplars")
    facts = sorted(material.exemplar_facts, key=lambda fact: fact.id)
    places = balanced(len(facts), material.config.options, chance)
    forms: dict[str, tuple[str, str] | None] = {}
    for fact, place in zip(facts, places, strict=True):
        options = with_distractors(material, fact, place, chance)
        forms[fact.id] = None if options is None else as_text(fact.question, options, place)
    return {CHOICE_AS_TEXT: material.exemplars_as(lambda fact: forms[fact.id])}


def as_text(question: str, options: Sequence[str], place: int) -> tuple[str, str]:
    """(the question with its options behind letters, the letter of the right one)"""
    shown = " ".join(f"({letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
    return f"{question} {shown}", ascii_uppercase[place]


def balanced(count: int, options: int, chance: random.Random) -> list[int]:
    """For each of `count` choices the place of the right option; no place is taken two times more than another."""
    places = [number % options for number in range(count)]
    chance.shuffle(places)
    return places


def with_distractors(material: Material, fact: Fact, place: int, chance: random.Random) -> tuple[str, ...] | None:
    """The options with the right one at `place`; None when the relation has too few other answers."""
    if fact.relation is None:
        return None  # Answers of facts without a relation need not be of one type.
    needed, pool = material.config.options - 1, _pools(material)[fact.relation]
    right = pool.right[key_of(fact) or fact.id] | answer_keys(fact)
    # A few more than are needed, since some of them may be right; all of them where those are not enough.
    for size in (needed + len(right) + 2, len(pool.answers)):
        drawn = chance.sample(pool.answers, min(size, len(pool.answers)))
        wrong = [text for text, keys in drawn if not keys & right][:needed]
        if len(wrong) == needed:
            return (*wrong[:place], fact.answers[0], *wrong[place:])
    return None


@dataclass(frozen=True, slots=True)
class _Pool:
    """The answers of one relation.

    Attributes:
        answers: each once, with all forms of the first fact that has it.
        right: subject (or fact id) to the forms of all its right answers.
    """

    answers: list[tuple[str, frozenset[str]]]
    right: defaultdict[str, frozenset[str]]


def _pools(material: Material) -> dict[str | None, _Pool]:
    if not material.pools:
        for relation, group in material.everything.by_relation.items():
            answers: dict[str, tuple[str, frozenset[str]]] = {}
            right: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
            for fact in group:
                keys = answer_keys(fact)
                answers.setdefault(normalise(fact.answers[0]), (fact.answers[0], keys))
                right[key_of(fact) or fact.id] |= keys
            material.pools[relation] = _Pool(list(answers.values()), right)
    return material.pools


def _choices(material: Material) -> list[tuple[Fact, tuple[str, ...]]]:
    """The facts that are asked, each with its options; the same whenever it is called."""
    options = material.config.options
    enough = [fact for fact in material.target if with_distractors(material, fact, 0, random.Random(0)) is not None]
    short = len(material.target) - len(enough)
    material.skip(CHOICE, [f"its relation has fewer than {options - 1} answers that are wrong for it"] * short)
    asked = material.drawn(CHOICE, enough)
    chance = material.chance("choice options")
    places = balanced(len(asked), options, chance)
    found = []
    for fact, place in zip(asked, places, strict=True):
        drawn = with_distractors(material, fact, place, chance)
        assert drawn is not None
        found.append((fact, drawn))
    return found
