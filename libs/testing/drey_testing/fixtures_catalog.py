"""The snapshot service in the test's own process, over real parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey_runtime.app import App
from drey_runtime.auth import TOKEN_METADATA, Principal, TokenSigner, make_keys
from drey_runtime.settings import CommonSettings
from drey_stack.ports import free_port

Main = Callable[..., Awaitable[None]]


@asynccontextmanager
async def running(main: Main, settings: CommonSettings) -> AsyncIterator[None]:
    """A service's composition root, run in a task of its own until the block ends.

    What it raises while it starts comes out of here at once; what a loop raises later comes out
    at the end of the block.
    """
    stop, up = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(_run(main, settings, up, stop))
    waiting = asyncio.create_task(up.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield
    finally:
        stop.set()
        waiting.cancel()
        await task


async def _run(
    main: Main, settings: CommonSettings, up: asyncio.Event, stop: asyncio.Event
) -> None:
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.TaskGroup() as group:
                app = App(stack, group)
                await main(settings, app)
                up.set()
                await stop.wait()
                app.stopping.set()
                raise _Done
        except* _Done:
            pass


class _Done(Exception):
    pass


def loopback() -> str:
    """An address on loopback that is free now."""
    return f"127.0.0.1:{free_port()}"


TESTER = ("operator", "editor", "keeper")
"""Roles of who calls the snapshot service where a test does not say."""


class Keys:
    """Keys of a site in a folder, and calls signed by its gateway."""

    def __init__(self, folder: Path) -> None:
        make_keys(folder, ["gateway", "snapshot", "monitor", "restore"])
        self.folder = folder
        self.trusted = folder / "trusted.json"
        self._gateway = TokenSigner.from_file("gateway", folder / "gateway.pem")

    def metadata(
        self, method: str, roles: tuple[str, ...] = TESTER, name: str = "tester", key_id: str = ""
    ) -> tuple[tuple[str, str], ...]:
        """Metadata of a call of a method of the snapshot service by a user with some roles.

        Without `key_id` it is as one of our own parts, whose calls are of no key's share.
        """
        token = self._gateway.sign_token(Principal(name, roles, key_id), "snapshot", method)
        return ((TOKEN_METADATA, token),)


async def until_serving(channel: grpc.aio.Channel, seconds: float = 300.0) -> None:
    """Return once the server behind `channel` says that it serves. Raises TimeoutError."""
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="drey.snapshot.v1.SnapshotService")
    async with asyncio.timeout(seconds):
        while True:
            with suppress(grpc.aio.AioRpcError):
                answer = await health.Check(request, timeout=1, wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.02)
