"""Watches over the real servers, through everything that can happen to them."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis

from drey.common.v1 import selector_pb2, value_pb2
from drey.events.v1.values_pb2 import Heartbeat, ValueBatch
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import monitor_service_pb2_grpc as pb_grpc
from drey.monitor.v1 import watch_pb2
from drey_core.directory import ROLE_READBACK, CatalogPage, MetadataPage
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.values import ARRAY, Columns, Kind, State
from drey_runtime.status import reason_of
from drey_testing.fixtures_gateway import (
    FoldedCall,
    Gateway,
    ScriptedOwner,
    WatchClient,
    catalog_pages,
    eventually,
    every_channel,
    floats,
    name_of,
    readback,
    setpoint,
)
from tests.integration.gateway.conftest import PVS

ALL = selector_pb2.Selector(all=True)
SHARDS = pytest.mark.parametrize("shards", [1, 3])
FAR = 150
"""A PV of another page than the first ones, which has another owner where there are several."""


def float_array(channel: int, elements: Any) -> Columns:
    kind = int(Kind.FLOAT64) | ARRAY
    out = Columns.from_values(np.array([channel], np.int64), [elements], [kind])
    out.state[:] = State.CONNECTED
    return out


class Running(FoldedCall[WatchClient]):
    """A watch of all PVs, or as the request says."""

    def __init__(
        self,
        gateway: Gateway,
        key: str,
        *,
        client: WatchClient | None = None,
        token: str = "",
        **spec: Any,
    ) -> None:
        stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
        request = pb.WatchPvsRequest(spec={"selector": ALL, **spec}, token=token)
        call = stub.WatchPvs(request, metadata=(("authorization", f"Bearer {key}"),))
        super().__init__(call, client or WatchClient())


@asynccontextmanager
async def watching(gateway: Gateway, key: str, **request: Any):
    running = Running(gateway, key, **request)
    before = running.client.ended_baselines
    try:
        await running.until(lambda c: c.ended_baselines > before, "a baseline")
        yield running
    finally:
        await running.stop()


@SHARDS
async def test_baseline_then_diffs(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        client = running.client
        assert len(client.rows) == PVS
        assert client.rows[7].name == name_of(7)
        assert {r.setpoint.float64_value for r in client.rows.values()} == {1.0}
        await publisher.publish(floats([setpoint(7)], [3.5]))
        await running.until(lambda c: c.value(7) == 3.5, "a diff")
        assert client.diff_rows == 1
        await running.until(lambda c: len(c.checkpoints) >= 2, "checkpoints")
        assert not client.stale
        assert client.checkpoints[-1].shards[0].fresh


@SHARDS
async def test_a_lost_batch_is_read_from_the_image(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        await publisher.publish(floats([setpoint(1)], [2.0]), on_bus=False)
        await publisher.publish(floats([setpoint(FAR)], [3.0]))
        await running.until(lambda c: c.value(1) == 2.0 and c.value(FAR) == 3.0, "both")


@SHARDS
async def test_the_last_batch_lost_shows_by_heartbeat(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        await publisher.publish(floats([setpoint(FAR)], [2.0]), on_bus=False)
        await running.until(lambda c: c.value(FAR) == 2.0, "the lost value")


class LabelClient(WatchClient):
    """Notes as what the first PV was read whenever it was connected."""

    def __init__(self) -> None:
        super().__init__()
        self.read_as: list[tuple[int, str]] = []

    def _put(self, rows: Any) -> None:
        super()._put(rows)
        held = self.rows[1].setpoint
        if held.WhichOneof("data") == "enum_value" and held.state == State.CONNECTED:
            self.read_as.append((held.enum_value.index, held.enum_value.label))


@pytest.mark.parametrize("on_bus", [True, False], ids=["by the bus", "by the image"])
async def test_an_enum_has_the_label_that_it_had(gateway, admin_key, publisher, on_bus):
    """A monitor writes labels, and publishes what is read by them then."""
    orders = [(b"off", b"on"), (b"on", b"off")]
    rows = Columns.from_values(np.array([setpoint(1)]), [0], [Kind.ENUM])
    metadata = MetadataPage.empty_page(1)

    async def publish(state: State, labels: tuple[bytes, bytes]) -> None:
        rows.state[:], rows.data[:] = state, labels.index(b"on")
        await publisher.publish(rows, on_bus=on_bus)

    async with watching(gateway, admin_key, client=LabelClient()) as running:
        client = running.client
        for turn in range(6):
            labels = orders[turn % 2]
            # gone, and back with other labels; nobody tells of them but the batch itself
            metadata.labels[setpoint(1) - 256] = labels
            await publisher.set_catalog(catalog_pages(PVS), [metadata], on_bus=False)
            await publish(State.CONNECTED, labels)
            number = labels.index(b"on")
            await running.until(lambda c, n=number: c.read_as[-1:] == [(n, "on")], "the number")
            await publish(State.DISCONNECTED, labels)
            await running.until(lambda c: c.rows[1].setpoint.state == State.DISCONNECTED, "gone")
        assert {label for _, label in client.read_as} == {"on"}


@SHARDS
async def test_an_older_epoch_is_dropped(rig, gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        await publisher.stop()
        newer = rig.owners(epoch=5)
        newer.take_over(publisher)
        await newer.beat()
        await newer.set_catalog(catalog_pages(PVS))
        await newer.publish(floats([setpoint(3)], [5.0]))
        await running.until(lambda c: c.value(3) == 5.0, "the new epoch")
        await publisher.publish(floats([setpoint(3)], [-1.0]), in_image=False)
        await newer.publish(floats([setpoint(FAR)], [6.0]))
        await running.until(lambda c: c.value(FAR) == 6.0, "the new epoch goes on")
        assert running.client.value(3) == 5.0
        assert running.client.ended_baselines == 1


@SHARDS
async def test_stale_and_fresh_again(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        await running.until(lambda c: not c.stale, "fresh")
        await publisher.stop()
        await running.until(lambda c: len(c.stale) == PVS, "stale")
        assert "silent" in running.client.reasons[-1]
        publisher.start()
        await running.until(lambda c: not c.stale, "fresh")
        assert running.client.diff_rows == 0


@SHARDS
async def test_what_is_stale_waits_for_no_interval_and_uses_none_up(gateway, admin_key, publisher):
    hour = Duration(seconds=3600)
    async with watching(gateway, admin_key, min_interval=hour) as running:
        await running.until(lambda c: not c.stale, "fresh")
        await publisher.stop()
        await running.until(lambda c: len(c.stale) == PVS, "stale")
        publisher.start()
        await running.until(lambda c: not c.stale, "fresh")
        await publisher.publish(floats([setpoint(3)], [9.0]))
        await running.until(lambda c: c.value(3) == 9.0, "the first diff, at once")
        await publisher.publish(floats([setpoint(4)], [9.0]))
        await publisher.stop()
        await running.until(lambda c: len(c.stale) == PVS, "stale within the hour")
        publisher.start()
        await running.until(lambda c: not c.stale, "fresh within the hour")
        assert (running.client.value(3), running.client.diff_rows) == (9.0, 1)


@SHARDS
async def test_through_a_kill_of_nats(rig, gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        await rig.nats.kill()
        await running.until(lambda c: len(c.stale) == PVS, "stale")
        await running.until(lambda c: c.checkpoints[-1].stalled, "stalled")
        # the monitor goes on writing the image
        await publisher.publish(floats([setpoint(FAR)], [9.0]))
        await rig.nats.start()
        await running.until(lambda c: c.value(FAR) == 9.0, "what happened meanwhile")
        await running.until(lambda c: not c.stale and not c.checkpoints[-1].stalled, "fresh")
        assert running.client.ended_baselines == 1


@SHARDS
async def test_through_a_restart_of_redis(rig, gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        await rig.valkey.kill()
        try:
            await publisher.publish(floats([setpoint(9)], [9.0]), in_image=False)
            await running.until(lambda c: c.value(9) == 9.0, "values go on without Redis")
        finally:
            await rig.valkey.start()
        await publisher.set_catalog(list(publisher.catalog.values()))
        await publisher.write_pages()
        await publisher.publish(floats([setpoint(8)], [8.0]), on_bus=False)
        await publisher.publish(floats([setpoint(FAR)], [7.0]))
        await running.until(lambda c: c.value(8) == 8.0 and c.value(FAR) == 7.0, "a gap filled")


@SHARDS
async def test_resume_at_another_gateway(rig, gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        client = running.client
    await publisher.publish(floats([setpoint(5), setpoint(FAR)], [5.0, 6.0]))
    await gateway.end(signal.SIGKILL)
    second = await rig.ready_gateway()
    before = client.baseline_rows
    async with watching(second, admin_key, client=client, token=client.token):
        assert client.kept
        assert not client.resyncs
        assert client.value(5) == 5.0 and client.value(FAR) == 6.0
        assert client.baseline_rows - before == 2


async def test_a_gateway_killed_under_fifty_watchers(rig, gateway, admin_key, publisher):
    """All of them go on at another one at once, each with what changed, and only that."""
    async with AsyncExitStack() as streams:
        running = [
            await streams.enter_async_context(watching(gateway, admin_key)) for _ in range(50)
        ]
        await gateway.end(signal.SIGKILL)
        await asyncio.gather(*(each.task for each in running))
        assert {each.error.code() for each in running} == {grpc.StatusCode.UNAVAILABLE}
    await publisher.publish(floats([setpoint(5), setpoint(6)], [5.0, 6.0]))
    second = await rig.ready_gateway()

    async def go_on(client: WatchClient) -> None:
        before = client.baseline_rows
        async with watching(second, admin_key, client=client, token=client.token):
            assert client.kept and not client.resyncs
            assert client.value(5) == 5.0 and client.value(6) == 6.0
            assert client.baseline_rows - before == 2

    await asyncio.gather(*(go_on(each.client) for each in running))


@SHARDS
async def test_resume_here_sends_only_what_changed(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        client = running.client
    await publisher.publish(floats([setpoint(5)], [5.0]))
    await publisher.publish(floats([setpoint(FAR)], [6.0]))
    async with watching(gateway, admin_key) as other:
        await other.until(lambda c: c.value(FAR) == 6.0, "both have come")
    async with watching(gateway, admin_key, client=client, token=client.token):
        assert client.kept
        assert client.baseline_rows == PVS + 2
        assert client.value(5) == 5.0 and client.value(FAR) == 6.0


async def test_a_dead_band_holds_back_noise_and_nothing_else(gateway, admin_key, publisher):
    one = selector_pb2.Selector(numbers=[1])
    band: Any = {"absolute": 1.0}
    async with watching(gateway, admin_key, selector=one, fields=2, deadband=band) as running:
        client = running.client
        # measured against what was sent last: 1, then 2.25, then 3.5; each is waited for, since
        # which of several the gateway looks at is the pace of the machine
        for values in ((1.5, 2.0, 1.0, 2.25), (3.0, 3.5)):
            for value in values:
                await publisher.publish(floats([setpoint(1)], [value]))
            await running.until(lambda c, last=values[-1]: c.value(1) == last, "what exceeds it")
        assert client.diff_rows == 2
        alarmed = floats([setpoint(1)], [3.5])
        alarmed.severity[:] = 2
        calm = client.rows[1].setpoint.severity
        await publisher.publish(alarmed)
        await running.until(lambda c: c.rows[1].setpoint.severity > calm, "an alarm passes")
    await publisher.publish(floats([setpoint(1)], [3.6]))
    exact = Running(gateway, admin_key, client=client, token=client.token, selector=one, fields=2)
    await exact.until(lambda c: c.ended_baselines == 2, "another baseline")
    assert client.resyncs and client.value(1) == 3.6, "a token holds for its dead-band"
    await exact.stop()


@pytest.mark.parametrize(
    ("band", "field"),
    [({}, "spec.deadband"), ({"relative": float("nan")}, "relative"), ({"absolute": -1}, "band")],
)
async def test_a_dead_band_that_cannot_be_is_refused(gateway, admin_key, band, field):
    running = Running(gateway, admin_key, deadband=band)
    await running.task
    assert running.error is not None
    assert running.error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (running.error.details() or "")


async def test_a_large_array_comes_as_an_extract(gateway, admin_key, publisher):
    wave = np.zeros(1_300_000)
    wave[600_000], wave[600_001] = 5.0, -7.0
    one = selector_pb2.Selector(numbers=[1, 2])
    limits: Any = {"max_elements": 1000, "decimation": "ARRAY_DECIMATION_MIN_MAX"}
    async with watching(gateway, admin_key, selector=one, array_limits=limits) as running:
        await publisher.publish(float_array(setpoint(1), wave))
        client = running.client
        kind = "extract"
        await running.until(
            lambda c: c.rows[1].setpoint.WhichOneof("data") == kind, "the peak of a wave of 10 MB"
        )
        extract = client.rows[1].setpoint.extract
        assert (extract.total_elements, extract.step) == (1_300_000, 2600)
        assert extract.decimation == value_pb2.ARRAY_DECIMATION_MIN_MAX
        pairs = np.array(extract.elements.float64_array.elements).reshape(-1, 2)
        assert pairs[600_000 // 2600].tolist() == [-7.0, 5.0]
        assert np.count_nonzero(pairs) == 2 and len(pairs) == 500
        # one that is as it was under another limit is nothing to go on from
        token = client.token
    limits["max_elements"] = 2
    other = Running(gateway, admin_key, token=token, selector=one, array_limits=limits)
    await other.until(lambda c: c.ended_baselines == 1, "a baseline")
    assert other.client.resyncs
    assert len(other.client.rows[1].setpoint.extract.elements.float64_array.elements) == 2
    await other.stop()


async def test_an_array_that_waits_comes_in_time_and_at_another_gateway(
    rig, gateway, admin_key, publisher
):
    def first_is(client: WatchClient, pv: int, first: float) -> bool:
        elements = client.rows[pv].setpoint.float64_array.elements
        return bool(elements) and elements[0] == first

    await publisher.publish(float_array(setpoint(1), np.zeros(10)))
    hour: Any = {"min_interval": Duration(seconds=3600)}
    async with watching(gateway, admin_key, array_limits=hour) as running:
        client = running.client
        await running.until(lambda c: first_is(c, 1, 0.0), "the first value")
        await publisher.publish(float_array(setpoint(1), np.ones(10)))
        for value in (2.0, 3.0):
            await publisher.publish(floats([setpoint(2)], [value]))
            await running.until(lambda c, v=value: c.value(2) == v, "what is no array")
        told = len(client.checkpoints)
        await running.until(lambda c: len(c.checkpoints) > told + 1, "a token after that")
        assert first_is(client, 1, 0.0)
    second = await rig.gateway()
    await eventually(second.serving, "ready")
    rows = client.baseline_rows
    async with watching(second, admin_key, client=client, token=client.token, array_limits=hour):
        assert client.kept and first_is(client, 1, 1.0)
        # the array, and what has changed since the array did
        assert client.baseline_rows - rows == 2
    # what waits comes by itself, when its time is there
    tenth: Any = {"min_interval": Duration(nanos=100_000_000)}
    async with watching(second, admin_key, array_limits=tenth) as quick:
        for first in (4.0, 5.0, 6.0):
            await publisher.publish(float_array(setpoint(1), np.full(10, first)))
        await quick.until(lambda c: first_is(c, 1, 6.0), "the last value")


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"max_elements": -1}, "max_elements"),
        ({"max_elements": 1_000_001}, "max_elements"),
        ({"max_elements": 1, "decimation": 3}, "max_elements"),
        ({"decimation": 2}, "max_elements"),
        ({"max_elements": 5, "decimation": 9}, "decimation"),
        ({"max_bytes_per_s": -1}, "max_bytes_per_s"),
        ({"min_interval": Duration(seconds=-1)}, "min_interval"),
        ({"min_interval": Duration(seconds=3601)}, "min_interval"),
    ],
)
async def test_limits_of_arrays_that_cannot_be_are_refused(gateway, admin_key, limits, field):
    running = Running(gateway, admin_key, array_limits=limits)
    await running.task
    assert running.error is not None
    assert running.error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"spec.array_limits.{field}" in (running.error.details() or "")


async def test_a_token_of_another_selection_begins_anew(gateway, admin_key):
    async with watching(gateway, admin_key) as running:
        client = running.client
    other = selector_pb2.Selector(names=[name_of(1)])
    async with watching(gateway, admin_key, client=client, token=client.token, selector=other):
        assert client.resyncs and not client.kept
        assert set(client.rows) == {1}


@pytest.mark.parametrize("token", ["x", "AAAA", "not base64 ☃", "A" * 200])
async def test_a_malformed_token(gateway, admin_key, token):
    running = Running(gateway, admin_key, token=token)
    await running.task
    assert running.error is not None
    assert running.error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(running.error)[0] == "TOKEN_UNKNOWN"


@SHARDS
async def test_catalog_changes_in_a_running_watch(gateway, admin_key, publisher):
    glob = selector_pb2.Selector(globs=["PV:*"])
    async with watching(gateway, admin_key, selector=glob) as running:
        pages = catalog_pages(PVS + 2)
        for page in pages:
            gone = page.pv_number == 4
            page.pv_number[gone] = 0
        await publisher.set_catalog(pages)
        await publisher.publish(floats([setpoint(PVS + 1)], [4.0]))
        await running.until(lambda c: c.value(PVS + 1) == 4.0 if PVS + 1 in c.rows else False, "a")
        await running.until(lambda c: PVS + 2 in c.rows, "both join")
        await running.until(lambda c: 4 not in c.rows, "one leaves")
        assert [(p.number, p.name, p.reason) for p in running.client.left] == [(4, name_of(4), 1)]


def pages_with_name(number: int, name: str) -> list[CatalogPage]:
    """The catalog, one PV of which has another name."""
    pages = catalog_pages(PVS)
    for page in pages:
        for slot in np.flatnonzero(page.pv_number == number).tolist():
            page.names[slot] = name
    return pages


async def test_a_new_name_of_a_pv_comes_with_its_row(gateway, admin_key, publisher):
    """Also where no metadata is asked for and no value changes."""
    one = selector_pb2.Selector(numbers=[4, 5])
    async with watching(gateway, admin_key, selector=one) as running:
        await publisher.set_catalog(pages_with_name(4, "Größe:夜班"))
        await running.until(lambda c: c.rows[4].name == "Größe:夜班", "the new name")
        assert running.client.rows[5].name == name_of(5) and running.client.left == []
        assert running.client.value(4) == 1.0


async def test_a_new_name_is_told_to_who_was_away(gateway, admin_key, publisher):
    """A token stands for the names too: no value changes that would bring the new one."""
    one = selector_pb2.Selector(numbers=[4, 5])
    async with watching(gateway, admin_key, selector=one) as running:
        client = running.client
    await publisher.set_catalog(pages_with_name(4, "MAGNET:4"))
    async with watching(
        gateway, admin_key, client=client, token=client.token, selector=one
    ) as again:
        await again.until(lambda c: c.rows[4].name == "MAGNET:4", "the new name")
        assert client.left == []
        told = len(client.checkpoints)
        await again.until(lambda c: len(c.checkpoints) > told, "a token of the new name")
    async with watching(gateway, admin_key, client=client, token=client.token, selector=one):
        assert client.kept  # a token with the new name holds


async def test_a_pv_that_loses_its_readback_comes_anew(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        assert running.client.rows[4].HasField("readback")
        pages = catalog_pages(PVS)
        for page in pages:
            page.pv_number[(page.pv_number == 4) & (page.role == ROLE_READBACK)] = 0
        await publisher.set_catalog(pages)
        await running.until(
            lambda c: 4 in c.rows and not c.rows[4].HasField("readback"), "without a readback"
        )
        assert running.client.value(4) == 1.0
        moved = watch_pb2.LEAVE_REASON_CHANNELS_CHANGED
        assert [(p.number, p.reason) for p in running.client.left] == [(4, moved)]


async def test_metadata_at_the_begin_and_when_it_changes(gateway, admin_key, publisher):
    def page(units: bytes) -> MetadataPage:
        found = MetadataPage.empty_page(1)
        found.kind[setpoint(2) - 256], found.count[setpoint(2) - 256] = 11, 1
        found.units[setpoint(2) - 256] = units
        return found

    one = selector_pb2.Selector(numbers=[2])
    async with watching(gateway, admin_key, selector=one, with_metadata=True) as running:
        assert running.client.metadata[2].setpoint.units == ""
        await publisher.set_catalog(list(publisher.catalog.values()), [page(b"mA")])
        await running.until(lambda c: c.metadata[2].setpoint.units == "mA", "units")


async def test_fields_and_min_interval(gateway, admin_key, publisher):
    interval = Duration()
    interval.FromMilliseconds(700)
    async with watching(gateway, admin_key, fields=2, min_interval=interval) as running:
        client = running.client
        assert not client.rows[1].HasField("readback")
        await publisher.publish(floats([readback(1)], [99.0]))
        begun = time.monotonic()
        for i in range(10):
            await publisher.publish(floats([setpoint(1)], [float(i)]))
            await asyncio.sleep(0.05)
        await running.until(lambda c: c.value(1) == 9.0, "the latest")
        assert client.diff_rows <= (time.monotonic() - begun) / 0.7 + 2
        assert client.merged + client.diff_rows == 10


async def test_values_of_every_state(gateway, admin_key, publisher):
    columns = floats([setpoint(1), setpoint(2)], [float("nan"), -0.0])
    columns.state[0] = State.DISCONNECTED
    async with watching(gateway, admin_key) as running:
        await publisher.publish(columns)
        await running.until(lambda c: c.rows[1].setpoint.state == 2, "disconnected")
        assert np.isnan(running.client.value(1))
        assert np.signbit(running.client.value(2))


async def test_unknown_names(gateway, admin_key):
    odd = selector_pb2.Selector(names=[name_of(1), "NO:SUCH"])
    running = Running(gateway, admin_key, selector=odd)
    await running.task
    assert running.error is not None
    assert running.error.code() is grpc.StatusCode.NOT_FOUND
    assert "NO:SUCH" in (running.error.details() or "")
    async with watching(gateway, admin_key, selector=odd, allow_unknown=True) as allowed:
        assert set(allowed.client.rows) == {1}


async def test_names_that_are_not_the_pvs_own_are_told(gateway, admin_key, publisher):
    asked = [name_of(1), f"{name_of(2)}:RB", f"{name_of(3)}.VAL", name_of(PVS + 1), "NO:SUCH"]
    odd = selector_pb2.Selector(names=asked)
    links = {asked[1]: [(name_of(2), 2)], asked[2]: [(name_of(3), 0)]}
    async with watching(gateway, admin_key, selector=odd, allow_unknown=True) as running:
        client = running.client
        assert set(client.rows) == {1, 2, 3}
        assert client.links == links
        assert client.not_found == {name_of(PVS + 1), "NO:SUCH"}
        await publisher.set_catalog(catalog_pages(PVS + 1))
        await running.until(lambda c: PVS + 1 in c.rows, "what was waited for")
        assert client.links == links | {name_of(PVS + 1): [(name_of(PVS + 1), 0)]}
        assert client.not_found == {"NO:SUCH"}
    stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
    call = stub.GetValues(pb.GetValuesRequest(selector=odd), metadata=(("x-api-key", admin_key),))
    found = [message async for message in call]
    told = [(x.asked, x.name, x.role) for message in found for x in message.links]
    assert told == [(asked[1], name_of(2), 2), (asked[2], name_of(3), 0)]
    assert [name for message in found for name in message.not_found] == ["NO:SUCH"]
    # the client that names PVs by their own names is told nothing
    async with watching(gateway, admin_key) as plain:
        assert not plain.client.links and not plain.client.not_found


async def test_get_values(gateway, admin_key):
    stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
    request = pb.GetValuesRequest(
        selector=selector_pb2.Selector(names=[name_of(1), f"{name_of(2)}:RB", "NO:SUCH"]),
        with_metadata=True,
    )
    metadata = (("x-api-key", admin_key),)
    found = [m async for m in stub.GetValues(request, metadata=metadata)]
    assert list(found[0].not_found) == ["NO:SUCH"]
    assert [r.name for m in found for r in m.rows] == [name_of(1), name_of(2)]
    assert [r.name for m in found for r in m.metadata] == [name_of(1), name_of(2)]


async def test_a_reader_that_stops_is_cut(rig, admin_key, publisher):
    gateway = await rig.ready_gateway(gateway_stall_cut="5")
    stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
    metadata = (("authorization", f"Bearer {admin_key}"),)
    await publisher.set_catalog(catalog_pages(2000))
    await publisher.publish(every_channel(2000, 0.0))
    call = stub.WatchPvs(pb.WatchPvsRequest(spec={"selector": ALL}), metadata=metadata)
    assert (await call.read()) is not grpc.aio.EOF
    other = Running(gateway, admin_key)
    await other.until(lambda c: len(c.rows) == 2000, "a baseline")
    for i in range(90):
        await publisher.publish(every_channel(2000, float(i)))
        await asyncio.sleep(0.04)
    await other.until(lambda c: c.value(1) == 89.0, "the others go on")

    async def cut() -> bool:
        return "is cut" in gateway.log

    await eventually(cut, "the cut")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while (await asyncio.wait_for(call.read(), 60)) is not grpc.aio.EOF:
            pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(caught.value)[0] == "READER_TOO_SLOW"
    await other.stop()


async def test_poison_on_the_bus_and_in_the_image_ends_nothing(rig, gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as running:
        absurd = [
            ("values", ValueBatch(epoch=2**63, sequence=1)),
            ("values", ValueBatch(epoch=2**44, sequence=1)),
            ("values", ValueBatch(epoch=1, sequence=2**60)),
            ("values", ValueBatch(epoch=1, sequence=2, channels=bytes(16), kinds=bytes(1))),
            ("values", ValueBatch(epoch=1, sequence=2, shard=77)),
            ("heartbeats", Heartbeat(epoch=2**63)),
            ("heartbeats", Heartbeat(epoch=2**44)),
            ("heartbeats", Heartbeat(epoch=1, sequence=2**60)),
        ]
        for kind, message in absurd:
            await rig.bus.publish(rig.bus.full_subject(kind, 0), message.SerializeToString())
        for subject in ("values", "heartbeats", "directory", "catalog"):
            await rig.bus.publish(rig.bus.full_subject(subject, 0), b"\xff\xff")
        await publisher.publish(floats([setpoint(7)], [3.5]))
        await running.until(lambda c: c.value(7) == 3.5, "a diff")
        async with Redis.from_url(rig.valkey.url) as redis:
            await redis.set("test:page:1", b"\xff")
            await redis.set("test:shard:0:epoch", b"\xff")
        # it lacks a batch now, and the page where it is
        await publisher.publish(floats([setpoint(8)], [4.5]), on_bus=False, in_image=False)
        await publisher.publish(floats([readback(190)], [5.5]))
        await running.until(lambda c: bool(c.stale), "a shard that lacks a page is stale")
        await publisher.write_pages()
        await running.until(lambda c: c.value(8) == 4.5 and not c.stale, "the page is back")
    other = await rig.gateway()
    await eventually(other.serving, "another gateway starts")


async def test_one_silent_shard_of_three_is_stale_by_message_and_by_row(rig, admin_key):
    pvs, shards = 600, 3
    pages = catalog_pages(pvs)
    publishers = []
    for shard in range(shards):
        found = ScriptedOwner(rig.bus, rig.image, 1, shard=shard, shards=shards)
        mine = [p for p in pages if shard_of_page(p.number, shards) == shard]
        await found.set_catalog(mine)
        columns = every_channel(pvs, 1.0)
        owner = shard_of_page(columns.key >> PAGE_SHIFT, shards)
        await found.publish(columns.take_rows(np.flatnonzero(owner == shard)))
        found.start()
        publishers.append(found)
    gateway = await rig.ready_gateway(shards=str(shards))
    page = {pv: setpoint(pv) >> PAGE_SHIFT for pv in range(1, pvs + 1)}
    silent = {pv for pv in page if shard_of_page(page[pv], shards) == 1}
    assert 0 < len(silent) < pvs
    try:
        async with watching(gateway, admin_key) as running:
            await running.until(lambda c: not c.stale, "all fresh")
            await publishers[1].stop()
            await running.until(lambda c: c.stale == silent, "its PVs are stale, by message")
            async with watching(gateway, admin_key) as other:
                by_row = {n for n, r in other.client.rows.items() if r.setpoint.freshness == 2}
                assert by_row == silent
                kept = WatchClient()
                kept.token, kept.rows = other.client.token, dict(other.client.rows)
            publishers[1].start()
            await running.until(lambda c: not c.stale, "fresh again")
            resumed = Running(gateway, admin_key, token=kept.token, client=kept)
            await resumed.until(lambda c: c.ended_baselines == 1, "resumed")
            assert kept.kept
            await resumed.stop()
    finally:
        for publisher in publishers:
            await publisher.stop()


async def test_a_gateway_that_starts_believes_no_sign_of_life_that_is_in_the_image(
    rig, admin_key, publisher
):
    """However its time looks: the clock of the dead owner's host may have been ahead."""
    await publisher.stop()
    ahead = Heartbeat(shard=0, epoch=1, sequence=1, time_ns=time.time_ns() + 3600 * 10**9)
    await rig.image.write_heartbeat(ahead)
    gateway = await rig.ready_gateway()
    async with watching(gateway, admin_key) as running:
        assert {r.setpoint.freshness for r in running.client.rows.values()} == {2}
        await publisher.beat()
        await running.until(lambda c: not c.stale, "fresh when its owner is heard of")
