"""A TCP proxy that stalls, cuts, delays, half-closes and chops.

It lives in a thread of its own: a client that blocks the test's event loop must not stop it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

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


class TcpProxy:
    """Before what serves on loopback port `upstream`, for as long as the scope lasts.

    `down` is the direction to the client, `up` that to the server; change them with `tell`.
    """

    def __init__(self, upstream: int, port: int = 0) -> None:
        self.port = port
        """Where it serves; from the beginning of the scope on one that was free, where 0."""
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self.accepted = 0
        self.down, self.up = Valve(), Valve()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.open_server(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self.close_server(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

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

    def refuse(self, refuses: bool = True) -> None:
        """End every connection, and those to come at once; or let them come again."""
        self._refuses = refuses
        if refuses:
            self.cut()

    def half_close(self) -> None:
        """Say to the client that nothing more will come, and go on listening to it."""
        self.tell(self._say_end)

    async def open_server(self) -> None:
        """In the proxy's thread."""
        self._tcp = await asyncio.start_server(self._serve_client, "127.0.0.1", self.port)
        self.port = self._tcp.sockets[0].getsockname()[1]

    async def close_server(self) -> None:
        """In the proxy's thread."""
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
            if self._refuses:
                return
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
