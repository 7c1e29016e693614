"""Channel Access messages as bytes: a small codec of the server's side, without any I/O.

Written after the protocol's specification (https://docs.epics-controls.org, "Channel Access
Protocol Specification"). It says whatever it is told to, so that tests can say what no honest
server says: nothing is checked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

MINOR = 13
"""The protocol's minor version that the fake server claims."""

STRING, SHORT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
TIME, CTRL = 14, 28
FORMAT = ("40s", "h", "f", "H", "B", "i", "d")
SIZE = (40, 2, 4, 2, 1, 4, 8)
_TIME_PAD = (0, 2, 0, 2, 3, 0, 4)
_HEADER = struct.Struct(">HHHHII")
_LARGE = struct.Struct(">HHHHIIII")


class Command(IntEnum):
    """Those that the fake server says or hears."""

    VERSION = 0
    EVENT_ADD = 1
    EVENT_CANCEL = 2
    WRITE = 4
    SEARCH = 6
    ERROR = 11
    CLEAR_CHANNEL = 12
    READ_NOTIFY = 15
    CREATE_CHAN = 18
    WRITE_NOTIFY = 19
    ACCESS_RIGHTS = 22
    ECHO = 23
    CREATE_CH_FAIL = 26
    SERVER_DISCONN = 27


@dataclass(frozen=True)
class Message:
    """One message; `first` and `second` are the header's two parameters."""

    command: int
    payload: bytes = b""
    type: int = 0
    count: int = 0
    first: int = 0
    second: int = 0
    size: int | None = None
    """The payload's size as claimed; None for the truth, rounded up to 8 by padding."""

    def encode(self) -> bytes:
        """Header and payload, with the header's large form where a number needs it."""
        payload = self.payload
        size = self.size
        if size is None:
            payload += bytes(-len(payload) % 8)
            size = len(payload)
        ids = self.first & 0xFFFF_FFFF, self.second & 0xFFFF_FFFF
        if size >= 0xFFFF or self.count > 0xFFFF:
            large = size & 0xFFFF_FFFF, self.count & 0xFFFF_FFFF
            return _LARGE.pack(self.command, 0xFFFF, self.type, 0, *ids, *large) + payload
        return _HEADER.pack(self.command, size, self.type, self.count, *ids) + payload


class Parser:
    """Bytes of one direction to messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes."""
        self._buffer += data
        out: list[Message] = []
        while (message := self._next_message()) is not None:
            out.append(message)
        return out

    def _next_message(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < _HEADER.size:
            return None
        command, size, kind, count, first, second = _HEADER.unpack_from(buffer)
        start = _HEADER.size
        if size == 0xFFFF:
            if len(buffer) < _LARGE.size:
                return None
            *_, size, count = _LARGE.unpack_from(buffer)
            start = _LARGE.size
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return Message(command, payload, kind, count, first, second)


@dataclass
class FakeChannel:
    """What the fake server says of one name. `value` is `elements` of native type, big-endian."""

    native: int = DOUBLE
    value: bytes = bytes(8)
    capacity: int = 1
    rights: int = 3
    seconds: int = 1_000_000_000
    nanoseconds: int = 0
    status: int = 0
    severity: int = 0
    units: bytes = b""
    labels: tuple[bytes, ...] = ()
    states: int | None = None
    precision: int = 0
    limits: tuple[float, ...] = field(default=(0.0,) * 8)

    @property
    def elements(self) -> int:
        """How many `value` has."""
        return len(self.value) // SIZE[self.native]

    def payload(self, kind: int) -> bytes:
        """The value as DBR type `kind`: of the native basic type, whatever is asked."""
        basic, form = kind % 7, kind - kind % 7
        if form == TIME:
            head = struct.pack(">hhII", self.status, self.severity, self.seconds, self.nanoseconds)
            return head + bytes(_TIME_PAD[basic]) + self.value
        if form == CTRL:
            return self._control_fields(basic)
        return self.value

    def _control_fields(self, basic: int) -> bytes:
        head = struct.pack(">hh", self.status, self.severity)
        if basic == STRING:
            return head + self.value
        if basic == ENUM:
            states = len(self.labels) if self.states is None else self.states
            labels = b"".join(label[:26].ljust(26, b"\0") for label in self.labels)
            return head + struct.pack(">H", states & 0xFFFF) + labels.ljust(416, b"\0") + self.value
        if basic in (FLOAT, DOUBLE):
            head += struct.pack(">hxx", self.precision)
        number = float if basic in (FLOAT, DOUBLE) else int
        limits = struct.pack(">8" + FORMAT[basic], *map(number, self.limits))
        pad = b"\0" if basic == CHAR else b""
        return head + self.units[:8].ljust(8, b"\0") + limits + pad + self.value


def doubles(*values: float) -> bytes:
    """Values of a DOUBLE channel."""
    return struct.pack(f">{len(values)}d", *values)


def search_reply(port: int, cid: int) -> bytes:
    """The datagram that says: the channel that you search as `cid` is at this host's `port`."""
    version = Message(Command.VERSION, count=MINOR).encode()
    reply = Message(
        Command.SEARCH, struct.pack(">H", MINOR), type=port, first=0xFFFF_FFFF, second=cid
    )
    return version + reply.encode()


def searched(datagram: bytes) -> list[tuple[int, bytes]]:
    """Client ids and names that a client's datagram asks for."""
    return [
        (message.first, message.payload.split(b"\0", 1)[0])
        for message in Parser().feed(datagram)
        if message.command == Command.SEARCH
    ]
