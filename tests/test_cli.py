"""The manners of the command line: help, streams, exit codes, progress."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from instil.cli import docs, main
from instil.cli.app import app
from instil.cli.commanding import ARGUMENTS, describe_failure, guarded
from instil.cli.options import settings
from instil.cli.progress import LineProgress, clock_time
from instil.cli.terminal import Terminal
from instil.errors import InputError, RunFailed
from instil.loop.settings import read_settings
from instil.version import __version__

COMMANDS = list(docs.commands_of(app))
NAMES = [path for path, _ in COMMANDS]
FIXED = (
    "demo",
    "facts check",
    "augment",
    "probe",
    "teach",
    "exam build",
    "exam run",
    "report",
    "methods",
    "ledger show",
    "ledger query",
    "ledger diff",
    "ledger verify",
    "undo",
    "world build",
    "world pretrain",
)


@pytest.mark.parametrize("name", FIXED)
def test_the_designs_commands_exist(name: str) -> None:
    assert f"instil {name}" in NAMES


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=NAMES)
def test_every_command_has_help_an_example_and_the_common_options(
    path: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path.split()[1:], "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example:" in shown
    for option in ("--json", "--quiet", "--seed", "--help"):
        assert option in shown
    for parameter in command.params:
        assert parameter.help, f"{path}: {parameter.name} is not explained"


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=NAMES)
def test_every_example_is_a_call_that_parses(path: str, command: Any) -> None:
    words = shlex.split(docs.example_of(command))
    assert " ".join(words).startswith(path)
    context = command.make_context(path, words[len(path.split()) :])
    assert context.params


def test_the_generated_pages_are_current() -> None:
    for path, wanted in docs.generated().items():
        assert path.read_text(encoding="utf-8") == wanted, f"{path.name}: run `make docs`"


def test_help_takes_less_than_half_a_second() -> None:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "instil", "--help"], check=True, capture_output=True)
        return time.perf_counter() - began

    once()  # the first one compiles
    assert min(once() for _ in range(5)) < 0.5  # the least: what else runs on the machine only adds


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from instil.cli import main; main(['teach', '--help']);"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'pandas', 'yaml') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "instil demo" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense"),
        (["facts"], "Missing command"),
        (["probe"], "MODEL"),
        (["probe", "embedded", "facts.jsonl"], "--out"),
        (["methods", "--seed", "x"], "--seed"),
        (["methods", "--nonsense"], "--nonsense"),
        (["ledger", "show", ".", "--limit", "0"], "--limit"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "usage"


# ------------------------------------------------------------------ failures


def _terminal(**options: Any) -> tuple[Terminal, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Terminal(out=out, err=err, **options), out, err


FAILURES = {
    "input": (InputError("no answers", file="a.jsonl", line=3, field="answers"), 2, "a.jsonl:3: no answers", "input"),
    "run": (RunFailed("a worker died"), 1, "a worker died", "failed"),
    "bug": (KeyError("left"), 1, "KeyError: 'left'", "failed"),
    "disk": (OSError(errno.ENOSPC, "No space left on device", "x/model"), 1, "the disk is full: x/model", "failed"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), 1, "the disk is full", "failed"),
    "memory": (MemoryError(), 1, "out of memory", "failed"),
    "allocator": (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried"), 1, "out of memory", "failed"),
    "ctrl-c": (KeyboardInterrupt(), 1, "interrupted", "failed"),
}


@pytest.mark.parametrize(("error", "code", "said", "kind"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_told_in_one_line(error: BaseException, code: int, said: str, kind: str) -> None:
    def action() -> None:
        raise error

    terminal, out, err = _terminal(as_json=True)
    assert guarded(action, terminal) == code
    assert err.getvalue().splitlines()[0].startswith(f"instil: {said}")
    assert "Traceback" not in err.getvalue()
    assert json.loads(out.getvalue())["error"]["kind"] == kind


def test_a_resumable_command_says_how_to_go_on() -> None:
    token = ARGUMENTS.set(["teach", "embedded", "my facts.jsonl", "--out", "x"])

    def action() -> None:
        raise RunFailed("a worker died")

    terminal, _, err = _terminal()
    try:
        assert guarded(action, terminal, resumable=True) == 1
    finally:
        ARGUMENTS.reset(token)
    assert "instil teach embedded 'my facts.jsonl' --out x --resume" in err.getvalue()


def test_a_full_disk_is_seen_behind_the_error_that_hides_it() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos") from error
    except RuntimeError as error:
        assert describe_failure(error)[0] == "the disk is full"


def test_debug_shows_where_it_happened() -> None:
    def action() -> None:
        raise RuntimeError("somewhere")

    terminal, _, err = _terminal()
    assert guarded(action, terminal, debug=True) == 1
    assert "Traceback" in err.getvalue()


def test_what_libraries_print_does_not_reach_standard_output() -> None:
    terminal, out, err = _terminal(as_json=True)

    def action() -> None:
        print("{'loss': 0.1}")
        terminal.result({"done": True})

    assert guarded(action, terminal) == 0
    assert json.loads(out.getvalue()) == {"done": True}
    assert "loss" in err.getvalue()


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    pipe = f"{shlex.quote(sys.executable)} -m instil methods gradual | head -n 1"
    run = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=True)
    assert run.stdout
    assert run.stderr == ""


# ------------------------------------------------------------------ streams


def test_quiet_says_nothing_but_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "gradual"]])
def test_json_is_one_value(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert err == ""


def test_markup_in_a_fact_is_shown_as_it_is() -> None:
    from instil.cli.terminal import table

    terminal, out, _ = _terminal()
    terminal.show("[red]plain[/red]", table("t", ("a", "b"), [("[bold]x[/bold]", 1)]))
    assert "[red]plain[/red]" in out.getvalue()
    assert "[bold]x[/bold]" in out.getvalue()


# ----------------------------------------------------------------- progress


def test_plain_progress_gives_rate_and_time_left_now_and_then() -> None:
    now = 0.0
    stream = io.StringIO()
    progress = LineProgress(stream, every=10, clock=lambda: now)
    for done in range(0, 601, 10):
        now = done / 10
        progress("probing", done, 600)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "probing: 0 of 600 (0%)"
    assert lines[1] == "probing: 100 of 600 (17%), 10/s, 50 s left"
    assert lines[-1] == "probing: 600 of 600 (100%), 10/s, 1 min 0 s"
    assert len(lines) == 7


def test_facts_a_second_count_only_what_was_done_now() -> None:
    """A resumed run of a million facts: half was there before; a rate is said after half a minute, and no exponent."""
    now = 0.0
    stream = io.StringIO()
    progress = LineProgress(stream, every=10, clock=lambda: now)
    for second in range(0, 41, 10):
        now = float(second)
        progress("probing", 500_000 + 120 * second, 1_000_000, unit="facts")
    now = 400.0
    progress("probing", 1_000_000, 1_000_000, unit="facts")
    assert stream.getvalue().splitlines() == [
        "probing: 500,000 of 1,000,000 facts (50%)",
        "probing: 501,200 of 1,000,000 facts (50%)",
        "probing: 502,400 of 1,000,000 facts (50%)",
        "probing: 503,600 of 1,000,000 facts (50%), 120 facts/s, 1 h 8 min left",
        "probing: 504,800 of 1,000,000 facts (50%), 120 facts/s, 1 h 8 min left",
        "probing: 1,000,000 of 1,000,000 facts (100%), 1,250 facts/s, 6 min 40 s",
    ]


def test_every_stage_gets_a_line() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream)
    for stage in ("reading", "probing", "writing the report"):
        progress(stage, 0, None)
    assert stream.getvalue().splitlines() == ["reading", "probing", "writing the report"]


def test_a_room_with_one_text_to_tell_puts_the_detail_behind_a_colon() -> None:
    now = 0.0
    stream = io.StringIO()
    progress = LineProgress(stream, every=10, clock=lambda: now)
    for step in range(31):
        now = step / 1.0
        progress(f"stage 1: epoch {step / 10}, loss 0.1", step, None)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "stage 1 · epoch 0.0, loss 0.1",
        *(f"stage 1: {n}, 1/s, {n} s · epoch {n / 10}, loss 0.1" for n in (10, 20, 30)),
    ]


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7440, "2 h 4 min")])
def test_clock_time(seconds: float, said: str) -> None:
    assert clock_time(seconds) == said


def test_a_terminal_gets_a_bar() -> None:
    code = (
        "from instil.cli.terminal import Terminal\n"
        "with Terminal().progress() as progress:\n"
        "    for done in range(101): progress('probing', done, 100, unit='facts')\n"
    )
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=follower, stdout=subprocess.DEVNULL, env=environment
    )
    os.close(follower)
    shown = b"".join(_chunks(leader)).decode()
    assert process.wait() == 0
    assert "probing" in shown
    assert "100/100" in shown
    assert "facts/s" in shown
    assert "0:00:0" in shown, "time that passed and time left"


def _chunks(handle: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(handle, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not chunk:
            break
        yield chunk
    os.close(handle)


# ----------------------------------------------------------------- settings


def test_overrides_are_written_into_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("train:\n  epochs: 3\n  learning_rate: 1.0e-4\nreplay_ratio: 0.1\n")
    chosen = settings(file, ["train.epochs=5", "probe.shots=2", "start_categories=[MaybeKnown, WeaklyKnown]"])
    assert chosen == {
        "train": {"epochs": 5, "learning_rate": 1e-4},
        "replay_ratio": 0.1,
        "probe": {"shots": 2},
        "start_categories": ["MaybeKnown", "WeaklyKnown"],
    }


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"a: [1,\n", 2), (b"- 1\n", None), (b"\xff\xfe", None), (b"a: !!python/object/apply:os.getcwd []\n", 1)],
)
def test_a_bad_settings_file_is_refused(content: bytes, line: int | None, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_settings(file)
    assert refused.value.file == file
    if line is not None:
        assert refused.value.line == line


@pytest.mark.parametrize("override", ["epochs", "=3", ".=3", "train=1"])
def test_a_bad_override_is_refused(override: str) -> None:
    with pytest.raises(InputError):
        settings(None, [override, "train.epochs=2"])


def test_the_application_is_a_typer_application() -> None:
    assert isinstance(app, typer.Typer)
