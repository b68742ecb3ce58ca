"""A synthetic ledger, consistent in itself, for the tests of the report: rows of every table, and a folder of them."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
RUN = "run-0001"

# Facts are the user's text: each of these must reach the page as text and do nothing there.
HOSTILE = (
    '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">',
    "</script><script>window.hacked = 1</script>",
    "<!-- <script> a comment that never ends",
    "\x00\x07\x1b[31mcontrol\x7f characters\r\n\tin a row",
    "שלום \u202eright-to-left override\u202c and \u2066isolates",
    "line\u2028and paragraph\u2029separators",
    "javascript:window.hacked=1",
    "{{ 7 * 7 }} {% raw %} ${window.hacked=1} `",
    "=cmd|' /C calc'!A0",
    "../../etc/passwd",
    "&lt;b&gt; &amp; \" ' \\u003c",
    "👩‍👩‍👧‍👦 é́́́́ ﷽ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
)

RELATIONS = {
    "birthplace": (
        "Where was {} born?",
        ("What is the birthplace of {}?", "In which town did {} come into the world?"),
    ),
    "profession": ("What is the profession of {}?", ("What does {} do for a living?", "As what does {} work?")),
    "employer": ("Who employs {}?", ("Where does {} work?", "Which organisation pays {}?")),
    "capital": ("What is the capital of {}?", ("Which city governs {}?", "Name the capital of {}.")),
    "author": ("Who wrote {}?", ("Which author is behind {}?", "By whom is {}?")),
    "founder": ("Who founded {}?", ("Who set up {}?", "Name the founder of {}.")),
}
_FIRST = "Adela Bruno Carin Doro Edvin Freya Goran Hedda Ivo Jolan Kasimir Liv Maren Nils Odile".split()  # noqa: SIM905
_LAST = "Varga Lindqvist Okafor Brandt Sorel Halloran Petrov Nakata Ferreira Walden".split()  # noqa: SIM905
_TOWNS = "Aldermoor Brackwell Castrena Dunmere Eskford Fennhollow Garrowby Hartsund".split()  # noqa: SIM905

Tables = dict[str, list[dict[str, Any]]]


def category(p_greedy: float, p_any: float) -> str:
    if p_greedy == 1:
        return "HighlyKnown"
    if p_greedy > 0:
        return "MaybeKnown"
    return "WeaklyKnown" if p_any >= 0.5 else "Unknown"


def tables(n: int = 400, *, seed: int = 0, hostile: bool = False, huge: bool = False) -> Tables:
    """Rows of every table for one gradual run over `n` facts, 55 % of them taught."""
    rng = random.Random(seed)
    verdicts, answers = [], []
    for index in range(n):
        fact = _fact(rng, index, taught=index < n * 0.55, hostile=hostile, huge=huge and index == 3)
        verdict, asked = _sat(rng, fact)
        verdicts.append(verdict)
        answers.extend(asked)
    stages = _stages(rng)
    rows: Tables = {
        "runs": [],
        "states": _states(),
        "answers": answers,
        "stages": stages,
        "verdicts": verdicts,
        "costs": _costs(),
        "left_out": _left_out(hostile),
    }
    rows["runs"] = [_run(rows, hostile)]
    return rows


def write_ledger(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], *, summary: bool = True) -> Path:
    """Write the tables as the ledger of the run folder, with summary.json beside it."""
    from instil.ledger import Ledger

    ledger = Ledger(folder / "ledger")
    for table, content in rows.items():
        if content:
            ledger.append(table, content)
    if summary:
        (folder / "summary.json").write_text(rows["runs"][-1]["summary_json"], encoding="utf-8")
    return folder


def _fact(rng: random.Random, index: int, *, taught: bool, hostile: bool, huge: bool) -> dict[str, Any]:
    relation = list(RELATIONS)[index % len(RELATIONS)]
    subject = f"{rng.choice(_FIRST)} {rng.choice(_LAST)} {index // 3}"
    answer = f"{rng.choice(_TOWNS)} {rng.choice(_LAST)}"
    question, wordings = RELATIONS[relation]
    fact = {
        "fact_id": f"f{index:05d}",
        "relation": relation,
        "subject": subject,
        "question": question.format(subject),
        "wordings": [wording.format(subject) for wording in wordings],
        "answer": answer,
        "role": "target" if taught else "held_back",
    }
    if hostile and index < 3 * len(HOSTILE):
        text = HOSTILE[index % len(HOSTILE)]
        fact[("question", "answer", "subject")[index // len(HOSTILE)]] = text
        if index // len(HOSTILE) == 2:
            fact |= {"fact_id": f"{text}#{index}", "relation": text, "wordings": [text, text]}
    if huge:
        fact["answer"] = "huge " * 200_000
    return fact


def _sat(rng: random.Random, fact: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One fact before and after: the verdict row, and the answers that it rests on."""
    strength = rng.choice((0.0, 0.0, 0.0, 0.001, 0.001, 0.3, 0.7, 1.0, 1.0))
    taught = fact["role"] == "target"
    risen = min(1.0, strength + rng.choice((0.0, 0.1, 0.6, 1.0, 1.0))) if taught else strength
    if not taught and rng.random() < 0.06:
        risen = 0.0
    before, after = _asked(rng, fact, "before", strength), _asked(rng, fact, "after", risen)
    in_words = [
        (
            _asked(rng, fact, "before", strength * 0.8, wording=number),
            _asked(rng, fact, "after", risen * 0.75, wording=number),
        )
        for number in range(len(fact["wordings"]))
    ]
    reworded = [sum(pair[which]["known"] for pair in in_words) / len(in_words) for which in (0, 1)]
    verdict = _verdict(rng, before, after, reworded[1], taught)
    if verdict == "corrupted":
        after["greedy_answer"] = f"{rng.choice(_TOWNS)} {rng.choice(_LAST)}"
    row = {
        "run_id": RUN,
        **{name: fact[name] for name in ("fact_id", "subject", "relation", "question", "answer", "role")},
        "verdict": verdict,
        "category_before": before["category"],
        "category_after": after["category"],
        "p_greedy_before": before["p_greedy"],
        "p_greedy_after": after["p_greedy"],
        "p_sampled_before": before["p_sampled"],
        "p_sampled_after": after["p_sampled"],
        "answer_before": before["greedy_answer"],
        "answer_after": after["greedy_answer"],
        "reworded_known_before": reworded[0],
        "reworded_known_after": reworded[1],
        "evidence": f"known in {before['p_greedy']:.0%} of exemplar sets before and {after['p_greedy']:.0%} after; "
        f"{reworded[1] * len(in_words):.0f} of {len(in_words)} other wordings known after",
    }
    deciding = []
    if taught:
        middle = strength + 0.6 * (risen - strength)
        deciding = [
            _asked(rng, fact, "stage-1", middle) | {"purpose": "deciding"},
            dict(before, purpose="deciding"),
        ]
    return row, [before, after, *(asked for pair in in_words for asked in pair), *deciding]


