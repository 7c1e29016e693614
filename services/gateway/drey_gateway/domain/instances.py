"""The processes of all services and the IOCs that they see, from their signs of life. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from drey_core.iocs import CLOSED, DoubleName, IocState
from drey_gateway.domain.health import ClockDifference

SILENT_AFTER_NS = 5_000_000_000
"""An instance that gave no sign of life for so long is not listed; it gives one a second."""
MOST_INSTANCES, MOST_IOCS = 1000, 20_000
TOLD_IOCS = 1000
_DROPPED_TOLD_NS = 60_000_000_000
_HUNG_TOLD_NS = 600_000_000_000


@dataclass(frozen=True, slots=True)
class Queue:
    """How full a queue of an instance is."""

    name: str
    depth: int
    bound: int
    dropped: int


@dataclass(frozen=True, slots=True)
class InstanceSign:
    """One sign of life; `iocs` are some of `ioc_count`."""

    service: str
    name: str
    version: str
    started_ns: int
    serving: bool
    iocs: Sequence[IocState]
    ioc_count: int
    queues: Sequence[Queue]
    doubles: Sequence[DoubleName]
    standbys: Mapping[int, bool] = field(default_factory=dict)
    """Shards that it keeps warm beside their owners, and whether it has connected them already."""
    standbys_asked: int = 0
    """Warm standbys that each shard is to have, as it was told."""
    sent_ns: int = 0
    """When, by the clock of its host."""


@dataclass(slots=True)
class Instance:
    """One process, as it was heard of last. `heard_at` is of a monotonic clock."""

    sign: InstanceSign
    heard_at: int
    iocs: dict[str, IocState] = field(default_factory=dict)
    dropped_at: dict[str, int] = field(default_factory=dict)
    """Queues that dropped something, and when that was last heard of."""
    hung_at: dict[str, int] = field(default_factory=dict)
    """IOCs of which channels hung or were connected anew, likewise."""
    clock: ClockDifference = field(default_factory=ClockDifference)
    """Of its host."""


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """The breaker of an IOC in one process, where it is not closed."""

    service: str
    instance: str
    state: IocState


@dataclass(frozen=True, slots=True)
class Override:
    """What an administrator says of the breaker of an IOC; `mode` as in `drey_core.breaker`."""

    ioc: str
    mode: int
    reason: str
    principal: str
    roles: str
    time_ns: int


@dataclass(slots=True)
class IocSummary:
    """One IOC, as the monitors see it; `breakers` and `timeouts` are of all processes."""

    address: str
    channels: int = 0
    connected: int = 0
    timeouts: int = 0
    echo_ns: int = 0
    silent_since_ns: int = 0
    reconnected: int = 0
    hung: int = 0
    hung_of_late: bool = False
    breakers: list[OpenBreaker] = field(default_factory=list)

    @property
    def is_down(self) -> bool:
        """All its channels are disconnected."""
        return self.channels > 0 and self.connected == 0

    @property
    def has_trouble(self) -> bool:
        """Whether somebody should look at it."""
        return self.is_down or bool(self.silent_since_ns or self.breakers or self.hung)


class InstanceBook:
    """All instances that live. Bounded: what comes beyond is not taken in."""

    def __init__(self) -> None:
        self._instances: dict[tuple[str, str], Instance] = {}
        self.heard_at: int | None = None
        """When any sign of life came last. This process gives one, too: none means no way."""

    def note_sign(self, sign: InstanceSign, now: int, received_ns: int = 0) -> None:
        """A sign of life came; `received_ns` by the clock of this host, 0: clocks are let alone."""
        self.heard_at = now
        key = (sign.service, sign.name)
        instance = self._instances.get(key)
        if instance is None:
            self._forget_silent(now)
            if len(self._instances) >= MOST_INSTANCES:
                return
            instance = self._instances[key] = Instance(sign, now)
        for queue in sign.queues:
            before = next((q.dropped for q in instance.sign.queues if q.name == queue.name), 0)
            if queue.dropped > before:
                instance.dropped_at[queue.name] = now
        instance.sign, instance.heard_at = sign, now
        if received_ns:
            instance.clock.compare_clocks(sign.sent_ns, received_ns)
        for state in sign.iocs:
            before_state = instance.iocs.pop(state.address, None)
            if state.hung or (before_state and state.reconnected > before_state.reconnected):
                instance.hung_at[state.address] = now
            instance.iocs[state.address] = state
        # those that it has no more were told longest ago
        most = min(sign.ioc_count, MOST_IOCS)
        for address in list(instance.iocs)[: max(len(instance.iocs) - most, 0)]:
            del instance.iocs[address]
        instance.hung_at = {
            address: at
            for address, at in instance.hung_at.items()
            if address in instance.iocs and now - at <= _HUNG_TOLD_NS
        }

    def living_instances(self, now: int) -> list[Instance]:
        """Those that gave a sign of life of late, by service and name."""
        self._forget_silent(now)
        return [self._instances[key] for key in sorted(self._instances)]

    def ioc_summaries(self, now: int, also: Iterable[str] = ()) -> list[IocSummary]:
        """All IOCs, and those in `also`: those in trouble first, then by address."""
        summaries = {address: IocSummary(address) for address in also}
        for instance in self.living_instances(now):
            for state in instance.iocs.values():
                ioc = summaries.setdefault(state.address, IocSummary(state.address))
                ioc.timeouts += state.timeouts
                if state.breaker > CLOSED:
                    ioc.breakers.append(
                        OpenBreaker(instance.sign.service, instance.sign.name, state)
                    )
                if instance.sign.service == "monitor":
                    _add_watched(ioc, state)
                    ioc.hung_of_late |= state.address in instance.hung_at
        return sorted(summaries.values(), key=lambda ioc: (not ioc.has_trouble, ioc.address))

    def double_names(self, now: int) -> list[DoubleName]:
        """Names at two servers, each once, as it was seen first."""
        first: dict[str, DoubleName] = {}
        every = (d for instance in self.living_instances(now) for d in instance.sign.doubles)
        for double in sorted(every, key=lambda d: (d.name, d.since_ns)):
            first.setdefault(double.name, double)
        return list(first.values())

    def standbys(self, now: int) -> dict[int, list[tuple[str, bool]]]:
        """Who keeps each shard warm, by name, and whether its channels are connected already."""
        out: dict[int, list[tuple[str, bool]]] = {}
        for instance in self.living_instances(now):
            for shard, warm in instance.sign.standbys.items():
                out.setdefault(shard, []).append((instance.sign.name, warm))
        return out

    def standbys_asked(self, now: int) -> int:
        """Warm standbys that each shard is to have, by what the monitors were told."""
        return max((i.sign.standbys_asked for i in self.living_instances(now)), default=0)

    def queue_drops(self, now: int) -> list[tuple[str, str, Queue]]:
        """(service, instance, queue) of queues that dropped something within the last minute."""
        return [
            (i.sign.service, i.sign.name, queue)
            for i in self.living_instances(now)
            for queue in i.sign.queues
            if now - i.dropped_at.get(queue.name, -_DROPPED_TOLD_NS - 1) <= _DROPPED_TOLD_NS
        ]

    def service_versions(self, now: int) -> dict[str, list[str]]:
        """Versions of the instances of each service, each once."""
        out: dict[str, set[str]] = {}
        for instance in self.living_instances(now):
            out.setdefault(instance.sign.service, set()).add(instance.sign.version)
        return {service: sorted(numbers) for service, numbers in sorted(out.items())}

    def _forget_silent(self, now: int) -> None:
        for key in [k for k, i in self._instances.items() if now - i.heard_at > SILENT_AFTER_NS]:
            del self._instances[key]


def _add_watched(ioc: IocSummary, state: IocState) -> None:
    ioc.channels += state.channels
    ioc.connected += state.connected
    ioc.echo_ns = max(ioc.echo_ns, state.echo_ns)
    ioc.reconnected += state.reconnected
    ioc.hung += state.hung
    since = (ioc.silent_since_ns, state.silent_since_ns)
    ioc.silent_since_ns = min((each for each in since if each), default=0)
