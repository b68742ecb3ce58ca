"""Let an answerer sit an exam. The result is all that verdicts and figures are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instil.answers import is_correct
from instil.errors import InputError
from instil.exam.abstention import is_abstention
from instil.exam.answering import Answerer
from instil.exam.choosing import choose
from instil.exam.paper import (
    AS_WORDED,
    CHOICE,
    FIRST_WORDINGS,
    FLUENCY,
    GENERAL,
    HELD_BACK,
    NO_SUCH_SUBJECT,
    PARTS,
    SAME_SUBJECT,
    WITHOUT_EXEMPLARS,
    Exam,
    Item,
)
from instil.exam.writing import Forced, Writer
from instil.facts import Role
from instil.files import atomic, broken, fingerprint, seal
from instil.ledger.tables import to_arrow
from instil.probe import Asked, Category, Mastery, MasteryMap, ProbeConfig, Question

if TYPE_CHECKING:
    import pyarrow as pa

Told = Callable[[int, int], None]
"""Progress: questions and texts done, and how many there are."""

ASKED_FOR_CONFIDENCE: Final = (AS_WORDED, HELD_BACK, SAME_SUBJECT, NO_SUCH_SUBJECT)
COPIED: Final = (
    "category",
    "p_greedy",
    "p_sampled",
    "p_any",
    "p_prior",
    "gold_in_prompt",
    "greedy_answer",
    "greedy_right_by_set",
    "p_by_set",
    "greedy_answer_by_set",
    "gold_in_prompt_by_set",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One question of the exam and what came of it.

    Attributes:
        item: the question, with its part.
        asked: the answers and probabilities.
        p_own: where the answer given most often is wrong and no abstention: the probability that one sample is this
            answer, which is the model's confidence in it. Mean over `ExamConfig.confidence_sets` exemplar sets. None
            also where that answer cannot be scored.
        forced: the right answer under teacher forcing, in parts asked without exemplars; None where the answerer
            cannot be read so.
    """

    item: Item
    asked: Asked
    p_own: float | None = None
    forced: Forced | None = None

    @property
    def known(self) -> bool:
        return self.asked.known

    @property
    def said(self) -> str:
        """The answer given most often."""
        return self.asked.greedy_answer

    @property
    def said_right(self) -> bool:
        return is_correct(self.said, self.item.question.answers)

    @property
    def cluster(self) -> str:
        """What intervals keep together: the subject, or the fact itself when it has none."""
        subject = self.item.question.subject
        return subject if subject is not None else self.item.question.fact_id


@dataclass(frozen=True, slots=True)
class TextScore:
    """A general text: summed negative log-likelihood (nats) over so many tokens."""

    nll: float
    tokens: int


