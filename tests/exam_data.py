"""A small exam, and an answerer whose answers are written down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instil.answers import is_correct
from instil.exam import Exam, ExamConfig, build_exam
from instil.facts import Fact, FactSet, Role
from instil.probe import Asked, ExemplarSets, ProbeConfig, Question, any_of, categorise, draw_exemplars

PLACES = ("Paris", "London", "Vienna", "Warsaw", "Stockholm", "Princeton", "Manchester", "Copenhagen")
QUICK = ExamConfig(resamples=200, parts=())
PROBE = ProbeConfig(exemplar_sets=4, shots=2)


def fact(number: int, role: Role | None = None, *, wordings: int = 3, **changes: Any) -> Fact:
    person = f"Person {number}"
    values: dict[str, Any] = {
        "id": f"f{number}",
        "question": f"Where was {person} born?",
        "answers": (PLACES[number % len(PLACES)], f"City of {PLACES[number % len(PLACES)]}"),
        "subject": person,
        "relation": "born in",
        "paraphrases": tuple(
            text.format(person)
            for text in (
                "What is the birthplace of {}?",
                "{} was born in which city?",
                "In which place did {} see light?",
            )
        )[:wordings],
        "role": role,
    }
    return Fact(**{**values, **changes})


def facts(start: int, count: int, role: Role | None = None, **changes: Any) -> FactSet:
    return FactSet(fact(number, role, **changes) for number in range(start, start + count))


def exemplars(config: ProbeConfig = PROBE) -> ExemplarSets:
    return draw_exemplars(facts(900, 20), ["born in"], config)


def exam(
    target: int = 6, held_back: int = 6, development: int = 2, *, texts: Sequence[str] = (), **options: Any
) -> Exam:
    return build_exam(
        facts(0, target),
        facts(100, held_back),
        facts(200, development),
        exemplars=options.pop("exemplars", exemplars()),
        general_texts=texts,
        config=options.pop("config", QUICK),
        probe_config=options.pop("probe_config", PROBE),
    )


class Script:
    """Says what is written down for a question's id: one answer for all exemplar sets, or one for each.

    Attributes:
        lines: question id to answers. Questions without a line are answered "Nowhere".
        confidence: probability of whatever it says; `sure` overrides it for some question ids.
        asked: question ids, in the order in which they were asked.
        scored: texts that were scored.
    """

    def __init__(
        self, lines: Mapping[str, str | Sequence[str]], confidence: float = 0.9, sure: Mapping[str, float] | None = None
    ) -> None:
        self.lines, self.confidence, self.sure = dict(lines), confidence, dict(sure or {})
        self.asked: list[str] = []
        self.scored: list[str] = []
        self.fingerprint = "script"

    def ask(self, questions: Sequence[Question], exemplars: ExemplarSets, config: ProbeConfig) -> Iterator[Asked]:
        assert all(len(exemplars.of(question.relation)) == config.exemplar_sets for question in questions)
        for question in questions:
            self.asked.append(question.id)
            yield self._answer(question, config)

    def nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        self.scored += texts
        return [(2.0 * len(text.split()), len(text.split())) for text in texts]

    def _answer(self, question: Question, config: ProbeConfig) -> Asked:
        line = self.lines.get(question.id, "Nowhere")
        said = [line] * config.exemplar_sets if isinstance(line, str) else list(line)[: config.exemplar_sets]
        confidence = self.sure.get(question.id, self.confidence)
        right = tuple(is_correct(text, question.answers) for text in said)
        p = tuple(confidence if hit else (1 - confidence) / 100 for hit in right)
        p_greedy, p_any = sum(right) / len(right), any_of(p, config.samples)
        return Asked(
            question_id=question.id,
            fact_id=question.fact_id,
            category=categorise(p_greedy, p_any),
            p_greedy=p_greedy,
            p_sampled=sum(p) / len(p),
            p_any=p_any,
            p_prior=None,
            gold_in_prompt=False,
            greedy_answer=max(dict.fromkeys(said), key=said.count),
            greedy_right_by_set=right,
            p_by_set=p,
            greedy_answer_by_set=tuple(said),
            gold_in_prompt_by_set=(False,) * len(said),
        )


def right(exam: Exam, *parts: str) -> dict[str, str]:
    """The right answer to every question of these parts, of all parts by default."""
    return {item.question.id: item.question.answers[0] for item in exam.items if not parts or item.part in parts}
