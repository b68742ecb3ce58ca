"""A choice by probability: which option the model would most likely give as its answer to the plain question.

`lm-eval` scores its `multiple_choice` tasks so (`acc`): the option with the highest summed log-likelihood after the
prompt is the model's choice. Here the option is followed by the end of the answer, as in all exact probabilities of
Instil, so that "Paris" does not get the probability of "Paris Hilton".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from instil.exam.answering import Answerer
from instil.exam.paper import Item
from instil.probe import Asked, ExemplarSets, ProbeConfig, Question, any_of, categorise


def choose(
    items: Sequence[Item],
    answerer: Answerer,
    exemplars: ExemplarSets,
    config: ProbeConfig,
    tell: Callable[[int], None] = lambda done: None,
) -> list[Asked]:
    """What the answerer chooses, in the order of `items`.

    Of each `Asked`, `greedy_answer_by_set` are the options chosen (the earlier one on a tie, unless it is right),
    and `p_by_set` the share of the right option in the probability of all. A tie is not right.
    """
    asked: dict[str, Asked] = {}
    for answer in answerer.ask(list(_questions(items)), exemplars, as_scored(config)):
        asked[answer.question_id] = answer
        tell(len(asked) // max(1, len(items[0].options)))
    return [_chosen(item, [asked[_name(item, place)] for place in range(len(item.options))], config) for item in items]


def as_scored(config: ProbeConfig) -> ProbeConfig:
    """Probabilities of the model itself: at temperature 1, of the whole vocabulary, and nothing written out."""
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "decode": False, "prior": False, "spellings": False}
    return config.model_copy(update={**plain, "engine": "exact"})


def _questions(items: Sequence[Item]) -> Iterator[Question]:
    for item in items:
        for place, option in enumerate(item.options):
            yield replace(item.question, id=_name(item, place), answers=(option,))


def _name(item: Item, place: int) -> str:
    return f"{item.question.id}#{place}"


def _chosen(item: Item, options: Sequence[Asked], config: ProbeConfig) -> Asked:
    right = item.options.index(item.question.answers[0])
    sets = range(len(options[0].p_by_set))
    p_by_set, said, hits = [], [], []
    for chosen in sets:
        p = [option.p_by_set[chosen] for option in options]
        best = max(p)
        others = [place for place, value in enumerate(p) if value == best and place != right]
        place = others[0] if others else right
        said.append(item.options[place])
        hits.append(place == right)
        p_by_set.append(p[right] / sum(p) if sum(p) > 0 else 0.0)
    p_greedy, p_any = sum(hits) / len(hits), any_of(p_by_set, config.samples)
    return Asked(
        question_id=item.question.id,
        fact_id=item.question.fact_id,
        category=categorise(p_greedy, p_any),
        p_greedy=p_greedy,
        p_sampled=sum(p_by_set) / len(p_by_set),
        p_any=p_any,
        p_prior=None,
        gold_in_prompt=options[right].gold_in_prompt,
        greedy_answer=max(dict.fromkeys(said), key=said.count),
        greedy_right_by_set=tuple(hits),
        p_by_set=tuple(p_by_set),
        greedy_answer_by_set=tuple(said),
        gold_in_prompt_by_set=options[right].gold_in_prompt_by_set,
    )
