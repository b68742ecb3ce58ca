"""What every test runs under: no network, and real data only where INSTIL_DATA names a folder that has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.network import refuse_network

refuse_network()

# Two processes that each take all cores slow one another down many times over.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# The same examples every time, and no limit on the time of one: a loaded machine must not fail a test.
settings.register_profile("instil", deadline=None, derandomize=True)
settings.load_profile("instil")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """`real_data("entityquestions/dev.jsonl.gz")` is that file, or the test is skipped with the reason."""

    def find(name: str) -> Path:
        folder = os.environ.get("INSTIL_DATA")
        if not folder:
            pytest.skip("real data: INSTIL_DATA is not set")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"real data: INSTIL_DATA has no {name}")
        return path

    return find


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, as a study's own processes are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
