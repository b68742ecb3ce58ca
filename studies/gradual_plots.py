"""The plots of the page on gradual learning, as SVG by hand: forgetting against acquisition, the flow of mastery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from studies.gradual_figures import LETTERS

Arms = Mapping[str, Mapping[str, Any]]
"""Figures by arm."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6bb1")
"""Of lines (Okabe and Ito's, which the colour-blind can tell apart, and one more)."""

SHADES = {"H": "#1b7837", "M": "#7fbf7b", "W": "#fdb863", "U": "#b2abd2"}
NAMES = {"H": "HighlyKnown", "M": "MaybeKnown", "W": "WeaklyKnown", "U": "Unknown"}
GREY, PALE, INK = "#bbb", "#ddd", "#444"
FONT = 'font-family="sans-serif" font-size="11"'
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)


def drawing(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """A whole SVG on white, with a title for those who cannot see it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, anchor: str = "start", fill: str = INK, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" {FONT}{more}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{more}/>'


# ---------------------------------------------------- forgetting against acquisition


def tradeoff(base: str, arms: Arms, best: float, shown: Sequence[str]) -> str:
    """Points lost on known facts against the share acquired, an arm a line from the base as it was to its last epoch.

    Args:
        base: its name.
        arms: figures by arm, of which `curve` and `readings` are drawn.
        best: the final acquisition of the arm that acquires most.
        shown: arms with a colour and a name, at most as many as `COLOURS`; the others are grey.

    Raises:
        ValueError: more arms are to be shown than there are colours.
    """
    if len(shown) > len(COLOURS):
        raise ValueError(f"{len(shown)} arms for {len(COLOURS)} colours")
    width, height, left, right, top, bottom = 760.0, 400.0, 56.0, 200.0, 34.0, 44.0
    points = [point for arm in arms.values() for point in arm["curve"]]
    far: float = max([*(point["acquired"] for point in points), best]) * 1.04
    read = [read["value"] for name in shown for read in arms[name]["readings"].values()]
    losses = [*(point["lost"] for point in points), *(one for one in read if one is not None)]
    low: float = min(0.0, *losses)
    high: float = max(0.01, *losses) * 1.06

    def x(acquired: float) -> float:
        return left + acquired / far * (width - left - right)

    def y(lost: float) -> float:
        return top + (high - lost) / (high - low) * (height - top - bottom)

    def path(arm: Mapping[str, Any], stroke: str, wide: float) -> str:
        dots = " ".join(f"{x(point['acquired']):.1f},{y(point['lost']):.1f}" for point in arm["curve"])
        return (
            f'<polyline points="{dots}" fill="none" stroke="{stroke}" stroke-width="{wide}" stroke-linejoin="round"/>'
        )

    drawn = [
        text(left, 18, f"{base}: points lost on known facts, against taught facts acquired", more=' font-weight="bold"')
    ]
    for tick in ticks(low, high):
        drawn.append(line(left, y(tick), width - right, y(tick), PALE))
        drawn.append(text(left - 6, y(tick) + 4, f"{100 * tick:.0f}", "end"))
    for tick in ticks(0, far):
        drawn.append(text(x(tick), height - bottom + 16, f"{100 * tick:.0f} %", "middle"))
    drawn.append(
        text((left + width - right) / 2, height - 8, "acquired: right answers in wordings nobody trained on", "middle")
    )
    for share in next(iter(arms.values()))["readings"] if arms else ():
        place = x(float(share) * best)
        drawn.append(line(place, top, place, height - bottom, "#888", ' stroke-dasharray="3 3"'))
        drawn.append(text(place, top - 4, f"{100 * float(share):.0f} %", "middle", "#888"))
    drawn += [path(arm, GREY, 1) for name, arm in arms.items() if name not in shown]
    for name, colour in zip(shown, COLOURS, strict=False):
        drawn.append(path(arms[name], colour, 2))
        for share, read in arms[name]["readings"].items():
            if read["value"] is not None:
                here = f'cx="{x(float(share) * best):.1f}" cy="{y(read["value"]):.1f}"'
                full = colour if not read["missing"] else "white"
                drawn.append(f'<circle {here} r="4" fill="{full}" stroke="{colour}" stroke-width="1.5"/>')
    return drawing(
        width,
        height,
        f"{base}: forgetting against acquisition",
        [*drawn, *legend(shown, width - right + 14, top, bool(set(arms) - set(shown)))],
    )


def legend(shown: Sequence[str], x: float, top: float, others: bool) -> list[str]:
    rows = [*zip(shown, COLOURS, strict=False), *([("other arms", GREY)] if others else [])]
    drawn = []
    for number, (name, colour) in enumerate(rows):
        y = top + 12 + 17 * number
        drawn += [line(x, y - 4, x + 18, y - 4, colour, ' stroke-width="2"'), text(x + 24, y, name)]
    y = top + 30 + 17 * len(rows)
    notes = (
        "dashed: share of the best",
        "arm's final acquisition",
        "dots: read in all seeds",
        "open: not in all of them",
    )
    return drawn + [text(x, y + 14 * number, note, fill="#777") for number, note in enumerate(notes)]


def ticks(low: float, high: float) -> list[float]:
    """Round places for about five marks."""
    step = next((step for step in STEPS if (high - low) / step <= 6), 1.0)
    return [step * number for number in range(-int(-low // step), int(high // step) + 1)]


# --------------------------------------------------------------------- mastery flow


def mastery_flow(title: str, steps: Sequence[Mapping[str, Any]]) -> str:
    """Taught facts by category at each look at them, and between two looks where they went.

    Args:
        title: in words.
        steps: one after the other, each with `from`, `to`, `seeds` and `counts` (see `gradual_figures.flow`).

    Raises:
        ValueError: there are no steps, or no facts.
    """
    means = [scaled(step) for step in steps]
    total = max((sum(map(sum_of, table.values())) for table in means), default=0)
    if not total:
        raise ValueError("no facts to draw")
    width, left, top, tall, gap, bar = 150.0 + 210 * len(steps), 100.0, 46.0, 260.0, 6.0, 22.0
    scale = tall / total
    drawn = [text(16, 18, title, more=' font-weight="bold"')]
    for number, (step, table) in enumerate(zip(steps, means, strict=True)):
        start, end = left + 210 * number, left + 210 * (number + 1)
        drawn += ribbons(table, start + bar, end, top, scale, gap)
        came = {letter: sum(row[letter] for row in table.values()) for letter in LETTERS}
        went = {letter: sum_of(row) for letter, row in table.items()}
        for place, name, sizes in ((start, step["from"], went), (end, step["to"], came)):
            if place == start and number:
                continue
            drawn.append(text(place + bar / 2, top - 8, name, "middle"))
            drawn += stack(sizes, place, bar, top, scale, gap)
        if not number:
            drawn += [
                text(start - 8, top + middle * scale + gap * rank + 4, NAMES[letter], "end")
                for rank, (letter, middle) in enumerate(middles(went).items())
                if went[letter]
            ]
    return drawing(width, top + tall + 4 * gap + 16, title, drawn)


def scaled(step: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """A step's counts as means over its seeds."""
    return {one: {other: step["counts"][one][other] / step["seeds"] for other in LETTERS} for one in LETTERS}


def sum_of(row: Mapping[str, float]) -> float:
    return sum(row.values())


def middles(sizes: Mapping[str, float]) -> dict[str, float]:
    """Where the middle of each category lies in a stack, in facts."""
    found, above = {}, 0.0
    for letter in LETTERS:
        found[letter] = above + sizes[letter] / 2
        above += sizes[letter]
    return found


def stack(sizes: Mapping[str, float], x: float, bar: float, top: float, scale: float, gap: float) -> list[str]:
    """One look: a box a category, with its number of facts."""
    drawn = []
    for rank, (letter, middle) in enumerate(middles(sizes).items()):
        tall = sizes[letter] * scale
        y = top + middle * scale - tall / 2 + gap * rank
        drawn.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar:g}" height="{tall:.1f}" fill="{SHADES[letter]}"/>')
        if tall >= 10:
            ink = "white" if letter == "H" else INK
            drawn.append(
                text(x + bar / 2, y + tall / 2 + 4, f"{sizes[letter]:.0f}", "middle", ink, ' style="font-size:9px"')
            )
    return drawn


