"""A PV on the operators' page: its history."""

from __future__ import annotations

from uuid import uuid4

from playwright.async_api import expect

from drey.catalog.v1 import catalog_service_pb2
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from tests.e2e.conftest import PVS, Running
from tests.e2e.page_calls import (
    await_value,
    go_tab,
    open_page,
    own_pv,
    purged,
    row_of,
    search_words,
    shoot,
)


def _take(running: Running, name: str) -> snapshot_pb2.Snapshot:
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec={"selector": {"names": [name]}, "gates": {"any_missing": {}}},
        request_id=str(uuid4()),
    )
    return running.snapshots.TakeSnapshot(request, **running.call()).snapshot


def _readdress(running: Running, pv_id: str, address: str) -> None:
    request = catalog_service_pb2.UpdatePvRequest(
        pv={"id": pv_id, "setpoint": {"address": address}},
        update_mask={"paths": ["setpoint.address"]},
    )
    running.catalog.UpdatePv(request, **running.call())


def test_the_history_of_a_pv_tells_where_it_was_missing(running: Running) -> None:
    """Three snapshots have it, in the second it was missing; the newest is opened."""
    name = f"PAGE:{uuid4().hex[:8]}"
    with purged(running, name):
        pv = own_pv(running, name)
        oldest = _take(running, name)
        _readdress(running, pv.id, f"NOBODY:{name}")
        await_value(running, name, comes=False)
        _take(running, name)
        _readdress(running, pv.id, pv.setpoint.address)
        await_value(running, name)
        _take(running, name)

        async def scenario() -> None:
            async with open_page(running) as page:
                await go_tab(page, "p")
                await expect(page.get_by_role("status")).to_have_text(f"{PVS + 1} of {PVS + 1} PVs")
                await search_words(page, name)
                await row_of(page, name).click()
                await page.keyboard.press("h")
                history = page.get_by_role("region", name=f"History of {name}")
                await expect(history).to_contain_text(
                    "3 snapshots with it, it was missing in 1 of them: gaps"
                )
                await expect(history.locator(".plot canvas")).to_have_count(1)
                rows = history.get_by_role("grid").locator(".grid-row")
                await expect(rows).to_have_count(3)
                await expect(rows.nth(1)).to_contain_text("never found")
                await shoot(page, "history")
                # by the keyboard to the oldest of them
                await history.get_by_role("grid").press("End")
                await page.keyboard.press("Enter")
                await expect(page.locator("aside")).to_contain_text(oldest.digest)

        running.do(scenario())
