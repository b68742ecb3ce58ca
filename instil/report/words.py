"""What the page says: names of things, numbers as text, and the sentences of the headline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

Figures = Mapping[str, Mapping[str, Any]]

FOREIGN = "these texts are foreign to this model: it says nothing of what was lost"
"""The reason that stands with a perplexity worse than that of guessing."""

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
CATEGORY_WORDS = {
    "HighlyKnown": "Highly known",
    "MaybeKnown": "Maybe known",
    "WeaklyKnown": "Weakly known",
    "Unknown": "Unknown",
}
CATEGORY_MEANING = {
    "HighlyKnown": "right with every set of worked examples in the prompt",
    "MaybeKnown": "right with some sets, not with all",
    "WeaklyKnown": "never the first answer, but a sampled answer is likely to be right at least once",
    "Unknown": "neither",
}
ROLE_WORDS = {
    "target": "Taught",
    "held_back": "Held back",
    "development": "Development",
    "known": "Replayed",
    "practice": "Practice",
    "exemplar": "Exemplar",
    "earlier": "Earlier lessons",
}
VERDICTS = ("learned", "learned as worded", "updated", "kept", "still unknown", "forgotten", "corrupted")
VERDICT_MEANING = {
    "learned": "not known before; known now, also in wordings never trained on",
    "learned as worded": "not known before; known now only in the wording that was taught",
    "updated": "the model's old answer was replaced by the taught one",
    "kept": "known before and known now",
    "still unknown": "not known before, not known now",
    "forgotten": "known before, not known now",
    "corrupted": "known before; now answered with another fact's answer",
}
PURPOSE_WORDS = {
    "training": "Training",
    "deciding": "Probes the method decided by",
    "teacher": "Teacher passes",
    "exam": "Exam, before and after",
}
FREE_PURPOSES = frozenset({"exam"})  # every method sits the same exam, so no budget pays for it

THIN = "\u202f"  # narrow no-break space between a number and its unit


def count(number: float) -> str:
    """12345 as "12,345"."""
    return f"{number:,.0f}"


def percent(share: float) -> str:
    """A share as a percentage: whole points, one decimal where whole points would round to an untrue 0 or 100."""
    points = 100 * share
    hidden = 0 < points < 0.5 or 99.5 <= points < 100
    return f"{points:.1f}{THIN}%" if hidden else f"{points:.0f}{THIN}%"


def interval(low: float, high: float, *, share: bool = True) -> str:
    """The two ends of an interval, the unit written once."""
    if not share:
        return f"{number(low)} to {number(high)}"
    ends = [percent(end).removesuffix(f"{THIN}%") for end in (low, high)]
    return f"{ends[0]} to {ends[1]}{THIN}%"


def number(value: float) -> str:
    """Three significant digits, without an exponent for everyday sizes."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "not finite"
    if abs(value) >= 1000:
        return count(value)
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def scaled(value: float, unit: str = "") -> str:
    """A large number with an SI prefix: 1.83e14 FLOP as "183 TFLOP"."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{number(value / size)}{THIN}{prefix}{unit}"
    return f"{number(value)}{THIN}{unit}".rstrip(THIN)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{number(seconds)}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}{THIN}h"] if hours else []
    parts += [f"{minutes}{THIN}min"] if minutes else []
    parts += [f"{rest}{THIN}s"] if rest and not hours else []
    return " ".join(parts)


def parameters(number_of: float) -> str:
    """6,900,000 as "6.9 million parameters"."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number_of >= size:
            return f"{number_of / size:.3g} {word} parameters"
    return f"{count(number_of)} parameters"


def plural(number_of: int, noun: str) -> str:
    return f"{count(number_of)} {noun}" + ("" if number_of == 1 else "s")


def joined(parts: Sequence[str]) -> str:
    """a · a and b · a, b and c"""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def visible(text: str) -> str:
    """Line ends as ↵, tabs as ⇥, other control characters as \\x1b, so that all that a fact holds is seen.

    Direction marks are kept, since honest text needs them; the page isolates every fact with <bdi>.
    """
    return text.translate(_SEEN)


_SEEN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x09: "⇥",
    0x0A: "↵",
    0x2028: "↵",
    0x2029: "↵",
}


def shortened(text: str, limit: int) -> str:
    """Text of at most `limit` characters, and a note of its full length where it was longer."""
    return text if len(text) <= limit else f"{text[:limit]}… [{count(len(text))} characters; all of them in the ledger]"


