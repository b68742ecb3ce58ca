"""From a run's ledger to everything the page shows, as plain values. No figure with an interval is made here: those are
the exam's, and come with the run's summary. Counts are made from the ledger's rows, and checked against the summary."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.files import read_sealed
from instil.report import facts, words
from instil.report.cards import cards, paired_figures
from instil.report.curves import learning_curves
from instil.report.groups import groups, harness_group
from instil.report.words import CATEGORIES

if TYPE_CHECKING:
    from instil.ledger import Ledger

Row = dict[str, Any]

_ANSWER_COLUMNS = (
    *("run_id", "state_id", "purpose", "part", "question_id", "fact_id", "question", "category"),
    *("p_prior", "gold_in_prompt", "greedy_answer", "known"),
)


@dataclass(frozen=True)
class Record:
    """What the ledger holds about one run: its rows by table, and the summary that the run wrote.

    Attributes:
        run: the last row of the run in `runs`.
        summary: the content of summary.json; empty when the run did not come that far.
        others: ids of the other runs in the same ledger.
    """

    run: Row
    summary: Mapping[str, Any]
    states: Sequence[Row] = ()
    answers: Sequence[Row] = ()
    stages: Sequence[Row] = ()
    verdicts: Sequence[Row] = ()
    costs: Sequence[Row] = ()
    left_out: Sequence[Row] = ()
    others: Sequence[str] = ()


def read_record(
    folder: Path, *, summary: Mapping[str, Any] | None = None, ledger: Ledger | None = None, run_id: str | None = None
) -> Record:
    """Read one run: the one asked for, else the one of the summary, else the ledger's last.

    Raises:
        InputError: there is no ledger, it holds no run, or not the run asked for.
    """
    beside = summary or _summary_beside(folder)
    source = ledger or _ledger_of(folder, beside)
    runs = {row["run_id"]: row for row in source.runs()}
    if not runs:
        raise InputError("the ledger holds no run", file=source.folder)
    wanted = run_id or beside.get("run_id") or list(runs)[-1]
    if wanted not in runs:
        raise InputError(
            "the ledger does not hold this run", file=source.folder, found=str(wanted), expected=" or ".join(runs)
        )
    content = {
        name: source.read(name, columns=_ANSWER_COLUMNS if name == "answers" else None, run_id=wanted).to_pylist()
        for name in ("states", "answers", "stages", "verdicts", "costs", "left_out")
    }
    told = summary or json.loads(runs[wanted].get("summary_json") or "{}") or beside
    others = tuple(name for name in runs if name != wanted)
    return Record(run=runs[wanted], summary=told, others=others, **content)


def report_data(
    folder: Path, *, summary: Mapping[str, Any] | None = None, ledger: Ledger | None = None, run_id: str | None = None
) -> dict[str, Any]:
    """Everything that the page of a run folder shows, as plain values.

    Raises:
        InputError: see `read_record`.
    """
    return describe(read_record(folder, summary=summary, ledger=ledger, run_id=run_id))


def describe(record: Record) -> dict[str, Any]:
    """The page's content, section by section."""
    figures = paired_figures(record.summary.get("headline") or {})
    by_role = _by_role(record.verdicts)
    packed, kept, notes = facts.fit(record.verdicts, _exam_answers(record))
    return {
        "run": _run(record),
        "headline": _headline(record, figures, by_role),
        "scale": _scale(record, by_role),
        "noun": _noun(record),
        "cards": cards(figures, _noun(record)),
        "groups": [*groups(figures), *harness_group(record.summary.get("lm_eval") or {})],
        "mastery": {role: _mastery(rows) for role, rows in by_role.items()},
        "transition": {role: _transition(rows) for role, rows in by_role.items()},
        "verdicts": {role: _verdict_counts(rows) for role, rows in by_role.items()},
        "by_category": _by_category(record.summary),
        "curves": learning_curves(record.stages),
        "mastery_by_state": _mastery_by_state(record),
        "flow": _flow(record),
        "cost": _cost(record.costs),
        "figures": figures,
        "level": _level(record.summary),
        "lost": _examples(by_role.get("held_back", []), ("corrupted", "forgotten")),
        "facts": {"packed": packed, **kept, "notes": notes, "choices": _choices(record.verdicts)},
        "left_out": [_left_out(row) for row in record.left_out],
        "warnings": _warnings(record, by_role),
        "reproduce": _reproduce(record),
    }


