"""The state of the whole as gauges, for who fetches metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from opentelemetry.metrics import CallbackOptions, Observation

from drey.system.v1 import system_service_pb2 as pb
from drey_core.iocs import CLOSED
from drey_gateway.context import WatchContext
from drey_gateway.domain.instances import InstanceBook
from drey_gateway.probes import PartReport, Probes
from drey_runtime.telemetry import meter

_EACH_S = 1.0
_CODES, _LEVELS = pb.FindingCode, pb.FindingLevel
FindFindings: TypeAlias = Callable[[Sequence[PartReport]], Sequence[pb.Finding]]


class ObservedGauge:
    """A gauge whose values are set all at once; whoever collects does so from another thread."""

    def __init__(self, name: str, unit: str, description: str) -> None:
        self._observations: Sequence[Observation] = ()
        meter.create_observable_gauge(name, [self._observe_values], unit, description)

    def set(self, values: Iterable[tuple[float, dict[str, str]]]) -> None:
        """(value, labels) of all that it tells from now on."""
        self._observations = [Observation(value, labels) for value, labels in values]

    def _observe_values(self, _options: CallbackOptions) -> Iterator[Observation]:
        return iter(self._observations)


class SystemGauges:
    """Looks each second, as long as the process lives."""

    def __init__(
        self,
        context: WatchContext,
        probes: Probes,
        instances: InstanceBook,
        find_findings: FindFindings,
    ) -> None:
        self._context, self._probes = context, probes
        self._instances, self._find_findings = instances, find_findings
        self._parts = ObservedGauge(
            "drey.part.up", "1", "Whether a part that others need answers, by part: 1 or 0"
        )
        self._findings = ObservedGauge(
            "drey.findings", "1", "What somebody should look at, by code and level"
        )
        self._watchers = ObservedGauge(
            "drey.watchers", "1", "Watches and reads under way at this gateway"
        )
        self._fresh = ObservedGauge(
            "drey.shard.fresh", "1", "Whether the values of a shard are the present ones: 1 or 0"
        )
        self._epochs = ObservedGauge("drey.shard.epoch", "1", "Epoch of the owner of a shard")
        self._channels = ObservedGauge(
            "drey.shard.channels", "1", "Channels of a shard, by shard and state"
        )
        self._rates = ObservedGauge(
            "drey.shard.updates", "1", "Updates a second that the owner of a shard takes in"
        )
        self._living = ObservedGauge(
            "drey.instances", "1", "Processes that give signs of life, by part and whether ready"
        )
        self._depths = ObservedGauge(
            "drey.queue.depth", "1", "Items in a queue of a process, by part, process and queue"
        )
        self._iocs = ObservedGauge(
            "drey.iocs", "1", "IOCs that monitors see, by state: up, down, silent"
        )
        self._breakers = ObservedGauge(
            "drey.breakers.open", "1", "Circuit breakers that are not closed, by part"
        )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._set_parts(await self._probes.ask_parts())
            self._set_shards()
            self._set_instances(time.monotonic_ns())
            await asyncio.sleep(_EACH_S)

    def _set_parts(self, parts: Sequence[PartReport]) -> None:
        self._parts.set((float(part.up), {"part": part.name}) for part in parts)
        found = Counter((each.code, each.level) for each in self._find_findings(parts))
        self._findings.set(
            (
                count,
                {
                    "code": _CODES.Name(code).removeprefix("FINDING_CODE_"),
                    "level": _LEVELS.Name(level).removeprefix("FINDING_LEVEL_"),
                },
            )
            for (code, level), count in sorted(found.items())
        )
        self._watchers.set([(len(self._context.limiter), {})])

    def _set_shards(self) -> None:
        stale = self._context.stale()
        shards = [(str(n), shard) for n, shard in enumerate(self._context.live.shards)]
        self._fresh.set((float(int(n) not in stale), {"shard": n}) for n, _ in shards)
        self._epochs.set((shard.stream.known_position[0], {"shard": n}) for n, shard in shards)
        self._rates.set((shard.report.updates_per_s, {"shard": n}) for n, shard in shards)
        self._channels.set(
            (count, {"shard": n, "state": state})
            for n, shard in shards
            for state, count in (
                ("connected", shard.report.connected),
                ("disconnected", shard.report.disconnected),
                ("never_connected", shard.report.never_connected),
                ("unsupported", shard.report.unsupported),
                ("in_alarm", shard.report.in_alarm),
            )
        )

    def _set_instances(self, now: int) -> None:
        living = self._instances.living_instances(now)
        counted = Counter((i.sign.service, i.sign.serving) for i in living)
        self._living.set(
            (count, {"part": service, "ready": str(ready).lower()})
            for (service, ready), count in sorted(counted.items())
        )
        self._depths.set(
            (queue.depth, {"part": i.sign.service, "process": i.sign.name, "queue": queue.name})
            for i in living
            for queue in i.sign.queues
        )
        states = Counter(up=0, down=0, silent=0)
        open_breakers: Counter[str] = Counter()
        for ioc in self._instances.ioc_summaries(now):
            states["down" if ioc.is_down else "silent" if ioc.silent_since_ns else "up"] += 1
            open_breakers.update(b.service for b in ioc.breakers if b.state.breaker > CLOSED)
        self._iocs.set((count, {"state": state}) for state, count in states.items())
        self._breakers.set(
            (open_breakers[service], {"part": service})
            for service in ("snapshot", "monitor", "restore")
        )
