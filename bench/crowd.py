"""A crowd of watchers in a process of its own: `python -m bench.crowd`.

Takes JSON on stdin: `{"server", "key", "selections": [[names], …]}` once, then `"clear"` and
`"report"` lines; prints `{"ready": true}` and, for each report, the latencies' percentiles.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np

from bench.watcher import Watcher, latencies_ms, watching

_CHANNELS = 10
_ONE_IN = 20
"""Of the messages that came, so many are looked into; all are received."""
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


async def _read_lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=64 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _report_watchers(watchers: list[Watcher]) -> dict[str, float]:
    looked = [list(w.messages)[::_ONE_IN] for w in watchers]
    found = [latencies_ms(messages) for messages in looked]
    latencies = np.concatenate([np.zeros(0), *found])
    if not len(latencies):
        raise RuntimeError("nothing came")
    return {
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "worst_watcher_p99_ms": max(float(np.percentile(f, 99)) for f in found if len(f)),
        "messages": float(sum(len(w.messages) for w in watchers)),
        "rows": sum(
            len(rows) * len(w.messages) / max(len(messages), 1)
            for rows, w, messages in zip(found, watchers, looked, strict=True)
        ),
        "megabytes": sum(len(m) for w in watchers for _, m in w.messages) / 1e6,
    }


async def main() -> None:
    """Watch until stdin ends."""
    reader = await _read_lines()
    order: dict[str, Any] = json.loads(await reader.readline())
    metadata = (("authorization", f"Bearer {order['key']}"),)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(order["server"], options=_OPTIONS)
            )
            for _ in range(_CHANNELS)
        ]
        watchers = [
            await stack.enter_async_context(watching(channels[i % len(channels)], metadata, names))
            for i, names in enumerate(order["selections"])
        ]
        print(json.dumps({"ready": True}), flush=True)
        while line := await reader.readline():
            if json.loads(line) == "clear":
                for watcher in watchers:
                    watcher.messages.clear()
            else:
                print(json.dumps(_report_watchers(watchers)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
