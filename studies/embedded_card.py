"""What the embedded model knows, and how much room one biography leaves: the figures on its card.

    python studies/embedded_card.py embedded --out studies/results/embedded.json

Probes 2,000 facts by the SliCK protocol, exactly, and asks 400 facts about new people after plain continued
pre-training on one biography each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import instil
from instil.facts import Fact, FactSet, Role
from instil.files import write_json
from instil.model import load
from instil.probe import MasteryMap, ProbeConfig, probe
from instil.training import TrainConfig, document_examples, train
from instil.worlds import World, WorldConfig, embedded_world, generate_world
from instil.worlds.relations import PERSON_RELATIONS

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")


def shares(rows: Iterable[str]) -> dict[str, Any]:
    """Count and percentage of each category."""
    counts = Counter(rows)
    total = sum(counts.values())
    return {"n": total, **{name: round(100 * counts[name] / total, 1) for name in CATEGORIES}}


def by(key: Callable[[Fact], str], facts: FactSet, mastery: MasteryMap) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[str]] = {}
    for fact in facts:
        groups.setdefault(key(fact), []).append(str(mastery.category_of(fact.id)))
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
    return {
        "all": shares(str(row.category) for row in mastery),
        "by_relation": by(lambda fact: str(fact.relation), facts, mastery),
        "by_exposures": by(exposure_band, facts, mastery),
        "answer_in_prompt": shares(str(row.category) for row in mastery if row.gold_in_prompt),
        "answer_not_in_prompt": shares(str(row.category) for row in mastery if not row.gold_in_prompt),
        "MaybeKnown_prior_at_least_half": sum(
            row.p_prior is not None and row.p_prior >= 0.5 for row in mastery if str(row.category) == "MaybeKnown"
        ),
    }


def one_biography(spec: str, world: World, people: int, config: TrainConfig, questions: int) -> dict[str, Any]:
    """Question accuracy before and after plain continued pre-training on one biography of each new person."""
    documents = [document for document in world.documents if not document.metadata["exposures"]][:people]
    subjects = {document.subject for document in documents}
    names = {relation.name for relation in PERSON_RELATIONS}
    facts = world.facts.where(lambda fact: fact.subject in subjects and fact.relation in names).sample(questions, 0)
    lm = load(spec)
    few = ProbeConfig(exemplar_sets=3)
    exemplars = world.facts.with_role(Role.EXEMPLAR)
    before = probe(lm, facts, exemplars, few)
    examples = [part for document in documents for part in document_examples(lm.prompts, document, 512)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train(lm, examples, config, out=folder)
    after = probe(lm, facts, exemplars, few)

    def accuracy(mastery: MasteryMap, relation: str | None = None) -> float:
        rows = [row.p_greedy for row in mastery if relation in (None, row.relation)]
        return round(sum(rows) / max(1, len(rows)), 3)

    return {
        "people": len(documents),
        "questions": len(facts),
        "config": config.model_dump(exclude_defaults=True),
        "seconds_of_training": round(time.monotonic() - started, 1),
        "accuracy_before": accuracy(before),
        "accuracy_after": accuracy(after),
        "by_relation": {name: accuracy(after, name) for name in sorted(names)},
    }


def world_of(spec: str) -> World:
    """The world that a model was pre-trained on, from the config that lies beside its weights."""
    if spec == "embedded":
        return embedded_world()
    return generate_world(WorldConfig.model_validate_json((Path(spec) / "world.json").read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="`embedded`, or a folder that holds the model and its world.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--facts", type=int, default=2000)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--schedule", default="constant", choices=("constant", "linear", "cosine"))
    parser.add_argument("--batch-size", type=int, default=16)
    chosen = parser.parse_args()
    lm = load(chosen.model)
    world = world_of(chosen.model)
    started = time.monotonic()
    result: dict[str, Any] = {
        "version": instil.__version__,
        "model_fingerprint": lm.fingerprint,
        "facts_fingerprint": world.facts.fingerprint,
        "mastery": natural_mastery(lm, world, chosen.facts),
        "seconds_of_probing": round(time.monotonic() - started, 1),
    }
    config = TrainConfig(
        epochs=chosen.epochs,
        learning_rate=chosen.learning_rate,
        batch_size=chosen.batch_size,
        schedule=chosen.schedule,
        save_every="never",
    )
    result["one_biography"] = one_biography(chosen.model, world, chosen.people, config, chosen.questions)
    write_json(chosen.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
