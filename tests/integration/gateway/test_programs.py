"""The programs of the documents: every type shown as it is, and a watch kept through everything."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import grpc
import numpy as np
import pytest

from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import monitor_service_pb2_grpc as pb_grpc
from drey_core.directory import MetadataPage
from drey_core.errors import InvalidArgument, Reason
from drey_core.values import ARRAY, Columns, Kind, Origin, State
from drey_runtime import status
from drey_runtime.server import method_handlers
from drey_testing.fixtures_gateway import (
    START,
    Gateway,
    GatewayRig,
    catalog_pages,
    eventually,
    every_channel,
    floats,
    name_of,
    setpoint,
)
from tests.go import ROOT, built_client, require_go
from tests.toolchains import java_client, java_command, oldest_python, rust_client

pytestmark = pytest.mark.timeout(900)

PAGE = 1
VALUES: list[tuple[int, object, str]] = [
    (Kind.BOOL, True, "true"),
    (Kind.INT8, -128, "-128"),
    (Kind.INT16, -32768, "-32768"),
    (Kind.INT32, -5, "-5"),
    (Kind.INT64, -(2**63) + 1, "-9223372036854775807"),
    (Kind.UINT8, 255, "255"),
    (Kind.UINT16, 65535, "65535"),
    (Kind.UINT32, 4294967295, "4294967295"),
    (Kind.UINT64, 2**64 - 1, "18446744073709551615"),
    (Kind.FLOAT32, 2.5, "2.5"),
    (Kind.FLOAT64, -0.125, "-0.125"),
    (Kind.FLOAT64, math.nan, "nan"),
    (Kind.ENUM, 1, "open (1)"),
    (Kind.ENUM, 7, "#7"),
    (Kind.STRING, "hello µ", '"hello µ"'),
    (Kind.STRING, b"\xff!", '"\\xff!"'),
    (Kind.BOOL | ARRAY, [True, False], "[true, false]"),
    (Kind.INT8 | ARRAY, [-1, 2], "[-1, 2]"),
    (Kind.INT16 | ARRAY, [-1, 2], "[-1, 2]"),
    (Kind.INT32 | ARRAY, [], "[]"),
    (Kind.INT64 | ARRAY, [-1, 2**62], "[-1, 4611686018427387904]"),
    (Kind.UINT8 | ARRAY, [7, 8], "[7, 8]"),
    (Kind.UINT16 | ARRAY, [7, 8], "[7, 8]"),
    (Kind.UINT32 | ARRAY, [7, 8], "[7, 8]"),
    (Kind.UINT64 | ARRAY, [7, 8], "[7, 8]"),
    (Kind.FLOAT32 | ARRAY, [0.5, 1.5], "[0.5, 1.5]"),
    (Kind.FLOAT64 | ARRAY, [0.5, math.nan], "[0.5, nan]"),
    (Kind.ENUM | ARRAY, [0, 3], "[0, 3]"),
    (Kind.STRING | ARRAY, ["a", "b c"], '["a", "b c"]'),
    (
        Kind.INT32 | ARRAY,
        np.arange(1_000_000),
        "[0, 1, 2, … 1000000 in all, the last 999999]",
    ),
    (Kind.UINT8 | ARRAY, np.zeros(2_500_000, "u1"), "[0, 0, 0, … 2500000 in all, the last 0]"),
    (Kind.STRING, "µ" * 1_000_000, f'"{"µ" * 1_000_000}"'),
]
GONE, NEVER, NOTHING = len(VALUES) + 1, len(VALUES) + 2, len(VALUES) + 3
PVS = NOTHING


def _built(language: str) -> Any:
    """With the others that build in it, on one worker: each finds what the one before built."""
    return pytest.param(language, marks=pytest.mark.xdist_group("languages"))


@pytest.fixture(
    params=["python", "client", "oldest", "go", _built("java"), _built("rust")], scope="module"
)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    match request.param:
        case "go":
            return [str(built_client(require_go(), tmp_path_factory.mktemp("go")))]
        case "java":
            return java_command(java_client())
        case "rust":
            return [str(rust_client(tmp_path_factory.mktemp("rust")))]
        case "oldest":  # an environment of a GUI is old
            python = str(oldest_python(tmp_path_factory.mktemp("oldest")))
            return [python, "-u", str(ROOT / "docs/how-to/programs/client_watch.py")]
    script = {"python": "watch.py", "client": "client_watch.py"}[request.param]
    return [sys.executable, "-u", str(ROOT / "docs/how-to/programs" / script)]


class Program:
    """One that runs. `said` are its lines so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.said = process, list[str]()

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(line.decode().rstrip("\n"))

    async def until(self, text: str, since: int = 0) -> None:
        async def found() -> bool:
            assert self.process.returncode is None, [line[:300] for line in self.said[-5:]]
            return any(text in line for line in self.said[since:])

        await eventually(found, f"the program says {text}", 90)


