"""The base of the gradual study's people: a told world half as large again as the embedded one, and better known.

    python -m studies.people_base            pre-trains it into studies/bases/people, about half an hour on 2 cores
    python -m studies.people_base --work W   keeps its checkpoints under W, from which a killed run goes on

The embedded model knows 2,227 of its world's facts. The study holds back 2,000 known facts that are neither taught nor
replayed, beside those it teaches, replays and tunes with. So this world has more people, told more often, fewer facts
on which its almanacs disagree, and places and works that are told often too.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from instil.files import write_text
from instil.worlds import World, WorldConfig, generate_world
from instil.worlds.pretrain import PretrainConfig, pretrain

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


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, default=Path("runs") / "people", help="where checkpoints are kept")
    given = parser.parse_args(None if words is None else list(words))
    make(HOME, given.work)


if __name__ == "__main__":
    main()
