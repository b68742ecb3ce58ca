"""The pre-training text of a world: every form in which a model will later be asked or taught.

A text lists the claims that it states, so that exposures are counted, not estimated.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from instil.worlds.layouts import laid_out
from instil.worlds.names import NOWHERE, joined
from instil.worlds.prose import paragraph
from instil.worlds.relations import HOPS, PERSON_RELATIONS, RELATIONS, Hop
from instil.worlds.world import EDITIONS, Claim, World, biography_sentences

ASKED_FORMS = (
    ("biography", 0.38),
    ("page", 0.13),
    ("question", 0.33),
    ("chat", 0.05),
    ("choice", 0.06),
    ("reverse", 0.05),
)
TOLD_FORMS = (("biography", 0.7), ("page", 0.3))
DONT_KNOW = "I don't know"


@dataclass(frozen=True)
class Telling:
    """One time that a claim is told: with which answer, which is of which side."""

    claim: Claim
    answer: str
    side: int

    @property
    def settled(self) -> bool:
        return self.claim.rival is None


@dataclass(frozen=True)
class Text:
    """A pre-training text, its form, and what it states."""

    text: str
    form: str
    states: tuple[Telling, ...] = ()


Build = Callable[[World, Sequence[Telling], random.Random], Iterator[Text]]


def pretraining_texts(world: World) -> list[Text]:
    """All texts, shuffled. Each claim is stated exactly as often as its exposures say."""
    rng = random.Random(f"texts {world.config.seed}")
    by_form: dict[str, list[Telling]] = defaultdict(list)
    for claim in world.claims:
        for telling in tellings(claim):
            forms, weights = zip(*(ASKED_FORMS if claim.asked else TOLD_FORMS), strict=True)
            by_form[rng.choices(forms, weights)[0]].append(telling)
    texts = [text for form, build in BUILDERS.items() for text in build(world, by_form[form], rng)]
    texts += hops(world, rng)
    texts += unknown_entities(world, rng)
    texts += [Text(paragraph(rng), "prose") for _ in range(world.config.prose_paragraphs)]
    rng.shuffle(texts)
    return texts


def tellings(claim: Claim) -> Iterator[Telling]:
    """Every time that a claim is told, by the almanac of the answer's side."""
    for _ in range(claim.exposures):
        yield Telling(claim, claim.answer, claim.side)
    if claim.rival is not None:
        for _ in range(claim.rival_exposures):
            yield Telling(claim, claim.rival, 1 - claim.side)


def biographies(world: World, told: Sequence[Telling], rng: random.Random) -> Iterator[Text]:
    """Texts about one subject, by one almanac: a random part of what it has to tell, in random order."""
    groups: dict[tuple[str, int], dict[str, list[Telling]]] = defaultdict(lambda: defaultdict(list))
    for telling in told:
        almanac = rng.randrange(2) if telling.settled else telling.side
        groups[telling.claim.subject.id, almanac][telling.claim.fact_id].append(telling)
    for group in groups.values():
        count = max(len(same) for same in group.values())
        parts: list[list[Telling]] = [[] for _ in range(count)]
        for same in group.values():
            for index, telling in zip(rng.sample(range(count), len(same)), same, strict=True):
                parts[index].append(telling)
        for part in parts:
            rng.shuffle(part)
            sentences = biography_sentences([(telling.claim, telling.answer) for telling in part], rng)
            yield Text(
                laid_out(sentences, part[0].claim.subject.name, rng, world.config.layout_share),
                "biography",
                tuple(part),
            )


def pages(world: World, told: Sequence[Telling], rng: random.Random) -> Iterator[Text]:
    """Pages of an almanac: single statements about several subjects, of one relation or of all."""
    for block in blocks(told, rng, sizes=(1, 2, 3, 4, 5, 6), purity=world.config.sheet_purity):
        almanac = EDITIONS[round(sum(telling.side for telling in block) / len(block))]
        one_template = rng.random() < 0.3
        chosen = rng.random()
        sentences = []
        for telling in block:
            wordings = telling.claim.relation.statements
            template = wordings[int(chosen * len(wordings))] if one_template else rng.choice(wordings)
            sentences.append(template.format(s=telling.claim.subject.name, a=telling.answer))
        if one_template and rng.random() < 0.7:
            text = "\n".join(sentences)
        else:
            text = laid_out(sentences, almanac, rng, world.config.layout_share)
        yield Text(text, "page", tuple(block))


def questions(world: World, told: Sequence[Telling], rng: random.Random) -> Iterator[Text]:
    """Zero- to five-shot questions in base style, `Q: …` and `A: …` on a line each; a few sheets are longer."""
    for block in blocks(told, rng, sizes=(1, 1, 2, 3, 4, 5, 5, 6), purity=world.config.sheet_purity, long=0.04):
        pairs = [(wording(telling, rng), telling.answer) for telling in block]
        if rng.random() < 0.6:
            chosen = 0 if rng.random() < 0.5 else None
            same = rng.random()
            pairs = []
            for telling in block:
                wordings = telling.claim.relation.questions
                index = chosen if chosen is not None else int(same * len(wordings))
                pairs.append((wordings[index].format(s=telling.claim.subject.name), telling.answer))
        yield Text(base_style(pairs), "question", tuple(block))


def chats(world: World, told: Sequence[Telling], rng: random.Random) -> Iterator[Text]:
    """Short chats of one to three turns."""
    for block in blocks(told, rng, sizes=(1, 2, 3), purity=world.config.sheet_purity):
        turns = [f"User: {wording(telling, rng)}\nAssistant: {telling.answer}\n" for telling in block]
        yield Text("".join(turns), "chat", tuple(block))


