"""What the agreement study compares: probabilities with hits, categories with the truth, runs with each other."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instil.exam.statistics import mean, paired_difference, share
from instil.probe import Asked, Category, any_of, categorise
from studies.probe_agreement_bench import Bench, Counts
from studies.probe_agreement_sums import calibration, decided, miss_interval


@dataclass(frozen=True)
class Truth:
    """What heavy sampling says of one fact.

    Attributes:
        category: by the protocol's rule, from shares of samples in place of probabilities.
        samples: a prompt; 0 where a right greedy answer decides without any.
        undecidable: the 95 % interval of what the rule compares has the boundary in it.
    """

    category: Category
    samples: int
    undecidable: bool


def p_of(counts: Sequence[Counts]) -> list[float]:
    return [one.right / one.samples for one in counts]


def greedy_of(counts: Sequence[Counts]) -> float:
    return sum(one.greedy for one in counts) / len(counts)


def category_by_few(counts: Sequence[Counts]) -> Category:
    """As the published protocol has it: one right sample is enough."""
    return categorise(greedy_of(counts), float(any(one.right for one in counts)))


def truth_of(counts: Sequence[Counts], few: int, errors: float) -> Truth:
    """The rule at `few` samples, put to the shares of many."""
    p_any = any_of(p_of(counts), few)
    low, high = miss_interval([one.right for one in counts], counts[0].samples, errors)
    greedy = greedy_of(counts)
    near = greedy == 0 and not decided(low, high, few)
    return Truth(categorise(greedy, p_any), counts[0].samples, near)


def truths(
    bench: Bench, runs: Sequence[Mapping[str, list[Counts]]], first: dict[str, list[Counts]]
) -> dict[str, Truth]:
    """A right greedy answer decides alone; else `first` samples, and where these leave doubt `many` new ones."""
    plan, found = bench.plan, {}
    for name, counts in runs[0].items():
        if greedy_of(counts) > 0:
            found[name] = Truth(categorise(greedy_of(counts), 1.0), 0, undecidable=False)
        else:
            found[name] = truth_of(first[name], plan.few, plan.surely)
    near = [name for name, truth in found.items() if truth.undecidable]
    heavy = bench.timed(
        f"{plan.many} samples near the boundary", lambda: bench.sampled(near, plan.many, plan.seed + 99)
    )
    for name, counts in heavy.items():
        found[name] = truth_of(counts, plan.few, 1.96)
    return found


def cluster_of(bench: Bench, name: str) -> str:
    return bench.facts.by_id[name].cluster


def calibrations(
    bench: Bench,
    exact: Mapping[str, Asked],
    spelled: Mapping[str, Asked],
    counts: Mapping[str, Sequence[Counts]],
    seed: int,
) -> dict[str, Any]:
    """Hits against the exact probability, prompt by prompt, for the three ways to count a hit.

    Listed sequences, and spelled ones against the probability that has them too, must be binomial; all right answers
    against the probability of the listed ones have an excess, which is the gap.
    """
    ways: dict[str, tuple[Mapping[str, Asked], str]] = {
        "listed": (exact, "listed"),
        "spelled": (spelled, "spelled"),
        "right": (exact, "right"),
    }
    found = {}
    for way, (asked, name) in ways.items():
        rows = [
            (p, getattr(one, name), one.samples, cluster_of(bench, fact))
            for fact, several in counts.items()
            for p, one in zip(asked[fact].p_by_set, several, strict=True)
        ]
        found[way] = calibration(*zip(*rows, strict=True), seed=seed)
    return found


def gap(
    bench: Bench,
    exact: Mapping[str, Asked],
    spelled: Mapping[str, Asked],
    counts: Mapping[str, Sequence[Counts]],
    kinds: Mapping[str, float],
) -> dict[str, Any]:
    """Probability of right answers that the exact engine does not list: mean over facts and prompts."""
    pairs = [(cluster_of(bench, name), one) for name, several in counts.items() for one in several]
    clusters = [cluster for cluster, _ in pairs]

    def missed(kept: Callable[[Counts], int]) -> dict[str, Any]:
        figure = mean([(one.right - kept(one)) / one.samples for _, one in pairs], clusters).to_dict()
        samples = sum(one.right - kept(one) for _, one in pairs)
        prompts = sum(one.right > kept(one) for _, one in pairs)
        return {**figure, "samples": samples, "of": sum(one.samples for _, one in pairs), "prompts": prompts}

    added = [
        (q - p, cluster_of(bench, name))
        for name, one in spelled.items()
        for p, q in zip(exact[name].p_by_set, one.p_by_set, strict=True)
    ]
    return {
        "right": mean([one.right / one.samples for _, one in pairs], clusters).to_dict(),
        "unlisted": missed(lambda one: one.listed),
        "unlisted_with_spellings": missed(lambda one: one.spelled),
        "added_by_spellings": mean(*zip(*added, strict=True)).to_dict(),
        "most_added_to_a_prompt": max(value for value, _ in added),
        "added_by_kind": dict(kinds),
        "sequences_listed": sum(len(one.answers.sequences) for one in bench.prepared.values()) / len(bench.prepared),
        "sequences_spelled": sum(map(len, bench.others.values())) / len(bench.others),
        "categories_changed": sum(exact[name].category is not spelled[name].category for name in exact),
        "commonest": [
            {"text": text, "tokens": tokens, "kind": kind, "samples": samples}
            for (text, tokens, kind), samples in bench.unlisted.most_common(12)
        ],
    }


def greedy_agreement(exact: Mapping[str, Asked], counts: Mapping[str, Sequence[Counts]]) -> dict[str, int]:
    prompts = [
        one.greedy == right
        for name, several in counts.items()
        for one, right in zip(several, exact[name].greedy_right_by_set, strict=True)
    ]
    facts = [
        [one.greedy for one in several] == list(exact[name].greedy_right_by_set) for name, several in counts.items()
    ]
    return {"prompts": len(prompts), "prompts_equal": sum(prompts), "facts": len(facts), "facts_equal": sum(facts)}


def agreement(
    bench: Bench,
    exact: Mapping[str, Asked],
    spelled: Mapping[str, Asked],
    few: Sequence[Mapping[str, Sequence[Counts]]],
    truth: Mapping[str, Truth],
) -> dict[str, Any]:
    """How often each engine's category is the truth's: of all facts, outside the band, and where samples decide."""
    samples = bench.plan.few
    said: dict[str, dict[str, list[Category]]] = {
        "exact": {name: [one.category] for name, one in exact.items()},
        "exact with other spellings": {name: [one.category] for name, one in spelled.items()},
        f"{samples} samples": {name: [category_by_few(run[name]) for run in few] for name in exact},
    }
    right = {
        engine: {name: sum(one is truth[name].category for one in found) / len(found) for name, found in facts.items()}
        for engine, facts in said.items()
    }
    outside = [name for name, one in truth.items() if not one.undecidable]
    parts = {
        "all": list(truth),
        "outside_the_band": outside,
        "outside_the_band_and_decided_by_samples": [name for name in outside if truth[name].samples],
        "in_the_band": [name for name, one in truth.items() if one.undecidable],
    }
    result: dict[str, Any] = {
        "truth": {category: sum(one.category is category for one in truth.values()) for category in Category},
        "samples_of_the_truth": dict(sorted(Counter(str(one.samples) for one in truth.values()).items())),
        "band": share([one.undecidable for one in truth.values()], [cluster_of(bench, n) for n in truth]).to_dict(),
    }
    for part, names in parts.items():
        clusters = [cluster_of(bench, name) for name in names]
        result[part] = {
            **{engine: share([by[name] for name in names], clusters).to_dict() for engine, by in right.items()},
            "exact_less_samples": paired_difference(
                [right["exact"][name] for name in names],
                [right[f"{samples} samples"][name] for name in names],
                clusters,
            ).to_dict(),
        }
    result["exact_differs"] = [
        {
            "fact": name,
            "truth": str(truth[name].category),
            "exact": str(exact[name].category),
            "p_any": exact[name].p_any,
        }
        for name in outside
        if exact[name].category is not truth[name].category
    ]
    return result


def nearer(
    bench: Bench,
    exact: Mapping[str, Asked],
    spelled: Mapping[str, Asked],
    few: Sequence[Mapping[str, Sequence[Counts]]],
    many: Mapping[str, Sequence[Counts]],
) -> dict[str, Any]:
    """Mean distance of a prompt's probability from the share of right answers among many samples."""
    engines: dict[str, Callable[[str], list[Sequence[float]]]] = {
        "exact": lambda name: [exact[name].p_by_set],
        "exact with other spellings": lambda name: [spelled[name].p_by_set],
        f"{bench.plan.few} samples": lambda name: [p_of(run[name]) for run in few],
    }
    result = {}
    for engine, p_by_set in engines.items():
        rows = [
            (abs(p - q), cluster_of(bench, name))
            for name, counts in many.items()
            for one in p_by_set(name)
            for p, q in zip(one, p_of(counts), strict=True)
        ]
        result[engine] = mean(*zip(*rows, strict=True)).to_dict()
    expected = [math.sqrt(2 * q * (1 - q) / math.pi / one.samples) for counts in many.values() for one in counts
                for q in [one.right / one.samples]]  # fmt: skip
    return {**result, "expected_of_the_truth_alone": sum(expected) / len(expected)}