@asynccontextmanager
async def started(command: list[str], **environment: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        limit=64 << 20,
        env={**os.environ, **environment},
    )
    found = Program(process)
    reading = asyncio.create_task(found.read())
    try:
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@pytest.fixture
async def served(rig: GatewayRig, admin_key: str, program: list[str]):
    """Ready and fresh; the program is there, whose making may hold up the owner's beat."""
    publisher = rig.publisher()
    await publisher.beat()
    metadata = MetadataPage.empty_page(PAGE)
    for pv, (kind, _, _) in enumerate(VALUES, 1):
        if kind == Kind.ENUM:
            metadata.labels[setpoint(pv) - 256] = (b"shut", b"open")
    await publisher.set_catalog(catalog_pages(PVS), [metadata])
    kinds = [int(kind) for kind, _, _ in VALUES] + [int(Kind.FLOAT64)] * 3
    channels = np.array([setpoint(pv) for pv in range(1, PVS + 1)], np.int64)
    columns = Columns.from_values(channels, [v for _, v, _ in VALUES] + [4.5, 0.0, 0.0], kinds)
    columns.kind[NEVER - 1 :] = Kind.NONE
    columns.state[:], columns.origin[:] = State.CONNECTED, Origin.MONITOR
    columns.state[GONE - 1], columns.state[NEVER - 1] = State.DISCONNECTED, State.NEVER_CONNECTED
    columns.source_time[:] = columns.receive_time[:] = START
    await publisher.publish(columns)
    publisher.start()
    gateway = await rig.ready_gateway()
    stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)

    async def fresh() -> bool:
        metadata = (("authorization", f"Bearer {admin_key}"),)
        found = await stub.GetMonitorStatus(pb.GetMonitorStatusRequest(), metadata=metadata)
        return all(shard.state.fresh for shard in found.shards)

    await eventually(fresh, "values that can be believed")
    yield gateway, publisher
    await publisher.stop()


def command(program: list[str], gateway: Gateway, key: str) -> list[str]:
    names = [name_of(pv) for pv in range(1, PVS + 1)]
    return [*program, f"127.0.0.1:{gateway.port}", key, *names]


async def test_every_type_is_shown_as_it_is(served, admin_key, program):
    gateway, _ = served
    async with started(command(program, gateway, admin_key)) as running:
        await running.until(f"holding {PVS} PVs")
        shown = {}
        for line in running.said:
            name, _, rest = line.partition(" setpoint=")
            shown[name] = rest.partition(" readback=")[0]
    wrong = {
        name_of(pv): (shown.get(name_of(pv), "")[:100], wanted[:100])
        for pv, (_, _, wanted) in enumerate(VALUES, 1)
        if shown.get(name_of(pv), "").lower().replace("\\\\x", "\\x") != wanted.lower()
    }
    assert not wrong
    assert shown[name_of(GONE)] == "disconnected, was 4.5"
    assert shown[name_of(NEVER)] == "never connected"
    assert shown[name_of(NOTHING)] == "no value"


