"""How fast facts are read, and in how much memory.

    python benchmarks/facts.py [--count 1000000] [--repeats 3] [--out benchmarks/results/facts.json]

Writes files of made-up facts (five fields each, like EntityQuestions, one in eight not ASCII) to a temporary folder and
reads each whole: parsed, validated, ids compared. Rates are facts per second, by the wall clock and by processor time
of this process, the best of the repeats and all of them; on a machine that others use, processor time is the steadier.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from instil.facts import check_facts, iter_facts, read_facts
from instil.files import write_json

ROOT = Path(__file__).parent
WANTED = 100_000
"""Facts per second that reading plain JSON Lines must reach."""


def rows(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        name = f"Žofia Ångström {number}" if number % 8 == 0 else f"Mary Smithson {number}"
        yield {
            "id": f"P19-train-{number}",
            "relation": f"P{number % 12}",
            "subject": name,
            "question": f"Where was {name} born in the year of the comet?",
            "answers": [f"Town {number % 5000}", f"Town {number % 5000}, Shire"][: 1 + number % 2],
        }


def write_jsonl(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(count))


def write_gzip(path: Path, count: int) -> None:
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=6) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(count))


def write_array(path: Path, count: int) -> None:
    path.write_text(json.dumps(list(rows(count)), ensure_ascii=False), encoding="utf-8")


def write_csv(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, next(rows(1)))
        writer.writeheader()
        writer.writerows({**row, "answers": "|".join(row["answers"])} for row in rows(count))


def write_parquet(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows(count))), path)


FILES: dict[str, Callable[[Path, int], None]] = {
    "facts.jsonl": write_jsonl,
    "facts.jsonl.gz": write_gzip,
    "facts.json": write_array,
    "facts.csv": write_csv,
    "facts.parquet": write_parquet,
}

VERBS: dict[str, Callable[[Path], int]] = {
    "read_facts": lambda path: len(read_facts(path)),
    "iter_facts": lambda path: sum(1 for _ in iter_facts(path)),
    "check_facts": lambda path: check_facts(path).total,
}


def rates(verb: Callable[[Path], int], path: Path, repeats: int) -> dict[str, Any]:
    """Facts per second, by either clock."""
    wall, processor = [], []
    for _ in range(repeats):
        started, started_processor = time.perf_counter(), time.process_time()
        count = verb(path)
        processor.append(round(count / (time.process_time() - started_processor)))
        wall.append(round(count / (time.perf_counter() - started)))
    return {
        "wall_per_second": max(wall),
        "processor_per_second": max(processor),
        "wall_repeats": wall,
        "processor_repeats": processor,
    }


def peak_memory(verb: str, path: Path) -> float:
    """Peak resident memory in MB of a fresh process that only does `verb`."""
    arguments = [sys.executable, __file__, "--only", verb, str(path)]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def own_peak_memory() -> float:
    """Peak resident memory of this process in MB; `getrusage` would count the parent's from before the fork."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def hardware() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": [round(each, 1) for each in os.getloadavg()],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def commit() -> str | None:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def measure(count: int, repeats: int) -> dict[str, Any]:
    result: dict[str, Any] = {"count": count, "commit": commit(), "hardware": hardware(), "rates": {}, "memory_mb": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in FILES.items():
            write(Path(folder) / name, count)
        for name in FILES:
            for verb, call in VERBS.items():
                if verb == "read_facts" or name == "facts.jsonl":
                    result["rates"][f"{verb} {name}"] = rates(call, Path(folder) / name, repeats)
        write_jsonl(Path(folder) / "tenth.jsonl", count // 10)
        for verb in VERBS:
            for name, facts in (("tenth.jsonl", count // 10), ("facts.jsonl", count)):
                result["memory_mb"][f"{verb}, {facts} facts"] = peak_memory(verb, Path(folder) / name)
    plain = result["rates"]["read_facts facts.jsonl"]
    result["wanted_per_second"] = WANTED
    result["reached"] = {clock: plain[f"{clock}_per_second"] >= WANTED for clock in ("wall", "processor")}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="facts in each file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "facts.json")
    parser.add_argument("--only", nargs=2, metavar=("VERB", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        VERBS[arguments.only[0]](Path(arguments.only[1]))
        print(own_peak_memory())
        return
    result = measure(arguments.count, arguments.repeats)
    write_json(arguments.out, result)
    for name, each in result["rates"].items():
        print(f"{name:28} {each['wall_per_second']:>9,} facts/s (processor {each['processor_per_second']:,})")
    for name, megabytes in result["memory_mb"].items():
        print(f"{name:36} {megabytes:,.0f} MB")


if __name__ == "__main__":
    main()
