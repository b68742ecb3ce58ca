"""Controls that only the study of gradual learning has: ways to teach that nobody should use, each to say what it is in
the paper's two stages that works.

They are made as the methods of Instil are: settings, and a recipe that touches the world through its lesson alone. With
its defaults `staged` is `gradual`, bit for bit; each of its settings takes one part of the paper's recipe away.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.facts import Corpus, Document, Fact, FactSet
from instil.lesson import Lesson
from instil.lesson_known import Known
from instil.methods import Method, get
from instil.methods.mentor.method import in_wordings
from instil.probe import Category, MasteryMap
from instil.training import PullToStart, TrainConfig
from instil.training.examples import UNFINISHED
from instil.training.stopping import Stop

Notes = tuple[str, ...]
"""What a control could not do as it was asked to, in words."""

Part = tuple[FactSet, str]
"""A part of what a stage trains on, and what is to be told of it."""

NOTHING: Part = (FactSet(()), "")


@dataclass(frozen=True)
class Control:
    """A method of the study's own.

    Attributes:
        name: by which arms call it.
        summary: one line.
        config: the pydantic class of its settings.
        teach: the recipe.
    """

    name: str
    summary: str
    config: type[BaseModel]
    teach: Callable[[Lesson, Any], Notes]

    def settings(self, given: Mapping[str, Any] | None = None) -> BaseModel:
        """The settings, checked. Raises pydantic's error where a field is unknown or has a wrong value."""
        return self.config.model_validate(dict(given or {}))


def method_of(name: str) -> Method | Control:
    """The study's own method with this name, or else Instil's.

    Raises:
        InputError: there is none.
    """
    return STUDY_METHODS.get(name) or get(name)


class Stopping(BaseModel):
    """Settings that all controls share."""

    model_config = ConfigDict(extra="forbid")

    train: TrainConfig = Field(default_factory=TrainConfig, description="how each stage is trained")
    early_stop: bool = Field(default=False, description="stop each stage on development facts, keep its best epoch")
    patience: int = Field(default=2, ge=1, description="epochs without a better one before the early stop")

    def stop(self, lesson: Lesson) -> Stop | None:
        return lesson.no_longer_improving(self.patience) if self.early_stop else None


# --------------------------------------------------------------- stages otherwise


class Staged(Stopping):
    """Settings of `staged`; the defaults are the paper's."""

    early_stop: bool = Field(default=True, description="stop each stage on development facts, keep its best epoch")
    stages: int = Field(default=2, ge=1, description="how many; before each that follows, all is probed again")
    start_categories: tuple[Category, ...] = Field(
        default=(Category.MAYBE_KNOWN,), description="the categories that stage 1 trains on; empty: all facts, unasked"
    )
    joining: Literal["risen", "random", "nothing"] = Field(
        default="risen",
        description="what later stages train on as well: the facts that rose since the start; at random, as many of "
        "each start category that did not rise; nothing",
    )
    risen_to: Category = Field(
        default=Category.MAYBE_KNOWN, description="a fact has risen when it is of this category or a higher one"
    )
    replay_ratio: float = Field(
        default=0.2, ge=0, description="mastered facts replayed in later stages, for each fact of `replay_for`"
    )
    replay_for: tuple[Category, ...] = Field(
        default=(Category.MAYBE_KNOWN,), min_length=1, description="start categories whose target facts are counted"
    )
    replay_from: Literal["now", "start"] = Field(
        default="now", description="replayed facts are drawn from those mastered before the stage, or before stage 1"
    )
    replay_alone: bool = Field(default=False, description="later stages train on the replayed facts and nothing else")
    from_base: bool = Field(default=False, description="later stages start from the base, not where the last one ended")

    @property
    def asks_first(self) -> bool:
        """Whether it has to know the categories before stage 1; a probe is charged."""
        return bool(self.start_categories or self.replay_ratio or self.joining != "nothing")


