"""Snapshots by reading the channels of a real IOC, in a service process of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog_rpc
from drey.common.v1 import selector_pb2, value_pb2
from drey.snapshot.v1 import snapshot_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey_machine import Machine
from drey_testing.fixtures_catalog import until_serving

EVERYTHING = selector_pb2.Selector(all=True)
STATES = ["ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV"]
STATES += ["EI", "NI", "TE", "EL", "TV", "TT", "FT", "FF"]
NEVER = value_pb2.CONNECTION_STATE_NEVER_CONNECTED


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with Machine(tmp_path / "machine", pvs=200) as found:
        yield found


async def add_pvs(site: Any, *addresses: str) -> None:
    """Make a PV of each setpoint."""
    for address in addresses:
        pv = catalog_pb2.Pv(setpoint={"address": address})
        request = catalog_rpc.CreatePvRequest(pv=pv, request_id=str(uuid.uuid4()))
        await site.catalog.CreatePv(request)


async def test_the_channels_themselves_are_read(machine, make_process) -> None:
    """libca reads its environment once, so the service runs as a process with the machine's."""
    async with make_process(machine.client_environment) as site:
        await until_serving(site.channel, 60)

        async def requests():
            options = catalog_rpc.ImportOptions(format=catalog_pb2.FILE_FORMAT_CSV)
            yield catalog_rpc.ImportPvsRequest(options=options)
            yield catalog_rpc.ImportPvsRequest(data=machine.csv_path.read_bytes())

        async for response in site.catalog.ImportPvs(requests(), timeout=60):
            if response.HasField("summary"):
                assert response.summary.applied, response.summary
        request = rpc.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=EVERYTHING,
                source=snapshot_pb2.SNAPSHOT_SOURCE_READ,
                gates=snapshot_pb2.Gates(any_missing={}),
            )
        )
        request.spec.read_timeout.FromSeconds(5)
        request.wait.FromSeconds(50)
        response = await site.snapshots.TakeSnapshot(request, timeout=60)
        snapshot = response.snapshot
        assert snapshot.source == snapshot_pb2.SNAPSHOT_SOURCE_READ
        assert not snapshot.shards
        assert snapshot.counts.never_connected == len(machine.dead_addresses)
        # one deadline, not one for each of the dead
        assert snapshot.take_duration.ToNanoseconds() < 5e9 * len(machine.dead_addresses)
        rows = await site.rows(snapshot.id)
        connected = [
            value
            for row in rows
            for value in (row.setpoint, row.readback)
            if value.state == value_pb2.CONNECTION_STATE_CONNECTED
        ]
        assert len(connected) == snapshot.counts.connected
        assert {v.origin for v in connected} == {value_pb2.VALUE_ORIGIN_READ}
        magnet = next(r for r in rows if r.name == machine.names("magnet")[0])
        independent = await machine.read_channels([magnet.name])
        assert magnet.setpoint.float64_value == independent[magnet.name]["value"]
        # the image is empty and stale here: what it cannot tell is read
        request.spec.source = snapshot_pb2.SNAPSHOT_SOURCE_IMAGE_THEN_READ
        again = (await site.snapshots.TakeSnapshot(request, timeout=60)).snapshot
        assert again.counts.connected == snapshot.counts.connected
        # what is required is there, or nothing is taken, whatever else may be missing
        request.spec.gates.required.names.append(magnet.name)
        assert (await site.snapshots.TakeSnapshot(request, timeout=60)).HasField("snapshot")
        gone = next(row.name for row in rows if row.setpoint.state == NEVER)
        request.spec.gates.required.names.append(gone)
        for source in (snapshot_pb2.SNAPSHOT_SOURCE_READ, request.spec.source):
            request.spec.source = source
            with pytest.raises(grpc.aio.AioRpcError, match="required"):
                await site.snapshots.TakeSnapshot(request, timeout=60)


