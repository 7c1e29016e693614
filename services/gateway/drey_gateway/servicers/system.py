"""SystemService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from socket import gethostname
from typing import Any

import grpc

from drey.system.v1 import system_service_pb2 as pb
from drey_core.breaker import AUTOMATIC, HELD_CLOSED, HELD_OPEN
from drey_core.errors import InvalidArgument, Unavailable
from drey_gateway.breakers import BreakerOverrides, override_of
from drey_gateway.context import WatchContext
from drey_gateway.domain import findings
from drey_gateway.domain.instances import TOLD_IOCS, InstanceBook
from drey_gateway.mapping import time_or_none
from drey_gateway.mapping_system import breaker_override, ioc_status, service_instance
from drey_gateway.probes import PartReport, Probes
from drey_gateway.servicers.monitor import shard_statuses
from drey_runtime.app import service_version
from drey_runtime.auth import current_principal
from drey_runtime.clock import now_ns
from drey_runtime.jobs import JobFilter, JobState, JobStore
from drey_runtime.waiting import SIGN_OF_LIFE_S

Context = grpc.aio.ServicerContext[Any, Any]
_OPEN = JobFilter(states=(JobState.QUEUED, JobState.RUNNING))
_MAX_OPEN_JOBS = 1000
_LOOK_EVERY_S = 1.0
_SIGNS_LOST_NS = 3_000_000_000
"""Each process gives one a second."""


class SystemServicer:
    """How the whole does."""

    def __init__(
        self,
        context: WatchContext,
        probes: Probes,
        jobs: JobStore,
        info: pb.GetServerInfoResponse,
        instances: InstanceBook,
        overrides: BreakerOverrides,
    ) -> None:
        self._context, self._probes = context, probes
        self._jobs, self._info, self._instances = jobs, info, instances
        self._overrides = overrides
        self._since, self._next_look = findings.Since(), 0.0
        self._found: list[pb.Finding] = []
        self._started, self._signs_lost_ns = time.monotonic_ns(), 0

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """See the contract."""
        return self._info

    async def GetSystemSummary(
        self, request: pb.GetSystemSummaryRequest, context: Context
    ) -> pb.GetSystemSummaryResponse:
        """See the contract."""
        return pb.GetSystemSummaryResponse(summary=await self._make_summary())

    async def WatchSystemSummary(
        self, request: pb.WatchSystemSummaryRequest, context: Context
    ) -> AsyncIterator[pb.WatchSystemSummaryResponse]:
        """See the contract."""
        last, next_sign = b"", 0.0
        while True:
            summary = await self._make_summary()
            known_summary = _without_times(summary)
            if known_summary != last or time.monotonic() >= next_sign:
                last, next_sign = known_summary, time.monotonic() + SIGN_OF_LIFE_S
                yield pb.WatchSystemSummaryResponse(summary=summary)
            await asyncio.sleep(1.0)

    async def ForceBreaker(
        self, request: pb.ForceBreakerRequest, context: Context
    ) -> pb.ForceBreakerResponse:
        """See the contract."""
        if request.mode not in (AUTOMATIC, HELD_OPEN, HELD_CLOSED):
            raise InvalidArgument(f"mode: there is no mode {request.mode}", field="mode")
        principal = current_principal.get()
        override = await self._overrides.force_breaker(
            override_of(request.ioc, request.mode, request.reason, principal), principal
        )
        return pb.ForceBreakerResponse(breaker=breaker_override(override))

    async def _make_summary(self) -> pb.SystemSummary:
        parts = await self._probes.ask_parts()
        live = self._context.live
        found_now = self.find_findings(parts)
        now = time.monotonic_ns()
        held = {each.ioc: each for each in self._overrides.held_overrides}
        iocs = self._instances.ioc_summaries(now, held)
        return pb.SystemSummary(
            healthy=all(f.level < pb.FINDING_LEVEL_ERROR for f in found_now),
            parts=[_to_part(p) for p in parts],
            shards=shard_statuses(self._context, self._instances),
            findings=found_now,
            pvs=len(live.directory),
            channels=len(live.directory.channels),
            watchers=len(self._context.limiter),
            open_jobs=await self._open_jobs(),
            version=service_version(),
            time=time_or_none(now_ns()),
            instances=[service_instance(i, now) for i in self._instances.living_instances(now)],
            iocs=[ioc_status(ioc, held.get(ioc.address)) for ioc in iocs[:TOLD_IOCS]],
            ioc_count=len(iocs),
            signs_lost_since=time_or_none(self._note_signs(now)),
        )

    def _note_signs(self, now: int) -> int:
        """Since when no sign of life has come at all; 0: they come."""
        silent_ns = now - (self._instances.heard_at or self._started)
        if silent_ns < _SIGNS_LOST_NS:
            self._signs_lost_ns = 0
        elif not self._signs_lost_ns:
            self._signs_lost_ns = now_ns() - silent_ns
        return self._signs_lost_ns

    def find_findings(self, parts: Sequence[PartReport]) -> list[pb.Finding]:
        """Gravest first; looked for at most once a second, whoever asks and how often."""
        now = time.monotonic()
        if now < self._next_look:
            return self._found
        self._next_look = now + _LOOK_EVERY_S
        live = self._context.live
        findings_now = findings.of_parts([(p.name, p.up, p.detail) for p in parts])
        findings_now += findings.of_shards(
            live.shards,
            self._context.stale(),
            lambda shard, state: live.pvs_in(shard, state, findings.NAMED),
        )
        findings_now += findings.of_instances(
            self._instances, time.monotonic_ns(), self._overrides.held_overrides
        )
        findings_now += findings.of_standbys(self._instances, len(live.shards), time.monotonic_ns())
        findings_now += findings.of_clocks(
            live.shards, self._instances, time.monotonic_ns(), gethostname()
        )
        findings_now.sort(key=lambda f: -f.level)
        since = self._since.times_first_seen(findings_now, now_ns())
        self._found = [
            _to_finding(f, since_ns) for f, since_ns in zip(findings_now, since, strict=True)
        ]
        return self._found

    async def _open_jobs(self) -> int:
        """0 while Postgres is away, which is among the parts."""
        try:
            async with asyncio.timeout(1.0):
                return await self._jobs.count_jobs(_OPEN, _MAX_OPEN_JOBS)
        except (Unavailable, TimeoutError):
            return 0


def _to_part(report: PartReport) -> pb.Part:
    out = pb.Part(
        name=report.name,
        state=pb.PART_STATE_UP if report.up else pb.PART_STATE_DOWN,
        detail=report.detail,
    )
    if report.latency_ns:
        out.latency.FromNanoseconds(report.latency_ns)
    return out


def _to_finding(finding: findings.Finding, since_ns: int) -> pb.Finding:
    out = pb.Finding(
        code=int(finding.code),  # type: ignore[arg-type]
        level=int(finding.level),  # type: ignore[arg-type]
        text=finding.text,
        remedy=finding.remedy,
        pvs=finding.pvs,
        since=time_or_none(since_ns),
    )
    setattr(out, finding.subject.kind, finding.subject.which)
    return out


def _without_times(summary: pb.SystemSummary) -> bytes:
    """What counts as a change: not the clock, nor how long an answer took."""
    copy = pb.SystemSummary()
    copy.CopyFrom(summary)
    copy.ClearField("time")
    for part in copy.parts:
        part.ClearField("latency")
    for shard in copy.shards:
        shard.state.ClearField("age")
    for instance in copy.instances:
        instance.ClearField("age")
    for ioc in copy.iocs:
        ioc.ClearField("echo")
    return copy.SerializeToString(deterministic=True)
