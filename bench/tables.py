"""The channel layer alone, in this process: the same steps over any implementation."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import numpy as np

from drey_ca import ChannelTable, Slots, open_table
from drey_ca.eca import ECA_NORMAL
from drey_core.values import KIND_NONE, Columns, Kind, State

_LONG_S = 300.0


async def until_valued(table: ChannelTable, count: int) -> None:
    """Drain until `count` slots, the first of the table, have a live value. TimeoutError."""
    valued = np.zeros(count, np.bool_)
    async with asyncio.timeout(_LONG_S):
        while not valued.all():
            rows = await changed(table)
            good = (rows.state == State.CONNECTED) & (rows.kind != KIND_NONE)
            valued[rows.key[good]] = True


async def changed(table: ChannelTable) -> Columns:
    """Wait for news and take all of it; what changed in the metadata is dropped."""
    await table.wait_dirty()
    table.drain_info()  # what is left in there would end every later wait at once
    return table.drain_updates()


async def connected(table: ChannelTable, names: Sequence[str]) -> Slots:
    """Slots of `names`, all connected. RuntimeError."""
    slots = await table.add_channels(names)
    connected = await table.wait_connected(slots, _LONG_S)
    if not connected.all():
        raise RuntimeError(f"{int((~connected).sum())} of {len(names)} channels did not connect")
    return slots


async def connect_s(implementation: str, names: Sequence[str]) -> float:
    """Seconds from a new table to all connected."""
    async with open_table(implementation) as table:
        begin = time.perf_counter()
        await connected(table, names)
        return time.perf_counter() - begin


async def first_values_s(implementation: str, names: Sequence[str]) -> float:
    """Seconds from a new table to the first value of each drained."""
    async with open_table(implementation) as table:
        begin = time.perf_counter()
        slots = await table.add_channels(names)
        await table.subscribe_slots(slots)
        await until_valued(table, len(slots))
        return time.perf_counter() - begin


async def read_s(table: ChannelTable, slots: Slots) -> float:
    """Seconds to read all from their servers."""
    begin = time.perf_counter()
    result = await table.read_values(slots, _LONG_S)
    seconds = time.perf_counter() - begin
    _check_codes(result.code, "read")
    return seconds


async def write_s(table: ChannelTable, slots: Slots, value: float) -> float:
    """Seconds to write `value` to all with completion."""
    rows = doubles(np.full(len(slots), value))
    begin = time.perf_counter()
    codes = await table.write_values(slots, rows, _LONG_S)
    seconds = time.perf_counter() - begin
    _check_codes(codes, "written")
    return seconds


def doubles(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Columns:
    """Doubles to write."""
    rows = Columns.empty_columns(len(values))
    rows.kind[:] = Kind.FLOAT64
    rows.data[:] = values.view(np.uint64)
    return rows


def _check_codes(codes: np.ndarray[tuple[int], np.dtype[np.int32]], what: str) -> None:
    bad = int((codes != ECA_NORMAL).sum())
    if bad:
        raise RuntimeError(f"{bad} of {len(codes)} channels were not {what}")


async def memory_mb(implementation: str, pvs: int) -> float:
    """Megabytes that the channels add to an empty process."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "bench.footprint", implementation, str(pvs)],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(2 * _LONG_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"bench.footprint ended with {process.returncode}")
    return float(out)