def _left_out(row: Row) -> dict[str, str]:
    """What was left out may be named by an id of any length."""
    return {name: words.shortened(str(row[name]), facts.LONGEST_TEXT) for name in ("what", "reason")}


def _ledger_of(folder: Path, summary: Mapping[str, Any]) -> Ledger:
    """The ledger in the run's folder, or the one elsewhere that the summary names."""
    from instil.ledger import Ledger

    elsewhere = summary.get("ledger")
    places = [folder / "ledger", *([Path(elsewhere), folder / elsewhere] if isinstance(elsewhere, str) else [])]
    for place in places:
        if place.is_dir():
            return Ledger(place)
    raise InputError("no ledger to make a report from", file=places[0], expected="the folder of a run")


def _summary_beside(folder: Path) -> Mapping[str, Any]:
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    return read_sealed(path)


def _by_role(verdicts: Iterable[Row]) -> dict[str, list[Row]]:
    """Verdict rows by role, the taught facts first."""
    groups: dict[str, list[Row]] = {"target": [], "held_back": []}
    for row in verdicts:
        groups.setdefault(str(row.get("role") or "target"), []).append(row)
    return {role: rows for role, rows in groups.items() if rows}


def _run(record: Record) -> dict[str, Any]:
    run, model = record.run, record.summary.get("model") or {}
    return {
        "run_id": run["run_id"],
        "method": run.get("method"),
        "model": model.get("name") or run.get("model_name"),
        "status": run.get("status"),
        "finished": run.get("finished"),
        "started": run.get("started"),
        "version": run.get("version"),
        "base_model": model.get("hub_id"),
        "others": list(record.others),
    }


def _level(summary: Mapping[str, Any]) -> float:
    """Of the intervals, as the exam was set."""
    exam = (summary.get("config") or {}).get("exam") or {}
    return float((exam.get("bootstrap") or {}).get("level", 0.95))


def _seeds(record: Record) -> list[int]:
    seeds = record.summary.get("seeds") or [record.run.get("seed")]
    return [int(seed) for seed in seeds if seed is not None]


