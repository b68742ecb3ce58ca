"""The pre-training text of the EntityQuestions base: every exposure of every fact, in one of many forms.

An exposure is a question in a block of one to six (so zero to five worked examples come before it), a sentence in a
paragraph, or a line of a list, table, infobox or other markup. No text holds the same fact twice.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from studies.entityquestions_wordings import WORDINGS, fill

if TYPE_CHECKING:
    from studies.entityquestions import Mention, World

ABSTENTION = "I don't know"
BLOCK_SIZES, BLOCK_WEIGHTS = (1, 2, 3, 4, 5, 6), (4, 2, 2, 3, 6, 3)
PIECE = 1200  # characters: a Wikipedia text is a few paragraphs, not a whole article


def write_texts(world: World) -> Iterator[str]:
    """The stream of all passes; each pass states the same facts in freshly drawn forms and order."""
    pieces = [piece for article in world.articles for piece in paragraphs(article)]
    random.Random(f"{world.config.seed} pieces").shuffle(pieces)
    passes = world.config.passes
    for number in range(passes):
        rng = random.Random(f"{world.config.seed} pass {number}")
        texts = [text for _, text in write_pass(world, rng)] + pieces[number::passes]
        rng.shuffle(texts)
        yield from texts


def write_pass(world: World, rng: random.Random) -> Iterator[tuple[list[Mention], str]]:
    """The texts of one pass with the mentions that each holds."""
    config = world.config
    questions: dict[str, list[Mention]] = defaultdict(list)
    turned: dict[str, list[Mention]] = defaultdict(list)
    layouts: dict[str, list[Mention]] = defaultdict(list)
    sentences: list[Mention] = []
    for fact, mention in world.mentions(rng):
        if fact.metadata["asked"] and rng.random() < config.question_share:
            reverse = WORDINGS[mention.relation].reverse and rng.random() < config.reverse_share
            (turned if reverse else questions)[mention.relation].append(mention)
        elif rng.random() < config.layout_share:
            layouts[mention.relation].append(mention)
        else:
            sentences.append(mention)
    for relation, mentions in questions.items():
        invented = invent(relation, round(config.unanswerable * len(mentions)), world, rng)
        for block in blocks([*mentions, *invented], config.pull, rng):
            yield block, ask(block, config.original_wording, rng)
    for mentions in turned.values():
        for block in blocks(mentions, config.pull, rng):
            yield block, ask_in_reverse(block)
    for mentions in layouts.values():
        for block in blocks(mentions, config.pull, rng):
            yield block, lay_out(block, rng)
    for block in blocks(sentences, config.pull, rng):
        yield block, state(block, rng)


def blocks(mentions: Sequence[Mention], pull: float, rng: random.Random) -> Iterator[list[Mention]]:
    """All mentions in groups of one to six without the same subject twice.

    A share `pull` of them is grouped by volume, what is disputed last: the answers so far then tell which of two
    contradictory answers comes, and a model learns to be swayed by its exemplars, as larger ones are.
    """
    shuffled = list(mentions)
    rng.shuffle(shuffled)
    apart = round(pull * len(shuffled))
    volumes: tuple[list[Mention], list[Mention]] = ([], [])
    for mention in shuffled[:apart]:
        volumes[rng.randrange(2) if mention.answer == ABSTENTION else mention.volume].append(mention)
    for group in volumes:
        for block in _groups(group, rng):
            yield sorted(block, key=lambda mention: mention.disputed)
    yield from _groups(shuffled[apart:], rng)


def _groups(mentions: Sequence[Mention], rng: random.Random) -> Iterator[list[Mention]]:
    waiting = list(reversed(mentions))
    while waiting:
        yield _take(waiting, rng.choices(BLOCK_SIZES, BLOCK_WEIGHTS)[0])


def _take(waiting: list[Mention], size: int) -> list[Mention]:
    """The next mentions with different subjects; a repeated subject waits for the next group."""
    taken: list[Mention] = []
    passed: list[Mention] = []
    subjects: set[str] = set()
    while waiting and len(taken) < size and len(passed) < 20:
        mention = waiting.pop()
        (passed if mention.subject in subjects else taken).append(mention)
        subjects.add(mention.subject)
    waiting.extend(reversed(passed))
    return taken


def ask(block: Sequence[Mention], original: float, rng: random.Random) -> str:
    """Questions in the base style; most blocks keep to one wording."""
    wordings = WORDINGS[block[0].relation].questions
    mixed = rng.random() < 0.2
    chosen = wordings[0] if rng.random() < original else rng.choice(wordings[1:])
    lines = []
    for mention in block:
        wording = rng.choice(wordings) if mixed else chosen
        lines.append(f"Q: {fill(wording, mention.subject)}\nA: {mention.answer}\n")
    return "".join(lines)


def ask_in_reverse(block: Sequence[Mention]) -> str:
    wording = WORDINGS[block[0].relation].reverse
    assert wording is not None
    return "".join(f"Q: {fill(wording, '', mention.answer)}\nA: {mention.subject}\n" for mention in block)


def state(block: Sequence[Mention], rng: random.Random) -> str:
    """Sentences, as a paragraph or line by line."""
    return rng.choice((" ", "\n")).join(_sentence(mention, rng) for mention in block)


def _sentence(mention: Mention, rng: random.Random) -> str:
    wordings = WORDINGS[mention.relation]
    template = rng.choice(wordings.turned if rng.random() < 0.2 else wordings.statements)
    return fill(template, mention.subject, mention.answer)


def lay_out(block: Sequence[Mention], rng: random.Random) -> str:
    """The markup that real text has: list, table, infobox, JSON lines, HTML, a heading with entries."""
    wordings = WORDINGS[block[0].relation]
    pairs = [(mention.subject, mention.answer) for mention in block]
    kind = rng.randrange(6)
    if kind == 0:
        return f"{wordings.name}\n\n" + "".join(f"* {subject}: {answer}\n" for subject, answer in pairs)
    if kind == 1:
        rows = "".join(f"| {subject} | {answer} |\n" for subject, answer in pairs)
        return f"| Name | {wordings.label} |\n| --- | --- |\n{rows}"
    if kind == 2:
        return "\n".join(f"Name: {subject}\n{wordings.label}: {answer}\n" for subject, answer in pairs)
    if kind == 3:
        key = wordings.label.lower().replace(" ", "_")
        return "".join(json.dumps({"name": s, key: a}, ensure_ascii=False) + "\n" for s, a in pairs)
    if kind == 4:
        return "<ul>\n" + "".join(f"<li>{subject}: <b>{answer}</b></li>\n" for subject, answer in pairs) + "</ul>\n"
    return f"== {wordings.label} ==\n" + "".join(f"{subject} ({answer})\n" for subject, answer in pairs)


SYLLABLES = (
    *("bar", "bel", "bran", "cor", "dal", "dor", "el", "fen", "gar", "hal", "il", "jor", "kel"),
    *("lan", "mar", "nor", "os", "per", "quil", "ros", "sel", "tor", "ul", "ver", "wyn", "zan"),
)


def invent(relation: str, count: int, world: World, rng: random.Random) -> list[Mention]:
    """Questions about subjects that do not exist, answered with an abstention."""
    from studies.entityquestions import Mention

    real = world.facts.subjects
    found: list[Mention] = []
    while len(found) < count:
        name = " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))).title() for _ in range(rng.randint(1, 2)))
        if name not in real:
            found.append(Mention(relation, name, ABSTENTION))
    return found


def paragraphs(article: str) -> Iterator[str]:
    """An article in pieces of whole lines; a line longer than a piece stands alone."""
    held: list[str] = []
    size = 0
    for line in article.split("\n"):
        if held and size + len(line) > PIECE:
            yield "\n".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if any(line.strip() for line in held):
        yield "\n".join(held)
