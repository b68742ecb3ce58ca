"""What the probe's tests share: small models that answer, questions about a few people, `generate` as the judge."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import cycle
from typing import Any

import torch

from instil.facts import Fact, FactSet
from instil.model import LanguageModel
from instil.probe import ExemplarSets, ProbeConfig, draw_exemplars
from instil.probe.rows import Row
from instil.probe.runner import Scored
from tests.models import tiny_model

PEOPLE = "Ada Lovelace, Alan Turing, Grace Hopper, Emmy Noether, Kurt Gödel, Marie Curie, Niels Bohr, Lise Meitner"
PLACES = ("London", "New York City", "Paris", "Vienna", "Göttingen")
WORK = ("chemist", "teacher", "writer")


def people_facts(count: int = 8) -> FactSet:
    """`count` people, two relations each; the answers have an alias that begins like them."""
    people = PEOPLE.split(", ")[:count]
    born = [
        Fact(f"born-{index}", f"Where was {name} born?", (place, f"{place} town"), subject=name, relation="born")
        for index, (name, place) in enumerate(zip(people, cycle(PLACES), strict=False))
    ]
    jobs = [
        Fact(f"job-{index}", f"What is the occupation of {name}?", (job,), subject=name, relation="job")
        for index, (name, job) in enumerate(zip(people, cycle(WORK), strict=False))
    ]
    return FactSet([*born, *jobs])


def small_lm(
    family: str = "llama", seed: int = 0, *, sharpness: float = 5.0, stops: int = 60, **kind: Any
) -> LanguageModel:
    """A random model that prefers few tokens, `stops` of which are end tokens, so that it answers briefly."""
    model, tokenizer = tiny_model(family, seed, sharpness=sharpness, **kind)
    several = random.Random(seed).sample(range(300, len(tokenizer)), stops)
    model.generation_config.eos_token_id = [1, *sorted(several)]
    return LanguageModel.of(model, tokenizer)


def two_sets(facts: FactSet, sets: int = 3, shots: int = 2) -> tuple[ExemplarSets, ProbeConfig]:
    config = ProbeConfig(exemplar_sets=sets, shots=shots, max_answer_tokens=8)
    return draw_exemplars(facts, facts.by_relation, config), config


def generated(
    lm: LanguageModel, prompt: Sequence[int], count: int, limit: int, **sampling: Any
) -> list[tuple[int, ...]]:
    """Token sequences that transformers' `generate` gives, cut before their stop; those without a stop are left out."""
    ids = torch.tensor([prompt])
    found = lm.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        num_return_sequences=count,
        eos_token_id=sorted(lm.prompts.stop_ids),
        pad_token_id=2,
        **sampling,
    )[:, len(prompt) :].tolist()
    cut = []
    for sequence in found:
        place = next((place for place, token in enumerate(sequence) if token in lm.prompts.stop_ids), None)
        if place is not None:
            cut.append(tuple(sequence[:place]))
    return cut


def frequent(sequences: Sequence[tuple[int, ...]], count: int) -> list[tuple[int, ...]]:
    """The most frequent sequences that are not empty, most frequent first."""
    found = Counter(sequence for sequence in sequences if sequence)
    return [sequence for sequence, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]


@cache
def _taught_state() -> tuple[LanguageModel, FactSet]:
    """Half a minute of lessons in a second: the people of the first half are told often, the others seldom or never."""
    facts = people_facts()
    model, tokenizer = tiny_model("llama", 3, hidden=48)
    lm = LanguageModel.of(model, tokenizer, name="taught")
    chance = random.Random(0)
    weights = [0 if "7" in fact.id else 12 if int(fact.id[-1]) < 3 else 2 for fact in facts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(90):
        batch = []
        for _ in range(8):
            asked = chance.choices(facts, weights, k=3)
            worked = [(fact.question, fact.answers[0]) for fact in asked]
            batch.append(torch.tensor(lm.prompts.prefix_ids(worked)))
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=2)
        labels = ids.masked_fill(ids == 2, -100)
        model(input_ids=ids, attention_mask=(ids != 2).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return lm, facts


def taught_lm() -> tuple[LanguageModel, FactSet]:
    """A tiny model that knows some of `people_facts()` well, some hardly and some not at all. Not to be changed."""
    return _taught_state()


def all_logits(scored: Scored, rows: Sequence[Row]) -> torch.Tensor:
    """Of every row the logits behind its question, then behind each node of its tree: shape (S, V)."""
    nodes = iter(scored.behind({index: row.tree for index, row in enumerate(rows)}))
    return torch.stack(
        [
            logits
            for index, row in enumerate(rows)
            for logits in (scored.logits[index], *(next(nodes) for _ in row.tree.tokens))
        ]
    )


def path_to(row: Row, node: int) -> tuple[int, ...]:
    """The tokens from the question's end up to a node."""
    return tuple(row.tree.tokens[step] for step in row.tree.path(node))
