"""Every fault of fact files, and what is valid but suspicious, counted and listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instil.answers import normalise
from instil.errors import InputError
from instil.facts.faults import Fault, shown
from instil.facts.reading import fact_rows, grouped, repeated_id, source_of
from instil.facts.types import Fact

EXAMPLES = 5
"""How many examples of each warning are kept."""


@dataclass
class Warned:
    """One kind of warning: what, how often, and the first examples."""

    what: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "count": self.count, "examples": self.examples}


@dataclass(frozen=True)
class CheckReport:
    """What `check_facts` found.

    Attributes:
        facts: valid facts by file.
        layouts: the layout of each file, None where none could be told.
        relations: valid facts by relation ("" for none).
        roles: valid facts by role ("" for none).
        without_subject: valid facts that intervals and splits must treat each as a subject of its own.
        error_count: all faults.
        errors: the faults, the first `limit` of each file.
        warnings: kinds of warnings, the most frequent first.
        would_drop: one line for what is left out even of a valid file, or with `--skip-invalid`.
    """

    facts: dict[str, int]
    layouts: dict[str, str | None]
    relations: dict[str, int]
    roles: dict[str, int]
    without_subject: int
    error_count: int
    errors: tuple[Fault, ...]
    warnings: tuple[Warned, ...]
    would_drop: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every file can be read as it is."""
        return self.error_count == 0

    @property
    def total(self) -> int:
        return sum(self.facts.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "ok": self.ok,
            "total": self.total,
            "facts": self.facts,
            "layouts": self.layouts,
            "relations": self.relations,
            "roles": self.roles,
            "without_subject": self.without_subject,
            "error_count": self.error_count,
            "errors": [fault.to_dict() for fault in self.errors],
            "warnings": [warned.to_dict() for warned in self.warnings],
            "would_drop": list(self.would_drop),
        }

    def lines(self) -> list[str]:
        """The report as plain text."""
        return list(_report_lines(self))


