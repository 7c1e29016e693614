"""A rehearsal as it goes: the machine, a Drey of its own beside it, and the same plan there."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drey.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import selector_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey_client import Client, ClientError
from drey_client.errors import reason_name
from drey_client.parts import whole_rows
from drey_machine.rehearsal import Rehearsal, planned_otherwise, rehearsal_spec
from drey_machine.rehearsed import SimMachine
from drey_stack.simulated import SimulatedMachine
from drey_stack.whole import Stack, StackOptions

_PVS_AT_ONCE = 2_000
_SNAPSHOT_TRIES = 600
_PLAN_TRIES = 20
_DEADLINE_S = 600.0
"""Catches what hangs, on a machine of any pace."""
_NOT_YET = frozenset({"FAILED_PRECONDITION", ""})
"""Status of a snapshot that is refused, or of a job that ends without one."""


@dataclass(frozen=True)
class StageCourse:
    """A stage as it was planned, how long it took, and PVs by verdict. None: nothing complete."""

    stage: restore_pb2.StageCount
    took_ns: int | None
    verdicts: Mapping[int, int]


@dataclass
class RehearsedCourse:
    """What became of it there."""

    plan: restore_pb2.Plan
    restore: restore_pb2.Restore = field(default_factory=restore_pb2.Restore)
    items: list[restore_pb2.RestoreItem] = field(default_factory=list)
    otherwise: dict[str, str] = field(default_factory=dict)
    cut_short: bool = False
    """It was aborted, as it took longer than it may."""

    def stage_courses(self) -> list[StageCourse]:
        """Each stage with its course: from the end of the one before to its last completion."""
        ends: dict[int, int] = {}
        verdicts: dict[int, Counter[int]] = defaultdict(Counter)
        for item in self.items:
            if item.HasField("target"):
                verdicts[item.stage][item.verdict] += 1
                if item.HasField("complete_time"):
                    end = item.complete_time.ToNanoseconds()
                    ends[item.stage] = max(end, ends.get(item.stage, 0))
        courses = []
        begin = self.restore.start_time.ToNanoseconds()
        for stage in self.plan.stages:
            last = ends.get(stage.stage)
            took = None if last is None else max(0, last - begin)
            courses.append(StageCourse(stage, took, verdicts[stage.stage]))
            begin = begin if last is None else last
        return courses


async def run_rehearsal(
    folder: Path,
    plan: restore_pb2.Plan,
    rehearsal: Rehearsal,
    requested: restore_service_pb2.ExecutePlanRequest,
    say: Callable[[str], None],
    most_s: float,
) -> RehearsedCourse:
    """Take the state there, change the machine to what it is now, plan, execute, read.

    What is not over in `most_s` seconds is aborted there, and its course by then is the course.
    From the main thread, as it starts processes; `folder`, absolute and there, is theirs. Raises
    `ClientError` for what is refused there, `StackError` where something does not start,
    TimeoutError where the machine does not come up as it was made.
    """
    deadline = asyncio.get_running_loop().time() + most_s
    async with AsyncExitStack() as started:
        count = len(rehearsal.now.channels)
        say(f"simulating {count:,} channel{'' if count == 1 else 's'} on loopback")
        machine = await started.enter_async_context(AsyncExitStack())
        before = await _enter_machine(machine, folder, rehearsal.stored, (0, 0))
        options = StackOptions(folder / "state", epics=before.environment, fsync=False)
        stack = await started.enter_async_context(Stack(options))
        client = Client(stack.server, stack.key, ca=stack.certificate_path, timeout_s=_DEADLINE_S)
        await started.enter_async_context(client)
        there = _RehearsedSite(client, rehearsal, before.ports[0])
        async with asyncio.timeout_at(deadline):
            await there.create_pvs()
            await there.wait_connected(rehearsal.stored)
            snapshot_id = await there.take_stored()
            await machine.aclose()
            await there.wait_connected(None)
            await _enter_machine(machine, folder, rehearsal.now, before.ports)
            await there.wait_connected(rehearsal.now)
            say("making the same plan there")
            course = await there.make_plan(rehearsal_spec(plan, snapshot_id))
        if course.plan.writes:
            count = course.plan.writes
            say(f"executing {count:,} write{'' if count == 1 else 's'} there")
            await there.execute_plan(course, requested, deadline)
            if course.cut_short:
                say(f"it was not over after {most_s:,.0f} s, and was aborted there")
    return course


async def _enter_machine(
    scope: AsyncExitStack, folder: Path, served: SimMachine, ports: tuple[int, int]
) -> SimulatedMachine:
    folder = folder / "machine"
    folder.mkdir(exist_ok=True)
    channels = folder / "channels.json"
    served.write_file(channels)
    port, repeater = map(str, ports)
    words = ("rehearse", "--channels", str(channels), "--port", port, "--repeater-port", repeater)
    return await scope.enter_async_context(SimulatedMachine(folder, command=words))


class _RehearsedSite:
    """The Drey of a rehearsal, whose machine is at `port`."""

    def __init__(self, client: Client, rehearsal: Rehearsal, port: int) -> None:
        self._client, self._rehearsal, self._port = client, rehearsal, port
        self._catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(client.channel)
        self._monitor: Any = monitor_service_pb2_grpc.MonitorServiceStub(client.channel)
        self._restores: Any = restore_service_pb2_grpc.RestoreServiceStub(client.channel)

    async def create_pvs(self) -> None:
        pvs = self._rehearsal.pvs
        for start in range(0, len(pvs), _PVS_AT_ONCE):
            request = catalog_service_pb2.BatchCreatePvsRequest(
                pvs=pvs[start : start + _PVS_AT_ONCE]
            )
            answer = await self._client.call(self._catalog.BatchCreatePvs, request)
            for pv, result in zip(request.pvs, answer.results, strict=True):
                if result.HasField("error"):
                    raise ClientError(
                        f"the rehearsal's catalog refused {pv.name}: {result.error.message}",
                        reason=reason_name(result.error.reason),
                        field=result.error.field,
                    )

    async def wait_connected(self, served: SimMachine | None) -> None:
        """Wait until the channels of a machine have values: of this machine, and no other."""
        addresses = self._catalog_addresses()
        wanted = 0 if served is None else len(addresses & {c.served_at for c in served.channels})
        labels = {} if served is None else _known_labels(served)
        request = monitor_service_pb2.GetMonitorStatusRequest()
        while True:
            status = await self._client.call(self._monitor.GetMonitorStatus, request)
            if sum(shard.connected for shard in status.shards) == wanted:
                known, unlabeled = await self._count_values(labels)
                # of a large value each part counts; of done channels nothing is known here
                if known >= wanted and not unlabeled & addresses:
                    return
            await asyncio.sleep(0.05)

    async def _count_values(self, labels: dict[str, list[str]]) -> tuple[int, set[str]]:
        """How many values there are, and the addresses of enumerations with other labels."""
        connected = value_pb2.CONNECTION_STATE_CONNECTED
        everything = selector_pb2.Selector(all=True)
        request = monitor_service_pb2.GetValuesRequest(selector=everything, with_metadata=True)
        known, unlabeled = 0, set(labels)
        async for message in self._client.stream(self._monitor.GetValues, request):
            for row in message.rows:
                known += row.setpoint.state == connected
                known += row.readback.state == connected
            for metadata in message.metadata:
                refuse_other_hosts(metadata, self._port)
                for channel in (metadata.setpoint, metadata.readback):
                    if labels.get(channel.address) == [*channel.enum_labels]:
                        unlabeled.discard(channel.address)
        return known, unlabeled

    def _catalog_addresses(self) -> set[str]:
        """Of the channels that the catalog has; done channels are not in it."""
        return {
            channel.address
            for pv in self._rehearsal.pvs
            for channel in (pv.setpoint, pv.readback)
            if channel.address
        }

    async def take_stored(self) -> str:
        """Take the snapshot as soon as the image has all that the machine serves."""
        names = selector_pb2.Selector(names=list(self._rehearsal.items))
        tries = 0
        while True:
            try:
                snapshot = await self._client.take_snapshot(
                    names, title="as stored", max_missing=self._not_stored()
                )
            except ClientError as error:
                tries += 1
                if error.status not in _NOT_YET:
                    raise
                if tries == _SNAPSHOT_TRIES:
                    why = f"no snapshot there: {error.message}"
                    raise ClientError(why, reason="REFUSED") from error
            else:
                return snapshot.id
            await asyncio.sleep(0.2)

    def _not_stored(self) -> int:
        """PVs of which the source has no value of a channel."""
        stored = {channel.served_at for channel in self._rehearsal.stored.channels}
        addresses = (
            {channel.address for channel in (pv.setpoint, pv.readback) if channel.address}
            for pv in self._rehearsal.pvs
            if pv.name in self._rehearsal.items
        )
        return sum(not each <= stored for each in addresses)

    async def make_plan(self, spec: restore_pb2.PlanSpec) -> RehearsedCourse:
        """Plan until it is the plan that is rehearsed, or tell in what it stays another one."""
        for attempt in range(_PLAN_TRIES):
            if attempt:
                # labels and limits of the machine that came back may be known a moment later
                await asyncio.sleep(0.5)
            request = restore_service_pb2.CreatePlanRequest(spec=spec)
            plan = (await self._client.call(self._restores.CreatePlan, request)).plan
            request_items = restore_service_pb2.ReadPlanRequest(id=plan.id)
            items = await self._read_items(self._restores.ReadPlan, request_items)
            otherwise = planned_otherwise(self._rehearsal.items, items)
            if not otherwise:
                break
        return RehearsedCourse(plan, otherwise=otherwise)

    async def execute_plan(
        self,
        course: RehearsedCourse,
        requested: restore_service_pb2.ExecutePlanRequest,
        deadline: float,
    ) -> None:
        """Execute the plan to its end, or abort it at a deadline by the clock of the loop."""
        request = restore_service_pb2.ExecutePlanRequest()
        request.CopyFrom(requested)
        request.plan_id, request.digest = course.plan.id, course.plan.digest
        course.restore = (await self._client.call(self._restores.ExecutePlan, request)).restore
        try:
            async with asyncio.timeout_at(deadline):
                await self._watch_restore(course, timeout_s=None)
        except TimeoutError:
            course.cut_short = True
            abort = restore_service_pb2.AbortRestoreRequest(
                id=course.restore.id, reason="it took longer than its rehearsal may"
            )
            await self._client.call(self._restores.AbortRestore, abort)
            await self._watch_restore(course, timeout_s=_DEADLINE_S)
        if not course.restore.HasField("end_time"):
            raise ClientError(
                "the rehearsal's watch ended before its restore", reason="WATCH_ENDED"
            )
        request_items = restore_service_pb2.ReadRestoreRequest(id=course.restore.id)
        course.items = await self._read_items(self._restores.ReadRestore, request_items)

    async def _watch_restore(self, course: RehearsedCourse, *, timeout_s: float | None) -> None:
        watch = restore_service_pb2.WatchRestoreRequest(id=course.restore.id)
        messages = self._client.stream(self._restores.WatchRestore, watch, timeout_s=timeout_s)
        async for message in messages:
            course.restore = message.restore

    async def _read_items(self, method: Any, request: Any) -> list[Any]:
        rows = [row async for each in self._client.stream(method, request) for row in each.items]
        return list(whole_rows(rows))


def _known_labels(served: SimMachine) -> dict[str, list[str]]:
    """Labels of the enumerations, by address; without the empty ones at the end, as EPICS tells."""
    labels_by_address = {}
    for channel in served.channels:
        labels = [*channel.labels] if channel.kind == "enum" and channel.single_value else []
        while labels and not labels[-1]:
            labels.pop()
        if labels:
            labels_by_address[channel.served_at] = labels
    return labels_by_address


def refuse_other_hosts(row: Any, port: int) -> None:
    """Refuse to go on where a channel is served by another IOC than that of the rehearsal."""
    for metadata in (row.setpoint, row.readback):
        if metadata.host and metadata.host.rpartition(":")[2] != str(port):
            raise ClientError(
                f"{row.name}: {metadata.address} is served by {metadata.host}, which is not the"
                f" simulated machine at port {port}; nothing was written",
                reason="REHEARSAL_NOT_ISOLATED",
            )
