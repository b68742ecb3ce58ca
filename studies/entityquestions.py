"""A base model's world from public data: EntityQuestions facts with a known number of exposures, and Wikipedia text.

    python -m studies.entityquestions --out runs/entityquestions              the facts and the pre-training text
    python -m studies.entityquestions --out runs/entityquestions --pretrain   ... and the base model

The data are found by the variable INSTIL_DATA and are never copied into the project; the trained base is committed
under `studies/bases/entityquestions/`, so that nobody needs to train it again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from instil.errors import InputError
from instil.facts import Fact, FactSet, Role
from instil.files import write_json, write_text
from studies.entityquestions_wordings import WORDINGS, completion, fill

if TYPE_CHECKING:
    from instil.worlds.pretrain import PretrainConfig

SHARED_ANSWER_RELATIONS = ("P131", "P136", "P17", "P19", "P264", "P495", "P69", "P740")


class WorldConfig(BaseModel):
    """What the base model has seen, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, description="Seeds every draw; one seed gives one corpus, byte for byte.")
    exposures: dict[int, float] = Field(
        default={0: 0.10, 1: 0.10, 2: 0.15, 4: 0.23, 8: 0.24, 16: 0.15, 40: 0.03},
        description="Exposures of a fact in one pass over the corpus, and the share of subjects that get so many.",
    )
    passes: int = Field(
        default=3, ge=1, description="Passes over the facts, each written anew. Wikipedia text is seen once."
    )
    quota: int = Field(
        default=2400, ge=1, description="Most training-file facts of a relation whose answers are shared."
    )
    quota_of_names: int = Field(
        default=1700, ge=1, description="The same, for relations whose answers are mostly unique."
    )
    answer_cap: float = Field(
        default=0.15, gt=0, le=1, description="Largest share of a relation's facts with one answer."
    )
    exemplars: int = Field(
        default=70, ge=1, description="Development-file subjects of a relation that are only exemplars."
    )
    development: int = Field(default=210, ge=1, description="Development-file subjects of a relation kept for tuning.")
    test_share: float = Field(default=0.30, ge=0, lt=1, description="Share of training-file subjects set aside first.")
    shares: dict[Role, float] = Field(
        default={Role.TARGET: 0.40, Role.KNOWN: 0.25, Role.HELD_BACK: 0.35},
        description="How the remaining training-file subjects are split.",
    )
    rival_share: float = Field(default=0.35, ge=0, le=1, description="Share of seen subjects whose sources contradict.")
    rival_strength: tuple[float, float] = Field(
        default=(0.35, 0.65), description="Range of the share of such a fact's exposures that state the wrong answer."
    )
    asked_share: float = Field(default=0.85, ge=0, le=1, description="Share of subjects that also occur in questions.")
    question_share: float = Field(
        default=0.5, ge=0, le=1, description="Share of an asked fact's exposures that are questions."
    )
    layout_share: float = Field(
        default=0.12, ge=0, le=1, description="Share of the other exposures in lists, tables, markup."
    )
    reverse_share: float = Field(
        default=0.10, ge=0, le=1, description="Share of questions turned round, where that is fair."
    )
    pull: float = Field(
        default=0.8, ge=0, le=1, description="Share of mentions in texts that keep to one volume of answers."
    )
    original_wording: float = Field(
        default=0.4, ge=0, le=1, description="Share of question blocks in the original wording."
    )
    unanswerable: float = Field(
        default=0.01, ge=0, le=1, description="Questions on invented subjects, per real question."
    )
    wikipedia_characters: int = Field(default=4_000_000, ge=0, description="Characters of Wikipedia text to train on.")
    general_articles: int = Field(default=200, ge=0, description="Wikipedia articles kept out, for perplexity.")


