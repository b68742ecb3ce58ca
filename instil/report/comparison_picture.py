"""The picture of a comparison as SVG, made here: acquisition against forgetting, and what every arm has spent.

Shapes and names tell the arms apart, not colours: arms on the Pareto front are filled, the others hollow. The picture
takes the page's colours where it stands in one, and brings its own, light and dark, where it stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from instil.files import write_text
from instil.report import palette
from instil.report.words import scaled

Summary = Mapping[str, Any]

WIDTH, HEIGHT = 760.0, 480.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 24.0, 24.0, 56.0
LETTER = 7.2
"""Width of a letter of a label, about, in the picture's units."""

PURPOSES = ("training", "deciding", "teacher")
HATCHES = {"training": "cost-training", "deciding": "cost-deciding", "teacher": "cost-teacher"}

_VARIABLES = ("ground", "ink", "soft", "line", "edge", "accent", "wash", "lost")


@dataclass(frozen=True)
class Picture:
    """An SVG that a notebook shows."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Write the picture, atomically."""
        write_text(path, self.svg)


@dataclass(frozen=True)
class _Scale:
    """From a value to a place."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if (self.high - self.low) / step <= 6.001)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def trade_off(summary: Summary, *, alone: bool = True) -> str:
    """Share of new facts learned (upwards) against share of known facts lost (to the right), every arm with its
    interval in both directions, its seeds as small points, and the Pareto front as a line.

    Args:
        summary: of a comparison.
        alone: the picture stands outside of a report, and brings its colours.
    """
    arms = [arm for arm in summary["arms"] if _placed(arm)]
    across, up = _scales(arms)
    parts = [_axes(across, up)]
    front = [arm for name in summary["pareto"] for arm in arms if arm["name"] == name]
    parts.append(_front(front, across, up))
    parts += [_crosshair(arm, across, up) for arm in arms]
    parts += [_seeds(arm, across, up) for arm in arms]
    shapes = {arm["name"]: place for place, arm in enumerate(summary["arms"])}
    on_front = {arm["name"] for arm in front}
    parts += [_marker(arm, shapes[arm["name"]], arm["name"] in on_front, across, up) for arm in arms]
    parts += _labels(arms, across, up)
    return _svg("".join(parts), WIDTH, HEIGHT, "Acquisition against forgetting", described(summary), alone)


def spending(summary: Summary, *, alone: bool = True) -> str:
    """What every arm has spent of the budget, by purpose: one bar an arm, a line at the budget."""
    arms = [arm for arm in summary["arms"] if arm["spent"] is not None]
    budget = summary["budget"]["flops"]
    widest = max([len(arm["name"]) for arm in arms], default=4)
    start = min(18 + LETTER * min(widest, 30), 240.0)
    most = max([budget, *(arm["spent"] for arm in arms)]) * 1.08
    scale, row = _Scale(0, most, start, WIDTH - 96), 30.0
    bottom = 30 + row * len(arms)
    parts = []
    for place, arm in enumerate(arms):
        y, x = 30 + row * place, start
        parts.append(f'<text x="{start - 10}" y="{y + 14}" class="label end">{_short(arm["name"])}</text>')
        for purpose in PURPOSES:
            flops = arm["cost"].get(purpose, {}).get("flops", 0.0)
            width = scale(flops) - start
            if width > 0:
                parts.append(f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="20" class="{HATCHES[purpose]}"/>')
            x += width
        share = f"{100 * arm['spent'] / budget:.0f} %"
        parts.append(f'<text x="{x + 8:.2f}" y="{y + 14}" class="small">{share}</text>')
    line = scale(budget)
    parts.append(f'<line x1="{line}" x2="{line}" y1="22" y2="{bottom}" class="budget"/>')
    parts.append(f'<text x="{line}" y="14" class="small middle">budget {scaled(budget, "FLOP")}</text>')
    told = "; ".join(f"{arm['name']}: {100 * arm['spent'] / budget:.0f} % of the budget" for arm in arms)
    return _svg("".join(parts), WIDTH, bottom + 8, "Compute spent, by purpose", told, alone)


def described(summary: Summary) -> str:
    """The picture in words, for those who do not see it."""
    lines = []
    for arm in summary["arms"]:
        if not _placed(arm):
            continue
        learned, lost = arm["figures"]["learned"], arm["figures"]["lost"]
        lines.append(
            f"{arm['name']}: learned {_percent(learned['value'])}{_between(learned)}, "
            f"lost {_percent(lost['value'])}{_between(lost)}"
        )
    front = f" On the Pareto front: {', '.join(summary['pareto'])}." if summary["pareto"] else ""
    return f"{'; '.join(lines)}.{front}" if lines else "No arm has figures in both directions."


def style() -> str:
    """The picture's rules; colours are the page's variables, with the light ones to fall back on."""
    colour = {name: f"var(--{name},{palette.SURFACE[name][0]})" for name in _VARIABLES}
    return (
        ".picture{width:100%;height:auto;max-width:60rem;display:block;font-family:Inter,system-ui,sans-serif}"
        f".picture text{{fill:{colour['ink']};font-size:13px;font-variant-numeric:tabular-nums}}"
        f".picture .small{{fill:{colour['soft']};font-size:12px}}.picture .label{{font-weight:600}}"
        ".picture .middle{text-anchor:middle}.picture .end{text-anchor:end}"
        f".picture .grid{{stroke:{colour['line']};stroke-width:1}}"
        f".picture .axis{{stroke:{colour['edge']};stroke-width:1}}"
        f".picture .front{{fill:none;stroke:{colour['accent']};stroke-width:1.5;stroke-dasharray:5 4}}"
        f".picture .whisker{{stroke:{colour['edge']};stroke-width:1.5}}"
        f".picture .seed{{fill:{colour['edge']}}}"
        f".picture .marker{{fill:{colour['ground']};stroke:{colour['ink']};stroke-width:2}}"
        f".picture .marker.best{{fill:{colour['accent']};stroke:{colour['accent']}}}"
        f".picture .leader{{stroke:{colour['edge']};stroke-width:.75}}"
        f".picture .halo{{stroke:{colour['ground']};stroke-width:4;paint-order:stroke;stroke-linejoin:round}}"
        f".picture .budget{{stroke:{colour['ink']};stroke-width:1.5;stroke-dasharray:3 3}}"
        f".cost-training{{fill:{colour['accent']}}}.cost-deciding{{fill:{colour['edge']}}}"
        f".cost-teacher{{fill:{colour['wash']};stroke:{colour['edge']};stroke-width:1}}"
    )


# -------------------------------------------------------------------- private


def _svg(content: str, width: float, height: float, title: str, told: str, alone: bool) -> str:
    own = ""
    if alone:
        dark = "".join(f"--{name}:{palette.SURFACE[name][1]};" for name in _VARIABLES)
        light = "".join(f"--{name}:{palette.SURFACE[name][0]};" for name in _VARIABLES)
        own = (
            f"<style>svg.picture{{{light}background:var(--ground)}}"
            f"@media (prefers-color-scheme:dark){{svg.picture{{{dark}}}}}{style()}</style>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(f"{title}. {told}", quote=True)}"><title>{escape(title)}</title>{own}{content}</svg>'
    )


def _placed(arm: Mapping[str, Any]) -> bool:
    figures = arm["figures"]
    return bool(figures) and None not in (figures["learned"]["value"], figures["lost"]["value"])


def _ends(figure: Mapping[str, Any]) -> tuple[float, float]:
    value = figure["value"]
    return (value if figure["low"] is None else figure["low"], value if figure["high"] is None else figure["high"])


def _scales(arms: Sequence[Mapping[str, Any]]) -> tuple[_Scale, _Scale]:
    def reach(measure: str) -> tuple[float, float]:
        ends = [end for arm in arms for end in _ends(arm["figures"][measure])]
        ends += [run[measure] for arm in arms for run in arm["runs"] if run[measure] is not None]
        low, high = min(ends, default=0.0), max(ends, default=1.0)
        low = 0.0 if low < 0.25 else math.floor(20 * low) / 20
        return low, min(1.0, max(math.ceil(20 * high + 0.2) / 20, low + 0.05))

    return _Scale(*reach("lost"), LEFT, WIDTH - RIGHT), _Scale(*reach("learned"), HEIGHT - BOTTOM, TOP)


def _axes(across: _Scale, up: _Scale) -> str:
    parts = []
    for tick in up.ticks():
        y = up(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" class="small end">{100 * tick:.0f} %</text>')
    for tick in across.ticks():
        x = across(tick)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" class="small middle">{100 * tick:.0f} %</text>')
    base = HEIGHT - BOTTOM
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}" class="axis"/>')
    parts.append(f'<line x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{base}" class="axis"/>')
    middle, half = (LEFT + WIDTH - RIGHT) / 2, (TOP + base) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" class="middle">known facts lost (left is better)</text>')
    parts.append(
        f'<text x="14" y="{half}" class="middle" transform="rotate(-90 14 {half})">'
        "new facts learned (up is better)</text>"
    )
    return "".join(parts)


def _front(front: Sequence[Mapping[str, Any]], across: _Scale, up: _Scale) -> str:
    """Steps, since between two arms nothing was measured: what loses more and learns less than one is beaten."""
    if not front:
        return ""
    points = [(across(arm["figures"]["lost"]["value"]), up(arm["figures"]["learned"]["value"])) for arm in front]
    path = f"M{points[0][0]} {up(up.low)}V{points[0][1]}"
    for x, y in points[1:]:
        path += f"H{x}V{y}"
    return f'<path d="{path}H{across(across.high)}" class="front"/>'


def _crosshair(arm: Mapping[str, Any], across: _Scale, up: _Scale) -> str:
    learned, lost = arm["figures"]["learned"], arm["figures"]["lost"]
    x, y = across(lost["value"]), up(learned["value"])
    (left, right), (low, high) = map(across, _ends(lost)), map(up, _ends(learned))
    return (
        f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" class="whisker"/>'
        f'<line x1="{x}" x2="{x}" y1="{low}" y2="{high}" class="whisker"/>'
    )


def _seeds(arm: Mapping[str, Any], across: _Scale, up: _Scale) -> str:
    if len(arm["runs"]) < 2:
        return ""
    return "".join(
        f'<circle cx="{across(run["lost"])}" cy="{up(run["learned"])}" r="2.5" class="seed"/>'
        for run in arm["runs"]
        if run["lost"] is not None and run["learned"] is not None
    )


def _marker(arm: Mapping[str, Any], shape: int, best: bool, across: _Scale, up: _Scale) -> str:
    x, y = across(arm["figures"]["lost"]["value"]), up(arm["figures"]["learned"]["value"])
    kind = f'class="marker{" best" if best else ""}"'
    title = f"<title>{escape(arm['name'])}</title>"
    if shape % 4 == 0:
        return f'<circle cx="{x}" cy="{y}" r="7" {kind}>{title}</circle>'
    corners = {
        1: ((-6, -6), (6, -6), (6, 6), (-6, 6)),
        2: ((0, -8), (8, 6), (-8, 6)),
        3: ((0, -9), (9, 0), (0, 9), (-9, 0)),
    }[shape % 4]
    points = " ".join(f"{x + dx:g},{y + dy:g}" for dx, dy in corners)
    return f'<polygon points="{points}" {kind}>{title}</polygon>'


def _labels(arms: Sequence[Mapping[str, Any]], across: _Scale, up: _Scale) -> list[str]:
    """Names beside their markers, moved up or down until none covers another; a thin line leads back."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for arm in sorted(arms, key=lambda arm: -arm["figures"]["learned"]["value"]):
        x, y = across(arm["figures"]["lost"]["value"]), up(arm["figures"]["learned"]["value"])
        name = _short(arm["name"])
        width = LETTER * min(len(arm["name"]), 30)
        left = x + 14 if x + 14 + width < WIDTH else x - 14 - width
        steps = [0, *(sign * 16 * step for step in range(1, 20) for sign in (-1, 1))]
        free = (y - 8 + step for step in steps if TOP < y - 8 + step < HEIGHT - BOTTOM)
        place = next((at for at in free if _is_free(left, at, width, taken)), y - 8)
        taken.append((left, place, width))
        if abs(place - (y - 8)) > 1:
            near = left - 3 if left > x else left + width + 3
            parts.append(f'<line x1="{x}" y1="{y}" x2="{near:.2f}" y2="{place - 4:.2f}" class="leader"/>')
        parts.append(f'<text x="{left:.2f}" y="{place:.2f}" class="label halo">{name}</text>')
    return parts


def _is_free(left: float, y: float, width: float, taken: Sequence[tuple[float, float, float]]) -> bool:
    return all(abs(y - other) >= 15 or left > start + reach or left + width < start for start, other, reach in taken)


def _short(name: str) -> str:
    return escape(name if len(name) <= 30 else f"{name[:29]}…")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _between(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f" ({_percent(figure['low'])} to {_percent(figure['high'])})"
