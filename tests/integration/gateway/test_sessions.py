"""Sessions: one stream, whose watches change while it lives."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from drey.common.v1 import errors_pb2, form_pb2, selector_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import monitor_service_pb2_grpc as pb_grpc
from drey.monitor.v1 import watch_pb2
from drey_gateway.bootstrap import make_first_key
from drey_runtime.status import reason_of
from drey_testing.fixtures_gateway import (
    FoldedCall,
    Gateway,
    WatchClient,
    eventually,
    floats,
    name_of,
    setpoint,
)
from tests.integration.gateway.test_watch import float_array


def pvs(*numbers: int) -> selector_pb2.Selector:
    return selector_pb2.Selector(names=[name_of(n) for n in numbers])


class OpenSession(FoldedCall["OpenSession"]):
    """A session in the background; each of its subscriptions folded by a client of its own."""

    def __init__(self, gateway: Gateway, key: str, **subscriptions: Any) -> None:
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
        self.id, self.change = "", 0
        self.clients: dict[str, WatchClient] = {}
        self.acks: dict[int, pb.ChangeAck] = {}
        self.parts: list[tuple[str, str]] = []
        request = pb.OpenWatchRequest(
            subscriptions=[
                pb.Subscription(name=name, spec={"selector": selector})
                for name, selector in subscriptions.items()
            ]
        )
        super().__init__(self.stub.OpenWatch(request, metadata=self.metadata), self)

    def take(self, message: pb.OpenWatchResponse) -> None:
        kind: str = message.WhichOneof("part") or ""
        name = message.subscription
        if kind == "opened":
            assert not self.parts, "the id comes first"
            self.id = message.opened.session
        elif kind == "ack":
            self.acks[message.ack.change] = message.ack
        elif name:
            kind = self.clients.setdefault(name, WatchClient()).take(message.watch)
        self.parts.append((name, kind))

    async def modify(self, subscription: str, **action: Any) -> int:
        """Send a change; its number."""
        self.change += 1
        await self.send(self.change, subscription, **action)
        return self.change

    async def send(self, change: int, subscription: str, **action: Any) -> None:
        request = pb.ModifyWatchRequest(
            session=self.id, subscription=subscription, change=change, **action
        )
        await self.stub.ModifyWatch(request, metadata=self.metadata)

    async def acked(self, change: int) -> pb.ChangeAck:
        await self.until(lambda s: change in s.acks, f"change {change} acknowledged")
        return self.acks[change]

    def held(self, name: str) -> set[int]:
        """PVs of a subscription; none before its first message."""
        return set(self.clients[name].rows) if name in self.clients else set()


@asynccontextmanager
async def session(gateway: Gateway, key: str, **subscriptions: Any) -> AsyncIterator[OpenSession]:
    opened = OpenSession(gateway, key, **subscriptions)
    try:
        await opened.until(lambda s: bool(s.id), "opened")
        yield opened
    finally:
        await opened.stop()


async def test_pvs_join_and_leave_and_nothing_else_comes_again(gateway, admin_key, publisher):
    async with session(gateway, admin_key, main=pvs(1, 2, 3)) as opened:
        await opened.until(lambda s: bool(s.held("main")), "a baseline")
        client = opened.clients["main"]
        assert opened.held("main") == {1, 2, 3} and client.baseline_rows == 3
        await opened.acked(await opened.modify("main", add=pvs(3, 4, 5)))
        await opened.until(lambda s: s.held("main") == {1, 2, 3, 4, 5}, "two join")
        assert client.diff_rows == 2 and client.ended_baselines == 1
        await opened.acked(await opened.modify("main", remove=pvs(1, 5, 99)))
        await opened.until(lambda s: s.held("main") == {2, 3, 4}, "two leave")
        assert [p.reason for p in client.left] == [watch_pb2.LEAVE_REASON_NOT_SELECTED] * 2
        assert client.diff_rows == 2
        await publisher.publish(floats([setpoint(1), setpoint(4)], [7.0, 8.0]))
        await opened.until(lambda s: client.value(4) == 8.0, "a difference of what joined")
        assert opened.held("main") == {2, 3, 4} and client.diff_rows == 3


async def test_a_session_that_begins_empty_lives_and_takes_subscriptions(
    gateway, admin_key, publisher
):
    async with session(gateway, admin_key) as opened:
        await opened.until(lambda s: s.parts.count(("", "watch")) >= 2, "signs of life")
        spec = watch_pb2.WatchSpec(selector=pvs(7))
        assert not (await opened.acked(await opened.modify("one", replace=spec))).HasField("error")
        await opened.until(lambda s: s.held("one") == {7}, "its baseline")
        await opened.modify("two", replace=watch_pb2.WatchSpec(selector=pvs(7, 8)))
        await opened.until(lambda s: s.held("two") == {7, 8}, "another")
        await publisher.publish(floats([setpoint(7)], [3.0]))
        await opened.until(
            lambda s: {s.clients[name].value(7) for name in ("one", "two")} == {3.0}, "in each"
        )
        ended = await opened.modify("one", end=pb.SubscriptionEnd())
        await opened.acked(ended)
        seen = len(opened.parts)
        await publisher.publish(floats([setpoint(7)], [4.0]))
        await opened.until(lambda s: s.clients["two"].value(7) == 4.0, "the other goes on")
        assert all(name != "one" for name, _ in opened.parts[seen:])


async def test_a_refused_change_is_acknowledged_and_changes_nothing(gateway, admin_key, publisher):
    async with session(gateway, admin_key, main=pvs(1)) as opened:
        await opened.until(lambda s: bool(s.held("main")), "a baseline")
        unknown = selector_pb2.Selector(names=["NO:SUCH"])
        for subscription, action in (
            ("main", {"add": unknown}),
            ("main", {"replace": watch_pb2.WatchSpec(selector=unknown)}),
            ("new", {"replace": watch_pb2.WatchSpec(selector=unknown)}),
            ("none", {"add": pvs(1)}),
        ):
            ack = await opened.acked(await opened.modify(subscription, **action))
            assert ack.error.reason == errors_pb2.ERROR_REASON_NOT_FOUND, (subscription, action)
            assert "NO:SUCH" in ack.error.message or subscription == "none"
        await publisher.publish(floats([setpoint(1)], [2.0]))
        await opened.until(lambda s: s.clients["main"].value(1) == 2.0, "it goes on")
        assert opened.clients.keys() == {"main"}


async def test_a_change_that_is_sent_again_does_nothing_twice(gateway, admin_key):
    async with session(gateway, admin_key, main=pvs(1)) as opened:
        await opened.send(5, "main", add=pvs(2))
        await opened.send(5, "main", add=pvs(3))
        await opened.send(4, "main", add=pvs(4))
        await opened.send(6, "main", add=pvs(5))
        await opened.acked(6)
        await opened.until(lambda s: 5 in s.held("main"), "the next one")
        assert opened.held("main") == {1, 2, 5}
        assert opened.acks.keys() == {5, 6}


async def test_other_fields_bring_a_baseline_and_another_pace_does_not(gateway, admin_key):
    async with session(gateway, admin_key, main=pvs(1, 2)) as opened:
        await opened.until(lambda s: bool(s.held("main")), "a baseline")
        client = opened.clients["main"]
        slower = watch_pb2.WatchSpec(selector=pvs(2, 3), min_interval={"nanos": 300_000_000})
        await opened.acked(await opened.modify("main", replace=slower))
        await opened.until(lambda s: s.held("main") == {2, 3}, "what is replaced")
        assert client.ended_baselines == 1
        fewer = watch_pb2.WatchSpec(selector=pvs(2, 3), fields=watch_pb2.WATCH_FIELDS_SETPOINT)
        await opened.acked(await opened.modify("main", replace=fewer))
        await opened.until(lambda s: client.ended_baselines == 2, "a baseline")
        assert not client.rows[2].HasField("readback")


async def test_a_subscription_goes_on_from_its_token(gateway, admin_key, publisher):
    async with session(gateway, admin_key, main=pvs(1, 2)) as opened:
        await opened.acked(await opened.modify("main", add=pvs(3)))
        client = opened.clients["main"]
        await opened.until(lambda s: s.held("main") == {1, 2, 3}, "it joins")
        acked = opened.parts.index(("main", "ack"))
        await opened.until(
            lambda s: ("main", "checkpoint") in s.parts[acked:], "a token of what is watched now"
        )
    await publisher.publish(floats([setpoint(2)], [5.0]))
    rows = client.baseline_rows
    request = pb.OpenWatchRequest(
        subscriptions=[
            pb.Subscription(name="main", spec={"selector": pvs(1, 2, 3)}, token=client.token)
        ]
    )
    call = opened.stub.OpenWatch(request, metadata=opened.metadata)
    async with asyncio.timeout(60.0):
        async for message in call:
            if message.WhichOneof("part") == "watch":
                client.take(message.watch)
            # what was published meanwhile may come in the baseline, or after it
            if client.ended_baselines == 2 and client.value(2) == 5.0:
                break
    call.cancel()
    assert client.kept and not client.resyncs
    assert client.baseline_rows - rows <= 1


async def test_a_session_is_of_the_key_that_opened_it(gateway, admin_key, url):
    other = await make_first_key(url, "other", force=True)
    async with session(gateway, admin_key, main=pvs(1)) as opened:
        for key, wanted_session in ((other, opened.id), (admin_key, "no-such-session")):
            request = pb.ModifyWatchRequest(
                session=wanted_session, subscription="main", change=1, add=pvs(2)
            )

            async def refused(request: Any = request, key: str = key) -> bool:
                metadata = (("authorization", f"Bearer {key}"),)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await opened.stub.ModifyWatch(request, metadata=metadata)
                return reason_of(caught.value)[0] == "NOT_FOUND"

            await eventually(refused, "the gateway knows the key, and refuses")


async def test_a_change_may_come_to_any_gateway(rig, gateway, admin_key, url, publisher):
    second, other_key = await rig.gateway(), await make_first_key(url, "other", force=True)
    await eventually(second.serving, "ready")
    async with session(gateway, admin_key, main=pvs(1)) as opened:
        await opened.until(lambda s: bool(s.held("main")), "a baseline")
        opened.stub = pb_grpc.MonitorServiceStub(second.channel)
        await opened.acked(await opened.modify("main", add=pvs(2)))
        await opened.until(lambda s: s.held("main") == {1, 2}, "it joins")
        foreign = pb.ModifyWatchRequest(
            session=opened.id, subscription="main", change=9, add=pvs(3)
        )

        async def refused() -> bool:
            metadata = (("authorization", f"Bearer {other_key}"),)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await opened.stub.ModifyWatch(foreign, metadata=metadata)
            return reason_of(caught.value)[0] == "NOT_FOUND"

        await eventually(refused, "the gateway knows the key, and refuses")
        # who could send on the bus, but is no gateway
        for headers in ({}, {"x-drey-token": "x"}):
            raw = await rig.bus.request_answer(
                rig.bus.full_subject("sessions", opened.id.partition(".")[0]),
                foreign.SerializeToString(),
                headers,
                60.0,
            )
            reason = errors_pb2.ItemError.FromString(raw or b"").reason
            assert reason == errors_pb2.ERROR_REASON_UNAUTHENTICATED
        assert opened.held("main") == {1, 2}
        await gateway.end(signal.SIGKILL)

        async def gone() -> bool:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await opened.modify("main", add=pvs(3))
            reason, _ = reason_of(caught.value)
            if reason == "BUS_UNAVAILABLE":  # NATS has not seen the end of the gateway yet
                return False
            assert reason == "NOT_FOUND"
            assert "open one anew" in (caught.value.details() or "")
            return True

        await eventually(gone, "the session is known to have ended")


async def test_what_cannot_be_asked_for_is_refused_with_its_field(gateway, admin_key):
    arrow = {"selector": pvs(1), "form": form_pb2.VALUE_FORM_ARROW}
    one = pb.Subscription(name="a", spec={"selector": pvs(1)})
    for request, field in (
        (pb.OpenWatchRequest(subscriptions=[one, one]), "subscriptions[1].name"),
        (
            pb.OpenWatchRequest(subscriptions=[pb.Subscription(name="a", spec=arrow)]),
            "subscriptions[0].spec.form",
        ),
    ):
        stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            metadata = (("authorization", f"Bearer {admin_key}"),)
            async for _ in stub.OpenWatch(request, metadata=metadata):
                pass
        assert field in (caught.value.details() or "")
    async with session(gateway, admin_key, main=pvs(1)) as opened:
        for action in ({}, {"add": selector_pb2.Selector()}):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await opened.modify("main", **action)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_arrays_of_a_subscription_keep_to_its_limits_through_changes(
    gateway, admin_key, publisher
):
    """An hour between two of a PV: what joins comes at once, and what waits comes where it joins
    anew, or under other limits."""

    def elements(name: str, pv: int) -> list[float]:
        row = opened.clients[name].rows.get(pv) if name in opened.clients else None
        return [] if row is None else [*row.setpoint.extract.elements.float64_array.elements]

    async def publish(first: float) -> None:
        wave = np.arange(first, first + 100)
        await publisher.publish(float_array(setpoint(1), wave))
        await publisher.publish(float_array(setpoint(2), wave))

    hour: Any = {"max_elements": 4, "min_interval": Duration(seconds=3600)}
    await publish(0.0)
    async with session(gateway, admin_key) as opened:
        spec = watch_pb2.WatchSpec(selector=pvs(1), array_limits=hour)
        await opened.acked(await opened.modify("one", replace=spec))
        await opened.until(lambda s: elements("one", 1) == [0, 25, 50, 75], "an extract")
        await opened.acked(await opened.modify("one", add=pvs(2, 3)))
        await opened.until(lambda s: elements("one", 2) == [0, 25, 50, 75], "what joins")
        await publish(1000.0)
        await publisher.publish(floats([setpoint(3)], [9.0]))
        await opened.until(lambda s: s.clients["one"].value(3) == 9.0, "what is no array")
        assert elements("one", 1) == elements("one", 2) == [0, 25, 50, 75]
        await opened.acked(await opened.modify("one", remove=pvs(2)))
        await opened.acked(await opened.modify("one", add=pvs(2)))
        await opened.until(lambda s: elements("one", 2)[:1] == [1000], "what joins anew")
        assert elements("one", 1) == [0, 25, 50, 75]
        hour["max_elements"] = 2
        spec = watch_pb2.WatchSpec(selector=pvs(1, 2), array_limits=hour)
        await opened.acked(await opened.modify("one", replace=spec))
        await opened.until(lambda s: elements("one", 1) == [1000, 1050], "a new baseline")
        assert elements("one", 2) == [1000, 1050] and opened.held("one") == {1, 2}


async def test_changes_of_two_at_once_are_each_applied_or_not_at_all(gateway, admin_key, publisher):
    """Two programs change one session with the same numbers: of each number one is taken."""
    async with session(gateway, admin_key, main=pvs(1)) as opened:
        await opened.until(lambda s: s.held("main") == {1}, "a baseline")
        turns = range(2, 12)
        await asyncio.gather(
            *(opened.send(n, "main", add=pvs(n)) for n in turns),
            *(opened.send(n, "main", add=pvs(n + 20)) for n in turns),
        )
        await opened.acked(11)
        applied = set(opened.acks)
        # a later number may overtake an earlier one, which is then dropped as a repetition
        await opened.until(
            lambda s: len(s.held("main")) == 1 + len(applied), "what was acknowledged"
        )
        for number in applied:
            assert len({number, number + 20} & opened.held("main")) == 1, number


async def test_a_change_at_the_end_of_a_session_is_taken_or_refused(gateway, admin_key):
    """Never more than that, whatever the session was doing; and others do not feel it."""
    async with session(gateway, admin_key, main=pvs(1)) as other:
        for _ in range(5):
            opened = OpenSession(gateway, admin_key, main=pvs(1, 2))
            await opened.until(lambda s: bool(s.id), "opened")

            async def change(number: int, opened: OpenSession = opened) -> str:
                try:
                    await opened.send(number, "main", add=pvs(number))
                except grpc.aio.AioRpcError as error:
                    return reason_of(error)[0]
                return "taken"

            first = [asyncio.create_task(change(n)) for n in range(3, 8)]
            _, *outcomes = await asyncio.gather(opened.stop(), *first)
            assert set(outcomes) <= {"taken", "NOT_FOUND"}

            async def is_gone() -> bool:
                return await change(99) == "NOT_FOUND"

            await eventually(is_gone, "the session is gone")
        await other.acked(await other.modify("main", add=pvs(9)))
        await other.until(lambda s: s.held("main") == {1, 9}, "it lives")
