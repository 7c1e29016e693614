"""What the tests of restores do to a small machine of their own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import errors_pb2
from drey.restore.v1 import restore_pb2
from drey_ca import open_table
from drey_core.values import Columns
from drey_machine import SimPv
from drey_runtime.image import Image
from drey_stack import Nats, Postgres, Valkey
from drey_testing.restore_world import RestoreSite, RestoreWorld


@asynccontextmanager
async def world_of(
    readbacks: Mapping[str, str], parts: tuple[Postgres, Nats, Valkey]
) -> AsyncIterator[RestoreWorld]:
    """A world of the setpoints that are the keys, each with its readback (empty: none)."""
    rows = [
        SimPv("magnet", i, name, readback, "", "", "", "", "")
        for i, (name, readback) in enumerate(readbacks.items())
    ]
    namespace = f"t{uuid.uuid4().hex[:12]}"
    async with open_table("aioca") as table, Image.open_image(parts[2].url, namespace) as image:
        found = RestoreWorld(rows, table, image)
        found.namespace = namespace
        await found.connect()
        await found.publish()
        found.beats = asyncio.create_task(found.beat_for_ever())
        try:
            yield found
        finally:
            found.beats.cancel()


def seconds(number: float) -> dict[str, int]:
    return {"seconds": int(number), "nanos": int(number % 1 * 1e9)}


def set_policies(world: RestoreWorld, **policies: dict[str, Any]) -> None:
    """By the last part of the name."""
    numbers = {
        row.setpoint.partition(":")[2].split(".")[0]: i for i, row in enumerate(world.rows, 1)
    }
    found = {
        numbers[name]: catalog_pb2.RestorePolicy(**policy) for name, policy in policies.items()
    }
    world.policies = dict(sorted(found.items()))


async def write(world: RestoreWorld, values: dict[str, float]) -> None:
    slots = np.array([world.slots[world.names.index(name)] for name in values], np.int64)
    columns = Columns.from_values(slots, list(values.values()), [None] * len(values))
    codes = await world.table.write_values(slots, columns, 60, completion=False)
    assert (codes == 1).all()


async def read(world: RestoreWorld, names: list[str]) -> dict[str, float]:
    slots = np.array([world.slots[world.names.index(name)] for name in names], np.int64)
    found = await world.table.read_values(slots, 60)
    return {name: float(found.values.value(i)) for i, name in enumerate(names)}


async def until(world: RestoreWorld, values: dict[str, float]) -> None:
    async with asyncio.timeout(60):
        while await read(world, list(values)) != values:
            await asyncio.sleep(0.05)


def reason(restore: restore_pb2.Restore) -> str:
    return errors_pb2.ErrorReason.Name(restore.error.reason).removeprefix("ERROR_REASON_")


async def planned(site: RestoreSite, names: list[str], **more: Any) -> restore_pb2.Plan:
    return await site.plan(more.pop("snapshot_id"), selector={"names": names}, **more)
