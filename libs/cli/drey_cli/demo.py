"""The walk: watch, snapshot, change, compare, plan, restore, verify, on a simulated machine.

Each step calls the public contracts as any client does. At the end the machine is read by a
client that has nothing to do with Drey, and every setpoint is held against the snapshot.
"""

from __future__ import annotations

import asyncio
import csv
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import state_pb2
from drey.compare.v1 import compare_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2
from drey_cli.errors import CliError
from drey_cli.output import Output
from drey_cli.render.words import short_name
from drey_client import Client, EnumState
from drey_stack.simulated import SimulatedMachine


@dataclass
class DemoStep:
    """One step; `facts` are its results, for people and for the JSON report."""

    title: str
    command: str
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


class DemoReport:
    """Prints the steps as they go and keeps them."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.steps: list[DemoStep] = []

    @contextmanager
    def time_step(self, title: str, command: str = "") -> Iterator[DemoStep]:
        """Announce a step, time the body, and print what came of it."""
        step = DemoStep(title, command)
        self.steps.append(step)
        self._out.print_text(f"{len(self.steps):2}. {title}", "bold")
        if command:
            self._out.print_text(f"    $ {command}", "cyan")
        begin = time.perf_counter()
        yield step
        if not step.seconds:
            step.seconds = time.perf_counter() - begin
        facts = ", ".join(f"{k.replace('_', ' ')} {_value_text(v)}" for k, v in step.facts.items())
        self._out.print_text(f"    {step.seconds:.3f} s{': ' if facts else ''}{facts}")

    def write_json(self, path: Path, *, pvs: int, ok: bool) -> None:
        steps = [
            {"step": s.title, "command": s.command, "seconds": round(s.seconds, 6), **s.facts}
            for s in self.steps
        ]
        path.write_text(json.dumps({"pvs": pvs, "ok": ok, "steps": steps}, indent=2) + "\n")


def _value_text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


_PATIENCE_S = 600.0
"""Catches what hangs, on a machine of any pace."""
_ENDED = frozenset(
    {
        restore_pb2.RESTORE_STATE_COMPLETED,
        restore_pb2.RESTORE_STATE_ABORTED,
        restore_pb2.RESTORE_STATE_INTERRUPTED,
        restore_pb2.RESTORE_STATE_FAILED,
    }
)


class DemoWalk:
    """The steps against one server beside one simulated machine."""

    def __init__(self, client: Client, machine: SimulatedMachine, report: DemoReport) -> None:
        self._client, self._machine, self._report = client, machine, report
        self._restores: Any = restore_service_pb2_grpc.RestoreServiceStub(client.channel)
        self._snapshot = snapshot_pb2.Snapshot()
        self._plan = restore_pb2.Plan()
        self._watch = client.watch("*", with_metadata=False)
        self._pvs = self._updates = 0

    async def run_walk(self, disturb: int) -> bool:
        """Walk; True only if the independent read at the end shows the snapshot's setpoints."""
        await self._import_pvs()
        watching = asyncio.create_task(self._watch_all())
        try:
            await self._wait_settled(watching)
            await self._take_snapshot()
            await self._disturb_machine(disturb)
            await self._show_drift(disturb)
            await self._make_plan()
            await self._run_restore()
            await self._compare_again()
            return await self._verify_values()
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _import_pvs(self) -> None:
        path = self._machine.catalog
        with self._report.time_step("Import the catalog", f"drey pv import {path.name}") as step:
            summary = await import_catalog(self._client, path)
            self._pvs = summary.rows
            step.facts.update(pvs=summary.rows, added=summary.added, changed=summary.changed)

    async def _watch_all(self) -> None:
        """Watch everything from now on, counting what comes."""
        async for change in self._watch:
            self._updates += 0 if change.whole else len(change.pvs)

    async def _wait_settled(self, watching: asyncio.Task[None]) -> None:
        """Wait until the monitors have every channel that is to be had."""
        with self._report.time_step("Watch it until all is connected", "drey status") as step:
            dead_count = dead_channels(self._machine.folder)
            end = time.monotonic() + _PATIENCE_S
            while True:
                channels, connected = await connected_channels(self._client)
                whole = channels > 0 and len(self._watch) == self._pvs
                if whole and connected >= channels - dead_count:
                    break
                if watching.done():
                    watching.result()
                if time.monotonic() > end:
                    raise CliError(
                        f"{connected} of {channels} channels are connected, "
                        f"{len(self._watch)} of {self._pvs} PVs watched"
                    )
                await asyncio.sleep(0.05)
            step.facts.update(channels=channels, connected=connected, watched_pvs=len(self._watch))

    async def _take_snapshot(self) -> None:
        command = "drey snapshot take --all --title before --allow-missing"
        with self._report.time_step("Take a snapshot of the whole machine", command) as step:
            self._snapshot = await self._client.take_snapshot(title="before", max_missing=None)
            counts = self._snapshot.counts
            step.facts.update(
                values=counts.connected,
                missing=counts.disconnected + counts.never_connected + counts.unsupported,
                digest=self._snapshot.digest[:12],
            )

    async def _disturb_machine(self, count: int) -> None:
        command = f"python -m drey_machine disturb --count {count}"
        with self._report.time_step(f"Disturb {count} PVs, as a bad night would", command) as step:
            before = self._updates
            await self._machine.run("disturb", "--count", str(count))
            end = time.monotonic() + 10
            while self._updates < before + count and time.monotonic() < end:
                await asyncio.sleep(0.02)
            step.facts.update(changes_seen_by_the_watch=self._updates - before)

    async def _compare_live(self) -> tuple[compare_pb2.ComparisonSummary, float]:
        """How the machine compares with the snapshot, and the time that it took."""
        begin = time.perf_counter()
        (summary,) = (await self._client.compare(self._snapshot.id)).header.summaries
        return summary, time.perf_counter() - begin

    async def _show_drift(self, count: int) -> None:
        with self._report.time_step("See the drift", "drey snapshot compare before live") as step:
            end = time.monotonic() + 10
            while True:
                summary, seconds = await self._compare_live()
                if _different_setpoints(summary) >= count or time.monotonic() > end:
                    break
                await asyncio.sleep(0.05)
            step.seconds = seconds
            step.facts.update(_summary_facts(summary))

    async def _make_plan(self) -> None:
        with self._report.time_step("Plan the way back", "drey restore plan before") as step:
            state = state_pb2.StateRef(snapshot_id=self._snapshot.id)
            request = restore_service_pb2.CreatePlanRequest(spec=restore_pb2.PlanSpec(state=state))
            self._plan = (await self._client.call(self._restores.CreatePlan, request)).plan
            skipped = sum(s.pvs for s in self._plan.skips)
            step.facts.update(
                writes=self._plan.writes, left_out=skipped, digest=self._plan.digest[:12]
            )

    async def _run_restore(self) -> None:
        command = f"drey restore run {self._plan.id[-8:]} --yes"
        with self._report.time_step("Restore, and read everything back", command) as step:
            execute = restore_service_pb2.ExecutePlanRequest(
                plan_id=self._plan.id, digest=self._plan.digest
            )
            restore = (await self._client.call(self._restores.ExecutePlan, execute)).restore
            watch = restore_service_pb2.WatchRestoreRequest(id=restore.id)
            async for message in self._client.stream(self._restores.WatchRestore, watch):
                restore = message.restore
            if restore.state not in _ENDED:
                raise CliError("the restore's stream ended before the restore did")
            if restore.HasField("error"):
                raise CliError(f"the restore failed: {restore.error.message}")
            for count in restore.verdicts:
                name = short_name(restore_pb2.Verdict, count.verdict).replace("-", "_")
                step.facts[name] = count.pvs

    async def _compare_again(self) -> None:
        """Wait for the readbacks, which follow with a lag, and say how far it is from before."""
        with self._report.time_step("Compare again", "drey snapshot compare before live") as step:
            end = time.monotonic() + 10
            while True:
                summary, seconds = await self._compare_live()
                if summary.pvs_different == 0 or time.monotonic() > end:
                    break
                await asyncio.sleep(0.1)
            step.seconds = seconds
            step.facts.update(_summary_facts(summary))

    async def _verify_values(self) -> bool:
        title = "Read every setpoint with another client and hold it against the snapshot"
        command = "python -m drey_machine read --setpoints"
        with self._report.time_step(title, command) as step:
            path = self._machine.folder / "read.json"
            await self._machine.run("read", "--setpoints", "--json", str(path))
            answers: dict[str, Any] = json.loads(path.read_text())
            tolerances = _read_tolerances(self._machine.catalog)
            wrong, right, unread = [], 0, 0
            # a PV of this machine is named as its setpoint is addressed
            table = await self._client.read_snapshot(self._snapshot.id)
            rows = zip(table["pv"], table["channel"], table["value"], strict=True)
            for address, channel, stored in rows:
                if channel != "setpoint" or stored is None:
                    continue
                answer = answers.get(address)
                if answer is None or "error" in answer:
                    unread += 1
                elif same_within(plain_data(stored), answer["value"], *tolerances[address]):
                    right += 1
                else:
                    wrong.append(address)
            step.facts.update(equal=right, different=len(wrong), unread=unread)
            if wrong:
                step.facts["first_different"] = ", ".join(wrong[:5])
        return right > 0 and not wrong and not unread


