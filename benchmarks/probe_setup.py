"""What is measured: the models, the facts and their exemplars, and how much there is to compute."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

import instil
from instil.facts import FactSet, Role
from instil.model import LanguageModel, save
from instil.probe import ExemplarSets, ProbeConfig, Question, ask, draw_exemplars, questions_of
from instil.probe.exact import Job
from instil.probe.preparing import Preparer
from instil.probe.rows import Ids, Row, Tree
from instil.probe.shared_runner import SharedRunner, SharedScored
from instil.worlds.embedded import demo_facts, embedded_world
from instil.worlds.pretrain import PretrainConfig
from instil.worlds.stream import train_tokenizer

TOKENIZER_CHARACTERS = 4_000_000
BASE = Path(__file__).parents[1] / "studies" / "bases" / "entityquestions"


@dataclass(frozen=True)
class Size:
    """Of a Llama with tied embeddings and heads of 64."""

    hidden: int
    layers: int
    intermediate: int
    vocabulary: int


SIZES = {
    "60m": Size(hidden=640, layers=12, intermediate=1728, vocabulary=8000),
    "tiny": Size(hidden=64, layers=2, intermediate=128, vocabulary=2048),
}
"""The first is a trained base, widened; the second has random weights."""


def load_model(name: str, dtype: str, work: Path) -> LanguageModel:
    """A size of `SIZES`, built in `work` with random weights; else whatever `instil.load` knows."""
    if name not in SIZES:
        return instil.load(name, dtype=dtype)
    folder = work / name
    if not (folder / "config.json").exists():
        (build if name == "tiny" else widened)(SIZES[name], folder)
    return instil.load(folder, dtype=dtype)


def widened(size: Size, folder: Path) -> None:
    """The EntityQuestions base with zeros around its weights: it answers as the base does, at the cost of its size.

    A model of random weights never stops answering, so that all would be compared on nonsense of full length.
    """
    from transformers import LlamaForCausalLM

    base = instil.load(BASE, dtype="float32", device="cpu")
    narrow = base.model.config
    share = narrow.hidden_size / size.hidden
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama(size, base.tokenizer, rms_norm_eps=narrow.rms_norm_eps * share)).eval()
    weights = dict(base.model.state_dict())
    with torch.no_grad():
        for name, wide in model.state_dict().items():
            # What is written to the stream is zero beyond the base; queries, keys and gates there may be anything.
            if name.endswith(("embed_tokens.weight", "lm_head.weight", "o_proj.weight", "down_proj.weight")):
                wide.zero_()
            if name in weights:
                part = weights[name]
                # A norm takes the mean over more places than have a value.
                wide[tuple(slice(length) for length in part.shape)] = part * (share**0.5 if part.dim() == 1 else 1.0)
    save(LanguageModel.of(model, base.tokenizer), folder, torch.bfloat16)


def llama(size: Size, tokenizer: Any, **rest: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **rest,
    )


def build(size: Size, folder: Path) -> None:
    from transformers import LlamaForCausalLM

    made = PretrainConfig(vocab_size=size.vocabulary, tokenizer_characters=TOKENIZER_CHARACTERS)
    tokenizer = train_tokenizer(texts(), made)
    torch.manual_seed(0)
    # What the text is too short to fill stays unused, so that the matrices have the size that is stated.
    save(LanguageModel.of(LlamaForCausalLM(llama(size, tokenizer)), tokenizer), folder, torch.bfloat16)


def texts() -> Iterator[str]:
    """What tokenizers are trained on: Wikipedia where the public data are at hand, else the demo's world."""
    place = data_folder("wikipedia/articles.jsonl.gz")
    if place is None:
        yield from embedded_world().texts()
        return
    with gzip.open(place, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def data_folder(path: str) -> Path | None:
    named = os.environ.get("INSTIL_DATA")
    place = Path(named or "", path)
    return place if named and place.exists() else None


def about_model(lm: LanguageModel) -> dict[str, Any]:
    config = lm.model.config
    return {
        **lm.describe(),
        "non_embedding_parameters": layer_weights(lm),
        "vocabulary": config.vocab_size,
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "attention": config._attn_implementation,
        "stop_tokens": len(lm.prompts.stop_ids),
    }


def linear_layers(lm: LanguageModel) -> list[Any]:
    """The weight matrices that every token passes: all but the one that gives the logits."""
    head = lm.model.get_output_embeddings()
    # GPT-2's `Conv1D` is a linear layer with its weight transposed.
    kinds = (torch.nn.Linear, Conv1D)
    return [part for part in lm.model.modules() if isinstance(part, kinds) and part is not head]


def layer_weights(lm: LanguageModel) -> int:
    return sum(layer.weight.numel() for layer in linear_layers(lm))


@dataclass(frozen=True)
class Material:
    """Facts by relation, and others to draw exemplars from."""

    source: str
    facts: FactSet
    exemplars: FactSet

    @staticmethod
    def read(relations: int, each: int, seed: int = 0) -> Material:
        """EntityQuestions where the public data are at hand, else the demo's facts."""
        place = data_folder("entityquestions/train.jsonl.gz")
        if place is None:
            everything = demo_facts(count=100 * each)
            asked = everything.where(lambda fact: fact.role is not Role.EXEMPLAR)
            return Material("the demo's world", some(asked, relations, each, seed), everything.with_role(Role.EXEMPLAR))
        asked = some(FactSet.read(place, skip_invalid=True), relations, each, seed)
        pool = FactSet.read(place.with_name("dev.jsonl.gz"), skip_invalid=True)
        exemplars = pool.where(lambda fact: fact.relation in asked.by_relation)
        return Material("EntityQuestions", asked, exemplars)

    def part(self, relations: int, each: int) -> Material:
        """The first facts of the first relations."""
        groups = itertools.islice(self.facts.by_relation.values(), relations)
        return Material(self.source, FactSet(fact for group in groups for fact in group[:each]), self.exemplars)


def some(facts: FactSet, relations: int, each: int, seed: int) -> FactSet:
    groups = sorted(facts.by_relation.items(), key=lambda item: str(item[0]))
    return FactSet(fact for _, group in groups[:relations] for fact in group.sample(each, seed))


class Watched(SharedRunner):
    """Notes the rows that are computed, with as much of their trees as is."""

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__(lm)
        self.rows: list[Row] = []

    def score(self, rows: Sequence[Row], keep: bool = True) -> WatchedScored:
        scored = super().score(rows, keep)
        first = len(self.rows)
        self.rows += [replace(row, tree=Tree((), ()), guessed=0) for row in rows]
        return WatchedScored(
            **{each.name: getattr(scored, each.name) for each in fields(scored)}, seen=self, first=first
        )


@dataclass
class WatchedScored(SharedScored):
    seen: Watched | None = None
    first: int = 0

    def behind(self, trees: Mapping[int, Tree]) -> torch.Tensor:
        assert self.seen is not None
        for index, tree in trees.items():
            self.seen.rows[self.first + index] = replace(self.seen.rows[self.first + index], tree=tree)
        return super().behind(trees)


@dataclass(frozen=True)
class Requests:
    """Facts, put to one model in one way."""

    lm: LanguageModel
    material: Material
    config: ProbeConfig

    @cached_property
    def questions(self) -> list[Question]:
        return questions_of(self.material.facts)

    @cached_property
    def sets(self) -> ExemplarSets:
        return draw_exemplars(self.material.exemplars, self.material.facts.by_relation, self.config)

    @cached_property
    def jobs(self) -> list[Job]:
        prepare = Preparer(self.lm, self.sets, self.config)
        return [job for question in self.questions for job in prepare(question).jobs()]

    @cached_property
    def listed(self) -> list[tuple[Ids, Ids]]:
        """For each prompt and each listed answer (context, continuation), the first stop token behind the answer."""
        prompts = self.lm.prompts
        answers = {
            question.id: [prompts.answer_ids(answer) for answer in question.answers] for question in self.questions
        }
        stop = prompts.terminator_ids
        return [
            ((*job.row.prefix, *job.row.question), (*answer, *stop))
            for job in self.jobs
            for answer in dict.fromkeys(answers[job.key.rpartition(":")[0]])
        ]

    @cached_property
    def needed(self) -> list[Row]:
        """What must be computed of each prompt, without priors and decoding: what questions begin with alike goes with
        their prefix, and of the answers' trees there is only what a sample or greedy decoding can come to."""
        watched = Watched(self.lm)
        config = self.config.model_copy(update={"prior": False, "decode": False})
        list(ask(self.lm, self.questions, self.sets, config, runner=watched))
        return watched.rows

    @cached_property
    def prefixes(self) -> list[Ids]:
        return list(dict.fromkeys(row.prefix for row in self.needed if row.prefix))

    @property
    def facts(self) -> int:
        return len(self.questions)

    @property
    def tokens(self) -> int:
        """Each token that must be computed, once."""
        return sum(map(len, self.prefixes)) + sum(map(len, self.needed))

    @property
    def listed_tokens(self) -> int:
        """The same, were every question and every listed answer computed behind each prefix: what is asked about."""
        prefixes = {job.row.prefix for job in self.jobs}
        return sum(map(len, prefixes)) + sum(len(job.row) for job in self.jobs)

    @property
    def scored(self) -> int:
        """Places at which logits are needed."""
        return sum(1 + len(row.tree) for row in self.needed)

    @property
    def pairs(self) -> int:
        """Pairs of a token and a token it attends to, with itself, none masked."""
        within = sum(len(prefix) * (len(prefix) + 1) // 2 for prefix in self.prefixes)
        for row in self.needed:
            before, asked = len(row.prefix), len(row.question)
            within += len(row) * before + asked * (asked + 1) // 2
            within += sum(asked + depth for depth in row.tree.depths)
        return within

    @property
    def flops(self) -> float:
        """Of scoring without priors and decoding: weights and attention of every token, logits where one is scored."""
        config: Any = self.lm.model.config
        heads = config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        attention = 4.0 * self.pairs * width * config.num_hidden_layers
        head = 2.0 * self.scored * config.vocab_size * config.hidden_size
        return 2.0 * layer_weights(self.lm) * self.tokens + attention + head

    def describe(self) -> dict[str, Any]:
        rows, needed = [job.row for job in self.jobs], self.needed
        prompts = self.lm.prompts
        answers = [prompts.answer_ids(answer) for question in self.questions for answer in question.answers]
        return {
            "source": self.material.source,
            "facts": self.facts,
            "relations": len(self.material.facts.by_relation),
            "prompts": len(rows),
            "prefixes": len({row.prefix for row in rows}),
            "exemplar_sets": self.config.exemplar_sets,
            "shots": self.config.shots,
            "max_new_tokens": self.config.max_answer_tokens,
            "tokens_that_must_be_computed": self.tokens,
            "tokens_without_leads_and_pruning": self.listed_tokens,
            "lengths_in_tokens": {
                "prefix": spread(map(len, {row.prefix for row in rows})),
                "question": spread(len(row.question) for row in rows),
                "prompt": spread(len(row.prefix) + len(row.question) for row in rows),
                "answer": spread(map(len, answers)),
                "answer tree": spread(len(row.tree) for row in rows),
                "question behind its lead": spread(len(row.question) for row in needed),
                "answer tree that can be reached": spread(len(row.tree) for row in needed),
            },
        }


def spread(lengths: Iterable[int]) -> dict[str, float]:
    found: Sequence[int] = sorted(lengths) or [0]
    return {"mean": round(sum(found) / len(found), 2), "min": found[0], "max": found[-1]}


def shots_for(lm: LanguageModel, material: Material, config: ProbeConfig, tokens: int) -> int:
    """Exemplars that a prefix needs to have `tokens` tokens on average."""
    prefixes = Requests(lm, material, config).prefixes
    per_shot = sum(map(len, prefixes)) / len(prefixes) / config.shots
    return max(1, -int(-tokens // per_shot))
