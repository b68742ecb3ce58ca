"""The base of the gradual study's people, made at toy size."""

from __future__ import annotations

from pathlib import Path

import instil
from instil.probe import Category
from instil.worlds import WorldConfig
from instil.worlds.pretrain import PretrainConfig
from studies.gradual_bases import SPLITS
from studies.people_base import RECIPE, WORLD, card, make, people_world

TOY_WORLD = WorldConfig(
    seed=3, people=20, new_people=4, exemplar_people=8, cities=8, companies=8, universities=8, levels=(1,),
    place_levels=(1,), exemplar_exposures=1, disputed_share=0.0, unknown_entities=2, prose_paragraphs=5,
)  # fmt: skip
TOY_RECIPE = PretrainConfig(
    vocab_size=400, tokenizer_characters=50_000, hidden_size=16, layers=1, heads=2, intermediate_size=32,
    row_length=128, batch_tokens=2048, log_every=1000,
)  # fmt: skip


def test_a_base_loads_with_the_world_that_it_was_told_of(tmp_path: Path) -> None:
    make(tmp_path / "home", tmp_path / "work", TOY_WORLD, TOY_RECIPE)
    world = people_world(tmp_path / "home")
    assert world.config == TOY_WORLD
    assert instil.load(tmp_path / "home").model.config.hidden_size == 16
    one = {"facts": 4, "subjects": 2, "known": 1, **dict.fromkeys(map(str, Category), 1)}
    told = card(tmp_path / "home", {split: {"taught": one, "tuning": one, "beside": one} for split in SPLITS})
    assert "| test | about people | 4 | 2 | 1 | 1 | 1 | 1 | 1 |" in told and "tuning" not in told
    assert "told of 20 people" in told and "6 of 24 facts are" in told


def test_the_world_has_a_title_for_everybody() -> None:
    assert WORLD.people + WORLD.new_people + WORLD.exemplar_people <= 1180
    assert RECIPE.row_length == 128