def check_facts(
    paths: str | Path | Sequence[str | Path],
    *,
    layout: str | None = None,
    templates: str | Path | None = None,
    limit: int | None = 1000,
) -> CheckReport:
    """Read fact files to their ends and report every fault and warning; facts themselves are not kept.

    Args:
        paths: files or data sets, one or several; several are also compared with each other.
        layout: as in `read_facts`.
        templates: as in `read_facts`.
        limit: at most so many faults of a file are listed (all are counted); None lists all.

    Raises:
        InputError: an unknown layout, or templates that cannot be read. Faults of the files are reported, not raised.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    check = _Check(limit)
    for path in listed:
        check.read(path, layout, templates)
    return check.report()


class _Check:
    """The counts so far. Questions and subjects are kept as 64-bit hashes, some 250 bytes a fact in all."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.files: list[str] = []
        self.facts: Counter[str] = Counter()
        self.layouts: dict[str, str | None] = {}
        self.relations: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.without_subject = 0
        self.error_count = 0
        self.errors: list[Fault] = []
        self.benign: list[Fault] = []
        self.warnings: dict[str, Warned] = {}
        self.questions: dict[int, tuple[int, int, frozenset[int]]] = {}
        self.groups: list[str] = []
        self.asked_in: dict[int, int] = {}
        self.about_in: dict[int, int] = {}

    def read(self, path: str | Path, layout: str | None, templates: str | Path | None) -> None:
        source = source_of(path, templates)
        name = source.name
        self.files.append(name)
        self.facts[name] += 0
        listed = 0

        def note(fault: Fault) -> None:
            nonlocal listed
            if fault.benign:
                self.benign.append(fault)
                return
            self.error_count += 1
            listed += 1
            if self.limit is None or listed <= self.limit:
                self.errors.append(fault)

        lines: dict[str, int] = {}
        try:
            for line, fact in fact_rows(source, layout, note):
                if fact.id in lines:
                    note(repeated_id(source, line, fact.id, lines[fact.id]))
                else:
                    lines[fact.id] = line
                    self.count(fact, line)
            if not lines and not listed:
                raise InputError("nothing valid is in the file", file=name, expected="at least one fact")
        except InputError as error:
            if error.field == "layout":
                raise
            note(Fault.of(error, name))
        self.layouts[name] = layout or source.layout
        for unknown, count in source.unknown_fields.items():
            warned = Warned(f"unknown field {shown(unknown)}, kept as metadata", count, [name])
            self.warnings[f"{name} {warned.what}"] = warned

    def count(self, fact: Fact, line: int) -> None:
        self.facts[self.files[-1]] += 1
        self.relations[fact.relation or ""] += 1
        self.roles[fact.role or ""] += 1
        place = f"{self.files[-1]}:{line}"
        group = self._group(fact)
        question = hash(normalise(fact.question))
        self._compare_question(question, fact, line, place)
        self._share("questions", self.asked_in, question, group, f"{place}: {shown(fact.question)}")
        if fact.subject is None:
            self.without_subject += 1
        else:
            self._share(
                "subjects", self.about_in, hash(normalise(fact.subject)), group, f"{place}: {shown(fact.subject)}"
            )
        if "\n" in fact.answers[0] or "\r" in fact.answers[0]:
            self.warn("an answer with a line break, which ends an answer", f"{place}: {shown(fact.answers[0])}")

    def _compare_question(self, question: int, fact: Fact, line: int, place: str) -> None:
        answers = frozenset(hash(normalise(answer)) for answer in fact.answers)
        file = len(self.files) - 1
        first = self.questions.setdefault(question, (file, line, answers))
        if first[2] is answers:
            return
        if first[0] == file:
            example = f"{place} and line {first[1]}: {shown(fact.question)}"
            self.warn("a question that occurs before", example)
        else:
            example = f"{place} and {self.files[first[0]]}:{first[1]}: {shown(fact.question)}"
        if answers.isdisjoint(first[2]):
            self.warn("a question that occurs before with entirely different answers", example)

    def _group(self, fact: Fact) -> int:
        """The number of the split that the fact belongs to: its file and its role."""
        name = self.files[-1] if fact.role is None else f"{self.files[-1]} ({fact.role})"
        if name not in self.groups:
            self.groups.append(name)
        return self.groups.index(name)

    def _share(self, what: str, homes: dict[int, int], key: int, group: int, example: str) -> None:
        """Note the split in the bits of `homes[key]`, and warn once for each pair of splits that share the key."""
        before = homes.get(key, 0)
        if before >> group & 1:
            return
        homes[key] = before | 1 << group
        for other, name in enumerate(self.groups):
            if before >> other & 1:
                self.warn(f"{what} shared between {name} and {self.groups[group]}", example)

    def warn(self, what: str, example: str) -> None:
        self.warnings.setdefault(what, Warned(what)).add(example)

    def report(self) -> CheckReport:
        return CheckReport(
            facts=dict(self.facts),
            layouts=self.layouts,
            relations=dict(self.relations.most_common()),
            roles=dict(self.roles.most_common()),
            without_subject=self.without_subject,
            error_count=self.error_count,
            errors=tuple(self.errors),
            warnings=tuple(sorted(self.warnings.values(), key=lambda warned: -warned.count)),
            would_drop=(*grouped(self.benign), *map(str, self.errors), *self._unlisted()),
        )

    def _unlisted(self) -> Iterator[str]:
        if more := self.error_count - len(self.errors):
            yield f"… and {more} more"


def _report_lines(report: CheckReport) -> Iterator[str]:
    for name, count in report.facts.items():
        yield f"{name}: {count:,} facts, layout {report.layouts.get(name) or 'unknown'}"
    yield f"relations: {_counted(report.relations)}"
    yield f"roles: {_counted(report.roles)}"
    if report.without_subject:
        yield f"without a subject: {report.without_subject:,} (each counts as a subject of its own)"
    yield f"errors: {report.error_count:,}"
    yield from _indented(map(str, report.errors))
    if more := report.error_count - len(report.errors):
        yield f"  … and {more:,} more"
    yield f"warnings: {sum(warned.count for warned in report.warnings):,}"
    for warned in report.warnings:
        yield f"  {warned.count:,} × {warned.what}"
        yield from _indented(warned.examples, 4)
    errors_listed = len(report.errors) + bool(report.error_count - len(report.errors))
    yield from report.would_drop[: len(report.would_drop) - errors_listed]
    if report.ok:
        yield "fit for use"
    elif report.total:
        left_out = f"{report.error_count:,} faults left out"
        yield f"refused as it is; with --skip-invalid {report.total:,} facts would be used, {left_out}"
    else:
        yield "refused: no valid fact"


def _counted(counts: dict[str, int], most: int = 12) -> str:
    shown_ones = [f"{name or 'none'} {count:,}" for name, count in list(counts.items())[:most]]
    return ", ".join(shown_ones) + (f", … {len(counts)} in all" if len(counts) > most else "")


def _indented(lines: Iterable[str], by: int = 2) -> Iterator[str]:
    return (" " * by + line for line in lines)
