"""A worker in a process of its own, for a test to kill. Prints each job that it begins."""

from __future__ import annotations

import asyncio
import os
import sys

from drey_runtime.database import Database
from drey_runtime.jobs import JobContext, JobKind, JobStore, JobWorker

LEASE_S = 3.0


async def main(url: str) -> None:
    """Run until killed; a job goes on until somebody cancels it."""

    async def handler(context: JobContext) -> str:
        context.report_progress(1, 2, "half")
        print(context.job.id, context.job.attempts, flush=True)
        await context.cancelled.wait()
        return "snapshots/1"

    async with Database(url) as database:
        store = JobStore(database)
        kinds = {"snapshot": JobKind(handler), "restore": JobKind(handler)}
        owner = f"pid-{os.getpid()}"
        await JobWorker(store, kinds, owner=owner, lease_s=LEASE_S, sweep_s=0.2).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
