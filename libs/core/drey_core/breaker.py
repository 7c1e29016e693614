"""Circuit breakers, one an IOC: whether it is asked at all. Pure.

An IOC that answered nothing to several requests in a row is suspected, and probed. Its breaker
opens only where the probe is not answered either, so that slow devices, or channels that are gone,
never close off an IOC that lives. While it is open its channels fail at once. It is probed with
growing pauses, and closes as soon as it answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from drey_core.iocs import CLOSED, OPEN, PROBING, IocState

AUTOMATIC, HELD_OPEN, HELD_CLOSED = 1, 2, 3
"""Numbers of `drey.common.v1.BreakerMode`."""
FAILURES = 3
"""Requests in a row that were not answered at all, before an IOC is suspected."""
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = 1_000_000_000, 30_000_000_000


@dataclass(slots=True)
class _Breaker:
    """Of one IOC. `probe_at` is of a monotonic clock, `since_ns` since 1970 UTC."""

    failures: int = 0
    timeouts: int = 0
    is_open: bool = False
    is_probed: bool = False
    probe_at: int = 0
    pause_ns: int = FIRST_PAUSE_NS
    since_ns: int = 0
    next_probe_ns: int = 0
    echo_ns: int = 0


class BreakerBook:
    """The breakers of one process, by the addresses of IOCs.

    `now` is of a monotonic clock, `wall_ns` since 1970 UTC.
    """

    def __init__(self) -> None:
        self._breakers: dict[str, _Breaker] = {}
        self._modes: dict[str, int] = {}

    @property
    def has_watched(self) -> bool:
        """Whether an answer of some IOC is news: one has failed of late, or is held."""
        return bool(self._modes) or any(b.failures for b in self._breakers.values())

    @property
    def refused_addresses(self) -> frozenset[str]:
        """IOCs that are not to be asked."""
        open_breakers = {a for a, b in self._breakers.items() if b.is_open}
        held = {a for a, mode in self._modes.items() if mode == HELD_OPEN}
        return frozenset(
            (open_breakers | held) - {a for a, mode in self._modes.items() if mode == HELD_CLOSED}
        )

    def hold_modes(self, modes: Mapping[str, int], wall_ns: int) -> None:
        """What administrators say: all IOCs that are held, and how."""
        for address in self._modes.keys() - modes.keys():
            # asked anew, without a past
            self._breakers.pop(address, None)
        for address, mode in modes.items():
            if self._modes.get(address) != mode:
                self._breakers[address] = _Breaker(since_ns=wall_ns)
        self._modes = dict(modes)

    def note_unanswered(self, address: str, now: int) -> None:
        """A request of which the IOC answered nothing in time."""
        breaker = self._breakers.setdefault(address, _Breaker())
        breaker.timeouts += 1
        breaker.failures += 1
        if breaker.failures == FAILURES:
            breaker.probe_at = now

    def note_answered(self, address: str) -> None:
        """It answered something."""
        breaker = self._breakers.get(address)
        if breaker is not None and not breaker.is_open:
            breaker.failures = 0

    def next_probes(self, now: int) -> list[str]:
        """IOCs to be probed now: those suspected, and those whose pause is over."""
        due = [
            address
            for address, b in self._breakers.items()
            if (b.is_open or b.failures >= FAILURES)
            and not b.is_probed
            and b.probe_at <= now
            and address not in self._modes
        ]
        for address in due:
            self._breakers[address].is_probed = True
        return due

    def note_connected(self, address: str, now: int) -> None:
        """It was away altogether and is there again: it is probed at once."""
        breaker = self._breakers.get(address)
        if breaker is not None and breaker.is_open:
            breaker.probe_at = now

    def end_probe(self, address: str, *, answered: bool, now: int, wall_ns: int) -> bool:
        """What came of a probe; whether the breaker opened or closed by it."""
        breaker = self._breakers.get(address)
        if breaker is None:
            return False
        was_open, breaker.is_probed = breaker.is_open, False
        if answered:
            self._breakers[address] = _Breaker(timeouts=breaker.timeouts)
            return was_open
        breaker.timeouts += 1
        longer = min(2 * breaker.pause_ns, LONGEST_PAUSE_NS)
        breaker.pause_ns = longer if was_open else FIRST_PAUSE_NS
        breaker.probe_at = now + breaker.pause_ns
        breaker.next_probe_ns = wall_ns + breaker.pause_ns
        if not was_open:
            breaker.is_open, breaker.since_ns = True, wall_ns
        return not was_open

    def why_refused(self, addresses: Iterable[str]) -> str:
        """What is so of those that are refused, for people; empty where none is."""
        return "; ".join(
            self._refusal_reason(a) for a in sorted(set(addresses) & self.refused_addresses)
        )

    def _refusal_reason(self, address: str) -> str:
        breaker = self._breakers.get(address, _Breaker())
        since = _time_text(breaker.since_ns)
        if self._modes.get(address) == HELD_OPEN:
            return f"IOC {address} is not asked: an administrator holds its breaker open ({since})"
        return (
            f"IOC {address} has answered nothing since {since} and is not asked; it is probed again"
            f" at {_time_text(breaker.next_probe_ns)}"
        )

    @property
    def ioc_states(self) -> list[IocState]:
        """Of those that there is something to say about, as they are told."""
        refused = self.refused_addresses
        return [
            IocState(
                address,
                timeouts=b.timeouts,
                breaker=(PROBING if b.is_probed else OPEN) if address in refused else CLOSED,
                breaker_since_ns=b.since_ns if address in refused else 0,
                next_probe_ns=b.next_probe_ns
                if address in refused and address not in self._modes
                else 0,
            )
            for address, b in self._breakers.items()
            if b.timeouts or address in refused
        ]


def _time_text(wall_ns: int) -> str:
    moment = datetime.fromtimestamp(wall_ns / 1e9, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
