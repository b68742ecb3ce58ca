"""The colours of the page, once, for the style sheet and for the charts, on light and on dark ground.

The four categories of mastery run in one direction of lightness (dark to pale on light ground, bright to dim on dark
ground), from blue over amber to grey, so that they stay apart for every kind of colour vision and in grey print:
`tests/test_report.py` measures the distances under simulated protanopia, deuteranopia and tritanopia.
"""

from __future__ import annotations

CATEGORY_COLOURS: dict[str, tuple[str, str]] = {  # category: (light, dark)
    "HighlyKnown": ("#16449a", "#a9ccff"),
    "MaybeKnown": ("#5795dd", "#5a9af0"),
    "WeaklyKnown": ("#edae4e", "#996718"),
    "Unknown": ("#e2e5ea", "#3d4550"),
}

SURFACE: dict[str, tuple[str, str]] = {
    "ground": ("#ffffff", "#0e1217"),
    "raised": ("#f6f7f9", "#161b22"),
    "line": ("#dfe3e8", "#2a313b"),
    "edge": ("#868e99", "#78828f"),  # outlines that must be seen: 3:1 on ground and raised
    "ink": ("#12161c", "#eef1f5"),
    "soft": ("#525b67", "#a6b0bd"),  # secondary text: 4.5:1 on ground and raised
    "accent": ("#16449a", "#a9ccff"),
    "on-accent": ("#ffffff", "#0e1217"),
    "wash": ("#eaf0fb", "#18243a"),
    "lost": ("#b3320e", "#ff9d7c"),
    "lost-wash": ("#fdeee9", "#3a1d14"),
}


def variables(dark: bool) -> str:
    """The declarations of every colour as CSS custom properties."""
    named = SURFACE | {f"category-{name}": pair for name, pair in CATEGORY_COLOURS.items()}
    return "".join(f"--{name}:{pair[dark]};" for name, pair in named.items())


def for_charts() -> dict[str, dict[str, str]]:
    """The same colours for the chart script: {"light": {name: hex}, "dark": {name: hex}}."""
    named = SURFACE | CATEGORY_COLOURS
    return {theme: {name: pair[dark] for name, pair in named.items()} for dark, theme in enumerate(("light", "dark"))}