@dataclass(frozen=True)
class ExamResult:
    """All answers of one model state.

    Attributes:
        exam_fingerprint: of the exam that was sat.
        exemplars_fingerprint: of its exemplars.
        answers: in the order of the exam.
        texts: in the order of the exam.
        written: what the model wrote after each of the exam's openings; empty where it could not be asked to.
        own_exemplars: fingerprints of the exemplars of parts that have their own.
    """

    exam_fingerprint: str
    exemplars_fingerprint: str
    answers: tuple[Answer, ...]
    texts: tuple[TextScore, ...]
    written: tuple[str, ...] = ()
    own_exemplars: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_part(self) -> Mapping[str, Mapping[str, tuple[Answer, ...]]]:
        """Part, then fact id, to its answers: one for first wordings, several for others."""
        parts: dict[str, dict[str, list[Answer]]] = {}
        for answer in self.answers:
            item = answer.item
            parts.setdefault(item.part, {}).setdefault(item.question.fact_id, []).append(answer)
        return {part: {fact: tuple(found) for fact, found in facts.items()} for part, facts in parts.items()}

    def part(self, name: str) -> Mapping[str, tuple[Answer, ...]]:
        return self.by_part.get(name, {})

    def first(self, part: str) -> dict[str, Answer]:
        """Fact id to its answer, for a part that asks each fact once."""
        return {fact: answers[0] for fact, answers in self.part(part).items()}

    def share_known(self, part: str) -> dict[str, float]:
        """Fact id to the share of its wordings in this part that are known."""
        return {
            fact: sum(answer.known for answer in answers) / len(answers) for fact, answers in self.part(part).items()
        }

    def mastery(self, part: str = AS_WORDED) -> MasteryMap:
        """The mastery map of a part that asks each fact once."""
        return MasteryMap(Mastery.of(answer.item.question, answer.asked) for answer in self.first(part).values())

    def rows(self, run_id: str, state_id: str, start: ExamResult | None = None) -> list[dict[str, Any]]:
        """Rows for the ledger's table `answers`.

        Args:
            run_id: the run.
            state_id: the state of the model that answered.
            start: the result before teaching, for `start_category` (pass the result itself when it is that one);
                without it, that column is empty.
        """
        starts = start.categories() if start is not None else {}
        common = {"run_id": run_id, "state_id": state_id, "purpose": "exam"}
        return [
            *({**common, **self._answer_row(answer, starts)} for answer in self.answers),
            *(
                {
                    **common,
                    "part": GENERAL,
                    "question_id": f"{GENERAL}/{number}",
                    "nll": text.nll,
                    "tokens": text.tokens,
                }
                for number, text in enumerate(self.texts)
            ),
            *(
                {**common, "part": FLUENCY, "question_id": f"{FLUENCY}/{number}", "greedy_answer": text}
                for number, text in enumerate(self.written)
            ),
        ]

    def categories(self) -> dict[str, str]:
        """Fact id to mastery, of every fact that is asked in its first wording."""
        return {
            answer.item.question.fact_id: str(answer.asked.category)
            for answer in self.answers
            if answer.item.part in FIRST_WORDINGS
        }

    def to_table(self, run_id: str = "", state_id: str = "") -> pa.Table:
        """The rows as an Arrow table that remembers which exam was sat."""
        table = to_arrow("answers", self.rows(run_id, state_id))
        return table.replace_schema_metadata({"exam": self.exam_fingerprint})

    @staticmethod
    def from_table(table: pa.Table, exam: Exam) -> ExamResult:
        """From rows of one state in the ledger's table `answers`, in any order.

        Raises:
            InputError: they are not the answers to this exam.
        """
        return _result(exam, {row["question_id"]: row for row in table.to_pylist()}, len(table))

    def save(self, path: str | Path) -> None:
        """Write Parquet, atomically."""
        import pyarrow.parquet as pq

        with atomic(path) as draft:
            pq.write_table(self.to_table(), draft, write_page_checksum=True)

    @staticmethod
    def load(path: str | Path, exam: Exam) -> ExamResult:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, is no result, or is that of another exam.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not Path(path).is_file():
            raise InputError("no such exam result", file=path)
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError("not an exam result", file=path, found=" ".join(str(error).split())[:200]) from error
        sat = (table.schema.metadata or {}).get(b"exam", b"").decode()
        if sat != exam.fingerprint:
            raise InputError("the result is that of another exam", file=path, found=sat, expected=exam.fingerprint)
        return ExamResult.from_table(table, exam)

    def _answer_row(self, answer: Answer, starts: Mapping[str, str]) -> dict[str, Any]:
        question, asked = answer.item.question, answer.asked
        return {
            "part": answer.item.part,
            "question_id": question.id,
            "fact_id": question.fact_id,
            "subject": question.subject,
            "relation": question.relation,
            "question": question.text,
            "answers": list(question.answers),
            "exemplars_fingerprint": self.own_exemplars.get(answer.item.part, self.exemplars_fingerprint),
            "known": asked.known,
            "start_category": starts.get(question.fact_id),
            "taught": PARTS[answer.item.part] is Role.TARGET,
            "p_own": answer.p_own,
            "forced_tokens": None if answer.forced is None else list(answer.forced.tokens),
            "forced_right": None if answer.forced is None else list(answer.forced.right),
            **{name: getattr(asked, name) for name in COPIED},
        }


