"""What a monitor knows of the IOCs that its channels are at: connections, echoes, double names.

An IOC is one server, by the address that Channel Access gives it. Whether it lives is found out by
one echo a connection, in turn, never by reading its PVs: a PV that does not change is quiet, an IOC
that does not answer is silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from drey_core.iocs import DoubleName, IocState

ECHO_EACH_NS = 5_000_000_000
"""Between two echoes of one IOC."""
MOST_DOUBLES = 64


class IocBook:
    """All IOCs of a process. Times of `now` are of a monotonic clock, `wall_ns` since 1970 UTC."""

    def __init__(self) -> None:
        self._states: dict[str, IocState] = {}
        self._due: dict[str, int] = {}
        self._doubles: dict[str, DoubleName] = {}
        self._searched: set[str] = set()

    @property
    def ioc_states(self) -> list[IocState]:
        """All of them."""
        return list(self._states.values())

    @property
    def double_names(self) -> list[DoubleName]:
        """Names that two servers answered to."""
        return list(self._doubles.values())

    def count(
        self, servers: Sequence[str], server: NDArray[np.int32], connected: NDArray[np.bool_]
    ) -> None:
        """Take over where the channels are; an IOC without any is forgotten.

        `server` and `connected` have an entry a channel; -1 in `server`: nowhere.
        """
        n = len(servers)
        channels = np.bincount(server[server >= 0], minlength=n).tolist()
        up = np.bincount(server[(server >= 0) & connected], minlength=n).tolist()
        states = {}
        for index, address in enumerate(servers):
            if channels[index]:
                old = self._states.get(address, IocState(address))
                states[address] = replace(old, channels=channels[index], connected=up[index])
        self._states = states
        self._due = {a: due for a, due in self._due.items() if a in states}

    def next_echoes(self, now: int, most: int) -> list[str]:
        """IOCs whose turn it is, at most `most`; they never come all at once."""
        connected = [a for a, state in self._states.items() if state.connected]
        for place, address in enumerate(sorted(set(connected) - self._due.keys())):
            # new ones begin at different times
            self._due[address] = now + ECHO_EACH_NS * place // max(len(connected), 1)
        due = sorted((self._due[a], a) for a in connected if self._due[a] <= now)[:most]
        for _, address in due:
            self._due[address] = now + ECHO_EACH_NS
        return [address for _, address in due]

    def note_answered(self, address: str, took_ns: int) -> None:
        """An echo was answered."""
        state = self._states.get(address)
        if state is not None:
            self._states[address] = replace(state, echo_ns=max(took_ns, 1), silent_since_ns=0)

    def note_silent(self, address: str, asked_wall_ns: int) -> None:
        """An echo, asked at that time, was not answered in time."""
        state = self._states.get(address)
        if state is not None:
            self._states[address] = replace(
                state,
                timeouts=state.timeouts + 1,
                silent_since_ns=state.silent_since_ns or asked_wall_ns,
            )

    def note_hung(self, hung: Mapping[str, int]) -> None:
        """Channels that hang now, by IOC."""
        for address, state in self._states.items():
            self._states[address] = replace(state, hung=hung.get(address, 0))

    def note_reconnected(self, address: str, count: int) -> None:
        """Channels that hung were connected anew."""
        state = self._states.get(address)
        if state is not None:
            self._states[address] = replace(state, reconnected=state.reconnected + count)

    # --- names at two servers ---

    def note_doubles(self, doubles: Iterable[tuple[str, str, str]], wall_ns: int) -> None:
        """(name, taken, ignored): two servers answered to a name."""
        for name, taken, ignored in doubles:
            old = self._doubles.get(name)
            self._searched.discard(name)
            if old is not None or len(self._doubles) < MOST_DOUBLES:
                since = old.since_ns if old else wall_ns
                self._doubles[name] = DoubleName(name, taken, ignored, since)

    def begin_search(self, names: Iterable[str]) -> None:
        """These names are searched for again."""
        self._searched = set(names)

    def end_search(self) -> None:
        """Forget those to which no second server has answered since `begin_search`."""
        for name in self._searched:
            self._doubles.pop(name, None)
        self._searched = set()