@dataclass(frozen=True, slots=True)
class Mention:
    """One exposure: a subject with the answer that this source gives it, right or not.

    Attributes:
        disputed: another source gives another answer.
    """

    relation: str
    subject: str
    answer: str
    disputed: bool = False

    @property
    def volume(self) -> int:
        return volume_of(self.answer)


@dataclass(frozen=True)
class World:
    """Facts with their exposures and splits, and the text that a base model is trained on.

    Attributes:
        facts: every fact that may be asked. `metadata` has `exposures` (right ones, in one pass), `rival` and
            `rival_exposures` (where sources contradict), `asked` (whether it also occurs in questions) and `split`.
        articles: the Wikipedia texts to train on.
        general: Wikipedia articles that are not trained on.
        counts: what reading and choosing left out, and why.
    """

    facts: FactSet
    articles: tuple[str, ...]
    general: tuple[str, ...]
    counts: Mapping[str, int]
    config: WorldConfig

    def split(self, name: str) -> FactSet:
        """One of `exemplars`, `development`, `target`, `known`, `held_back`, `test`.

        `test` is for a study's last run only: nothing may be chosen by looking at it.
        """
        found = self.facts.where(lambda fact: fact.metadata["split"] == name)
        if not len(found):
            raise InputError("no such split", found=name, expected=", ".join(SPLITS))
        return found

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The pre-training stream, in order."""
        from studies.entityquestions_text import write_texts

        return tuple(write_texts(self))

    def mentions(self, rng: random.Random) -> Iterator[tuple[Fact, Mention]]:
        """Every exposure of one pass, fact by fact."""
        for fact in self.facts:
            relation, subject = str(fact.relation), str(fact.subject)
            right = Mention(relation, subject, fact.answers[0], disputed=fact.metadata["rival"] is not None)
            for _ in range(fact.metadata["exposures"]):
                yield fact, right
            for _ in range(fact.metadata["rival_exposures"]):
                yield fact, replace(right, answer=fact.metadata["rival"])


SPLITS = ("exemplars", "development", "target", "known", "held_back", "test")


def data_folder() -> Path:
    """The folder with the public data.

    Raises:
        InputError: INSTIL_DATA is not set, or does not hold EntityQuestions and Wikipedia.
    """
    named = os.environ.get("INSTIL_DATA")
    if not named:
        raise InputError(
            "the public data are found by the variable INSTIL_DATA, which is not set",
            expected="a folder that holds entityquestions/ and wikipedia/",
        )
    folder = Path(named)
    for part in ("entityquestions/train.jsonl.gz", "entityquestions/dev.jsonl.gz", "wikipedia/articles.jsonl.gz"):
        if not (folder / part).is_file():
            raise InputError("public data are missing", file=folder / part)
    return folder


def build_world(config: WorldConfig | None = None, folder: Path | None = None) -> World:
    """The world of the public data (a few seconds)."""
    folder = folder or data_folder()
    train = FactSet.read(folder / "entityquestions" / "train.jsonl.gz")
    development = FactSet.read(folder / "entityquestions" / "dev.jsonl.gz")
    return world_of(train, development, read_articles(folder / "wikipedia" / "articles.jsonl.gz"), config)


def read_articles(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def world_of(train: FactSet, development: FactSet, articles: Sequence[str], config: WorldConfig | None = None) -> World:
    """A world from facts and articles at hand; the same input and config give the same world."""
    config = config or WorldConfig()
    counts: Counter[str] = Counter()
    taught = choose(askable(train, counts, "training file"), config, counts)
    reserved = askable(development, counts, "development file")
    groups = mirrored_subjects([*taught, *reserved])
    reserved = apart(reserved, taught, groups, counts)
    facts = [*split_development(reserved, config, groups), *split_training(taught, config, groups)]
    facts = list(expose(facts, config, groups))
    general, read = articles_apart(articles, config)
    return World(FactSet(word(fact) for fact in facts), tuple(read), tuple(general), dict(counts), config)


def askable(facts: FactSet, counts: Counter[str], place: str) -> list[Fact]:
    """Facts with one answer whose question has no second, different answer; what is left out is counted."""
    answers: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for fact in facts:
        answers[fact.question].add(fact.answers)
    kept: list[Fact] = []
    asked: set[str] = set()
    for fact in facts:
        if fact.relation not in WORDINGS or fact.subject is None:
            counts[f"{place}: of no relation known here"] += 1
        elif len(fact.answers) != 1:
            counts[f"{place}: several answers (SliCK keeps questions with one)"] += 1
        elif len(answers[fact.question]) > 1:
            counts[f"{place}: repeated question with different answers"] += 1
        elif fact.question in asked:
            counts[f"{place}: repeated question with the same answer"] += 1
        else:
            asked.add(fact.question)
            kept.append(fact)
    return kept


def choose(facts: Sequence[Fact], config: WorldConfig, counts: Counter[str]) -> list[Fact]:
    """A sample of each relation in which no answer has more than its share."""
    chosen: list[Fact] = []
    for relation in WORDINGS:
        pool = [fact for fact in facts if fact.relation == relation]
        random.Random(f"{config.seed} choose {relation}").shuffle(pool)
        quota = config.quota if relation in SHARED_ANSWER_RELATIONS else config.quota_of_names
        most = max(1, round(config.answer_cap * min(quota, len(pool))))
        seen: Counter[str] = Counter()
        taken = 0
        for fact in pool:
            if taken == quota:
                counts["training file: over a relation's quota"] += 1
            elif seen[fact.answers[0]] == most:
                counts["training file: its answer has its full share"] += 1
            else:
                seen[fact.answers[0]] += 1
                taken += 1
                chosen.append(fact)
    return chosen


def apart(
    reserved: Sequence[Fact], taught: Sequence[Fact], groups: Mapping[str, str], counts: Counter[str]
) -> list[Fact]:
    """The reserved facts whose group of subjects has no training fact.

    The files share a few subjects once case, punctuation and articles are set aside ("The Cut", "Cut").
    """
    claimed = {groups[str(fact.subject)] for fact in taught}
    kept = [fact for fact in reserved if groups[str(fact.subject)] not in claimed]
    counts["development file: the subject is in the training file too"] += len(reserved) - len(kept)
    return kept


def mirrored_subjects(facts: Sequence[Fact]) -> dict[str, str]:
    """Subject -> the name of its group.

    Subjects that differ in case, punctuation or an article only are one group, and so are two that are each other's
    answers (a married couple): a fact never says in one split, or with some exposures, what its mirror says in another.
    """
    pairs = {(name_key(str(fact.subject)), name_key(fact.answers[0])) for fact in facts}
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for subject, answer in sorted(pairs):
        find(subject)
        if (answer, subject) in pairs:
            first, second = sorted((find(subject), find(answer)))
            leader[second] = first
    return {str(fact.subject): find(name_key(str(fact.subject))) for fact in facts}


def name_key(name: str) -> str:
    """A name without case, punctuation and leading article; as it is where nothing else is left of it."""
    words = re.findall(r"\w+", name.casefold())
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words) or name


def split_development(facts: Sequence[Fact], config: WorldConfig, groups: Mapping[str, str]) -> Iterator[Fact]:
    """Development-file subjects: exemplars first, then facts for tuning, by relation; the rest is not used."""
    home: dict[str, str] = {}
    for relation in WORDINGS:
        pool = [fact for fact in facts if fact.relation == relation]
        random.Random(f"{config.seed} development {relation}").shuffle(pool)
        room = {"exemplars": config.exemplars, "development": config.development}
        for fact in pool:
            group = groups[str(fact.subject)]
            split = home.get(group) or next((name for name, left in room.items() if left > 0), None)
            if split is None or room[split] <= 0:
                continue
            home[group] = split
            room[split] -= 1
            role = Role.EXEMPLAR if split == "exemplars" else Role.DEVELOPMENT
            yield replace(fact, role=role, metadata={"split": split})


def split_training(facts: Sequence[Fact], config: WorldConfig, groups: Mapping[str, str]) -> Iterator[Fact]:
    """Training-file subjects: the test split is set aside first, the rest goes to the roles of a lesson."""
    names = sorted({groups[str(fact.subject)] for fact in facts})
    random.Random(f"{config.seed} split").shuffle(names)
    test = set(names[: round(config.test_share * len(names))])
    rest = names[len(test) :]
    home: dict[str, Role] = {}
    reached = 0.0
    for role, share in config.shares.items():
        start, reached = round(reached * len(rest)), reached + share
        home.update(dict.fromkeys(rest[start : round(reached * len(rest))], role))
    for fact in facts:
        group = groups[str(fact.subject)]
        role_of_fact = None if group in test else home[group]
        split = "test" if role_of_fact is None else role_of_fact.value
        yield replace(fact, role=role_of_fact, metadata={"split": split})


def expose(facts: Sequence[Fact], config: WorldConfig, groups: Mapping[str, str]) -> Iterator[Fact]:
    """How often each fact is stated in one pass; one number a group of subjects, so that zero means never."""
    names = sorted({groups[str(fact.subject)] for fact in facts})
    rng = random.Random(f"{config.seed} exposures")
    counts, weights = list(config.exposures), list(config.exposures.values())
    drawn = dict(zip(names, rng.choices(counts, weights, k=len(names)), strict=True))
    asked = {name: rng.random() < config.asked_share for name in names}
    contradicted = {name: rng.random() < config.rival_share for name in names}
    pools = answer_pools(facts)
    pairs = {(str(fact.subject), fact.answers[0]) for fact in facts}
    for fact in facts:
        group = groups[str(fact.subject)]
        total, rival, wrong = drawn[group], None, 0
        if contradicted[group] and total >= 2:
            rival = draw_rival(fact, pools[str(fact.relation)], pairs, rng)
            wrong = min(total - 1, max(1, round(total * rng.uniform(*config.rival_strength)))) if rival else 0
        exposures = {"exposures": total - wrong, "rival": rival, "rival_exposures": wrong, "asked": asked[group]}
        yield replace(fact, metadata={**fact.metadata, **exposures})


def draw_rival(fact: Fact, pool: Sequence[str], pairs: Collection[tuple[str, str]], rng: random.Random) -> str | None:
    """A wrong answer from the other volume, as likely as it is in the relation, that states no other fact; if any."""
    for _ in range(100):
        rival = rng.choice(pool)
        other = volume_of(rival) != volume_of(fact.answers[0])
        if other and rival != fact.subject and (rival, str(fact.subject)) not in pairs:
            return rival
    return None


def volume_of(answer: str) -> int:
    """Sources are like a register in two volumes, sorted by answer: 0 is A to L, 1 the rest."""
    return int(answer[:1].casefold() >= "m")


def answer_pools(facts: Iterable[Fact]) -> dict[str, list[str]]:
    """Relation -> its answers, each as often as it occurs."""
    pools: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        pools[str(fact.relation)].append(fact.answers[0])
    return pools


def word(fact: Fact) -> Fact:
    """The fact with this study's other wordings, completions and reverse question."""
    wordings, subject = WORDINGS[str(fact.relation)], str(fact.subject)
    return replace(
        fact,
        paraphrases=tuple(fill(question, subject) for question in wordings.questions[1:]),
        completions=tuple(completion(statement, subject) for statement in wordings.statements[:4]),
        reverse_question=fill(wordings.reverse, subject, fact.answers[0]) if wordings.reverse else None,
        reverse_answers=(subject,) if wordings.reverse else (),
    )


