"""What the study of gradual learning teaches and asks, on two bases: `people` and `entityquestions`.

Subjects are divided once, before anything else, into development and test. Settings are chosen on development, results
are from test. Each seed then draws from its split, subject by subject: facts to teach as they come, facts for early
stop, facts that may be replayed. Of all subjects that are left, the facts that the base knows are held back (what is
lost of them is forgetting), and some that it does not know are never taught (what is answered to them is made up). A
fact of a subject that something taught names (“Elizabeth”, where one of that name and a title is taught) is not asked.

`people` (`studies.people_base`): facts about people may be taught. Facts about places and works and questions through
another entity may only be held back. It knows 4,006 of its 15,130 facts, as its card says by split; a seed of the test
split teaches 1,000 facts and holds back some 2,150 known ones.

`entityquestions`: it knows 2,777 of the 11,662 facts for development and 3,457 of the 13,994 for the test (18 and 19 %
HighlyKnown, 11 % MaybeKnown, 20 and 19 % WeaklyKnown, 52 % Unknown), and beside them has 2,397 facts for early stop, a
half each. A seed of the test split teaches 1,000 facts and holds back some 2,390 known ones.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.facts import Fact, FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.probe import Category, ExemplarSets, ProbeConfig, draw_exemplars
from studies.gradual_guard import Unsaid, tells, unmentioned, unsaid
from studies.gradual_kept import kept_or_made

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.worlds import World

BaseName = Literal["people", "entityquestions"]
Split = Literal["development", "test"]
BASES: tuple[BaseName, ...] = ("people", "entityquestions")
SPLITS: tuple[Split, ...] = ("development", "test")

TEST_SHARE = 0.8
"""Of the subjects of `people`. EntityQuestions has a test split already, to which its held-back one is added."""

KEPT = Path(__file__).parent / "results" / "gradual_bases.json"
"""What the bases answer, where they were asked."""

ASKED = 2
"""Wordings of each fact that only the study asks. They are the last ones of its relation; no method sees them."""

ONCE = ProbeConfig(decode=False, prior=False)
"""How the base is asked once: the whole protocol, without writing out wrong answers."""


class Sizes(BaseModel):
    """How many facts of each kind a seed draws, where its split has them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: int = Field(default=1000, ge=1, description="facts taught, as they come")
    development: int = Field(default=200, ge=1, description="facts that early stop looks at, as they come")
    replay: int = Field(default=800, ge=1, description="HighlyKnown facts that methods may replay")
    held_back: int = Field(default=2400, ge=1, description="known facts that are neither taught nor replayed")
    untaught: int = Field(default=500, ge=1, description="facts that the base does not know and nobody teaches")
    general: int = Field(default=60, ge=1, description="texts for perplexity")


SIZES: dict[BaseName, dict[Split, Sizes]] = {
    "people": {
        "development": Sizes(target=400, development=100, replay=100),
        "test": Sizes(development=150, replay=250),
    },
    "entityquestions": {"development": Sizes(held_back=1000, untaught=300), "test": Sizes()},
}
"""`people` knows too little to replay more of it, or to teach as much on development subjects: what is taught or
replayed cannot be held back."""


