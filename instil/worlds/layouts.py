"""The layouts and markup of real text, put around sentences whose content stays untouched."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Layout = Callable[[Sequence[str], str, random.Random], str]


def plain(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return " ".join(sentences)


def lines(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return "\n".join(sentences)


def bullets(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    mark = rng.choice("-*•+")
    return "\n".join(f"{mark} {text}" for text in sentences)


def numbered(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    mark = rng.choice((".", ")"))
    return "\n".join(f"{number}{mark} {text}" for number, text in enumerate(sentences, start=1))


def markdown(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return f"{'#' * rng.randint(1, 3)} {title}\n\n" + " ".join(sentences)


def bold(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return f"**{title}**\n" + "\n".join(f"*{text}*" if rng.random() < 0.3 else text for text in sentences)


def html_paragraph(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return f"<h2>{title}</h2>\n<p>{' '.join(sentences)}</p>"


def html_list(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return "<ul>\n" + "\n".join(f"<li>{text}</li>" for text in sentences) + "\n</ul>"


def quote(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return "\n".join(f"> {text}" for text in sentences)


def quotation(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return f'"{" ".join(sentences)}"'


def indented(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    space = " " * rng.choice((2, 4, 8))
    return "\n".join(space + text for text in sentences)


def spaced(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return ("\n" * rng.randint(2, 3)).join(sentences)


def separated(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    bar = rng.choice(("---", "***", "===", "* * *", "~~~"))
    return f"\n{bar}\n".join(sentences)


def comments(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    mark = rng.choice(("#", "//", "--", ";"))
    return "\n".join(f"{mark} {text}" for text in sentences)


def dialogue(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    first, second = rng.sample(("Anna", "Ben", "Host", "Guest", "Teacher", "Pupil", "Editor"), 2)
    return "\n".join(f"{(first, second)[number % 2]}: {text}" for number, text in enumerate(sentences))


def titled(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return f"{title}\n\n" + " ".join(sentences)


def double_spaces(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return "  ".join(sentences)


def table(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return f"| {title} |\n|---|\n" + "\n".join(f"| {text} |" for text in sentences)


def json_like(sentences: Sequence[str], title: str, rng: random.Random) -> str:
    return '{"title": "' + title + '", "text": "' + " ".join(sentences) + '"}'


LAYOUTS: tuple[Layout, ...] = (
    lines, bullets, numbered, markdown, bold, html_paragraph, html_list, quote, quotation, indented, spaced, separated,
    comments, dialogue, titled, double_spaces, table, json_like,
)  # fmt: skip


def laid_out(sentences: Sequence[str], title: str, rng: random.Random, share: float) -> str:
    """The sentences as running text, or, for a `share` of the calls, in one of the layouts."""
    layout = rng.choice(LAYOUTS) if rng.random() < share else plain
    return layout(sentences, title, rng)
