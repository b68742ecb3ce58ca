"""A fact set as a task of `lm-eval`, so that anyone can check the greedy answers with another program.

The task asks the probe's own prompts, exemplars and all, and decodes greedily with the probe's stops and length. One
document is one prompt: one fact behind one exemplar set. The harness tokenises each prompt as one text, where Instil
joins the ids of its parts. Where that gives other ids the model is asked something else; such documents are marked with
the reason and counted.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import yaml

from instil import answers
from instil.errors import InputError
from instil.files import atomic, write_json, write_text
from instil.probe import harness_scoring
from instil.probe.config import PROTOCOL, ProbeConfig
from instil.probe.exemplars import ExemplarSets, exemplar_sets
from instil.probe.preparing import Preparer
from instil.probe.questions import questions_of
from instil.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from instil.facts import FactSet
    from instil.model import LanguageModel, Prompts

LINE_BREAKS = ("\n", "\r")
"""An answer is what stands before them; the tokens that stop it in the probe all hold one, or are end tokens."""

OTHER_TOKENS = "other tokens"
"""The harness's ids of the prompt are not the probe's."""
OTHER_LIMIT = "other limit"
"""The probe lets the answer be longer or shorter than the task does, or the harness would cut the prompt."""

_SHIPPED: Final = ("load", "process_results", "accuracy", "known", "highly_known", "by_fact")
_METRICS: Final = {
    "exact_match": "accuracy",
    "exact_match_same_prompt": "accuracy",
    "known": "known",
    "highly_known": "highly_known",
}


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        task: the name by which the harness calls it.
        facts: how many.
        prompts: documents, one for each fact and exemplar set.
        differ: documents that are marked, by reason.
        limit: tokens that an answer may have, its stop with it.
        warnings: what the exemplars lack, and what else may make the two differ.
    """

    task: str
    facts: int
    prompts: int
    differ: dict[str, int]
    limit: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"warnings": list(self.warnings)}


@dataclass(frozen=True)
class _Document:
    """One prompt; `limit` and `tokens` decide about marks and are not written."""

    row: dict[str, Any]
    limit: int
    tokens: int


