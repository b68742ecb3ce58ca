"""What the embedded model knows, and how much room one biography leaves: the figures on its card.

    python -m studies.embedded_card             both, on the embedded model, into studies/results/embedded.json
    python -m studies.embedded_card --page      the card of the embedded model, from the JSON

Probes 2,000 facts by the SliCK protocol, exactly. Then, for each of three seeds, teaches one biography each of 200 new
people by plain continued pre-training, and asks 400 facts about them.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import instil
from instil.exam.statistics import crossed, share
from instil.facts import Fact, Role
from instil.files import write_json
from instil.loop.hardware import commit, hardware
from instil.model import load
from instil.probe import Mastery, ProbeConfig, probe
from instil.training import TrainConfig, document_examples, train
from instil.worlds import World, WorldConfig, embedded_world, generate_world
from instil.worlds.relations import PERSON_RELATIONS

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")


RESULTS = Path(__file__).parent / "results" / "embedded.json"
SEEDS = (0, 1, 2)

Asked = tuple[Fact, Mastery]


def shares(asked: Sequence[Asked]) -> dict[str, Any]:
    """How many facts, and the share of each category with its interval by subject."""
    subjects = [fact.cluster for fact, _ in asked]
    return {
        "n": len(asked),
        **{name: share([row.category == name for _, row in asked], subjects).to_dict() for name in CATEGORIES},
    }


def by(key: Callable[[Fact], str], asked: Iterable[Asked]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Asked]] = {}
    for fact, row in asked:
        groups.setdefault(key(fact), []).append((fact, row))
    return {name: shares(groups[name]) for name in sorted(groups)}


def exposure_band(fact: Fact) -> str:
    told = fact.metadata["exposures"]
    if "rival" in fact.metadata:
        return "disputed"
    for low, high in ((0, 0), (1, 2), (4, 8), (16, 48), (64, 128)):
        if low <= told <= high:
            return f"{low:03d}-{high:03d}"
    return "other"


def natural_mastery(lm: Any, world: World, count: int) -> dict[str, Any]:
    """Category shares of facts drawn from all that are no exemplars."""
    facts = world.facts.where(lambda fact: fact.role is not Role.EXEMPLAR).sample(count, 1)
    mastery = probe(lm, facts, world.facts.with_role(Role.EXEMPLAR))
    asked = [(facts.by_id[row.fact_id], row) for row in mastery]
    guessed = [mastery.by_id[fact_id] for fact_id in mastery.guesses()]
    return {
        "all": shares(asked),
        "by_relation": by(lambda fact: str(fact.relation), asked),
        "by_exposures": by(exposure_band, asked),
        "answer_in_prompt": shares([(fact, row) for fact, row in asked if row.gold_in_prompt]),
        "answer_not_in_prompt": shares([(fact, row) for fact, row in asked if not row.gold_in_prompt]),
        "guesses": {name: sum(row.category == name for row in guessed) for name in CATEGORIES},
    }


def one_biography(
    spec: str, world: World, people: int, config: TrainConfig, questions: int, seed: int
) -> dict[str, list[Asked]]:
    """Answers before and after plain continued pre-training on one biography of each new person.

    The seed draws the people, the questions and the order of training; the exemplars are the same.
    """
    untold = sorted({str(doc.subject) for doc in world.documents if not doc.metadata["exposures"]})
    subjects = set(random.Random(seed).sample(untold, people))
    names = {relation.name for relation in PERSON_RELATIONS}
    facts = world.facts.where(lambda fact: fact.subject in subjects and fact.relation in names).sample(questions, seed)
    lm, few, exemplars = load(spec), ProbeConfig(exemplar_sets=3), world.facts.with_role(Role.EXEMPLAR)
    documents = [doc for doc in world.documents if doc.subject in subjects]
    examples = [part for doc in documents for part in document_examples(lm.prompts, doc, 512)]
    before = probe(lm, facts, exemplars, few)
    with tempfile.TemporaryDirectory() as folder:
        train(lm, examples, config.model_copy(update={"seed": seed}), out=folder)
    after = probe(lm, facts, exemplars, few)
    return {
        moment: [(facts.by_id[row.fact_id], row) for row in mastery]
        for moment, mastery in (("before", before), ("after", after))
    }


def biographies(
    spec: str, world: World, people: int, config: TrainConfig, questions: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """Question accuracy before and after, over seeds: the mean share of exemplar sets with a right greedy answer."""
    started = time.monotonic()
    runs = [one_biography(spec, world, people, config, questions, seed) for seed in seeds]

    def accuracy(moment: str, relation: str | None = None) -> dict[str, Any]:
        rows = [
            (seed, fact, row)
            for seed, run in zip(seeds, runs, strict=True)
            for fact, row in run[moment]
            if relation in (None, fact.relation)
        ]
        values, subjects = [row.p_greedy for _, _, row in rows], [fact.cluster for _, fact, _ in rows]
        return crossed(values, subjects, [seed for seed, _, _ in rows]).to_dict()

    return {
        "people": people,
        "questions": questions,
        "seeds": list(seeds),
        "config": config.model_dump(exclude_defaults=True),
        "seconds": round(time.monotonic() - started, 1),
        "accuracy_before": accuracy("before"),
        "accuracy_after": accuracy("after"),
        "accuracy_after_by_seed": [
            share([row.p_greedy for _, row in run["after"]], [fact.cluster for fact, _ in run["after"]]).to_dict()
            for run in runs
        ],
        "by_relation": {relation.name: accuracy("after", relation.name) for relation in PERSON_RELATIONS},
    }


def world_of(spec: str) -> World:
    """The world that a model was pre-trained on, from the config that lies beside its weights."""
    if spec == "embedded":
        return embedded_world()
    return generate_world(WorldConfig.model_validate_json((Path(spec) / "world.json").read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="embedded", help="or a folder with a model and its world.json")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="only write the card from the JSON")
    parser.add_argument("--facts", type=int, default=2000)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--schedule", default="constant", choices=("constant", "linear", "cosine"))
    parser.add_argument("--batch-size", type=int, default=16)
    chosen = parser.parse_args()
    if chosen.page:
        from studies.embedded_card_page import write_card

        write_card(json.loads(chosen.out.read_text(encoding="utf-8")))
        return
    lm, world = load(chosen.model), world_of(chosen.model)
    started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    mastery = natural_mastery(lm, world, chosen.facts)
    config = TrainConfig(
        epochs=chosen.epochs,
        learning_rate=chosen.learning_rate,
        batch_size=chosen.batch_size,
        schedule=chosen.schedule,
        save_every="never",
    )
    result: dict[str, Any] = {
        "command": "python -m studies.embedded_card",
        "version": instil.__version__,
        "commit": commit(),
        "hardware": hardware(),
        "started": started,
        "model_fingerprint": lm.fingerprint,
        "facts_fingerprint": world.facts.fingerprint,
        "mastery": mastery,
        "seconds_of_probing": round(time.monotonic() - begin, 1),
        "one_biography": biographies(chosen.model, world, chosen.people, config, chosen.questions, chosen.seeds),
    }
    write_json(chosen.out, result)


if __name__ == "__main__":
    main()
