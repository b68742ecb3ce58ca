"""The cells on real text: SQuAD passages, and a small base that has read other Wikipedia articles.

    python -m studies.generalization_squad --tune     learning rates and ρ, on articles of their own
    python -m studies.generalization_squad            the cells, on passages that nothing was tuned on
    python -m studies.generalization_squad --page     docs/results/generalization-squad.md from the JSON

It needs the public data (INSTIL_DATA) and the EntityQuestions base, which is too small to answer a question about a
passage that it has read. So answers are *read by their log-probability*: behind the question, in the base's own
format, in nats a token. What counts is how much it rises, and how much more than for passages that were not taught.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.exam.statistics import Figure, crossed
from instil.facts import Corpus, FactSet, Role
from instil.files import read_sealed, write_json, write_sealed
from studies.entityquestions import data_folder
from studies.first_run import BASE
from studies.generalization import AUGMENTED, HALF, SAM, WHOLE, Job, Plan, about, main_cells, work_through
from studies.generalization_asking import of_text
from studies.generalization_figures import asked_pairs, mean, verdict
from studies.generalization_run import Cell, Tuned, run

if TYPE_CHECKING:
    from instil.model import LanguageModel

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "generalization_squad.json"
TUNING = HERE / "results" / "generalization_squad_tuning.json"
WORK = Path("runs") / "generalization-squad"
PLAN = Plan(
    worlds=(1, 2, 3), further_worlds=(), people=48, wordings=0, practice=64, known=0, budget=6e12,
    points=4, rates=(3e-4, 1e-3, 3e-3), rhos=(0.15, 0.5), kept_worlds=(),
)  # fmt: skip
"""Seeds draw passages; `people` counts them."""

DEVELOPMENT = 0
DEVELOPMENT_SHARE = 0.2
"""Of the articles: settings are chosen on their passages, and these are never reported on."""


@dataclass(frozen=True)
class Passages:
    """What one seed teaches and asks.

    Attributes:
        questions: about the taught passages.
        untaught: questions about others, of other articles.
        general: their text, for perplexity.
    """

    documents: Corpus
    questions: FactSet
    untaught: FactSet
    practice: FactSet
    practice_documents: Corpus
    general: tuple[str, ...]
    base: Path = BASE

    def look(self, lm: LanguageModel) -> dict[str, float]:
        return {"log_probability": mean(log_probabilities(lm, self.questions))}

    def examine(self, lm: LanguageModel) -> dict[str, Any]:
        def rows(facts: FactSet) -> list[dict[str, Any]]:
            found = log_probabilities(lm, facts)
            return [
                {"fact": fact.id, "document": fact.documents[0], "log_probability": value}
                for fact, value in zip(facts, found, strict=True)
            ]

        return {"questions": rows(self.questions), "untaught": rows(self.untaught), **of_text(lm, self.general)}


def log_probabilities(lm: LanguageModel, facts: FactSet) -> list[float]:
    """Of each first answer and its end, behind the question in the base's format; nats, the mean over tokens."""
    from instil.training import question_example

    examples = [question_example(lm.prompts, fact) for fact in facts]
    found = [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda index: len(examples[index]))
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        for index, value in zip(batch, _of_batch(lm, [examples[index] for index in batch]), strict=True):
            found[index] = value
    return found


def _of_batch(lm: LanguageModel, examples: Sequence[Any]) -> list[float]:
    import torch

    longest = max(map(len, examples))
    ids_BT = torch.zeros(len(examples), longest, dtype=torch.long)
    for row, example in enumerate(examples):
        ids_BT[row, : len(example)] = torch.tensor(example.input_ids)
    with torch.inference_mode():  # a causal model's logits do not depend on the filler behind them
        logs_BTV = torch.log_softmax(lm.model.eval()(input_ids=ids_BT.to(lm.device)).logits.float(), dim=-1)
    return [
        mean([float(logs_BTV[row, place - 1, label]) for place, label in enumerate(example.labels) if label >= 0])
        for row, example in enumerate(examples)
    ]


