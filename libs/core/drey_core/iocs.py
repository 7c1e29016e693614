"""How the IOCs do that a process has channels at, and how that is told a part at a time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

CLOSED, OPEN, PROBING = 1, 2, 3
"""Numbers of `drey.common.v1.BreakerState`."""
TOLD_AT_A_TIME = 50


@dataclass(frozen=True, slots=True)
class IocState:
    """One IOC as a process sees it, field by field as `drey.events.v1.IocReport`."""

    address: str
    channels: int = 0
    connected: int = 0
    timeouts: int = 0
    echo_ns: int = 0
    silent_since_ns: int = 0
    breaker: int = 0
    breaker_since_ns: int = 0
    next_probe_ns: int = 0
    reconnected: int = 0
    hung: int = 0


@dataclass(frozen=True, slots=True)
class DoubleName:
    """A name that two servers answered to; `since_ns`: when it was first seen."""

    name: str
    taken: str
    ignored: str
    since_ns: int


class IocTurns:
    """Which IOCs the next report tells of: those that changed, then those told longest ago."""

    def __init__(self, most: int = TOLD_AT_A_TIME) -> None:
        self._most = most
        self._told: dict[str, IocState] = {}
        """As they were told last, the one told longest ago first."""

    def next_states(self, states: Sequence[IocState]) -> list[IocState]:
        """At most `most` of `states`, which are all that there are."""
        here = {state.address: state for state in states}
        self._told = {address: told for address, told in self._told.items() if address in here}
        changed = [
            state
            for address, state in here.items()
            if (told := self._told.get(address)) is None or _news_of(told) != _news_of(state)
        ]
        unchanged = set(self._told) - {state.address for state in changed}
        waiting = [here[address] for address in self._told if address in unchanged]
        chosen = (changed + waiting)[: self._most]
        for state in chosen:
            self._told.pop(state.address, None)
            self._told[state.address] = state
        return chosen


def _news_of(state: IocState) -> IocState:
    """What of it has to be told soon: how long an echo took has not."""
    return replace(state, echo_ns=0)
