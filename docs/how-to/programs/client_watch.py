# ruff: noqa: T201
"""Follows PVs with `drey_client`, which connects again by itself.

python client_watch.py SERVER KEY PV...
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

import numpy as np

from drey_client import ChannelState, ChannelValue, Client, ClientError, EnumState


def text(value: ChannelValue) -> str:
    """A value, or what is known instead of it. Zero, missing and disconnected are three things."""
    if value.state == ChannelState.NEVER_CONNECTED:
        return "never connected"
    if value.data is None:
        return value.problem or "no value"
    shown = shown_data(value.data)
    if value.state == ChannelState.DISCONNECTED:
        return f"disconnected, was {shown}"
    return shown if value.fresh else f"{shown} (stale)"


def shown_data(data: Any) -> str:
    """Data of any type."""
    if isinstance(data, EnumState):
        return f"{data.label} ({data.index})" if data.label else f"#{data.index}"
    if isinstance(data, bytes):
        return shown_data(data.decode(errors="backslashreplace"))
    elements = data.tolist() if isinstance(data, np.ndarray) else data
    if not isinstance(elements, list):
        return json.dumps(elements, ensure_ascii=False)
    if len(elements) <= 8:
        return f"[{', '.join(map(shown_data, elements))}]"
    first = ", ".join(map(shown_data, elements[:3]))
    return f"[{first}, … {len(elements)} in all, the last {shown_data(elements[-1])}]"


async def main() -> None:
    """Print what changes, until Ctrl-C."""
    server, key, *pvs = sys.argv[1:]
    async with Client(server, key) as drey:
        watch = drey.watch(pvs)
        async for change in watch:
            if not change.live:
                print("lost:", change.notice)
            for pv in change.pvs if change.live else ():
                channels = {"setpoint": pv.setpoint, "readback": pv.readback}
                print(pv.name, *(f"{k}={text(v)}" for k, v in channels.items() if v is not None))
            if change.whole:
                print(f"holding {len(watch)} PVs")


if __name__ == "__main__":
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(main())
    except ClientError as error:
        sys.exit(str(error))
