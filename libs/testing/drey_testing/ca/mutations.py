"""Ways in which a server's answer can be wrong. Each takes an honest message, gives what is sent.

`FATAL` are apart: what they say spoils libca's own memory or lists before any callback is asked.
No table can help, and libca tells nobody how long a payload was. Places are of epics-base 7.0.10,
modules/ca/src/client:

- `convert_beyond`: libca converts numbers to host order in place and believes the count
  (`caNetConvert` with `hdr.m_count` in cac.cpp's `eventRespAction` and `readNotifyRespAction`; the
  loops are in convert.cpp). The count is never held against `m_postsize`, so a larger one swaps
  bytes beyond the receive buffer, which has 16 KiB unless a larger message came before. Within
  the buffer the surplus is what earlier messages left there.
- `error_beyond`: cac.cpp's `exceptionRespAction` checks the error message's own command, which is
  always 11, where it means the failed request's, and so calls through
  `tcpExcepJumpTableCAC[req.m_cmmd]` for any 16-bit `req.m_cmmd`.
- `error_about_another`: an error about a read that has a subscription's number takes the
  subscription out of libca's table but not off its channel's list (cac.cpp,
  `ioExceptionNotifyAndUninstall`); `nciu::destroy` (nciu.cpp) then never ends, its assertion
  being compiled out. An honest server gets there too, since libca reads under a subscription's
  number when a circuit that was silent answers again (`subscriptionUpdateRequest`). About a
  subscription with a read's number, the read is freed and stays in the table.
- `old_read`: cac.cpp's `readRespAction` takes whatever has the number out of libca's table, a
  subscription too; the rest is as above.
- `gone_event`: an event with status ECA_CHANDESTROY makes `netSubscription::exception`
  (netSubscription.cpp) free the subscription that stays in libca's table.
- `size_wraps`: `tcpiiu::processIncoming` (tcpiiu.cpp) rounds a payload's size up to 4 KiB in 32
  bits: one above 0xFFFFF000 becomes a buffer of no bytes, which later counts as one of 16 KiB.
- `boast`: characters and strings are not converted, and the tables refuse more than was agreed
  when the channel was made. A channel that was made with 2**32 elements agrees to anything: whoever
  copies what libca says is there leaves the receive buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from drey_testing.ca.fake_server import CUT
from drey_testing.ca.wire import CHAR, STRING, Command, Message

Said = list[Message | bytes]
Mutation = Callable[[Random, Message], Said]

_ROOM = 15_000
"""Bytes that libca's smallest receive buffer surely has beyond the head of a structure."""

_VALUES = (Command.EVENT_ADD, Command.READ_NOTIFY)


def _is_value(message: Message) -> bool:
    return message.command in _VALUES and bool(message.payload)


