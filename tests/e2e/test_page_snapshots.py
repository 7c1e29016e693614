"""Snapshots on the operators' page: who may be missing when one is taken."""

from __future__ import annotations

import re

from playwright.async_api import expect

from drey.catalog.v1 import catalog_service_pb2
from drey.snapshot.v1 import snapshot_service_pb2
from tests.e2e.conftest import Running
from tests.e2e.page_calls import go_tab, open_page, row_of, shoot


def _names(running: Running, glob: str) -> list[str]:
    listed = catalog_service_pb2.ListPvsRequest(selector={"globs": [glob]}, page_size=1000)
    return [pv.name for pv in running.catalog.ListPvs(listed, **running.call()).pvs]


def test_who_is_missing_is_named_and_may_be_left_out(running: Running) -> None:
    """Those that nobody answers for: refused at first by name, never taken where required."""
    dead = _names(running, "GONE:*")
    some = f"{dead[0]} QUAD:*"

    async def scenario() -> None:
        async with open_page(running) as page:
            await go_tab(page, "s")
            await page.get_by_role("button", name="Take a snapshot").click()
            form = page.get_by_role("form", name="Take a snapshot")
            await form.get_by_label("Names").fill(some)
            await form.get_by_label("Never without").fill(dead[0])
            take = form.get_by_role("button", name="Take it", exact=True)
            await form.get_by_label("Monitors alive").fill("soon")
            await take.click()
            age = form.get_by_label("Monitors alive")
            await expect(age).to_have_attribute("aria-invalid", "true")
            await age.fill("60")
            await take.click()
            missing = form.get_by_role("region", name="Missing PVs")
            await expect(missing).to_contain_text("you never take it without")
            await expect(missing.locator(".grid-row")).to_have_count(1)
            await expect(missing.locator(".grid-row")).to_contain_text(dead[0])
            await expect(missing.locator(".grid-row")).to_contain_text("never connected")
            await shoot(page, "missing")
            await form.get_by_label("Never without").fill("")
            await take.click()
            await missing.get_by_role("button", name="Take it without 1 PV").click()
            details = page.get_by_role("complementary", name="The chosen snapshot")
            await expect(details).to_contain_text(re.compile("Never found[12]"))

    running.do(scenario())


def test_the_overview_tells_of_each_instance(running: Running) -> None:
    async def scenario() -> None:
        async with open_page(running) as page:
            instances = page.get_by_role("region", name="Instances")
            for service in ("gateway", "monitor", "restore", "snapshot"):
                row = instances.get_by_role("row").filter(has_text=re.compile(f"^{service}"))
                await expect(row.first).to_contain_text("✓ serves")
                await expect(row.first).to_contain_text(re.compile(r"\d+\.\d+"))

    running.do(scenario())


def test_a_stored_array_is_a_plot_and_a_search_keeps_what_is_chosen(running: Running) -> None:
    table = _names(running, "LLRF:*TABLE")[0]
    snapshot = running.take("with an array")

    async def scenario() -> None:
        async with open_page(running) as page:
            await page.goto(f"{running.stack.web}/#/snapshots/{snapshot.id}/values")
            search = page.get_by_label("Search in the values")
            await search.fill(table)
            row = row_of(page, table)
            await row.click()
            details = page.get_by_role("complementary", name=f"Stored values of {table}")
            await expect(details.locator(".plot canvas")).to_have_count(1)
            await expect(details).to_contain_text("× [")
            await shoot(page, "stored-array")
            await search.fill("")
            await expect(page.locator(".grid-row").nth(1)).to_be_visible()
            await expect(details.get_by_role("heading", name=table)).to_be_visible()
            await search.fill(table)
            await expect(row).to_have_attribute("aria-selected", "true")

    running.do(scenario())


def test_a_snapshot_that_another_deletes_stays_in_view_and_says_so(running: Running) -> None:
    """Nor does a search in the list take the chosen one away."""
    snapshot = running.take("looked at while it goes")

    async def scenario() -> None:
        async with open_page(running) as page:
            await page.goto(f"{running.stack.web}/#/snapshots/{snapshot.id}/values")
            await expect(page.locator(".grid-row").first).to_be_visible()
            delete = snapshot_service_pb2.DeleteSnapshotRequest(id=snapshot.id)
            running.snapshots.DeleteSnapshot(delete, **running.call())
            await expect(page.get_by_role("status")).to_contain_text("was deleted")
            await expect(page.locator(".grid-row").first).to_be_visible()
            await page.get_by_role("link", name="brought back").click()
            details = page.get_by_role("complementary", name="The chosen snapshot")
            await details.get_by_role("button", name="Bring it back").click()
            await expect(details.get_by_role("button", name="Delete …")).to_be_visible()
            await page.get_by_label("Search title").fill("nobody calls one like this")
            await expect(page.get_by_text("No snapshot passes the filters.")).to_be_visible()
            await expect(details.get_by_role("heading")).to_have_text(snapshot.title)

    running.do(scenario())
