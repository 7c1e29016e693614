"""Servers from outside: those are used that a variable names, and only the others are started."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from drey.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey_stack import Nats, Postgres, Valkey
from drey_stack.whole import Stack, StackOptions


async def imported(stack: Stack) -> int:
    """Bring one PV into the catalog, which goes through Postgres, NATS and Redis."""
    call = {"metadata": (("authorization", f"Bearer {stack.key}"),), "timeout": 300}
    options = catalog_service_pb2.ImportOptions(format="FILE_FORMAT_CSV", request_id=str(uuid4()))
    requests = [
        catalog_service_pb2.ImportPvsRequest(options=options),
        catalog_service_pb2.ImportPvsRequest(data=b"Setpoint,Readback\nA:B,\n"),
    ]
    async with stack.channel() as channel:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        *_, last = [answer async for answer in catalog.ImportPvs(iter(requests), **call)]
        monitor = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        chosen = selector_pb2.Selector(all=True)
        request = monitor_service_pb2.GetValuesRequest(selector=chosen)
        while True:  # the gateway reads the image, and hears of it, in a moment
            try:
                answers = monitor.GetValues(request, **call)
                found = [row async for answer in answers for row in answer.rows]
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                found = []
            if found:
                break
            await asyncio.sleep(0.05)
    return last.summary.added


@pytest.mark.parametrize("owned", [True, False])
async def test_all_three_from_outside(owned: bool, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(Postgres(tmp_path / "p", fsync=False))
        nats = await stack.enter_async_context(Nats(tmp_path / "n"))
        valkey = await stack.enter_async_context(Valkey(tmp_path / "v", socket=not owned))
        environment = {
            "DREY_POSTGRES_URL": postgres.service_url if owned else postgres.url,
            "DREY_NATS_URL": nats.url,
            "DREY_REDIS_URL": valkey.url,
        }
        said: list[str] = []
        options = StackOptions(
            tmp_path / "state",
            environment=environment,
            postgres_owner_url=postgres.url if owned else "",
            say=said.append,
        )
        running = await stack.enter_async_context(Stack(options))
        assert await imported(running) == 1
        assert not [
            name for name in ("postgres", "nats", "valkey") if (running.folder / name).exists()
        ]
        assert "using the server that DREY_REDIS_URL names" in said[0]


async def test_one_from_outside(tmp_path: Path) -> None:
    async with Nats(tmp_path / "n") as nats:
        environment = {"DREY_NATS_URL": nats.url}
        options = StackOptions(tmp_path / "state", environment=environment, fsync=False)
        async with Stack(options) as running:
            assert await imported(running) == 1
            assert (running.folder / "postgres").exists()
            assert not (running.folder / "nats").exists()


async def test_many_shards_and_monitors(tmp_path: Path) -> None:
    options = StackOptions(tmp_path / "state", shards=64, monitors=2, fsync=False)
    async with Stack(options) as running:
        assert await imported(running) == 1


async def test_a_port_that_somebody_takes_is_sent_no_key(tmp_path: Path) -> None:
    with socket.socket() as thief:

        def say(text: str) -> None:
            if text == "starting the services":
                thief.bind(("127.0.0.1", int(running.server.rpartition(":")[2])))
                thief.listen()

        running = Stack(StackOptions(tmp_path / "state", fsync=False, say=say))
        async with running:
            taken = thief.getsockname()[1]
            assert running.server != f"127.0.0.1:{taken}"
            assert await imported(running) == 1