def _safe_count(kind: int, count: int) -> int:
    """`count`, or as many as libca may convert without leaving its buffer."""
    return count if kind % 7 in (STRING, CHAR) else min(count, _ROOM // 8)


def more_than_agreed(random: Random, message: Message) -> Said:
    """More elements, all of them there."""
    count = message.count + random.choice([1, 2, 3, 8, 100, 1_000])
    size = max(len(message.payload) // max(message.count, 1), 1)
    extra = random.randbytes(size * (count - message.count))
    return [
        replace(message, count=_safe_count(message.type, count), payload=message.payload + extra)
    ]


def huge_count(random: Random, message: Message) -> Said:
    """A count that no memory has, as far as libca bears it."""
    count = random.choice([0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
    return [replace(message, count=_safe_count(message.type, count))]


def no_elements(random: Random, message: Message) -> Said:
    """None, with or without a payload."""
    return [replace(message, count=0, payload=random.choice([message.payload, bytes(16)]))]


def short_payload(random: Random, message: Message) -> Said:
    """Less than the count needs."""
    return [replace(message, payload=message.payload[: random.randrange(0, 24)])]


def other_type(random: Random, message: Message) -> Said:
    """A type that was not asked for, or that there is not."""
    kind = random.choice([*range(40), 255, 32_767, 65_535])
    return [replace(message, type=kind, count=min(message.count, 100))]


def no_end(random: Random, message: Message) -> Said:
    """No NUL in any text; whatever counts states is large."""
    return [replace(message, payload=bytes([random.choice([0x41, 0xFF])]) * len(message.payload))]


def noise(random: Random, message: Message) -> Said:
    """Random bytes of the right size."""
    return [replace(message, payload=random.randbytes(len(message.payload)))]


def other_status(random: Random, message: Message) -> Said:
    """An ECA code of any kind, or none."""
    return [replace(message, first=random.choice([0, 48, 80, 114, 152, 160, 192, 368, 999, 2**31]))]


def wrong_id(random: Random, message: Message) -> Said:
    """An answer to nobody."""
    return [replace(message, second=random.choice([0x7FFF_FFFF, 0xFFFF_FFFF, 0xFFFF_0000]))]


def twice(random: Random, message: Message) -> Said:
    """The same again."""
    del random
    return [message, message]


def never(random: Random, message: Message) -> Said:
    """No answer."""
    del random, message
    return []


def odd_channel(random: Random, message: Message) -> Said:
    """A channel of a type or count that there is not, or not at all."""
    return [
        random.choice(
            [
                replace(message, type=random.randrange(7)),
                replace(message, count=random.choice([0, 2, 100])),
                replace(message, first=0xFFFF_FFFF),
                replace(message, command=Command.CREATE_CH_FAIL),
                Message(Command.SERVER_DISCONN, first=message.first),
            ]
        )
    ]


def odd_rights(random: Random, message: Message) -> Said:
    """Any bits as rights."""
    return [replace(message, second=random.choice([0, 1, 2, 3, 0xFFFF_FFFC, 0xFFFF_FFFF]))]


def error(random: Random, message: Message) -> Said:
    """An error message about a subscription, with a text that has no end."""
    if message.command != Command.EVENT_ADD:  # see `error_about_another`
        return [message]
    about = replace(message, payload=b"").encode()
    return [Message(Command.ERROR, about + b"x" * random.randrange(64), second=152)]


def unknown_command(random: Random, message: Message) -> Said:
    """A command that there is not: libca ends the connection."""
    return [replace(message, command=random.choice([28, 29, 255, 65_535]))]


def truncated(random: Random, message: Message) -> Said:
    """The beginning of a message, and the end of the connection."""
    raw = message.encode()
    return [raw[: random.randrange(len(raw))], CUT]


def wrong_size(random: Random, message: Message) -> Said:
    """A payload that is not as long as claimed, and the end of the connection."""
    size = random.choice([8, 7, 0x4000, 0x10000, 0x7FFF_FFF8, 0xFFFF_EFF8])
    return [replace(message, size=size, payload=bytes(len(message.payload))), CUT]


def no_such_type(random: Random, message: Message) -> Said:
    """A channel of a type that there is not: libca ends the thread that receives."""
    return [replace(message, type=random.choice([7, 37, 255, 32_767, 65_535])), CUT]


def size_wraps(random: Random, message: Message) -> Said:
    """A payload size that libca rounds up to nothing."""
    del random
    return [replace(message, size=0xFFFF_FFF8), CUT]


def enormous(random: Random, message: Message) -> Said:
    """A channel of 2**32 elements."""
    del random
    return [replace(message, count=0xFFFF_FFFF)]


def boast(random: Random, message: Message) -> Said:
    """As many characters as the channel was said to have, and none of them there."""
    kind = random.choice([14, 18])
    return [replace(message, type=kind, count=0x0FFF_FFFF, payload=bytes(16))]


def convert_beyond(random: Random, message: Message) -> Said:
    """A count of numbers that libca converts beyond its buffer."""
    del random
    return [replace(message, count=0x0FFF_FFFF)]


def error_beyond(random: Random, message: Message) -> Said:
    """An error about a request that there is not, which libca looks up beyond its table."""
    about = replace(message, command=random.randrange(1_000, 0xFFFF), payload=b"").encode()
    return [Message(Command.ERROR, about + bytes(8), second=152)]


def error_about_another(random: Random, message: Message) -> Said:
    """An error about a request of another kind with this one's number."""
    other = Command.READ_NOTIFY if message.command == Command.EVENT_ADD else Command.EVENT_ADD
    about = replace(message, command=other, payload=b"").encode()
    return [Message(Command.ERROR, about + random.randbytes(8), second=152)]


def old_read(random: Random, message: Message) -> Said:
    """An event as the answer to a read of the protocol's first versions."""
    del random
    return [replace(message, command=3)]


def gone_event(random: Random, message: Message) -> Said:
    """The status that only libca itself gives, when a channel is cleared."""
    del random
    return [replace(message, first=440)]


VALUE: list[Mutation] = [
    more_than_agreed,
    huge_count,
    no_elements,
    short_payload,
    other_type,
    no_end,
    noise,
    other_status,
    wrong_id,
    twice,
    never,
    error,
]
"""What can be wrong with a value."""

BREAKING: list[Mutation] = [unknown_command, truncated, wrong_size]
"""What ends the connection too."""

FATAL: list[Mutation] = [
    convert_beyond,
    error_beyond,
    error_about_another,
    old_read,
    gone_event,
    size_wraps,
    boast,
]
"""What libca does not survive; see the module."""


def fitting(message: Message, *, breaking: bool, fatal: bool) -> list[Mutation]:
    """The mutations that make sense for a message."""
    if breaking:
        created = message.command == Command.CREATE_CHAN
        return [no_such_type] if created else BREAKING
    if fatal and message.command == Command.CREATE_CHAN:
        return [enormous]
    if fatal and _is_value(message):
        return FATAL
    if _is_value(message):
        return VALUE
    if message.command == Command.CREATE_CHAN:
        return [odd_channel, twice, never]
    if message.command == Command.ACCESS_RIGHTS:
        return [odd_rights, twice, never]
    return [other_status, wrong_id, twice, never]
