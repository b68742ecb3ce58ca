"""Facts whose mastery a guess explains: the answer comes without the subject, so that it says nothing about the subject.

A relation with a favourite answer makes every fact that has it look known. `p_prior` is what the model gives when the
subject is withheld ("Where was it born?") behind the same exemplar sets: it holds the favourite answers of the relation
and those that can be copied from an exemplar. A fact *could be guessed* when, by that probability alone, the evidence
for its category would be there:

- HighlyKnown and MaybeKnown rest on greedy answers: `p_prior` reaches `threshold`. At one half a right answer is
  likelier than all others together, so that greedy decoding may be expected to give it too;
- WeaklyKnown rests on samples: the same rule, 1 - (1 - p_prior)^(samples x sets) >= 1/2;
- each of the three: `p_prior` is at least `p_sampled`, so that naming the subject made the answer no likelier.

Unknown facts cannot be guessed, and facts without `p_prior` cannot be judged; they stay as they are. That a fact could
be guessed does not say that the model does not know it, only that this probe cannot show that it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instil.probe.categories import Category, any_of
from instil.probe.config import PROTOCOL

if TYPE_CHECKING:
    from instil.probe.mastery import Mastery

LIKELY = 0.5
"""`p_prior` from which a greedy answer needs no subject."""


def could_be_guessed(row: Mastery, threshold: float = LIKELY, samples: int = PROTOCOL.samples) -> bool:
    """Whether the fact's category could be reached without its subject.

    Args:
        threshold: `p_prior` from which HighlyKnown and MaybeKnown facts count as guesses, above 0 and at most 1.
        samples: samples a prompt that WeaklyKnown was reckoned with.

    Raises:
        ValueError: a threshold that is no probability, or is 0 (then everything would be a guess).
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"not a threshold: {threshold}; expected more than 0 and at most 1")
    if row.p_prior is None or row.category is Category.UNKNOWN:
        return False
    if row.p_prior >= row.p_sampled:
        return True
    if row.category is Category.WEAKLY_KNOWN:
        return any_of([row.p_prior] * max(1, len(row.p_by_set)), samples) >= 0.5
    return row.p_prior >= threshold
