"""Many items in little memory: what is read lies in a temporary file, and each item is made again when it is asked for.

A fact takes two kilobytes as Python objects. Packed, it takes 8 bytes of memory for its place in the file, and 24 to 48
for its id where ids are looked up.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar, overload

PACK_ABOVE = 20_000
"""Items that are held as they are; from the next one on all of them are packed."""

BLOCK = 1 << 20
"""Bytes that wait in memory before they are written."""


class Named(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Named)


class IdTable:
    """The number of each id, in the order in which ids are added, without the ids: one flat table at most half full.

    What 64 bits of a hash leave open is settled by the ids themselves, so the answers are exact.
    """

    def __init__(self, id_at: Callable[[int], str]) -> None:
        """
        Args:
            id_at: the id that was added with this number.
        """
        self._id_at = id_at
        self._mask = 1023
        self._count = 0
        self._keys, self._numbers = _tables(1024)

    def __len__(self) -> int:
        return self._count

    def find(self, name: str) -> int | None:
        """The number of an id, or None where it was never added."""
        place = self._place(name)
        return self._numbers[place] if self._keys[place] else None

    def add(self, name: str) -> int | None:
        """Add an id with the next number; one that is there already keeps its number, which is returned."""
        place = self._place(name)
        if self._keys[place]:
            return self._numbers[place]
        self._keys[place], self._numbers[place] = _key(name), self._count
        self._count += 1
        if 2 * self._count > self._mask:
            self._grow()
        return None

    def _place(self, name: str) -> int:
        """Where the id is, or a free place where it would be."""
        key, keys, mask = _key(name), self._keys, self._mask
        place = key & mask
        while (held := keys[place]) and not (held == key and self._id_at(self._numbers[place]) == name):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        old = zip(self._keys, self._numbers, strict=True)
        self._mask = mask = 2 * self._mask + 1
        self._keys, self._numbers = keys, numbers = _tables(mask + 1)
        for key, number in old:
            if key:
                place = key & mask
                while keys[place]:
                    place = (place + 1) & mask
                keys[place], numbers[place] = key, number


def _key(name: str) -> int:
    return hash(name) or 1


def _tables(size: int) -> tuple[array[int], array[int]]:
    return array("q", bytes(8 * size)), array("I", bytes(array("I").itemsize * size))


class _Store:
    """A temporary file of pickled items, of this process alone; it is gone when nobody refers to it any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="instil-", buffering=0)  # noqa: SIM115 - closed with the store
        self._ends = array("Q", [0])
        self._waiting = bytearray()
        self._written = 0

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, item: Any) -> None:
        self._waiting += pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
        self._ends.append(self._written + len(self._waiting))
        if len(self._waiting) >= BLOCK:
            self.write()

    def write(self) -> None:
        """Keep nothing waiting in memory."""
        waiting = memoryview(self._waiting)
        self._waiting = bytearray()
        while waiting:
            waiting = waiting[self._file.write(waiting) :]
        self._written = self._ends[-1]

    def __getitem__(self, number: int) -> Any:
        start, end = self._ends[number], self._ends[number + 1]
        if start >= self._written:
            return pickle.loads(memoryview(self._waiting)[start - self._written : end - self._written])
        # Not by seeking: processes that were forked share the place in the file.
        return pickle.loads(os.pread(self._file.fileno(), end - start, start))


class Packed(Sequence[Item]):
    """An immutable sequence of packed items with unique ids. A slice or a choice of them shares their file."""

    def __init__(self, store: _Store, places: Sequence[int]) -> None:
        """See `packed`."""
        self._store, self._places = store, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Packed[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Packed[Item]:
        if isinstance(index, slice):
            return Packed(self._store, self._places[index])
        item: Item = self._store[self._places[index]]
        return item

    def __iter__(self) -> Iterator[Item]:
        return map(self._store.__getitem__, self._places)

    def chosen(self, numbers: Iterable[int]) -> Packed[Item]:
        """Those with these numbers, in this order."""
        return Packed(self._store, array("Q", (self._places[number] for number in numbers)))

    @cached_property
    def by_id(self) -> Mapping[str, Item]:
        return _ById(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


class _ById(Mapping[str, Item]):
    def __init__(self, items: Packed[Item]) -> None:
        self._items = items
        self._table = IdTable(lambda number: items[number].id)
        for item in items:
            self._table.add(item.id)

    def __getitem__(self, name: str) -> Item:
        number = self._table.find(name)
        if number is None:
            raise KeyError(name)
        return self._items[number]

    def __iter__(self) -> Iterator[str]:
        return (item.id for item in self._items)

    def __len__(self) -> int:
        return len(self._items)


class Collector:
    """Takes items one by one, each id once; many of them are packed."""

    def __init__(self, above: int | None = None) -> None:
        """
        Args:
            above: items that are held as they are; by default `PACK_ABOVE`.
        """
        self._above = PACK_ABOVE if above is None else above
        self._held: list[Any] = []
        self._store: _Store | None = None
        self._table = IdTable(lambda number: self._at(number).id)

    def _at(self, number: int) -> Any:
        return self._held[number] if self._store is None else self._store[number]

    def add(self, item: Named) -> int | None:
        """Take an item. Where its id is there already, the number of the item that has it; else None."""
        there = self._table.add(item.id)
        if there is None:
            self._take(item)
        return there

    def _take(self, item: Named) -> None:
        if self._store is None:
            self._held.append(item)
            if len(self._held) > self._above:
                self._store = _Store()
                for held in self._held:
                    self._store.append(held)
                self._held.clear()
        else:
            self._store.append(item)

    def items(self) -> Sequence[Any]:
        """What was taken, in order: a tuple, or `Packed` where it is much. Nothing can be taken any more."""
        if self._store is None:
            return tuple(self._held)
        self._store.write()
        return Packed(self._store, range(len(self._store)))


def packed(items: Iterable[Item]) -> Packed[Item]:
    """Items in a temporary file, however few.

    Raises:
        ValueError: two have one id.
    """
    collector = Collector(above=-1)
    if any(collector.add(item) is not None for item in items):
        raise ValueError("ids repeat")
    found = collector.items()
    return found if isinstance(found, Packed) else Packed(_Store(), range(0))
