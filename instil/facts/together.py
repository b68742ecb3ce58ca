"""Things that must stay together, however they are tied."""

from __future__ import annotations


class Together:
    """Keys in groups that grow as keys are tied (disjoint sets)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def tie(self, one: str, other: str) -> None:
        """From now on both, and whatever is tied to either, are one group."""
        self._parent[self.root(one)] = self.root(other)

    def root(self, key: str) -> str:
        """A key that stands for the group; the same for all of it until more is tied."""
        while (above := self._parent.setdefault(key, key)) != key:
            self._parent[key] = self._parent[above]
            key = above
        return key
