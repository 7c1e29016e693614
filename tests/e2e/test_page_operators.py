"""The operators' page beside others who act, and under a finger."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from drey.access.v1 import access_pb2, access_service_pb2, access_service_pb2_grpc
from drey.catalog.v1 import catalog_service_pb2
from drey.restore.v1 import restore_service_pb2, restore_service_pb2_grpc
from tests.e2e.conftest import APPROVED, Running
from tests.e2e.page_calls import go_tab, open_page, own_pv, purged, row_of, search_words
from tests.e2e.test_page import plan_of

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""As a browser does when another of its tabs is looked at."""


def test_what_others_change_is_seen_without_a_click(running: Running) -> None:
    name = f"{APPROVED}{uuid4().hex[:8]}"
    with purged(running, name):
        pv = own_pv(running, name)
        plan = plan_of(running, name, 0.125)
        keys = access_service_pb2_grpc.AccessServiceStub(running.channel)
        restores = restore_service_pb2_grpc.RestoreServiceStub(running.channel)

        def describe(text: str) -> None:
            request = catalog_service_pb2.UpdatePvRequest(
                pv={"id": pv.id, "description": text}, update_mask={"paths": ["description"]}
            )
            running.catalog.UpdatePv(request, **running.call())

        async def scenario() -> None:
            async with open_page(running) as page:
                await go_tab(page, "p")
                await search_words(page, name)
                await row_of(page, name).click()
                details = page.locator("aside")
                await expect(details).to_contain_text(name)
                # the name of a PV, which the page knows by its watch; the rest by its events
                describe("Spätschicht: 夜班")
                await expect(details).to_contain_text("Spätschicht: 夜班")
                await page.evaluate(HIDE, True)
                describe("après la pause")
                await page.evaluate(HIDE, False)
                await expect(details).to_contain_text("après la pause")

                await go_tab(page, "s")
                await expect(page.locator("table").first).to_be_visible()
                title = f"of another {name}"
                running.take(title)
                await expect(page.get_by_text(title)).to_be_visible()

                await go_tab(page, "k")
                await expect(page.locator("table").first).to_be_visible()
                made = access_service_pb2.CreateKeyRequest(
                    name=f"another's {name}", grants=[access_pb2.Grant(role="viewer")]
                )
                key = keys.CreateKey(made, **running.call()).key
                row = page.get_by_role("row").filter(has_text=made.name)
                await expect(row).to_be_visible()
                keys.RevokeKey(access_service_pb2.RevokeKeyRequest(id=key.id), **running.call())
                await expect(row).to_have_count(0)

                # a plan that is looked at, while others decide on it and execute it
                await page.goto(f"{running.stack.web}/#/restore/{plan.id}")
                await expect(page.get_by_text("waits for the approval")).to_be_visible()
                decided = restore_service_pb2.ApprovePlanRequest(id=plan.id, digest=plan.digest)
                restores.ApprovePlan(decided, **running.call("APPROVER"))
                await expect(page.get_by_role("button", name="Execute …")).to_be_enabled()
                begun = restore_service_pb2.ExecutePlanRequest(
                    plan_id=plan.id, digest=plan.digest, request_id=str(uuid4())
                )
                restores.ExecutePlan(begun, **running.call())
                await expect(page.get_by_role("button", name="Execute …")).to_have_count(0)
                shown = page.get_by_role("region", name="The plan", exact=True)
                await expect(shown).to_have_count(0)

        running.do(scenario())


LOOK = Path(__file__).with_name("look_tablet.js").read_text(encoding="utf-8")


async def _look(page: Page, where: str, findings: dict[str, list[str]]) -> None:
    await page.wait_for_timeout(300)  # for what is drawn a moment later
    if found := await page.evaluate(LOOK):
        findings[where] = found[:8]


@pytest.mark.parametrize(("width", "height"), [(768, 1024), (1024, 768)])
def test_it_can_be_used_on_a_tablet_and_without_colors(
    running: Running, width: int, height: int
) -> None:
    running.take("of a tablet")
    name = f"PAGE:Größe:夜班:{uuid4().hex[:8]}"
    with purged(running, name):
        own_pv(running, name)

        async def scenario() -> None:
            findings: dict[str, list[str]] = {}
            async with open_page(running) as page:
                touch = await page.context.new_cdp_session(page)
                await touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
                await page.set_viewport_size({"width": width, "height": height})
                for letter, ready in (
                    ("o", ".cards"),
                    ("p", ".grid-row"),
                    ("s", "table"),
                    ("d", "select"),
                    ("r", "table"),
                    ("l", "table"),
                    ("j", "table"),
                    ("a", "table"),
                    ("k", "table"),
                ):
                    await go_tab(page, letter)
                    await expect(page.locator(ready).first).to_be_visible()
                    await _look(page, letter, findings)
                    if letter == "p":
                        await search_words(page, name)
                        await row_of(page, name).click()
                        await expect(page.locator("aside")).to_be_in_viewport()
                        await page.get_by_role("button", name="Plot (p)").click()
                        await expect(page.locator(".plot canvas").first).to_be_visible()
                        await _look(page, "a chosen PV", findings)
                    if letter == "s":
                        await page.locator("tbody tr").first.click()
                        await expect(page.locator("aside")).to_be_in_viewport()
                        await _look(page, "a chosen snapshot", findings)
            assert findings == {}, json.dumps(findings, indent=1, ensure_ascii=False)

        running.do(scenario())
