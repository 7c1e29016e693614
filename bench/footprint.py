"""Memory of a table: `python -m bench.footprint IMPLEMENTATION PVS` prints megabytes.

In a process of its own: what `pvs` subscribed channels with their values add to its resident size
after everything was imported. The names, which the caller has anyway, are not counted.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import psutil

from bench.names import readbacks
from bench.tables import until_valued
from drey_ca import open_table


async def _import_table(implementation: str) -> None:
    if implementation == "aioca":
        import drey_ca.aioca_table
    else:
        import drey_ca.native_table  # noqa: F401


async def main(implementation: str, pvs: int) -> None:
    """Measure, and print."""
    names = readbacks(pvs)
    await _import_table(implementation)
    gc.collect()
    before = psutil.Process().memory_info().rss
    async with open_table(implementation) as table:
        slots = await table.add_channels(names)
        await table.subscribe_slots(slots)
        await until_valued(table, len(slots))
        gc.collect()
        print((psutil.Process().memory_info().rss - before) / 1e6)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