def sit(exam: Exam, answerer: Answerer, *, progress: Told | None = None, keep: str | Path | None = None) -> ExamResult:
    """Ask everything, part by part.

    Args:
        exam: the frozen exam.
        answerer: who sits it.
        progress: is told how many questions and texts are done, and how many there are.
        keep: a folder in which finished parts are kept, so that an exam that was cut off goes on after them.

    Raises:
        InputError: the answerer left a question unanswered, or answered one that was not asked.
    """
    total = len(exam.items) + len(exam.general_texts) + len(exam.openings)
    tell = progress or (lambda done, total: None)
    done = 0
    answers: list[Answer] = []
    tell(done, total)
    for part in exam.parts:
        kept = _kept_part(keep, part, exam, answerer)
        found = _read_part(kept, exam, part) if kept is not None else None
        if found is None:
            found = _sit_part(exam, part, answerer, partial(_tell_from, tell, done, total))
            if kept is not None:
                _keep(_result_of(exam, found), kept)
        answers += found
        done += len(found)
        tell(done, total)
    texts = _sit_texts(exam, answerer, _kept_part(keep, GENERAL, exam, answerer))
    tell(done + len(texts), total)
    written = _sit_openings(exam, answerer, _kept_part(keep, FLUENCY, exam, answerer))
    tell(total, total)
    return _result_of(exam, answers, texts, written)


# -------------------------------------------------------------------- private


def _result_of(
    exam: Exam, answers: Sequence[Answer], texts: Iterable[TextScore] = (), written: Iterable[str] = ()
) -> ExamResult:
    own = {part: sets.fingerprint for part, sets in exam.own_exemplars.items()}
    return ExamResult(exam.fingerprint, exam.exemplars.fingerprint, tuple(answers), tuple(texts), tuple(written), own)


def _tell_from(tell: Told, start: int, total: int, done: int) -> None:
    tell(start + done, total)


def _sit_part(exam: Exam, part: str, answerer: Answerer, tell: Callable[[int], None]) -> list[Answer]:
    if part == CHOICE:
        chosen = choose(exam.by_part[part], answerer, exam.exemplars_of(part), exam.probe_of(part), tell)
        return [Answer(item, found) for item, found in zip(exam.by_part[part], chosen, strict=True)]
    asked: dict[str, Asked] = {}
    questions = exam.part(part)
    for answer in answerer.ask(questions, exam.exemplars_of(part), exam.probe_of(part)):
        asked[answer.question_id] = answer
        tell(len(asked))
    if asked.keys() != {question.id for question in questions}:
        raise InputError("the answerer did not answer what was asked", field=part, found=f"{len(asked)} answers")
    answers = [Answer(item, asked[item.question.id]) for item in exam.by_part[part]]
    if part in WITHOUT_EXEMPLARS and isinstance(answerer, Writer):
        told = zip(answers, answerer.forced(questions), strict=True)
        return [replace(answer, forced=found) for answer, found in told]
    return _with_confidence(exam, answers, answerer) if part in ASKED_FOR_CONFIDENCE else answers


def _with_confidence(exam: Exam, answers: list[Answer], answerer: Answerer) -> list[Answer]:
    """The answers, with `p_own` where one is wrong and no abstention: the same question is asked again with the
    model's own answer as the one that counts, and its exact probability read off."""
    sets = min(exam.config.confidence_sets, exam.probe_config.exemplar_sets)
    wrong = [
        replace(answer.item.question, answers=(answer.said,))
        for answer in answers
        if not answer.said_right and not is_abstention(answer.said, exam.config.abstentions)
    ]
    if not sets or not wrong:
        return answers
    config = exam.probe_config.model_copy(update={"exemplar_sets": sets, "prior": False})
    confidence = {found.question_id: found.p_sampled for found in _scorable(wrong, exam, sets, config, answerer)}
    return [replace(answer, p_own=confidence.get(answer.item.question.id)) for answer in answers]


def _sit_texts(exam: Exam, answerer: Answerer, kept: Path | None) -> list[TextScore]:
    if not exam.general_texts:
        return []
    names = [f"{GENERAL}/{number}" for number in range(len(exam.general_texts))]
    if kept is not None and (rows := _kept_rows(kept, names)) is not None:
        return [TextScore(rows[name]["nll"], rows[name]["tokens"]) for name in names]
    scores = [TextScore(float(nll), int(tokens)) for nll, tokens in answerer.nll(exam.general_texts)]
    if len(scores) != len(names):
        raise InputError("the answerer did not score every text", found=f"{len(scores)} of {len(names)}")
    if kept is not None:
        _keep(_result_of(exam, (), scores), kept)
    return scores


