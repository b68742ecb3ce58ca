"""One self-contained HTML page from a ledger.

>>> from instil.report import build_report
>>> build_report("runs/first")  # doctest: +SKIP
PosixPath('runs/first/report.html')
"""

from __future__ import annotations

from instil.report.data import report_data
from instil.report.page import build_report

report = build_report
"""`instil.report("runs/first")`: the same under the name of the room."""

__all__ = ["build_report", "report", "report_data"]