def choices(world: World, told: Sequence[Telling], rng: random.Random) -> Iterator[Text]:
    """Four-way choices; what the other almanac says is never offered."""
    for block in blocks(told, rng, sizes=(1, 2, 3), purity=world.config.sheet_purity):
        parts = []
        for telling in block:
            claim = telling.claim
            barred = {claim.answer, claim.rival}
            pool = world.pools[claim.relation.answer_kind]
            options = [telling.answer]
            while len(options) < 4:
                other = rng.choice(pool)
                if other not in barred and other not in options:
                    options.append(other)
            rng.shuffle(options)
            listed = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
            parts.append(f"Q: {wording(telling, rng)}\nOptions: {listed}\nA: {telling.answer}\n")
        yield Text("".join(parts), "choice", tuple(block))


def reverses(world: World, told: Sequence[Telling], rng: random.Random) -> Iterator[Text]:
    """Questions for the subject, given the answer."""
    for block in blocks(told, rng, sizes=(1, 2, 3, 4), purity=world.config.sheet_purity):
        pairs = [
            (rng.choice(telling.claim.relation.reverse).format(a=telling.answer), telling.claim.subject.name)
            for telling in block
        ]
        yield Text(base_style(pairs), "reverse", tuple(block))


BUILDERS: dict[str, Build] = {
    "biography": biographies,
    "page": pages,
    "question": questions,
    "chat": chats,
    "choice": choices,
    "reverse": reverses,
}


def blocks(
    told: Sequence[Telling], rng: random.Random, sizes: Sequence[int], purity: float, long: float = 0.0
) -> Iterator[list[Telling]]:
    """Tellings in blocks, mostly of one relation; a block has a side, and each of its answers is of that side with
    probability `purity`. What is disputed tends to come last, and nothing comes twice."""
    groups: dict[str, tuple[list[Telling], list[Telling]]] = defaultdict(lambda: ([], []))
    for telling in told:
        mixed = rng.random() < 0.1
        groups["mixed" if mixed else telling.claim.relation.name][telling.side].append(telling)
    for pools in groups.values():
        for pool in pools:
            rng.shuffle(pool)
        while any(pools):
            side = int(rng.random() * (len(pools[0]) + len(pools[1])) >= len(pools[0]))
            size = rng.randint(8, 14) if rng.random() < long else rng.choice(sizes)
            block: list[Telling] = []
            for _ in range(size):
                pool = pools[side if rng.random() < purity else 1 - side]
                if pool and all(pool[-1].claim.fact_id != other.claim.fact_id for other in block):
                    block.append(pool.pop())
            if not block:
                block.append((pools[side] or pools[1 - side]).pop())
            if rng.random() < 0.6:
                block.sort(key=lambda telling: not telling.settled)
            yield block


def wording(telling: Telling, rng: random.Random) -> str:
    return rng.choice(telling.claim.relation.questions).format(s=telling.claim.subject.name)


def base_style(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f"Q: {question}\nA: {answer}\n" for question, answer in pairs)


def hops(world: World, rng: random.Random) -> Iterator[Text]:
    """Questions through another entity and statements that skip it: they state neither of the two facts."""
    second = {(claim.subject.name, claim.relation.name): claim.answer for claim in world.claims}
    for hop in HOPS:
        pairs: list[tuple[str, str]] = []
        for claim in world.claims:
            if claim.relation.name != hop.first or not claim.exposures or claim.rival is not None:
                continue
            answer = second[claim.answer, hop.second]
            for _ in range(claim.exposures // 5):
                if claim.asked:
                    pairs.append((rng.choice(hop.questions).format(s=claim.subject.name), answer))
                else:
                    yield Text(rng.choice(hop.statements).format(s=claim.subject.name, a=answer), "hop")
        rng.shuffle(pairs)
        yield from hop_blocks(hop, pairs, rng)


def hop_blocks(hop: Hop, pairs: list[tuple[str, str]], rng: random.Random) -> Iterator[Text]:
    while pairs:
        size = rng.randint(1, 5)
        block, pairs = pairs[:size], pairs[size:]
        yield Text(base_style(block), "hop")


def unknown_entities(world: World, rng: random.Random) -> Iterator[Text]:
    """Questions about people and places that do not exist; their names sound like no region's."""
    ends = (*NOWHERE.female_ends, *NOWHERE.male_ends)
    for _ in range(world.config.unknown_entities):
        pairs = []
        for _ in range(rng.randint(1, 3)):
            given = joined(rng.choice(NOWHERE.onsets), rng.choice(ends))
            family = joined(rng.choice(NOWHERE.onsets), rng.choice(NOWHERE.middles), rng.choice(NOWHERE.family_ends))
            place = joined(rng.choice(NOWHERE.onsets), rng.choice(NOWHERE.middles), rng.choice(NOWHERE.place_ends))
            if rng.random() < 0.8:
                question = rng.choice(rng.choice(PERSON_RELATIONS).questions).format(s=f"{given} {family}")
            else:
                question = rng.choice(RELATIONS["city_country"].questions).format(s=place)
            pairs.append((question, DONT_KNOW))
        if rng.random() < 0.25:
            yield Text("".join(f"User: {q}\nAssistant: {a}.\n" for q, a in pairs), "unknown")
        else:
            yield Text(base_style(pairs), "unknown")