@dataclass(frozen=True)
class Wordings:
    """How one fact is asked.

    Attributes:
        trained: the wording that lessons train on.
        free: others that a method may train on as well; it finds them as the fact's `paraphrases`.
        asked: wordings that nobody trains on. Pre-training asked about other facts in them.
    """

    trained: str
    free: tuple[str, ...]
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Material:
    """All that one base, split and seed gives. Facts have a role, and of their wordings `trained` and `free`.

    Attributes:
        base: what `instil.load` takes.
        target: facts to teach, of all four categories, as they come.
        replay: facts that the base knows in every exemplar set (role known).
        development: facts for early stop.
        held_back: facts of other subjects that the base knows, neither taught nor replayed.
        untaught: facts of other subjects that the base does not know and nobody teaches.
        exemplars: for prompts.
        general: texts for perplexity, which pre-training did not hold.
        wordings: of every fact above, by id.
        mastery: the base's, by fact id, as it was asked once.
        groups: of every fact above, by id: the number of its subject, or of two that are each other's answers. It is
            the same in every seed and split.
        teachable: subjects of the split that this or another seed may teach.
    """

    name: BaseName
    split: Split
    seed: int
    base: str | Path
    target: FactSet
    replay: FactSet
    development: FactSet
    held_back: FactSet
    untaught: FactSet
    exemplars: FactSet
    general: tuple[str, ...]
    wordings: Mapping[str, Wordings]
    mastery: Mapping[str, Category]
    groups: Mapping[str, int]
    teachable: frozenset[str]

    @property
    def roles(self) -> Roles:
        """What a lesson is given."""
        return Roles(target=self.target, known=self.replay, development=self.development)

    @cached_property
    def sets(self) -> ExemplarSets:
        """Ten exemplar sets of every relation; a quick look takes the first few."""
        facts = (self.target, self.replay, self.development, self.held_back, self.untaught)
        return draw_exemplars(self.exemplars, {fact.relation for part in facts for fact in part}, ONCE)

    @cached_property
    def asked_sets(self) -> ExemplarSets:
        """As `sets`, drawn anew, for what is measured: a fact is held back because of its answers behind `sets`, and to
        measure it by the same answers would call every change forgetting."""
        relations = {*self.sets.sets} - {""}
        return draw_exemplars(self.exemplars, relations, ONCE.model_copy(update={"seed": ONCE.seed + 1}))

    @cached_property
    def never_trained(self) -> frozenset[str]:
        """Every wording that no lesson may train on."""
        held = (fact.question for part in (self.held_back, self.untaught, self.development) for fact in part)
        return frozenset(text for one in self.wordings.values() for text in one.asked).union(held)

    @cached_property
    def _unsaid(self) -> Unsaid:
        return unsaid((*self.held_back, *self.untaught), self.teachable)

    def guard(self, texts: Sequence[str]) -> None:
        """For a lesson. Raises `InputError` when a text is one that is only asked, or tells of a held-back subject."""
        if seen := self.never_trained.intersection(texts):
            raise InputError("what is only asked would be trained on", field="question", found=min(seen))
        for text in texts:
            if tells(text, self._unsaid):
                raise InputError("a held-back subject would be trained on", field="question", found=text)

    def described(self) -> dict[str, Any]:
        """Sizes, for the results."""
        found = Counter(str(self.mastery[fact.id]) for fact in self.target)
        sizes = {name: len(getattr(self, name)) for name in Sizes.model_fields}
        return {"sizes": sizes, "target": {str(category): found[str(category)] for category in Category}}


@dataclass(frozen=True)
class Base:
    """A base model with everything that may be asked of it.

    Attributes:
        load: what `instil.load` takes.
        taught: by split, the facts that may play any part.
        tuning: by split, facts for early stop; where there are none, they come from `taught`.
        beside: by split, further facts that may only be held back.
        exemplars: for prompts, of subjects of their own.
        general: texts that pre-training did not hold.
        groups: fact id to what keeps facts together: their subject, or two that are each other's answers.
    """

    name: BaseName
    load: str | Path
    taught: Mapping[Split, FactSet]
    tuning: Mapping[Split, FactSet]
    beside: Mapping[Split, FactSet]
    exemplars: FactSet
    general: tuple[str, ...]
    groups: Mapping[str, str]

    @cached_property
    def group_numbers(self) -> dict[str, int]:
        """Each group's number, for results that name no subject."""
        return {group: number for number, group in enumerate(sorted(set(self.groups.values())))}

    @property
    def asked_once(self) -> FactSet:
        """Every fact whose mastery the study needs to know."""
        parts = (self.taught, self.tuning, self.beside)
        return FactSet(fact for part in parts for split in SPLITS for fact in part[split]).in_order_of_ids()


def material(name: BaseName, split: Split, seed: int, work: Path, sizes: Sizes) -> Material:
    """The material of one base, split and seed.

    Args:
        name: of the base.
        split: "development" to choose settings on, "test" for results.
        seed: of what is drawn from the split.
        work: where the base's own answers are kept once it was asked.
        sizes: how much is drawn.
    """
    return drawn(base_of(name), split, seed, mastery_of(name, work), sizes)


@cache
def base_of(name: BaseName) -> Base:
    return people() if name == "people" else entityquestions()


@dataclass(frozen=True)
class Asked:
    """What the base answered to a fact: its category, and how many of ten greedy answers were right."""

    category: Category
    right: int

    @property
    def known(self) -> bool:
        return 2 * self.right >= ONCE.exemplar_sets


@cache
def mastery_of(name: BaseName, work: Path, kept: Path = KEPT) -> Mapping[str, Asked]:
    """What the base answers to every fact, by id: asked once and kept with the results, a letter and a digit each."""
    import instil

    base = base_of(name)
    facts, lm = base.asked_once, instil.load(base.load)
    of = {"model": lm.fingerprint, "facts": facts.fingerprint, "protocol": ONCE.model_dump(mode="json")}
    found = kept_or_made(kept, name, of, lambda: ask_once(base, lm, work))
    letters = {category[0]: category for category in Category}
    return {
        fact.id: Asked(letters[letter], int(right, 11))
        for fact, letter, right in zip(facts, found["categories"], found["right"], strict=True)
    }


