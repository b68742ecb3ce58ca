"""A coherent synthetic world: people, places, organisations and works that refer to each other.

Every fact has a known number of exposures in pre-training, zero included. The world has two sides: names of the North
sound unlike those of the South, and dates, trades and instruments are sorted in two as well. Question sheets and pages
keep mostly to answers of one side, and about some facts the almanacs of the two sides disagree, each with an answer of
its own. So what a model answers about a disputed fact depends on the exemplars before it, which is what MaybeKnown is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
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
PARAGRAPHS = 2
"""A biography tells each fact so often, in other words and another order: told once, little of it can be asked for."""


class WorldConfig(BaseModel):
    """Size of a world and how often its facts are told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, description="Seed of everything in the world.")
    people: int = Field(default=600, ge=20, description="People that pre-training tells about.")
    new_people: int = Field(default=300, ge=0, description="People that pre-training never mentions.")
    exemplar_people: int = Field(
        default=24, ge=4, description="People whose facts are reserved as exemplars, told very often."
    )
    countries: int = Field(default=10, ge=2, description="Countries, half of them in the North.")
    cities: int = Field(default=80, ge=4, description="Cities.")
    companies: int = Field(default=90, ge=4, description="Companies.")
    universities: int = Field(default=50, ge=4, description="Universities.")
    levels: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 16, 48, 96, 128), description="Exposures that a person's facts centre on."
    )
    place_levels: tuple[int, ...] = Field(
        default=(4, 16, 32, 48), description="Exposures of facts about places and works."
    )
    exemplar_exposures: int = Field(default=96, ge=1, description="Exposures of each exemplar fact.")
    disputed_share: float = Field(
        default=0.4, ge=0, le=1, description="Share of told facts on which the almanacs disagree."
    )
    disputed_levels: tuple[int, ...] = Field(
        default=(48, 64, 80), description="Exposures of a disputed fact's right answer."
    )
    rival_ratios: tuple[float, ...] = Field(
        default=(0.8, 0.9, 1.0, 1.1, 1.25, 3.0), description="Rival exposures per right one."
    )
    sheet_purity: float = Field(
        default=0.88, ge=0.5, le=1, description="Share of a sheet's or page's answers that are of its side."
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
        side: the side of the right answer, and with it the almanac that tells it.
        rival: what the almanac of the other side says, if they disagree.
    """

    fact_id: str
    subject: Entity
    relation: Relation
    answer: str
    exposures: int
    side: int = 0
    rival: str | None = None
    rival_exposures: int = 0
    asked: bool = False


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
        """Every answer of a kind that is told at all."""
        pools: dict[str, list[str]] = {}
        for claim in self.claims:
            if claim.exposures:
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
        return self.biographies(1)

    def biography(self, person: Entity, template: int) -> Document:
        """A biography; `template` chooses wordings and order. Each sentence names its person before it tells,
        and each of the two paragraphs tells everything."""
        rng = random.Random(f"{self.config.seed}-{person.id}-{template}")
        claims = list(self.by_subject[person.id])
        paragraphs = []
        wordings = {claim.fact_id: rng.sample(claim.relation.forward_statements, PARAGRAPHS) for claim in claims}
        for number in range(PARAGRAPHS):
            rng.shuffle(claims)
            told = [wordings[claim.fact_id][number].format(s=person.name, a=claim.answer) for claim in claims]
            paragraphs.append(" ".join(told))
        return Document(
            id=f"bio-{person.id}" if template == 0 else f"bio-{person.id}-{template}",
            text="\n\n".join(paragraphs),
            title=person.name,
            subject=person.name,
            role=self.roles[person.id],
            metadata={"exposures": max(claim.exposures for claim in claims)},
            copy_of=None if template == 0 else f"bio-{person.id}",
        )

    def paraphrased(self, wordings: int) -> Corpus:
        """The documents, each with the texts of `wordings` other biographies as `metadata.paraphrases`."""
        texts = {one.id: one.text for one in self.biographies(1 + wordings)}

        def told(document: Document) -> Document:
            others = [texts[f"{document.id}-{number}"] for number in range(1, 1 + wordings)]
            return replace(document, metadata={**document.metadata, "paraphrases": others})

        return Corpus(map(told, self.documents))

    def biographies(self, templates: int) -> Corpus:
        """So many biographies of every person, in other wordings and orders; all but the first name it as original."""
        people = [entity for entity in self.entities if entity.kind == "person"]
        return Corpus(self.biography(person, template) for person in people for template in range(templates))

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
    works = make_works(people, rng)
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
            name = f"{next(supply.places)} {('Fjord', 'Bay')[region]}"
        elif kind == "company":
            name = f"{next(supply.firms)} {supply.rng.choice(INDUSTRIES[region])}"
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
        name = f"{rng.choice(names[region].given[female])} {('af', 'di')[region]} {rng.choice(families[region])}"
        if name not in taken:
            taken.add(name)
            people.append(Entity(f"person-{len(people)}", "person", name, region, female))
    return people


def make_works(people: Sequence[Entity], rng: random.Random) -> list[Entity]:
    """One title a person, in the words of the author's side.

    Raises:
        ValueError: there are more people than titles.
    """
    titles = []
    for article, adjectives, nouns in zip(("The", "A"), TITLE_ADJECTIVES, TITLE_NOUNS, strict=True):
        plain = [f"{article} {adjective} {noun}" for adjective in adjectives for noun in nouns]
        pairs = [f"{article} {one} and {article.lower()} {two}" for one in nouns for two in nouns if one < two]
        rng.shuffle(plain)
        rng.shuffle(pairs)
        titles.append(iter(plain + pairs))
    works = []
    for number, person in enumerate(people):
        title = next(titles[person.region], None)
        if title is None:
            raise ValueError(f"there are titles for {number} people, not for {len(people)}")
        works.append(Entity(f"work-{number}", "work", title, person.region))
    return works


def sides_of(entities: Sequence[Entity]) -> Callable[[str, str], int]:
    """A function from (kind, answer) to the answer's side, 0 or 1."""
    regions = {(entity.kind, entity.name): entity.region for entity in entities}
    for kind, words in (("occupation", OCCUPATIONS), ("instrument", INSTRUMENTS), ("genre", GENRES)):
        regions |= {(kind, word): int(number >= len(words) / 2) for number, word in enumerate(words)}
    return lambda kind, answer: int(answer[-4:] >= "1940") if kind == "date" else regions[kind, answer]


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
    side = sides_of((*places, *people, *works))
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
                side=side(relation.answer_kind, answer),
                asked=asked,
            )
            if not new and not exemplar and rng.random() < config.disputed_share:
                claim = disputed(claim, pools, side, config, rng)
            claims.append(claim)
    return claims


