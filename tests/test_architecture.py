"""The plan of the house: floors, lazy imports, small modules, no trace of the machine it was built on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import instil

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "instil"
MODULES = sorted(PACKAGE.rglob("*.py"))


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


def test_a_room_imports_only_from_floors_below_it() -> None:
    # In a process of its own: the linter switches off every logger that is there.
    code = "from importlinter.cli import lint_imports; print(lint_imports(config_filename='pyproject.toml'))"
    assert _python(code).endswith("\n0")


def test_every_room_has_a_floor() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = {room.strip() for layer in contracts[0]["layers"] for room in re.split(r"[:|]", layer)}
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    rooms -= {"py.typed"}
    assert rooms <= floors, "a new room needs a floor in pyproject.toml"


def test_benchmarks_and_studies_use_only_the_public_api() -> None:
    private = [
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("benchmarks", "studies")
        for path in (ROOT / folder).rglob("*.py")
        for name in _imported(path)
        if name.startswith("instil") and any(part.startswith("_") for part in name.split("."))
    ]
    assert private == []


def test_import_instil_is_light() -> None:
    heavy = "('torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'pydantic', 'typer', 'rich', 'plotly')"
    code = f"import instil, sys; dir(instil); instil.FactSet; print([m for m in {heavy} if m in sys.modules])"
    assert _python(code) == "[]"


@pytest.mark.parametrize("name", instil.__all__)
def test_every_public_name_can_be_had_and_is_documented(name: str) -> None:
    thing = getattr(instil, name)
    assert name.startswith("__") or thing.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = instil.nonsense  # type: ignore[attr-defined]
    assert not hasattr(instil, "nonsense")


@pytest.mark.parametrize(
    "code",
    [
        "import instil; print(callable(instil.probe), callable(instil.report), callable(instil.teach))",
        "import instil.probe, instil.report, instil; print(callable(instil.probe), callable(instil.report), True)",
        "from instil import probe, report, teach; print(callable(probe), callable(report), callable(teach))",
        "from instil.probe import ProbeConfig; from instil import probe, report; print(callable(probe), 1 == 1, True)",
    ],
)
def test_rooms_that_share_a_verbs_name_are_called_as_the_verb(code: str) -> None:
    assert _python(code) == "True True True"


def test_a_room_that_is_called_is_still_a_room() -> None:
    assert _python("import instil; print(instil.probe.ProbeConfig.__name__)") == "ProbeConfig"


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_modules_stay_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 500
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module begins with what it is for"


def test_nothing_names_the_machine_it_was_built_on() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    strange = re.compile(rb"/root/|/home/\w+/|/tmp/pip")
    found = [
        f"{name}: {match.group().decode()}"
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file() and name != "tests/test_architecture.py"
        if not name.endswith((".safetensors", ".png", ".woff2", ".gz", ".parquet"))
        if (match := strange.search((ROOT / name).read_bytes()))
    ]
    assert found == []


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
