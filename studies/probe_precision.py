"""What precision and batching change in the exact probe: probabilities, greedy answers, categories.

    python -m studies.probe_precision                            both models, some ten minutes on 2 cores
    python -m studies.probe_precision --model embedded --facts 6 --out runs/small.json
    python -m studies.probe_precision --page                     docs/results/probe-precision.md from the JSON

Each seed draws facts and exemplar sets; these are asked in float32 and in bfloat16, the fast way and the plain one (no
cache, nothing shared or packed), in other batches and another order, and with other exemplars, which gives the scale.
`entityquestions` needs the public data (INSTIL_DATA).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

import instil
from instil.facts import FactSet
from instil.files import write_json
from instil.loop.hardware import commit, hardware
from instil.probe import Category, ExemplarSets, ProbeConfig, ask, draw_exemplars, questions_of
from studies.probe_agreement import MODELS, material
from studies.probe_precision_compared import (
    Answers,
    Key,
    changes_less,
    compared,
    further_off,
    near_the_rule,
    sizes,
)

if TYPE_CHECKING:
    from instil.model import LanguageModel

RESULTS = Path(__file__).parent / "results" / "probe_precision.json"
Ids = tuple[int, ...]
Prompt = tuple[Key, int]
"""A fact, and which of its exemplar sets."""


class Plan(BaseModel):
    """Sizes and settings; all models share them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    facts: int = Field(default=200, ge=2, description="facts asked with each seed")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="each draws facts and exemplar sets of its own")
    reference: int = Field(default=20, ge=1, description="of a seed's facts, those also asked the plain way")
    batch_tokens: int = Field(default=512, ge=64, description="of the runs in other batches and another order")
    other: int = Field(default=1000, ge=1, description="added to a seed, it draws the other exemplar sets")
    within: float = Field(default=1e-5, description="by how much a probability may differ in float32")
    probe: dict[str, Any] = Field(default={}, description="settings of the probe that are not the protocol's")


@dataclass(frozen=True)
class Run:
    """One way to ask the same facts."""

    low: bool = False
    plain: bool = False
    other_batches: bool = False
    other_exemplars: bool = False


RUNS = {
    "fp32": Run(),
    "fp32, other batches": Run(other_batches=True),
    "fp32, other exemplars": Run(other_exemplars=True),
    "fp32, plain": Run(plain=True),
    "bf16": Run(low=True),
    "bf16, other batches": Run(low=True, other_batches=True),
    "bf16, plain": Run(low=True, plain=True),
}
PAIRS = {
    "plain": ("fp32, plain", "fp32"),
    "batches": ("fp32", "fp32, other batches"),
    "precision": ("fp32", "bf16"),
    "low_batches": ("bf16", "bf16, other batches"),
    "low_to_plain": ("fp32, plain", "bf16"),
    "low_plain_to_plain": ("fp32, plain", "bf16, plain"),
    "exemplars": ("fp32", "fp32, other exemplars"),
}
"""What is compared with what; the plain runs have fewer facts, and pairs with them so many."""
EXACT = ("plain", "batches")
"""Pairs in float32 whose probabilities must be equal within `Plan.within`."""
OTHER_PROMPTS = ("exemplars",)
"""Pairs whose prompts are not the same: only their facts can be compared."""


