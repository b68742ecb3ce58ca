"""The page itself: data in the template, with style, scripts and fonts inside, in one file that asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.files import write_text
from instil.report import palette, words
from instil.report.data import report_data
from instil.report.machine import machine_readable
from instil.report.model_card import write_model_card

if TYPE_CHECKING:
    from jinja2 import Environment

    from instil.ledger import Ledger

_HERE = Path(__file__).parent
_SCRIPTS = ("echarts.min.js", "charts.js", "facts.js")


def build_report(
    folder: str | Path,
    *,
    summary: Mapping[str, Any] | None = None,
    ledger: Ledger | None = None,
    run_id: str | None = None,
) -> Path:
    """Write `report.html` of a run, atomically, from its ledger; beside it the same as `report.json`, and the card
    (`README.md`) of a model that stands in `model/`.

    Args:
        folder: the run's folder; the page is written here.
        summary: the content of the run's summary.json; else it is read from the ledger, or from the folder.
        ledger: if it is not in `folder/ledger`, nor where the summary says.
        run_id: the run to show; else the one of the summary, else the ledger's last.

    Returns:
        The path of the page.

    Raises:
        InputError: there is no ledger, it is damaged, it holds no run, or not the run asked for.
    """
    folder = Path(folder)
    data = report_data(folder, summary=summary, ledger=ledger, run_id=run_id)
    path = folder / "report.html"
    write_text(path, render(data))
    write_text(folder / "report.json", _as_line(machine_readable(data)))
    write_model_card(folder, data)
    return path


def render(data: dict[str, Any]) -> str:
    """The page of what `report_data` gives, as HTML."""
    scripts = [_asset(name) for name in _SCRIPTS]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            view=_view(data),
            words=words,
            policy=_policy(scripts),
            style=_style(),
            scripts=scripts,
            chart_data=_as_json(_for_charts(data)),
            facts=data["facts"]["packed"],
        )
        .lstrip()
    )


def _view(data: dict[str, Any]) -> dict[str, Any]:
    """Rows and sentences that the template needs beside the data."""
    return {
        "mastery_rows": [
            (f"{words.ROLE_WORDS.get(role, role)}, {moment}", moments[moment])
            for role, moments in data["mastery"].items()
            for moment in ("before", "after")
        ],
        "state_rows": [(row["label"], row["counts"]) for row in data["mastery_by_state"]],
        "kept": words.told_of(data["noun"], words.kept(data["figures"], dict(data["verdicts"].get("held_back", ())))),
        "cost": words.cost(data["cost"]),
        "figures": words.table_of_figures(data["figures"]),
        "seeds": words.seeds(len(data["scale"]["seeds"]) or 1),
        "curves": words.thinned([stage["mean_of"] for stage in data["curves"]["stages"]]),
    }


def _for_charts(data: dict[str, Any]) -> dict[str, Any]:
    """What the scripts need; everything else is already in the page's HTML."""
    names = ("mastery", "transition", "by_category", "curves", "mastery_by_state", "flow", "cost", "level")
    return {name: data[name] for name in names} | {
        "categories": [[name, words.CATEGORY_WORDS[name]] for name in words.CATEGORIES],
        "roles": words.ROLE_WORDS,
        "colours": palette.for_charts(),
    }


def _as_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def _as_json(value: Any) -> str:
    """JSON that is safe inside a script element and in any JavaScript parser."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(scripts: list[str]) -> str:
    """Only these scripts run, by their hashes; nothing is fetched, framed or sent.

    Styles may be inline since the charts write theirs that way; no style can fetch anything.
    """
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


@cache
def _asset(name: str) -> str:
    return (_HERE / "assets" / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    fonts = "".join(
        f'@font-face{{font-family:"{family}";font-weight:200 900;font-display:swap;'
        f"src:url(data:font/woff2;base64,{_font(file)}) format('woff2')}}\n"
        for family, file in (("Inter", "inter.woff2"), ("Source Serif", "source-serif.woff2"))
    )
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{palette.variables(True)}}}}}\n"
    return f"{fonts}:root{{color-scheme:light;{palette.variables(False)}}}\n{dark}{_asset('report.css')}"


def _font(file: str) -> str:
    return base64.b64encode((_HERE / "assets" / file).read_bytes()).decode("ascii")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda value: words.visible(str(value))
    environment.filters["lines"] = lambda value: words.visible_lines(str(value))
    environment.filters["g"] = lambda value: f"{value:.3g}"
    for name in ("percent", "count", "plural", "scaled", "duration", "number", "interval"):
        environment.filters[name] = getattr(words, name)
    return environment
