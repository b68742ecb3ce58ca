"""Faults at a chosen durable write: every file that must survive is synced, so `os.fsync` is where to strike."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.network import refuse_network


@contextmanager
def striking(number: int, strike: Callable[[], None]) -> Iterator[list[int]]:
    """Call `strike` in place of sync number `number` (from 1). Yields a list whose only entry counts the syncs."""
    count = [0]
    sync = os.fsync

    def fsync(handle: int) -> None:
        count[0] += 1
        if count[0] == number:
            strike()
        sync(handle)

    os.fsync = fsync
    try:
        yield count
    finally:
        os.fsync = sync


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What a full disk does: a write beyond `size` bytes of a file fails half way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def out_of_memory() -> None:
    raise MemoryError


def torch_out_of_memory() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")


def ctrl_c() -> None:
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":  # `python -m tests.faults NUMBER WORD…`: that command line, killed at that sync
    from instil.cli import main

    refuse_network()
    with striking(int(sys.argv[1]), kill):
        code = main(sys.argv[2:])
    sys.exit(code)
