"""How many facts that look known could be guesses: the answer comes without the subject, or stands in the prompt.

    python -m studies.guesses                        both splits, a few minutes on 2 cores
    python -m studies.guesses --facts 40 --out runs/guesses.json
    python -m studies.guesses --page                 docs/results/guesses.md from the JSON

It needs the public data (INSTIL_DATA) and the EntityQuestions base. The facts of the `target` split have no answer that
is more than 15 % of its relation's; those of `development` are as they come, so that a favourite answer shows. Mastery
maps are kept under --work and not made again.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import instil
from instil.answers import normalise
from instil.exam.statistics import paired_difference, share
from instil.facts import FactSet
from instil.files import write_json
from instil.loop.hardware import commit, hardware
from instil.probe import Category, Mastery, MasteryMap, ProbeConfig, any_of, categorise, probe
from studies.first_run import BASE

RESULTS = Path(__file__).parent / "results" / "guesses.json"
SPLITS = ("development", "target")
THRESHOLDS = (0.1, 0.25, 0.5, 0.75)
"""Of `p_prior`; the probe's own rule takes one half."""
SEEN_AS_KNOWN = (Category.HIGHLY_KNOWN, Category.MAYBE_KNOWN)
Rows = Sequence[Mastery]


def describe(facts: FactSet, mastery: MasteryMap) -> dict[str, Any]:
    """Everything about one split that the JSON holds."""
    guesses = mastery.guesses()
    relations = sorted({row.relation or "" for row in mastery})
    return {
        "facts": len(mastery),
        "subjects": len({facts.by_id[row.fact_id].cluster for row in mastery}),
        "with_prior": sum(row.p_prior is not None for row in mastery),
        "all": part(facts, list(mastery), guesses),
        "relations": {
            relation: part(facts, [row for row in mastery if (row.relation or "") == relation], guesses)
            for relation in relations
        },
        "without_guesses": {str(category): count for category, count in mastery.without_guesses().counts().items()},
        "by_threshold": {str(at): by_category(facts, mastery, mastery.guesses(at)) for at in THRESHOLDS},
        "gold": gold(facts, list(mastery)),
    }


def part(facts: FactSet, rows: Rows, guesses: frozenset[str]) -> dict[str, Any]:
    """One relation, or all: its favourite answer, its categories, and what of them could be guessed."""
    answer, count = favourite(rows)
    return {
        "facts": len(rows),
        "favourite": {"answer": answer, "share": count / len(rows)},
        "p_prior": sum(row.p_prior or 0.0 for row in rows) / len(rows),
        "categories": {
            str(category): {
                "facts": len(chosen := [row for row in rows if row.category is category]),
                "guesses": figure(facts, chosen, lambda row: row.fact_id in guesses),
                "favourite": figure(facts, chosen, lambda row: normalise(row.answer) == normalise(answer)),
                "gold_in_prompt": figure(facts, chosen, lambda row: row.gold_in_prompt),
            }
            for category in Category
        },
        "known": figure(facts, rows, lambda row: row.known),
        "known_without_guesses": figure(facts, rows, lambda row: row.known and row.fact_id not in guesses),
    }


def favourite(rows: Rows) -> tuple[str, int]:
    """The answer that most of these facts have; the first in the alphabet on a tie."""
    counts = Counter(row.answer for row in rows)
    return min(counts.items(), key=lambda item: (-item[1], item[0]))


def figure(facts: FactSet, rows: Iterable[Mastery], holds: Callable[[Mastery], bool]) -> dict[str, Any]:
    chosen = list(rows)
    return share([holds(row) for row in chosen], [facts.by_id[row.fact_id].cluster for row in chosen]).to_dict()


def by_category(facts: FactSet, mastery: MasteryMap, guesses: frozenset[str]) -> dict[str, Any]:
    return {
        str(category): figure(
            facts, (row for row in mastery if row.category is category), lambda row: row.fact_id in guesses
        )
        for category in Category
    }


def gold(facts: FactSet, rows: Rows) -> dict[str, Any]:
    """What an exemplar with the same answer does, and the categories by the prompts that have none.

    The same facts are compared with themselves: right greedy answers in prompts that show the answer, and in those that
    do not. Facts with both kinds of prompts only, so relations with many different answers count for less.
    """
    mixed = [row for row in rows if 0 < sum(row.gold_in_prompt_by_set) < len(row.gold_in_prompt_by_set)]
    clusters = [facts.by_id[row.fact_id].cluster for row in mixed]
    shown, hidden = ([right_in(row, gold=which) for row in mixed] for which in (True, False))
    again = [(row, apart) for row in rows if row.gold_in_prompt and (apart := category_without_gold(row)) is not None]
    return {
        "facts_with_both": len(mixed),
        "right_where_shown": share(shown, clusters).to_dict(),
        "right_where_not_shown": share(hidden, clusters).to_dict(),
        "difference": paired_difference(shown, hidden, clusters).to_dict(),
        "transition": [
            [sum(row.category is one and found is other for row, found in again) for other in Category]
            for one in Category
        ],
        "facts_in_transition": len(again),
        "gold_in_every_prompt": sum(all(row.gold_in_prompt_by_set) for row in rows),
    }


