"""What a call of `compare` means: one exam, one division of facts, one budget; arms times seeds, all checked first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.facts import Corpus, FactSet, Role
from instil.loop.compare_arms import Arm
from instil.loop.documents import refuse_facts_only
from instil.loop.inputs import Inputs, parse_budget, read_config, read_inputs, refuse_lacking, with_shortcuts
from instil.methods import get

if TYPE_CHECKING:
    from instil.model import LanguageModel


@dataclass(frozen=True)
class Trial:
    """One arm with one seed."""

    arm: Arm
    seed: int
    inputs: Inputs

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A checked call.

    Attributes:
        base: model, roles, exemplars and exam settings, which all trials share.
        common: settings that every arm starts from.
        budget: operations that each trial may spend.
        budget_given: False when it was estimated, see `default_budget`.
    """

    base: Inputs
    common: Mapping[str, Any]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    budget: float
    budget_given: bool
    keep_models: bool

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values: the content of `config.yaml`."""
        shared: dict[str, Any] = {
            name: value for name, value in self.base.plan().items() if name not in ("method", "config", "budget")
        }
        arms = {
            arm.name: {
                "method": arm.method,
                "settings": next(t for t in self.trials if t.arm is arm).inputs.settings.model_dump(mode="json"),
            }
            for arm in self.arms
        }
        return {"comparison": 1, **shared, "seeds": list(self.seeds), "budget": self.budget, "arms": arms}


def read_plan(
    model: str | Path | LanguageModel,
    facts: FactSet | str | Path | None,
    *,
    arms: Sequence[Arm],
    seeds: int,
    documents: Corpus | str | Path | None,
    config: Mapping[str, Any] | str | Path | None,
    budget: str | float | None,
    seed: int,
    roles: Mapping[Role, FactSet] | None,
    general: Sequence[str] | None,
    dtype: str,
    device: str,
    keep_models: bool,
    practice_share: float | None = None,
) -> Plan:
    """Resolve and check everything that `compare` was given, every arm's settings included.

    Raises:
        InputError: anything is missing, malformed, unknown or contradictory; an arm's fault names the arm.
    """
    if seeds < 1:
        raise InputError("a comparison needs a seed", field="--seeds", found=str(seeds), expected="1 or more")
    common = read_config(config)
    shared: dict[str, Any] = {name: common.pop(name) for name in ("probe", "exam") if name in common}
    settings = {arm.name: _settings(arm, common, seed) for arm in arms}
    base = read_inputs(
        model,
        facts,
        method=arms[0].method,
        documents=documents,
        config={**settings[arms[0].name], **shared},
        budget=budget,
        seed=seed,
        roles=roles,
        general=general,
        adapter=None,
        dtype=dtype,
        device=device,
        practice_share=practice_share,
    )
    numbers = tuple(range(seed, seed + seeds))
    trials = []
    for arm in arms:
        _check_data(arm, settings[arm.name], base)
        for number in numbers:
            own = get(arm.method).settings(with_shortcuts(_settings(arm, common, number), seed=number, adapter=None))
            trials.append(Trial(arm, number, replace(base, method=get(arm.method), settings=own, seed=number)))
    limit = parse_budget(budget) or default_budget(trials)
    trials = [replace(trial, inputs=replace(trial.inputs, budget=limit)) for trial in trials]
    return Plan(base, common, tuple(arms), numbers, tuple(trials), limit, budget is not None, keep_models)


def _settings(arm: Arm, common: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The arm's settings, checked by its method."""
    given = arm.settings(common)
    if "probe" in given or "exam" in given:
        raise InputError(
            "probe and exam are the same for all arms, or their answers could not be compared",
            field=f"arm {arm.name}",
            expected="them in the common settings",
        )
    try:
        get(arm.method).settings(with_shortcuts(given, seed=seed, adapter=None))
    except InputError as fault:
        raise replace(fault, what=f"arm {arm.name}: {fault.what}") from None
    return given


def _check_data(arm: Arm, settings: Mapping[str, Any], base: Inputs) -> None:
    """What would otherwise only be found when the arm's turn has come."""
    method = get(arm.method)
    if base.cloze is not None:
        refuse_facts_only(method, f"arm {arm.name}")
    own = method.settings(with_shortcuts(settings, seed=0, adapter=None))
    refuse_lacking(method, own, base.lesson_roles, f"arm {arm.name}")
    stops = getattr(own, "early_stop", False)
    if stops and not len(base.roles[Role.DEVELOPMENT]):
        raise InputError(f"arm {arm.name}: early stop needs development facts", field="development", found="none")


def default_budget(trials: Sequence[Trial]) -> float:
    """What the arm that trains longest is estimated to need, so that no arm is cut short by much."""
    from instil.loop.estimate import estimate

    firsts = {trial.arm.name: trial for trial in reversed(trials)}
    return max(estimate(trial.inputs).training_flops for trial in firsts.values())


@dataclass(frozen=True)
class Forecast:
    """Time, memory and disk of a whole comparison. Rough: an upper bound where methods stop early.

    Attributes:
        runs: arms times seeds.
        budget: operations that each run may spend.
        training_flops: of all runs together, as far as the budget goes.
        exam_flops: the exam before, once, and the exam after of every run.
        rate: operations a second that are reckoned with.
        seconds: all of it, one run after the other.
        memory_bytes: of the run that needs most.
        disk_bytes: the models that are kept, and the checkpoints of one run at a time.
        arms: the same for each arm: training operations and seconds of one run.
    """

    runs: int
    budget: float
    training_flops: float
    exam_flops: float
    rate: float
    seconds: float
    memory_bytes: int
    disk_bytes: int
    arms: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(plan: Plan) -> Forecast:
    """Estimate a comparison from its arms' estimates, see `instil.loop.estimate`."""
    from instil.loop.estimate import estimate

    firsts = {trial.arm.name: trial for trial in reversed(plan.trials)}
    each = {arm.name: estimate(firsts[arm.name].inputs) for arm in plan.arms}
    one_exam = min(found.exam_flops for found in each.values()) / 2
    rate = max(found.rate for found in each.values())
    spent = {name: min(found.training_flops, plan.budget) for name, found in each.items()}
    seeds = len(plan.seeds)
    training = seeds * sum(spent.values())
    exams = one_exam + seeds * sum(found.exam_flops - one_exam for found in each.values())
    weights = list(plan.base.model.model.parameters())
    saved = sum(weight.numel() * weight.element_size() for weight in weights)
    kept = saved * (seeds * len(plan.arms) if plan.keep_models else 1)
    return Forecast(
        runs=len(plan.trials),
        budget=plan.budget,
        training_flops=training,
        exam_flops=exams,
        rate=rate,
        seconds=(training + exams) / rate,
        memory_bytes=max(found.memory_bytes for found in each.values()),
        disk_bytes=kept + max(found.disk_bytes for found in each.values()) - saved,
        arms={
            name: {"training_flops": spent[name], "seconds": (spent[name] + each[name].exam_flops - one_exam) / rate}
            for name in each
        },
    )


def by_arm(trials: Sequence[Trial]) -> Iterator[tuple[Arm, list[Trial]]]:
    """Each arm with its trials, in the order of the plan."""
    for arm in dict.fromkeys(trial.arm.name for trial in trials):
        group = [trial for trial in trials if trial.arm.name == arm]
        yield group[0].arm, group
