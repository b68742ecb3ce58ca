"""`instil probe --contexts`: how likely are facts in the text of their documents, and in other texts?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instil.cli.options import check_out, checked, refuse_filled
from instil.cli.reading import read_model
from instil.cli.terminal import Terminal, percent, table
from instil.errors import InputError

if TYPE_CHECKING:
    from instil.facts import Corpus, FactSet
    from instil.loop.settings import Given

LEGEND: Final = (
    "probability: of all of a fact's tokens behind the text; per token: its geometric mean for one token;",
    "greedy: share of the texts behind which greedy decoding writes the fact. Intervals (95 %) resample documents.",
)


def probe_contexts(
    terminal: Terminal,
    model: str,
    chat_template: Path | None,
    learner: Mapping[str, Any],
    source: str,
    documents: str | None,
    sources: Mapping[str, Any],
    given: Given,
    limit: int | None,
    out: Path,
) -> None:
    """Write `contexts.parquet` and `summary.json`, and print a table by kind of context."""
    from instil.exam.contexts import ContextConfig
    from instil.files import read_sealed
    from instil.loop import probe_contexts as score

    check_out(out)
    refuse_filled(out)
    section = "contexts" if "contexts" in given else ""
    values = {"seed": terminal.seed, **(given.section("contexts") if section else given)}
    chosen = checked(ContextConfig, values | ({} if limit is None else {"items": limit}), given=given, section=section)
    about, corpus = read_about(source, documents, **sources)
    lm = read_model(terminal, model, chat_template, **learner)
    with terminal.progress() as progress:
        score(
            lm,
            about,
            corpus,
            config=chosen,
            out=out,
            progress=lambda done, total: progress("scoring", done, total, unit="texts"),
        )
    summary = read_sealed(out / "summary.json")
    terminal.result(summary)
    show(terminal, summary, out)


def read_about(
    source: str, documents: str | None, *, layout: str | None, templates: Path | None, skip_invalid: bool
) -> tuple[Corpus | FactSet, Corpus | None]:
    """Facts and the documents that tell them, facts with completions, or documents alone.

    Raises:
        InputError: a file is faulty, or holds facts that no text leads to.
    """
    from instil.facts import Corpus, FactSet
    from instil.facts.texts import holds_texts

    if documents is None and holds_texts(Path(source)):
        return Corpus.read(source, skip_invalid=skip_invalid), None
    try:
        facts = FactSet.read(source, layout=layout, templates=templates, skip_invalid=skip_invalid)
    except InputError as error:
        if documents is None and error.what.startswith("these are documents"):
            return Corpus.read(source, skip_invalid=skip_invalid), None
        raise
    if documents is not None:
        return facts, Corpus.read(documents, skip_invalid=skip_invalid)
    if any(fact.completions for fact in facts):
        return facts, None
    try:
        return Corpus.read(source, skip_invalid=skip_invalid), None
    except InputError:
        raise InputError(
            "no text leads to these facts",
            file=source,
            field="completions",
            found="no fact has one",
            expected="facts with `completions`, or --documents with the texts that tell them",
        ) from None


def show(terminal: Terminal, summary: Mapping[str, Any], out: Path) -> None:
    """The table by kind, the headline in words, and where everything is."""
    rows = [
        (
            kind,
            figures["probability"]["n"],
            percent(figures["probability"]["value"]),
            _interval(figures["probability"]),
            percent(figures["per_token"]["value"]),
            percent(figures["greedy_right"]["value"]),
        )
        for kind, figures in summary["by_kind"].items()
    ]
    terminal.show(table(None, ("context", "facts", "probability", "95 % interval", "per token", "greedy"), rows))
    terminal.show(*LEGEND, "", *lines(summary))
    counts = summary["counts"]
    if counts["left_out"]:
        terminal.show(f"Left out: {counts['left_out']:,} (listed in {out / 'summary.json'}), most of them because")
        for reason, count in list(summary["left_out"]["reasons"].items())[:3]:
            terminal.show(f"  {reason} ({count:,})")
    terminal.show(f"Every context: {out / 'contexts.parquet'}")


def lines(summary: Mapping[str, Any]) -> list[str]:
    """How much is carried over, and what was shortened."""
    headline, counts = summary["headline"], summary["counts"]
    found = []
    carried = headline.get("carry_over")
    if carried is not None and carried["value"] is None:
        found.append("Carried over: nothing can be, since no fact is predicted as written.")
    elif carried is not None:
        found.append(
            f"Carried over: of {carried['n']:,} facts predicted as written, {percent(carried['value'])} in other "
            f"contexts too{_between(carried)}."
        )
        mass = headline["probability_carried"]
        found.append(
            f"Of the probability as written, {percent(mass['value'])} is there in other contexts{_between(mass)}."
        )
    if counts["shortened"]:
        found.append(f"Shortened: {counts['shortened']:,} contexts lost tokens at their beginning, being too long.")
    return found


def _between(figure: Mapping[str, Any]) -> str:
    return "" if figure["low"] is None else f" ({_interval(figure)})"


def _interval(figure: Mapping[str, Any]) -> str:
    return "–" if figure["low"] is None else f"{percent(figure['low'])} to {percent(figure['high'])}"