def _scale(record: Record, by_role: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The size at which everything was measured."""
    model = record.summary.get("model") or {}
    return {
        "model": model.get("name") or record.run.get("model_name"),
        "parameters": model.get("parameters"),
        "facts": {role: len(rows) for role, rows in by_role.items()},
        "documents": (record.summary.get("data") or {}).get("documents"),
        "seeds": _seeds(record),
    }


def _headline(record: Record, figures: words.Figures, by_role: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    counts = dict(_verdict_counts(by_role.get("target", [])))
    cloze, noun = _cloze(record), _noun(record)
    details = [words.told_of(noun, line) for line in words.details(counts, figures)]
    model = {"name": record.run.get("model_name")} | dict(record.summary.get("model") or {})
    roles = {role: len(rows) for role, rows in by_role.items()}
    return {
        "sentence": words.sentence(counts, figures, cloze),
        "details": [*details, words.CLOZE_MEANING] if cloze is not None else details,
        "scale": words.told_of(noun, words.scale(model, roles, len(_seeds(record)) or 1)),
    }


def _cloze(record: Record) -> Mapping[str, Any] | None:
    """Of a lesson of documents alone, what the summary says of them."""
    found = (record.summary.get("data") or {}).get("cloze")
    return found if isinstance(found, Mapping) else None


def _noun(record: Record) -> str:
    return "fact" if _cloze(record) is None else words.CLOZE_ITEM


def _mastery(verdicts: Sequence[Row]) -> dict[str, dict[str, int]]:
    """{"before": {category: n}, "after": {category: n}}"""
    return {
        moment: _in_order(Counter(str(row[f"category_{moment}"]) for row in verdicts)) for moment in ("before", "after")
    }


def _in_order(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in CATEGORIES}


def _transition(verdicts: Sequence[Row]) -> list[list[int]]:
    """Counts, a row for each category before and a column for each category after."""
    flow = Counter((row["category_before"], row["category_after"]) for row in verdicts)
    return [[flow[before, after] for after in CATEGORIES] for before in CATEGORIES]


def _verdict_counts(verdicts: Sequence[Row]) -> list[tuple[str, int]]:
    counts = Counter(str(row["verdict"]) for row in verdicts)
    known = [name for name in words.VERDICTS if counts[name]]
    return [(name, counts[name]) for name in [*known, *sorted(set(counts) - set(words.VERDICTS))]]


def _by_category(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = {str(row["category"]): dict(row) for row in summary.get("by_category") or () if row.get("n")}
    return [rows[name] for name in CATEGORIES if name in rows]


def _moments(record: Record) -> dict[str, str]:
    """state id -> "before" or "after", for the first and the last state that sat the exam."""
    examined = {row["state_id"] for row in record.answers if row["purpose"] == "exam"}
    order = [
        row["state_id"] for row in sorted(record.states, key=lambda row: row["order"]) if row["state_id"] in examined
    ]
    if not order:
        return {}
    return {order[0]: "before"} | ({order[-1]: "after"} if len(order) > 1 else {})


def _exam_answers(record: Record) -> dict[str, list[Row]]:
    """fact id -> its answers in the exam, each marked as given before or after."""
    moments = _moments(record)
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in record.answers:
        if row["purpose"] == "exam" and row["state_id"] in moments and row.get("fact_id") is not None:
            grouped[str(row["fact_id"])].append(row | {"moment": moments[row["state_id"]]})
    return grouped


def _by_state(record: Record) -> list[tuple[str, dict[str, str]]]:
    """The category of each taught fact in each state that was probed, in order, with the state's label; by the exam
    where it asked that state."""
    targets = {row["fact_id"] for row in record.verdicts if row.get("role") == "target"}
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in record.answers:
        probed = row["purpose"] == "deciding" or row["part"] == "as_worded"
        if probed and row.get("fact_id") in targets:
            found[row["state_id"], row["purpose"]][row["fact_id"]] = str(row["category"])
    states = sorted(record.states, key=lambda row: row["order"])
    of = [
        (row["label"], found.get((row["state_id"], "exam")) or found.get((row["state_id"], "deciding")))
        for row in states
    ]
    return [(label, categories) for label, categories in of if categories]


def _mastery_by_state(record: Record) -> list[dict[str, Any]]:
    return [
        {"label": label, "n": len(categories), "counts": _in_order(Counter(categories.values()))}
        for label, categories in _by_state(record)
    ]


def _flow(record: Record) -> dict[str, Any]:
    """From each state in which all taught facts were probed to the next: a matrix as `_transition` gives. Empty where
    nothing was probed between before and after."""
    states = _by_state(record)
    most = max((len(categories) for _, categories in states), default=0)
    whole = [(label, categories) for label, categories in states if len(categories) == most]
    if len(whole) < 3:
        return {}
    steps = [
        _transition([{"category_before": one, "category_after": now[name]} for name, one in was.items() if name in now])
        for (_, was), (_, now) in pairwise(whole)
    ]
    return {"labels": [label for label, _ in whole], "steps": steps}


def _cost(costs: Sequence[Row]) -> dict[str, Any]:
    """One row a purpose, and the two sums that are asked for: what the budget pays, and everything."""
    rows: dict[str, dict[str, float]] = {}
    for row in costs:
        into = rows.setdefault(str(row["purpose"]), {"flops": 0.0, "tokens": 0.0, "seconds": 0.0})
        for unit in into:
            into[unit] += row.get(unit) or 0.0
    order = [*(name for name in words.PURPOSE_WORDS if name in rows), *sorted(set(rows) - set(words.PURPOSE_WORDS))]

    def total(names: Iterable[str]) -> dict[str, float]:
        chosen = list(names)
        return {unit: sum(rows[name][unit] for name in chosen) for unit in ("flops", "tokens", "seconds")}

    return {
        "rows": [
            {
                "purpose": name,
                "label": words.PURPOSE_WORDS.get(name, name),
                "free": name in words.FREE_PURPOSES,
                **rows[name],
            }
            for name in order
        ],
        "charged": total(name for name in order if name not in words.FREE_PURPOSES),
        "total": total(order),
    }


def _examples(verdicts: Sequence[Row], names: Sequence[str], most: int = 6) -> dict[str, Any]:
    """The facts with one of these verdicts: how many, and the first few."""
    rows = [row for row in verdicts if row["verdict"] in names]
    rows.sort(key=lambda row: names.index(row["verdict"]))
    return {
        "n": len(rows),
        "counts": _verdict_counts(rows),
        "shown": [
            {
                name: words.shortened(words.visible(str(row.get(name))), 160) if row.get(name) is not None else ""
                for name in ("question", "answer_before", "answer_after", "verdict")
            }
            for row in rows[:most]
        ],
    }


def _choices(verdicts: Sequence[Row]) -> dict[str, list[str]]:
    """What the table can be filtered by: only values that occur."""

    def shown(value: object) -> str:
        return words.shortened(words.visible(str(value)), facts.LONGEST_TEXT)

    return {
        "verdict": [name for name, _ in _verdict_counts(verdicts)],
        "role": list(_by_role(verdicts)),
        "relation": sorted({shown(row["relation"]) for row in verdicts if row.get("relation") is not None}),
    }


def _warnings(record: Record, by_role: Mapping[str, Sequence[Row]]) -> list[str]:
    warnings = [words.shortened(str(line), facts.LONGEST_EVIDENCE) for line in record.summary.get("warnings") or ()]
    status = record.run.get("status")
    if status not in (None, "done", "finished"):
        warnings.append(f"The run is marked “{status}”: what follows is what the ledger holds so far.")
    for stage in learning_curves(record.stages)["stages"]:
        if stage["not_finite"]:
            steps = words.plural(stage["not_finite"], "step")
            warnings.append(f"The training loss of {stage['name']} was not finite at {steps}: the chart omits them.")
    said = record.summary.get("transition")
    if said and by_role.get("target") and said != _transition(by_role["target"]):
        warnings.append("The summary's transition matrix is not that of the ledger's verdicts. Shown is the ledger's.")
    for role, rows in by_role.items():
        if len(rows) < 30 and role in ("target", "held_back"):
            warnings.append(
                f"Only {words.plural(len(rows), 'fact')} in the role “{words.ROLE_WORDS[role].lower()}”: "
                "too few for a figure that would hold on other facts."
            )
    return [*warnings, *_guessable(record)]


def _guessable(record: Record) -> list[str]:
    """Facts that count as known although the relation or the prompt gives the answer away."""
    moments = _moments(record)
    after = [
        row
        for row in record.answers
        if moments.get(row["state_id"]) == "after" and row["part"] in ("as_worded", "held_back") and row.get("known")
    ]
    lines = []
    if guessed := sum((row.get("p_prior") or 0) >= 0.5 for row in after):
        lines.append(
            f"{words.count(guessed)} of {words.plural(len(after), 'fact')} known after teaching would be answered "
            "right even without naming the subject: the relation has a favourite answer."
        )
    if given := sum(bool(row.get("gold_in_prompt")) for row in after):
        lines.append(
            f"{words.count(given)} of {words.plural(len(after), 'fact')} known after teaching had the same answer in a "
            "worked example of the prompt."
        )
    return lines


def _reproduce(record: Record) -> dict[str, Any]:
    run, summary = record.run, record.summary
    config = summary.get("config") or json.loads(run.get("config_json") or "{}")
    hardware = summary.get("hardware") or json.loads(run.get("hardware_json") or "{}")
    data, model = summary.get("data") or {}, summary.get("model") or {}
    exact = {
        "Model": run.get("model_fingerprint") or model.get("fingerprint"),
        "Facts": run.get("facts_fingerprint") or data.get("facts_fingerprint"),
        "Documents": data.get("documents_fingerprint"),
        "Exam": run.get("exam_fingerprint") or data.get("exam_fingerprint"),
    }
    facts_of_run = {
        "Run": run["run_id"],
        "Instil": run.get("version"),
        "Commit": run.get("commit") or summary.get("commit"),
        "Seed": ", ".join(map(str, summary["seeds"])) if summary.get("seeds") else run.get("seed"),
        "Model": model.get("name") or run.get("model_name"),
        "Precision": model.get("dtype"),
        "Device": model.get("device"),
        "Started": run.get("started"),
        "Finished": run.get("finished"),
    }
    return {
        "command": _command(summary, run),
        "config": json.dumps(config, indent=2, ensure_ascii=False, default=str),
        "fingerprints": {name: value for name, value in exact.items() if value},
        "run": {name: str(value) for name, value in facts_of_run.items() if value is not None},
        "hardware": {str(name): _plain(value) for name, value in hardware.items() if value is not None},
    }


def _command(summary: Mapping[str, Any], run: Row) -> str:
    """The command line as it was given; for a run from Python, one that does the same, from the settings kept."""
    if summary.get("command"):
        return str(summary["command"])
    model = summary.get("model") or {}
    seed = run.get("seed") if run.get("seed") is not None else summary.get("seed")
    options = {"--method": run.get("method"), "--seed": seed, "--config": "config.yaml", "--out": "DIR"}
    parts = ["instil", "teach", model.get("source") or model.get("name") or run.get("model_name"), "FACTS"]
    parts += [part for option, value in options.items() if value is not None for part in (option, value)]
    return " ".join(map(str, parts))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
