"""How far a model goes on predicting facts in other contexts than those they are written in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.exam.contexts import (
    ContextConfig,
    ContextScores,
    ContextSet,
    contexts_of_documents,
    contexts_of_facts,
)
from instil.facts import Corpus, FactSet
from instil.files import alone_in, write_sealed
from instil.probe.memory import peak_memory_mb
from instil.version import __version__

if TYPE_CHECKING:
    from instil.model import LanguageModel

Tell = Callable[[int, int], None]


def probe_contexts(
    model: LanguageModel,
    about: Corpus | FactSet | ContextSet,
    documents: Corpus | None = None,
    *,
    config: ContextConfig | None = None,
    out: str | Path | None = None,
    progress: Tell = lambda done, total: None,
) -> ContextScores:
    """The exact probability of facts' tokens in the text of their documents, and in other texts that lead to them.

    Args:
        about: documents, whose dates, names, numbers and telling words are the facts; or facts, which are looked for in
            `documents` and have completions; or contexts made before, which need not be made again for each model.
        documents: where facts are told.
        out: a folder for `contexts.parquet` and `summary.json`.
        progress: called with the texts computed and their number.

    Raises:
        InputError: there is no context to score, `documents` come without facts, or `out` is a file.

    >>> scores = instil.probe_contexts(instil.load("embedded"), instil.Corpus.read("articles.jsonl"))  # doctest: +SKIP
    >>> scores.headline()["carry_over"].value  # doctest: +SKIP
    0.31
    """
    config = config or ContextConfig()
    if documents is not None and not isinstance(about, FactSet):
        raise InputError("documents are given beside what are no facts", field="documents", expected="facts")
    if out is None:
        return _scored(model, _made(about, documents, config), config, progress)
    with alone_in(out):
        started, clock = datetime.now(UTC), time.perf_counter()
        made = _made(about, documents, config)
        scores = _scored(model, made, config, progress)
        scores.save(Path(out) / "contexts.parquet")
        described = {
            "version": __version__,
            "command": "probe --contexts",
            "config": config.model_dump(mode="json"),
            "seed": config.seed,
            "model": model.describe(),
            "data": _data(about, documents, made),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "cost": {"seconds": time.perf_counter() - clock, "peak_memory_mb": round(peak_memory_mb(), 1)},
            **scores.summary(),
        }
        write_sealed(Path(out) / "summary.json", described)
    return scores


# -------------------------------------------------------------------- private


def _made(about: Corpus | FactSet | ContextSet, documents: Corpus | None, config: ContextConfig) -> ContextSet:
    if isinstance(about, Corpus):
        return contexts_of_documents(about, config)
    made = about if isinstance(about, ContextSet) else contexts_of_facts(about, documents, config)
    if not len(made):
        reasons = sorted({reason for _, reason in made.left_out})
        raise InputError(
            "no text leads to any of the facts",
            field="FACTS",
            found="; ".join(reasons[:3]) or "facts without documents and without completions",
            expected="facts with `completions`, or the documents that tell them",
        )
    return made


def _scored(model: LanguageModel, made: ContextSet, config: ContextConfig, progress: Tell) -> ContextScores:
    from instil.probe.contexts import prepare_contexts, score_contexts

    prepared = prepare_contexts(model, made, config.context_tokens)
    if not len(prepared):
        raise InputError("none of the contexts can be scored", field="contexts", found=_first_reason(prepared.left_out))
    rows = score_contexts(model, prepared, batch_tokens=config.batch_tokens, progress=progress)
    return ContextScores(rows, (*made.left_out, *prepared.left_out))


def _first_reason(left_out: Sequence[tuple[str, str]]) -> str:
    return left_out[0][1] if left_out else "none"


def _data(about: Corpus | FactSet | ContextSet, documents: Corpus | None, made: ContextSet) -> dict[str, Any]:
    corpus = about if isinstance(about, Corpus) else documents
    facts = about if isinstance(about, FactSet) else None
    return {
        "contexts_fingerprint": made.fingerprint,
        "facts": None if facts is None else len(facts),
        "facts_fingerprint": None if facts is None else facts.fingerprint,
        "documents": None if corpus is None else len(corpus),
        "documents_fingerprint": None if corpus is None else corpus.fingerprint,
        "not_read": [*(facts.left_out if facts is not None else ()), *(corpus.left_out if corpus is not None else ())],
    }
