"""Documents that are hard on formats: arbitrary Unicode, and text that is itself full of marks."""

from __future__ import annotations

from hypothesis import strategies as st

from instil.facts import Document

MARKS = "()[]{}<>&#*-_=~`|/\\\"'“”„«»•.:;!?…。0123456789"
SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028\u2029\u3000"
ODD = "\u0301\u0338\u200d\ufe0f\u202e\u2066\u2069\u200fßאبकิ漢🙂é\u00ad"
EDGES = (
    "",
    "   ",
    "word",
    "\u0301",
    "\u0338<",
    "> quoted\n> twice",
    "- a\n- b\n1. c\n\n# d",
    "<p>one</p> <br/> &amp; two",
    '"A." "B." \'C.\'',
    ". . . ! ? …",
    "A.\n\n\n\nB.\r\nC.\r\n\r\nD.",
    "\u202eright to left. \u2066isolated\u2069. العربية؟ نعم.",
    "Dr. A. B. Smith of No. 5 St. James St. died. He left. e.g. this.",
    "10\u00a0km and 20\u202fkm. Next.",
    "'''",
    "```\ncode()\n```",
)

hard_texts = st.one_of(
    st.text(max_size=120),
    st.text(alphabet=MARKS + SPACES + "aB", max_size=120),
    st.text(alphabet=SPACES + ODD + "aB.<", max_size=80),
    st.lists(st.sampled_from([*EDGES, " ", "\n", "\n\n"]), max_size=8).map("".join),
    st.lists(st.sampled_from(["He", "ran.", "Then", "(she)", "won!", "\n", "\n\n", "“Go.”"]), max_size=30).map(
        " ".join
    ),
)
"""Texts of which every kind of trouble is a part now and then."""


@st.composite
def hard_documents(draw: st.DrawFn) -> Document:
    text = draw(hard_texts)
    title = draw(st.one_of(st.none(), hard_texts, st.just("He ran."), st.just(text[:10])))
    return Document(draw(st.text(max_size=8)), text, title)


ADA = Document(
    "ada",
    "Ada Lovelace was born in London on 10 December 1815. She worked with Dr. Babbage.\n\n"
    "Her notes hold the first program. He called her an enchantress.",
    title="Ada Lovelace",
    subject="Ada Lovelace",
)
BEN = Document("ben", "Ben\n\nBen was born in Bonn. He sails.", title="Ben")