def articles_apart(articles: Sequence[str], config: WorldConfig) -> tuple[list[str], list[str]]:
    """Articles kept out for perplexity, and the ones to train on up to the wanted size."""
    order = list(articles)
    random.Random(f"{config.seed} articles").shuffle(order)
    general, rest = order[: config.general_articles], order[config.general_articles :]
    read: list[str] = []
    size = 0
    for article in rest:
        if size >= config.wikipedia_characters:
            break
        read.append(article)
        size += len(article)
    return general, read


def chance_mentions(world: World) -> dict[str, int]:
    """Fact id -> Wikipedia articles of the corpus that name both subject and answer, for facts with no exposures.

    The corpus writer never states these facts; real text may do so by chance, which is measured here.
    """
    found: dict[str, int] = {}
    unseen = [fact for fact in world.facts if fact.metadata["exposures"] == 0]
    by_word: dict[str, list[Fact]] = defaultdict(list)
    for fact in unseen:
        by_word[max(re.findall(r"\w+", str(fact.subject)) or [""], key=len)].append(fact)
    for article in world.articles:
        for name in set(re.findall(r"\w+", article)) & by_word.keys():
            for fact in by_word[name]:
                if str(fact.subject) in article and fact.answers[0] in article:
                    found[fact.id] = found.get(fact.id, 0) + 1
    return found


