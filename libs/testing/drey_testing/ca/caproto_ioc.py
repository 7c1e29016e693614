"""The portable names of the suite, served by caproto: `python -m drey_testing.ca.caproto_ioc`.

Another implementation of the protocol than softIOC's, in Python. Prints `ready` when its channels
are served, and ends when stdin does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import caproto
from caproto.asyncio.server import start_server

from drey_testing.ca.records import BIG, LABELS, LATE

_TICK = 0.1


def channels() -> dict[str, Any]:
    """The `V:` names of `records`, and `T:` names with times that softIOC does not have."""
    text = {"string_encoding": "latin-1"}
    labels = [label.encode("utf-8", "surrogateescape").decode("latin-1") for label in LABELS]
    numeric = {
        "DOUBLE": caproto.ChannelDouble,
        "FLOAT": caproto.ChannelFloat,
        "LONG": caproto.ChannelInteger,
        "SHORT": caproto.ChannelShort,
        "CHAR": caproto.ChannelByte,
    }
    out: dict[str, Any] = {}
    for name, kind in numeric.items():
        zero = b"\0" if name == "CHAR" else 0
        out[f"V:{name}"] = kind(value=zero, max_length=1)
        out[f"V:{name}S"] = kind(value=zero if name == "CHAR" else [0], max_length=1000)
    out["V:STRINGS"] = caproto.ChannelString(value=["first"], max_length=10, **text)
    out["V:STRING"] = caproto.ChannelString(value="first", **text)
    out["V:ENUM"] = caproto.ChannelEnum(value=labels[0], enum_strings=labels, **text)
    out["V:EMPTY"] = caproto.ChannelDouble(value=[], max_length=10)
    out["V:BIG"] = caproto.ChannelDouble(value=[0.0], max_length=BIG)
    out["V:COUNTER"] = caproto.ChannelDouble(value=0.0)
    for name, (seconds, nanoseconds) in LATE.items():
        time = caproto.TimeStamp(seconds, nanoseconds)
        out[name] = caproto.ChannelDouble(value=1.0, timestamp=time)
    return out


async def serve() -> None:
    """Serve until stdin ends."""
    served = channels()

    async def started(library: object) -> None:
        del library
        print("ready", flush=True)
        while True:
            await asyncio.sleep(_TICK)
            counter = served["V:COUNTER"]
            await counter.write(counter.value + 1)

    server = asyncio.ensure_future(
        start_server(served, interfaces=["127.0.0.1"], startup_hook=started)
    )
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([server, ended], return_when=asyncio.FIRST_COMPLETED)
    server.cancel()
    await asyncio.wait([server])
    if not server.cancelled():
        server.result()


if __name__ == "__main__":
    asyncio.run(serve())
