"""No client of NATS ends without another one taking its place."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from drey_core.errors import Unavailable
from drey_runtime import bus as module
from drey_runtime.bus import Bus
from drey_stack import Nats

from .conftest import running, until


@pytest.fixture
async def own_nats(tmp_path: Path) -> AsyncIterator[Nats]:
    """A server that a test may reconfigure and kill."""
    async with Nats(tmp_path / "nats") as part:
        yield part


def reload(part: Nats, text: str) -> None:
    """Give the running server another configuration."""
    (part.folder / "nats.conf").write_text(text)
    assert part.pid is not None
    psutil.Process(part.pid).send_signal(signal.SIGHUP)


def configuration(part: Nats) -> str:
    return (part.folder / "nats.conf").read_text()


class Ear:
    """Counts what a subscription hears."""

    def __init__(self) -> None:
        self.heard: set[bytes] = set()

    async def hear(self, message: Msg) -> None:
        self.heard.add(message.data)


async def hears(speaker: Bus, subject: str, ear: Ear) -> None:
    """Return once something that is published now arrives."""
    word = uuid.uuid4().bytes

    async def told() -> bool:
        try:
            await speaker.publish(subject, word)
        except Unavailable:
            return False
        await asyncio.sleep(0.02)
        return word in ear.heard

    await until(told, 60)


@asynccontextmanager
async def pair(url: str) -> AsyncIterator[tuple[Bus, Bus, Ear]]:
    """A bus that listens, and one that speaks."""
    listener, speaker, ear = Bus(url, "t", "listener"), Bus(url, "t", "speaker"), Ear()
    await listener.subscribe_handler("t.v1.words", ear.hear)
    async with running(listener, speaker):
        await listener.wait_connected(60)
        await speaker.wait_connected(60)
        await hears(speaker, "t.v1.words", ear)
        yield listener, speaker, ear


async def test_a_limit_of_connections_that_came_and_went(own_nats: Nats) -> None:
    before = configuration(own_nats)
    async with pair(own_nats.url) as (listener, speaker, ear):
        reload(own_nats, before + "max_connections: 1\n")
        await until(lambda: not (listener.connected and speaker.connected), 60)
        reload(own_nats, before)
        await until(lambda: listener.connected and speaker.connected, 60)
        await hears(speaker, "t.v1.words", ear)
        assert listener.reconnects + speaker.reconnects > 0


async def test_a_subscription_that_is_refused_is_no_connection(own_nats: Nats) -> None:
    before = configuration(own_nats)
    start, end = before.index("authorization {"), before.index("}\n") + 2
    user = before[start:end].removeprefix("authorization").strip().strip("{}")

    def with_permissions(text: str) -> str:
        users = f"users: [{{ {user}, permissions: {{ {text} }} }}]"
        return before[:start] + f"authorization {{ {users} }}\n" + before[end:]

    async with pair(own_nats.url) as (listener, speaker, ear):
        reload(own_nats, with_permissions('subscribe: { deny: "t.>" }'))
        await until(lambda: not listener.connected, 60)
        await asyncio.sleep(0.5)
        assert not listener.connected
        reload(own_nats, with_permissions('subscribe: { allow: ">" }'))
        await until(lambda: listener.connected, 60)
        await hears(speaker, "t.v1.words", ear)


async def test_a_server_that_is_retired(own_nats: Nats) -> None:
    """Lame duck: it lets its clients go one by one, and ends; another takes its place."""
    duck = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "1ms"\n'
    reload(own_nats, configuration(own_nats) + duck)
    async with pair(own_nats.url) as (listener, speaker, ear):
        assert own_nats.pid is not None
        psutil.Process(own_nats.pid).send_signal(signal.SIGUSR2)
        async with asyncio.timeout(60):
            await own_nats.wait()
        await own_nats.stop()
        await own_nats.start()
        await until(lambda: listener.connected and speaker.connected, 60)
        await hears(speaker, "t.v1.words", ear)


class Injector:
    """Passes a connection on, and can say something of its own to the client."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Injector:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for client in self._clients:
            client.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._clients += [writer, up_writer]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, up_writer))
            group.create_task(self._copy(up_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def say(self, line: str) -> None:
        for client in self._clients[::2]:
            if not client.is_closing():
                client.write(line.encode() + b"\r\n")


@pytest.mark.parametrize(
    "text",
    [
        "User Authentication Expired",
        "User Authentication Revoked",
        "Authorization Violation",
        "Slow Consumer",
        "Secure Connection - TLS Required",
        "Maximum Control Line Exceeded",
        "Stale Connection",
        "Server Shutdown",
        "anything that a later server may say",
    ],
)
async def test_whatever_the_server_says(own_nats: Nats, text: str) -> None:
    async with Injector(own_nats.port) as between:
        url = own_nats.url.replace(f":{own_nats.port}", f":{between.port}")
        async with pair(url) as (listener, speaker, ear):
            before = listener.reconnects
            between.say(f"-ERR '{text}'")
            await until(lambda: listener.reconnects > before, 60)
            await until(lambda: listener.connected and speaker.connected, 60)
            await hears(speaker, "t.v1.words", ear)


@pytest.mark.parametrize("turns", [0, 1, 2, 20])
async def test_a_client_whose_reconnecting_died(
    own_nats: Nats, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Whichever step of the reconnecting is cancelled, its own close among them."""
    monkeypatch.setattr(module, "_GIVE_UP_S", 0.3)
    lose = Client._process_op_err
    ending: list[asyncio.Task[None]] = []

    async def end_it(client: Client) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if client._reconnection_task is not None:
            client._reconnection_task.cancel()

    async def lose_and_end(client: Client, error: Exception) -> None:
        await lose(client, error)
        ending.append(asyncio.create_task(end_it(client)))

    monkeypatch.setattr(Client, "_process_op_err", lose_and_end)
    async with pair(own_nats.url) as (listener, speaker, ear):
        await own_nats.kill()
        await until(lambda: not listener.connected)
        await own_nats.start()
        await until(lambda: len(ending) >= 2 and listener.connected and speaker.connected, 60)
        await hears(speaker, "t.v1.words", ear)
