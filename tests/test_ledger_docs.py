"""docs/ledger.md: its tables are those of the code, and its examples run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from instil.cli import docs, main
from instil.cli.app import app
from instil.ledger import TABLES
from tests.ledger_data import two_lessons

PAGE = docs.LEDGER.read_text(encoding="utf-8")
EXAMPLES = [line.strip() for line in PAGE.splitlines() if line.startswith("    instil ")]
RUN_HERE = [line for line in EXAMPLES if line.startswith("instil ledger")]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    two_lessons(tmp_path / "runs" / "first" / "ledger")
    return tmp_path


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    assert docs.ledger_page() == PAGE, "run `make docs`"
    for name, columns in TABLES.items():
        for column in columns:
            assert f"| `{column}` |" in PAGE.partition(f"### `{name}`")[2]


def test_there_are_examples_of_every_command_of_the_ledger() -> None:
    group = {name.rpartition(" ")[2] for name, _ in docs.commands_of(app) if name.startswith("instil ledger ")}
    assert {shlex.split(line)[2] for line in RUN_HERE} == group


@pytest.mark.parametrize("line", RUN_HERE)
def test_an_example_runs(runs: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in EXAMPLES if line not in RUN_HERE])
def test_other_examples_parse(line: str) -> None:
    words = shlex.split(line)
    commands: dict[str, Any] = dict(docs.commands_of(app))
    context = commands[f"instil {words[1]}"].make_context(words[1], words[2:])
    assert context.params


def test_the_python_example_runs(runs: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["diff"](names["ledger"]).counts["lost"] == 1
