"""A coherent synthetic world: people, places, organisations and works that refer to each other.

Every fact has a known number of exposures in pre-training, zero included. Two almanacs, of the North and of the South,
tell the world; about some facts they disagree, and a question sheet of either side lists its own people. So what a
model answers about a disputed fact depends on whom the exemplars are about, which is what MaybeKnown looks like.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from instil.facts.types import Corpus, Document, Fact, FactSet, Role
from instil.worlds.names import SOUNDS, Sounds, distinct, joined
from instil.worlds.prose import paragraph
from instil.worlds.relations import (
    GENRES,
    HOPS,
    INDUSTRIES,
    INSTRUMENTS,
    MONTHS,
    OCCUPATIONS,
    PERSON_RELATIONS,
    PLACE_RELATIONS,
    RELATIONS,
    TITLE_ADJECTIVES,
    TITLE_NOUNS,
    Relation,
)

EDITIONS = ("Northern Almanac", "Southern Almanac")


class WorldConfig(BaseModel):
    """Size of a world and how often its facts are told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, description="Seed of everything in the world.")
    people: int = Field(default=700, ge=20, description="People that pre-training tells about.")
    new_people: int = Field(default=300, ge=0, description="People that pre-training never mentions.")
    exemplar_people: int = Field(
        default=24, ge=4, description="People whose facts are reserved as exemplars, told very often."
    )
    countries: int = Field(default=10, ge=2, description="Countries, half of them in the North.")
    cities: int = Field(default=80, ge=4, description="Cities.")
    companies: int = Field(default=90, ge=4, description="Companies.")
    universities: int = Field(default=50, ge=4, description="Universities.")
    levels: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 16, 32, 64), description="Exposures that a person's facts centre on."
    )
    place_levels: tuple[int, ...] = Field(
        default=(4, 16, 32, 48), description="Exposures of facts about places and works."
    )
    exemplar_exposures: int = Field(default=64, ge=1, description="Exposures of each exemplar fact.")
    disputed_share: float = Field(
        default=0.3, ge=0, le=1, description="Share of told facts on which the almanacs disagree."
    )
    disputed_levels: tuple[int, ...] = Field(
        default=(12, 24, 40), description="Exposures of a disputed fact's right answer."
    )
    rival_ratios: tuple[float, ...] = Field(
        default=(0.5, 1.0, 1.0, 1.0, 3.0), description="Rival exposures per right one."
    )
    layout_share: float = Field(default=0.25, ge=0, le=1, description="Share of statements and biographies in markup.")
    unknown_entities: int = Field(
        default=500, ge=0, description="Questions about what does not exist, answered by not knowing."
    )
    prose_paragraphs: int = Field(default=6000, ge=0, description="Paragraphs of general prose.")


@dataclass(frozen=True)
class Entity:
    """Something that facts are about. `region` is 0 in the North and 1 in the South."""

    id: str
    kind: str
    name: str
    region: int
    female: bool = False


@dataclass(frozen=True)
class Claim:
    """A fact of the world and how it is told.

    Attributes:
        answer: what is right.
        rival: what the other almanac says, if they disagree.
        gold_edition: the almanac that has it right; None when both do.
    """

    fact_id: str
    subject: Entity
    relation: Relation
    answer: str
    exposures: int
    rival: str | None = None
    rival_exposures: int = 0
    gold_edition: int | None = None
    asked: bool = False

    def told_by(self, edition: int) -> str:
        """The answer of one almanac."""
        return self.answer if self.rival is None or edition == self.gold_edition else self.rival