def asked_of(name: BaseName, kept: Path = KEPT) -> dict[str, Any]:
    """What the kept answers of a base were made from: its fingerprint, that of its facts, the protocol."""
    held = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    return dict(held.get(name, {}).get("of", {}))


def ask_once(base: Base, lm: LanguageModel, work: Path) -> dict[str, str]:
    """The whole protocol on every fact; interrupted, it goes on under `work`."""
    from instil.probe import probe

    facts = base.asked_once
    sets = draw_exemplars(base.exemplars, facts.by_relation, ONCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of relations with few exemplars; the card of the base says which
        rows = probe(lm, facts, sets, ONCE, out=work / f"{base.name}-{lm.fingerprint}", resume=True).by_id
    answers = [rows[fact.id] for fact in facts]
    return {
        "categories": "".join(row.category[0] for row in answers),
        "right": "".join("0123456789a"[round(10 * row.p_greedy)] for row in answers),
    }


def drawn(base: Base, split: Split, seed: int, mastery: Mapping[str, Asked], sizes: Sizes) -> Material:
    """Divide one split's subjects among the parts of a lesson and of what is asked.

    Raises:
        InputError: the split has too few facts to teach and to ask.
    """
    rng = random.Random(f"gradual {base.name} {split} {seed}")
    groups = by_group(base, base.taught[split])
    order = sorted(groups)
    rng.shuffle(order)
    waiting = iter(order)
    target = list(take(waiting, groups, sizes.target))
    tuning = by_group(base, base.tuning[split])
    rather = sorted(tuning)
    rng.shuffle(rather)
    development = list(take(iter(rather), tuning, sizes.development) if tuning else
                       take(waiting, groups, sizes.development))  # fmt: skip
    replay: list[Fact] = []
    rest: list[str] = []
    for group in waiting:
        well = [fact for fact in groups[group] if mastery[fact.id].category is Category.HIGHLY_KNOWN]
        if well and len(replay) < sizes.replay:
            replay += well
        else:
            rest.append(group)
    taken = {base.groups[fact.id] for fact in (*target, *development, *replay)}
    others = [fact for group in rest for fact in groups[group]]
    others += [fact for fact in base.beside[split] if base.groups[fact.id] not in taken]
    known = [fact for fact in others if mastery[fact.id].known]
    new = [fact for fact in others if not mastery[fact.id].known]
    if len(target) < sizes.target or not (development and replay and known and new):
        raise InputError("the split has too few facts", field=f"{base.name}, {split}", found=f"{len(target)} to teach")
    trained = [text for fact in (*target, *replay) for text in (fact.question, *wordings_of(fact).free)]
    teachable = frozenset(fact.cluster for fact in base.taught[split])
    held_back = unmentioned(rng.sample(known, min(len(known), sizes.held_back)), trained, teachable)
    untaught = unmentioned(rng.sample(new, min(len(new), sizes.untaught)), trained, teachable)
    every = [*target, *development, *replay, *held_back, *untaught]

    def facts(part: Sequence[Fact], role: Role) -> FactSet:
        return FactSet(replace(fact, role=role, paraphrases=wordings_of(fact).free) for fact in part)

    return Material(
        name=base.name,
        split=split,
        seed=seed,
        base=base.load,
        target=facts(target, Role.TARGET),
        replay=facts(replay, Role.KNOWN),
        development=facts(development, Role.DEVELOPMENT),
        held_back=facts(held_back, Role.HELD_BACK),
        untaught=facts(untaught, Role.HELD_BACK),
        exemplars=base.exemplars,
        general=base.general[: sizes.general],
        wordings={fact.id: wordings_of(fact) for fact in every},
        mastery={fact.id: mastery[fact.id].category for fact in every},
        groups={fact.id: base.group_numbers[base.groups[fact.id]] for fact in every},
        teachable=teachable,
    )


def wordings_of(fact: Fact) -> Wordings:
    """Of a fact as its world words it."""
    place = max(0, len(fact.paraphrases) - ASKED)
    return Wordings(fact.question, fact.paraphrases[:place], fact.paraphrases[place:])


def by_group(base: Base, facts: FactSet) -> dict[str, list[Fact]]:
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[base.groups[fact.id]].append(fact)
    return groups


def take(waiting: Iterator[str], groups: Mapping[str, Sequence[Fact]], count: int) -> Iterator[Fact]:
    """The facts of whole groups, one after the other, `count` in all: those of the last group that are too many play
    no part."""
    taken = 0
    while taken < count and (group := next(waiting, None)) is not None:
        some = groups[group][: count - taken]
        taken += len(some)
        yield from some


def divided(names: Sequence[str], share: float, key: str) -> dict[str, Split]:
    """Each name's split; the share of them that is for the test is set aside first."""
    order = sorted(set(names))
    random.Random(key).shuffle(order)
    test = round(share * len(order))
    return {name: "test" if number < test else "development" for number, name in enumerate(order)}


def in_split(facts: FactSet, home: Mapping[str, Split], groups: Mapping[str, str]) -> dict[Split, FactSet]:
    return {split: facts.where(lambda fact, split=split: home[groups[fact.id]] == split) for split in SPLITS}


# -------------------------------------------------------------------- the two bases


def people() -> Base:
    """The base of `studies.people_base` and its world. Facts about people play any part; facts about places and works,
    and questions through another entity, may only be held back."""
    from instil.worlds.relations import PERSON_RELATIONS
    from studies.people_base import HOME, people_world

    world = people_world()
    personal = {relation.name for relation in PERSON_RELATIONS}
    facts = world.facts.where(lambda fact: fact.role is not Role.EXEMPLAR)
    hops = world.hop_facts.where(lambda fact: fact.role is not Role.EXEMPLAR)
    couple = couples(world)
    groups = {fact.id: couple.get(str(fact.subject), str(fact.subject)) for fact in (*facts, *hops)}
    home = divided(list(groups.values()), TEST_SHARE, "gradual people split")
    none = FactSet(())
    return Base(
        name="people",
        load=HOME,
        taught=in_split(facts.where(lambda fact: fact.relation in personal), home, groups),
        tuning=dict.fromkeys(SPLITS, none),
        beside=in_split(facts.where(lambda fact: fact.relation not in personal) + hops, home, groups),
        exemplars=world.facts.with_role(Role.EXEMPLAR) + world.hop_facts.with_role(Role.EXEMPLAR),
        general=world.general_texts(0, 100),
        groups=groups,
    )


def couples(world: World) -> dict[str, str]:
    """Each person to the first name, in the alphabet, of those who are married with one another: what is said of one
    by a fact about their spouse is said of the other."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for fact in world.facts:
        if fact.relation == "spouse":
            one, other = sorted((find(str(fact.subject)), find(fact.answers[0])))
            leader[other] = one
    return {name: find(name) for name in list(leader)}


def entityquestions() -> Base:
    """The base that has read EntityQuestions facts. Its world's test split, of which nothing was ever looked at, and
    the held-back one are for the test, the target and the known one for development.

    Raises:
        InputError: INSTIL_DATA does not name the public data.
    """
    from studies.entityquestions import build_world, mirrored_subjects
    from studies.entityquestions_text import paragraphs
    from studies.first_run import BASE

    world = build_world()
    leader = mirrored_subjects(list(world.facts))
    groups = {fact.id: leader[str(fact.subject)] for fact in world.facts}
    tuning = world.split("development")
    halves = divided([groups[fact.id] for fact in tuning], 0.5, "gradual entityquestions split")
    none = FactSet(())
    return Base(
        name="entityquestions",
        load=BASE,
        taught={
            "development": world.split("target") + world.split("known"),
            "test": world.split("test") + world.split("held_back"),
        },
        tuning=in_split(tuning, halves, groups),
        beside=dict.fromkeys(SPLITS, none),
        exemplars=world.split("exemplars"),
        general=tuple(next(paragraphs(article)) for article in world.general),
        groups=groups,
    )


def counted(name: BaseName, work: Path) -> dict[Split, dict[str, dict[str, int]]]:
    """By split, for facts that may be taught and those beside them: how many of each category, and how many known.

    It says what the docstring of this module says of the two bases.
    """
    base, mastery = base_of(name), mastery_of(name, work)
    found: dict[Split, dict[str, dict[str, int]]] = {}
    for split in SPLITS:
        found[split] = {}
        for part, facts in (("taught", base.taught), ("tuning", base.tuning), ("beside", base.beside)):
            rows = {fact.id: mastery[fact.id] for fact in facts[split]}
            categories = Counter(str(row.category) for row in rows.values())
            found[split][part] = {
                "facts": len(rows),
                "subjects": len({base.groups[fact_id] for fact_id in rows}),
                **{str(category): categories[str(category)] for category in Category},
                "known": sum(row.known for row in rows.values()),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What the bases know of their facts, by split.")
    parser.add_argument("--work", type=Path, default=Path("runs") / "gradual" / "bases", help="where answers are kept")
    parser.add_argument("--bases", nargs="+", choices=BASES, default=BASES, help="these only")
    given = parser.parse_args()
    print(json.dumps({name: counted(name, given.work) for name in given.bases}, indent=1))


if __name__ == "__main__":
    main()
