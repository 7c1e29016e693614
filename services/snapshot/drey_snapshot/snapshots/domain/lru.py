"""A cache that forgets what was used least recently, bounded by weight."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """At most `capacity` of weight, or the latest `least` items, whatever they weigh.

    With `least` 0 an item heavier than all of it is not kept. Not thread-safe.
    """

    def __init__(self, capacity: int, least: int = 0) -> None:
        self._capacity, self._least = capacity, least
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    @property
    def weight(self) -> int:
        """Weight of everything held."""
        return self._weight

    def get(self, key: K) -> V | None:
        """The item, marked as used; None where it is not held."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put_value(self, key: K, value: V, weight: int = 1) -> None:
        """Hold an item, and let go of the oldest until the weight fits."""
        self.discard_key(key)
        if weight > self._capacity and not self._least:
            return
        self._items[key] = (value, weight)
        self._weight += weight
        while self._weight > self._capacity and len(self._items) > self._least:
            _, (_, gone) = self._items.popitem(last=False)
            self._weight -= gone

    def discard_key(self, key: K) -> None:
        """Forget an item, if it is held."""
        item = self._items.pop(key, None)
        if item is not None:
            self._weight -= item[1]
