"""Records that come back as another type are shown as what they are now: by the page, which uses
`@drey/client`, and by the programs of the documents in Python and Go."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import expect

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey_stack import HttpOptions
from drey_stack.whole import Stack, StackOptions
from drey_testing.ca.ioc import Ioc, use_loopback
from tests.e2e.page_calls import open_site, row_of
from tests.go import built_client

use_loopback()  # before anything makes a context of Channel Access

ROOT = Path(__file__).resolve().parents[2]
HANGS_S = 240


class Shown(NamedTuple):
    """A record, and how its value is shown: by the page, by the programs in Python and in Go."""

    record: str
    page: str
    python: str
    go: str


def _number(value: str) -> Shown:
    return Shown(f'record(ao,"NAME"){{field(VAL,"{value}") field(PREC,"1")}}', *[value] * 3)


def _text(value: str) -> Shown:
    record = f'record(stringout,"NAME"){{field(VAL,"{value}")}}'
    return Shown(record, value, f'"{value}"', f'"{value}"')


def _array(kind: str) -> Shown:
    point = ".0" if kind == "DOUBLE" else ""
    elements = ", ".join(f"{n}{point}" for n in (1, 2, 3))
    record = (
        f'record(waveform,"NAME"){{field(FTVL,"{kind}") field(NELM,"3")'
        ' field(PINI,"YES") field(INP,"[1,2,3]")}'
    )
    return Shown(record, "3 × ", f"[{elements}]", "[1, 2, 3]")


def _enum(label: str) -> Shown:
    record = f'record(mbbo,"NAME"){{field(ZRST,"zero") field(ONST,"{label}") field(VAL,"1")}}'
    return Shown(record, label, f"{label} (1)", f"{label} (1)")


CHANGES = {  # before, after
    "text": (_number("1.5"), _text("two")),
    "number": (_text("three"), _number("4.5")),
    "array": (_number("2.5"), _array("DOUBLE")),
    "scalar": (_array("DOUBLE"), _number("7.5")),
    "whole": (_array("DOUBLE"), _array("LONG")),
    "labels": (_enum("on"), _enum("closed")),
    "enum": (_text("open"), _enum("ajar")),
}
BEFORE = {name: shown for name, (shown, _) in CHANGES.items()}
AFTER = {name: shown for name, (_, shown) in CHANGES.items()}


def _database(records: Mapping[str, Shown]) -> str:
    return "\n".join(each.record.replace("NAME", name) for name, each in records.items())


@contextmanager
def _followed(command: list[str], output: Path) -> Iterator[None]:
    """Run a program that prints what it sees to a file."""
    with output.open("w") as file, subprocess.Popen(command, stdout=file) as process:
        try:
            yield
        finally:
            process.kill()


def _last_lines(output: Path) -> dict[str, str]:
    lines = output.read_text(encoding="utf-8").splitlines()
    return dict(line.split(" setpoint=", 1) for line in lines if " setpoint=" in line)


async def _until_printed(output: Path, wanted: Mapping[str, str]) -> None:
    """Until the last line of each PV says what it should."""
    last: dict[str, str] = {}
    try:
        async with asyncio.timeout(HANGS_S):
            while True:
                last = _last_lines(output)
                if last == wanted:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        assert last == wanted


async def test_a_record_that_comes_back_as_another_type_is_shown_right(tmp_path: Path) -> None:
    with Ioc(tmp_path, _database(BEFORE)) as ioc:
        epics = {"EPICS_CA_ADDR_LIST": f"127.0.0.1:{ioc.port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
        options = StackOptions(tmp_path / "state", epics=epics, fsync=False, http=HttpOptions())
        async with Stack(options) as stack:
            await _add_pvs(stack)
            programs = _programs(tmp_path)
            with ExitStack() as running:
                for program, begin in programs.items():
                    command = [*begin, stack.server, stack.key, *CHANGES]
                    running.enter_context(_followed(command, tmp_path / program))
                async with open_site(stack, stack.key) as page:
                    await page.goto(f"{stack.web}/#/pvs")
                    for turn in (BEFORE, AFTER):
                        if turn is AFTER:
                            ioc.kill()
                            ioc.start(_database(turn))
                        for name, shown in turn.items():
                            await expect(row_of(page, name)).to_contain_text(shown.page)
                        for program in programs:
                            wanted = {name: getattr(shown, program) for name, shown in turn.items()}
                            await _until_printed(tmp_path / program, wanted)


def _programs(folder: Path) -> dict[str, list[str]]:
    """Those of the documents; the one in Go where its tools are."""
    watch = ROOT / "docs/how-to/programs/client_watch.py"
    programs = {"python": [sys.executable, "-u", str(watch)]}
    if go := shutil.which("go"):
        programs["go"] = [str(built_client(go, folder))]
    return programs


async def _add_pvs(stack: Stack) -> None:
    async with stack.channel() as channel:
        catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        request = catalog_service_pb2.BatchCreatePvsRequest(
            pvs=[catalog_pb2.Pv(name=name, setpoint={"address": name}) for name in CHANGES]
        )
        await catalog.BatchCreatePvs(request, metadata=(("authorization", f"Bearer {stack.key}"),))
