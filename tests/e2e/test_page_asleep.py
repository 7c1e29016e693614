"""A tab that stood still for so long that its watch was cut, as one that sleeps for a minute."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import expect

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey_core.values import Columns
from drey_stack import HttpOptions
from drey_stack.whole import Stack, StackOptions
from drey_testing.ca.ioc import Ioc, use_loopback
from tests.e2e.page_calls import asleep, open_site, row_of

use_loopback()  # before anything makes a context of Channel Access

from drey_ca import open_table  # noqa: E402

TEXTS, SIZE = 20, 30_000
"""Long texts are sent whole: enough of them fills what lies between a gateway and a page."""
NAMES = [f"TEXT{n}" for n in range(TEXTS)]
CUT = "a call is cut: nothing was read"
HANGS_S = 240


async def test_a_tab_whose_watch_was_cut_goes_on(tmp_path: Path) -> None:
    """The gateway cuts who reads nothing; awake again, the page comes back by itself."""
    database = "\n".join(f'record(lso,"{name}"){{field(SIZV,"{SIZE}")}}' for name in NAMES)
    with Ioc(tmp_path, database) as ioc:
        epics = {"EPICS_CA_ADDR_LIST": f"127.0.0.1:{ioc.port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
        options = StackOptions(
            tmp_path / "state",
            epics=epics,
            environment={"DREY_GATEWAY_STALL_CUT": "1"},
            fsync=False,
            http=HttpOptions(),
        )
        async with Stack(options) as stack, open_table("aioca") as table:
            slots = await table.add_channels([f"{name}.VAL$" for name in NAMES])
            assert (await table.wait_connected(slots, HANGS_S)).all()

            async def write(text: str) -> None:
                values = [text.encode()] * TEXTS
                columns = Columns.from_values(np.zeros(TEXTS, np.int64), values, [None] * TEXTS)
                assert (await table.write_values(slots, columns, HANGS_S)).tolist() == [1] * TEXTS

            await _add_pvs(stack)
            await write("before")
            log = tmp_path / "state" / "gateway.log"
            async with open_site(stack, stack.key) as page:
                await page.goto(f"{stack.web}/#/pvs")
                await expect(row_of(page, NAMES[0])).to_contain_text("before")
                assert CUT not in log.read_text()
                async with asleep(page), asyncio.timeout(HANGS_S):
                    for turn in count():
                        await write(f"{turn} ".ljust(SIZE - 1, "x"))
                        if CUT in log.read_text():
                            break
                    await write("meanwhile")
                await expect(row_of(page, NAMES[0])).to_contain_text("meanwhile")
                await write("after")
                await expect(row_of(page, NAMES[-1])).to_contain_text("after")
                await expect(page.locator(".banner")).to_have_count(0)


async def _add_pvs(stack: Stack) -> None:
    async with stack.channel() as channel:
        catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        request = catalog_service_pb2.BatchCreatePvsRequest(
            pvs=[catalog_pb2.Pv(name=n, setpoint={"address": f"{n}.VAL$"}) for n in NAMES]
        )
        await catalog.BatchCreatePvs(request, metadata=(("authorization", f"Bearer {stack.key}"),))