async def test_what_was_connected_is_told_from_what_never_was(machine, make_process) -> None:
    """A reading of a machine that has just gone, with a PV of a protocol that is not spoken."""
    async with make_process(machine.client_environment) as site:
        await until_serving(site.channel, 60)
        there, dead = machine.names("magnet")[0], machine.dead_addresses[0]
        await add_pvs(site, there, dead, "pva://SOME:PVA")
        request = rpc.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=EVERYTHING,
                source=snapshot_pb2.SNAPSHOT_SOURCE_READ,
                gates=snapshot_pb2.Gates(any_missing={}),
            )
        )
        request.spec.read_timeout.FromSeconds(5)
        request.wait.FromSeconds(50)
        counts = (await site.snapshots.TakeSnapshot(request, timeout=60)).snapshot.counts
        assert (counts.connected, counts.never_connected, counts.unsupported) == (1, 1, 1)
        await machine.kill()
        snapshot = (await site.snapshots.TakeSnapshot(request, timeout=60)).snapshot
        counts = snapshot.counts
        assert (counts.disconnected, counts.never_connected, counts.unsupported) == (1, 1, 1)
        states = {row.name: row.setpoint.state for row in await site.rows(snapshot.id)}
        assert states == {
            there: value_pb2.CONNECTION_STATE_DISCONNECTED,
            dead: value_pb2.CONNECTION_STATE_NEVER_CONNECTED,
            "SOME:PVA": value_pb2.CONNECTION_STATE_UNSUPPORTED,
        }


async def test_the_image_tells_what_was_connected_once(site) -> None:
    """Nobody answers here: the table of this process has never seen any of the channels."""
    await site.add_pvs(3)
    await site.fill()
    await site.monitor.publish(site.monitor.columns(site.monitor.directory.channels[:1]))
    request = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(
            selector=EVERYTHING,
            source=snapshot_pb2.SNAPSHOT_SOURCE_READ,
            gates=snapshot_pb2.Gates(any_missing={}),
        )
    )
    request.spec.read_timeout.FromMilliseconds(300)
    counts = (await site.snapshots.TakeSnapshot(request)).snapshot.counts
    assert (counts.channels, counts.disconnected, counts.never_connected) == (6, 5, 1)


async def test_an_enum_that_is_read_has_the_label_of_now(machine, make_process, capfd) -> None:
    """No monitor runs here: nothing is known of labels but what the IOC itself says."""
    async with make_process(machine.client_environment) as site:
        await until_serving(site.channel, 60)
        names = machine.names("enum")
        await add_pvs(site, *names)
        request = rpc.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=EVERYTHING, source=snapshot_pb2.SNAPSHOT_SOURCE_READ
            )
        )
        request.spec.read_timeout.FromSeconds(20)
        request.wait.FromSeconds(50)
        told = []
        for variant in ("", "changed"):
            if variant:
                await machine.kill()
                await machine.start(variant=variant)
            snapshot = (await site.snapshots.TakeSnapshot(request, timeout=60)).snapshot
            rows = await site.rows(snapshot.id)
            values = {row.name: row.setpoint.enum_value for row in rows}
            fields = {n: f"{n}.{STATES[values[n].index]}ST" for n in names}
            labels = await machine.read_channels(list(fields.values()))
            told.append({n: v.label for n, v in values.items()})
            assert told[-1] == {n: labels[fields[n]]["value"] for n in names}
        assert told[0] != told[1]
    # libca starts caRepeater by a fork, in which gRPC has to leave everything alone
    assert "epoll_wait error" not in capfd.readouterr().err


async def test_an_ioc_that_is_gone_costs_no_more_deadlines(machine, make_process) -> None:
    """After a few: the refusal says which IOC is not asked, and it is asked when it is back."""
    async with make_process(machine.client_environment) as site:
        await until_serving(site.channel, 60)
        await add_pvs(site, machine.names("magnet")[0])
        request = rpc.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=EVERYTHING, source=snapshot_pb2.SNAPSHOT_SOURCE_READ
            )
        )
        request.spec.read_timeout.FromSeconds(5)
        request.wait.FromSeconds(50)
        assert (await site.snapshots.TakeSnapshot(request, timeout=60)).snapshot.counts.connected
        await machine.kill()
        request.spec.read_timeout.FromMilliseconds(300)
        refusal = ""
        async with asyncio.timeout(60):
            while "has answered nothing since" not in refusal:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await site.snapshots.TakeSnapshot(request, timeout=60)
                assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
                refusal = refused.value.details() or ""
        # as long as a test may take: whoever waits for this deadline fails
        request.spec.read_timeout.FromSeconds(60)
        request.wait.FromSeconds(20)
        with pytest.raises(grpc.aio.AioRpcError, match="is not asked; it is probed again at"):
            await site.snapshots.TakeSnapshot(request, timeout=60)
        await machine.start()
        async with asyncio.timeout(120):
            while True:
                try:
                    taken = (await site.snapshots.TakeSnapshot(request, timeout=60)).snapshot
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.2)
        assert taken.counts.connected == 1