@dataclass
class Bench:
    """One model in two precisions, and the facts that each seed draws."""

    lm: LanguageModel
    facts: FactSet
    exemplars: FactSet
    plan: Plan
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        if self.lm.dtype != torch.float32:
            raise instil.InputError("the study begins in float32", field="dtype", found=str(self.lm.dtype))
        self.low = self.lm.at(torch.bfloat16)
        self.drawn = {seed: self.facts.sample(self.plan.facts, seed) for seed in self.plan.seeds}
        self.cluster = {(seed, fact.id): fact.cluster for seed, facts in self.drawn.items() for fact in facts}

    def timed(self, name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 2)
        return result

    def config(self, seed: int) -> ProbeConfig:
        return ProbeConfig(**{**self.plan.probe, "seed": seed})

    def sets(self, seed: int, facts: FactSet) -> ExemplarSets:
        return draw_exemplars(self.exemplars, facts.by_relation, self.config(seed))

    def asked_plainly(self, seed: int) -> FactSet:
        return self.drawn[seed].sample(self.plan.reference, seed)

    def answers(self, run: Run) -> Answers:
        """One answer a seed and fact, whatever the order of asking was."""
        return {(seed, name): one for seed in self.plan.seeds for name, one in self._of_seed(run, seed)}

    def _of_seed(self, run: Run, seed: int) -> Iterator[tuple[str, Any]]:
        from instil.probe.plain_runner import PlainRunner
        from instil.probe.shared_runner import SharedRunner

        lm, config = self.low if run.low else self.lm, self.config(seed)
        facts = self.asked_plainly(seed) if run.plain else self.drawn[seed]
        sets = self.sets(seed + self.plan.other * run.other_exemplars, self.drawn[seed])
        questions = questions_of(facts)
        if run.other_batches:
            config = config.model_copy(update={"batch_tokens": self.plan.batch_tokens})
            random.Random(seed).shuffle(questions)
        # Named and not chosen: a model that the fast way cannot serve would compare the plain way with itself.
        runner = PlainRunner(lm) if run.plain else SharedRunner(lm)
        found = {one.fact_id: one for one in ask(lm, questions, sets, config, runner=runner)}
        return ((fact.id, found[fact.id]) for fact in facts)

    def prompt_ids(self, prompt: Prompt) -> Ids:
        (seed, name), place = prompt
        question = questions_of([self.drawn[seed].by_id[name]])[0]
        worked = self.sets(seed, self.drawn[seed]).for_question(question)[place]
        prompts = self.lm.prompts
        return prompts.prefix_ids([one[:2] for one in worked]) + prompts.question_ids(question.text)

    def in_common(self) -> float:
        """Share of a relation's drawn exemplars that its other draw has too, over relations and seeds."""
        shares = []
        for seed, facts in self.drawn.items():
            one, other = (self.sets(number, facts) for number in (seed, seed + self.plan.other))
            for relation in facts.by_relation:
                first, second = (
                    {exemplar.fact_id for chosen in sets.of(relation) for exemplar in chosen} for sets in (one, other)
                )
                shares.append(len(first & second) / max(1, len(first)))
        return sum(shares) / len(shares)


def leads(lm: LanguageModel, prompts: Sequence[Ids], limit: int, rows: int = 32) -> list[float]:
    """For each prompt, by how many logits the greedy answer was ahead where it was least ahead.

    By `generate`, prompts of one length together so that nothing is padded. All stop tokens count as one: which of
    them ends an answer changes nothing.
    """
    import torch

    stops = sorted(lm.prompts.stop_ids)
    found = [0.0] * len(prompts)
    for length in sorted(set(map(len, prompts))):
        places = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
        for start in range(0, len(places), rows):
            batch = places[start : start + rows]
            ids = torch.tensor([prompts[place] for place in batch], device=lm.device)
            generated: Any = lm.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=min(limit, lm.context_window - length),
                eos_token_id=stops,
                pad_token_id=stops[0],
                output_logits=True,
                return_dict_in_generate=True,
            )
            logits_BTV = torch.stack(generated.logits, 1).float()
            stop_BT = logits_BTV[..., stops].max(-1).values
            logits_BTV[..., stops] = -torch.inf
            logits_BTV[..., stops[0]] = stop_BT
            two_BT2, tokens_BT2 = torch.topk(logits_BTV, 2)
            lead_BT = two_BT2[..., 0] - two_BT2[..., 1]
            ended_BT = (tokens_BT2[..., 0] == stops[0]).long().cumsum(1)
            beyond_BT = ended_BT.roll(1, 1).index_fill(1, torch.zeros(1, dtype=torch.long, device=lm.device), 0) > 0
            lowest = lead_BT.masked_fill(beyond_BT, torch.inf).min(1).values.tolist()
            for place, lead in zip(batch, lowest, strict=True):
                found[place] = lead
    return found


