"""Drift of the live machine from a snapshot, at real gateways; the law of it is a unit test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import pytest

from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import monitor_service_pb2_grpc as pb_grpc
from drey_core.compare import DifferenceClass
from drey_core.values import State
from drey_gateway.drift_book import MAX_COMPARISONS
from drey_runtime.auth import TokenVerifier
from drey_runtime.clock import now_ns
from drey_runtime.database import Database
from drey_runtime.event_log import EventKind, Resource, ResourceChange, record_events
from drey_runtime.server import serve_grpc
from drey_runtime.settings import CommonSettings
from drey_testing.fixtures_gateway import (
    REFERENCE,
    DriftClient,
    FoldedCall,
    Gateway,
    GatewayRig,
    ReferenceStandIn,
    ScriptedOwner,
    catalog_pages,
    eventually,
    floats,
    name_of,
    readback,
    setpoint,
)
from tests.integration.gateway.conftest import PVS
from tests.integration.gateway.test_access import bearer, failure, make_key

SNAPSHOT = {"snapshot_id": str(uuid4())}


@pytest.fixture
async def stored(rig: GatewayRig) -> AsyncIterator[tuple[ReferenceStandIn, str]]:
    """The service of references, and its address."""
    found = ReferenceStandIn(PVS, value=1.0)
    verifier = TokenVerifier.from_file(rig.folder / "keys" / "trusted.json", "snapshot")
    served = serve_grpc(CommonSettings(), "127.0.0.1:0", verifier, [(REFERENCE, found)])
    async with served as (port, _):
        yield found, f"127.0.0.1:{port}"


@pytest.fixture
async def gateway(
    rig: GatewayRig, publisher: ScriptedOwner, stored: tuple[ReferenceStandIn, str]
) -> Gateway:
    return await rig.ready_gateway(snapshot_target=stored[1])


def drift_call(gateway: Gateway, key: str, token: str = "", **spec: Any) -> Any:
    stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
    request = pb.WatchDriftRequest(spec={"reference": SNAPSHOT, **spec}, token=token)
    return stub.WatchDrift(request, metadata=bearer(key))


Screen = FoldedCall[DriftClient]


@asynccontextmanager
async def watching(
    gateway: Gateway, key: str, client: DriftClient | None = None, **request: Any
) -> AsyncIterator[Screen]:
    screen = FoldedCall(drift_call(gateway, key, **request), client or DriftClient())
    ended = screen.client.ended_baselines
    try:
        await screen.until(lambda c: c.ended_baselines > ended, "a baseline")
        yield screen
    finally:
        await screen.stop()


@pytest.mark.parametrize("shards", [1, 3])
async def test_what_enters_changes_and_leaves(gateway, admin_key, publisher):
    await publisher.publish(floats([setpoint(3)], [9.0]))
    async with watching(gateway, admin_key) as screen:
        (begin,) = screen.client.begun
        assert (begin.pv_count, begin.keeps_state, begin.form) == (PVS, False, 1)
        assert begin.snapshot_id == SNAPSHOT["snapshot_id"]
        await screen.until(lambda c: set(c.rows) == {3}, "the one that differs")
        row = screen.client.rows[3]
        assert (row.live.name, row.live.setpoint.float64_value) == (name_of(3), 9.0)
        assert (row.stored.setpoint.float64_value, row.deviation, row.different) == (1.0, 16, True)
        assert row.setpoint_class == DifferenceClass.DIFFERENT
        assert row.readback_class == DifferenceClass.EQUAL
        await screen.until(lambda c: c.summary.different == 1, "counted")
        await publisher.publish(floats([setpoint(3), readback(4)], [7.0, 2.0]))
        await screen.until(lambda c: set(c.rows) == {3, 4}, "another enters")
        await screen.until(lambda c: c.rows[3].live.setpoint.float64_value == 7.0, "it changes")
        # within the tolerance is the same
        await publisher.publish(floats([setpoint(3), setpoint(5)], [1.2, 0.9]))
        await screen.until(lambda c: set(c.rows) == {4}, "it leaves")
        await screen.until(lambda c: c.summary.different == 1, "and is counted so")
        summary = screen.client.summary
        assert (summary.same, summary.unknown, summary.compared) == (PVS - 1, 0, PVS)
        seen = len(screen.client.checkpoints)
        await screen.until(lambda c: len(c.checkpoints) > seen + 1, "signs of life")
        assert not screen.client.checkpoints[-1].stalled


@pytest.mark.parametrize("shards", [1, 3])
async def test_disconnected_and_stale_are_told_apart(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as screen:
        lost = floats([setpoint(2)], [1.0])
        lost.state[:] = State.DISCONNECTED
        await publisher.publish(lost)
        await screen.until(lambda c: set(c.rows) == {2}, "it is not the same")
        assert not screen.client.rows[2].different
        assert screen.client.rows[2].setpoint_class == DifferenceClass.DISCONNECTED_IN_OTHER
        await screen.until(lambda c: c.summary.unknown == 1, "counted as unknown")
        await screen.until(lambda c: c.summary.stale == 0, "its owner is heard of")
        await publisher.stop()
        await screen.until(lambda c: c.summary.stale == PVS, "counted as stale")
        assert screen.client.freshness[-1].freshness == 2 and screen.client.freshness[-1].all
        # who comes now is told by row
        async with watching(gateway, admin_key) as other:
            assert other.client.rows[2].live.setpoint.freshness == 2
            assert other.client.summary.stale == PVS
        publisher.start()
        await screen.until(lambda c: c.summary.stale == 0, "fresh again")
        assert screen.client.freshness[-1].freshness == 1


@pytest.mark.parametrize("shards", [1, 3])
async def test_it_goes_on_from_its_token_at_another_gateway(
    rig, gateway, admin_key, publisher, stored
):
    await publisher.publish(floats([setpoint(3), setpoint(4)], [9.0, 9.0]))
    async with watching(gateway, admin_key, hysteresis=0.5) as screen:
        await screen.until(lambda c: set(c.rows) == {3, 4}, "both")
        seen = len(screen.client.checkpoints)
        await screen.until(lambda c: len(c.checkpoints) > seen, "a token after them")
        kept = screen.client
    await publisher.publish(floats([setpoint(4), setpoint(5)], [1.0, 8.0]))
    other = await rig.ready_gateway(snapshot_target=stored[1])
    kept.changed_rows = 0
    async with watching(other, admin_key, kept, token=kept.token, hysteresis=0.5) as screen:
        assert kept.begun[-1].keeps_state
        await screen.until(lambda c: set(c.rows) == {3, 5}, "what came meanwhile")
        assert kept.changed_rows == 1 and not kept.resyncs
    # what is watched is another thing: from the beginning, and told
    async with watching(other, admin_key, kept, token=kept.token) as screen:
        assert not kept.begun[-1].keeps_state and len(kept.resyncs) == 1
        await screen.until(lambda c: set(c.rows) == {3, 5}, "all of it")
    code, reason, _ = await failure(drift_call(other, admin_key, token=kept.token[:-2] + "xx"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOKEN_UNKNOWN")


@pytest.mark.parametrize("shards", [1, 3])
async def test_what_is_stale_waits_for_no_interval_and_uses_none_up(gateway, admin_key, publisher):
    def all_are(client: DriftClient, freshness: int) -> bool:
        every = set(range(1, PVS + 1))
        now = dict.fromkeys(every, 0)
        for told in client.freshness:
            now |= dict.fromkeys(every if told.all else told.pv_numbers, told.freshness)
        return set(now.values()) == {freshness}

    async with watching(gateway, admin_key, min_interval={"seconds": 3600}) as screen:
        await screen.until(lambda c: c.summary.stale == 0, "its owners are heard of")
        await publisher.stop()
        await screen.until(lambda c: all_are(c, 2), "stale")
        publisher.start()
        await screen.until(lambda c: all_are(c, 1), "fresh")
        await publisher.publish(floats([setpoint(3)], [9.0]))
        await screen.until(lambda c: set(c.rows) == {3}, "the first row, at once")
        await publisher.publish(floats([setpoint(4)], [9.0]))
        await publisher.stop()
        await screen.until(lambda c: all_are(c, 2), "stale within the hour")
        publisher.start()
        await screen.until(lambda c: all_are(c, 1), "fresh within the hour")
        assert set(screen.client.rows) == {3}


async def test_a_token_covers_no_more_than_was_sent(gateway, admin_key, publisher):
    """Also where changes wait for their interval: who comes back with it lacks none of them."""
    async with (
        watching(gateway, admin_key, min_interval={"seconds": 3600}) as slow,
        watching(gateway, admin_key) as quick,
    ):
        await publisher.publish(floats([setpoint(3)], [9.0]))
        await slow.until(lambda c: set(c.rows) == {3}, "the first one, at once")
        await publisher.publish(floats([setpoint(4)], [9.0]))
        await quick.until(lambda c: set(c.rows) == {3, 4}, "the other one")
        seen = len(slow.client.checkpoints)
        await slow.until(lambda c: len(c.checkpoints) > seen + 1, "a token after it")
        kept = slow.client
        assert set(kept.rows) == {3}
    async with watching(gateway, admin_key, kept, token=kept.token) as screen:
        assert kept.begun[-1].keeps_state
        await screen.until(lambda c: set(c.rows) == {3, 4}, "what waited")


@pytest.mark.parametrize("shards", [1, 3])
async def test_the_catalog_changes_under_it(gateway, admin_key, publisher):
    async with watching(gateway, admin_key) as screen:
        pages = catalog_pages(PVS - 1)
        for page in pages:
            page.names[:] = [f"NEW:{name}" if name == name_of(1) else name for name in page.names]
        await publisher.set_catalog(pages)
        await screen.until(lambda c: set(c.rows) == {PVS}, "one is gone")
        only = DifferenceClass.ONLY_IN_REFERENCE
        assert screen.client.rows[PVS].setpoint_class == only
        await publisher.publish(floats([setpoint(1)], [5.0]))
        await screen.until(lambda c: 1 in c.rows, "one differs")
        assert screen.client.rows[1].live.name == f"NEW:{name_of(1)}"
        assert screen.client.rows[1].stored.name == name_of(1)
        assert screen.client.ended_baselines == 1
    # by the names of the reference, as in a comparison
    async with watching(gateway, admin_key, selector={"names": [name_of(1)]}) as screen:
        assert set(screen.client.rows) == {1}
        assert screen.client.begun[0].pv_count == 1


async def test_a_golden_mark_moves(rig, url, gateway, admin_key, publisher, stored):
    service, _ = stored
    golden = {"golden": {"label": "beam"}}
    code, reason, _ = await failure(drift_call(gateway, admin_key, reference=golden))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    first, second = (str(uuid4()) for _ in range(2))
    service.golden = first

    async def move_mark(db: Database, to: str) -> None:
        service.golden = to
        async with db.begin_transaction() as conn:
            change = ResourceChange(Resource.GOLDEN, EventKind.CREATED, to or first, "beam")
            await record_events(conn, [change], principal="a", role="keeper", time_ns=now_ns())

    async with Database(url) as db, watching(gateway, admin_key, reference=golden) as screen:
        assert screen.client.begun[-1].snapshot_id == first
        await move_mark(db, second)
        await screen.until(lambda c: c.ended_baselines == 2, "the new reference")
        assert screen.client.begun[-1].snapshot_id == second
        assert screen.client.resyncs == ["another snapshot is golden now"]
        await move_mark(db, "")

        async def refused() -> bool:
            return screen.error is not None

        await eventually(refused, "it ends where no snapshot is golden any more")
        assert screen.error is not None
        assert screen.error.code() is grpc.StatusCode.NOT_FOUND


async def test_many_screens_share_one_reference_and_the_last_lets_it_go(
    gateway, admin_key, publisher, stored
):
    service, _ = stored
    async with AsyncExitStack() as stack:
        some = {"selector": {"globs": ["PV:000*"]}}
        screens = [
            await stack.enter_async_context(watching(gateway, admin_key, **(some if n % 2 else {})))
            for n in range(20)
        ]
        assert service.reads == 1
        await publisher.publish(floats([setpoint(7), setpoint(150)], [11.0, 11.0]))
        for screen in screens[::2]:
            await screen.until(lambda c: set(c.rows) == {7, 150}, "what differs")
        for screen in screens[1::2]:
            await screen.until(lambda c: set(c.rows) == {7}, "what differs of those it chose")

    async def read_again() -> bool:
        async with watching(gateway, admin_key):
            return service.reads == 2

    # as soon as the gateway knows that they have left
    await eventually(read_again, "it is not kept for nobody")


async def test_references_are_limited_and_one_key_does_not_take_all(gateway, admin_key):
    viewers = [(await make_key(gateway, admin_key, "viewer"))[0] for _ in range(2)]
    keys = [admin_key, *viewers]
    references = {key: {"snapshot_id": str(uuid4())} for key in keys}
    async with AsyncExitStack() as stack:
        for key in keys[:2]:
            for count in range(MAX_COMPARISONS // 2):
                # for one key the same snapshot again and again, otherwise compared
                hysteresis = 0.1 + count / 100
                watch = watching(gateway, key, reference=references[key], hysteresis=hysteresis)
                await stack.enter_async_context(watch)
            code, reason, metadata = await failure(
                drift_call(gateway, key, reference=references[key])
            )
            assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
            assert metadata["scope"] == ("server" if key == keys[1] else "caller")
        _, _, metadata = await failure(drift_call(gateway, keys[2]))
        assert metadata["scope"] == "server"
        # another who watches one of them is welcome
        watch = watching(gateway, keys[2], reference=references[admin_key], hysteresis=0.1)
        await stack.enter_async_context(watch)

    async def all_left() -> bool:
        try:
            async with watching(gateway, keys[2]):
                return True
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

    await eventually(all_left, "places of those that left")


async def test_what_is_not_there_is_refused_by_field(rig, gateway, admin_key, stored):
    service, _ = stored
    service.snapshots = {SNAPSHOT["snapshot_id"]}
    code, _, metadata = await failure(
        drift_call(gateway, admin_key, reference={"snapshot_id": str(uuid4())})
    )
    assert code is grpc.StatusCode.NOT_FOUND
    assert metadata["field"] == "spec.reference.snapshot_id"
    code, reason, metadata = await failure(
        drift_call(gateway, admin_key, selector={"names": ["NO:SUCH"]})
    )
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert metadata["field"] == "spec.selector"
    alone = await rig.ready_gateway()
    code, _, _ = await failure(drift_call(alone, admin_key))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_slow_reader_gets_the_latest_and_is_told(gateway, admin_key, publisher):
    """What comes between two messages of it is merged."""
    channels = [setpoint(pv) for pv in range(1, PVS + 1)]
    value = 10.0
    async with watching(gateway, admin_key, min_interval={"seconds": 2}) as screen:

        async def merged() -> bool:
            nonlocal value
            value += 1
            await publisher.publish(floats(channels, [value] * PVS))
            return screen.client.merged > 0

        await eventually(merged, "updates that it will never see")
        await screen.until(
            lambda c: [r.live.setpoint.float64_value for r in c.rows.values()] == [value] * PVS,
            "the latest of all",
        )
        assert screen.client.changed_rows < (value - 10) * PVS
