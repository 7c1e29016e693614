"""A waveform of 10 MB is planned, shown, written and verified; on a real IOC."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_ca import open_table
from drey_client.parts import whole_rows
from drey_client.plan_digest import plan_digest
from drey_core.values import Columns
from drey_machine import SimPv
from drey_runtime.image import Image
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

ELEMENTS = 1_300_000  # 10.4 MB
WAVE = np.arange(float(ELEMENTS))
MESSAGE = 4 << 20


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    wave = f'record(waveform, "L:WAVE") {{ field(FTVL, "DOUBLE") field(NELM, "{ELEMENTS}") }}'
    with Ioc(tmp_path, wave + '\nrecord(ao, "L:SMALL") {}') as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    rows = [
        SimPv(kind, i, name, "", "", "", "", "", "")
        for i, (kind, name) in enumerate([("wave", "L:WAVE"), ("magnet", "L:SMALL")])
    ]
    namespace = f"t{uuid.uuid4().hex[:12]}"
    async with open_table("native") as table, Image.open_image(parts[2].url, namespace) as image:
        found = RestoreWorld(rows, table, image)
        found.namespace = namespace
        await found.connect()
        await write(found, WAVE)
        await found.publish()
        found.beats = asyncio.create_task(found.beat_for_ever())
        try:
            yield found
        finally:
            found.beats.cancel()


async def write(world: RestoreWorld, wave: Any) -> None:
    slots = world.slots[:1]
    codes = await world.table.write_values(slots, Columns.from_values(slots, [wave], [None]), 60)
    assert (codes == 1).all()


async def test_a_waveform_of_ten_megabytes_is_put_back(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    await write(world, WAVE + 1)
    plan = await site.plan(snapshot_id)
    assert plan.writes == 1
    messages = await site.stream("ReadPlan", pb.ReadPlanRequest(id=plan.id))
    assert max(message.ByteSize() for message in messages) < MESSAGE
    items = list(whole_rows(item for message in messages for item in message.items))
    assert plan_digest(plan, items) == plan.digest
    wave = next(item for item in items if item.name == "L:WAVE")
    assert np.array_equal(wave.current.float64_array.elements, WAVE + 1)
    assert np.array_equal(wave.target.float64_array.elements, WAVE)

    ended = await site.ended(
        (await site.execute(plan, write_timeout={"seconds": 60}, start_deadline={"seconds": 60})).id
    )
    assert {v.verdict: v.pvs for v in ended.verdicts}[restore_pb2.VERDICT_VERIFIED] == 1, ended
    assert ended.all_verified
    results = await site.stream("ReadRestore", pb.ReadRestoreRequest(id=ended.id))
    assert max(message.ByteSize() for message in results) < MESSAGE
    seen = {i.name: i for i in whole_rows(i for message in results for i in message.items)}
    assert np.array_equal(seen["L:WAVE"].seen.float64_array.elements, WAVE)
    found = await world.table.read_values(world.slots[:1], 60)
    assert np.array_equal(found.values.value(0), WAVE)
