"""The same for programs without asyncio: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from drey.audit.v1 import audit_pb2
from drey.catalog.v1 import catalog_pb2
from drey.snapshot.v1 import snapshot_pb2
from drey_client.audit import AuditedRestore
from drey_client.choosing import Chosen
from drey_client.client import Client
from drey_client.pv_files import PvImport
from drey_client.settings import Connection
from drey_client.tables import ComparisonTable, ValueTable
from drey_client.values import LivePv
from drey_client.watch import LiveChange, LiveWatch

T = TypeVar("T")
_WAITING = 64


class BlockingClient:
    """As `Client`, with calls that block. Its methods may be called from several threads.

    Not inside a running event loop: there it would stop the loop.
    """

    def __init__(self, server: str, key: str = "", **options: Any) -> None:
        """`options` are those of `Client`."""
        self._client = Client(server, key, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """See `Client.of`."""
        return cls(**asdict(connection))

    def __enter__(self) -> BlockingClient:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="drey-client", daemon=True
        )
        self._thread.start()
        self._run_coroutine(self._client.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._run_coroutine(self._close_client())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._loop = self._thread = None

    async def _close_client(self) -> None:
        await self._client.__aexit__(None, None, None)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _run_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("the client is not entered: with BlockingClient(...) as drey")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def watch(self, chosen: Chosen, **options: Any) -> BlockingWatch:
        """Follow PVs: `with drey.watch("QUAD:*") as watch`, then `for change in watch`.

        See `Client.watch`.
        """
        if self._loop is None:
            raise RuntimeError("the client is not entered: with BlockingClient(...) as drey")
        return BlockingWatch(self._client.watch(chosen, **options), self._loop)

    def get(self, chosen: Chosen) -> list[LivePv]:
        """See `Client.get`."""
        return self._run_coroutine(self._client.get(chosen))

    def find(self, address: str) -> catalog_pb2.Pv:
        """See `Client.find`."""
        return self._run_coroutine(self._client.find(address))

    def import_pvs(self, path: str | Path, **options: Any) -> PvImport:
        """See `Client.import_pvs`."""
        return self._run_coroutine(self._client.import_pvs(path, **options))

    def snapshots(self, limit: int = 100, **filters: Any) -> list[snapshot_pb2.Snapshot]:
        """See `Client.snapshots`."""
        return self._run_coroutine(self._client.snapshots(limit, **filters))

    def acts(self, limit: int = 100, **filters: Any) -> list[audit_pb2.AuditEvent]:
        """See `Client.acts`."""
        return self._run_coroutine(self._client.acts(limit, **filters))

    def read_record(self, restore_id: str) -> AuditedRestore:
        """See `Client.read_record`."""
        return self._run_coroutine(self._client.read_record(restore_id))

    def take_snapshot(self, chosen: Chosen = "*", **options: Any) -> snapshot_pb2.Snapshot:
        """See `Client.take_snapshot`."""
        return self._run_coroutine(self._client.take_snapshot(chosen, **options))

    def read_snapshot(self, snapshot_id: str, chosen: Chosen | None = None) -> ValueTable:
        """See `Client.read_snapshot`."""
        return self._run_coroutine(self._client.read_snapshot(snapshot_id, chosen))

    def compare(self, reference: str, other: str | None = None, **options: Any) -> ComparisonTable:
        """See `Client.compare`."""
        return self._run_coroutine(self._client.compare(reference, other, **options))


class BlockingWatch:
    """Changes of some PVs, by `for`; ends when it is closed, from any thread.

    Up to 64 changes wait for the reader; then nothing more is read from the server, which merges
    for it.
    """

    def __init__(self, watch: LiveWatch, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changes: queue.SimpleQueue[LiveChange | BaseException | None] = queue.SimpleQueue()
        self._room = asyncio.Event()
        self._closed = threading.Event()
        self._reading = asyncio.run_coroutine_threadsafe(self._read_changes(watch), loop)
        self._reading.add_done_callback(self._end_reading)

    async def _read_changes(self, watch: LiveWatch) -> None:
        async for change in watch:
            while self._changes.qsize() >= _WAITING:
                self._room.clear()
                if self._changes.qsize() >= _WAITING:
                    await self._room.wait()
            self._changes.put(change)

    def _end_reading(self, reading: Future[None]) -> None:
        self._changes.put(None if reading.cancelled() else reading.exception())

    def __enter__(self) -> BlockingWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it: the reader's loop is over, also where it waits in another thread."""
        self._closed.set()
        self._reading.cancel()

    def __iter__(self) -> Iterator[LiveChange]:
        while not self._closed.is_set():
            item = self._changes.get()
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._room.set)
            if item is None:
                return
            if isinstance(item, BaseException):
                self._closed.set()
                raise item
            yield item
