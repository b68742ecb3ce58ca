"""`instil probe` in a process of its own, with small parts, struck down at a chosen moment.

    python -m tests.probe_faults PART MOMENT WORD…

PART facts make a part. MOMENT is `never`, or what is counted and to how many: `forward:12` kills in place of the
twelfth forward pass, `sync:3` in place of the third sync, `replace:2` in place of the second renaming; `fail:5` raises
in place of the fifth forward pass, `memory:5` says that there is no memory for it. Passes that try which way of
computing a model gets are not counted: a failure there means the plain way. A rank may be put before it
(`1@forward:12`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import kill, striking


def fail() -> None:
    raise RuntimeError("this rank was told to fail")


def no_memory() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def strike_forward(number: int, strike: Callable[[], None]) -> None:
    from transformers import LlamaForCausalLM

    import instil.probe.asking as asking

    calls, trying = [0], [False]
    forward, choose = LlamaForCausalLM.forward, asking.choose_runner

    def struck(self: Any, *arguments: Any, **options: Any) -> Any:
        calls[0] += not trying[0]
        if calls[0] == number and not trying[0]:
            strike()
        return forward(self, *arguments, **options)

    def tried(*arguments: Any) -> Any:
        trying[0] = True
        try:
            return choose(*arguments)
        finally:
            trying[0] = False

    LlamaForCausalLM.forward = struck  # type: ignore[method-assign]
    asking.choose_runner = tried


def strike_replace(number: int) -> None:
    calls, replace = [0], Path.replace

    def struck(self: Path, target: Any) -> Path:
        if "ranks.tmp" not in str(self):
            calls[0] += 1
            if calls[0] == number:
                kill()
        return replace(self, target)

    Path.replace = struck  # type: ignore[method-assign,assignment]


def main(part: int, moment: str, words: list[str]) -> int:
    import torch

    import instil.probe.asking as asking
    import instil.probe.ranks as ranks
    import instil.probe.run as run
    from instil.cli import main as instil

    torch.set_num_threads(1)
    asking.BLOCK = run.BLOCK = part
    ranks.BEAT, ranks.PATIENCE = 0.2, float(os.environ.get("PATIENCE", "120"))
    whose, _, what = moment.rpartition("@")
    if whose and whose != os.environ.get("RANK"):
        what = "never"
    kind, _, number = what.partition(":")
    if kind in ("forward", "fail", "memory"):
        strike_forward(int(number), {"forward": kill, "fail": fail, "memory": no_memory}[kind])
    elif kind == "replace":
        strike_replace(int(number))
    with striking(int(number) if kind == "sync" else 0, kill):
        return instil(words)


if __name__ == "__main__":
    from tests.network import refuse_network

    refuse_network()
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
