"""The benchmark of reading runs and tells what it should; its figures are no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "facts.py"


def test_the_benchmark_of_reading_runs(tmp_path: Path) -> None:
    out = tmp_path / "facts.json"
    subprocess.run([sys.executable, SCRIPT, "--count", "400", "--repeats", "1", "--out", out], check=True, timeout=300)
    result = json.loads(out.read_text())
    assert {name.split()[1] for name in result["rates"]} == {
        "facts.jsonl", "facts.jsonl.gz", "facts.json", "facts.csv", "facts.parquet"
    }  # fmt: skip
    assert all(each["wall_per_second"] > 0 for each in result["rates"].values())
    assert all(megabytes > 0 for megabytes in result["memory_mb"].values())
