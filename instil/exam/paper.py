"""`Exam`: the frozen questions. What is asked, with which exemplars and in which order, is fixed by one fingerprint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from instil.errors import InputError
from instil.exam.config import ExamConfig
from instil.facts import Role
from instil.files import fingerprint, write_text
from instil.probe import ExemplarSets, ProbeConfig, Question

FORMAT: Final = 2

AS_WORDED: Final = "as_worded"
REWORDED: Final = "reworded"
HELD_BACK: Final = "held_back"
HELD_BACK_REWORDED: Final = "held_back_reworded"
DEVELOPMENT: Final = "development"
COMPLETED: Final = "completed"
REVERSED: Final = "reversed"
CHOICE: Final = "choice"
CHOICE_AS_TEXT: Final = "choice_as_text"
TWO_HOPS: Final = "two_hops"
IN_CONTEXT: Final = "in_context"
SAME_SUBJECT: Final = "same_subject"
NO_SUCH_SUBJECT: Final = "no_such_subject"
OWN: Final = "own"
OWN_OTHER: Final = "own_other"
BARE: Final = "bare"
BARE_REWORDED: Final = "bare_reworded"
BARE_PORTABLE: Final = "bare_portable"
BARE_LOCALITY: Final = "bare_locality"
EARLIER: Final = "earlier"
GENERAL: Final = "general"
FLUENCY: Final = "fluency"

PARTS: Final[Mapping[str, Role]] = {
    AS_WORDED: Role.TARGET,
    REWORDED: Role.TARGET,
    HELD_BACK: Role.HELD_BACK,
    HELD_BACK_REWORDED: Role.HELD_BACK,
    DEVELOPMENT: Role.DEVELOPMENT,
    COMPLETED: Role.TARGET,
    REVERSED: Role.TARGET,
    CHOICE: Role.TARGET,
    CHOICE_AS_TEXT: Role.TARGET,
    TWO_HOPS: Role.TARGET,
    IN_CONTEXT: Role.TARGET,
    SAME_SUBJECT: Role.HELD_BACK,
    NO_SUCH_SUBJECT: Role.HELD_BACK,
    OWN: Role.TARGET,
    OWN_OTHER: Role.HELD_BACK,
    BARE: Role.TARGET,
    BARE_REWORDED: Role.TARGET,
    BARE_PORTABLE: Role.TARGET,
    BARE_LOCALITY: Role.HELD_BACK,
    EARLIER: Role.HELD_BACK,
}
"""Parts that are questions, in the order in which they are asked, with the role of their facts. What earlier lessons of
the same ledger taught is held back from this one."""

FIRST_WORDINGS: Final = (AS_WORDED, HELD_BACK, DEVELOPMENT, EARLIER)
"""Parts that ask every fact in its first wording, with all exemplar sets."""

OTHER_WORDINGS: Final = (REWORDED, HELD_BACK_REWORDED)
"""Parts that ask paraphrases, with `ExamConfig.reworded_sets`. What is in neither list has `ExamConfig.part_sets`."""

WITHOUT_EXEMPLARS: Final = (BARE, BARE_REWORDED, BARE_PORTABLE, BARE_LOCALITY)
"""Parts asked without any worked question, as KnowEdit asks."""

NO_EXEMPLARS: Final = ExemplarSets({"": ((),)})
"""One set, which is empty."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question of the exam.

    Attributes:
        part: one of `PARTS`.
        wording: 0 for the fact's question, n for its nth paraphrase (or, where statements are completed, the nth).
        question: what is asked; its id is unique in the exam.
        options: what a choice offers, in the order shown.
        through: of two hops, the id of the second fact.
    """

    part: str
    wording: int
    question: Question
    options: tuple[str, ...] = ()
    through: str | None = None


@dataclass(frozen=True)
class Exam:
    """The frozen questions.

    Attributes:
        items: all questions, in the order in which they are asked.
        exemplars: the worked questions of the prompts.
        general_texts: texts for perplexity.
        config: how it was built and how its figures are made.
        probe_config: how it is asked.
        left_out: what was given and is not asked, as (what, reason).
        own_exemplars: the worked questions of a part that asks in another form; they have the same form.
        openings: beginnings of texts that the model is to go on with, for fluency.
    """

    items: tuple[Item, ...]
    exemplars: ExemplarSets
    general_texts: tuple[str, ...]
    config: ExamConfig
    probe_config: ProbeConfig
    left_out: tuple[tuple[str, str], ...] = ()
    own_exemplars: Mapping[str, ExemplarSets] = field(default_factory=dict)
    openings: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many questions, texts not counted."""
        return len(self.items)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.part(part))} {part}" for part in self.parts)
        return f"Exam({counts}, {len(self.general_texts)} texts, {self.fingerprint})"

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any question, answer, exemplar, text, setting that matters, and with their order."""
        return fingerprint(_line(line) for line in self._lines())

    @cached_property
    def by_part(self) -> Mapping[str, tuple[Item, ...]]:
        return {part: tuple(item for item in self.items if item.part == part) for part in PARTS}

    @cached_property
    def by_id(self) -> Mapping[str, Item]:
        return {item.question.id: item for item in self.items}

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts that ask anything, in order."""
        return tuple(part for part in PARTS if self.by_part[part])

    def part(self, name: str) -> tuple[Question, ...]:
        return tuple(item.question for item in self.by_part[name])

    def exemplars_of(self, part: str) -> ExemplarSets:
        """All exemplar sets for first wordings, the first few of them for other wordings, a part's own where it has
        another form, and none for what is asked without."""
        if part in FIRST_WORDINGS:
            return self.exemplars
        if part in WITHOUT_EXEMPLARS:
            return NO_EXEMPLARS
        return self.own_exemplars.get(part, self.exemplars).first(self.probe_of(part).exemplar_sets)

    def probe_of(self, part: str) -> ProbeConfig:
        """How a part is asked. All but first wordings get fewer exemplar sets, and no prior, which the first has."""
        if part in FIRST_WORDINGS:
            return self.probe_config
        if part in WITHOUT_EXEMPLARS:
            return self.probe_config.model_copy(update={"exemplar_sets": 1, "shots": 0, "prior": False})
        wanted = self.config.reworded_sets if part in OTHER_WORDINGS else self.config.part_sets
        sets = min(wanted, self.probe_config.exemplar_sets)
        return self.probe_config.model_copy(update={"exemplar_sets": sets, "prior": False})

    def write(self, path: str | Path) -> None:
        """Write JSONL, atomically: a header with the fingerprint, then exemplars, questions and texts, a line each."""
        lines = list(self._lines())
        header = {**lines[0], "fingerprint": self.fingerprint, "left_out": [list(pair) for pair in self.left_out]}
        header |= {"checksum": _header_mark(header)}  # The fingerprint is of what is asked, and covers no left_out.
        write_text(path, "".join(_line(line) + "\n" for line in (header, *lines[1:])))

    @staticmethod
    def read(path: str | Path) -> Exam:
        """Read what `write` wrote.

        Raises:
            InputError: the file is missing, is not an exam, is a newer version's, or was changed since it was frozen.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise InputError("no such exam", file=path) from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("the exam cannot be read", file=path, found=str(error)) from error
        lines = [line for line in text.split("\n") if line]
        exam, frozen = _parse(path, lines)
        header = json.loads(lines[0])
        if header.pop("checksum", None) not in (None, _header_mark(header)):
            raise InputError("the header of the exam was changed after it was frozen", file=path, line=1)
        if exam.fingerprint != frozen:
            raise InputError(
                "the exam was changed after it was frozen; build a new one instead",
                file=path,
                field="fingerprint",
                found=exam.fingerprint,
                expected=frozen,
            )
        return exam

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Everything that the fingerprint covers."""
        yield {
            "exam": FORMAT,
            # How items were made from documents is no part of it once they are made.
            "config": self.config.model_dump(mode="json", exclude={"cloze"}),
            # How many tokens are computed at once changes the speed only.
            "probe": self.probe_config.model_dump(mode="json", exclude={"batch_tokens"}),
        }
        for relation, sets in sorted(self.exemplars.to_dict()["sets"].items()):
            yield {"relation": relation, "exemplar_sets": sets}
        for part, own in sorted(self.own_exemplars.items()):
            for relation, sets in sorted(own.to_dict()["sets"].items()):
                yield {"exemplars_of": part, "relation": relation, "exemplar_sets": sets}
        for item in self.items:
            extra: dict[str, Any] = {"options": list(item.options)} if item.options else {}
            extra |= {"through": item.through} if item.through is not None else {}
            yield {"part": item.part, "wording": item.wording, **extra, **asdict(item.question)}
        for text in self.general_texts:
            yield {"text": text}
        for opening in self.openings:
            yield {"opening": opening}


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _header_mark(header: Mapping[str, Any]) -> str:
    return fingerprint([_line(header)])


