"""The page with nothing to show, with values at the edges, and with very much at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from playwright.async_api import FilePayload, Locator, Page, expect

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_core.values import Columns
from drey_stack import HttpOptions
from drey_stack.whole import Stack, StackOptions
from drey_testing.browser import MeasuredPage
from drey_testing.ca.ioc import Ioc, use_loopback
from tests.e2e.page_calls import go_tab, look_for_barriers, open_site, row_of

use_loopback()  # before anything makes a context of Channel Access

from drey_ca import open_table  # noqa: E402

ELEMENTS = 1_310_720
"""Ten megabytes."""
LINES = 40_000
WAIT_S = 300
NOTHING = {
    "o": "No IOC has been connected yet.",
    "p": "The catalog has no PVs yet: import a file of them",
    "s": "There are no snapshots yet. Take the first one.",
    "d": "There is nothing to compare the machine with yet: take a snapshot",
    "r": "There are no plans yet.",
    "l": "No device and no tag has a policy",
    "j": "There have been no jobs yet.",
    "a": "bootstrap (admin)",
    "k": "by bootstrap",
}
SHOWN = {  # name, record, field or data, text
    "Größe:Öl": ("NAN", 'record(ao,"NAN"){field(VAL,"nan") field(PINI,"YES")}', "NaN"),
    "Énergie:été": ("INF", 'record(ao,"INF"){field(VAL,"inf") field(PINI,"YES")}', "Infinity"),
    "环:夜班": ("NEG", 'record(ao,"NEG"){field(VAL,"-inf") field(PINI,"YES")}', "-Infinity"),
    "مضخة:1": ("ZERO", 'record(ao,"ZERO"){field(VAL,"-0.0") field(PINI,"YES")}', "-0"),
    "OLD": ("OLD", 'record(ao,"OLD"){field(VAL,"1.25") field(PREC,"2")}', "1.25"),
    "beyond": ("BEYOND", 'record(mbbo,"BEYOND"){field(ONST,"open") field(VAL,"7")}', "#7"),
    "empty": ("EMPTY", 'record(stringout,"EMPTY"){field(PINI,"YES")}', '""'),
    "long": ("LONG", f'record(stringout,"LONG"){{field(VAL,"{"x" * 39}")}}', "x" * 39),
    "raw": ("RAW", 'record(stringout,"RAW"){}', "\ufffd\ufffd!"),
    "wave": (
        "WAVE",
        f'record(waveform,"WAVE"){{field(FTVL,"DOUBLE") field(NELM,"{ELEMENTS}")}}',
        f"{ELEMENTS} × ",
    ),
}

ORDINARY: dict[str, Any] = {
    "NAN": 1.0,
    "INF": 2.0,
    "NEG": 3.0,
    "ZERO": 4.0,
    "OLD": 5.0,
    "BEYOND": 1,
    "EMPTY": b"full",
    "LONG": b"short",
    "RAW": b"plain",
}
"""What is written later, by record."""


async def test_nothing_the_edges_and_very_much(tmp_path: Path) -> None:
    database = "\n".join(record for _, record, _ in SHOWN.values())
    with Ioc(tmp_path, database) as ioc:
        epics = {"EPICS_CA_ADDR_LIST": f"127.0.0.1:{ioc.port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
        options = StackOptions(tmp_path / "state", epics=epics, fsync=False, http=HttpOptions())
        async with Stack(options) as stack:
            await _write({"WAVE": np.arange(float(ELEMENTS)), "RAW": b"\xff\xfe!"})
            async with open_site(stack, stack.key) as page:
                await _each_part_says_what_to_do(page)
            snapshot = await _stored(stack)
            async with open_site(stack, stack.key) as page:
                await _edges_are_shown(page, stack, snapshot)
                await _write(ORDINARY)
                await _edges_stand_beside_others(page, stack, snapshot)
            async with open_site(stack, stack.key) as page:
                await _import_of_many(page, stack)


async def _write(values: dict[str, Any]) -> None:
    """Values of channels, past Drey."""
    async with open_table("aioca") as table:
        slots = await table.add_channels(list(values))
        assert (await table.wait_connected(slots, WAIT_S)).all()
        n = len(values)
        columns = Columns.from_values(np.zeros(n, np.int64), [*values.values()], [None] * n)
        assert (await table.write_values(slots, columns, WAIT_S)).tolist() == [1] * n


async def _each_part_says_what_to_do(page: Page) -> None:
    barriers: dict[str, list[str]] = {}
    for letter, text in NOTHING.items():
        await go_tab(page, letter)
        await expect(page.get_by_text(text).first).to_be_visible()
        await look_for_barriers(page, letter, barriers)
    assert barriers == {}


async def _stored(stack: Stack) -> str:
    """The PVs made, and a snapshot of them."""
    call: Any = {"metadata": (("authorization", f"Bearer {stack.key}"),)}
    async with stack.channel() as channel:
        catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        snapshots: Any = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)
        pvs = [
            catalog_pb2.Pv(name=name, setpoint={"address": address})
            for name, (address, _, _) in SHOWN.items()
        ]
        made = catalog_service_pb2.BatchCreatePvsRequest(pvs=pvs)
        await catalog.BatchCreatePvs(made, **call)
        spec = snapshot_pb2.SnapshotSpec(
            selector={"all": True},
            gates={"any_missing": {}},
            source=snapshot_pb2.SNAPSHOT_SOURCE_READ,
        )
        request = snapshot_service_pb2.TakeSnapshotRequest(spec=spec, request_id=str(uuid4()))
        taken = await snapshots.TakeSnapshot(request, **call)
        assert taken.snapshot.counts.connected == len(SHOWN)
        return str(taken.snapshot.id)


async def _edges_are_shown(page: Page, stack: Stack, snapshot: str) -> None:
    """In the live table and in the stored one; of the large array the page keeps nothing."""
    barriers: dict[str, list[str]] = {}
    await page.goto(f"{stack.web}/#/pvs")
    for name, (_, _, text) in SHOWN.items():
        await expect(row_of(page, name)).to_contain_text(text)
    await look_for_barriers(page, "live", barriers)
    measured = MeasuredPage(page, await page.context.new_cdp_session(page))
    before = await measured.heap_mb()
    await page.goto(f"{stack.web}/#/snapshots/{snapshot}/values")
    for name, (_, _, text) in SHOWN.items():
        await expect(row_of(page, name)).to_contain_text(text)
    await expect(row_of(page, "OLD")).to_contain_text("1990-01-01")
    await row_of(page, "wave").click()
    details = page.get_by_role("complementary", name="Stored values of wave")
    await expect(details.locator(".plot canvas")).to_have_count(1)
    await look_for_barriers(page, "stored", barriers)
    assert await measured.heap_mb() > before + 8 * ELEMENTS / 1e6
    await page.goto(f"{stack.web}/#/overview")
    await expect(page.locator(".cards")).to_be_visible()
    await page.wait_for_timeout(500)  # what is drawn last holds what was there before
    assert await measured.heap_mb() < before + 4 * ELEMENTS / 1e6
    assert barriers == {}


async def _edges_stand_beside_others(page: Page, stack: Stack, snapshot: str) -> None:
    """What was stored at the edges differs from what is now: in comparison, drift and plan."""
    barriers: dict[str, list[str]] = {}
    differing = {n: text for n, (record, _, text) in SHOWN.items() if record in ORDINARY}

    async def each_is_shown(where: str, left_out: tuple[str, ...] = ()) -> None:
        for name, text in differing.items():
            row = row_of(page, name)
            if text in left_out:
                await expect(row).to_contain_text("not finite")
                await expect(row.get_by_title(f"stored: {text}")).to_have_count(1)
            else:
                await expect(row).to_contain_text(text)
        await look_for_barriers(page, where, barriers)

    await page.goto(f"{stack.web}/#/snapshots/{snapshot}/live")
    status = page.get_by_role("status")
    await expect(status).to_contain_text("differ")
    while f"{len(differing)} " not in await status.inner_text():
        await page.wait_for_timeout(200)  # the monitor tells of what was written in a moment
        await page.get_by_role("button", name="Compare again").click()
    await each_is_shown("comparison")
    await page.goto(f"{stack.web}/#/drift/{snapshot}")
    await each_is_shown("drift")
    await page.goto(f"{stack.web}/#/restore/new/{snapshot}")
    await page.get_by_role("button", name="Make the plan").click()
    await each_is_shown("plan", left_out=("NaN", "Infinity", "-Infinity"))
    assert barriers == {}


def _many(wrong_line: int) -> FilePayload:
    """A file with a line that is refused; 0: none."""
    lines = [
        f"MANY:{n},NOWHERE:{n},{'a lot' if n + 1 == wrong_line else 0.5}" for n in range(LINES)
    ]
    content = "\n".join(["Name,Setpoint,Abs Tolerance", *lines, ""])
    return {"name": "many.csv", "mimeType": "text/csv", "buffer": content.encode()}


COUNT_FRAMES = """() => {
  window.frames_drawn = 0;
  const draw = () => { window.frames_drawn += 1; requestAnimationFrame(draw); };
  requestAnimationFrame(draw);
}"""


async def _import_of_many(page: Page, stack: Stack) -> None:
    """It tells how far it is and draws on; what is wrong is told by line; and it is taken once,
    although the gateway is killed meanwhile."""
    await go_tab(page, "p")
    await page.get_by_role("button", name="Import …").press("Enter")
    part = page.get_by_role("region", name="Import PVs")
    file, wrong = part.get_by_label("File"), 39_000
    await page.evaluate(COUNT_FRAMES)
    await file.set_input_files(_many(wrong))
    await expect(part.get_by_role("progressbar")).to_be_visible()
    await expect(part.get_by_role("alert")).to_contain_text("1 refused")
    assert await page.evaluate("window.frames_drawn") > 5, "nothing was drawn meanwhile"
    await part.get_by_label("Show").select_option("refused")
    line = part.locator(".grid-row")
    await expect(line).to_have_count(1)
    await expect(line.locator("> *").first).to_have_text(str(wrong + 1))  # after the head
    barriers: dict[str, list[str]] = {}
    await look_for_barriers(page, "import", barriers)
    assert barriers == {}
    await file.set_input_files(_many(0))
    apply = part.get_by_role("button", name="Import it")
    await expect(apply).to_contain_text("40,000 added")
    await apply.click()
    stack.supervisor.kill("gateway")
    await _until_imported(part, apply)
    await part.get_by_role("button", name="Back to the PVs").click()
    total = f"{LINES + len(SHOWN):,}"
    await expect(page.get_by_role("status")).to_have_text(f"{total} of {total} PVs")


async def _until_imported(part: Locator, apply: Locator) -> None:
    """As somebody who presses again when told that it went wrong."""
    done = part.get_by_role("status").filter(has_text="Imported")
    while True:
        await expect(done.or_(part.get_by_role("alert"))).to_be_visible()
        if await done.count():
            await expect(done).to_contain_text("40,000 added")
            return
        await expect(apply).to_be_enabled()
        await apply.click()