async def test_a_watch_goes_on_through_kill_and_stop(served, admin_key, program):
    gateway, publisher = served
    async with started(command(program, gateway, admin_key)) as running:
        await running.until(f"holding {PVS} PVs")
        await gateway.end(signal.SIGKILL)
        await running.until("lost:")
        await publisher.publish(floats([setpoint(4)], [1234.5]))
        await gateway.start()
        await running.until(f"{name_of(4)} setpoint=1234.5")
        since = len(running.said)
        # a gateway that stands still keeps its connections, and says nothing
        process = gateway.pid
        os.kill(process, signal.SIGSTOP)
        try:
            await running.until("lost:", since)
        finally:
            os.kill(process, signal.SIGCONT)
        await publisher.publish(floats([setpoint(4)], [4321.5]))
        await running.until(f"{name_of(4)} setpoint=4321.5", since)


class Forgetful:
    """A gateway that knows no token, as one of another version."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return self.WatchPvs

    async def WatchPvs(self, request: pb.WatchPvsRequest, context: Any) -> Any:
        self.tokens.append(request.token)
        if request.token:
            refused = InvalidArgument("no token of ours", reason=Reason.TOKEN_UNKNOWN)
            details = status.to_status(refused).SerializeToString()
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "", ((status.STATUS_METADATA, details),)
            )
        yield pb.WatchPvsResponse(baseline_begin={})
        yield pb.WatchPvsResponse(baseline_end={"token": "t"})
        if len(self.tokens) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        await asyncio.Event().wait()


async def test_a_token_that_is_not_known_is_dropped(program):
    forgetful, server = Forgetful(), grpc.aio.server()
    server.add_generic_rpc_handlers((method_handlers("drey.monitor.v1.MonitorService", forgetful),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with started([*program, f"127.0.0.1:{port}", "key", "A"]) as running:

            async def begun_anew() -> bool:
                return len(forgetful.tokens) == 3 and running.said.count("holding 0 PVs") == 2

            await eventually(begun_anew, "a watch without a token")
        assert forgetful.tokens == ["", "t", ""]
    finally:
        await server.stop(None)


SCREEN_PVS = 500
TELLING = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import qasync, qt_screen
from PyQt6.QtWidgets import QApplication

class Telling(qt_screen.Screen):
    def show_change(self, change):
        super().show_change(change)
        model, status = self.model, self.status.text()
        color = qt_screen.Qt.ItemDataRole.ForegroundRole
        gray = model.rowCount() and model.data(model.index(3, 1), color)
        row = [model.index(3, column).data() for column in range(2)]
        print(model.rowCount(), "PVs", *row, "gray" if gray else "black", status, flush=True)
        if row[1] == "4321.5":
            self.close()

application = QApplication([])
application.setQuitOnLastWindowClosed(False)
qasync.run(qt_screen.main(Telling(), *sys.argv[1:]))
print("closed")
"""


async def test_a_screen_of_qt_survives_the_death_of_a_gateway(rig: GatewayRig, admin_key: str):
    """500 PVs; what it shows is gray while nobody knows, and goes on by itself."""
    if find_spec("PyQt6") is None or find_spec("qasync") is None:
        pytest.skip("NO QT HERE: the example NOT tried: pip install PyQt6 qasync")
    publisher = rig.publisher()
    await publisher.beat()
    await publisher.set_catalog(catalog_pages(SCREEN_PVS))
    await publisher.publish(every_channel(SCREEN_PVS, 0.5))
    publisher.start()
    gateway = await rig.ready_gateway()
    folder = str(ROOT / "docs/how-to/programs")
    address = f"127.0.0.1:{gateway.port}"
    argv = [sys.executable, "-u", "-c", TELLING, folder, address, admin_key, "PV:*"]
    try:
        async with started(argv, QT_QPA_PLATFORM="offscreen") as running:
            await running.until(f"{SCREEN_PVS} PVs {name_of(4)} 0.5 black live")
            await gateway.end(signal.SIGKILL)
            await running.until(f"{SCREEN_PVS} PVs {name_of(4)} 0.5 (stale) gray not live")
            await publisher.publish(floats([setpoint(4)], [1234.5]))
            await gateway.start()
            await running.until(f"{SCREEN_PVS} PVs {name_of(4)} 1234.5 black live")
            await publisher.publish(floats([setpoint(4)], [4321.5]))
            assert await running.process.wait() == 0
            assert "4321.5" in running.said[-2]
    finally:
        await publisher.stop()