def right_in(row: Mastery, gold: bool) -> float:
    """Share of right greedy answers in the prompts that show the answer, or in those that do not."""
    pairs = zip(row.greedy_right_by_set, row.gold_in_prompt_by_set, strict=True)
    chosen = [right for right, shown in pairs if shown == gold]
    return sum(chosen) / len(chosen)


def category_without_gold(row: Mastery, samples: int = ProbeConfig().samples) -> Category | None:
    """The category by the prompts without the answer among their exemplars; None when there are none.

    Fewer prompts make both ends of the scale likelier: all right of seven is easier than all right of ten. So as many
    samples in all are reckoned with as before.
    """
    kept = [place for place, shown in enumerate(row.gold_in_prompt_by_set) if not shown]
    if not kept:
        return None
    each = round(samples * len(row.gold_in_prompt_by_set) / len(kept))
    p_any = any_of([row.p_by_set[place] for place in kept], each)
    return categorise(sum(row.greedy_right_by_set[place] for place in kept) / len(kept), p_any)


# ---------------------------------------------------------------------- running


def mastery_of(lm: Any, facts: FactSet, exemplars: FactSet, config: ProbeConfig, kept: Path) -> MasteryMap:
    """The exact probe of one split, from disk where it was made before with the same model, facts and settings."""
    mark = kept.with_suffix(".json")
    of = {"model": lm.fingerprint, "facts": facts.fingerprint, "exemplars": exemplars.fingerprint}
    of |= {"config": config.model_dump(mode="json")}
    if kept.exists():
        if json.loads(mark.read_text(encoding="utf-8")) != of:
            raise instil.InputError("the folder holds another map", file=kept, expected="--work ANOTHER")
    else:
        write_json(mark, of)
        probe(lm, facts, exemplars, config).save(kept)
    return MasteryMap.load(kept)


def study(count: int, work: Path, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything that the JSON holds."""
    from studies.entityquestions import WORDINGS, build_world

    started = datetime.now(UTC).isoformat(timespec="seconds")
    world, lm, config = build_world(), instil.load(BASE), ProbeConfig()
    splits: dict[str, Any] = {}
    for name in SPLITS:
        facts = world.split(name)
        facts = facts.sample(min(count, len(facts)), 0)
        tell(f"{name}: {len(facts)} facts")
        splits[name] = describe(
            facts, mastery_of(lm, facts, world.split("exemplars"), config, work / f"{name}.parquet")
        )
    return {
        "command": "python -m studies.guesses",
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "model": {**lm.describe(), "source": BASE.name},
        "facts_asked_at_most": count,
        "probe": config.model_dump(mode="json"),
        "relations": {relation: wordings.questions[0] for relation, wordings in WORDINGS.items()},
        "raw": raw_favourites(),
        "splits": splits,
    }


def raw_favourites() -> dict[str, dict[str, Any]]:
    """For each relation of the training file as published its favourite answer and that answer's share."""
    from studies.entityquestions import data_folder

    counts: dict[str, Counter[str]] = {}
    for fact in FactSet.read(data_folder() / "entityquestions" / "train.jsonl.gz"):
        counts.setdefault(fact.relation or "", Counter())[fact.answers[0]] += 1
    return {
        relation: {"answer": (top := found.most_common(1)[0])[0], "share": top[1] / found.total(), "n": found.total()}
        for relation, found in sorted(counts.items())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=2500, help="facts of each split, at most (default 2,500)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON (default: the committed one)")
    parser.add_argument("--work", type=Path, help="folder of the mastery maps (default: runs/guesses-FACTS)")
    parser.add_argument("--page", action="store_true", help="only write the page from the JSON")
    options = parser.parse_args()
    if options.page:
        from studies.guesses_page import write_page

        results: Mapping[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
        write_page(results)
        return
    work = options.work or Path("runs") / f"guesses-{options.facts}"
    work.mkdir(parents=True, exist_ok=True)
    write_json(options.out, study(options.facts, work))


if __name__ == "__main__":
    main()
