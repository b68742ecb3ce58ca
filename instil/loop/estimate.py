"""What a run would take, before it is started: time, memory and disk, each the sum of named parts.

Tested against real small runs (`tests/test_estimate.py`): memory and disk within a factor of two. Time is an upper
bound for methods that stop early, and no better than the rate of the machine at this moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from instil.facts import Fact, FactSet, Role
from instil.loop.footprint import Training, exam_bytes, in_use, training_of

if TYPE_CHECKING:
    from instil.exam import Exam
    from instil.loop.inputs import Inputs

SHARE_OF_MATMUL_RATE = 0.3
"""Of the measured rate of large matrix products, what training and probing of small models reach here or better."""

ROW_BYTES: Final = {"answer": 170, "question": 280, "verdict": 180}
"""On disk, as the demo's rows came out: an answer in the ledger, a question of the exam with its exemplars' share, a
verdict with its two rows of mastery."""

PAGE_BYTES, PAGE_ROW_BYTES = 1_300_000, 1_600
"""The report: scripts and fonts; a fact in report.html and report.json."""


LOADED_LATER = 400_000_000
"""On a CPU: what the Trainer's libraries and oneDNN's kernels for rows of many lengths added to a process here."""


@dataclass(frozen=True)
class Estimate:
    """Time, memory and disk of a run.

    Attributes:
        training_tokens: tokens trained on, all stages and epochs; fewer when a method stops early.
        training_flops: 6 operations a weight and token, a third more where activations are computed again, times the
            passes of sharpness-aware steps.
        exam_flops: both exams and the probes that the method decides by.
        rate: operations a second of a large matrix product, measured here and now, times `SHARE_OF_MATMUL_RATE`.
        seconds: both at `rate`.
        memory_bytes: the most at one time, on the device that holds the model: the sum of `memory`.
        disk_bytes: the most at one time: the sum of `disk`.
        kept_bytes: what of it stays when the run is done.
        memory: bytes by what needs them, at the fullest moment.
        disk: bytes by what needs them.
    """

    training_tokens: int
    training_flops: float
    exam_flops: float
    rate: float
    seconds: float
    memory_bytes: int
    disk_bytes: int
    kept_bytes: int
    memory: Mapping[str, int]
    disk: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(inputs: Inputs, states: int = 1, earlier: Sequence[Fact] = ()) -> Estimate:
    """Estimate a run from what it would read, and the rate of a matrix product measured here and now.

    Args:
        inputs: the checked call.
        states: states of the model that stay on disk.
        earlier: facts of earlier lessons, which the exam asks besides the lesson's own.
    """
    from instil.loop.run import exam_of

    exam, training = exam_of(inputs, FactSet(earlier)), training_of(inputs)
    training_tokens = training.tokens
    training_flops = (8.0 if training.recomputes else 6.0) * training.passes * training.weights * training_tokens
    exam_flops = 2.0 * training.weights * (2 * exam_tokens(inputs, exam) + deciding_tokens(inputs))
    rate = measured_rate(str(inputs.model.model.device), inputs.model.dtype) * SHARE_OF_MATMUL_RATE
    memory, disk, kept = memory_of(inputs, training), *disk_of(inputs, training, exam, states)
    return Estimate(
        training_tokens=training_tokens,
        training_flops=training_flops,
        exam_flops=exam_flops,
        rate=rate,
        seconds=(training_flops + exam_flops) / rate,
        memory_bytes=sum(memory.values()),
        disk_bytes=sum(disk.values()),
        kept_bytes=kept,
        memory=memory,
        disk=disk,
    )


def exam_tokens(inputs: Inputs, exam: Exam) -> int:
    """Tokens computed in one sitting: each question behind each of its exemplar sets, exemplars once, general texts."""
    prompts, config = inputs.model.prompts, inputs.exam
    first = {"as_worded", "held_back", "development", "earlier"}
    tokens = 0
    for item in exam.items:
        length = len(prompts.question_ids(item.question.text)) + len(prompts.answer_ids(item.question.answers[0]))
        # A wrong answer of a first wording is scored once more, for the model's confidence in it.
        sets = inputs.probe.exemplar_sets + config.confidence_sets if item.part in first else config.reworded_sets
        tokens += length * (sets + (1 if inputs.probe.prior else 0))
    exemplars = question_tokens(inputs, inputs.roles[Role.EXEMPLAR])
    relations = {item.question.relation for item in exam.items}
    shots = inputs.probe.shots * inputs.probe.exemplar_sets * len(relations)
    tokens += round(exemplars / max(1, len(inputs.roles[Role.EXEMPLAR])) * shots)
    return tokens + sum(len(prompts.text_ids(text)) for text in exam.general_texts)


def deciding_tokens(inputs: Inputs) -> int:
    """Tokens of the probes that `gradual` decides by: two of the target facts, one of the replay facts."""
    if inputs.method.name != "gradual":
        return 0
    target, known = (question_tokens(inputs, inputs.roles[role]) for role in (Role.TARGET, Role.KNOWN))
    return (2 * target + known) * inputs.probe.exemplar_sets


def question_tokens(inputs: Inputs, facts: Iterable[Fact]) -> int:
    prompts = inputs.model.prompts
    return sum(len(prompts.question_ids(fact.question)) + len(prompts.answer_ids(fact.answers[0])) for fact in facts)


def memory_of(inputs: Inputs, training: Training) -> dict[str, int]:
    """The parts of memory while it trains, or while it is examined, whichever is more."""
    now = {"in use now, with the starting model": in_use(inputs.model)}
    if inputs.model.device.type == "cpu":
        now["libraries and compiled kernels that come as it runs"] = LOADED_LATER
    # A process keeps what the exam before teaching had freed (`instil.model.freed`); torch gives it back on a GPU.
    once_examined = {"activations of a probe": exam_bytes(inputs)} if inputs.model.device.type == "cpu" else {}
    while_training = {
        **once_examined,
        "weights in fp32": 4 * training.weights,
        "gradients": 4 * training.trained,
        "optimiser": 8 * training.trained,
        "activations of a batch": training.activation_bytes,
    }
    if training.sharpness_bytes:
        while_training["copy of the weights, for sharpness-aware steps"] = training.sharpness_bytes
    while_examined = {
        "weights in fp32": 4 * training.weights,
        "the model as it is examined": training.saved_bytes,
        "activations of a probe": exam_bytes(inputs),
    }
    return now | max(while_training, while_examined, key=lambda parts: sum(parts.values()))


def disk_of(inputs: Inputs, training: Training, exam: Exam, states: int) -> tuple[dict[str, int], int]:
    """The parts of disk at the fullest moment, and how much of them stays."""
    questions, stages = len(exam.items), training.stages
    decided = len(inputs.roles[Role.TARGET]) * 2 if inputs.method.name == "gradual" else 0
    verdicts = len(inputs.roles[Role.TARGET]) + len(inputs.roles[Role.HELD_BACK])
    stay = {
        "model": states * (training.saved_bytes + training.tokenizer_bytes),
        "ledger, exam and mastery": (2 * questions + decided) * ROW_BYTES["answer"]
        + questions * ROW_BYTES["question"]
        + verdicts * ROW_BYTES["verdict"],
        "report": PAGE_BYTES + verdicts * PAGE_ROW_BYTES,
    }
    every = getattr(training.config, "save_every", "epoch")
    never, last_only = every == "never", every == "epoch" and getattr(training.config, "epochs", 1) == 1
    best = 4 * training.trained if getattr(inputs.settings, "early_stop", False) else 0
    finished = 0 if never else 4 * training.trained * stages
    # A checkpoint is put together beside the one before it; none is written where a stage's end comes first.
    checkpoints = 0 if never or last_only else 2 * 12 * training.trained
    work = {"checkpoints": checkpoints, "weights of finished stages and best epochs": best + finished}
    return stay | work, sum(stay.values())


def measured_rate(device: str, dtype: Any, size: int = 1024, repeats: int = 5) -> float:
    """Floating-point operations a second of a square matrix product; the best of some repeats."""
    import torch

    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        float((left @ right)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
