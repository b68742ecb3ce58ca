"""zsRE (Levy et al., 2017) as the editors MEND, ROME and EasyEdit pass it on: `subject`, `src`, `answers`, `alt`, …

The fact to be taught is the true one, `answers`; only where a copy has none is it `alt`, the edit that MEND asks for.
`pred` is what some earlier model said and teaches nothing. `loc` and `loc_ans` stay in `metadata` as "locality".
"""

from __future__ import annotations

from instil.facts.layouts import fields
from instil.facts.layouts.fields import Row, Source
from instil.facts.types import Fact

FIELDS = frozenset(
    ("id", "case_id", "subject", "relation", "src", "answers", "rephrase", "loc", "loc_ans", "paraphrases")
)
_LOCALITY_MARK = "nq question: "


def recognises(row: Row) -> bool:
    return "src" in row and ("answers" in row or "alt" in row)


def facts(row: Row, source: Source) -> tuple[Fact]:
    answers = fields.texts(row, "answers", source) if not isinstance(row.get("answers"), str) else ()
    wordings = (*fields.one_or_more(row, "rephrase"), *fields.texts(row, "paraphrases", source))
    answers = answers or fields.one_or_more(row, "answers") or fields.one_or_more(row, "alt")
    return (
        Fact(
            id=fields.identifier(row, "id" if "id" in row else "case_id", source),
            question=fields.text(row, "src", what="no question"),
            answers=fields.answers({"answers": answers}, "answers", source),
            subject=fields.optional_text(row, "subject"),
            relation=fields.optional_text(row, "relation"),
            paraphrases=fields.unique(wordings),
            metadata=_locality(row) | fields.extras(row, FIELDS),
        ),
    )


def _locality(row: Row) -> dict[str, object]:
    question = fields.optional_text(row, "loc")
    answers = fields.one_or_more(row, "loc_ans")
    if question is None or not answers:
        return {}
    asked = question.removeprefix(_LOCALITY_MARK).strip()
    return {"locality": [{"question": asked[:1].upper() + asked[1:], "answers": list(answers)}]}