def overturned(bench: Bench, one: Answers, other: Answers) -> dict[str, Any]:
    """How far ahead the greedy answers were that the other precision made right or wrong, and those of any prompts.

    The least lead of an answer can lie at another token than the one overturned, so it errs on the small side.
    """
    changed = [
        (key, place)
        for key, asked in one.items()
        for place, right in enumerate(asked.greedy_right_by_set)
        if right != other[key].greedy_right_by_set[place]
    ]
    usual = [
        ((seed, fact.id), place)
        for seed in bench.plan.seeds
        for fact in bench.asked_plainly(seed)
        for place in range(len(one[seed, fact.id].p_by_set))
    ]
    limit = bench.config(0).max_answer_tokens
    of_changed, of_usual = (
        leads(bench.lm, [bench.prompt_ids(prompt) for prompt in prompts], limit) for prompts in (changed, usual)
    )
    most = max(of_changed, default=0.0)
    return {
        "changed": sizes(of_changed),
        "usual": sizes(of_usual),
        "usual_not_above_the_greatest_changed": sum(lead <= most for lead in of_usual) / len(of_usual),
    }


def measure(bench: Bench, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything about one model that the JSON holds."""
    answers: dict[str, Answers] = {}
    for name, run in RUNS.items():
        tell(f"{bench.lm.name}: {name}")
        answers[name] = bench.timed(name, partial(bench.answers, run))
    pairs = {
        name: compared(answers[one], answers[other], bench.cluster, same_prompts=name not in OTHER_PROMPTS)
        for name, (one, other) in PAIRS.items()
    }
    high, low, moved = answers["fp32"], answers["bf16"], answers["fp32, other exemplars"]
    tell(f"{bench.lm.name}: leads of greedy answers")
    near = near_the_rule(high, low)
    near["leads"] = bench.timed("leads of greedy answers", lambda: overturned(bench, high, low))
    return {
        "model": bench.lm.describe(),
        "weights_are_bfloat16": stored_low(bench.lm),
        "facts": {
            "n": len(high),
            "distinct": len({name for _, name in high}),
            "subjects": len(set(bench.cluster.values())),
            "categories": {category: sum(one.category is category for one in high.values()) for category in Category},
            "fingerprints": {str(seed): facts.fingerprint for seed, facts in bench.drawn.items()},
        },
        "exemplars_in_common": bench.in_common(),
        "pairs": pairs,
        "exact": all(pairs[name][p].get("max", 0.0) <= bench.plan.within for name in EXACT for p in ("p", "p_prior")),
        "near": near,
        "bf16_less_exemplars": changes_less((high, low), (high, moved), bench.cluster),
        "bf16_fast_further_off": further_off(
            answers["fp32, plain"], answers["bf16"], answers["bf16, plain"], bench.cluster
        ),
        "seconds": bench.seconds,
    }


def stored_low(lm: LanguageModel) -> bool:
    """Whether bfloat16 holds every weight as it is, so that only what is computed is rounded."""
    return all(bool((one == one.bfloat16()).all()) for one in lm.model.parameters())


# ---------------------------------------------------------------------- running


def bench_of(name: str, plan: Plan) -> Bench:
    spec, facts, exemplars = material(name, 1 << 30, 0)
    lm = replace(instil.load(spec, dtype="float32"), name=name, source=name)
    return Bench(lm, facts, exemplars, plan)


def study(models: Sequence[str], plan: Plan, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything that the JSON holds."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "command": "python -m studies.probe_precision",
        "models": {name: measure(bench_of(name, plan), tell) for name in models},
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "plan": plan.model_dump(mode="json"),
        "probe": ProbeConfig(**plan.probe).model_dump(mode="json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, help="once for each model (default: all)")
    parser.add_argument("--facts", type=int, default=Plan().facts, help="facts asked with each seed (default 200)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON (default: the committed one)")
    parser.add_argument("--page", action="store_true", help="only write the page from the JSON")
    options = parser.parse_args()
    if options.page:
        from studies.probe_precision_page import write_page

        write_page(json.loads(options.out.read_text(encoding="utf-8")))
        return
    plan = Plan(facts=options.facts, reference=min(Plan().reference, options.facts))
    write_json(options.out, study(options.model or MODELS, plan))


if __name__ == "__main__":
    main()
