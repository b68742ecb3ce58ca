"""What is built is what is needed: weights, cards, page assets and types travel in the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instil.methods import NAMES
from instil.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel built from a copy of the sources, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "instil", source / "instil", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    run = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_holds_every_file_that_the_package_reads(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    ignored = ("__pycache__", ".tmp")
    missing = [
        name
        for path in (ROOT / "instil").rglob("*")
        if path.is_file() and not any(mark in str(path) for mark in ignored)
        if (name := str(path.relative_to(ROOT))) not in inside
    ]
    assert missing == []


def test_the_wheel_is_typed_licensed_and_has_its_command(wheel: zipfile.ZipFile) -> None:
    inside = wheel.namelist()
    assert "instil/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    entry = next(name for name in inside if name.endswith("entry_points.txt"))
    assert "instil = instil.cli:main" in wheel.read(entry).decode()
    metadata = wheel.read(next(name for name in inside if name.endswith("METADATA"))).decode()
    assert f"Version: {__version__}\n" in metadata
    assert "License-Expression: Apache-2.0" in metadata


def test_every_method_has_its_card(wheel: zipfile.ZipFile) -> None:
    for name in NAMES:
        assert wheel.read(f"instil/methods/{name}/README.md").startswith(b"# ")


def test_the_extras_are_the_promised_ones() -> None:
    extras = {"documents", "peft", "rl", "bench", "plot", "track", "docs", "dev"}
    assert set(PROJECT["project"]["optional-dependencies"]) == extras


def test_the_changelog_tells_of_this_version() -> None:
    assert re.search(rf"^## .*{re.escape(__version__)}", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_relative_links_of_the_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "instil").rglob("README.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    assert broken == []


def test_make_explains_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.9.1";; *) exit 1;; esac\n')
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    variables = {**os.environ, "MAKEFLAGS": ""}
    run = subprocess.run(
        ["make", "venv", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False, env=variables
    )
    assert run.returncode == 2
    assert "Instil needs Python 3.11 to 3.13" in run.stderr
    assert "3.9.1" in run.stderr


def test_the_workflow_script_is_shell_that_parses() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
