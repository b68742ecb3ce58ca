"""The command line: one module a command, shared manners in `instil.cli.commanding`."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the run failed, 2 the input or the options were wrong."""
    from instil.cli.app import run

    return run(argv)
