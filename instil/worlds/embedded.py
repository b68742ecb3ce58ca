"""The world that the embedded model was pre-trained on, and the part of it that the demo teaches and asks."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from instil.facts.types import Fact, FactSet, Role
from instil.worlds.relations import PERSON_RELATIONS
from instil.worlds.world import World, WorldConfig, generate_world

DEMO_SHARES = {Role.TARGET: 0.6, Role.HELD_BACK: 0.22, Role.DEVELOPMENT: 0.11, Role.KNOWN: 0.07}

BESIDE_SHARE = 0.09
"""Facts that are held back about people whose other facts are taught, as a share of all."""

# At the rate that suits models a hundred times its size, one this small learns next to nothing in a few epochs.
DEMO_SETTINGS = {"train": {"learning_rate": 1e-4, "batch_size": 16}}


@cache
def embedded_world() -> World:
    """The world of the shipped weights, regenerated from the config that lies beside them (under a second)."""
    config = files("instil.model").joinpath("embedded", "world.json").read_text(encoding="utf-8")
    return generate_world(WorldConfig.model_validate_json(config))


def demo_facts(count: int = 560, seed: int = 0) -> FactSet:
    """About `count` facts about people, of all exposures, with roles; exemplars of every relation come on top.

    The replay facts (`known`) are those told most often and without dispute. Of the people whose facts are taught,
    other facts are held back, for the exam to ask whether they were touched.
    """
    names = {relation.name for relation in PERSON_RELATIONS}
    people = embedded_world().facts.where(lambda fact: fact.relation in names)
    chosen = people.with_role(Role.EXEMPLAR)
    for role, share in DEMO_SHARES.items():
        candidates = people.with_role(role)
        if role is Role.KNOWN:
            candidates = candidates.where(well_told)
        chosen = chosen + candidates.sample(round(share * count), seed)
    taught = chosen.with_role(Role.TARGET)
    others = people.with_role(Role.TARGET).where(
        lambda fact: fact.subject in taught.subjects and fact.id not in taught.by_id
    )
    return chosen + others.sample(round(BESIDE_SHARE * count), seed).assign(Role.HELD_BACK)


def well_told(fact: Fact) -> bool:
    """Told often, in question form too, and the same by everyone: most likely known."""
    return fact.metadata["exposures"] >= 32 and fact.metadata["asked"] and "rival" not in fact.metadata
