"""A rehearsal that takes longer than it may is aborted where it runs, and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey_client import Client
from drey_machine.rehearsal import Rehearsal
from drey_machine.rehearsal_run import RehearsedCourse, _RehearsedSite


class NeverDone(restore_service_pb2_grpc.RestoreServiceServicer):
    """Its restore waits for a device until somebody aborts it."""

    def __init__(self) -> None:
        self.aborted, self.why = asyncio.Event(), ""

    async def ExecutePlan(self, request: Any, context: Any) -> Any:
        running = restore_pb2.Restore(id="9", state=restore_pb2.RESTORE_STATE_WRITING)
        return restore_service_pb2.ExecutePlanResponse(restore=running)

    async def AbortRestore(self, request: Any, context: Any) -> Any:
        self.why = request.reason
        self.aborted.set()
        return restore_service_pb2.AbortRestoreResponse()

    async def WatchRestore(self, request: Any, context: Any) -> AsyncIterator[Any]:
        restore = restore_pb2.Restore(id="9", state=restore_pb2.RESTORE_STATE_WRITING)
        yield restore_service_pb2.WatchRestoreResponse(restore=restore)
        await self.aborted.wait()
        restore.state = restore_pb2.RESTORE_STATE_ABORTED
        restore.end_time.seconds = 1
        yield restore_service_pb2.WatchRestoreResponse(restore=restore)

    async def ReadRestore(self, request: Any, context: Any) -> AsyncIterator[Any]:
        item = restore_pb2.RestoreItem(name="X", verdict=restore_pb2.VERDICT_TIMED_OUT)
        yield restore_service_pb2.ReadRestoreResponse(items=[item])


async def test_what_is_not_over_in_time_is_aborted_there() -> None:
    plan = restore_pb2.Plan(id="7", writes=1)
    course, server, service = RehearsedCourse(plan), grpc.aio.server(), NeverDone()
    restore_service_pb2_grpc.add_RestoreServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}", "key") as client:
            site = _RehearsedSite(client, Rehearsal(), 0)
            execute = restore_service_pb2.ExecutePlanRequest()
            await site.execute_plan(course, execute, asyncio.get_running_loop().time())
    finally:
        await server.stop(None)
    assert course.cut_short
    assert course.restore.state == restore_pb2.RESTORE_STATE_ABORTED
    assert [item.name for item in course.items] == ["X"]
    assert "longer" in service.why