def _sit_openings(exam: Exam, answerer: Answerer, kept: Path | None) -> list[str]:
    if not exam.openings or not isinstance(answerer, Writer):
        return []
    names = [f"{FLUENCY}/{number}" for number in range(len(exam.openings))]
    if kept is not None and (rows := _kept_rows(kept, names)) is not None:
        return [rows[name]["greedy_answer"] for name in names]
    texts = answerer.written(exam.openings, exam.config.opening_tokens, exam.probe_config)
    if len(texts) != len(names):
        raise InputError("the answerer did not go on with every text", found=f"{len(texts)} of {len(names)}")
    if kept is not None:
        _keep(_result_of(exam, (), (), texts), kept)
    return texts


def _scorable(questions: list[Question], exam: Exam, sets: int, config: ProbeConfig, answerer: Answerer) -> list[Asked]:
    """The answers to all questions whose answer can be scored. A model may have said what no prompt can hold as an
    answer: cut off at the window's end, or nothing but marks. Such a one has no `p_own`, and ends no exam."""
    while questions:
        try:
            return list(answerer.ask(questions, exam.exemplars.first(sets), config))
        except InputError as fault:
            others = [question for question in questions if question.fact_id != fault.field]
            if len(others) == len(questions):
                raise
            questions = others
    return []


def _kept_part(keep: str | Path | None, part: str, exam: Exam, answerer: Answerer) -> Path | None:
    if keep is None:
        return None
    return Path(keep) / f"{part}-{fingerprint([exam.fingerprint, answerer.fingerprint])}.parquet"


def _seal_of(kept: Path) -> Path:
    return kept.with_suffix(".json")


def _keep(result: ExamResult, path: Path) -> None:
    result.save(path)
    seal(_seal_of(path), [path])


def _read_part(path: Path, exam: Exam, part: str) -> list[Answer] | None:
    items = exam.by_part[part]
    rows = _kept_rows(path, [item.question.id for item in items])
    return None if rows is None else [_answer(item, rows[item.question.id]) for item in items]


def _kept_rows(path: Path, names: Sequence[str]) -> dict[str, dict[str, Any]] | None:
    """The rows of a finished part by question id; None when it is not there, or not as it was kept: asked again, it is
    the same."""
    import pyarrow.parquet as pq

    if broken(_seal_of(path)) is not None:
        return None
    rows = {row["question_id"]: row for row in pq.read_table(path).to_pylist()}
    return rows if rows.keys() == set(names) else None


def _result(exam: Exam, rows: Mapping[str, Mapping[str, Any]], count: int) -> ExamResult:
    texts = [f"{GENERAL}/{number}" for number in range(len(exam.general_texts))]
    openings = [f"{FLUENCY}/{number}" for number in range(len(exam.openings))]
    # An answerer that writes no text has no rows for the openings: all are there, or none.
    told = openings if openings and openings[0] in rows else []
    wanted = {*exam.by_id, *texts, *told}
    if rows.keys() != wanted or len(rows) != count:
        found = f"{len(rows.keys() & wanted)} of its questions, {len(rows.keys() - wanted)} others, {count} rows"
        raise InputError("these are not the answers to this exam", found=found, expected=f"{len(wanted)} rows")
    return _result_of(
        exam,
        [_answer(item, rows[item.question.id]) for item in exam.items],
        [TextScore(rows[text]["nll"], rows[text]["tokens"]) for text in texts],
        [rows[name]["greedy_answer"] for name in told],
    )


def _answer(item: Item, row: Mapping[str, Any]) -> Answer:
    question = item.question
    if row["question"] != question.text or tuple(row["answers"]) != question.answers:
        raise InputError("these are not the answers to this exam", field=question.id, found=str(row["question"])[:80])
    values: dict[str, Any] = {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in COPIED}
    values["category"] = Category(values["category"])
    tokens, right = row.get("forced_tokens"), row.get("forced_right")
    forced = None if tokens is None or right is None else Forced(tuple(tokens), tuple(right))
    return Answer(item, Asked(question.id, question.fact_id, **values), row["p_own"], forced)
