"""The model card: `README.md` beside the taught weights, in the layout of the Hugging Face Hub.

It says what the run recorded and nothing else: what was taught, how, what came out with n and intervals, what it cost,
at which scale. Where something was not recorded or not measured, it says so.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.files import write_text
from instil.report import words
from instil.report.words import percent

CARD = "README.md"
_MARKS = re.compile(r"([\\`*_\[\]|~]|(?<!\S)#)")


def write_model_card(folder: Path, data: Mapping[str, Any]) -> Path | None:
    """Write the card of a finished run's model; None where there is no model, or nothing was measured yet."""
    model = folder / "model"
    if not data["figures"] or not any((model / name).is_file() for name in ("config.json", "adapter_config.json")):
        return None
    path = model / CARD
    write_text(path, model_card(data, adapter=not (model / "config.json").is_file()))
    return path


def model_card(data: Mapping[str, Any], *, adapter: bool = False) -> str:
    """The card of what `report_data` gives, as Markdown with YAML front matter.

    Args:
        data: what `report_data` gives.
        adapter: the folder holds an adapter and not a whole model.
    """
    head = data["headline"]
    sections = [
        f"# {_title(data)}",
        _plain(" ".join([head["sentence"], *head["details"]])),
        f"**Measured on** {_plain(head['scale'])}. It shows what this method did to this model with these facts. "
        f"Other models, sizes and seeds may differ. {words.seeds(len(data['scale']['seeds']) or 1)}",
        f"## What was taught\n\n{_taught(data)}",
        f"## How\n\n{_how(data)}",
        f"## What came out\n\n{_outcome(data)}",
        f"## What it cost\n\n{_cost(data)}",
        f"## Limits\n\n{_limits(data)}",
        f"## Use\n\n{_use(adapter)}",
    ]
    return f"---\n{_front_matter(data, adapter)}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(data: Mapping[str, Any], adapter: bool) -> str:
    import yaml

    held: dict[str, Any] = {}
    method = data["run"]["method"]
    if base := data["run"].get("base_model"):
        held |= {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    held |= {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    held["tags"] = ["instil", "factual-knowledge", *([words.visible(str(method))] if method else [])]
    return yaml.safe_dump(held, sort_keys=False, allow_unicode=True)


def _title(data: Mapping[str, Any]) -> str:
    model, method = data["run"]["model"] or "A model", data["run"]["method"] or "an unnamed method"
    return f"{_plain(model)}, taught facts by {_plain(method)}"


def _taught(data: Mapping[str, Any]) -> str:
    scale, marks = data["scale"], data["reproduce"]["fingerprints"]
    lines = [
        f"- {words.plural(count, data.get('noun', 'fact'))} {_ROLES.get(role, 'of the role ' + _plain(role))}"
        for role, count in scale["facts"].items()
    ]
    if scale["documents"]:
        lines.append(f"- {words.plural(scale['documents'], 'document')} taught")
    lines.append(f"- fingerprint of the facts: `{_code(marks.get('Facts', 'not recorded'))}`")
    if data["left_out"]:
        lines.append(f"- left out, with a reason each in the report: {words.count(len(data['left_out']))}")
    return "\n".join([*lines, "", "The facts themselves are not part of this card."])


_ROLES = {"target": "taught", "held_back": "held back: asked before and after, never taught"}


def _how(data: Mapping[str, Any]) -> str:
    from instil.errors import InputError
    from instil.methods import get

    run = data["run"]
    try:
        said = f" ({get(str(run['method'])).summary})"
    except InputError:  # a ledger may be of a version that had other methods
        said = ""
    made = data["reproduce"]["run"]
    parts = [f"Method `{_code(run['method'])}`{said}, Instil {_plain(run['version'] or 'of unknown version')}."]
    if stages := data["curves"]["stages"]:
        parts.append(" ".join(_stage(stage) for stage in stages))
    parts.append(f"Seed: {_plain(made.get('Seed', 'not recorded'))}. Command and settings:")
    return "\n\n".join([*parts, _block(data["reproduce"]["command"]), _block(data["reproduce"]["config"], "json")])


def _stage(stage: Mapping[str, Any]) -> str:
    parts = [words.plural(stage["end"] - stage["start"], "step")]
    if stage["epochs"] is not None:
        parts.insert(0, f"{stage['epochs']:.3g} epochs")
    if stage["facts"] is not None:
        parts.insert(0, words.plural(stage["facts"], "fact"))
    return f"{_plain(stage['name'])}: {', '.join(parts)}."


def _outcome(data: Mapping[str, Any]) -> str:
    rows = [
        f"| figure | before | value | {percent(data['level'])} interval | n |",
        "|---|--:|--:|--:|--:|",
        *(_figure(row) for row in words.table_of_figures(data["figures"])),
    ]
    verdicts = data["verdicts"].get("target", ())
    said = ", ".join(f"{words.count(count)} {_plain(name)}" for name, count in verdicts)
    note = "The value is that after teaching where there is one before. n counts facts, questions or texts."
    return "\n".join([*rows, "", note, *(["", f"Verdicts on the taught facts: {said}."] if said else [])])


def _figure(row: Mapping[str, str]) -> str:
    meaning = "; ".join(_plain(text) for text in (row["meaning"], row["reason"]) if text)
    name = f"`{_code(row['name'])}`" + (f" {meaning}" if meaning else "")
    return f"| {name} | {row['before']} | {row['value']} | {row['interval']} | {row['n']} |"


def _cost(data: Mapping[str, Any]) -> str:
    cost = data["cost"]
    if not cost["rows"]:
        return "Not recorded."
    rows = [
        f"| {_plain(row['label'])} | {words.scaled(row['flops'], 'FLOP')} | {words.count(row['tokens'])} "
        f"| {words.duration(row['seconds'])} |"
        for row in cost["rows"]
    ]
    hardware = "; ".join(f"{_plain(name)}: {_plain(value)}" for name, value in data["reproduce"]["hardware"].items())
    head = ["| | operations | tokens | time |", "|---|--:|--:|--:|"]
    return "\n".join([words.cost(cost), "", *head, *rows, "", f"Hardware: {hardware or 'not recorded'}."])


def _limits(data: Mapping[str, Any]) -> str:
    lines = [
        f"- Measured at the scale above. {words.seeds(len(data['scale']['seeds']) or 1)}",
        "- *Known* means a right greedy answer for at least half of the sets of worked examples in the prompt, by "
        "exact match with a listed answer after normalisation. Other prompts may bring out more or less.",
        "- What is not in the table above was not measured. The base model's licence and limits hold here too; this "
        "card does not know them.",
        *(f"- {_plain(line)}" for line in data["warnings"]),
    ]
    return "\n".join(lines)


def _use(adapter: bool) -> str:
    if adapter:
        return "The folder holds an adapter: load it onto its base model with `peft`."
    code = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(".")"""
    return _block(code, "python")


def _block(text: object, language: str = "") -> str:
    """A fenced block whose fence is longer than any run of backticks in the text, so that nothing ends it early."""
    shown = words.visible_lines(str(text))
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def _plain(value: object) -> str:
    """Text that is neither markup nor HTML, on one line."""
    return _MARKS.sub(r"\\\1", html.escape(words.visible(str(value)), quote=False))


def _code(value: object) -> str:
    return words.visible(str(value)).replace("`", "'").replace("|", "\\|")