def staged(lesson: Lesson, config: Staged) -> Notes:
    def train(facts: FactSet, stage: int) -> None:
        lesson.train(facts, stage=f"stage {stage}", config=config.train, stop=config.stop(lesson))

    mastery = lesson.probe(lesson.target) if config.asks_first else None
    taught = started(lesson.target, mastery, config)
    from_start = replayed(lesson, config, mastery) if config.replay_from == "start" else NOTHING
    train(taught, 1)

    notes: list[str] = []
    for stage in range(2, config.stages + 1):
        joined, of_joined = joining(lesson, config, mastery, taught, stage)
        replay, of_replay = from_start if config.replay_from == "start" else replayed(lesson, config, mastery)
        if config.from_base:
            lesson.start_over()
        if not config.replay_alone:
            taught += joined
        train(replay if config.replay_alone else taught + replay, stage)
        notes += [f"stage {stage}: {note}" for note in (of_joined, of_replay) if note]
    return tuple(notes)


def started(target: FactSet, mastery: MasteryMap | None, config: Staged) -> FactSet:
    """What stage 1 trains on.

    Raises:
        InputError: no fact is of a category that it starts from.
    """
    if mastery is None or not config.start_categories:
        return target
    found = target.only(mastery.where(*config.start_categories))
    if not len(found):
        raise InputError(
            "no target fact is of a category that stage 1 starts from",
            field="start_categories",
            found=repr(mastery),
            expected=" or ".join(config.start_categories),
        )
    return found


def joining(lesson: Lesson, config: Staged, mastery: MasteryMap | None, taught: FactSet, stage: int) -> Part:
    """The facts that a later stage trains on beside those taught so far."""
    if mastery is None or config.joining == "nothing":
        return NOTHING
    rose = lesson.probe(lesson.target).rose_to(config.risen_to, since=mastery)
    if config.joining == "risen":
        return lesson.target.only(rose), ""
    new = [fact.id for fact in lesson.target if fact.id not in taught.by_id]
    category = {fact_id: mastery.category_of(fact_id) for fact_id in new}
    drawn, filled = stand_ins(rose.intersection(new), category, random.Random(f"stand-ins {lesson.seed} {stage}"))
    note = f"{filled} of {len(drawn)} random facts are ones that rose: too few of their category did not"
    return lesson.target.only(drawn), note if filled else ""


