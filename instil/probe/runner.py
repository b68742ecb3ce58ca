"""How rows are computed: what every way must give, and which way a model gets.

A row is computed in steps. First its question, which says which of the listed answers can come at all; then, behind it,
those branches of its answer tree; then, where greedy decoding left the tree, token by token. The fast way
(`shared_runner`) shares prefixes and keeps what it computed; the plain way (`plain_runner`), its naive twin, computes
everything from the first token on and needs nothing of the model but its logits: it serves architectures that the fast
one cannot, and the tests.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from instil.probe.memory import is_out_of_memory
from instil.probe.rows import Ids, Row, Tree

if TYPE_CHECKING:
    from instil.model import LanguageModel

log = logging.getLogger(__name__)


class Session(Protocol):
    """Rows that are continued token by token."""

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row; the logits behind it, shape (R, V)."""

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, which may repeat, in this order; those of one prefix must stay together."""

    def join(self, other: Any) -> None:
        """Go on with the rows of another session of the same runner as well, behind the own ones."""


class Scored(Protocol):
    """A batch of rows whose questions are computed.

    Attributes:
        logits: behind each question, shape (R, V), in the model's precision.
    """

    logits: Tensor

    def behind(self, trees: Mapping[int, Tree]) -> Tensor:
        """Compute answer trees behind the questions of some rows, given by their number, in ascending order.

        Returns:
            Logits behind each node, shape (S, V): the nodes of the first of these trees, then of the second.
        """

    def resume(self, places: Sequence[tuple[int, Ids]]) -> Session:
        """Go on behind places: a row (ascending) and the tokens passed on its tree."""


class Runner(Protocol):
    """Computes rows. `name` says how, for the record."""

    name: str

    def expect(self, prefixes: Sequence[Ids], tokens: int) -> None:
        """Say which prefixes will be asked for next, in their order, and how many tokens of them to compute at once."""

    def score(self, rows: Sequence[Row], keep: bool = True) -> Scored:
        """Compute the questions of rows. Rows with one prefix must stand together. `keep` allows `resume`."""


AGREES = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, relative to their spread, at which the two ways of computing count as one."""
AGREES_LOW = 0.15
"""The same in 16-bit precision, where both are rounded."""
AS_NEAR, NEAR = 5.0, 0.25
"""Beyond that, where the two agree in fp32: how far the fast way may be from fp32, root mean square, as a multiple of
what the plain way is, or of the spread, whichever is more. On one row chance alone makes it 0.4 to 2.5 times as far,
and now and then more; a way that does not work in 16 bits is farther than both."""


def _tried(runner: Runner, row: Row) -> Tensor:
    """Logits behind the question, behind each node of its tree, and behind one more token."""
    scored = runner.score([row])
    found = [scored.logits]
    if len(row.tree):
        found.append(scored.behind({0: row.tree}))
    path = tuple(row.tree.tokens[node] for node in row.tree.path(row.tree.leaves[0])) if len(row.tree) else ()
    found.append(scored.resume([(0, path)]).step([row.question[-1]]))
    return torch.cat(found).float()


def choose_runner(lm: LanguageModel, row: Row) -> Runner:
    """The fast runner, if on this row it gives what the plain one gives; else the plain one, with a warning.

    The registered attention function serves every model that calls it as Llama, GPT-2, Gemma and their kin do. Whether
    a given architecture does cannot be seen from outside, so it is tried.
    """
    from instil.probe.plain_runner import PlainRunner
    from instil.probe.shared_runner import SharedRunner

    shared, plain = SharedRunner(lm), PlainRunner(lm)
    expected = _tried(plain, row)
    try:
        found = _tried(shared, row)
        difference = float((found - expected).abs().max() / expected.std())
    except Exception as fault:  # An unknown architecture can fail in any way; a plain pass has just worked.
        if is_out_of_memory(fault):
            raise
        reason = f"{type(fault).__name__}: {fault}"
    else:
        if difference <= AGREES.get(lm.dtype, AGREES_LOW) or _only_rounded(lm, row, found, expected):
            return shared
        reason = f"logits differ by {difference:.2g} of their spread"
    log.warning("%s is probed the plain, slow way (%s)", type(lm.model).__name__, reason)
    return plain


def _only_rounded(lm: LanguageModel, row: Row, found: Tensor, expected: Tensor) -> bool:
    """In 16-bit precision: whether the two ways agree in fp32, and in low precision the fast one is about as near to
    that as the plain one, so that what they differ by is rounding. It is large in a model that was trained hard. Costs
    a copy of the model in fp32; False without room."""
    from instil.probe.plain_runner import PlainRunner
    from instil.probe.shared_runner import SharedRunner

    if lm.dtype in AGREES:
        return False
    try:
        whole = lm.at(torch.float32)
        exact, same = (_tried(runner(whole), row) for runner in (PlainRunner, SharedRunner))
    except Exception as fault:
        if is_out_of_memory(fault):
            return False
        raise
    fast, plain = (float((logits - exact).square().mean().sqrt()) for logits in (found, expected))
    agrees = float((same - exact).abs().max() / exact.std()) <= AGREES[torch.float32]
    return agrees and fast <= max(AS_NEAR * plain, NEAR * float(exact.std()))
