"""What the precision study compares: two runs' answers to the same questions, and how near the rule those were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from instil.exam.statistics import mean, paired_difference, share
from instil.probe import Asked, Category

Key = tuple[int, str]
"""A seed, which drew the exemplar sets, and a fact's id."""
Answers = Mapping[Key, Asked]
Pair = tuple[Asked, Asked]
DISTANCES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.4)
"""Lower borders of the groups of facts by how far `p_any` is from one half."""
RIGHT_IN = ("none", "one", "some", "all but one", "all")
"""Groups of facts by how many of their prompts have a right greedy answer."""


def sizes(values: Iterable[float]) -> dict[str, Any]:
    """Mean and quantiles of magnitudes; of none, only that there are none."""
    import numpy

    found = [abs(value) for value in values]
    if not found:
        return {"n": 0}
    median, p95, p99 = (float(value) for value in numpy.quantile(found, [0.5, 0.95, 0.99]))
    middle = sum(found) / len(found)
    return {"n": len(found), "mean": middle, "median": median, "p95": p95, "p99": p99, "max": max(found)}


def compared(one: Answers, other: Answers, cluster: Mapping[Key, str], *, same_prompts: bool = True) -> dict[str, Any]:
    """Two runs over the same facts, or over the facts of the smaller one.

    Args:
        cluster: the subject of each fact; intervals resample these.
        same_prompts: whether the n-th prompts of a fact are the same in both; else only facts are compared.

    Raises:
        KeyError: the smaller run has a fact that the larger one has not.
    """
    keys = list(one if len(one) <= len(other) else other)
    pairs = [(one[key], other[key]) for key in keys]
    clusters = [cluster[key] for key in keys]
    known = [[float(asked.known) for asked in side] for side in zip(*pairs, strict=True)]
    ranks = Counter(abs(a.category.rank - b.category.rank) for a, b in pairs)
    by_seed = Counter(seed for (seed, _), pair in zip(keys, pairs, strict=True) if differ(pair))
    return {
        "facts": len(keys),
        "p_sampled": sizes(b.p_sampled - a.p_sampled for a, b in pairs),
        "p_sampled_change": mean([b.p_sampled - a.p_sampled for a, b in pairs], clusters).to_dict(),
        "p_any": sizes(b.p_any - a.p_any for a, b in pairs),
        "known": [share(side, clusters).to_dict() for side in known],
        "known_change": paired_difference(known[1], known[0], clusters).to_dict(),
        "category": counted([differ(pair) for pair in pairs], clusters),
        "category_by_seed": {str(seed): by_seed[seed] for seed in dict.fromkeys(seed for seed, _ in keys)},
        "most_ranks": max(ranks),
        "moves": [
            [sum((a.category, b.category) == (before, after) for a, b in pairs) for after in Category]
            for before in Category
        ],
        **(by_prompt(keys, pairs, clusters) if same_prompts else {}),
    }


def counted(changes: Sequence[bool], clusters: Sequence[str]) -> dict[str, Any]:
    return {"count": sum(changes), **share(changes, clusters).to_dict()}


def by_prompt(keys: Sequence[Key], pairs: Sequence[Pair], clusters: Sequence[str]) -> dict[str, Any]:
    """Prompt against prompt; each prompt has its fact's subject."""
    of_prompts = [label for label, (a, _) in zip(clusters, pairs, strict=True) for _ in a.p_by_set]

    def changed(name: str) -> dict[str, Any]:
        found = [x != y for a, b in pairs for x, y in zip(getattr(a, name), getattr(b, name), strict=True)]
        return counted(found, of_prompts)

    return {
        "prompts": len(of_prompts),
        "p": sizes(y - x for a, b in pairs for x, y in zip(a.p_by_set, b.p_by_set, strict=True)),
        "p_prior": sizes(b.p_prior - a.p_prior for a, b in pairs if a.p_prior is not None and b.p_prior is not None),
        "greedy": changed("greedy_right_by_set"),
        "greedy_text": changed("greedy_answer_by_set"),
        "moved": [move(key, *pair) for key, pair in zip(keys, pairs, strict=True) if differ(pair)],
    }


def move(key: Key, one: Asked, other: Asked) -> dict[str, Any]:
    """A fact whose category changed: from and to, and what the rule looked at, before and after."""
    return {
        "seed": key[0],
        "fact": key[1],
        "category": [str(one.category), str(other.category)],
        "p_any": [one.p_any, other.p_any],
        "right_prompts": [sum(one.greedy_right_by_set), sum(other.greedy_right_by_set)],
    }


def near_the_rule(one: Answers, other: Answers) -> dict[str, Any]:
    """How near the rule's boundaries the facts were that changed category: by `one`, which counts as the truth.

    A category changes because `p_any` crosses one half, where no greedy answer is right in either run, or because
    greedy answers become right or wrong.
    """
    pairs = [(asked, other[key]) for key, asked in one.items()]
    by_samples = [pair for pair in pairs if not some_right(pair)]
    distances = [
        (low, [pair for pair in by_samples if low <= abs(pair[0].p_any - 0.5) < high])
        for low, high in zip(DISTANCES, (*DISTANCES[1:], 1.0), strict=True)
    ]
    groups = [(group, [pair for pair in pairs if right_in(pair[0]) == group]) for group in RIGHT_IN]
    return {
        "by_distance": [
            {"from": low, "facts": len(found), "moved": sum(map(differ, found))} for low, found in distances
        ],
        "distance_of_moved": sizes(pair[0].p_any - 0.5 for pair in by_samples if differ(pair)),
        "by_right_prompts": [
            {
                "right_in": group,
                "facts": len(found),
                "moved": sum(differ(pair) and some_right(pair) for pair in found),
            }
            for group, found in groups
        ],
        "right_prompts_changed_of_moved": sizes(
            sum(b.greedy_right_by_set) - sum(a.greedy_right_by_set)
            for a, b in pairs
            if differ((a, b)) and some_right((a, b))
        ),
    }


def some_right(pair: Pair) -> bool:
    """Whether a greedy answer of either run is right."""
    return any(asked.p_greedy for asked in pair)


def differ(pair: Pair) -> bool:
    return pair[0].category is not pair[1].category


def right_in(asked: Asked) -> str:
    right, prompts = sum(asked.greedy_right_by_set), len(asked.greedy_right_by_set)
    return {1: "one", prompts - 1: "all but one", prompts: "all", 0: "none"}.get(right, "some")


def changes_less(first: tuple[Answers, Answers], second: tuple[Answers, Answers], cluster: Mapping[Key, str]) -> Any:
    """Facts that change category in the first pair of runs less those in the second: a share of all, fact by fact."""
    keys = list(first[0])
    changes = [[float(differ((one[key], other[key]))) for key in keys] for one, other in (first, second)]
    return paired_difference(changes[0], changes[1], [cluster[key] for key in keys]).to_dict()


def further_off(truth: Answers, one: Answers, other: Answers, cluster: Mapping[Key, str]) -> dict[str, Any]:
    """By how much more the probabilities of `one` are off the truth than those of `other`: mean over its prompts."""
    off = [
        [abs(p - q) for key, asked in truth.items() for p, q in zip(run[key].p_by_set, asked.p_by_set, strict=True)]
        for run in (one, other)
    ]
    clusters = [cluster[key] for key, asked in truth.items() for _ in asked.p_by_set]
    return paired_difference(off[0], off[1], clusters).to_dict()
