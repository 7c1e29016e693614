"""A TCP proxy before an IOC that stalls, cuts, delays, half-closes and chops.

libca connects to whatever port a search reply names, so the proxy answers the searches for its
names itself, on a port of the pool, and the IOC serves on another port where no search goes.
It lives in a thread of its own: a client that blocks the test's event loop must not stop it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

from drey_testing.ca.ioc import return_port, take_port
from drey_testing.ca.wire import search_reply, searched

T = TypeVar("T")
_CHUNK = 1 << 16


class Valve:
    """One direction of every connection through the proxy. Use it in the proxy's thread only."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds before each chunk."""
        self.chunk = _CHUNK
        """Bytes that go at once at most."""
        self.passed = 0
        self._open = asyncio.Event()
        self._open.set()
        self._left: int | None = None
        self._cutting = False

    def stall(self, after: int = 0) -> None:
        """Let `after` more bytes through, then hold everything back."""
        self._left, self._cutting = after, False
        if not after:
            self._open.clear()

    def cut(self, after: int) -> None:
        """Let `after` more bytes through, then end the connection."""
        self._left, self._cutting = after, True

    def flow(self) -> None:
        """Let through again what was held back, and everything after it."""
        self._left = None
        self._open.set()

    async def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write `data` as the valve stands. Raises ConnectionError where it cuts."""
        while data:
            await self._open.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            room = self.chunk if self._left is None else min(self.chunk, self._left)
            part, data = data[:room], data[room:]
            writer.write(part)
            await writer.drain()
            self.passed += len(part)
            self._count_bytes(len(part))

    def _count_bytes(self, size: int) -> None:
        if self._left is None:
            return
        self._left -= size
        if self._left > 0:
            return
        self._left = None
        if self._cutting:
            raise ConnectionError("cut")
        self._open.clear()


class Proxy(asyncio.DatagramProtocol):
    """Serves `names` of the IOC at `upstream` for as long as the scope lasts.

    `down` is the direction to the client, `up` that to the IOC; change them with `tell`.
    """

    def __init__(self, upstream: int, names: Collection[str]) -> None:
        self._upstream, self._names = upstream, frozenset(names)
        self._port = take_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self.accepted = 0
        self.down, self.up = Valve(), Valve()

    def __enter__(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open_server(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close_server(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        return_port(self._port)

    def tell(self, action: Callable[[], T]) -> T:
        """Run `action` in the proxy's thread; what it returns."""
        done: Future[T] = Future()

        def run() -> None:
            done.set_result(action())

        self._loop.call_soon_threadsafe(run)
        return done.result(10)

    def cut(self) -> None:
        """End every connection, both ways at once."""
        self.tell(self._abort_connections)

    def half_close(self) -> None:
        """Say to the client that nothing more will come, and go on listening to it."""
        self.tell(self._say_end)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer searches: the names are here."""
        for cid, name in searched(data):
            if self._udp is not None and name.decode("latin-1") in self._names:
                self._udp.sendto(search_reply(self._port, cid), addr)

    async def _open_server(self) -> None:
        self._tcp = await asyncio.start_server(self._serve_client, "127.0.0.1", self._port)
        address = ("127.0.0.1", self._port)
        self._udp, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=address)

    async def _close_server(self) -> None:
        if self._udp is not None:
            self._udp.close()
        self._tcp.close()
        self.down.flow()
        self.up.flow()
        self._abort_connections()
        await asyncio.gather(*self._tasks)

    def _abort_connections(self) -> None:
        for pair in self._writers:
            for writer in pair:
                writer.transport.abort()

    def _say_end(self) -> None:
        for client, _ in self._writers:
            client.write_eof()

    async def _serve_client(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        server: asyncio.StreamWriter | None = None
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._upstream)
            self._writers.append((client, server))
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump_bytes(reader, server, self.up))
                both.create_task(_pump_bytes(answers, client, self.down))
        except* ConnectionError:
            pass  # one side went, or a valve cut it off
        finally:
            self._tasks.discard(task)
            client.transport.abort()
            if server is not None:
                self._writers.remove((client, server))
                server.transport.abort()


async def _pump_bytes(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, valve: Valve
) -> None:
    while data := await reader.read(_CHUNK):
        await valve.pass_on(data, writer)
    raise ConnectionResetError("the other side ended")