def change(figure: Mapping[str, Any]) -> str | None:
    """Whether a figure moved from before to after: "higher", "lower", "no difference", or None where nothing is known.

    With an interval of the difference, zero inside it is no difference. Without one, the interval of the later value
    must leave out the earlier value, which is what can be said from one interval alone.
    """
    before, after = figure.get("before"), figure.get("after", figure.get("value"))
    if before is None or after is None:
        return None
    difference = figure.get("difference")
    if isinstance(difference, Mapping) and difference.get("low") is not None and difference.get("high") is not None:
        low, high = before + difference["low"], before + difference["high"]
    elif figure.get("low") is not None and figure.get("high") is not None:
        low, high = figure["low"], figure["high"]
    else:
        return None
    if low <= before <= high:
        return "no difference"
    return "higher" if after > before else "lower"


CLOZE_ITEM = "cloze item"
CLOZE_MEANING = (
    "A cloze item is a sentence of a document, cut right before a date, a name, a number or a telling word that is to "
    "be given; in other words, the same is asked about the whole sentence. What is called a fact here is such an item."
)


def told_of(noun: str, text: str) -> str:
    """A sentence about facts as one about what stands in their place: cloze items, after documents alone."""
    return text if noun == "fact" else re.sub(r"\bfact(s?)\b", rf"{noun}\1", text)


def sentence(verdicts: Mapping[str, int], figures: Figures, cloze: Mapping[str, Any] | None = None) -> str:
    """The headline in one sentence, from the verdicts of the taught facts and the figure of retention.

    Args:
        cloze: of a lesson of documents alone, how many of them there were (`data.cloze` of a summary).
    """
    taught = sum(verdicts.values())
    if not taught:
        return "Nothing was taught, so there is nothing to report yet."
    clauses = [clause for clause in (_learned(verdicts, taught), _kept_besides(figures)) if clause]
    if cloze is None:
        return f"Taught {plural(taught, 'fact')}: {', and '.join(clauses)}."
    texts = plural(int(cloze["taught"]), "passage" if cloze.get("passages") else "document")
    outcome = told_of(CLOZE_ITEM, ", and ".join(clauses))
    return f"Taught {texts}, asked in {plural(taught, CLOZE_ITEM)} of their text: {outcome}."


def _learned(verdicts: Mapping[str, int], taught: int) -> str:
    new = taught - sum(verdicts.get(name, 0) for name in ("kept", "forgotten", "corrupted"))
    learned = sum(verdicts.get(name, 0) for name in ("learned", "learned as worded", "updated"))
    if not new:
        return "the model knew every one of them before"
    return f"the model learned {count(learned) if learned else 'none'} of the {count(new)} that it did not know"


def _kept_besides(figures: Figures) -> str:
    retained = figures.get("retained")
    if not retained or retained.get("value") is None or not retained.get("n"):
        return ""
    return f"kept {percent(retained['value'])} of the other facts that it knew"


def details(verdicts: Mapping[str, int], figures: Figures) -> list[str]:
    """The sentences below the headline: what the headline's numbers hide."""
    lines = []
    if as_worded := verdicts.get("learned as worded", 0):
        verb = "is" if as_worded == 1 else "are"
        lines.append(f"{count(as_worded)} of those {verb} known only in the wording that was taught.")
    if lost := verdicts.get("forgotten", 0) + verdicts.get("corrupted", 0):
        lines.append(f"{plural(lost, 'taught fact')} that the model knew before {'was' if lost == 1 else 'were'} lost.")
    made_up = figures.get("made_up")
    if made_up and made_up.get("value") is not None:
        lines.append(_made_up(made_up))
    if text := _perplexity(figures.get("perplexity") or {}):
        lines.append(text)
    return lines


def _made_up(figure: Mapping[str, Any]) -> str:
    share, before = percent(figure["value"]), percent(figure.get("before") or 0)
    text = f"Of the facts that it neither knew nor was taught, it answers {share} wrongly and with confidence"
    moved = {
        "no difference": ": no difference from before",
        "higher": f", up from {before}",
        "lower": f", down from {before}",
    }
    return f"{text}{moved.get(change(figure) or '', '')}."


def _perplexity(figure: Mapping[str, Any]) -> str:
    if figure.get("before") is None or figure.get("after") is None or figure.get("reason") == FOREIGN:
        return ""
    before, after = number(figure["before"]), number(figure["after"])
    moved = {"higher": "rose", "lower": "fell", None: "went"}
    verdict = change(figure)
    if verdict == "no difference":
        return f"Perplexity on general text shows no difference ({before} before, {after} after)."
    return f"Perplexity on general text {moved[verdict]} from {before} to {after}."


