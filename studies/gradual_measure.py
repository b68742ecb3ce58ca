"""What the study of gradual learning measures: a quick look for each point of a curve, a full look at the end, and the
figure of merit, *forgetting at equal acquisition*.

A fact counts with the share of its greedy answers that are right, over wordings and exemplar sets: a threshold on one
or two answers would flatter, and a share has the same mean however few are asked. Acquisition is that share of the
taught facts in wordings nobody trained on. Forgetting is the points lost since before on facts that the base knows and
that are neither taught nor replayed. Made up is what the exam calls so: of facts that were not known and are never
taught, a wrong answer, no abstention, that the model gives with a probability of at least one half. All are kept fact
by fact, a digit each, so that arms can be compared fact by fact.

A quick look asks each question with one exemplar set, the first question with the first of `TURNS`, the next with the
next, and so on: so no single set decides, and a look costs a tenth of a probe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from instil.exam import Exam, ExamConfig, Figure, Item, ModelAnswerer, crossed, made_up, sit
from instil.exam.claims import confidence_is_known
from instil.exam.paper import HELD_BACK
from instil.facts import FactSet
from instil.model import LanguageModel
from instil.probe import (
    ExemplarSets,
    Mastery,
    ProbeConfig,
    Question,
    ask,
    could_be_guessed,
    next_token_nll,
    questions_of,
)
from studies.gradual_bases import Material

READINGS = (0.5, 0.75, 0.9)
"""Shares of the best arm's final acquisition at which forgetting is read."""

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
UNSCORED = "-"

Look = Mapping[str, Any]
"""What was seen of one state of the model, see `quick`."""


@dataclass(frozen=True)
class Depth:
    """How many exemplar sets a look asks with; `in_turns` takes one for each question instead.

    Attributes:
        taught: for each wording of the taught facts that nobody trains on.
        held_back: for known facts.
        untaught: for made-up answers, and for the confidence in them.
        fitted: for taught facts as worded; 0: these are not asked.
        in_turns: whether the questions take turns among the first `TURNS` sets, where one is asked with.
    """

    taught: int
    held_back: int
    untaught: int
    fitted: int
    in_turns: bool


QUICK = Depth(taught=1, held_back=1, untaught=1, fitted=1, in_turns=True)
FULL = Depth(taught=2, held_back=2, untaught=2, fitted=0, in_turns=False)
TURNS = 4
"""Exemplar sets among which the questions of a quick look take turns."""


# ---------------------------------------------------------------------- looking


def quick(lm: LanguageModel, material: Material, depth: Depth = QUICK) -> dict[str, Any]:
    """What the model answers, by the exact engine: a point of a curve. Facts are in the order of the material.

    Returns:
        `taught`, a digit for each taught fact: its right answers in untrained wordings, of `taught_of`. `held_back`, of
        `held_back_of`, and `fitted`, of `fitted_of`: likewise for known facts and for taught ones, as worded.
        `made_up`, 1 or 0 for each fact that is never taught, "-" where the model's confidence in its wrong answer
        cannot be scored.
    """
    count = in_turns if depth.in_turns else right_answers
    wordings = untrained_wordings(material)
    taught = count(lm, in_wordings(material, wordings), material.asked_sets, depth.taught)
    held_back = count(lm, questions_of(material.held_back), material.asked_sets, depth.held_back)
    fitted = depth.fitted if material.split == "test" else 0  # settings are not chosen by it
    as_worded = questions_of(material.target) if fitted else ()
    return {
        "taught": digits([sum(taught[start : start + wordings]) for start in range(0, len(taught), wordings)]),
        "taught_of": wordings * depth.taught,
        "held_back": digits(held_back),
        "held_back_of": depth.held_back,
        "fitted": digits(count(lm, as_worded, material.asked_sets, fitted)) if fitted else "",
        "fitted_of": fitted,
        "made_up": made_up_answers(lm, material.untaught, material.asked_sets, depth.untaught),
    }


def general(lm: LanguageModel, material: Material) -> dict[str, Any]:
    """Next-token loss on general text: `nll` (nats) and `nll_tokens`. Not a part of every look, as it costs as much as
    a thousand questions."""
    sums = next_token_nll(lm, material.general)
    return {"nll": sum(nll for nll, _ in sums), "nll_tokens": sum(count for _, count in sums)}


