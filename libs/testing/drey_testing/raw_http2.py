"""A hostile gRPC client: speaks as much HTTP/2 as opens calls, and never lets an answer through.

It grants no window beyond the first 64 KiB of a connection and, unless told to, reads nothing.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_INITIAL_WINDOW = 4
_END_HEADERS = 4


def _make_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _hpack_text(raw: bytes) -> bytes:
    """A string of HPACK, shorter than 255 bytes, not compressed."""
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    return bytes([127, len(raw) - 127]) + raw


class StubbornClient:
    """One connection. `polite`: it reads, and answers pings and settings, but grants no window.

    `window`: the bytes of each answer that it takes, 64 KiB by default; with 0 even a message of a
    few bytes waits.
    """

    def __init__(
        self, host: str, port: int, *, polite: bool = False, window: int | None = None
    ) -> None:
        self._host, self._port, self._polite = host, port, polite
        self._settings = b"" if window is None else struct.pack(">HI", _INITIAL_WINDOW, window)
        self._next = 1
        self._reading: asyncio.Task[None] | None = None
        self.ended: set[int] = set()
        """Streams that the server has ended."""
        self.closed = asyncio.Event()
        """The server closed the connection; only a polite client notices."""

    async def __aenter__(self) -> Self:
        # a small buffer, so that the kernel takes little in the place of the program
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, limit=1 << 10
        )
        self._writer.write(_PREFACE + _make_frame(_SETTINGS, 0, 0, self._settings))
        if self._polite:
            self._reading = asyncio.create_task(self._read_frames())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()

    async def call(self, path: str, message: bytes, key: str) -> int:
        """Open a call with one request; the number of its stream."""
        stream, self._next = self._next, self._next + 2
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": f"{self._host}:{self._port}",
            "te": "trailers",
            "content-type": "application/grpc",
            "authorization": f"Bearer {key}",
        }
        block = b"".join(
            b"\0" + _hpack_text(k.encode()) + _hpack_text(v.encode()) for k, v in headers.items()
        )
        body = b"\0" + struct.pack(">I", len(message)) + message
        self._writer.write(
            _make_frame(_HEADERS, _END_HEADERS, stream, block)
            + _make_frame(_DATA, _END_STREAM, stream, body)
        )
        await self._writer.drain()
        return stream

    def _note_data(self, stream: int, payload: bytes) -> None:
        """Nobody reads what comes."""

    async def _read_frames(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                size = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = await self._reader.readexactly(size)
                if kind in (_SETTINGS, _PING) and not flags & _ACK:
                    self._writer.write(
                        _make_frame(kind, _ACK, 0, payload if kind == _PING else b"")
                    )
                elif kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
                    self.ended.add(stream)
                if kind == _DATA:
                    self._note_data(stream, payload)
        except (OSError, asyncio.IncompleteReadError):
            self.closed.set()


class SlowClient(StubbornClient):
    """A polite client that reads, but of each answer `window` bytes and what `grant` adds."""

    def __init__(self, host: str, port: int, *, window: int) -> None:
        super().__init__(host, port, polite=True, window=window)
        self._unread: dict[int, bytearray] = {}

    async def grant(self, stream: int, size: int) -> None:
        """Take so many bytes more of an answer."""
        more = struct.pack(">I", size)
        for number in (0, stream):
            self._writer.write(_make_frame(_WINDOW_UPDATE, 0, number, more))
        await self._writer.drain()

    def take_messages(self, stream: int) -> list[bytes]:
        """The messages of an answer that have come whole, each given once."""
        unread, found = self._unread.get(stream, bytearray()), list[bytes]()
        while len(unread) >= 5 and len(unread) >= (end := 5 + int.from_bytes(unread[1:5], "big")):
            found.append(bytes(unread[5:end]))
            del unread[:end]
        return found

    def _note_data(self, stream: int, payload: bytes) -> None:
        self._unread.setdefault(stream, bytearray()).extend(payload)
