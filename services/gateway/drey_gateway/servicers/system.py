"""SystemService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from socket import gethostname
from typing import Any

import grpc

from drey.system.v1 import system_service_pb2 as pb
from drey_core.errors import Unavailable
from drey_gateway.domain import findings
from drey_gateway.probes import PartReport, Probes
from drey_gateway.servicers.monitor import shard_statuses
from drey_gateway.watching import Seats, World
from drey_runtime.app import service_version
from drey_runtime.clock import now_ns
from drey_runtime.jobs import JobState, JobStore

Context = grpc.aio.ServicerContext[Any, Any]
_MAX_OPEN_JOBS = 1000


class SystemServicer:
    """How the whole does."""

    def __init__(
        self,
        world: World,
        seats: Seats,
        probes: Probes,
        jobs: JobStore,
    ) -> None:
        self._world, self._seats, self._probes = world, seats, probes
        self._jobs = jobs

    async def GetSystemSummary(
        self, request: pb.GetSystemSummaryRequest, context: Context
    ) -> pb.GetSystemSummaryResponse:
        """See the contract."""
        return pb.GetSystemSummaryResponse(summary=await self._summary())

    async def WatchSystemSummary(
        self, request: pb.WatchSystemSummaryRequest, context: Context
    ) -> AsyncIterator[pb.WatchSystemSummaryResponse]:
        """See the contract."""
        last = b""
        while True:
            summary = await self._summary()
            known = _without_times(summary)
            if known != last:
                last = known
                yield pb.WatchSystemSummaryResponse(summary=summary)
            await asyncio.sleep(1.0)

    async def _summary(self) -> pb.SystemSummary:
        parts = await self._probes.ask()
        live, stale = self._world.live, self._world.stale()
        found = findings.of_parts([(p.name, p.up, p.detail) for p in parts])
        found += findings.of_shards(live.shards, stale, time.monotonic_ns(), gethostname())
        found.sort(key=lambda f: -f.level)
        return pb.SystemSummary(
            healthy=all(f.level < findings.Level.ERROR for f in found),
            parts=[_part(p) for p in parts],
            shards=shard_statuses(self._world),
            findings=[
                pb.Finding(level=int(f.level), text=f.text, remedy=f.remedy)  # type: ignore[arg-type]
                for f in found
            ],
            pvs=len(live.directory),
            channels=len(live.directory.channels),
            watchers=len(self._seats),
            open_jobs=await self._open_jobs(),
            version=service_version(),
            time_ns=now_ns(),
        )

    async def _open_jobs(self) -> int:
        """0 while Postgres is away, which is among the parts."""
        try:
            async with asyncio.timeout(1.0):
                jobs = await self._jobs.list_jobs(
                    states=(JobState.QUEUED, JobState.RUNNING), limit=_MAX_OPEN_JOBS
                )
        except (Unavailable, TimeoutError):
            return 0
        return len(jobs)


def _part(found: PartReport) -> pb.Part:
    return pb.Part(
        name=found.name,
        state=pb.PART_STATE_UP if found.up else pb.PART_STATE_DOWN,
        detail=found.detail,
        latency_us=found.latency_us,
    )


def _without_times(summary: pb.SystemSummary) -> bytes:
    """What counts as a change: not the clock, nor how long an answer took."""
    copy = pb.SystemSummary()
    copy.CopyFrom(summary)
    copy.time_ns = 0
    for part in copy.parts:
        part.latency_us = 0
    for shard in copy.shards:
        shard.state.age_ms = 0
    return copy.SerializeToString(deterministic=True)