def ribbons(
    table: Mapping[str, Mapping[str, float]], start: float, end: float, top: float, scale: float, gap: float
) -> list[str]:
    """One band for each pair of categories that facts went between; its colour is that of where they came from."""
    went = {letter: sum_of(table[letter]) for letter in LETTERS}
    came = {letter: sum(row[letter] for row in table.values()) for letter in LETTERS}
    leaving = {letter: middle - went[letter] / 2 for letter, middle in middles(went).items()}
    arriving = {letter: middle - came[letter] / 2 for letter, middle in middles(came).items()}
    half, drawn = (start + end) / 2, []
    for rank, one in enumerate(LETTERS):
        for place, other in enumerate(LETTERS):
            if not (facts := table[one][other]):
                continue
            y1, y2, tall = (
                top + leaving[one] * scale + gap * rank,
                top + arriving[other] * scale + gap * place,
                facts * scale,
            )
            leaving[one] += facts
            arriving[other] += facts
            low1, low2 = y1 + tall, y2 + tall
            edge = f"M{start:.1f},{y1:.1f} C{half:.1f},{y1:.1f} {half:.1f},{y2:.1f} {end:.1f},{y2:.1f} "
            back = f"L{end:.1f},{low2:.1f} C{half:.1f},{low2:.1f} {half:.1f},{low1:.1f} {start:.1f},{low1:.1f} Z"
            moved = f"<title>{facts:.0f} facts from {NAMES[one]} to {NAMES[other]}</title>"
            drawn.append(f'<path d="{edge}{back}" fill="{SHADES[one]}" fill-opacity="0.45">{moved}</path>')
    return drawn
