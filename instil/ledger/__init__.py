"""The durable record of runs: plain rows in, plain rows out. Knows nothing of models.

>>> ledger = Ledger("runs/first/ledger")  # doctest: +SKIP
>>> ledger.read("verdicts", run_id="first", verdict=["forgotten", "corrupted"]).to_pandas()  # doctest: +SKIP
"""

from __future__ import annotations

from instil.ledger.differences import Change, Comparison, Difference, diff
from instil.ledger.finding import ledger_folder, open_ledger, places_of, run_called, seen_from, state_called
from instil.ledger.shards import Problem
from instil.ledger.sql import Found, query
from instil.ledger.store import FORMAT, Ledger, Verification
from instil.ledger.tables import TABLES, Column, column_names

__all__ = [
    "FORMAT",
    "TABLES",
    "Change",
    "Column",
    "Comparison",
    "Difference",
    "Found",
    "Ledger",
    "Problem",
    "Verification",
    "column_names",
    "diff",
    "ledger_folder",
    "open_ledger",
    "places_of",
    "query",
    "run_called",
    "seen_from",
    "state_called",
]
