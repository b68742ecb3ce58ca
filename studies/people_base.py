"""The base of the gradual study's people: a told world half as large again as the embedded one, and better known.

    python -m studies.people_base            pre-trains it into studies/bases/people, up to 50 minutes on 2 cores
    python -m studies.people_base --work W   keeps its checkpoints under W, from which a killed run goes on
    python -m studies.people_base --card     only writes its card again, with what it knows

The embedded model knows 2,227 of its world's facts. The study holds back 2,000 known facts that are neither taught nor
replayed, beside those it teaches, replays and tunes with. So this world has more people, told more often, fewer facts
on which its almanacs disagree, and places and works that are told often too.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from instil.files import write_text
from instil.probe import Category
from instil.worlds import World, WorldConfig, generate_world
from instil.worlds.pretrain import PretrainConfig, pretrain
from studies.first_run_page import table

HOME = Path(__file__).parent / "bases" / "people"

WORLD = WorldConfig(
    seed=1,
    people=820,
    new_people=330,
    levels=(8, 32, 96, 128),
    place_levels=(16, 48, 96),
    disputed_share=0.3,
)
RECIPE = PretrainConfig(row_length=128, learning_rate=2.5e-3)
"""As the embedded model's."""


@cache
def people_world(home: Path = HOME) -> World:
    """The world that the base was told of, from the config beside its weights."""
    return generate_world(WorldConfig.model_validate_json((home / "world.json").read_text(encoding="utf-8")))


def make(home: Path, work: Path, world: WorldConfig = WORLD, recipe: PretrainConfig = RECIPE) -> None:
    """Pre-train the base and put it, with its world's config, into `home`."""
    told = generate_world(world)

    def log(row: dict[str, Any]) -> None:
        print(f"step {row['step']} of {row['steps']}, loss {row['loss']:.3f}, {row['tokens_per_second']} tokens/s")

    pretrain(told.texts(), work / "base", recipe, log=log)
    shutil.copytree(work / "base", home, dirs_exist_ok=True)
    write_text(home / "world.json", json.dumps(world.model_dump(mode="json"), indent=1) + "\n")


def card(home: Path, counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """The README of the base.

    Args:
        counts: what it knows, as `studies.gradual_bases.counted` says.
    """
    made = json.loads((home / "pretraining.json").read_text(encoding="utf-8"))
    world = WorldConfig.model_validate_json((home / "world.json").read_text(encoding="utf-8"))
    heads = ("split", "part", "facts", "subjects", *map(str, Category), "known")
    parts = {"taught": "about people", "beside": "about places and works, and through another entity"}
    rows = [
        (split, parts[part], *(f"{found[head]:,}" for head in heads[2:]))
        for split, by_part in counts.items()
        for part, found in by_part.items()
        if part in parts
    ]
    known = sum(found["known"] for by_part in counts.values() for found in by_part.values())
    facts = sum(found["facts"] for by_part in counts.values() for found in by_part.values())
    told, config = ", ".join, made["config"]
    return f"""# A base that was told of {world.people} people a known number of times

<!-- Written by `python -m studies.people_base --card`. Do not edit by hand. -->

A Llama of {made["parameters"]:,} parameters like the embedded one, of a larger world of the same kind and better known,
for the study of gradual learning. It loads with `instil.load(folder)`; its world is
`studies.people_base.people_world()`.

- People: {world.people} told of, {world.new_people} of whom nothing was told, {world.exemplar_people} for exemplars
  (world: seed {world.seed}, `world.json`).
- Exposures: people {told(map(str, world.levels))} times, places and works {told(map(str, world.place_levels))};
  on {100 * world.disputed_share:.0f} % of the facts the almanacs disagree.
- {made["tokens"]:,} tokens, {made["steps"]:,} steps of {config["batch_tokens"]:,}, learning rate
  {config["learning_rate"]}, seed {config["seed"]}; {made["seconds"] / 60:.0f} minutes.

## What it knows

Ten sets of four exemplars, exact. *Known*: right behind at least half of them. {known:,} of {facts:,} facts are.

{table(heads, rows)}"""


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, default=Path("runs") / "people", help="where checkpoints are kept")
    parser.add_argument("--card", action="store_true", help="only write the card again, with what the base knows")
    given = parser.parse_args(None if words is None else list(words))
    if given.card:
        from studies.gradual_bases import counted

        write_text(HOME / "README.md", card(HOME, counted("people", given.work)))
    else:
        make(HOME, given.work)


if __name__ == "__main__":
    main()
