"""The manners that every command shares: its common options, its exit codes, and what it says when it fails."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, get_type_hints

import typer

from instil.cli.terminal import Terminal
from instil.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]

ARGUMENTS: ContextVar[Sequence[str]] = ContextVar("ARGUMENTS", default=())
"""The command line that is run, for the hint how to resume it."""

DONE, FAILED, WRONG_INPUT = 0, 1, 2

SMALLER = (
    "Batches are halved where they can be, so something larger does not fit: take a smaller model, --dtype bfloat16, "
    "or --adapter lora for teaching."
)

_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "true",
    # A probe computes rows of many lengths, and oneDNN would keep a compiled kernel for each: some 300 MB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}


def flag(*names: str, help: str, **more: Any) -> Any:
    """An option without a value, which its help shows as such."""
    return typer.Option(*names, metavar="", help=help, **more)


_COMMON = {
    "as_json": Annotated[bool, flag("--json", help="Print one JSON value on standard output, nothing else.")],
    "quiet": Annotated[bool, flag("--quiet", "-q", help="Print errors only.")],
    "seed": Annotated[int, typer.Option("--seed", help="Seed of everything random.")],
    "debug": Annotated[bool, flag("--debug", envvar="INSTIL_DEBUG", help="Print the traceback of a failed run.")],
}
_DEFAULTS = {"as_json": False, "quiet": False, "seed": 0, "debug": False}


class WrongUsage(InputError):
    """Options that do not fit together."""


def command(
    app: typer.Typer, name: str, *, example: str, resumable: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command.

    The function's first parameter is the `Terminal`; the common options are added to the others. `example` is shown by
    `--help`. A `resumable` command is told, when it fails, to be run again with `--resume`.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        _terminal, *own = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
        parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[key], annotation=annotation)
            for key, annotation in _COMMON.items()
        ]

        @functools.wraps(function)
        def run(*, as_json: bool, quiet: bool, seed: int, debug: bool, **options: Any) -> None:
            terminal = Terminal(as_json=as_json, quiet=quiet, seed=seed)
            code = guarded(lambda: function(terminal, **options), terminal, resumable=resumable, debug=debug)
            if code:
                raise typer.Exit(code)

        del run.__wrapped__  # or its signature would win over the one below
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, epilog=f"[bold]Example:[/bold]  [cyan]{example}[/cyan]")(run)
        return function

    return register


def guarded(action: Callable[[], None], terminal: Terminal, *, resumable: bool = False, debug: bool = False) -> int:
    """Run `action` and turn its end into an exit code; a failure is told in one line, with a hint if there is one."""
    try:
        with _modest_libraries(terminal), _stoppable(), redirect_stdout(terminal.err):
            action()
    except InputError as error:
        if debug:
            traceback.print_exc(file=terminal.err)
        terminal.fail(str(error), details={"kind": "input", **_input_details(error)})
        return WRONG_INPUT
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        _hush_standard_output()
        return FAILED
    except (Exception, KeyboardInterrupt) as error:
        if _usage_error(error):
            raise
        if debug:
            traceback.print_exc(file=terminal.err)
        message, advice = describe_failure(error)
        hints = [*([advice] if advice else []), *([f"Continue with: {command_line('--resume')}"] if resumable else [])]
        terminal.fail(message, hint="\n".join(hints) or None, details={"kind": "failed", "type": type(error).__name__})
        return FAILED
    return DONE


def describe_failure(error: BaseException) -> tuple[str, str | None]:
    """What went wrong in one line, and what may help."""
    chain = list(_causes(error))
    if any(isinstance(cause, KeyboardInterrupt) for cause in chain):
        return "interrupted", None
    full = next((cause for cause in chain if _disk_full(cause)), None)
    if full is not None:
        place = getattr(full, "filename", None)
        return f"the disk is full{f': {place}' if place else ''}", "Free some space, or choose another --out."
    text = " ".join(str(error).split())
    name = type(error).__name__
    if any(_out_of_memory(cause) for cause in chain):
        return text if text.startswith("out of memory") else "out of memory", SMALLER
    return (text if name == "RunFailed" and text else f"{name}: {text}" if text else name), None


def usage_line(error: Any) -> str:
    """A usage error of typer's in one line, with the command to ask for help."""
    context = getattr(error, "ctx", None)
    where = f" (see `{context.command_path} --help`)" if context is not None else ""
    return f"{error.format_message().rstrip('.')}{where}"


def _usage_error(error: BaseException) -> bool:
    return isinstance(error, typer.BadParameter.__mro__[1])


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        present = todo.pop(0)
        if present is None or id(present) in seen:
            continue
        seen.add(id(present))
        yield present
        todo += [present.__cause__, present.__context__]


def _disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error)
    return any(sign in text for sign in ("No space left on device", "os error 28", "File too large", "os error 27"))


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "malloc of size")
    return isinstance(error, RuntimeError | OSError | ValueError) and any(sign in text for sign in signs)


def _input_details(error: InputError) -> dict[str, Any]:
    fields = {name: getattr(error, name) for name in ("what", "file", "line", "field", "found", "expected")}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in fields.items() if value is not None
    }


def command_line(*more: str) -> str:
    """The command as it was given, for the record and to give it again; `--resume` is left out."""
    arguments = [argument for argument in ARGUMENTS.get() if argument != "--resume"]
    return shlex.join(["instil", *arguments, *more])


@contextmanager
def _modest_libraries(terminal: Terminal) -> Iterator[None]:
    """No bars and remarks of libraries between ours; what a room warns about becomes a remark of one line."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "transformers" in sys.modules:  # then it has read the variables before they were set
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        if Path(filename).is_relative_to(_PACKAGE):
            terminal.note(f"note: {message}")

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def _stoppable() -> Iterator[None]:
    """A polite kill ends a command as Ctrl-C does, so that drafts of files are removed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("terminated")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _hush_standard_output() -> None:
    # The reader went away (`instil … | head`): nothing more can be said, and Python's own last flush would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