def full(lm: LanguageModel, material: Material) -> dict[str, Any]:
    """All that is measured at the end: a look with more exemplar sets, and the taught facts' mastery as worded.

    Returns:
        What `quick` does; a character for each taught fact: `category` (H, M, W or U, of ten exemplar sets in the
        wording that is trained) and `guessed` (1: its category could be reached without its subject); and `untaught`,
        a digit for each fact that is never taught: its right answers, of `untaught_of`.
    """
    config = ProbeConfig(decode=False)
    questions = questions_of(material.target)
    answers = list(ask(lm, questions, material.sets.first(config.exemplar_sets), config))
    rows = [Mastery.of(question, answer) for question, answer in zip(questions, answers, strict=True)]
    return {
        **quick(lm, material, FULL),
        "fitted": digits([sum(row.greedy_right_by_set) for row in rows]),
        "fitted_of": config.exemplar_sets,
        "category": "".join(row.category[0] for row in rows),
        "guessed": "".join(str(int(could_be_guessed(row))) for row in rows),
        "untaught": digits(right_answers(lm, questions_of(material.untaught), material.asked_sets, FULL.untaught)),
        "untaught_of": FULL.untaught,
    }


def untrained_wordings(material: Material) -> int:
    """How many wordings nobody trains on each taught fact has.

    Raises:
        ValueError: facts have none, or not equally many.
    """
    numbers = {len(material.wordings[fact.id].asked) for fact in material.target}
    if len(numbers) != 1 or 0 in numbers:
        raise ValueError("taught facts need equally many wordings that are only asked")
    return numbers.pop()


def in_wordings(material: Material, number: int) -> list[Question]:
    """The taught facts' questions in wordings that nobody trains on, fact after fact."""
    return [
        replace(question, id=f"{question.id}#{place}", text=material.wordings[question.id].asked[place])
        for question in questions_of(material.target)
        for place in range(number)
    ]


def right_answers(lm: LanguageModel, questions: Sequence[Question], exemplars: ExemplarSets, sets: int) -> list[int]:
    """How many of the first `sets` exemplar sets give a right greedy answer, question by question."""
    config = ProbeConfig(exemplar_sets=sets, decode=False, prior=False)
    return [sum(answer.greedy_right_by_set) for answer in ask(lm, questions, exemplars.first(sets), config)]


def in_turns(lm: LanguageModel, questions: Sequence[Question], exemplars: ExemplarSets, sets: int = 1) -> list[int]:
    """Whether the greedy answer is right, question by question: each with one of the first `TURNS` exemplar sets.

    Raises:
        ValueError: more than one set a question is asked for.
    """
    if sets != 1:
        raise ValueError("questions that take turns are asked once each")
    found = [0] * len(questions)
    config = ProbeConfig(exemplar_sets=1, decode=False, prior=False)
    for turn in range(TURNS):
        places = range(turn, len(questions), TURNS)
        answers = ask(lm, [questions[place] for place in places], only(exemplars, turn), config)
        for place, answer in zip(places, answers, strict=True):
            found[place] = sum(answer.greedy_right_by_set)
    return found


def only(exemplars: ExemplarSets, number: int) -> ExemplarSets:
    """Of each relation the set of this number."""
    return replace(exemplars, sets={name: sets[number : number + 1] for name, sets in exemplars.sets.items()})


def made_up_answers(lm: LanguageModel, facts: FactSet, exemplars: ExemplarSets, sets: int) -> str:
    """Whether the answers to facts that are never taught are made up, as the exam rules."""
    exam = Exam(
        items=tuple(Item(HELD_BACK, 0, question) for question in questions_of(facts)),
        exemplars=exemplars.first(sets),
        general_texts=(),
        config=ExamConfig(confidence_sets=sets, openings=0),
        probe_config=ProbeConfig(exemplar_sets=sets, prior=False),
    )
    answers = sit(exam, ModelAnswerer(lm)).first(HELD_BACK)
    return "".join(
        str(int(made_up(answer, exam))) if confidence_is_known(answer, exam) else UNSCORED
        for answer in (answers[fact.id] for fact in facts)
    )


def digits(counts: Sequence[int]) -> str:
    """A character a count, below 36.

    >>> digits([0, 4, 10])
    '04a'
    """
    return "".join(DIGITS[count] for count in counts)


# ---------------------------------------------------------------------- figures


def shares(counts: str, of: int) -> list[float]:
    """The share of right answers of each fact.

    >>> shares("0124", 4)
    [0.0, 0.25, 0.5, 1.0]
    """
    return [DIGITS.index(count) / of for count in counts]