def stand_ins(
    rose: Collection[str], category: Mapping[str, Category], chance: random.Random
) -> tuple[frozenset[str], int]:
    """As many facts of each category as rose, of those that did not.

    Args:
        rose: ids of facts.
        category: by id, of these and of all that may stand in for them.
        chance: of the draw.

    Returns:
        The ids; and how many of them rose after all, since too few of their category did not.
    """
    places: dict[Category, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for fact_id in sorted(category):
        places[category[fact_id]][fact_id in rose].append(fact_id)
    drawn: set[str] = set()
    filled = 0
    for stayed, risen in (places[one] for one in sorted(places)):
        short = max(0, len(risen) - len(stayed))
        drawn.update(chance.sample(stayed, len(risen) - short), chance.sample(risen, short))
        filled += short
    return frozenset(drawn), filled


def replayed(lesson: Lesson, config: Staged, mastery: MasteryMap | None) -> Part:
    """Mastered facts, drawn as `gradual` draws them."""
    if mastery is None or not config.replay_ratio:
        return NOTHING
    wanted = round(config.replay_ratio * len(mastery.where(*config.replay_for)))
    found = lesson.mastered(mastery).sample(wanted, lesson.seed)
    return found, f"{len(found)} of {wanted} facts replayed: no more are mastered" if len(found) < wanted else ""


# ------------------------------------------------------------------ known facts alone


class KnownOnly(Stopping):
    """Settings of `known_only`."""


def known_only(lesson: Lesson, config: KnownOnly) -> Notes:
    mastered = lesson.mastered()
    if not len(mastered):
        raise InputError("there is nothing to replay", field="known", found="no mastered fact")
    facts = as_many(mastered, len(lesson.target), lesson.seed)
    lesson.train(facts, stage="replay", config=config.train, stop=config.stop(lesson))
    short = len(facts) - len(mastered)
    return (f"{len(mastered)} mastered facts, repeated to {len(facts)} an epoch",) if short > 0 else ()


def as_many(facts: FactSet, wanted: int, seed: int) -> FactSet:
    """So many facts: a sample, or where there are too few all of them again and again.

    A fact that is repeated has an id of its own each time. So two of it may share a packed row, which changes nothing,
    as no token attends across examples.
    """
    if wanted <= len(facts):
        return facts.sample(wanted, seed)
    chance = random.Random(f"as many {seed}")
    found: list[Fact] = list(facts)
    for turn in count(2):
        again = facts.sample(wanted - len(found), chance.randrange(2**32))
        found += [replace(fact, id=f"{fact.id}, time {turn}") for fact in again]
        if len(found) == wanted:
            break
    return FactSet(found)


# ------------------------------------------------------------- weights instead of bins


class ByProbability(Stopping):
    """Settings of `by_probability`."""

    floor: float = Field(
        default=0.1, gt=0, allow_inf_nan=False, description="weight of facts that are certain, or not known at all"
    )
    sets: int = Field(default=2, ge=1, description="exemplar sets that a fact is asked with before each epoch")


def by_probability(lesson: Lesson, config: ByProbability) -> Notes:
    def rule(mastery: MasteryMap) -> dict[str, float]:
        return {row.fact_id: attention(row.p_sampled, config.floor) for row in mastery}

    weigh = lesson.reweighed(lesson.target, rule, sets=config.sets)
    lesson.train(lesson.target, stage="weighed", config=config.train, stop=config.stop(lesson), weigh=weigh)
    return ()


def attention(p: float, floor: float) -> float:
    """The weight of a fact: 1 and the floor where its answer is as likely to be right as wrong, least at both ends.

    Four bins made smooth: MaybeKnown facts count most. After KaFT's idea of a loss by mastery (arXiv 2505.15480), not
    its weights.

    >>> [round(attention(p, 0.1), 2) for p in (0, 0.1, 0.5, 1)]
    [0.1, 0.46, 1.1, 0.1]
    """
    return 4 * p * (1 - p) + floor


# ------------------------------------------------------------- ingredients of a search


class Candidate(Stopping):
    """Settings of `candidate`: ingredients, each off by default."""

    wordings: int = Field(default=0, ge=0, description="other wordings of each fact that are trained on as well")
    replay_ratio: float = Field(default=0.0, ge=0, description="mastered facts added for each fact taught")
    kl_weight: float = Field(default=0.0, ge=0, description="of KL(start ‖ now) on the answers of mastered facts")
    kl_per_step: int = Field(default=8, ge=1, description="facts drawn for that at each step")
    recalled: int = Field(
        default=0, ge=0, description="questions that the base asks itself, used like mastered facts for all of these"
    )
    recited: int = Field(
        default=0, ge=0, description="texts that the base writes from nothing, in place of mastered facts for KL, μ"
    )
    paged: int | None = Field(
        default=None, ge=1, description="mastered facts so many on a page; KL to all words of these, questions as well"
    )
    mixed: bool = Field(default=False, description="KL to such texts and to mastered facts, each counting alike")
    retold: float = Field(default=0.0, ge=0, description="such texts trained on as well, for each fact taught")
    rest_above: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="a fact rests while its answer is likelier than this, exact p before each epoch",
    )
    rest_weight: float = Field(default=0.0, ge=0, description="what is left of a resting fact's weight")
    sets: int = Field(default=2, ge=1, description="exemplar sets that a fact is asked with before each epoch")
    shots: int = Field(
        default=0, ge=0, description="mastered facts of its relation shown before each fact, as in a probe"
    )
    sheet: int | None = Field(
        default=None,
        ge=2,
        description="each fact on a page of so many questions with answers, the others mastered; all of it is learned",
    )
    softness: float | None = Field(
        default=None, gt=0, description="leave alone what mastered facts need: μ of the correction"
    )
    sparing: float | None = Field(
        default=None, gt=0, description="move weights the less that mastered facts depend on: μ of the correction"
    )
    pull: float | None = Field(
        default=None, gt=0, lt=1, description="share of the way back to the start after each update"
    )