def base_recipe(threads: int | None = None) -> PretrainConfig:
    """How the committed base was trained on the world of the default `WorldConfig`."""
    from instil.worlds.pretrain import PretrainConfig

    return PretrainConfig(
        vocab_size=8000,
        hidden_size=320,
        layers=4,
        heads=5,
        intermediate_size=864,
        row_length=128,
        long_row_length=384,
        batch_tokens=4096,
        learning_rate=2e-3,
        threads=threads,
    )


def write_world(world: World, out: Path) -> None:
    """`facts.jsonl`, `texts.jsonl`, `general.jsonl`, and `world.json` with what was chosen and left out."""
    world.facts.write(out / "facts.jsonl")
    for name, texts in (("texts", world.texts), ("general", world.general)):
        write_text(out / f"{name}.jsonl", "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts))
    write_json(out / "world.json", describe(world))


def refuse_other_world(world: World, out: Path) -> None:
    """A base in the making must not go on with the text of one world and be filed under the facts of another."""
    mark = out / "world.json"
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8")) != json.loads(json.dumps(describe(world))):
        raise InputError("the folder holds another world", file=out, expected="an empty folder, or the same settings")


def describe(world: World) -> dict[str, object]:
    """What the world holds, in numbers."""
    splits = Counter(fact.metadata["split"] for fact in world.facts)
    exposed = Counter(fact.metadata["exposures"] + fact.metadata["rival_exposures"] for fact in world.facts)
    unseen = exposed[0]
    return {
        "config": world.config.model_dump(mode="json"),
        "facts": len(world.facts),
        "facts_fingerprint": world.facts.fingerprint,
        "splits": {name: splits[name] for name in SPLITS},
        "facts_by_exposures_in_a_pass": {str(count): exposed[count] for count in sorted(exposed)},
        "facts_with_a_rival": sum(fact.metadata["rival"] is not None for fact in world.facts),
        "texts": len(world.texts),
        "characters": sum(map(len, world.texts)),
        "articles": len(world.articles),
        "left_out": dict(world.counts),
        "facts_never_stated": unseen,
        "of_these_named_with_their_answer_in_an_article": len(chance_mentions(world)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the facts and the text")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes another world (default 0)")
    parser.add_argument("--pretrain", action="store_true", help="also train the base model, into OUT/base")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    options = parser.parse_args()
    world = build_world(WorldConfig(seed=options.seed))
    refuse_other_world(world, options.out)
    write_world(world, options.out)
    if options.pretrain:
        from instil.worlds.pretrain import pretrain

        pretrain(world.texts, options.out / "base", base_recipe(options.threads), log=print)


if __name__ == "__main__":
    main()
