"""Which channels hang: subscribed, and nothing came of it although their IOC answers. Pure.

A channel that was heard since its subscription is never looked at, however quiet it is. One that
was not is read once, when it has waited long. It hangs if that is answered, or if a read of another
channel of its IOC is: then the IOC lives, and has forgotten the subscription. While an IOC still
answers subscriptions that it is late with none of its channels is judged: it is slow, and gets on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_ca.interface import Connections

I8 = NDArray[np.int64]
LATE_NS = 3_000_000_000
HUNG_AFTER_NS = 10_000_000_000
LOOK_AGAIN_NS = 30_000_000_000
"""After a channel was found not to hang, or for the first time to hang; twice as long each time."""
LONGEST_NS = 600_000_000_000
MOST = 2000
"""Channels that are read at a time."""


@dataclass(frozen=True, slots=True)
class _Turn:
    due: int
    found: int = 0


class HangBook:
    """What is known of channels that wait for a first value. `now` is of a monotonic clock."""

    def __init__(self) -> None:
        self._late = np.zeros(0, bool)
        self._moved: dict[str, int] = {}
        """When an IOC last answered a subscription that it was late with."""
        self._turns: dict[int, _Turn] = {}
        """When a channel is read next."""

    def next_suspects(self, connections: Connections, channel: I8, now: int) -> I8:
        """Slots of those to be read now; `channel` has the number of each slot, -1: nobody's."""
        self._note_moves(connections, now)
        unheard = connections.unheard_ns
        self._forget_heard(connections, channel)
        suspects = np.flatnonzero((unheard >= HUNG_AFTER_NS) & (channel >= 0))
        moving = [address in self._moved for address in connections.servers]
        chosen = [
            slot
            for slot in suspects.tolist()
            if not moving[connections.server[slot]] and self._is_due(int(channel[slot]), now)
        ]
        return np.array(chosen[:MOST], np.int64)

    def note_read(self, channel: int, now: int, *, hangs: bool) -> None:
        """A suspect was read: whether it hangs."""
        found = self._turns[channel].found if channel in self._turns else 0
        found += hangs
        pause = min(LOOK_AGAIN_NS << max(found - 1, 0), LONGEST_NS)
        self._turns[channel] = _Turn(now + pause, found)

    def count_hung(self, connections: Connections, channel: I8) -> dict[str, int]:
        """Channels that were found to hang and were not heard since, by IOC."""
        found = [number for number, turn in self._turns.items() if turn.found]
        if not found:
            return {}
        server = connections.server[np.isin(channel, found)]
        counts = np.bincount(server[server >= 0], minlength=len(connections.servers))
        return {connections.servers[i]: int(counts[i]) for i in np.flatnonzero(counts).tolist()}

    def _note_moves(self, connections: Connections, now: int) -> None:
        late = connections.unheard_ns >= LATE_NS
        before = np.zeros(len(late), bool)
        before[: len(self._late)] = self._late
        heard = before & ~late & connections.connected & (connections.server >= 0)
        self._late = late
        self._moved = {
            a: time_ns for a, time_ns in self._moved.items() if now - time_ns < HUNG_AFTER_NS
        }
        for index in np.unique(connections.server[heard]).tolist():
            self._moved[connections.servers[index]] = now

    def _forget_heard(self, connections: Connections, channel: I8) -> None:
        if not self._turns:
            return
        waits = ~connections.connected | (connections.unheard_ns > 0)
        here = set(channel[np.isin(channel, list(self._turns)) & waits].tolist())
        self._turns = {number: turn for number, turn in self._turns.items() if number in here}

    def _is_due(self, channel: int, now: int) -> bool:
        turn = self._turns.get(channel)
        return turn is None or turn.due <= now


def hanging_channels(
    server: NDArray[np.int32],
    answered: NDArray[np.bool_],
    silent: NDArray[np.bool_],
    alive: set[int],
) -> NDArray[np.bool_]:
    """Which suspects hang, by what their reads gave; `alive`: servers where another's was answered.

    One whose server said by an error that it cannot be read has neither answered nor is it silent.
    """
    return answered | (silent & np.isin(server, list(alive)))
