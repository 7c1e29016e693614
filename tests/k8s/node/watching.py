"""Watchers that count: what was to be seen, what was seen, and what was wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import nats

from drey.common.v1 import selector_pb2, value_pb2
from drey.events.v1.values_pb2 import Heartbeat
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc, watch_pb2
from drey_runtime.batches import decode_batch
from tests.k8s.node.site import PASSWORD, Site, until

WATCHED = "COUNT:*"
"""PVs that count by one ten times a second, so that a value tells which update it is of."""
_RETRY_S = 0.2


@dataclass
class Count:
    """What one watcher counted."""

    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    merged: int = 0
    wrong: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)

    @property
    def expected(self) -> int:
        """Updates that the machine made between the first and the last that were seen."""
        return round(sum(self.last[name] - self.first[name] for name in self.last))

    def take(self, name: str, value: float) -> None:
        """One value came."""
        before = self.last.get(name)
        if before is None:
            self.first[name] = value
        elif value < before:
            self.wrong.append(f"{name}: {value} after {before}")
        elif value > before:
            self.seen += 1
        self.last[name] = max(value, before or value)

    def __str__(self) -> str:
        ended = ", ".join(f"{count} × {code}" for code, count in self.ended.items())
        # made while nobody watched, or merged by the IOC itself, which does so under load
        unheard = self.expected - self.seen - self.merged
        return (
            f"updates expected {self.expected}, seen {self.seen}, merged {self.merged}, not heard"
            f" of {unheard}, wrong {len(self.wrong)}; streams ended: {ended or 'none'}"
        )


class Watcher:
    """Watches the counters, connects again with its token when the stream is lost.

    Use as a context manager; `count` holds what came.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.count = Count()
        self.fresh = True
        self.told_stale = 0
        self.refusals: list[str] = []
        self._token = ""
        self._over = threading.Event()
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        until(lambda: self.count.seen or not self._thread.is_alive(), "the watcher sees updates")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._call is not None:
            self._call.cancel()
        self._thread.join()

    def wait_updates(self, what: str) -> float:
        """Wait until each counter has counted on; seconds that it took."""
        begun, before = time.monotonic(), dict(self.count.last)
        behind = lambda: [n for n, v in before.items() if self.count.last[n] <= v]  # noqa: E731
        until(lambda: not behind(), f"updates after {what}")
        return time.monotonic() - begun

    def check(self, what: str) -> None:
        """Print the counts. Nothing wrong came, and what is shown is what the machine has."""
        names = sorted(self.count.last)
        machine = self._site.read_counters(names)
        until(
            lambda: all(self.count.last[name] >= machine[name] for name in names),
            "the watcher shows what the machine had",
        )
        print(f"{what}: {self.count}")
        assert self._thread.is_alive()
        assert names and not self.count.wrong, self.count.wrong[:5]
        assert self.count.seen <= self.count.expected
        assert not self.refusals, self.refusals

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._follow()
            except grpc.RpcError as error:
                if self._over.is_set():
                    return
                code = error.code().name
                self.count.ended[code] += 1
                if code not in ("UNAVAILABLE", "CANCELLED"):
                    self.refusals.append(f"{code}: {error.details()}")
            time.sleep(_RETRY_S)

    def _follow(self) -> None:
        # a connection of its own each time: the one before may lead to a pod that is gone
        with self._site.channel() as channel:
            stub = monitor_service_pb2_grpc.MonitorServiceStub(channel)
            spec = watch_pb2.WatchSpec(selector=selector_pb2.Selector(globs=[WATCHED]))
            request = monitor_service_pb2.WatchPvsRequest(spec=spec, token=self._token)
            self._call = stub.WatchPvs(request, metadata=self._site.metadata())
            for message in self._call:
                self._take(message)

    def _take(self, message: monitor_service_pb2.WatchPvsResponse) -> None:
        match message.WhichOneof("part"):
            case "baseline":
                self._take_rows(message.baseline.rows)
            case "baseline_end":
                self._token = message.baseline_end.token
            case "diff":
                self.count.merged += message.diff.merged
                self._take_rows(message.diff.rows)
            case "checkpoint":
                self._token = message.checkpoint.token
            case "freshness":
                self.fresh = message.freshness.freshness == value_pb2.FRESHNESS_FRESH
                self.told_stale += not self.fresh

    def _take_rows(self, rows: Iterable[value_pb2.PvRow]) -> None:
        for row in rows:
            if row.readback.HasField("float64_value"):
                self.count.take(row.name, row.readback.float64_value)


class BusListener:
    """Hears everything that monitors publish: who owns, and under which epoch.

    Use as a context manager.
    """

    def __init__(self, site: Site) -> None:
        address = site.kubectl("get", "service", "parts-nats", "-o", "jsonpath={.spec.clusterIP}")
        self._url = f"nats://drey:{PASSWORD}@{address}:4222"
        self.owners: dict[tuple[int, int], set[str]] = {}
        self.stamps: list[tuple[int, int, int, int]] = []
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def __enter__(self) -> BusListener:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def epoch(self, shard: int) -> int:
        """The greatest epoch of a shard that was heard of."""
        return max((epoch for of, epoch in self.owners if of == shard), default=0)

    def owner_after(self, shard: int, epoch: int) -> str:
        """The pod that owned a shard next after an epoch."""
        later = [key for key in self.owners if key[0] == shard and key[1] > epoch]
        (name,) = self.owners[min(later)]
        return name.rpartition(":")[0]

    def check(self) -> None:
        """Nobody can believe two: one owner an epoch, each number once."""
        doubled = {key: names for key, names in self.owners.items() if len(names) > 1}
        assert not doubled, doubled
        assert len(self.stamps) == len(set(self.stamps))
        late, newest = 0, dict[int, int]()
        for shard, epoch, _, _ in self.stamps:
            newest[shard] = max(epoch, newest.get(shard, 0))
            late += epoch < newest[shard]
        print(
            f"bus: {len(self.stamps)} batches, {len(self.owners)} epochs, {late} of a former owner"
        )

    async def _listen(self) -> None:
        client = await nats.connect(self._url)
        await client.subscribe("drey.v1.heartbeats.*", cb=self._on_heartbeat)
        await client.subscribe("drey.v1.values.*", cb=self._on_values)
        await client.flush()
        self._ready.set()
        while not self._over.is_set():
            await asyncio.sleep(0.1)
        await client.close()

    async def _on_heartbeat(self, message: Any) -> None:
        beat = Heartbeat.FromString(message.data)
        self.owners.setdefault((beat.shard, beat.epoch), set()).add(beat.owner)

    async def _on_values(self, message: Any) -> None:
        batch, _ = decode_batch(message.data)
        self.stamps.append((batch.shard, batch.epoch, batch.sequence, batch.part))