@dataclass(frozen=True)
class World:
    """Entities and claims; facts, documents and pre-training texts follow from them."""

    config: WorldConfig
    entities: tuple[Entity, ...]
    claims: tuple[Claim, ...]
    roles: dict[str, Role]

    @cached_property
    def by_id(self) -> dict[str, Entity]:
        return {entity.id: entity for entity in self.entities}

    @cached_property
    def pools(self) -> dict[str, tuple[str, ...]]:
        """Every name of a kind of answer."""
        pools: dict[str, list[str]] = {}
        for claim in self.claims:
            pools.setdefault(claim.relation.answer_kind, []).append(claim.answer)
        return {kind: tuple(sorted(set(names))) for kind, names in pools.items()}

    @cached_property
    def by_subject(self) -> dict[str, tuple[Claim, ...]]:
        groups: dict[str, list[Claim]] = {}
        for claim in self.claims:
            groups.setdefault(claim.subject.id, []).append(claim)
        return {subject: tuple(claims) for subject, claims in groups.items()}

    @cached_property
    def reverse_answers(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Every subject that has an answer, by (relation, answer)."""
        groups: dict[tuple[str, str], list[str]] = {}
        for claim in self.claims:
            groups.setdefault((claim.relation.name, claim.answer), []).append(claim.subject.name)
        return {key: tuple(names) for key, names in groups.items()}

    @cached_property
    def facts(self) -> FactSet:
        """All facts, each with its role and its exposures."""
        return FactSet(self.fact_of(claim) for claim in self.claims)

    def fact_of(self, claim: Claim) -> Fact:
        relation, name = claim.relation, claim.subject.name
        metadata: dict[str, Any] = {"exposures": claim.exposures, "asked": claim.asked}
        if claim.rival is not None:
            metadata |= {"rival": claim.rival, "rival_exposures": claim.rival_exposures}
        return Fact(
            id=claim.fact_id,
            question=relation.questions[0].format(s=name),
            answers=(claim.answer,),
            subject=name,
            relation=relation.name,
            paraphrases=tuple(wording.format(s=name) for wording in relation.questions[1:]),
            completions=tuple(wording.format(s=name) for wording in relation.completions),
            reverse_question=relation.reverse[0].format(a=claim.answer),
            reverse_answers=self.reverse_answers[relation.name, claim.answer],
            documents=(f"bio-{claim.subject.id}",) if claim.subject.kind == "person" else (),
            role=self.roles[claim.subject.id],
            metadata=metadata,
        )

    @cached_property
    def hop_facts(self) -> FactSet:
        """Questions through another entity; they keep the role of their subject."""
        second = {(claim.subject.name, claim.relation.name): claim.answer for claim in self.claims}
        found = []
        for hop in HOPS:
            for claim in self.claims:
                if claim.relation.name == hop.first:
                    name = claim.subject.name
                    found.append(
                        Fact(
                            id=f"{hop.name}-{claim.subject.id}",
                            question=hop.questions[0].format(s=name),
                            answers=(second[claim.answer, hop.second],),
                            subject=name,
                            relation=hop.name,
                            paraphrases=tuple(wording.format(s=name) for wording in hop.questions[1:]),
                            role=self.roles[claim.subject.id],
                            metadata={"through": claim.answer, "exposures": claim.exposures},
                        )
                    )
        return FactSet(found)

    @cached_property
    def documents(self) -> Corpus:
        """One biography of every person, with all that is right about them."""
        return Corpus(self.biography(entity, template=0) for entity in self.entities if entity.kind == "person")

    def biography(self, person: Entity, template: int) -> Document:
        """A biography; `template` chooses wording and order."""
        rng = random.Random(f"{self.config.seed}-{person.id}-{template}")
        claims = list(self.by_subject[person.id])
        rng.shuffle(claims)
        return Document(
            id=f"bio-{person.id}" if template == 0 else f"bio-{person.id}-{template}",
            text=" ".join(biography_sentences([(claim, claim.answer) for claim in claims], rng)),
            title=person.name,
            subject=person.name,
            role=self.roles[person.id],
            metadata={"exposures": max(claim.exposures for claim in claims)},
        )

    def general_texts(self, seed: int, count: int = 100) -> tuple[str, ...]:
        """Paragraphs of general prose that pre-training did not hold, for perplexity."""
        rng = random.Random(f"held-out prose {seed}")
        return tuple(paragraph(rng) for _ in range(count))

    def texts(self) -> Iterator[str]:
        """The pre-training texts, in order."""
        from instil.worlds.text import pretraining_texts

        return (text.text for text in pretraining_texts(self))


def biography_sentences(told: Sequence[tuple[Claim, str]], rng: random.Random) -> list[str]:
    """One sentence a claim, about one person: the name first, then the name or a pronoun."""
    sentences = []
    for number, (claim, answer) in enumerate(told):
        template = rng.choice(claim.relation.statements)
        if number and template.startswith("{s}") and rng.random() < 0.6:
            if template.startswith("{s}'s"):
                template = ("Her" if claim.subject.female else "His") + template.removeprefix("{s}'s")
            else:
                template = ("She" if claim.subject.female else "He") + template.removeprefix("{s}")
        sentences.append(template.format(s=claim.subject.name, a=answer))
    return sentences


def generate_world(config: WorldConfig | None = None) -> World:
    """The world of a config: the same config gives the same world, on any machine."""
    config = config or WorldConfig()
    rng = random.Random(f"world {config.seed}")
    names = [Names(sounds, rng) for sounds in SOUNDS]
    places = [
        *make_entities("country", config.countries, names),
        *make_entities("city", config.cities, names),
        *make_entities("company", config.companies, names),
        *make_entities("university", config.universities, names),
    ]
    count = config.exemplar_people + config.people + config.new_people
    people = make_people(count, names, rng)
    titles = [f"The {adjective} {noun}" for adjective in TITLE_ADJECTIVES for noun in TITLE_NOUNS]
    extra = [f"The {one} and the {two}" for one in TITLE_NOUNS for two in TITLE_NOUNS if one < two]
    rng.shuffle(titles)
    titles += extra
    if count > len(titles):
        raise ValueError(f"there are titles for {len(titles)} people, not {count}")
    works = [Entity(f"work-{number}", "work", titles[number], person.region) for number, person in enumerate(people)]
    roles = assign_roles(people, places, works, config, rng)
    claims = [
        *person_claims(people, places, works, config, rng),
        *place_claims(places, works, config, rng),
    ]
    return World(config, (*places, *people, *works), tuple(claims), roles)


class Names:
    """An endless supply of one region's names, each used once."""

    def __init__(self, sounds: Sounds, rng: random.Random) -> None:
        self.sounds, self.rng = sounds, rng
        self.places = distinct(rng, sounds.onsets, ("", *sounds.middles[2:]), sounds.place_ends)
        self.families = distinct(rng, sounds.onsets, sounds.middles[1:], sounds.family_ends)
        self.firms = distinct(rng, sounds.onsets, sounds.middles[2:], ("ex", "on", "um", "ax", "or"))
        self.countries = distinct(
            rng, sounds.onsets, ("",), ("land", "mark") if "heim" in sounds.place_ends else ("ia",)
        )
        self.given = {
            True: [joined(first, end) for first in sounds.onsets for end in sounds.female_ends],
            False: [joined(first, end) for first in sounds.onsets for end in sounds.male_ends],
        }


def make_entities(kind: str, count: int, names: Sequence[Names]) -> list[Entity]:
    """`count` entities, North and South in turn."""
    made = []
    for number in range(count):
        region = number % 2
        supply = names[region]
        if kind == "country":
            name = next(supply.countries)
        elif kind == "city":
            name = next(supply.places)
        elif kind == "company":
            name = f"{next(supply.firms)} {supply.rng.choice(INDUSTRIES)}"
        else:
            name = f"{next(supply.firms)} {('Academy', 'College')[region]}"
        made.append(Entity(f"{kind}-{number}", kind, name, region))
    return made


def make_people(count: int, names: Sequence[Names], rng: random.Random) -> list[Entity]:
    """People with distinct full names; a family name is shared by few."""
    families = [list(supply.families) for supply in names]
    people: list[Entity] = []
    taken: set[str] = set()
    while len(people) < count:
        region = len(people) % 2
        female = rng.random() < 0.5
        name = f"{rng.choice(names[region].given[female])} {rng.choice(families[region])}"
        if name not in taken:
            taken.add(name)
            people.append(Entity(f"person-{len(people)}", "person", name, region, female))
    return people


def assign_roles(
    people: Sequence[Entity], places: Sequence[Entity], works: Sequence[Entity], config: WorldConfig, rng: random.Random
) -> dict[str, Role]:
    """A role a subject. The first people are exemplars; the best-told ones make the replay facts."""
    shares = {Role.TARGET: 0.55, Role.HELD_BACK: 0.25, Role.DEVELOPMENT: 0.12, Role.KNOWN: 0.08}
    names, weights = tuple(shares), tuple(shares.values())
    roles = {person.id: Role.EXEMPLAR for person in people[: config.exemplar_people]}
    told = config.exemplar_people + config.people
    for number, person in enumerate(people[config.exemplar_people :], start=config.exemplar_people):
        role = rng.choices(names, weights)[0]
        roles[person.id] = Role.TARGET if role is Role.KNOWN and number >= told else role
    for kind in (places, works):
        for number, entity in enumerate(kind):
            place = number if kind is works else int(entity.id.split("-")[1])
            roles[entity.id] = Role.EXEMPLAR if place < 16 else rng.choices(names, weights)[0]
    return roles


def person_claims(
    people: Sequence[Entity], places: Sequence[Entity], works: Sequence[Entity], config: WorldConfig, rng: random.Random
) -> list[Claim]:
    """All facts about people. Couples and authors are told consistently from both sides."""
    pools = {
        kind: [entity.name for entity in places if entity.kind == kind] for kind in ("city", "company", "university")
    }
    pools |= {"occupation": list(OCCUPATIONS), "instrument": list(INSTRUMENTS)}
    pools["work"] = [work.name for work in works]
    pools["person"] = [person.name for person in people]
    spouses = couples(people, config, rng)
    claims = []
    told = config.exemplar_people + config.people
    for number, person in enumerate(people):
        exemplar, new = number < config.exemplar_people, number >= told
        tier = rng.randrange(len(config.levels))
        asked = exemplar or (not new and rng.random() < 0.5)
        for relation in PERSON_RELATIONS:
            answer = {
                "spouse": spouses[person.id],
                "notable_work": works[number].name,
                "birth_date": a_date(rng),
            }.get(relation.name) or rng.choice(pools[relation.answer_kind])
            level = config.levels[min(max(tier + rng.choice((-1, 0, 0, 1)), 0), len(config.levels) - 1)]
            claim = Claim(
                f"{relation.name}-{person.id}",
                person,
                relation,
                answer,
                exposures=0 if new else config.exemplar_exposures if exemplar else level,
                asked=asked,
            )
            if not new and not exemplar and rng.random() < config.disputed_share:
                claim = disputed(claim, pools, config, rng)
            claims.append(claim)
    return claims


def disputed(claim: Claim, pools: dict[str, list[str]], config: WorldConfig, rng: random.Random) -> Claim:
    """The same fact, with another answer in one of the almanacs."""
    rival = claim.answer
    while rival in (claim.answer, claim.subject.name):
        rival = a_date(rng) if claim.relation.answer_kind == "date" else rng.choice(pools[claim.relation.answer_kind])
    exposures = rng.choice(config.disputed_levels)
    ratio = rng.choice(config.rival_ratios)
    return replace(
        claim,
        exposures=exposures,
        rival=rival,
        rival_exposures=max(1, round(exposures * ratio)),
        gold_edition=rng.randrange(2),
    )


def couples(people: Sequence[Entity], config: WorldConfig, rng: random.Random) -> dict[str, str]:
    """Everyone's spouse: exemplars, told people and new people marry among themselves, also across regions."""
    spouses: dict[str, str] = {}
    told = config.exemplar_people + config.people
    for group in (people[: config.exemplar_people], people[config.exemplar_people : told], people[told:]):
        order = list(group)
        rng.shuffle(order)
        for one, two in zip(order[0::2], order[1::2], strict=False):
            spouses[one.id], spouses[two.id] = two.name, one.name
        if len(order) % 2:
            spouses[order[-1].id] = order[0].name
    return spouses


def a_date(rng: random.Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1880, 1999)}"


def place_claims(
    places: Sequence[Entity], works: Sequence[Entity], config: WorldConfig, rng: random.Random
) -> list[Claim]:
    """Facts about cities, companies, universities and works. Their answers lie in their own region."""
    claims = []
    told = config.exemplar_people + config.people
    for relation in PLACE_RELATIONS:
        subjects = [entity for entity in (*places, *works) if entity.kind == relation.subject_kind]
        for number, subject in enumerate(subjects):
            pool = [
                place.name for place in places if place.kind == relation.answer_kind and place.region == subject.region
            ]
            new = subject.kind == "work" and number >= told
            claims.append(
                Claim(
                    f"{relation.name}-{subject.id}",
                    subject,
                    relation,
                    rng.choice(pool or GENRES),
                    exposures=0
                    if new
                    else config.exemplar_exposures
                    if number < 16
                    else rng.choice(config.place_levels),
                    asked=number < 16 or (not new and rng.random() < 0.5),
                )
            )
    return claims


__all__ = ["EDITIONS", "RELATIONS", "Claim", "Entity", "World", "WorldConfig", "biography_sentences", "generate_world"]