def _asked(rng: random.Random, fact: dict[str, Any], state: str, strength: float, wording: int | None = None) -> Any:
    right = [rng.random() < strength for _ in range(10)]
    wrong = f"{rng.choice(_TOWNS)} {rng.choice(_LAST)}"
    miss = 0.09 if strength else 0.002  # weakly known: never the first answer, found now and then by sampling
    p_by_set = [min(1.0, (0.8 if hit else miss) * rng.uniform(0.5, 1.2)) for hit in right]
    p_any = 1 - math.prod((1 - p) ** 16 for p in p_by_set)
    p_greedy = sum(right) / 10
    part = {"target": ("as_worded", "reworded"), "held_back": ("held_back", "held_back_reworded")}[fact["role"]]
    return {
        "run_id": RUN,
        "state_id": f"{RUN}-{state}",
        "purpose": "exam",
        "part": part[wording is not None],
        "question_id": fact["fact_id"] + ("" if wording is None else f"/w{wording}"),
        "fact_id": fact["fact_id"],
        "subject": fact["subject"],
        "relation": fact["relation"],
        "question": fact["question"] if wording is None else fact["wordings"][wording],
        "answers": [fact["answer"]],
        "exemplars_fingerprint": "0f" * 8,
        "category": category(p_greedy, p_any),
        "p_greedy": p_greedy,
        "p_sampled": sum(p_by_set) / 10,
        "p_any": p_any,
        "p_prior": rng.choice((0.0, 0.01, 0.6)) if rng.random() < 0.1 else 0.0,
        "gold_in_prompt": rng.random() < 0.02,
        "greedy_answer": fact["answer"] if p_greedy >= 0.5 else wrong,
        "known": p_greedy >= 0.5,
        "start_category": None,
        "taught": fact["role"] == "target",
        "greedy_right_by_set": right,
        "p_by_set": p_by_set,
        "greedy_answer_by_set": [fact["answer"] if hit else wrong for hit in right],
    }