def _read_tolerances(path: Path) -> dict[str, tuple[float, float]]:
    """Tolerance of each setpoint address, from the file that was imported."""
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["Setpoint"]: (float(row["Abs Tolerance"] or 0), float(row["Rel Tolerance"] or 0))
            for row in csv.DictReader(file)
        }


def _different_setpoints(summary: compare_pb2.ComparisonSummary) -> int:
    return sum(
        c.setpoints
        for c in summary.counts
        if c.difference_class == compare_pb2.DIFFERENCE_CLASS_DIFFERENT
    )


def _summary_facts(summary: compare_pb2.ComparisonSummary) -> dict[str, int]:
    return {
        "same": summary.pvs_same,
        "different": summary.pvs_different,
        "not_known": summary.pvs_unknown,
    }


async def import_catalog(
    client: Client, path: Path, *, keep_existing: bool = False
) -> catalog_pb2.ImportSummary:
    """Import the file; CliError where a row is refused."""
    summary = (await client.import_pvs(path, keep_existing=keep_existing)).summary
    if not summary.applied:
        raise CliError(f"the import was refused: {summary.refused} rows")
    return summary


async def connected_channels(client: Client) -> tuple[int, int]:
    """How many channels the monitors have, and how many of them are connected."""
    stub: Any = monitor_service_pb2_grpc.MonitorServiceStub(client.channel)
    request = monitor_service_pb2.GetMonitorStatusRequest()
    status = await client.call(stub.GetMonitorStatus, request)
    return sum(s.channels for s in status.shards), sum(s.connected for s in status.shards)


