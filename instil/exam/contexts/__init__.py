"""Which texts lead to a fact, and how far a model goes on predicting it from one of them to the others.

The diagnosis of Zhu et al. (2025, arXiv 2503.03705): a fact that is predicted in its document only as written is
learned by heart; one whose tokens are predicted in other texts as well can be asked for.
"""

from instil.exam.contexts.building import ContextSet, contexts_of_documents, contexts_of_facts
from instil.exam.contexts.config import ContextConfig
from instil.exam.contexts.figures import GROUPS, ContextScores, ItemScores, group_of

__all__ = [
    "GROUPS",
    "ContextConfig",
    "ContextScores",
    "ContextSet",
    "ItemScores",
    "contexts_of_documents",
    "contexts_of_facts",
    "group_of",
]
