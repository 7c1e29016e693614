"""A worker in a process of its own, for a test to kill. Prints each job that it begins."""

from __future__ import annotations

import asyncio
import os
import sys

from drey_runtime.bus import Bus
from drey_runtime.database import Database
from drey_runtime.jobs import JobContext, JobStore, JobWorker, Kind, OutboxRelay


async def main(url: str, nats_url: str, namespace: str) -> None:
    """Run until killed; a job goes on until somebody cancels it."""

    async def handler(context: JobContext) -> str:
        context.progress(1, 2, "half")
        print(context.job.id, context.job.attempts, flush=True)
        await context.cancelled.wait()
        return "snapshots/1"

    bus = Bus(nats_url, namespace, "worker")
    async with Database(url) as database, asyncio.TaskGroup() as group:
        store = JobStore(database, bus)
        kinds = {"snapshot": Kind(handler), "restore": Kind(handler)}
        worker = JobWorker(store, bus, kinds, owner=f"pid-{os.getpid()}", lease_s=1.0, sweep_s=0.2)
        for loop in (bus, worker, OutboxRelay(database, bus, poll_s=0.05)):
            group.create_task(loop.run())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