def passages(seed: int, plan: Plan) -> Passages:
    """Passages to teach, others whose questions are practice, and others again; each from articles of its own."""
    source = data_folder() / "squad" / "passages.jsonl.gz"
    facts, corpus = FactSet.read(source), Corpus.read(source)
    titles = sorted({str(document.title) for document in corpus})
    random.Random("articles").shuffle(titles)
    cut = round(DEVELOPMENT_SHARE * len(titles))
    chosen = titles[:cut] if seed == DEVELOPMENT else titles[cut:]
    rng = random.Random(f"passages {seed}")
    rng.shuffle(chosen)
    # Half of the articles are taught from, a quarter is practised on, and the last is not seen.
    half, rest = chosen[: (len(chosen) + 1) // 2], chosen[(len(chosen) + 1) // 2 :]
    practised, unseen = rest[::2], rest[1::2]

    def of(names: Sequence[str]) -> list[str]:
        return sorted(document.id for document in corpus if document.title in set(names))

    taught = set(rng.sample(of(half), min(plan.people, len(of(half)))))
    other = set(rng.sample(of(unseen), min(plan.people, len(of(unseen)))))
    practice = facts.where(lambda fact: fact.documents[0] in set(of(practised))).sample(plan.practice, seed)
    return Passages(
        documents=corpus.where(lambda document: document.id in taught),
        questions=facts.where(lambda fact: fact.documents[0] in taught),
        untaught=facts.where(lambda fact: fact.documents[0] in other),
        practice=practice.assign(Role.PRACTICE),
        practice_documents=Corpus(()),
        general=tuple(document.text for document in corpus if document.id in other),
    )


# ---------------------------------------------------------------------- running


def cells() -> list[Cell]:
    """All main cells but the paraphrased ones: nobody has reworded these passages."""
    return [cell for cell in main_cells() if not cell.name.startswith("paraphrase")]


def work_on(job: Job, work: Path) -> str:
    plan = job.plan
    found = run(
        job.cell, job.tuned, passages(job.world, plan), budget=plan.budget, batch=plan.batch, points=plan.points,
        seed=job.world, keep=None,
    )  # fmt: skip
    write_sealed(work / f"{job.name}.json", {"job": job.identity, **found})
    return f"{job.name}: {mean([row['log_probability'] for row in found['questions']]):.3f} nats a token"


def tune(plan: Plan, work: Path, workers: int, tell: Callable[[str], None]) -> dict[str, Any]:
    jobs = [
        Job(cell=cell, tuned=Tuned(rate=rate, rho=rho), world=DEVELOPMENT, plan=plan)
        for cell in cells()
        for rate, rho in product(plan.rates, plan.rhos if cell.sharpness else (None,))
    ]
    tried: dict[str, list[dict[str, Any]]] = {}
    for job, found in zip(jobs, work_through(jobs, work, workers, tell, work_on), strict=True):
        value = mean([row["log_probability"] for row in found["questions"]])
        tried.setdefault(job.cell.name, []).append({**job.tuned.model_dump(), "score": value, "loss": found["loss"]})
    best = {name: max(rows, key=lambda row: row["score"]) for name, rows in tried.items()}
    return {
        **about(plan, "--tune", "generalization_squad"),
        "tried": tried,
        "chosen": {name: {key: row[key] for key in ("rate", "rho")} for name, row in best.items()},
    }


def study(plan: Plan, tuning: dict[str, Any], work: Path, workers: int, tell: Callable[[str], None]) -> dict[str, Any]:
    jobs = [
        Job(cell=cell, tuned=Tuned(**tuning["chosen"][cell.name]), world=seed, plan=plan)
        for seed in plan.worlds
        for cell in cells()
    ]
    found = work_through(jobs, work, workers, tell, work_on)
    runs = {(job.cell.name, job.world): one for job, one in zip(jobs, found, strict=True)}
    start = {seed: before(plan, seed, work) for seed in plan.worlds}
    augmented = [name for name in AUGMENTED if name != "paraphrase"]
    return {
        **about(plan, "", "generalization_squad"),
        "chosen": tuning["chosen"],
        "sizes": {str(seed): sizes(passages(seed, plan)) for seed in plan.worlds},
        "before": {
            part: mean([row["log_probability"] for one in start.values() for row in one[part]])
            for part in ("questions", "untaught")
        },
        "cells": {
            cell.name: {
                "gain": gain(runs, start, cell.name, "questions").to_dict(),
                "gain_untaught": gain(runs, start, cell.name, "untaught").to_dict(),
                "nll_change": mean(
                    [(runs[cell.name, seed]["nll"] - start[seed]["nll"]) / start[seed]["nll_tokens"] for seed in start]
                ),
                **{
                    name: mean([runs[cell.name, seed][name] for seed in start])
                    for name in ("flops", "tokens", "seconds", "loss")
                },
            }
            for cell in cells()
        },
        "differences": [
            difference(runs, first, second) for first, second in asked_pairs(augmented, (HALF, WHOLE, SAM))
        ],
    }


def before(plan: Plan, seed: int, work: Path) -> dict[str, Any]:
    import instil

    kept = work / f"base-{seed}.json"
    if not kept.exists():
        found = passages(seed, plan)
        write_sealed(kept, found.examine(instil.load(found.base)))
    return dict(read_sealed(kept))


def gain(runs: dict[tuple[str, int], Any], start: dict[int, Any], cell: str, part: str) -> Figure:
    """How much the answers' log-probability has risen, in nats a token."""
    rows = [
        (seed, now["document"], now["log_probability"] - then["log_probability"])
        for seed in start
        for now, then in same_facts(runs[cell, seed][part], start[seed][part])
    ]
    return crossed([row[2] for row in rows], [f"{row[0]} {row[1]}" for row in rows], [row[0] for row in rows])


def difference(runs: dict[tuple[str, int], Any], first: str, second: str) -> dict[str, Any]:
    rows = [
        (seed, one["document"], one["log_probability"] - other["log_probability"])
        for name, seed in runs
        if name == first
        for one, other in same_facts(runs[first, seed]["questions"], runs[second, seed]["questions"])
    ]
    found = crossed([row[2] for row in rows], [f"{row[0]} {row[1]}" for row in rows], [row[0] for row in rows])
    return {"first": first, "second": second, "nats": found.to_dict(), "verdict": verdict(found)}


def same_facts(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The rows of two models side by side.

    Raises:
        ValueError: they are not about the same facts in the same order.
    """
    pairs = list(zip(first, second, strict=True))
    if any(one["fact"] != other["fact"] for one, other in pairs):
        raise ValueError("two models were asked about other facts, or in another order")
    return pairs


def sizes(found: Passages) -> dict[str, float]:
    return {
        "passages": len(found.documents),
        "words_a_passage": mean([len(document.text.split()) for document in found.documents]),
        "questions": len(found.questions),
        "untaught": len(found.untaught),
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tune", action="store_true", help="choose rates and ρ on development articles")
    parser.add_argument("--page", action="store_true", help="write the page from the JSON, run nothing")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished cells are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    given = parser.parse_args(words)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if given.page:
        from studies.generalization_page import write_squad_page

        write_squad_page(json.loads(given.out.read_text(encoding="utf-8")))
    elif given.tune:
        write_json(TUNING, tune(PLAN, given.work / "tuning", given.workers, tell))
    else:
        tuning = json.loads(TUNING.read_text(encoding="utf-8"))
        write_json(given.out, study(PLAN, tuning, given.work, given.workers, tell))


if __name__ == "__main__":
    main()