def export(
    lm: LanguageModel,
    facts: FactSet,
    exemplars: FactSet | ExemplarSets | None = None,
    config: ProbeConfig = PROTOCOL,
    *,
    out: str | Path,
    name: str = "facts",
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write a task folder for `lm_eval --include_path`.

    Args:
        lm: whose tokenizer, prompt style, end tokens and context window the task is made for; `instil.model.outline`
            will do, since no weights are used.
        exemplars: as `probe` takes them; the same give the same prompts.
        config: `exemplar_sets`, `shots`, `max_answer_tokens` and `seed` count; what concerns sampling does not.
        out: a new or empty folder for the task's YAML, `docs.jsonl`, `utils.py`, `README.md` and `export.json`.
        name: the task is called `instil_<name>`.
        progress: is told (facts done, facts in all).

    Raises:
        InputError: there are no facts; a question is longer than the context window; the folder holds something; an end
            token of the model is an ordinary word, which the harness could not tell from an answer.
    """
    folder = Path(out)
    if not len(facts):
        raise InputError("there is nothing to export", expected="at least one fact")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("the output folder is not empty", file=folder, expected="an empty or a new folder")
    sets = exemplar_sets(facts, exemplars, config)
    limit = _common_limit(lm, facts, sets, config)
    task, stops = task_name(name), _stops(lm)
    tell = progress or (lambda done, total: None)
    with atomic(folder / "docs.jsonl") as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        prompts, differ = _write(file, lm, facts, sets, config, limit, tell)
    warned = (*sets.warnings, *_remarks(lm.prompts.tokenizer))
    done = Exported(task, len(facts), prompts, dict(sorted(differ.items())), limit, warned)
    write_text(folder / "utils.py", scoring_source())
    write_text(folder / "README.md", _readme(lm, done, config))
    provenance = {
        "version": __version__,
        "model": {"name": lm.name, "style": lm.style.value},
        "facts_fingerprint": facts.fingerprint,
        "exemplars_fingerprint": sets.fingerprint,
        "config": config.model_dump(mode="json"),
    }
    write_json(folder / "export.json", done.to_dict() | provenance)
    # Last, since the harness finds a task by it.
    write_text(folder / f"{task}.yaml", _yaml(task, stops, limit, _extra_ends(lm)))
    return done


def task_name(name: str) -> str:
    """A name that the harness takes on its command line, where commas separate and stars match."""
    return f"instil_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_') or 'facts'}"


def harness_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The ids that `lm-eval`'s Hugging Face model makes of prompts.

    It adds the tokenizer's special tokens unless the first text of a batch begins with the start token; then it takes
    the texts as they are. Source: `HFLM.tok_batch_encode` of lm-eval 0.4.13.
    """
    written = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
    options = {"add_special_tokens": False} if written else {}
    ids: list[list[int]] = tokenizer(texts, **options)["input_ids"]
    return ids


def scoring_source() -> str:
    """The text of a task's `utils.py`: the definition of a right answer, and the functions of `harness_scoring`."""
    rules = Path(answers.__file__).read_text(encoding="utf-8").rstrip("\n")
    docstring, rest = rules.split('"""\n', 1)
    head = f'{docstring}\nWritten by Instil {__version__}; it needs nothing of it.\n"""\n'
    imports = (
        "import json\nfrom collections.abc import Mapping, Sequence\nfrom pathlib import Path\nfrom typing import Any\n"
    )
    functions = (inspect.getsource(getattr(harness_scoring, one)).rstrip("\n") for one in _SHIPPED)
    return f"{head}{rest}\n\n\n{imports}\nOfFact = tuple[str, float]\n\n\n" + "\n\n\n".join(functions) + "\n"


def _common_limit(lm: LanguageModel, facts: FactSet, sets: ExemplarSets, config: ProbeConfig) -> int:
    """The length of answers that most facts have in the probe; a task has only one. Raises for what cannot be asked."""
    prepare = Preparer(lm, sets, config.model_copy(update={"prior": False}))
    limits = Counter(prepare(question).limit for question in questions_of(facts))
    most = max(limits.values())
    return min(limit for limit, count in limits.items() if count == most)


def _write(
    file: IO[str],
    lm: LanguageModel,
    facts: FactSet,
    sets: ExemplarSets,
    config: ProbeConfig,
    limit: int,
    progress: Callable[[int, int], None],
) -> tuple[int, Counter[str]]:
    """Write the documents, fact by fact; how many, and how many of them differ and why."""
    prompts, differ = 0, Counter[str]()
    for done, documents in enumerate(_documents(lm, facts, sets, config), start=1):
        for document in documents:
            row = document.row
            if not row["differs"] and (document.limit != limit or document.tokens + limit > lm.context_window):
                row["differs"] = OTHER_LIMIT
            prompts += 1
            differ.update([row["differs"]] if row["differs"] else [])
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        progress(done, len(facts))
    return prompts, differ


def _documents(lm: LanguageModel, facts: FactSet, sets: ExemplarSets, config: ProbeConfig) -> Iterator[list[_Document]]:
    prepare = Preparer(lm, sets, config.model_copy(update={"prior": False}))
    for question in questions_of(facts):
        one = prepare(question)
        chosen = sets.for_question(question)[: config.exemplar_sets]
        texts = [
            lm.prompts.prompt_text([(exemplar.question, exemplar.answer) for exemplar in exemplars], question.text)
            for exemplars in chosen
        ]
        found = harness_ids(lm.prompts.tokenizer, texts)
        documents = []
        for number, (text, prefix, theirs) in enumerate(zip(texts, one.prefixes, found, strict=True)):
            ours = [*prefix, *one.question_ids]
            row = {
                "fact_id": question.fact_id,
                "relation": question.relation or "",
                "exemplar_set": number,
                "prompt": text,
                "answer": question.answers[0],
                "answers": list(question.answers),
                "differs": "" if theirs == ours else OTHER_TOKENS,
            }
            documents.append(_Document(row, one.limit, len(theirs)))
        yield documents


def _stops(lm: LanguageModel) -> list[str]:
    """Where the harness ends an answer. It adds the text of the tokenizer's end token itself.

    Raises:
        InputError: an end token is an ordinary word.
    """
    prompts: Prompts = lm.prompts
    added = set(prompts.tokenizer.get_added_vocab().values())
    special = set(prompts.tokenizer.all_special_ids)
    for token in sorted(prompts.end_ids - added - special):
        raise InputError(
            "an end token of the model is an ordinary one, which the harness would take for a part of the answer",
            field="eos_token_id",
            found=f"{token} ({prompts.decode([token])!r})",
            expected="special or added tokens",
        )
    # The text of special tokens is dropped when the harness decodes; that of others has to be cut.
    return [*LINE_BREAKS, *(prompts.decode([token]) for token in sorted(prompts.end_ids - special))]


def _extra_ends(lm: LanguageModel) -> list[int]:
    """The end tokens, where `generate` by itself would not stop at all of them."""
    generation: Any = getattr(lm.model, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    known = set(named if isinstance(named, list | tuple) else [] if named is None else [named])
    return sorted(lm.prompts.end_ids) if lm.prompts.end_ids - known else []


def _remarks(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        yield "the tokenizer takes spaces before punctuation away when the harness decodes; answers may differ in them"


class _Function(str):
    """A function of `utils.py`, as the harness's YAML names it."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, value: dumper.represent_scalar("!function", f"utils.{value}"))


def _yaml(task: str, stops: list[str], limit: int, ends: list[int]) -> str:
    generation: dict[str, Any] = {"until": stops, "max_gen_toks": limit, "do_sample": False, "temperature": 0.0}
    if ends:
        generation["eos_token_id"] = ends
    content = {
        "task": task,
        "custom_dataset": _Function("load"),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "process_results": _Function("process_results"),
        "generation_kwargs": generation,
        "num_fewshot": 0,
        "metric_list": [
            {"metric": metric, "aggregation": _Function(function), "higher_is_better": True}
            for metric, function in _METRICS.items()
        ],
        "metadata": {"version": 1},
    }
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _readme(lm: LanguageModel, done: Exported, config: ProbeConfig) -> str:
    marked = sum(done.differ.values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in done.differ.items())
    alike = f"{marked:,} are not ({reasons})" if marked else "none is not"
    return f"""# {done.task}

{done.facts:,} facts, each behind {config.exemplar_sets} sets of {config.shots} worked questions: {done.prompts:,}
prompts, made for the tokenizer of `{lm.name}` ({lm.style} style). From this folder:

    lm_eval --model hf --model_args pretrained=MODEL,dtype=float32,add_bos_token=False \\
        --tasks {done.task} --include_path . --log_samples --output_path results

Give neither `--apply_chat_template` nor `--num_fewshot`: the prompts are whole, chat turns and start token included.

| score | is | in Instil |
|---|---|---|
| `exact_match` | share of the prompts whose greedy answer is right | the mean of `p_greedy` |
| `exact_match_same_prompt` | the same, over the prompts that are token for token Instil's; {alike} | – |
| `known` | share of the facts that are right for at least half of their prompts | `known` |
| `highly_known` | share of the facts that are right for every prompt | `HighlyKnown` |

Fact by fact: a sample's `doc.fact_id` and `doc.exemplar_set` name the row and the place in `greedy_right_by_set` of
`mastery.parquet`. What may differ: documents marked in `differs`; an answer that never stops within {done.limit}
tokens, which Instil counts as wrong and the harness scores as it is; a tie of two tokens, which padding and another
precision can break otherwise. The harness gives no standard errors here, since prompts of one fact are not independent.
"""
