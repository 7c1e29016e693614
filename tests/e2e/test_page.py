"""The operators' page in a real browser: Debian's Chromium, by Playwright."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from playwright.async_api import Locator, Page, expect

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey.catalog.v1 import catalog_service_pb2
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey_testing.browser import MeasuredPage
from tests.e2e.conftest import APPROVED, PVS, Running
from tests.e2e.page_calls import (
    HANGS_MS,
    asleep,
    go_tab,
    look_for_barriers,
    open_page,
    open_site,
    own_pv,
    purged,
    row_of,
    search_words,
    shoot,
)
from tests.http_calls import call_http


def _bends(running: Running) -> list[str]:
    """Names that the search for `bdes bend` leaves, in the order of the page."""
    listed = catalog_service_pb2.ListPvsRequest(page_size=PVS)
    pvs = running.catalog.ListPvs(listed, **running.call()).pvs
    texts = {pv.name: f"{pv.name} {pv.device} {pv.description}".lower() for pv in pvs}
    return sorted(name for name, text in texts.items() if "bdes" in text and "bend" in text)


def test_every_file_of_the_page_is_served_without_a_key(running: Running) -> None:
    answer = call_http(running.stack.web, "GET", "/")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    loaded = re.findall(r'(?:src|href)="(/[^"]+)"', answer.body.decode())
    assert loaded
    for path in loaded:
        file = call_http(running.stack.web, "GET", path)
        assert file.status == 200, path
        assert "immutable" in file.headers["cache-control"]
        assert file.headers["x-content-type-options"] == "nosniff"
    # nothing but what is the page's own
    assert call_http(running.stack.web, "GET", "/assets/").status == 404
    assert call_http(running.stack.web, "GET", "/record.json").status == 404
    assert call_http(running.stack.web, "GET", "/v1/whoami").status == 401


def test_a_wrong_key_is_refused_and_not_kept(running: Running) -> None:
    async def scenario() -> None:
        async with open_page(running) as page:
            await page.get_by_role("button", name="Leave").click()
            await page.fill("#key", "drey_wrong")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_contain_text("UNAUTHENTICATED")
            assert await page.evaluate("sessionStorage.getItem('drey.key')") is None

    running.do(scenario())


async def _write(running: Running, values: dict[str, float]) -> None:
    """Change setpoints, past Drey."""
    path = running.machine.folder / "values.json"
    path.write_text(json.dumps(values))
    await running.machine.run("write", "--values-from", str(path))


def test_rows_are_live(running: Running) -> None:
    """All PVs are there, and a value that changes is seen."""
    bends = _bends(running)
    name, below = bends[:2]

    async def scenario() -> None:
        async with open_page(running) as page:
            await go_tab(page, "p")
            status = page.get_by_role("status")
            await expect(status).to_have_text(f"{PVS} of {PVS} PVs")
            await search_words(page, "bdes bend")
            await expect(status).to_have_text(f"{len(bends)} of {PVS} PVs")
            row = row_of(page, name)
            for value in (12.3456, -7.0001):
                await _write(running, {name: value})
                await expect(row.locator(".value").first).to_have_text(f"{value:.4f}")
            # what is chosen is shown in full
            await row.click()
            await page.keyboard.press("p")
            await expect(page.locator("aside")).to_contain_text("-7.0001 A")
            await expect(page.locator("aside")).to_contain_text("Time at the IOC")
            await expect(page.locator(".plot canvas")).to_have_count(1)
            await shoot(page, "pvs", 10_000)
            await page.keyboard.press("ArrowDown")
            await expect(page.locator("aside").get_by_role("heading", name=below)).to_be_visible()
            await expect(row_of(page, below)).to_have_attribute("aria-selected", "true")

    running.do(scenario())


def _first_number(text: str) -> int:
    found = re.match(r"[\d,]+", text)
    return int(found[0].replace(",", "")) if found else 0


def test_the_main_job_from_take_to_undo(running: Running) -> None:
    """Take, disturb, compare, plan, restore, verified; and the way back."""

    async def scenario() -> None:
        barriers: dict[str, list[str]] = {}
        async with open_page(running) as page:
            await go_tab(page, "s")
            await page.get_by_role("button", name="Take a snapshot").click()
            await page.get_by_role("textbox", name="Title").fill(
                "Vor der Schicht: Größe, été, 夜班"
            )
            await page.get_by_role("button", name="any", exact=True).click()
            await look_for_barriers(page, "take", barriers)
            await page.get_by_role("button", name="Take it").click()
            await expect(page.locator("aside")).to_contain_text("Vor der Schicht: Größe, été, 夜班")
            await shoot(page, "snapshots")

            moved = 7
            await running.machine.run("disturb", "--count", str(moved), "--seed", "19")
            await page.get_by_role("button", name="Compare with the machine now").click()
            status = page.get_by_role("status")
            await expect(status).to_contain_text("differ")
            # those that move by themselves may have moved as well
            while _first_number(await status.inner_text()) < moved:
                await page.get_by_role("button", name="Compare again").click()
                await page.wait_for_timeout(500)
            grid = page.get_by_role("grid", name="Differences")
            rows = int(await grid.get_attribute("aria-rowcount") or 0) - 1
            assert rows >= moved
            await shoot(page, "comparison")
            await look_for_barriers(page, "comparison", barriers)

            await page.get_by_role("button", name="Plan a restore of this snapshot").click()
            await page.get_by_role("button", name="Make the plan").click()
            await expect(page.get_by_text("was computed here")).to_be_visible()
            plan = page.get_by_role("region", name="The plan")
            # setpoints that move by themselves may be written as well; none is left out unseen
            await expect(plan).to_contain_text("left out: read only")
            told = await plan.get_by_text(re.compile("^[0-9]+ writes?$")).inner_text()
            writes = _first_number(told)
            assert writes >= moved
            await shoot(page, "plan")
            await look_for_barriers(page, "plan", barriers)

            await page.get_by_role("button", name="Execute …").click()
            await look_for_barriers(page, "execute", barriers)
            await page.get_by_role("button", name=re.compile("^Write .* now$")).click()
            report = page.get_by_role("grid", name="Report of the restore")
            await expect(report.locator(".grid-row")).not_to_have_count(0)
            restore = page.get_by_role("region", name="The restore")
            await expect(restore).to_contain_text(f"✓ {writes} verified")
            await shoot(page, "restore")
            await look_for_barriers(page, "restore", barriers)
            assert barriers == {}

            await page.get_by_role("button", name="Plan the way back").click()
            await expect(page.get_by_role("heading", name=re.compile("^Way back"))).to_be_visible()
            await page.get_by_role("button", name="Execute …").click()
            await page.get_by_role("button", name=re.compile("^Write .* now$")).click()
            await expect(restore).to_contain_text(re.compile("✓ [0-9]+ verified"))

    running.do(scenario())


RECORD_LOSS = """() => {
  window.loss = new Promise((resolve) => {
    const note = () => {
      const banner = document.querySelector(".banner")?.textContent ?? "";
      if (banner.includes("Values are not live")) resolve(banner);
    };
    const what = { childList: true, characterData: true, subtree: true };
    new MutationObserver(note).observe(document.querySelector("[aria-live]"), what);
  });
}"""
"""From now on the page keeps that its banner told of a loss; a reload forgets it."""


def test_it_goes_on_when_its_gateway_is_killed(running: Running) -> None:
    """It says that values are not live, and then they are, without a reload."""
    name = _bends(running)[0]

    async def scenario() -> None:
        async with open_page(running) as page:
            await go_tab(page, "p")
            await expect(page.get_by_role("status")).to_have_text(f"{PVS} of {PVS} PVs")
            # a new gateway may be there sooner than anybody looks at the page
            await page.evaluate(RECORD_LOSS)
            running.stack.supervisor.kill("gateway")
            async with asyncio.timeout(HANGS_MS / 1000):
                await page.evaluate("window.loss")
            await expect(page.locator(".banner")).to_have_count(0)
            await search_words(page, "bend bdes")
            await _write(running, {name: 33.25})
            await expect(row_of(page, name).locator(".value").first).to_have_text("33.2500")
            assert await page.evaluate("window.loss !== undefined"), "it was loaded again"

    running.do(scenario())


RECORD_SLEEP = """() => {
  window.asleep = 0;
  let last = Date.now();
  setInterval(() => {
    window.asleep = Math.max(window.asleep, Date.now() - last);
    last = Date.now();
  }, 50);
}"""
"""From now on the page keeps how long its scripts stood still; a reload forgets it."""


def test_a_tab_that_was_asleep_shows_the_truth_again(running: Running) -> None:
    """The gateway dies and a value changes while its scripts stand still; no reload."""
    name = _bends(running)[0]

    async def scenario() -> None:
        async with open_page(running) as page:
            await go_tab(page, "p")
            await search_words(page, "bend bdes")
            value = row_of(page, name).locator(".value").first
            await _write(running, {name: 11.5})
            await expect(value).to_have_text("11.5000")
            await page.evaluate(RECORD_SLEEP)
            async with asleep(page):
                running.stack.supervisor.kill("gateway")
                await _write(running, {name: 22.25})
                await asyncio.sleep(6)  # longer than a gateway may say nothing
            await expect(value).to_have_text("22.2500")
            await expect(page.locator(".banner")).to_have_count(0)
            assert await page.evaluate("window.asleep") > 5000, "it was awake, or loaded again"

    running.do(scenario())


def test_the_table_of_pvs_does_not_grow(running: Running) -> None:
    """Looked at for half a minute; `python -m bench web` looks for ten, at 40,000 PVs."""

    async def scenario() -> None:
        async with open_page(running) as page:
            await go_tab(page, "p")
            await expect(page.get_by_role("status")).to_have_text(f"{PVS} of {PVS} PVs")
            measured = MeasuredPage(page, await page.context.new_cdp_session(page))
            await page.wait_for_timeout(5_000)
            begin = await measured.heap_mb()
            await page.wait_for_timeout(30_000)
            assert await measured.heap_mb() - begin < 2.0

    running.do(scenario())


def test_the_breaker_of_an_ioc_is_held_and_let_go(running: Running) -> None:
    reason = f"known to be slow {uuid4().hex[:8]}"

    async def hold(page: Page, mode: str, why: str) -> None:
        iocs = page.get_by_role("region", name="IOCs")
        await iocs.get_by_role("combobox", name="Breaker of").select_option(mode)
        await iocs.get_by_role("textbox", name="Why").fill(why)
        await iocs.get_by_role("button", name="Do it now").click()

    async def scenario() -> None:
        async with open_page(running) as page:
            iocs = page.get_by_role("region", name="IOCs")
            try:
                await hold(page, "held closed: always asked", reason)
                await expect(iocs).to_contain_text(reason)
            finally:
                await hold(page, "automatic", "")
            await expect(iocs).not_to_contain_text(reason)

    running.do(scenario())


def test_a_key_that_is_revoked_under_the_page_is_told(running: Running) -> None:
    """What was shown stays, as what it is: not live."""
    stub = access_service_pb2_grpc.AccessServiceStub(running.channel)
    create = access_service_pb2.CreateKeyRequest(
        name=f"short-lived {uuid4().hex[:8]}", grants=[{"role": "viewer"}]
    )
    made = stub.CreateKey(create, **running.call())

    async def scenario() -> None:
        async with open_site(running.stack, made.secret) as page:
            await go_tab(page, "p")
            row = page.locator(".grid-row").first
            await expect(row).to_be_visible()
            revoke = access_service_pb2.RevokeKeyRequest(id=made.key.id)
            stub.RevokeKey(revoke, **running.call())
            banner = page.locator(".banner")
            await expect(banner).to_contain_text("Leave, and come with another key")
            await expect(row).to_have_class(re.compile("not-live"))
            await go_tab(page, "s")
            await expect(page.locator("p.error").first).to_contain_text("KEY_REVOKED")
            await page.get_by_role("button", name="Leave").click()
            await expect(page.get_by_label("Your API key")).to_be_visible()

    running.do(scenario())


def test_who_may_only_look_is_offered_no_more(running: Running) -> None:
    """In every part: a button cannot be pressed, or the refusal names what is missing."""
    snapshot = running.take("to be looked at only")
    bend = _bends(running)[0]

    async def scenario() -> None:
        async with open_page(running, role="VIEWER") as page:

            async def is_not_offered(*names: str) -> None:
                for name in names:
                    await expect(page.get_by_role("button", name=name).first).to_be_disabled()

            iocs = page.get_by_role("region", name="IOCs")
            await expect(iocs.get_by_role("combobox", name="Breaker of").first).to_be_disabled()
            await go_tab(page, "p")
            await is_not_offered("Import …")
            await search_words(page, bend)
            await row_of(page, bend).click()
            await is_not_offered("Edit …")
            await go_tab(page, "s")
            await is_not_offered("Take a snapshot")
            await page.goto(f"{running.stack.web}/#/snapshots/{snapshot.id}")
            await is_not_offered("Edit title, comment, labels", "Delete …", "Plan a restore …")
            await page.get_by_role("button", name="Compare with the machine now").click()
            await is_not_offered("Plan a restore of this snapshot")
            await page.goto(f"{running.stack.web}/#/restore/new/{snapshot.id}")
            await page.get_by_role("button", name="Make the plan").click()
            await expect(page.get_by_role("alert")).to_contain_text("needs the role operator")
            await go_tab(page, "l")
            await is_not_offered("Set a policy …")
            await go_tab(page, "k")
            await is_not_offered("Make a key")
            await expect(page.get_by_text("Your key may not handle keys.")).to_be_visible()
            await go_tab(page, "a")
            await expect(page.get_by_text("Your key may not read the audit trail.")).to_be_visible()

    running.do(scenario())


def _bend_and_area(running: Running) -> tuple[str, str]:
    name = _bends(running)[0]
    listed = catalog_service_pb2.ListPvsRequest(selector={"names": [name]})
    (pv,) = running.catalog.ListPvs(listed, **running.call()).pvs
    (area,) = [tag.tag for tag in pv.tags if tag.group == "Area"]
    return name, area


def test_drift_is_live_and_leads_to_plot_and_plan(running: Running) -> None:
    name, area = _bend_and_area(running)
    snapshot = running.take("the reference of the drift")

    async def scenario() -> None:
        async with open_page(running) as page:
            await go_tab(page, "d")
            await page.get_by_role("combobox", name="Against").select_option(snapshot.id)
            status = page.get_by_role("status")
            await expect(status).to_contain_text("from the snapshot of")
            await running.machine.run("disturb", "--count", "30", "--seed", "31")
            # this one differs from now on, whatever else comes and goes
            await _write(running, {name: 55.5})
            await page.get_by_label("different only").check()
            await page.get_by_role("combobox", name="Count by").select_option("Area")
            row = row_of(page, name)
            await expect(row).to_contain_text("different")
            counts = page.get_by_role("group", name="Counts by group").get_by_role("button")
            await expect(counts.first).to_be_visible()
            await shoot(page, "drift")
            await search_words(page, name)
            await expect(row).to_contain_text("different")
            of_group = counts.filter(has_text=re.compile(f"^{area}:"))
            await of_group.click()
            await expect(of_group).to_have_attribute("aria-pressed", "true")
            await expect(row).to_contain_text("different")
            await row.click()
            details = page.locator("aside")
            await expect(details.get_by_role("heading", name=name)).to_be_visible()
            await details.get_by_role("button", name="Plan a restore of it").click()
            form = page.get_by_role("form", name="Plan a restore")
            await expect(form).to_contain_text(f"Only 1 PV: {name}")
            await page.go_back()
            await search_words(page, name)
            await row.click()
            await page.keyboard.press("p")
            await expect(page.locator(".plot canvas")).to_have_count(1)

    running.do(scenario())


def test_a_snapshot_is_looked_at_edited_exported_deleted_and_brought_back(
    running: Running, tmp_path: Path
) -> None:
    snapshot = running.take("before it is edited")

    async def scenario() -> None:
        async with open_page(running) as page:
            await page.goto(f"{running.stack.web}/#/snapshots/{snapshot.id}")
            details = page.locator("aside")
            await details.get_by_role("button", name="Edit title, comment, labels").click()
            await page.get_by_role("textbox", name="Title").fill("edited here")
            await page.get_by_role("textbox", name="Labels").fill("beam, Schicht 2")
            await page.get_by_role("button", name="Save").click()
            await expect(details).to_contain_text("edited here")
            await expect(page.get_by_role("table")).to_contain_text("beam, Schicht 2")

            await page.get_by_role("button", name="Look at the values").click()
            values = page.get_by_role("grid", name="Values of the snapshot").locator(".grid-row")
            await expect(values.first).to_be_visible()
            async with page.expect_download() as downloading:
                await page.get_by_role("button", name=re.compile("^Export")).click()
            path = tmp_path / "values.jsonl"
            await (await downloading.value).save_as(path)
            head, *lines = map(json.loads, path.read_text().splitlines())
            assert head["snapshot"]["id"] == snapshot.id
            assert len(lines) == snapshot.pv_count
            assert {"name", "number", "setpoint"} <= set().union(*lines)
            async with page.expect_download() as downloading:
                await page.get_by_role("button", name="as CSV").click()
            path = tmp_path / "values.csv"
            await (await downloading.value).save_as(path)
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
            assert {row["name"] for row in rows} == {line["name"] for line in lines}

            await page.get_by_role("button", name="← Snapshots").click()
            await details.get_by_role("button", name="Delete …").click()
            await page.get_by_role("button", name="Delete it now").click()
            await expect(details).to_contain_text("was deleted")
            await page.get_by_label("deleted too").check()
            await expect(page.get_by_role("row").filter(has_text="✖ deleted")).not_to_have_count(0)
            await details.get_by_role("button", name="Bring it back").click()
            await expect(details.get_by_role("button", name="Delete …")).to_be_visible()

    running.do(scenario())


def _key_id(running: Running, name: str) -> str:
    stub = access_service_pb2_grpc.AccessServiceStub(running.channel)
    request = access_service_pb2.ListKeysRequest(include_dead=True, page_size=1000)
    (found,) = [key.id for key in stub.ListKeys(request, **running.call()).keys if key.name == name]
    return found


def test_a_key_is_made_shown_once_and_revoked(running: Running) -> None:
    name = f"screen {uuid4().hex[:8]}"

    async def scenario() -> None:
        async with open_page(running) as page:
            await go_tab(page, "k")
            await page.get_by_role("button", name="Make a key").click()
            form = page.get_by_role("form", name="Make a key")
            await form.get_by_role("textbox", name="Name").fill(name)
            await form.get_by_role("combobox", name="Role").select_option("operator")
            await form.get_by_role("textbox", name="Only for PVs").fill("QUAD:*")
            await form.get_by_role("button", name="Make it").click()
            secret = await page.get_by_label("Secret").input_value()
            assert secret.startswith("drey_")
            await page.get_by_role("button", name="I have it").click()
            row = page.get_by_role("row").filter(has_text=name)
            await expect(row).to_contain_text("operator for QUAD:*")
            assert secret not in await page.content()
            await row.get_by_role("button", name="Revoke").click()
            await page.get_by_role("button", name=f"Revoke {name} now").click()
            await expect(row).to_have_count(0)
            await page.get_by_label("revoked and expired too").check()
            await expect(row).to_contain_text("revoked")
            # and who did it
            await go_tab(page, "a")
            await page.get_by_role("textbox", name="Act").fill("access.key.revoke")
            act = page.get_by_role("row").filter(has_text=f"keys/{_key_id(running, name)}")
            await act.filter(has_text="access.key.revoke").get_by_role("button").click()
            details = page.get_by_role("complementary", name="The chosen act")
            await expect(details).to_contain_text(f"keys/{_key_id(running, name)}")
            await expect(details).to_contain_text("From127.0.0.1")
            await page.get_by_role("button", name="Verify the record").click()
            await expect(page.get_by_role("status")).to_contain_text("as they were written")

    running.do(scenario())


def plan_of(running: Running, name: str, offset: float) -> restore_pb2.Plan:
    stub = restore_service_pb2_grpc.RestoreServiceStub(running.channel)
    spec = restore_pb2.PlanSpec(
        state={"snapshot_id": running.take("of one PV").id},
        selector={"names": [name]},
        edits=[{"selector": {"names": [name]}, "linear": {"offset": offset}}],
    )
    plan = stub.CreatePlan(restore_service_pb2.CreatePlanRequest(spec=spec), **running.call()).plan
    assert plan.writes == 1
    return plan


def test_a_second_person_approves(running: Running) -> None:
    name = f"{APPROVED}{uuid4().hex[:8]}"
    with purged(running, name):
        own_pv(running, name)
        plan = plan_of(running, name, 0.125)

        async def scenario() -> None:
            async with open_page(running) as page:
                await page.goto(f"{running.stack.web}/#/restore/{plan.id}")
                await expect(page.get_by_text("waits for the approval")).to_be_visible()
                await expect(page.get_by_role("button", name="Approve")).to_have_count(0)
            async with open_page(running, role="APPROVER") as page:
                await page.goto(f"{running.stack.web}/#/restore/{plan.id}")
                await page.get_by_role("button", name="✓ Approve").click()
                await expect(page.get_by_text("your key may not execute plans")).to_be_visible()
            async with open_page(running) as page:
                await page.goto(f"{running.stack.web}/#/restore/{plan.id}")
                await expect(page.get_by_role("button", name="Execute …")).to_be_enabled()

        running.do(scenario())


async def begin_restore(page: Page, running: Running, plan: restore_pb2.Plan) -> Locator:
    """Execute a plan; the region that shows the restore."""
    await page.goto(f"{running.stack.web}/#/restore/{plan.id}")
    await page.get_by_role("button", name="Execute …").click()
    await page.get_by_role("button", name=re.compile("^Write .* now$")).click()
    return page.get_by_role("region", name="The restore")


def restore_of(running: Running, plan: restore_pb2.Plan) -> str:
    """Id of the restore that executes, or executed, a plan."""
    stub = restore_service_pb2_grpc.RestoreServiceStub(running.channel)
    request = restore_service_pb2.GetPlanRequest(id=plan.id)
    return str(stub.GetPlan(request, **running.call()).plan.restore_id)


def test_a_restore_is_paused_resumed_and_aborted(running: Running) -> None:
    """One whose ramp takes minutes, so that nobody has to be quick."""
    name = f"PAGE:{uuid4().hex[:8]}"
    with purged(running, name):
        own_pv(running, name, ramp_step=0.01, ramp_rate=0.01)
        plan = plan_of(running, name, 3.0)

        async def scenario() -> None:
            async with open_page(running) as page:
                restore = await begin_restore(page, running, plan)
                await restore.get_by_role("button", name="Pause").click()
                await expect(restore.get_by_role("heading")).to_contain_text("paused")
                await shoot(page, "paused")
                await restore.get_by_role("button", name="Resume").click()
                await expect(restore.get_by_role("button", name="Pause")).to_be_visible()
                await restore.get_by_role("button", name="Abort").click()
                await expect(restore.get_by_role("heading")).to_contain_text("aborted")
                await go_tab(page, "j")
                restore_id = restore_of(running, plan)
                link = page.locator(f'a[href="#/restore/of/{restore_id}"]')
                job = page.get_by_role("row").filter(has=link)
                await expect(job).to_contain_text(re.compile("cancelled|failed|interrupted"))
                await link.click()
                await expect(restore.get_by_role("heading")).to_contain_text("aborted")

        running.do(scenario())


def test_a_restore_is_followed_through_the_death_of_its_gateway(running: Running) -> None:
    """The page says that it lost the gateway, and then how the restore ended meanwhile."""
    name = f"PAGE:{uuid4().hex[:8]}"
    stub = restore_service_pb2_grpc.RestoreServiceStub(running.channel)

    def abort(restore_id: str) -> bool:
        request = restore_service_pb2.AbortRestoreRequest(id=restore_id, reason="by another")
        try:
            stub.AbortRestore(request, **running.call())
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            return False
        return True

    with purged(running, name):
        own_pv(running, name, ramp_step=0.01, ramp_rate=0.01)
        plan = plan_of(running, name, 3.0)

        async def scenario() -> None:
            async with open_page(running) as page:
                restore = await begin_restore(page, running, plan)
                await expect(restore.get_by_role("button", name="Pause")).to_be_visible()
                restore_id = restore_of(running, plan)
                await page.evaluate(RECORD_LOSS)
                running.stack.supervisor.kill("gateway")
                async with asyncio.timeout(HANGS_MS / 1000):
                    await page.evaluate("window.loss")
                    while not abort(restore_id):
                        await asyncio.sleep(0.2)
                await expect(restore.get_by_role("heading")).to_contain_text("aborted")
                report = page.get_by_role("grid", name="Report of the restore")
                await expect(report.locator(".grid-row").first).to_contain_text(name)
                await expect(page.locator(".banner")).to_have_count(0)
                assert await page.evaluate("window.loss !== undefined"), "it was loaded again"

        running.do(scenario())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_used_without_seeing_it(running: Running, theme: str) -> None:
    """No finding of axe in any part, in either theme."""
    running.take("of a history")
    bend = _bends(running)[0]

    async def scenario() -> None:
        async with open_page(running, theme=theme) as page:
            findings: dict[str, list[str]] = {}
            for letter, ready in (
                ("o", ".cards"),
                ("p", ".grid-row"),
                ("i", "input[type=file]"),
                ("s", "table"),
                ("d", "select"),
                ("r", "table"),
                ("l", "table"),
                ("j", "table"),
                ("a", "table"),
                ("k", "table"),
            ):
                if letter == "i":
                    await page.get_by_role("button", name="Import …").click()
                else:
                    await go_tab(page, letter)
                await expect(page.locator(ready).first).to_be_visible()
                if letter == "l":
                    await page.get_by_role("button", name="Set a policy …").click()
                    await expect(page.get_by_role("form", name="Set a policy")).to_be_visible()
                    await page.keyboard.press("Escape")
                if letter == "p":
                    await search_words(page, bend)
                    await row_of(page, bend).click()
                    await page.locator("[role=grid]").press("p")
                    await page.locator("[role=grid]").press("h")
                    await expect(page.locator(".plot canvas")).to_have_count(2)
                    await page.get_by_role("button", name="Edit …").click()
                    await expect(page.locator("aside textarea").first).to_be_focused()
                    await page.keyboard.press("Escape")
                await page.wait_for_timeout(1500)
                await shoot(page, f"{letter}-{theme}")
                await look_for_barriers(page, letter, findings)
            assert findings == {}

    running.do(scenario())