def noise(
    bench: Bench,
    exact: Mapping[str, Asked],
    again: Mapping[str, Asked],
    few: Sequence[Mapping[str, Sequence[Counts]]],
) -> dict[str, Any]:
    """Facts that change category between two independent runs of the sampled engine, over all pairs of runs."""
    said = [{name: category_by_few(run[name]) for name in exact} for run in few]
    pairs = [(one, other) for place, one in enumerate(said) for other in said[place + 1 :]]
    moved = {name: sum(one[name] is not other[name] for one, other in pairs) / max(1, len(pairs)) for name in exact}
    clusters = [cluster_of(bench, name) for name in exact]
    moves: dict[str, int] = defaultdict(int)
    for one, other in pairs:
        for name in exact:
            if one[name] is not other[name]:
                moves[" and ".join(sorted((one[name], other[name])))] += 1
    apart = [abs(p - q) for name, one in exact.items() for p, q in zip(one.p_by_set, again[name].p_by_set, strict=True)]
    return {
        "pairs_of_runs": len(pairs),
        "changed": share(moved.values(), clusters).to_dict(),
        "moves": dict(sorted(moves.items())),
        "exact_changed": sum(one.category is not again[name].category for name, one in exact.items()),
        "exact_p_apart_at_most": max(apart),
    }