def _parse(path: str | Path, lines: list[str]) -> tuple[Exam, str]:
    """The exam and the fingerprint that its header claims."""
    header = _parse_line(path, 1, lines[0]) if lines else {}
    if "exam" not in header:
        raise InputError("not an exam", file=path, line=1, expected='a header with "exam"')
    if header["exam"] != FORMAT:
        what = "this exam was written by another version of Instil"
        raise InputError(what, file=path, found=f"format {header['exam']}", expected=f"format {FORMAT}")
    sets: dict[str | None, dict[str, Any]] = {None: {}}
    items: list[Item] = []
    texts: list[str] = []
    openings: list[str] = []
    for number, line in enumerate(lines[1:], 2):
        value = _parse_line(path, number, line)
        try:
            if "exemplar_sets" in value:
                sets.setdefault(value.get("exemplars_of"), {})[value["relation"]] = value["exemplar_sets"]
            elif "part" in value:
                items.append(_item(value))
            elif "opening" in value:
                openings.append(value["opening"])
            else:
                texts.append(value["text"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("not a line of an exam", file=path, line=number, found=line[:80]) from error
    try:
        exam = Exam(
            items=tuple(items),
            exemplars=ExemplarSets.from_dict({"sets": sets.pop(None)}),
            general_texts=tuple(texts),
            config=ExamConfig.model_validate(header["config"]),
            probe_config=ProbeConfig.model_validate(header["probe"]),
            left_out=tuple((what, reason) for what, reason in header["left_out"]),
            own_exemplars={str(part): ExemplarSets.from_dict({"sets": own}) for part, own in sets.items()},
            openings=tuple(openings),
        )
        return exam, str(header["fingerprint"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise InputError(
            "the header of the exam is not valid", file=path, line=1, found=" ".join(str(error).split())[:200]
        ) from error


def _parse_line(path: str | Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError("not JSON", file=path, line=number, found=line[:80]) from error
    if not isinstance(value, dict):
        raise InputError("not a line of an exam", file=path, line=number, found=line[:80])
    return value


def _item(value: dict[str, Any]) -> Item:
    part, wording = value.pop("part"), value.pop("wording")
    if part not in PARTS:
        raise ValueError(part)
    options, through = tuple(value.pop("options", ())), value.pop("through", None)
    return Item(part, wording, Question(**{**value, "answers": tuple(value["answers"])}), options, through)
