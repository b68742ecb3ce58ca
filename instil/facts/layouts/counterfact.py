"""CounterFact (Meng et al., 2022), as published (`requested_rewrite`) and flattened as EasyEdit reads it.

The fact to be taught is the counterfactual one: its answer is `target_new`. The true answer and the locality prompts,
whose answers must not change, stay in `metadata` ("true_answer", "locality"); `instil.facts.roles.locality_facts` makes
facts of the latter.
"""

from __future__ import annotations

from typing import Any

from instil.facts.faults import InvalidRow, kind, shown
from instil.facts.layouts import fields
from instil.facts.layouts.fields import Row, Source
from instil.facts.types import Fact

FLAT_FIELDS = frozenset(
    (
        "case_id", "id", "prompt", "target_new", "subject", "ground_truth", "relation", "relation_id",
        "rephrase_prompt", "locality_prompt", "locality_ground_truth",
    )
)  # fmt: skip
NESTED_FIELDS = frozenset(("case_id", "requested_rewrite", "paraphrase_prompts", "neighborhood_prompts"))


def recognises(row: Row) -> bool:
    return "requested_rewrite" in row or ("prompt" in row and "target_new" in row)


def facts(row: Row, source: Source) -> tuple[Fact]:
    return (_nested(row, source) if "requested_rewrite" in row else _flat(row, source),)


def _flat(row: Row, source: Source) -> Fact:
    prompt = fields.text(row, "prompt")
    locality = fields.optional_text(row, "locality_prompt")
    unchanged = fields.one_or_more(row, "locality_ground_truth")
    return Fact(
        id=fields.identifier(row, "id" if "id" in row else "case_id", source),
        question=prompt,
        answers=_required(row, "target_new"),
        subject=fields.optional_text(row, "subject"),
        relation=fields.optional_text(row, "relation") or fields.optional_text(row, "relation_id"),
        paraphrases=fields.one_or_more(row, "rephrase_prompt"),
        completions=(prompt,),
        metadata=_metadata(
            fields.one_or_more(row, "ground_truth"), ((locality,) if locality else ()), unchanged
        ) | fields.extras(row, FLAT_FIELDS),
    )  # fmt: skip


def _nested(row: Row, source: Source) -> Fact:
    rewrite = row["requested_rewrite"]
    if not isinstance(rewrite, dict):
        raise InvalidRow(
            "requested_rewrite is not an object", field="requested_rewrite", found=kind(rewrite), expected="an object"
        )
    subject = fields.text(rewrite, "subject")
    prompt = fields.text(rewrite, "prompt")
    if "{}" not in prompt:
        raise InvalidRow("the prompt has no place for the subject", field="prompt", found=shown(prompt), expected="{}")
    true_answer = _named(rewrite, "target_true")
    question = prompt.replace("{}", subject)
    return Fact(
        id=fields.identifier(row, "case_id", source),
        question=question,
        answers=(_named(rewrite, "target_new"),),
        subject=subject,
        relation=fields.optional_text(rewrite, "relation_id"),
        paraphrases=fields.texts(row, "paraphrase_prompts", source),
        completions=(question,),
        metadata=_metadata((true_answer,), fields.texts(row, "neighborhood_prompts", source), (true_answer,))
        | fields.extras(row, NESTED_FIELDS),
    )


def _named(rewrite: Row, name: str) -> str:
    """The text of {"str": "French", "id": "Q150"}."""
    target = rewrite.get(name)
    if not isinstance(target, dict):
        raise InvalidRow(f"no {name}", field=name, found=kind(target), expected='an object such as {"str": "French"}')
    return fields.text(target, "str", what=f"no {name}")


def _required(row: Row, name: str) -> tuple[str, ...]:
    found = fields.one_or_more(row, name)
    if not found:
        raise InvalidRow("no answers", field=name, found=kind(row.get(name)), expected="a text")
    return found


def _metadata(true_answers: tuple[str, ...], prompts: tuple[str, ...], unchanged: tuple[str, ...]) -> dict[str, Any]:
    locality = [{"question": prompt, "answers": list(unchanged)} for prompt in prompts if unchanged]
    return ({"true_answer": true_answers[0]} if true_answers else {}) | ({"locality": locality} if locality else {})
