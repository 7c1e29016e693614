"""How many calls a server takes, from whom: counted before anything of a call is read.

Pure: time is an argument, in seconds of a clock that is never set back. A key may have no more
than its share of what there is, so that one caller never takes the place of all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from drey_core.errors import ResourceExhausted

_KNOWN = 4096
_FULL_RETRY_S = 1.0
UPLOADS = 128
"""Most calls at a time that send a stream of messages: each may hold a message half received."""
READING = 128
"""Most first messages received at a time; further ones wait for their turn."""
MAKING = 4
"""Parts of answers to reads that are made at a time: each takes some 10 ms of the event loop."""
PASSES = 8
"""Passes of the event loop before each part: grpc takes one new call in two or three of them."""
LONGEST_TURN_S = 0.25
"""A part that takes longer waits for something, and the turn is of more use to others."""
_REFUSED_BURST_S = 10.0
_CALLS_BURST_S = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is taken at most; shares are of each number, for one key or one peer."""

    calls: int = 4000
    probes: int = 256
    share: float = 0.5
    calls_per_s: float = 1000.0
    refused_per_s: float = 50.0
    first_message_s: float = 10.0


@dataclass(slots=True)
class _Bucket:
    """Tokens that come back at a steady rate, up to a greatest number."""

    tokens: float
    at: float


class CallRate:
    """How often each of many callers may do something."""

    def __init__(self, per_s: float, burst_s: float) -> None:
        self._per_s, self._most = per_s, max(per_s * burst_s, 1.0)
        self._buckets: dict[str, _Bucket] = {}

    def count_call(self, who: str, now: float) -> float:
        """Count one; 0, or the seconds after which there is room for it (it is not counted)."""
        bucket = self._buckets.get(who)
        if bucket is None:
            self._forget_the_idle(now)
            bucket = self._buckets[who] = _Bucket(self._most, now)
        bucket.tokens = min(self._most, bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
        if bucket.tokens < 1.0:
            return (1.0 - bucket.tokens) / self._per_s
        bucket.tokens -= 1.0
        return 0.0

    def _forget_the_idle(self, now: float) -> None:
        if len(self._buckets) < _KNOWN:
            return
        idle = self._most / self._per_s
        self._buckets = {who: b for who, b in self._buckets.items() if now - b.at < idle}
        while len(self._buckets) >= _KNOWN:  # the one that came first has waited longest
            del self._buckets[next(iter(self._buckets))]


@dataclass(slots=True)
class Room:
    """Places of one kind, of which one holder has no more than a share."""

    what: str
    places: int
    share: float
    _held: Counter[str] = field(default_factory=Counter)
    taken: int = 0

    @classmethod
    def room_with_holders(
        cls, what: str, places: int, share: float, holders: Iterable[str]
    ) -> Room:
        """Places that are counted elsewhere: one is held by each of `holders`."""
        held = Counter(holders)
        return cls(what, places, share, held, held.total())

    def full_for(self, holder: str) -> int:
        """The limit that is met when `holder` comes now; 0 when there is a place."""
        if self.taken >= self.places:
            return self.places
        most = max(1, int(self.places * self.share))
        return most if self._held[holder] >= most else 0

    def require_place(self, holder: str, of_whom: str) -> None:
        """Raise `ResourceExhausted` when there is no place for `holder`."""
        limit = self.full_for(holder)
        if limit:
            whole = limit == self.places
            who = "this server serves" if whole else f"{of_whom} has"
            raise ResourceExhausted(
                f"{who} {limit} {self.what} at a time already, which is the most; end some, or try"
                " again in a moment",
                metadata={"limit": str(limit), "scope": "server" if whole else "caller"},
                retry_after_s=_FULL_RETRY_S,
            )

    @contextmanager
    def take_place(self, holder: str, of_whom: str) -> Iterator[None]:
        """Hold a place. Raises `ResourceExhausted` when there is none for `holder`."""
        self.require_place(holder, of_whom)
        self._held[holder] += 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]


class Admission:
    """The rates and places of one server."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.calls = Room("calls", bounds.calls, bounds.share)
        self.probes = Room("health calls", bounds.probes, bounds.share)
        self.uploads = Room("calls that send a stream", UPLOADS, bounds.share)
        self._rate = CallRate(bounds.calls_per_s, _CALLS_BURST_S)
        self._refused = CallRate(bounds.refused_per_s, _REFUSED_BURST_S)

    def count_call(self, key: str, now: float) -> None:
        """Count a call of a key. Raises `ResourceExhausted` when it calls too often."""
        wait = self._rate.count_call(key, now)
        if wait:
            limit = self.bounds.calls_per_s
            raise _too_often(f"the key calls more than {limit:g} times a second", wait, limit)

    def count_refused(self, peer: str, now: float) -> None:
        """Count a call whose key let nobody in. `ResourceExhausted` for a peer with too many."""
        wait = self._refused.count_call(peer, now)
        if wait:
            limit = self.bounds.refused_per_s
            what = f"more than {limit:g} calls a second came from this address without a key"
            raise _too_often(f"{what} that is known", wait, limit)


def _too_often(what: str, wait: float, limit: float) -> ResourceExhausted:
    return ResourceExhausted(
        f"{what}; try again in {wait:.1f} s",
        metadata={"limit": f"{limit:g}", "scope": "rate"},
        retry_after_s=wait,
    )


def host_of(peer: str) -> str:
    """Who a peer of gRPC is: its address without the port."""
    kind, _, rest = peer.partition(":")
    return f"{kind}:{rest.rpartition(':')[0]}" if kind in ("ipv4", "ipv6") else kind
