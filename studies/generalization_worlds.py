"""What the study of generalization teaches and asks: biographies of people that the base has never met.

Each seed is a world of its own: its people, places, companies and what is true of them. The base (the embedded model)
was pre-trained on world 0. Rates and ρ are chosen on new people of world 0 and reported on worlds 1, 2, …, of which
neither the base nor the choosing has seen a name.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from instil.facts import Corpus, Document, FactSet, Role
from instil.worlds import World, WorldConfig, generate_world
from instil.worlds.embedded import embedded_world, well_told
from instil.worlds.relations import PERSON_RELATIONS
from instil.worlds.world import Entity, biography_sentences
from studies.generalization_asking import accuracy, of_known, of_people, of_text

if TYPE_CHECKING:
    from instil.model import LanguageModel

DEVELOPMENT = 0
"""The world on which settings are chosen: the base's own, and of it people whom pre-training never mentions."""

PERSONAL = frozenset(relation.name for relation in PERSON_RELATIONS)


@dataclass(frozen=True)
class Data:
    """All that one seed needs.

    Attributes:
        documents: one biography a person, each fact told once; `metadata.paraphrases` are other wordings of it.
        questions: about these people; asked, and never trained on.
        practice: questions about people whom the base knows, with answers that it was told often.
        practice_documents: the biographies of these people, for methods that read them with the questions.
        known: questions about other people whom the base was told of; what is lost of them is forgotten.
        exemplars: for prompts.
        general: texts for perplexity.
    """

    documents: Corpus
    questions: FactSet
    practice: FactSet
    practice_documents: Corpus
    known: FactSet
    exemplars: FactSet
    general: tuple[str, ...]
    base: str = "embedded"

    def look(self, lm: LanguageModel) -> dict[str, float]:
        return {"accuracy": accuracy(lm, self.questions, self.exemplars)}

    def examine(self, lm: LanguageModel) -> dict[str, Any]:
        return {
            "questions": of_people(lm, self.questions, self.exemplars),
            "known": of_known(lm, self.known, self.exemplars),
            **of_text(lm, self.general),
        }


def data(world_seed: int, *, people: int, wordings: int, practice: int, known: int) -> Data:
    """The data of one world.

    Args:
        world_seed: `DEVELOPMENT`, or that of another world.
        people: that are taught.
        wordings: further biographies of each person.
        practice: questions to practise on.
        known: questions to measure forgetting with.
    """
    base = embedded_world()
    world = base if world_seed == DEVELOPMENT else other_world(world_seed)
    rng = random.Random(f"generalization {world_seed}")
    taught = rng.sample(new_people(world, base), people)
    names = {person.name for person in taught}
    told = base.facts.where(lambda fact: fact.relation in PERSONAL and fact.metadata["exposures"] > 0)
    practised = told.with_role(Role.TARGET).where(well_told).sample(practice, world_seed).assign(Role.PRACTICE)
    return Data(
        documents=Corpus(biography(world, person, wordings) for person in taught),
        questions=world.facts.where(lambda fact: fact.subject in names and fact.relation in PERSONAL),
        practice=practised,
        practice_documents=Corpus(
            replace(biography(base, person, 0), role=Role.PRACTICE)
            for person in base.entities
            if person.kind == "person" and person.name in practised.subjects
        ),
        known=told.with_role(Role.HELD_BACK).sample(known, world_seed),
        exemplars=base.facts.with_role(Role.EXEMPLAR),
        general=base.general_texts(world_seed, 60),
    )


@cache
def other_world(seed: int) -> World:
    return generate_world(WorldConfig(seed=seed))


def new_people(world: World, base: World) -> list[Entity]:
    """People of `world` whom pre-training on `base` never mentioned, nor anyone of that name.

    In the base's own world they are those that exist for being taught.
    """
    taken = {entity.name for entity in base.entities} if world is not base else set()
    return [
        person
        for person in world.entities
        if person.kind == "person"
        and person.name not in taken
        and (world is not base or all(claim.exposures == 0 for claim in world.by_subject[person.id]))
    ]


def biography(world: World, person: Entity, wordings: int) -> Document:
    """One paragraph that tells every fact once, mostly with pronouns, and `wordings` others that tell the same."""
    texts = [_paragraph(world, person, number) for number in range(1 + wordings)]
    return Document(
        id=f"bio-{person.id}",
        text=texts[0],
        title=person.name,
        subject=person.name,
        role=Role.TARGET,
        metadata={"paraphrases": texts[1:]},
    )


def _paragraph(world: World, person: Entity, number: int) -> str:
    rng = random.Random(f"{world.config.seed}-{person.id}-told-{number}")
    claims = list(world.by_subject[person.id])
    rng.shuffle(claims)
    return " ".join(biography_sentences([(claim, claim.answer) for claim in claims], rng))


def describe(found: Data) -> dict[str, float]:
    """Sizes, for the results."""
    words = [len(document.text.split()) for document in found.documents]
    return {
        "documents": len(found.documents),
        "words_a_document": sum(words) / len(words),
        "questions": len(found.questions),
        "practice": len(found.practice),
        "known_asked": len(found.known),
    }


__all__: Sequence[str] = ["DEVELOPMENT", "Data", "biography", "data", "describe", "new_people", "other_world"]
