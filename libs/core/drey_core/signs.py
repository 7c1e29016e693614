"""Signs of life, judged by their change and on the reader's own clock.

The clocks of two hosts differ, so what a sign of life says of its own time proves nothing; and an
old one that lies somewhere looks like a new one. Only that it changes shows that its owner lives.
"""

from __future__ import annotations

from collections.abc import Hashable

_LOOK_EACH_NS = 2_000_000_000
"""A reader that did not look for so long cannot tell when a change came: it begins anew."""


class SignsOfLife:
    """When the sign of each shard was last seen to change. Times are of one monotonic clock, ns."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Hashable, int]] = {}
        self._changed: dict[int, int] = {}

    def see_sign(self, shard: int, sign: Hashable, now: int) -> None:
        """Look at the sign of a shard, whatever it is, at `now`."""
        last = self._last.get(shard)
        self._last[shard] = sign, now
        if last is not None and last[0] != sign and now - last[1] <= _LOOK_EACH_NS:
            self._changed[shard] = now

    def age_ns(self, shard: int, now: int) -> int | None:
        """Time since the last change; None where none has been seen yet."""
        changed = self._changed.get(shard)
        return None if changed is None else max(now - changed, 0)
