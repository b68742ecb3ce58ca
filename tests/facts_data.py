"""Rows and files of facts for the tests that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOOD = [
    {"id": "a", "question": "Where was Ada born?", "answers": ["London"], "subject": "Ada", "relation": "P19"},
    {
        "id": "b",
        "question": "Where was Bo born?",
        "answers": ["Oslo", "Kristiania"],
        "subject": "Bo",
        "relation": "P19",
    },
]
ONE = b'{"id": "a", "question": "Who?", "answers": ["A"]}\n'


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def put(folder: Path, content: bytes, name: str = "facts.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
