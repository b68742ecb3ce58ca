"""Prefixes stacked side by side: the same attention as one after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instil.probe import held as module
from instil.probe.attention import Prefix
from instil.probe.held import Held, Stack, Stacked

WIDTH, HEADS, GROUPS, OWN = 8, 4, 2, 3

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4)
ROWS = st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 4)), min_size=1, max_size=6)


def prefix(length: int, chance: torch.Generator) -> Prefix:
    def part() -> torch.Tensor:
        return torch.randn(GROUPS, length, WIDTH, generator=chance)

    return Prefix(length, {layer: (part(), part()) for layer in (0, 1)})


def attended(groups: list[tuple[Prefix | None, int]], stacked: Stacked | None, softcap: float | None) -> torch.Tensor:
    rows = sum(count for _, count in groups)
    chance = torch.Generator().manual_seed(7)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    layers = {0: (drawn(GROUPS, rows, OWN, WIDTH), drawn(GROUPS, rows, OWN, WIDTH))}
    visible = torch.ones(rows, OWN, dtype=torch.bool)
    held = Held(groups, layers, OWN - 1, visible, torch.zeros(rows, OWN), torch.zeros(rows), stacked)
    own = (drawn(rows + 2, HEADS, WIDTH), drawn(rows + 2, GROUPS, WIDTH), drawn(rows + 2, GROUPS, WIDTH))
    return held.attend(0, own, 0.3, softcap, None)


@given(LENGTHS, ROWS, st.sampled_from([None, 2.0]))
def test_stacked_prefixes_are_attended_to_as_one_after_the_other(
    lengths: list[int], rows: list[tuple[int, int]], softcap: float | None
) -> None:
    chance = torch.Generator().manual_seed(1)
    prefixes = [prefix(length, chance) for length in lengths]
    groups = [(None if which < 0 else prefixes[which % len(prefixes)], count) for which, count in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WASTE", 100)
        stacked = Stacked.of(groups, torch.device("cpu"))
        assert (stacked is None) == all(one is None for one, _ in groups)
        one_by_one = attended(groups, None, softcap)
        torch.testing.assert_close(attended(groups, stacked, softcap), one_by_one, atol=1e-6, rtol=1e-5)
        whole = Stacked.of(groups, torch.device("cpu"), Stack.of(prefixes))
        if whole is not None:
            assert len(whole.stack.slots) == len(prefixes), "what is there serves"
            torch.testing.assert_close(attended(groups, whole, softcap), one_by_one, atol=1e-6, rtol=1e-5)


def test_too_much_filler_is_not_computed() -> None:
    chance = torch.Generator().manual_seed(1)
    prefixes = [prefix(3, chance) for _ in range(9)]
    uneven = [(prefixes[0], 30), *((one, 1) for one in prefixes[1:])]
    assert Stacked.of(uneven, torch.device("cpu")) is None
    even = [(one, 2) for one in prefixes[:2]]
    assert Stacked.of(even, torch.device("cpu")) is not None
    large = Stack.of(prefixes)
    found = Stacked.of([(prefixes[4], 1)], torch.device("cpu"), large)
    assert found is not None and found.stack is not large and len(found.stack.slots) == 1
