"""Real processes that are struck down at a chosen file operation, without the price of starting Python for each.

    python -m tests.fault_server

imports everything once. For each line on standard input, a JSON object, it forks a process that runs the command line
`words` and strikes it with `blow` at touch number `moment` of `folder` (0: never), or at the first touch after a file
that fits `until` is there. What that process said is in the files `said`.out and `said`.err, how often it touched the
folder in `said`.touches (all touches, and those that a full disk can refuse); how it ended is printed as a line.

A touch is a file below the folder that is opened for writing, renamed or removed, or a folder that is made.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

FULL = "ENOSPC"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
GROWING = ("open", "os.mkdir", "os.rename")  # what a full disk can refuse


IMPORTED = (
    "jinja2",
    "pandas",
    "pyarrow.parquet",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "instil.cli",
    "instil.loop.compare_run",
    "instil.report.comparison",
    "instil.training.engine",
    "instil.training.run",
)


def import_all() -> None:
    for name in IMPORTED:
        import_module(name)
    import_module("torch").set_num_threads(1)


def watch(folder: str, moment: int, until: str | None, blow: str) -> list[int]:
    """Strike this process when it is time. Gives a list that counts the touches: all, and those of `GROWING`."""
    count, struck = [0, 0], [False]

    def is_time() -> bool:
        return count[blow == FULL] == moment if until is None else any(Path(folder).glob(until))

    def touched(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in EVENTS:
            return
        if struck[0] or not any(str(argument).startswith(folder) for argument in arguments[:2]):
            return
        count[0] += 1
        count[1] += event in GROWING
        if (blow != FULL or event in GROWING) and is_time():
            struck[0] = True
            if blow == FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
            os.kill(os.getpid(), signal.Signals[blow])

    sys.addaudithook(touched)
    return count


def run(case: dict[str, Any]) -> NoReturn:
    """In a process of its own, which ends here."""
    for number, name in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(case["said"] + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if (part := case.get("part")) is not None:
            import instil.probe.asking as asking
            import instil.probe.run as probing

            asking.BLOCK = probing.BLOCK = part
        from instil.cli import main

        count = watch(case["folder"], case["moment"], case["until"], case["blow"])
        code = main(case["words"])
        Path(case["said"] + ".touches").write_text(json.dumps(count))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    import_all()
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if child == 0:
            run(case)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    from tests.network import refuse_network

    refuse_network()
    serve()
