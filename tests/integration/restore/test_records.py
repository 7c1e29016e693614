"""What records say of themselves decides what a plan writes: .DISP, .DISA, aliases, labels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from drey.common.v1 import errors_pb2
from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_client.plan_digest import plan_digest
from drey_core.values import Columns, Kind
from drey_runtime import status
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, set_policies, world_of

Skip = restore_pb2.SkipReason

PLAIN, LOCKED, DISABLED, TURNED, ALIAS, MODE = (
    f"R:{name}" for name in ("PLAIN", "LOCKED", "DISABLED", "TURNED", "OTHER", "MODE")
)
DATABASE = f"""
record(ao, "{PLAIN}") {{ field(PINI, "YES") }}
alias("{PLAIN}", "{ALIAS}")
record(ao, "{LOCKED}") {{ field(PINI, "YES") }}
record(ao, "{DISABLED}") {{ field(PINI, "YES") }}
record(ao, "{TURNED}") {{ field(PINI, "YES") field(DISV, "0") field(DISA, "1") }}
record(mbbo, "{MODE}") {{ field(PINI, "YES") field(ZRST, "Off") field(ONST, "On")
    field(TWST, "Hold") }}
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    names = [PLAIN, LOCKED, DISABLED, TURNED, ALIAS, MODE]
    async with world_of(dict.fromkeys(names, ""), parts) as found:
        yield found


async def put(world: RestoreWorld, **values: Any) -> None:
    """Write numbers and texts to fields: `LOCKED__DISP=1`, `PLAIN=2`."""
    names = [f"R:{name.replace('__', '.')}" for name in values]
    slots = await world.table.add_channels(names)
    try:
        assert (await world.table.wait_connected(slots, 20)).all()
        kinds = [Kind.STRING if isinstance(v, bytes) else Kind.FLOAT64 for v in values.values()]
        columns = Columns.from_values(slots, list(values.values()), kinds)
        codes = await world.table.write_values(slots, columns, 20)
        assert (codes == 1).all(), (names, codes)
    finally:
        await world.table.remove_slots(slots)


def reasons(items: dict[str, restore_pb2.PlanItem]) -> dict[str, str]:
    return {
        name.removeprefix("R:"): Skip.Name(item.skip).removeprefix("SKIP_REASON_")
        for name, item in items.items()
        if item.skip
    }


async def test_records_that_would_not_take_it_and_aliases_are_left_out(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    await put(world, PLAIN=2.0, LOCKED=2.0, DISABLED=2.0, TURNED=2.0, MODE=1.0)
    await put(world, LOCKED__DISP=1.0, DISABLED__DISA=1.0, TURNED__DISA=0.0)
    await world.publish()
    plan = await site.plan(snapshot_id)
    items = await site.plan_items(plan.id)
    assert reasons(items) == {
        "LOCKED": "NOT_WRITABLE",
        "DISABLED": "NOT_WRITABLE",
        "TURNED": "NOT_WRITABLE",
        "OTHER": "DUPLICATE_ADDRESS",
    }
    assert ".DISP" in items[LOCKED].warnings[0]
    assert ".DISA" in items[DISABLED].warnings[0]
    assert PLAIN in items[ALIAS].warnings[0]
    assert {name: item.record for name, item in items.items() if item.record} == {ALIAS: PLAIN}
    assert plan_digest(plan, items.values()) == plan.digest
    # what is switched is read anew by each plan
    await put(world, LOCKED__DISP=0.0, DISABLED__DISA=0.0, TURNED__DISA=1.0)
    again = await site.plan_items((await site.plan(snapshot_id)).id)
    assert reasons(again) == {"OTHER": "DUPLICATE_ADDRESS"}


@pytest.mark.parametrize(("held", "wanted"), [(ALIAS, PLAIN), (PLAIN, ALIAS)])
async def test_a_record_is_held_under_all_its_names(
    site: RestoreSite, held: str, wanted: str
) -> None:
    world = site.world
    # a ramp that takes for ever: the other restore comes while it climbs
    ramp = {"ramp_step": 1.0, "ramp_rate": 0.01}
    set_policies(world, **{held.removeprefix("R:"): ramp})
    await put(world, PLAIN=5.0)
    snapshot_id = await world.take()
    await put(world, PLAIN=0.0)
    plans = [await planned(site, [name], snapshot_id=snapshot_id) for name in (held, wanted)]
    assert [plan.writes for plan in plans] == [1, 1]
    holder = await site.execute(plans[0])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.execute(plans[1])
    name, details = status.reason_of(refused.value)
    assert name == "CHANNELS_HELD"
    assert details == details | {"restore_id": holder.id, "held_by": "ann", "pv": wanted}
    told = str(refused.value.details())
    assert f"restore {holder.id} of ann" in told
    assert f"the first is {wanted}, which it calls {held}" in told
    # once it has ended the record is let go, under each of its names
    await site.call("AbortRestore", pb.AbortRestoreRequest(id=holder.id))
    await site.ended(holder.id)
    again = await site.execute(plans[1], all=pb.AllMoved())  # by a step of the ramp, maybe
    assert (await site.ended(again.id)).all_verified


@pytest.mark.parametrize("more_settings", [{"refuse": ""}])
async def test_a_site_may_have_disabled_records_only_told(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    await put(world, LOCKED=2.0)
    await put(world, LOCKED__DISP=1.0)
    await world.publish()
    plan = await site.plan(snapshot_id)
    items = await site.plan_items(plan.id)
    assert plan.writes == 1 and ".DISP" in items[LOCKED].warnings[0]
    ended = await site.ended((await site.execute(plan)).id)
    results = await site.items(ended.id)
    assert results[LOCKED].verdict == restore_pb2.VERDICT_REFUSED


async def test_labels_are_those_that_the_ioc_has_now_whatever_the_image_says(
    site: RestoreSite,
) -> None:
    """Changed while it runs, after a plan has connected; the image still has the old ones."""
    world = site.world
    await put(world, MODE=1.0)
    snapshot_id = await world.take()
    await put(world, MODE=2.0)
    await world.publish()
    before = await site.plan(snapshot_id)
    [item] = (await site.plan_items(before.id, writes_only=True)).values()
    assert (item.target.enum_value.index, list(item.enum_labels)) == (1, ["Off", "On", "Hold"])
    await put(world, MODE__ONST=b"Park", MODE__THST=b"On")
    async with asyncio.timeout(60):
        while True:
            plan = await site.plan(snapshot_id)
            [item] = (await site.plan_items(plan.id, writes_only=True)).values()
            if list(item.enum_labels) == ["Off", "Park", "Hold", "On"]:
                break
    assert item.target.enum_value.index == 3
    assert item.warnings == ["enum index moved from 1 to 3"]
    # the plan before is refused, and no option accepts it
    ended = await site.ended((await site.execute(before, all=pb.AllMoved())).id)
    assert ended.state == restore_pb2.RESTORE_STATE_FAILED
    assert errors_pb2.ErrorReason.Name(ended.error.reason) == "ERROR_REASON_LABELS_MOVED"
    assert "accept" not in ended.error.message
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED, ended
    found = await world.table.read_values(world.slots[np.array([5])], 20)
    assert int(found.values.data[0]) == 3
