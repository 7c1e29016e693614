"""A plan is rehearsed against a machine made from its channels, and the real one is not touched."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import psutil

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import selector_pb2, state_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_machine.rehearsed import SimChannel, SimMachine, SimWrite, place_channels
from drey_stack.simulated import SimulatedMachine
from drey_stack.whole import Stack, StackOptions

HANGS_S = 600.0
EVERYTHING = selector_pb2.Selector(all=True)
OLD_LABELS, NEW_LABELS = ("Off", "On", "Ramp"), ("Off", "Standby", "On", "Ramp")


def _machine(*, stored: bool) -> SimMachine:
    """The real one, before and after a night in which its labels moved."""

    def either(then: Any, now: Any) -> Any:
        return then if stored else now

    channels = [
        SimChannel("RH:MAG", "float64", value=either(3.0, 0.0)),
        SimChannel("RH:MAG:RB", "float64", value=either(3.1, 0.1)),
        SimChannel("RH:MOT", "float64", value=either(2.5, -1.0)),
        SimChannel("RH:MOT:RB", "float64", value=either(2.5, -1.0)),
        SimChannel("RH:MOT:DONE", "int32", value=1),
        SimChannel("RH:MODE", "enum", value=1, labels=either(OLD_LABELS, NEW_LABELS)),
        SimChannel("RH:WAVE", "float64", 8, either([1.0, 2.0, 3.0], [0.0])),
        SimChannel("RH:TEXT", "string", value=either("as it was ½", "other")),
        SimChannel("RH:LIM", "float64", value=either(8.0, 1.0)),
        SimChannel("RH:LIM.DRVH", "float64", value=either(10.0, 5.0)),
        SimChannel("RH:LIM.DRVL", "float64", value=-10.0),
        SimChannel("RH:SAME", "int32", value=7),
        SimChannel("RH:CURRENT", "float64", value=0.0),
    ]
    writes = [
        SimWrite("RH:MAG", 0.1, "RH:MAG:RB"),
        SimWrite("RH:MOT", 1.0, "RH:MOT:RB", done="RH:MOT:DONE"),
    ]
    return SimMachine(list(place_channels(channels, {}).values()), writes)


def _catalog() -> list[catalog_pb2.Pv]:
    def pv(name: str, readback: str = "", **policy: Any) -> catalog_pb2.Pv:
        made = catalog_pb2.Pv(name=name, restore_policy=catalog_pb2.RestorePolicy(**policy))
        made.setpoint.address = name
        if readback:
            made.readback.address = readback
            made.readback.tolerance.absolute = 0.01
        return made

    done = catalog_pb2.COMPLETION_DONE_CHANNEL
    timeout = {"seconds": 120}
    mag = pv("RH:MAG", "RH:MAG:RB", ramp_step=1.0, timeout=timeout)
    mag.setpoint.tolerance.absolute = 0.001
    return [
        mag,
        pv(
            *("RH:MOT", "RH:MOT:RB"),
            stage=1,
            completion=done,
            done_channel="RH:MOT:DONE",
            timeout=timeout,
        ),
        *(pv(name) for name in ("RH:MODE", "RH:WAVE", "RH:TEXT", "RH:LIM", "RH:LIM.DRVH")),
        pv("RH:SAME"),
        catalog_pb2.Pv(name="RH:CURRENT", readback={"address": "RH:CURRENT"}),
    ]


def _sockets_below(folder: Path) -> Path:
    (link,) = folder.glob("drey-rehearsal-*/state/run")
    return link.readlink()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _Site:
    """The real machine with its Drey."""

    def __init__(self, stack: Stack, machine: SimulatedMachine, channel: grpc.aio.Channel) -> None:
        self.stack, self.machine = stack, machine
        self.call: dict[str, Any] = {
            "metadata": (("authorization", f"Bearer {stack.key}"),),
            "timeout": HANGS_S,
        }
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.monitor = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        self.snapshots = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)
        self.restores = restore_service_pb2_grpc.RestoreServiceStub(channel)

    async def values(self) -> dict[str, value_pb2.PvRow]:
        request = monitor_service_pb2.GetValuesRequest(selector=EVERYTHING)
        messages = self.monitor.GetValues(request, **self.call)
        return {row.name: row async for message in messages for row in message.rows}

    async def wait_for_mode(self, label: str) -> None:
        """Wait until everything is connected, and the enumeration has this label."""
        while True:
            rows = await self.values()
            found = [v for row in rows.values() for v in (row.setpoint, row.readback)]
            connected = sum(v.state == value_pb2.CONNECTION_STATE_CONNECTED for v in found)
            mode = rows["RH:MODE"].setpoint.enum_value.label if rows else ""
            if connected == 11 and mode == label:
                return
            await asyncio.sleep(0.05)

    async def plan(self, snapshot_id: str, **more: Any) -> restore_pb2.Plan:
        spec = restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=snapshot_id), **more)
        request = restore_service_pb2.CreatePlanRequest(spec=spec, request_id=str(uuid4()))
        return (await self.restores.CreatePlan(request, **self.call)).plan

    async def start_rehearsal(
        self, plan: restore_pb2.Plan, folder: Path
    ) -> asyncio.subprocess.Process:
        """Run the command in an environment in which the real machine is to be seen."""
        words = ("restore", "rehearse", plan.id, "--json", "--server", self.stack.server)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "drey_cli.main", *words),
            env=os.environ
            | self.machine.environment
            | {"DREY_KEY": self.stack.key, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
        )

    async def rehearse(self, plan: restore_pb2.Plan, folder: Path) -> tuple[int, dict[str, Any]]:
        process = await self.start_rehearsal(plan, folder)
        out, _ = await process.communicate()
        return process.returncode or 0, json.loads(out)

    async def kill_rehearsal(self, plan: restore_pb2.Plan, folder: Path) -> Path:
        """`kill -9` in its middle: its children end too. Where its sockets were."""
        process = await self.start_rehearsal(plan, folder)
        async with asyncio.timeout(HANGS_S):
            children: list[psutil.Process] = []
            while len(children) < 3:  # its machine, and parts of its stack
                await asyncio.sleep(0.05)
                children = psutil.Process(process.pid).children(recursive=True)
            sockets = _sockets_below(folder)
            process.kill()
            await process.communicate()
            while any(map(_runs, children)):
                await asyncio.sleep(0.05)
        return sockets


@asynccontextmanager
async def _real_machine(folder: Path, *, stored: bool, ports: tuple[int, int] = (0, 0)) -> Any:
    _machine(stored=stored).write_file(folder / "channels.json")
    words = ["rehearse", "--channels", str(folder / "channels.json"), "--port", str(ports[0])]
    words += ["--repeater-port", str(ports[1])]
    async with SimulatedMachine(folder, command=words) as machine:
        yield machine


@asynccontextmanager
async def _real_site(folder: Path) -> AsyncIterator[tuple[_Site, str]]:
    """A site whose snapshot was taken before the machine came up with other labels."""
    async with _real_machine(folder / "machine", stored=True) as before:
        options = StackOptions(folder / "state", epics=before.environment, fsync=False)
        stack = await Stack(options).__aenter__()
        try:
            channel = stack.channel()
            site = _Site(stack, before, channel)
            request = catalog_service_pb2.BatchCreatePvsRequest(
                pvs=_catalog(), request_id=str(uuid4())
            )
            created = await site.catalog.BatchCreatePvs(request, **site.call)
            assert not [each for each in created.results if each.HasField("error")]
            await site.wait_for_mode("On")
            spec = snapshot_pb2.SnapshotSpec(selector=EVERYTHING)
            take = snapshot_service_pb2.TakeSnapshotRequest(spec=spec, request_id=str(uuid4()))
            snapshot = (await site.snapshots.TakeSnapshot(take, **site.call)).snapshot
            await before.__aexit__(None, None, None)
            async with _real_machine(folder / "machine", stored=False, ports=before.ports) as now:
                site.machine = now
                await site.wait_for_mode("Standby")
                yield site, snapshot.id
            await channel.close()
        finally:
            await stack.__aexit__(None, None, None)


def _require_rehearsed(status: int, said: dict[str, Any]) -> None:
    assert said["missing"] == {}
    assert said["planned_otherwise"] == {}
    fine = ("VERDICT_VERIFIED", "VERDICT_EQUAL_ALREADY")
    assert [item for item in said["items"] if item["verdict"] not in fine] == []
    assert status == 0, said


async def _rehearse_all(folder: Path) -> None:
    async with _real_site(folder) as (site, snapshot_id):
        gate = restore_pb2.StageGate(after_stage=0, max_failed=0)
        guard = restore_pb2.Guard(expression='pv["RH:CURRENT"] < 0.1')
        plan = await site.plan(snapshot_id, guards=[guard], gates=[gate])
        assert plan.writes == 7
        before = await site.values()

        left = await site.kill_rehearsal(plan, folder / "first")
        assert left.exists()
        status, said = await site.rehearse(plan, folder / "first")
        _require_rehearsed(status, said)
        assert not left.exists()
        assert said["restore"]["all_verified"]
        items = {item["name"]: item for item in said["items"]}
        verdicts = {name: item["verdict"] for name, item in items.items()}
        assert verdicts == {
            "RH:SAME": "VERDICT_EQUAL_ALREADY",
            **dict.fromkeys(("RH:MAG", "RH:MOT", "RH:MODE", "RH:WAVE"), "VERDICT_VERIFIED"),
            **dict.fromkeys(("RH:TEXT", "RH:LIM", "RH:LIM.DRVH"), "VERDICT_VERIFIED"),
        }
        assert items["RH:MODE"]["seen"]["enum_value"] == {"index": 2, "label": "On"}
        assert items["RH:MAG"]["ramp_steps_sent"] == 2
        assert items["RH:MAG"]["readback"]["float64_value"] == 3.1
        assert items["RH:TEXT"]["seen"]["string_value"] == "as it was ½"
        assert items["RH:WAVE"]["seen"]["float64_array"]["elements"] == [1.0, 2.0, 3.0]
        assert [stage["stage"]["stage"] for stage in said["stages"]] == [0, 1]
        assert all(stage["took_s"] is not None for stage in said["stages"])
        assert said["recorded"] == {}
        assert set(said["assumed"]) == set(verdicts) - {"RH:SAME"}

        # not one channel of the real machine was processed, let alone written
        after = await site.values()
        times = {
            name: (row.setpoint.source_time_ns, row.readback.source_time_ns)
            for name, row in before.items()
        }
        assert times == {
            name: (row.setpoint.source_time_ns, row.readback.source_time_ns)
            for name, row in after.items()
        }
        assert after["RH:MAG"].setpoint.float64_value == 0.0

        # the plan was not used up, and what the real restore took is what the next rehearsal takes
        execute = restore_service_pb2.ExecutePlanRequest(
            plan_id=plan.id, digest=plan.digest, request_id=str(uuid4())
        )
        restore = (await site.restores.ExecutePlan(execute, **site.call)).restore
        watch = restore_service_pb2.WatchRestoreRequest(id=restore.id)
        async for response in site.restores.WatchRestore(watch, **site.call):
            restore = response.restore
        assert not restore.HasField("error"), restore
        undo = restore_pb2.PlanSpec(undo=restore_pb2.UndoOf(restore_id=restore.id))
        request = restore_service_pb2.CreatePlanRequest(spec=undo, request_id=str(uuid4()))
        way_back = (await site.restores.CreatePlan(request, **site.call)).plan
        status, said = await site.rehearse(way_back, folder / "second")
        _require_rehearsed(status, said)
        assert said["assumed"] == {}
        assert said["recorded"]["RH:MOT"] >= 1.0
        first, last = said["stages"]
        assert [s["stage"]["writes"] for s in (first, last)] == [1, 6]
        assert first["took_s"] >= said["recorded"]["RH:MOT"]


def test_a_rehearsal_shows_the_course_and_leaves_the_machine_alone(tmp_path: Path) -> None:
    for name in ("machine", "first", "second"):
        (tmp_path / name).mkdir()
    with asyncio.Runner() as runner:
        runner.run(_rehearse_all(tmp_path))
    for name in ("first", "second"):  # where its state was
        assert list((tmp_path / name).iterdir()) == []