def dead_channels(folder: Path) -> int:
    """Channels in the catalog that no IOC serves, by the machine's own word."""
    description = json.loads((folder / "machine.json").read_text())
    return len(description["dead"])


def plain_data(data: Any) -> Any:
    """Data of a `ChannelValue` as numbers, text and lists; None where there is none."""
    if isinstance(data, EnumState):
        return data.index
    if isinstance(data, np.ndarray):
        return data.tolist()
    if isinstance(data, list):
        return [_as_text(each) for each in data]
    return _as_text(data) if isinstance(data, bytes) else data


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


def same_within(stored: Any, read: Any, absolute: float, relative: float) -> bool:
    """Whether `read` is `stored` within tolerance, element by element; NaN is NaN."""
    if isinstance(stored, list) or isinstance(read, list):
        left = stored if isinstance(stored, list) else [stored]
        right = read if isinstance(read, list) else [read]
        return len(left) == len(right) and all(
            same_within(a, b, absolute, relative) for a, b in zip(left, right, strict=True)
        )
    if isinstance(stored, str) or isinstance(read, str):
        return bool(stored == read)
    if math.isnan(stored) or math.isnan(read):
        return math.isnan(stored) and math.isnan(read)
    return bool(stored == read) or abs(stored - read) <= absolute + relative * abs(stored)