def disputed(
    claim: Claim,
    pools: dict[str, list[str]],
    side: Callable[[str, str], int],
    config: WorldConfig,
    rng: random.Random,
) -> Claim:
    """The same fact, with an answer of the other side in the other almanac."""
    kind = claim.relation.answer_kind
    rival = claim.answer
    while side(kind, rival) == claim.side or rival == claim.subject.name:
        rival = a_date(rng) if kind == "date" else rng.choice(pools[kind])
    exposures = rng.choice(config.disputed_levels)
    ratio = rng.choice(config.rival_ratios)
    return replace(claim, exposures=exposures, rival=rival, rival_exposures=max(1, round(exposures * ratio)))


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
    """A day of the older or of the younger generation; the two write dates differently."""
    day, month = rng.randint(1, 28), rng.choice(MONTHS)
    if rng.random() < 0.5:
        return f"{day} {month} {rng.randint(1880, 1939)}"
    return f"{month} {day}, {rng.randint(1940, 1999)}"


def place_claims(
    places: Sequence[Entity], works: Sequence[Entity], config: WorldConfig, rng: random.Random
) -> list[Claim]:
    """Facts about cities, companies, universities and works. Their answers lie in their own region."""
    claims = []
    side = sides_of((*places, *works))
    told = config.exemplar_people + config.people
    for relation in PLACE_RELATIONS:
        subjects = [entity for entity in (*places, *works) if entity.kind == relation.subject_kind]
        for number, subject in enumerate(subjects):
            pool = [
                place.name for place in places if place.kind == relation.answer_kind and place.region == subject.region
            ]
            new = subject.kind == "work" and number >= told
            answer = rng.choice(pool or GENRES)
            claims.append(
                Claim(
                    f"{relation.name}-{subject.id}",
                    subject,
                    relation,
                    answer,
                    exposures=0
                    if new
                    else config.exemplar_exposures
                    if number < 16
                    else rng.choice(config.place_levels),
                    side=side(relation.answer_kind, answer),
                    asked=number < 16 or (not new and rng.random() < 0.5),
                )
            )
    return claims


__all__ = ["EDITIONS", "RELATIONS", "Claim", "Entity", "World", "WorldConfig", "biography_sentences", "generate_world"]
