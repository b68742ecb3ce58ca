"""`instil world`: controlled worlds, and base models that have seen each of their facts a known number of times."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instil.cli.commanding import command
from instil.cli.options import Config, Out, Resume, Set, check_out, checked, refuse_filled, settings
from instil.cli.terminal import Terminal, table
from instil.errors import InputError

if TYPE_CHECKING:
    from instil.worlds.world import World

TEXTS = "pretraining.jsonl.gz"


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", help="Make a controlled world, and pre-train a base model for it.")
    app.add_typer(group, name="world")
    command(group, "build", example="instil world build --out runs/world --set people=200")(build)
    command(group, "pretrain", example="instil world pretrain runs/world --out runs/base", resumable=True)(pretrain)


def build(
    terminal: Terminal,
    out: Out,
    config: Config = None,
    overrides: Set = None,
    paraphrases: Annotated[
        int, typer.Option("--paraphrases", min=0, help="Other wordings of each biography, kept in its metadata.")
    ] = 0,
) -> None:
    """Generate a world: people, places, organisations and works that refer to each other.

    Writes facts.jsonl (each with its role and its number of exposures), hops.jsonl (questions through another entity),
    documents.jsonl (a biography of every person), general.txt, pretraining.jsonl.gz and summary.json.
    """
    from instil.files import claim
    from instil.worlds.world import WorldConfig, generate_world

    refuse_filled(check_out(out))
    given = settings(config, overrides)
    chosen = checked(WorldConfig, {"seed": terminal.seed, **given}, given=given)
    terminal.note("generating the world")
    try:
        world = generate_world(chosen)
    except ValueError as error:
        raise InputError(str(error), field="people", found=str(chosen.people)) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True) as beside:
        draft = Path(beside) / "world"
        summary = write_world(world, draft, terminal.seed, paraphrases)
        if not claim(draft, out):
            raise InputError("something else was written there meanwhile", file=out, field="--out")
    terminal.result(summary)
    rows = [(name, summary["data"][name]) for name in ("facts", "hops", "documents", "pretraining_texts")]
    terminal.show(table(None, ("what", "how many"), rows), f"The world: {out}")


def write_world(world: World, out: Path, seed: int, paraphrases: int = 0) -> dict[str, Any]:
    """Write the files of a world into a new folder; each document brings so many other wordings of itself."""
    from instil.files import fingerprint_file, write_json, write_text
    from instil.version import __version__

    world.facts.write(out / "facts.jsonl")
    world.hop_facts.write(out / "hops.jsonl")
    documents = world.paraphrased(paraphrases) if paraphrases else world.documents
    documents.write(out / "documents.jsonl")
    write_text(out / "general.txt", "\n\n".join(world.general_texts(seed)) + "\n")
    count = 0
    with (out / TEXTS).open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        for text in world.texts():
            packed.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
            count += 1
    summary = {
        "version": __version__,
        "command": "world build",
        "config": world.config.model_dump(mode="json"),
        "seed": world.config.seed,
        "data": {
            "facts": len(world.facts),
            "facts_fingerprint": world.facts.fingerprint,
            "hops": len(world.hop_facts),
            "documents": len(documents),
            "documents_fingerprint": documents.fingerprint,
            "pretraining_texts": count,
            "pretraining_sha256": fingerprint_file(out / TEXTS),
        },
    }
    write_json(out / "summary.json", summary)
    return summary


def pretrain(
    terminal: Terminal,
    texts: Annotated[
        Path,
        typer.Argument(
            metavar="TEXTS",
            help="A folder of `instil world build`, or texts: JSONL with a `text` field, or one a line; plain or .gz.",
            show_default=False,
        ),
    ],
    out: Out,
    config: Config = None,
    overrides: Set = None,
    resume: Resume = False,
) -> None:
    """Pre-train a base model from nothing, reproducibly: the same texts, settings and machine give the same weights."""
    from instil.files import write_json
    from instil.version import __version__
    from instil.worlds.pretrain import PretrainConfig
    from instil.worlds.pretrain import pretrain as train

    check_out(out)
    source = texts / TEXTS if texts.is_dir() else texts
    if not source.is_file():
        raise InputError("there are no texts here", file=source, expected=f"a folder with {TEXTS}, or a file of texts")
    if not resume:
        refuse_filled(out)
    given = settings(config, overrides)
    chosen = checked(PretrainConfig, {"seed": terminal.seed, **given}, given=given)
    with terminal.progress() as progress:

        def log(row: dict[str, Any]) -> None:
            progress("pre-training", row["step"], row.get("steps"), f"loss {row['loss']:.3f}")

        done = train(source, out, chosen, log=log, resume=resume)
    summary = {
        "version": __version__,
        "command": "world pretrain",
        "config": chosen.model_dump(mode="json"),
        "seed": chosen.seed,
        "steps": done.steps,
        "tokens": done.tokens,
        "seconds": done.seconds,
        "final_loss": done.final_loss,
        "parameters": done.parameters,
    }
    write_json(out / "summary.json", summary)
    terminal.result(summary)
    terminal.show(f"{done.parameters:,} parameters, {done.tokens:,} tokens, final loss {done.final_loss:.3f}: {out}")