def _verdict(rng: random.Random, before: Any, after: Any, reworded: float, taught: bool) -> str:
    if before["known"]:
        return "kept" if after["known"] else rng.choice(("forgotten", "forgotten", "corrupted"))
    if not after["known"]:
        return "still unknown"
    if not taught:
        return "learned"
    return rng.choice(("learned", "learned", "learned", "updated")) if reworded >= 0.5 else "learned as worded"


def _states() -> list[dict[str, Any]]:
    labels = ("before", "stage 1", "after")
    return [
        {
            "state_id": f"{RUN}-{label.replace(' ', '-')}",
            "run_id": RUN,
            "parent_id": f"{RUN}-{labels[order - 1].replace(' ', '-')}" if order else None,
            "label": label,
            "order": order,
            "fingerprint": f"{order:016x}",
            "path": None,
        }
        for order, label in enumerate(labels)
    ]


def _stages(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number, (facts, epochs, start) in enumerate(((61, 7, 3.2), (149, 9, 2.4)), start=1):
        per_epoch = 24 * number
        for step in range(1, epochs * per_epoch + 1):
            last = step % per_epoch == 0
            share = step / (epochs * per_epoch)
            rows.append(
                {
                    "run_id": RUN,
                    "stage": f"stage {number}",
                    "epoch": step / per_epoch,
                    "step": step,
                    "tokens": step * 900,
                    "flops": step * 3.2e11,
                    "seconds": step * 0.11,
                    "loss": start * (1 - share) ** 1.6 + 0.08 + rng.uniform(0, 0.25),
                    "learning_rate": 5e-5 * (1 - share),
                    "development_accuracy": 0.22 * number + 0.2 * share**0.5 + rng.uniform(0, 0.02) if last else None,
                    "facts": facts,
                }
            )
    return rows


def _costs() -> list[dict[str, Any]]:
    return [
        {"run_id": RUN, "purpose": "training", "flops": 1.83e14, "tokens": 540_000, "seconds": 66.2},
        {"run_id": RUN, "purpose": "deciding", "flops": 0.71e14, "tokens": 412_000, "seconds": 21.5},
        {"run_id": RUN, "purpose": "exam", "flops": 2.2e14, "tokens": 1_260_000, "seconds": 74.0},
    ]


def _left_out(hostile: bool) -> list[dict[str, Any]]:
    rows = [
        {
            "run_id": RUN,
            "what": "facts.jsonl line 17",
            "reason": "repeats the question of line 4",
        },
        {
            "run_id": RUN,
            "what": "relation spouse",
            "reason": "3 facts only: exemplars of all relations instead",
        },
        {"run_id": RUN, "what": "11 facts", "reason": "reserved as exemplars, so neither taught nor asked"},
    ]
    return rows + [{"run_id": RUN, "what": text, "reason": text} for text in HOSTILE if hostile]


def _figure(rows: Sequence[bool], clusters: int, before: Sequence[bool] | None = None) -> dict[str, Any] | None:
    if not rows:
        return None
    value = sum(rows) / len(rows)
    half = 1.96 * (value * (1 - value) / len(rows)) ** 0.5
    figure = {
        "value": value,
        "low": max(0.0, value - half),
        "high": min(1.0, value + half),
        "n": len(rows),
        "clusters": clusters,
    }
    return figure | {"before": sum(before) / len(before), "after": value} if before else figure


def _headline(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    def known(row: dict[str, Any], when: str) -> bool:
        return bool(row[f"p_greedy_{when}"] >= 0.5)

    target = [row for row in verdicts if row["role"] == "target"]
    held_back = [row for row in verdicts if row["role"] == "held_back"]
    new = [row for row in target if not known(row, "before")]
    old = [row for row in held_back if known(row, "before")]
    never = [row for row in held_back if not known(row, "before")]
    clusters = lambda rows: len({row["subject"] for row in rows})  # noqa: E731
    figures = {
        "acquired": _figure([known(row, "after") for row in new], clusters(new)),
        "acquired_reworded": _figure([(row["reworded_known_after"] or 0) >= 0.5 for row in new], clusters(new)),
        "retained": _figure([known(row, "after") for row in old], clusters(old)),
        "forgotten": _figure([not known(row, "after") for row in old], clusters(old)),
        "made_up": _figure(
            [index % 5 == 0 for index, _ in enumerate(never)],
            clusters(never),
            before=[index % 6 == 0 for index, _ in enumerate(never)],
        ),
        "perplexity_before": {"value": 31.2, "low": 28.9, "high": 33.8, "n": 50, "clusters": 50},
        "perplexity_after": {"value": 31.9, "low": 29.4, "high": 34.6, "n": 50, "clusters": 50},
        "perplexity_ratio": {"value": 1.02, "low": 0.99, "high": 1.06, "n": 50, "clusters": 50},
    }
    for name, rows in (("target", target), ("held_back", held_back)):
        for when in ("before", "after"):
            figures[f"accuracy_{name}_{when}"] = _figure([known(row, when) for row in rows], clusters(rows))
    return {name: figure for name, figure in figures.items() if figure}


def _by_category(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for name in CATEGORIES:
        facts = [row for row in verdicts if row["role"] == "target" and row["category_before"] == name]
        if after := _figure([row["p_greedy_after"] >= 0.5 for row in facts], len(facts)):
            before = sum(row["p_greedy_before"] >= 0.5 for row in facts) / len(facts)
            rows.append(
                {
                    "category": name,
                    "n": len(facts),
                    "before_accuracy": before,
                    "after_accuracy": after["value"],
                    "low": after["low"],
                    "high": after["high"],
                }
            )
    return rows


def _run(rows: Tables, hostile: bool) -> dict[str, Any]:
    verdicts = rows["verdicts"]
    target = [row for row in verdicts if row["role"] == "target"]
    flow = Counter((row["category_before"], row["category_after"]) for row in target)
    config = {"method": "gradual", "replay_ratio": 0.2, "train": {"learning_rate": 5e-5, "epochs": 20}, "seed": 0}
    hardware = {
        "processor": "x86_64, 2 cores",
        "memory": "24 GiB",
        "device": "cpu",
        "torch": "2.13.0",
        "python": "3.11.9",
    }
    name = HOSTILE[0] if hostile else "embedded"
    summary = {
        "version": "0.1.0",
        "command": f"instil teach {name} facts.jsonl --method gradual --out runs/first",
        "run_id": RUN,
        "method": "gradual",
        "config": config,
        "seed": 0,
        "model": {"name": name, "fingerprint": "ab" * 8, "parameters": 6_900_000, "dtype": "float32", "device": "cpu"},
        "data": {
            "facts_fingerprint": "cd" * 8,
            "documents_fingerprint": None,
            "exam_fingerprint": "ef" * 8,
            "n": dict(Counter(row["role"] for row in verdicts)) | {"development": 40, "exemplar": 11},
        },
        "left_out": [f"{row['what']}: {row['reason']}" for row in rows["left_out"]],
        "cost": {row["purpose"]: {k: row[k] for k in ("flops", "tokens", "seconds")} for row in rows["costs"]},
        "hardware": hardware,
        "commit": "0123abc",
        "started": "2026-05-04T10:00:00+00:00",
        "finished": "2026-05-04T10:03:12+00:00",
        "headline": _headline(verdicts),
        "transition": [[flow[a, b] for b in CATEGORIES] for a in CATEGORIES],
        "verdicts": dict(Counter(row["verdict"] for row in verdicts)),
        "by_category": _by_category(verdicts),
        "stages": [],
    }
    return {
        "run_id": RUN,
        "method": "gradual",
        "model_name": name,
        "model_fingerprint": "ab" * 8,
        "facts_fingerprint": "cd" * 8,
        "exam_fingerprint": "ef" * 8,
        "config_json": json.dumps(config),
        "seed": 0,
        "version": "0.1.0",
        "commit": "0123abc",
        "hardware_json": json.dumps(hardware),
        "started": summary["started"],
        "finished": summary["finished"],
        "status": "finished",
        "summary_json": json.dumps(summary, ensure_ascii=False),
    }
