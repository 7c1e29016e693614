"""A Channel Access server that answers as it is told: honestly, or as no server should.

`Circuit` is the protocol without I/O: bytes of a client in, bytes out. `FakeServer` puts it on a
loopback port of the pool, in the running event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import cast

from drey_testing.ca.ioc import return_port, take_port
from drey_testing.ca.wire import (
    MINOR,
    Command,
    FakeChannel,
    Message,
    Parser,
    search_reply,
    searched,
)

CUT = b"cut"
"""What a script gives instead of bytes to end the connection."""

Script = Callable[[Message, str], Iterable[Message | bytes]]
"""Turns an honest answer about a name into what is sent: messages, raw bytes, `CUT`."""


def honest(message: Message, name: str) -> list[Message | bytes]:
    """The script of a server that has nothing to hide."""
    del name
    return [message]


class Circuit:
    """One client's connection. `script` sees each answer before it goes."""

    def __init__(self, channels: dict[str, FakeChannel], script: Script = honest) -> None:
        self._channels, self._script = channels, script
        self._parser = Parser()
        self._names: dict[int, str] = {}
        self._next_id = 0
        self.subscriptions: dict[int, tuple[str, int]] = {}
        """Name and DBR type by subscription id."""
        self.writes: list[tuple[str, Message]] = []
        """What was written, with completion or without."""

    def greeting(self) -> list[bytes]:
        """What a server says first."""
        return [Message(Command.VERSION, count=MINOR).encode()]

    def receive(self, data: bytes) -> list[bytes]:
        """The answers to what came; `CUT` as an entry ends the connection."""
        out: list[bytes] = []
        for request in self._parser.feed(data):
            for name, answer in self._honest_answers(request):
                out += self._scripted_answers(answer, name)
        return out

    def post(self, name: str) -> list[bytes]:
        """Events with the present value for every subscription to `name`."""
        out: list[bytes] = []
        for number, (of, kind) in list(self.subscriptions.items()):
            if of == name and kind < 28:
                out += self._scripted_answers(
                    self._value_message(Command.EVENT_ADD, name, kind, 0, number), name
                )
        return out

    def _scripted_answers(self, answer: Message, name: str) -> list[bytes]:
        sent_messages = self._script(answer, name)
        return [each.encode() if isinstance(each, Message) else each for each in sent_messages]

    def _value_message(
        self, command: int, name: str, kind: int, asked: int, number: int
    ) -> Message:
        channel = self._channels[name]
        count = asked or channel.elements
        return Message(command, channel.payload(kind), kind, count, 1, number)

    def _honest_answers(self, request: Message) -> list[tuple[str, Message]]:
        command = request.command
        if command == Command.CREATE_CHAN:
            return self._create_channel(request)
        if command == Command.ECHO:
            return [("", request)]
        name = self._names.get(request.first, "")
        if not name:
            return []
        if command == Command.EVENT_ADD:
            self.subscriptions[request.second] = (name, request.type)
        if command in (Command.EVENT_ADD, Command.READ_NOTIFY):
            asked = request.type, request.count, request.second
            return [(name, self._value_message(command, name, *asked))]
        if command == Command.EVENT_CANCEL:
            self.subscriptions.pop(request.second, None)
            return [(name, Message(Command.EVENT_ADD, b"", request.type, 0, 1, request.second))]
        if command in (Command.WRITE, Command.WRITE_NOTIFY):
            self.writes.append((name, request))
        if command == Command.WRITE_NOTIFY:
            return [(name, Message(command, b"", request.type, request.count, 1, request.second))]
        if command == Command.CLEAR_CHANNEL:
            self._names.pop(request.first, None)
            return [(name, Message(command, b"", 0, 0, request.first, request.second))]
        return []

    def _create_channel(self, request: Message) -> list[tuple[str, Message]]:
        name = request.payload.split(b"\0", 1)[0].decode("latin-1")
        channel = self._channels.get(name)
        if channel is None:
            return [(name, Message(Command.CREATE_CH_FAIL, first=request.first))]
        self._next_id += 1
        self._names[self._next_id] = name
        rights = Message(Command.ACCESS_RIGHTS, first=request.first, second=channel.rights)
        created = Message(
            Command.CREATE_CHAN,
            b"",
            channel.native,
            channel.capacity,
            request.first,
            self._next_id,
        )
        return [(name, rights), (name, created)]


class FakeServer(asyncio.DatagramProtocol):
    """`channels` on a loopback port of the pool, for as long as the scope lasts.

    `channels` may be changed while it serves; `post` sends events then.

    """

    def __init__(
        self,
        channels: dict[str, FakeChannel],
        script: Script = honest,
    ) -> None:
        self.channels, self.script = channels, script
        self.port = take_port()
        self._writers: dict[asyncio.StreamWriter, Circuit] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._reads = asyncio.Event()
        self._reads.set()
        self.writes: list[tuple[str, Message]] = []
        """What was written over any circuit: names and requests."""

    async def __aenter__(self) -> FakeServer:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve_client, "127.0.0.1", self.port)
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", self.port)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._udp is not None:
            self._udp.close()
        self._tcp.close()
        self.cut()
        await asyncio.gather(*self._tasks)
        return_port(self.port)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer searches for the names that are here."""
        if self._udp is None:
            return
        for cid, name in searched(data):
            if name.decode("latin-1") in self.channels:
                self._udp.sendto(search_reply(self.port, cid), addr)

    def post(self, *names: str) -> None:
        """Send the present values of `names` to whoever subscribed."""
        for writer, circuit in list(self._writers.items()):
            for name in names:
                self._send_messages(writer, circuit.post(name))

    def say(self, *messages: Message | bytes) -> None:
        """Say something that nobody asked for, to every client."""
        for writer in list(self._writers):
            self._send_messages(
                writer, [m.encode() if isinstance(m, Message) else m for m in messages]
            )

    def stop_reading(self) -> None:
        """Take nothing more from any client, without saying so."""
        self._reads.clear()
        for writer in list(self._writers):
            cast(asyncio.Transport, writer.transport).pause_reading()

    def read_again(self) -> None:
        """Go on where reading was stopped."""
        self._reads.set()
        for writer in list(self._writers):
            cast(asyncio.Transport, writer.transport).resume_reading()

    def cut(self) -> None:
        """End every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    @property
    def circuits(self) -> list[Circuit]:
        """Those open now."""
        return list(self._writers.values())

    def _script_message(self, message: Message, name: str) -> Iterable[Message | bytes]:
        return self.script(message, name)  # which may have been exchanged since

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        circuit = Circuit(self.channels, self._script_message)
        circuit.writes = self.writes
        self._writers[writer] = circuit
        try:
            self._send_messages(writer, circuit.greeting())
            while data := await reader.read(1 << 16):
                await self._reads.wait()
                self._send_messages(writer, circuit.receive(data))
                await writer.drain()
        except ConnectionError:
            pass  # the client went, or we cut it off
        finally:
            del self._writers[writer]
            self._tasks.discard(task)
            writer.transport.abort()

    def _send_messages(self, writer: asyncio.StreamWriter, messages: list[bytes]) -> None:
        for each in messages:
            if writer.is_closing():
                return
            if each is CUT:
                writer.close()
            else:
                writer.write(each)