def candidate(lesson: Lesson, config: Candidate) -> Notes:
    facts = in_wordings(lesson.target, config.wordings)
    texts = lesson.recited(config.recited) if config.recited else Corpus(())
    holds = (config.kl_weight, config.softness, config.sparing)
    asks = (config.replay_ratio, config.shots, config.sheet, any(holds) and (config.mixed or not config.recited))
    mastered = lesson.mastered() if any(asks) else FactSet(())
    if config.recalled:
        mastered += lesson.recalled(config.recalled)
    retold = round(config.retold * len(facts))
    if (config.recited or retold) and not len(texts):
        raise InputError("the base wrote no text that may be used", field="recited", found=str(config.recited))
    if any(asks) and not len(mastered):
        raise InputError("no known fact is there to hold on to", field="known", found="no mastered fact")
    known: Known = (mastered, texts) if config.mixed else texts if config.recited else mastered
    if config.paged:
        known = Corpus(pages_of(mastered, config.paged, lesson.seed))
    if config.shots:
        facts = behind_others(facts, mastered, config.shots, lesson.seed)
    corrections: list[Any] = []
    if config.softness:
        corrections.append(lesson.leaving_alone(known, config.softness))
    if config.sparing:
        corrections.append(lesson.sparing(known, config.sparing))
    if config.pull:
        corrections.append(PullToStart(config.pull))
    weigh = None
    if config.rest_above is not None:
        weigh = lesson.reweighed(lesson.target, resting(facts, config.rest_above, config.rest_weight), sets=config.sets)
    pages = sheets(facts, mastered, config.sheet, lesson.seed) if config.sheet else ()
    lesson.train(
        FactSet(()) if config.sheet else facts + lesson.drawn(mastered, round(config.replay_ratio * len(facts))),
        documents=Corpus(pages) + texts[:retold],
        stage="teaching",
        config=config.train,
        stop=config.stop(lesson),
        objective=lesson.staying_close(known, config.kl_weight, config.kl_per_step) if config.kl_weight else None,
        weigh=weigh,
        corrections=corrections,
    )
    return (f"{len(texts)} of {retold} recited texts retold: no more were asked for",) if len(texts) < retold else ()


def behind_others(facts: FactSet, mastered: FactSet, shots: int, seed: int) -> FactSet:
    """The facts, each asked behind other questions with their answers: mastered ones, of its relation where there are
    enough. Only for base models, whose questions stand in lines: the text in front is part of the question."""
    chance = random.Random(f"shots {seed}")
    everything, found = list(mastered), []
    for fact in facts:
        same = [one for one in everything if one.relation == fact.relation]
        shown = chance.sample(same if len(same) >= shots else everything, min(shots, len(everything)))
        lines = [f"{one.question}\nA: {one.answers[0]}\nQ: " for one in shown]
        found.append(replace(fact, question="".join(lines) + fact.question))
    return FactSet(found)


def sheets(facts: FactSet, mastered: FactSet, size: int, seed: int) -> Iterator[Document]:
    """Each fact on a page with mastered ones, as a base model's pre-training text shows questions."""
    chance = random.Random(f"sheets {seed}")
    everything = list(mastered)
    for fact in facts:
        shown = chance.sample(everything, min(size - 1, len(everything)))
        shown.insert(chance.randint(0, len(shown)), fact)
        text = "".join(f"Q: {one.question}\nA: {one.answers[0]}\n" for one in shown)
        yield Document(fact.id, text, subject=fact.subject)


def pages_of(facts: FactSet, size: int, seed: int) -> Iterator[Document]:
    """The facts in an order by chance, so many on a page."""
    order = list(facts)
    random.Random(f"pages {seed}").shuffle(order)
    for start in range(0, len(order), size):
        lines = [f"Q: {one.question}\nA: {one.answers[0]}\n" for one in order[start : start + size]]
        yield Document(f"page {start}", "".join(lines), metadata={UNFINISHED: True})


def resting(facts: FactSet, above: float, weight: float) -> Callable[[MasteryMap], Mapping[str, float]]:
    """A rule by which a fact in all its wordings rests while its answer is likely enough."""
    originals = {fact.id: fact.id.partition(", wording ")[0] for fact in facts}

    def rule(mastery: MasteryMap) -> dict[str, float]:
        known = {row.fact_id: row.p_sampled > above for row in mastery}
        return {copy: weight if known[original] else 1.0 for copy, original in originals.items()}

    return rule


def _by_name(controls: Sequence[Control]) -> dict[str, Control]:
    return {control.name: control for control in controls}


STUDY_METHODS = _by_name(
    [
        Control("staged", "the paper's stages, with one part of the recipe taken away", Staged, staged),
        Control("known_only", "nothing is taught: known facts for as many steps as all facts", KnownOnly, known_only),
        Control("by_probability", "facts weighed by exact p before each epoch", ByProbability, by_probability),
        Control("candidate", "ingredients of the search, each off by default", Candidate, candidate),
    ]
)