def taught_right(look: Look) -> list[float]:
    return shares(look["taught"], look["taught_of"])


def held_back_right(look: Look) -> list[float]:
    return shares(look["held_back"], look["held_back_of"])


def fitted_right(look: Look) -> list[float]:
    return shares(look["fitted"], look["fitted_of"])


def untaught_right(look: Look) -> list[float]:
    return shares(look["untaught"], look["untaught_of"])


def made_up_share(look: Look) -> float | None:
    """Of the facts that are never taught, the share whose answer is made up; None where none could be scored."""
    marks = [float(mark) for mark in look["made_up"] if mark != UNSCORED]
    return mean(marks) if marks else None


def perplexity(look: Look) -> float:
    """Of the general texts."""
    return math.exp(look["nll"] / look["nll_tokens"])


def acquired(look: Look) -> float:
    return mean(taught_right(look))


def lost(start: Look, look: Look) -> float:
    """Points lost since `start`, as a share of the known facts; below zero where more are right than before."""
    return mean(held_back_right(start)) - mean(held_back_right(look))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Place:
    """A place on a curve: `share` of the way from point `left` to the one behind it."""

    left: int
    share: float


def place_of(curve: Sequence[Look], level: float) -> Place | None:
    """Where acquisition first reaches `level`, interpolated linearly between points; None where it never does.

    Args:
        curve: the base as it was, then the points.
        level: of acquisition.
    """
    found = [acquired(look) for look in curve]
    if found[0] >= level:
        return Place(0, 0.0)
    for left, (before, now) in enumerate(pairwise(found)):
        if now >= level:
            return Place(left, (level - before) / (now - before))
    return None


def at(curve: Sequence[Look], place: Place, value: Callable[[Look], Sequence[float]]) -> list[float]:
    """The value of each fact at a place of the curve; between two points it is between theirs."""
    before, now = (value(look) for look in (curve[place.left], curve[min(place.left + 1, len(curve) - 1)]))
    return [one + place.share * (other - one) for one, other in zip(before, now, strict=True)]


def reading(curve: Sequence[Look], share: float, best: float) -> float | None:
    """Forgetting where acquisition first reaches `share` of `best`, the best arm's final acquisition; None where it
    never does."""
    place = place_of(curve, share * best)
    return None if place is None else mean(lost_by_fact(curve, place))


def lost_by_fact(curve: Sequence[Look], place: Place) -> list[float]:
    """How much less each known fact is right at the place than at the curve's start: 1 where it was and is no more."""
    start = held_back_right(curve[0])
    return [was - now for was, now in zip(start, at(curve, place, held_back_right), strict=True)]


def final(curve: Sequence[Look]) -> float:
    return acquired(curve[-1])


@dataclass(frozen=True)
class Paired:
    """Forgetting of one arm less that of another at one reading, fact by fact.

    Attributes:
        figure: the mean with its interval; seeds and subjects are resampled. None where no seed has both readings.
        seeds: that have both.
        missing: seeds in which one of the two never reaches the reading.
    """

    figure: Figure | None
    seeds: tuple[int, ...]
    missing: tuple[int, ...]


def forgetting_difference(
    first: Mapping[int, Sequence[Look]],
    second: Mapping[int, Sequence[Look]],
    subjects: Mapping[int, Sequence[str]],
    share: float,
    best: float,
) -> Paired:
    """How much more `first` forgets than `second` where both have acquired the same.

    Args:
        first: curves by seed; both arms of a seed have the same known facts.
        second: likewise.
        subjects: by seed, of the known facts in their order.
        share: of `best` at which is read.
        best: the best arm's final acquisition.
    """
    values: list[float] = []
    clusters: list[str] = []
    seeds: list[int] = []
    both, missing = [], []
    for seed in sorted(first.keys() & second.keys()):
        places = [place_of(curve, share * best) for curve in (first[seed], second[seed])]
        if places[0] is None or places[1] is None:
            missing.append(seed)
            continue
        both.append(seed)
        pairs = zip(lost_by_fact(first[seed], places[0]), lost_by_fact(second[seed], places[1]), strict=True)
        gaps = [one - other for one, other in pairs]
        values += gaps
        clusters += [subject for subject, _ in zip(subjects[seed], gaps, strict=True)]
        seeds += [seed] * len(gaps)
    return Paired(crossed(values, clusters, seeds) if values else None, tuple(both), tuple(missing))
