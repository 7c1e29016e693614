"""Clients of Envoy that open a stream and never read: cut as those of plain gRPC are."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drey_stack import Envoy, HttpOptions
from drey_stack.envoy_config import Upstream
from drey_stack.ports import LOOPBACK
from drey_testing.fixtures_gateway import (
    Gateway,
    GatewayRig,
    ScriptedOwner,
    catalog_pages,
    eventually,
    floats,
    name_of,
    readback,
    setpoint,
)
from tests.http_calls import call_http
from tests.integration.gateway.conftest import admin_key, postgres, rig, shards, url

__all__ = ["admin_key", "postgres", "rig", "shards", "url"]

PVS = 4000
READERS = 20
MOST_BYTES = 4 << 20
"""For one reader, in Envoy and the kernel: two messages as JSON, 1.3 MB each, and the windows."""
ACCEPTED = ("text/event-stream", "*/*")
CHANNELS = [channel for pv in range(1, PVS + 1) for channel in (setpoint(pv), readback(pv))]


async def publish(publisher: ScriptedOwner, value: float) -> None:
    await publisher.publish(floats(CHANNELS, [value] * len(CHANNELS)))


@pytest.fixture
async def served(
    rig: GatewayRig, tmp_path: Path
) -> AsyncIterator[tuple[Gateway, ScriptedOwner, Envoy]]:
    publisher = rig.publisher()
    await publisher.beat()
    await publisher.set_catalog(catalog_pages(PVS))
    await publish(publisher, 0.0)
    publisher.start()
    gateway = await rig.ready_gateway(gateway_stall_cut="1")
    async with Envoy(tmp_path / "envoy", Upstream(LOOPBACK, gateway.port), HttpOptions()) as envoy:
        yield gateway, publisher, envoy
    await publisher.stop()


def open_silent(envoy: Envoy, accept: str, key: str) -> socket.socket:
    """A watch of everything whose answer nobody reads."""
    body = json.dumps({"spec": {"selector": {"all": True}}}).encode()
    silent = socket.socket()
    silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    silent.connect((LOOPBACK, envoy.port))
    silent.sendall(
        b"POST /v1/values:watch HTTP/1.1\r\nhost: drey\r\ncontent-type: application/json\r\n"
        + f"accept: {accept}\r\nauthorization: Bearer {key}\r\n".encode()
        + f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return silent


async def read_on(silent: socket.socket) -> tuple[bytes, bool]:
    """What comes when it reads after all; whether it was broken off, or ended with a status."""
    reader, writer = await asyncio.open_connection(sock=silent)
    received = b""
    try:
        async with asyncio.timeout(60):
            while not received.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in received[-2000:]:
                part = await reader.read(1 << 16)
                if not part:
                    return received, True
                received += part
            return received, False
    finally:
        writer.close()


async def test_a_stream_that_nobody_reads_is_cut(served, admin_key: str) -> None:
    gateway, publisher, envoy = served
    value = 0.0

    async def cut() -> bool:
        nonlocal value
        value += 1.0
        await publish(publisher, value)
        return gateway.log.count("a call is cut") >= READERS

    silent = [open_silent(envoy, ACCEPTED[i % 2], admin_key) for i in range(READERS)]
    await eventually(cut, "all are cut")
    # little is kept for them, and who reads after all finds that it is not the whole
    for received, broken_off in await asyncio.gather(*map(read_on, silent)):
        assert received.startswith(b"HTTP/1.1 200") and len(received) < MOST_BYTES
        assert broken_off or b"grpc-status: 8" in received[-2000:], received[-500:]
    body = b'{"selector": {"names": ["%s"]}}' % name_of(1).encode()
    answer = await asyncio.to_thread(
        call_http, envoy.url, "POST", "/v1/values:get", body, authorization=f"Bearer {admin_key}"
    )
    assert answer.status == 200 and b"float64Value" in answer.body