@cache
def _meanings() -> Mapping[str, str]:
    from instil.exam.figures import DOCUMENT_FIGURES, FIGURES

    return {**FIGURES, **DOCUMENT_FIGURES}


def figure_meaning(name: str) -> str | None:
    """What a figure of the exam measures. A figure that stands for a pair means what the pair's first means."""
    meanings = _meanings()
    return meanings.get(name) or (meanings.get(f"{name}_before") or "").removesuffix(", before") or None


def table_of_figures(figures: Figures) -> list[dict[str, Any]]:
    """Every figure as a row of text, in the exam's order; the two sides of a pair are one row, as the pair.

    Returns:
        [{"name", "meaning", "before", "value", "interval", "n", "reason"}], "" where there is nothing to say.
    """
    pairs = {f"{name}{side}": name for name in figures for side in ("_before", "_after")}
    order = dict.fromkeys(pairs.get(name, name) for name in figures)
    return [_row_of(name, figures[name]) for name in order]


def _row_of(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    low, high, before = (figure.get(key) for key in ("low", "high", "before"))
    compares = name.endswith(("_change", "_ratio"))  # its value is not what came after `before`, but the step from it
    return {
        "name": name,
        "meaning": figure_meaning(name) or "",
        "before": "" if before is None or compares else decimals(before),
        "value": "not measured" if figure.get("value") is None else decimals(figure["value"]),
        "interval": "" if low is None or high is None else f"{decimals(low)} to {decimals(high)}",
        "n": "" if figure.get("n") is None else count(figure["n"]),
        "reason": figure.get("reason") or "",
    }


def decimals(value: float) -> str:
    """Three decimals, as tables have them; larger values with three significant digits."""
    return f"{value:.3f}".replace("-0.000", "0.000") if abs(value) < 10 else number(value)


def scale(model: Mapping[str, Any], roles: Mapping[str, int], seeds: int) -> str:
    """The size at which everything on the page was measured, which is the size that it speaks for."""
    parts = [str(model.get("name") or "a model")]
    if model.get("parameters"):
        parts.append(parameters(model["parameters"]))
    facts = [f"{plural(roles[role], 'fact')} {word}" for role, word in _SCALE_ROLES if roles.get(role)]
    parts.append(joined(facts) if facts else "no facts")
    parts.append("one seed" if seeds == 1 else plural(seeds, "seed"))
    return ", ".join(parts)


def seeds(number_of: int) -> str:
    """What the intervals say nothing about."""
    if number_of == 1:
        return (
            "One seed is one seed: the intervals cover the choice of facts, not what another order of training or "
            "another draw of roles would give."
        )
    return f"The intervals cover the choice of facts and {count(number_of)} seeds."


_SCALE_ROLES = (("target", "taught"), ("held_back", "held back"), ("earlier", "of earlier lessons"))


def visible_lines(text: str) -> str:
    """As `visible`, with the line breaks left as they are."""
    return "\n".join(visible(line) for line in text.split("\n"))


def kept(figures: Figures, verdicts: Mapping[str, int]) -> str:
    """What became of the facts that were never taught."""
    held_back = sum(verdicts.values())
    text = (
        f"{plural(held_back, 'fact')} of the same kinds {'was' if held_back == 1 else 'were'} asked and never taught."
    )
    retained = figures.get("retained")
    if retained and retained.get("value") is not None and retained.get("n"):
        text += f" Of the {count(retained['n'])} known before, {percent(retained['value'])} are still known"
        if retained.get("low") is not None and retained.get("high") is not None:
            text += f" (interval {interval(retained['low'], retained['high'])})"
        text += "."
    if (made_up := figures.get("made_up")) and made_up.get("value") is not None:
        text += f" {_made_up(made_up)}"
    return f"{text} {_perplexity(figures.get('perplexity') or {})}".rstrip()


def cost(cost: Mapping[str, Any]) -> str:
    """The cost in one sentence: what a budget pays for, and what the exam adds."""
    charged, total = cost["charged"], cost["total"]
    text = f"The method spent {scaled(charged['flops'], 'FLOP')} in {duration(charged['seconds'])}"
    if total["flops"] > charged["flops"]:
        text += (
            f"; with the exam, which every method sits alike and no budget pays for, {scaled(total['flops'], 'FLOP')}"
        )
    return text + "."


def thinned(mean_of: Sequence[int]) -> str:
    """What a point of a learning curve stands for, where it stands for more than one step."""
    most = max(mean_of, default=1)
    return f"Each point is the mean of up to {count(most)} recorded steps." if most > 1 else ""
