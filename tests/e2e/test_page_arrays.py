"""Large arrays on the operators' page, with a machine that has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey_stack import HttpOptions
from drey_stack.whole import Stack, StackOptions
from drey_testing.ca.ioc import Ioc, use_loopback
from tests.e2e.page_calls import open_site, row_of, shoot

use_loopback()  # before anything makes a context of Channel Access

LARGE = 2000
SMALL = 20


def _waveform(name: str, length: int) -> str:
    values = ",".join(str(i % 7) for i in range(length))
    return (
        f'record(waveform,"{name}"){{field(FTVL,"DOUBLE") field(NELM,"{length}")'
        f' field(PINI,"YES") field(INP,"[{values}]")}}\n'
    )


async def test_of_a_large_array_comes_what_a_plot_shows(tmp_path: Path) -> None:
    """And it says so: least and greatest of some elements are not the value."""
    with Ioc(tmp_path, _waveform("LARGE", LARGE) + _waveform("SMALL", SMALL)) as ioc:
        epics = {
            "EPICS_CA_ADDR_LIST": f"127.0.0.1:{ioc.port}",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
        }
        options = StackOptions(tmp_path / "state", epics=epics, fsync=False, http=HttpOptions())
        async with Stack(options) as stack:
            async with stack.channel() as channel:
                stub: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
                request = catalog_service_pb2.BatchCreatePvsRequest(
                    pvs=[catalog_pb2.Pv(readback={"address": name}) for name in ("LARGE", "SMALL")]
                )
                await stub.BatchCreatePvs(
                    request, metadata=(("authorization", f"Bearer {stack.key}"),)
                )
            async with open_site(stack, stack.key) as page:
                await page.goto(f"{stack.web}/#/pvs")
                await row_of(page, "LARGE").click()
                details = page.locator("aside")
                await expect(details).to_contain_text(f"{LARGE} × from 0 to 6")
                await expect(details).to_contain_text(
                    re.compile("least and greatest of each [0-9]+ of 2,000 elements")
                )
                await expect(details.locator(".plot canvas")).to_have_count(1)
                await shoot(page, "large-array")
                await row_of(page, "SMALL").click()
                await expect(details).to_contain_text(f"{SMALL} × [0, 1, 2")
                await expect(details).not_to_contain_text("least and greatest")
                await expect(details.locator(".plot canvas")).to_have_count(1)
