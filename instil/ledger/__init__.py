"""The durable record of runs: plain rows in, plain rows out. Knows nothing of models.

>>> ledger = Ledger("runs/first/ledger")  # doctest: +SKIP
>>> ledger.read("verdicts", run_id="first", verdict=["forgotten", "corrupted"]).to_pandas()  # doctest: +SKIP
"""

from __future__ import annotations

from instil.ledger.shards import Problem
from instil.ledger.store import FORMAT, Ledger, Verification
from instil.ledger.tables import TABLES, Column, column_names

__all__ = ["FORMAT", "TABLES", "Column", "Ledger", "Problem", "Verification", "column_names"]
